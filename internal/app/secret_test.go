package app

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

const hunter = "postgres://me:hunter2@db/pawl"

// Whatever prints a secret, alone or inside of something, prints ***.
func TestSecretIsNeverPrinted(t *testing.T) {
	t.Parallel()
	secret := NewSecret(hunter)
	type holder struct {
		Open   Secret
		Point  *Secret
		List   []Secret
		hidden Secret // methods of what is in here are out of reach for fmt
	}
	held := holder{secret, &secret, []Secret{secret}, secret}
	conf := Default()
	conf.Postgres.DSN = secret

	printed := map[string]string{}
	for verb := range strings.FieldsSeq("%v %+v %#v %s %q %x %X %d %t %p %c %U %e %T %10.3s") {
		for name, v := range map[string]any{"secret": secret, "pointer": &secret, "holder": held, "config": conf, "map": map[Secret]Secret{secret: secret}} {
			printed[verb+" of "+name] = fmt.Sprintf(verb, v)
		}
	}
	printed["print"] = fmt.Sprint(secret, held, conf)
	printed["error"] = fmt.Errorf("open %v: %w", secret, os.ErrNotExist).Error()
	marshal := func(name string, f func(any) ([]byte, error)) {
		for kind, v := range map[string]any{"secret": secret, "holder": held, "postgres": conf.Postgres, "map": map[string]any{"k": secret}} {
			if text, err := f(v); err == nil {
				printed[name+" of "+kind] = string(text)
			} else if name != "xml" {
				t.Errorf("%s of %s: %v", name, kind, err)
			}
		}
	}
	marshal("json", json.Marshal)
	marshal("yaml", func(v any) ([]byte, error) { return yaml.Dump(v) })
	marshal("xml", xml.Marshal)
	var logged bytes.Buffer
	for _, handler := range []slog.Handler{
		slog.NewJSONHandler(&logged, nil),
		slog.NewTextHandler(&logged, nil),
	} {
		slog.New(handler).Info("secret", slog.Any("secret", secret), slog.Any("holder", held), slog.Any("list", []any{secret, &secret}), slog.Any("config", conf))
	}
	printed["slog"] = logged.String()

	for how, text := range printed {
		if strings.Contains(text, "hunter2") || strings.Contains(text, fmt.Sprintf("%x", "hunter2")) || strings.Contains(text, fmt.Sprintf("%X", "hunter2")) {
			t.Errorf("%s gives the secret away: %s", how, text)
		}
		if strings.HasSuffix(how, " of secret") && !strings.Contains(text, hidden) && !strings.HasPrefix(how, "%T") && !strings.HasPrefix(how, "%p") {
			t.Errorf("%s is %q, want *** in it", how, text)
		}
	}
	if secret.Reveal() != hunter {
		t.Errorf("Reveal: %q", secret.Reveal())
	}
	if !secret.Equal(NewSecret(hunter)) || secret.Equal(Secret{}) || !(Secret{}).IsZero() || secret.IsZero() {
		t.Error("secrets do not compare by their texts")
	}
	if text := fmt.Sprintf("%s%v", Secret{}, Secret{}); text != "" {
		t.Errorf("an absent secret prints %q: nobody could tell it from one that is set", text)
	}
}

func TestConnStringReadsTheFileEachTime(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "dsn")
	postgres := Postgres{DSNFile: file}
	for _, text := range []string{hunter + "\n", "host=other password='x y '\r\n", "no newline"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := postgres.ConnString()
		if want := strings.TrimRight(text, "\r\n"); err != nil || got.Reveal() != want {
			t.Errorf("got %q and %v, want %q", got.Reveal(), err, want)
		}
	}
	for _, text := range []string{"", "\n", strings.Repeat("x", secretBytesMax+1)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := postgres.ConnString(); err == nil || !strings.Contains(err.Error(), "postgres.dsn_file") {
			t.Errorf("a file of %d bytes: got %v, want an error that names the setting", len(text), err)
		}
	}
	if _, err := (Postgres{DSNFile: file + "x"}).ConnString(); err == nil {
		t.Error("no error for a missing file")
	}
	if got, err := (Postgres{DSN: NewSecret(hunter)}).ConnString(); err != nil || got.Reveal() != hunter {
		t.Errorf("got %v and %v", got, err)
	}
}

// Headers may hold tokens under any name. Whoever looks at a configuration sees which there are, and
// nothing of what they say.
func TestHeaderValuesAreNeverPrinted(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.yaml")
	text := `application: shop
routes: [{topics: [in], handler: copy, config: {output: out}}]
outputs: {out: {topic: out}}
endpoints: {payments: {url: "https://pay.example", headers: {X-Plan: hunter2, X-Env: none}, header_files: {Authorization: /run/token}}}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	conf, origins, err := Load(LoadOptions{
		File: file, Hostname: testHost,
		Env: []string{"PROCESSOR_ENDPOINTS_PAYMENTS_HEADERS_X_ENV=hunter2-env"}, Set: []string{"endpoints.payments.headers.X-Set.1=hunter2-set"},
	})
	if err != nil {
		t.Fatal(err)
	}
	payments := conf.Endpoints["payments"]
	want := map[string]string{"X-Plan": "hunter2", "X-Env": "hunter2-env", "X-Set.1": "hunter2-set"}
	if got := payments.headers(); !maps.Equal(got, want) {
		t.Errorf("headers are %v, want %v", got, want)
	}
	var printed bytes.Buffer
	if err := origins.Print(&printed, conf); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"X-Plan: \"***\" # " + file + ":4", "X-Env: \"***\" # env PROC", "Authorization: /run/token # "} {
		if !strings.Contains(printed.String(), line) {
			t.Errorf("printed is\n%s\nwant in it: %s", printed.String(), line)
		}
	}
	listed, err := json.Marshal(origins.Settings(conf))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&printed, "%s %v %+v %#v %v", listed, conf, conf, conf, payments.Headers)
	slog.New(slog.NewJSONHandler(&printed, nil)).Info("said", slog.Any("conf", conf), slog.Any("endpoint", payments))
	if strings.Contains(printed.String(), "hunter2") {
		t.Errorf("a value is printed:\n%s", printed.String())
	}
}
