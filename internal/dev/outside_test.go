package dev

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pawl/internal/app"
)

// Where no Postgres can be had, nothing is started, the reason is told, and the processors get a
// configuration without a ledger.
func TestWithoutPostgresThereIsNoLedger(t *testing.T) {
	t.Parallel()
	missing := func() error { return errors.New("no Postgres server binaries found\nand more") }
	r := &rig{config: Config{postgres: missing}, folder: t.TempDir()}
	if err := r.openOutside(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	if r.outside != nil || r.bare != "no Postgres server binaries found" {
		t.Errorf("outside = %v, because %q", r.outside, r.bare)
	}
	if err := r.outside.close(); err != nil {
		t.Errorf("close nothing: %v", err)
	}
	if got := r.outside.instanceArguments("a"); len(got) != 0 {
		t.Errorf("processors are told %v about a ledger that is not there", got)
	}
	conf := writtenConfig(t, nil)
	if conf.HasLedger() || conf.Endpoints["payments"].URL == "" {
		t.Errorf("configuration = %+v", conf)
	}
}

// With a ledger the configuration names its database by file, never by password, and the endpoint by
// its address, and tells each processor to say who it is.
func TestProcessorsAreToldAboutTheLedger(t *testing.T) {
	t.Parallel()
	e, err := OpenEndpoint(t.Context(), EndpointConfig{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.listener.Close()
	o := &outside{dsnFile: filepath.Join(t.TempDir(), "dsn"), endpoint: e}
	arguments := o.instanceArguments("b")
	if !slices.Contains(arguments, "--migrate") {
		t.Errorf("arguments = %v: nobody brings the schema", arguments)
	}
	conf := writtenConfig(t, o, arguments[slices.Index(arguments, "--set")+1])
	payments := conf.Endpoints["payments"]
	if conf.Postgres.DSNFile != o.dsnFile || payments.URL != e.URL() || !payments.AllowPrivate || payments.Headers[senderHeader].Reveal() != "b" {
		t.Errorf("postgres = %+v, payments = %+v", conf.Postgres, payments)
	}
	if late := endpointLateBy; payments.Timeout.Std() >= late {
		t.Errorf("calls time out after %s, want sooner than late answers come, %s", payments.Timeout.Std(), late)
	}
	if !strings.HasSuffix(payments.URL, chargesPath) {
		t.Errorf("URL = %s", payments.URL)
	}
}

func writtenConfig(t *testing.T, o *outside, sets ...string) app.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := writeSettings(file, []string{"127.0.0.1:1001"}, o); err != nil {
		t.Fatal(err)
	}
	conf, origins, err := app.Load(app.LoadOptions{File: file, Set: append(sets, "instance=a")})
	if err != nil {
		t.Fatal(err)
	}
	if warnings := origins.Warnings(); len(warnings) > 0 {
		t.Errorf("warnings: %v", warnings)
	}
	return conf
}
