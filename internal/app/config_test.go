package app

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pawl/internal/testkit/golden"
)

const example = "../../deploy/config.example.yaml"

// minimal is the least that loads.
const minimal = `application: shop
routes: [{topics: [raw], handler: copy, config: {output: out}}]
outputs: {out: {topic: out}}
`

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// load wants a configuration without problems.
func load(t *testing.T, opts LoadOptions) (Config, *Origins) {
	t.Helper()
	if opts.Hostname == nil {
		opts.Hostname = testHost
	}
	conf, origins, err := Load(opts)
	if err != nil {
		t.Fatal(err)
	}
	return conf, origins
}

func TestLoadLaysDefaultsFileEnvironmentAndSetOverEachOther(t *testing.T) {
	t.Parallel()
	file := writeConfig(t, minimal+"txn: {lanes: 1}\n")
	lanes := func(conf Config) any { return conf.Txn.Lanes }
	for name, test := range map[string]struct {
		opts   LoadOptions
		get    func(Config) any
		path   string
		want   any
		origin string
	}{
		"default": {
			path: "txn.drain_timeout", get: func(c Config) any { return c.Txn.DrainTimeout.Std() }, want: 25 * time.Second, origin: "default",
		},
		"default of an entry": {
			path: "outputs.out.partitions", get: func(c Config) any { return c.Outputs["out"].Partitions }, want: int32(12), origin: "default",
		},
		"file": {path: "txn.lanes", get: lanes, want: 1, origin: file + ":4"},
		"environment over file": {
			opts: LoadOptions{Env: []string{"PROCESSOR_TXN_LANES=2"}},
			path: "txn.lanes", get: lanes, want: 2, origin: "env PROCESSOR_TXN_LANES",
		},
		"last variable of a name": {
			opts: LoadOptions{Env: []string{"PROCESSOR_TXN_LANES=7", "PROCESSOR_TXN_LANES=2"}},
			path: "txn.lanes", get: lanes, want: 2, origin: "env PROCESSOR_TXN_LANES",
		},
		"set over environment": {
			opts: LoadOptions{Env: []string{"PROCESSOR_TXN_LANES=2"}, Set: []string{"txn.lanes=3"}},
			path: "txn.lanes", get: lanes, want: 3, origin: "--set",
		},
		"last set": {
			opts: LoadOptions{Set: []string{"txn.lanes=3", "txn.lanes=4"}},
			path: "txn.lanes", get: lanes, want: 4, origin: "--set",
		},
		"explicit zero": {
			opts: LoadOptions{Set: []string{"txn.lanes=0"}},
			path: "txn.lanes", get: lanes, want: 0, origin: "--set",
		},
		"list in a variable": {
			opts: LoadOptions{Env: []string{"PROCESSOR_KAFKA_BROKERS= a:1, b:2,"}},
			path: "kafka.brokers", get: func(c Config) any { return c.Kafka.Brokers }, want: []string{"a:1", "b:2"}, origin: "env PROCESSOR_KAFKA_BROKERS",
		},
		"setting of an existing output in a variable": {
			opts: LoadOptions{Env: []string{"PROCESSOR_OUTPUTS_OUT_TOPIC=else"}},
			path: "outputs.out.topic", get: func(c Config) any { return c.Outputs["out"].Topic }, want: "else", origin: "env PROCESSOR_OUTPUTS_OUT_TOPIC",
		},
		"whole map in a variable, and one of its entries in another": {
			opts: LoadOptions{Env: []string{
				"PROCESSOR_OUTPUTS_NEW_PARTITIONS=3",
				"PROCESSOR_OUTPUTS={out: {topic: one, partitions: 1}, new: {topic: two, partitions: 2}}",
			}},
			path: "outputs.new", get: func(c Config) any { return c.Outputs },
			want:   map[string]Output{"out": {Topic: "one", Partitions: 1, Replication: -1}, "new": {Topic: "two", Partitions: 3, Replication: -1}},
			origin: "env PROCESSOR_OUTPUTS",
		},
		"handler of a route": {
			opts: LoadOptions{Env: []string{"PROCESSOR_ROUTES_0_TOPICS=a,b"}, Set: []string{"routes.0.config.output=more", "outputs.more.topic=more"}},
			path: "routes.0.config.output", get: func(c Config) any { return c.Routes },
			want:   []Route{{Topics: []string{"a", "b"}, Handler: "copy", Config: map[string]any{"output": "more"}}},
			origin: "--set",
		},
		"one more route": {
			opts: LoadOptions{Set: []string{"routes.1={topics: [x], handler: copy, config: {output: out}}", "routes.1.topics=y"}},
			path: "routes.1.handler", get: func(c Config) any { return c.Routes[1] },
			want:   Route{Topics: []string{"y"}, Handler: "copy", Config: map[string]any{"output": "out"}},
			origin: "--set",
		},
		"topic settings with dots": {
			opts: LoadOptions{Set: []string{"outputs.out.settings.cleanup.policy=compact,delete"}},
			path: "outputs.out.settings.cleanup.policy", get: func(c Config) any { return c.Outputs["out"].Settings },
			want: map[string]string{"cleanup.policy": "compact,delete"}, origin: "--set",
		},
		"instance from the host's name": {
			path: "instance", get: func(c Config) any { return c.Instance }, want: "host-1-example-org", origin: "default: host name",
		},
		"instance": {
			opts: LoadOptions{Env: []string{"PROCESSOR_INSTANCE=pod-3"}},
			path: "instance", get: func(c Config) any { return c.Instance }, want: "pod-3", origin: "env PROCESSOR_INSTANCE",
		},
		"secret": {
			opts: LoadOptions{Env: []string{"PROCESSOR_POSTGRES_DSN=" + hunter}},
			path: "postgres.dsn", get: func(c Config) any { return c.Postgres.DSN.Reveal() }, want: hunter, origin: "env PROCESSOR_POSTGRES_DSN",
		},
		"secret's file": {
			opts: LoadOptions{Env: []string{"PROCESSOR_KAFKA_SASL_PASSWORD_FILE=/run/pw"}, Set: []string{"kafka.sasl.mechanism=SCRAM-SHA-256", "kafka.sasl.username=me"}},
			path: "kafka.sasl.password_file", get: func(c Config) any { return c.Kafka.SASL.PasswordFile }, want: "/run/pw", origin: "env PROCESSOR_KAFKA_SASL_PASSWORD_FILE",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.opts.File = file
			conf, origins := load(t, test.opts)
			if diff := cmp.Diff(test.want, test.get(conf)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.path, diff)
			}
			if got := origins.Of(test.path).String(); got != test.origin {
				t.Errorf("%s comes from %s, want %s", test.path, got, test.origin)
			}
		})
	}
}

// The file says where the connection string lies, and a pod brings another: one of the two wins, by
// its layer, whatever their names.
func TestHigherLayerWinsBetweenSecretAndItsFile(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		file, env, dsn, dsnFile string
	}{
		"file only":               {file: "dsn_file: /a", dsnFile: "/a"},
		"variable over file":      {file: "dsn_file: /a", env: "PROCESSOR_POSTGRES_DSN=" + hunter, dsn: hunter},
		"variable's file on file": {file: "dsn: x", env: "PROCESSOR_POSTGRES_DSN_FILE=/b", dsnFile: "/b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf, _ := load(t, LoadOptions{File: writeConfig(t, minimal+"postgres: {"+test.file+"}\n"), Env: []string{test.env}})
			if conf.Postgres.DSN.Reveal() != test.dsn || conf.Postgres.DSNFile != test.dsnFile {
				t.Errorf("got dsn %q and dsn_file %q, want %q and %q", conf.Postgres.DSN.Reveal(), conf.Postgres.DSNFile, test.dsn, test.dsnFile)
			}
		})
	}
}

// Everything can come from the environment, as in a container without files.
func TestLoadNeedsNoFile(t *testing.T) {
	t.Parallel()
	conf, origins := load(t, LoadOptions{Env: []string{
		"PROCESSOR_APPLICATION=shop",
		"PROCESSOR_ROUTES=[{topics: [raw], handler: copy, config: {output: out}}]",
		"PROCESSOR_OUTPUTS={out: {topic: out}}",
		"HOME=/root", "PROCESSOR_SERVICE_HOST=10.0.0.1", "PROCESSOR_PORT=tcp://10.0.0.1:9090",
	}})
	if conf.Application != "shop" || len(conf.Routes) != 1 || conf.Outputs["out"].Topic != "out" {
		t.Errorf("got %+v", conf)
	}
	if warnings := origins.Warnings(); len(warnings) > 0 {
		t.Errorf("warnings: %v", warnings)
	}
}

func TestLoadWarnsOfVariablesThatSetNothing(t *testing.T) {
	t.Parallel()
	_, origins := load(t, LoadOptions{
		File:     writeConfig(t, minimal),
		Env:      []string{"PROCESSOR_TXN_RECORD_MAX=7", "PROCESSOR_CONFIG=x", "PROCESSOR_OUTPUTS_OUR_TOPIC=x"},
		EnvKnown: []string{"PROCESSOR_CONFIG"},
	})
	want := "env PROCESSOR_OUTPUTS_OUR_TOPIC: no setting has this name, did you mean PROCESSOR_OUTPUTS_OUT_TOPIC?\n" +
		"env PROCESSOR_TXN_RECORD_MAX: no setting has this name, did you mean PROCESSOR_TXN_RECORDS_MAX?"
	if got := origins.Warnings().Error(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestLoadNeedsAHostName(t *testing.T) {
	t.Parallel()
	_, _, err := Load(LoadOptions{File: writeConfig(t, minimal), Hostname: func() (string, error) { return "", errors.New("no uname") }})
	if err == nil || !strings.Contains(err.Error(), "instance: is empty, and the host's name cannot be taken: no uname") {
		t.Errorf("got %v", err)
	}
}

// What is printed says the same again, each value with its origin, and hides the secret.
func TestPrintLoadsAgain(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]LoadOptions{
		"minimal": {File: writeConfig(t, minimal)},
		"example": {File: example, Env: []string{"PROCESSOR_TXN_TIMEOUT=1m", "PROCESSOR_APPLICATION=123", "PROCESSOR_ENDPOINTS_PAYMENTS_RATE=2.5"}, Set: []string{
			"outputs.archive.settings.min.insync.replicas=2", "instance=true", "kafka.tls.enabled=true", `kafka.tls.ca_file=a: "b" # c`, "routes.1.topics=123.effect-results",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf, origins := load(t, opts)
			var printed bytes.Buffer
			if err := origins.Print(&printed, conf); err != nil {
				t.Fatal(err)
			}
			again, _ := load(t, LoadOptions{File: writeConfig(t, printed.String())})
			if diff := cmp.Diff(conf, again, equateEmpty); diff != "" {
				t.Errorf("printed and loaded (-want +got):\n%s\n%s", diff, printed.String())
			}
			if name == "example" {
				text := strings.ReplaceAll(printed.String(), example, "config.example.yaml")
				golden.Is(t, "testdata/print.golden", text)
			}
		})
	}
}

// equateEmpty takes an empty map or list for an absent one, as every reader of Config does.
var equateEmpty = cmp.FilterValues(func(a, b any) bool {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	empty := func(v reflect.Value) bool {
		return (v.Kind() == reflect.Map || v.Kind() == reflect.Slice) && v.Len() == 0
	}
	return x.IsValid() && y.IsValid() && empty(x) && empty(y)
}, cmp.Ignore())

func TestSettingsHideSecretsAndNameVariables(t *testing.T) {
	t.Parallel()
	conf, origins := load(t, LoadOptions{File: writeConfig(t, minimal), Env: []string{"PROCESSOR_POSTGRES_DSN=" + hunter}})
	for _, want := range []Setting{
		{Path: "postgres.dsn", Env: "PROCESSOR_POSTGRES_DSN", Value: NewSecret(hunter), Origin: "env PROCESSOR_POSTGRES_DSN"},
		{Path: "outputs.out.settings", Env: "PROCESSOR_OUTPUTS_OUT_SETTINGS", Value: struct{}{}, Origin: "default"},
		{Path: "txn.timeout", Env: "PROCESSOR_TXN_TIMEOUT", Value: conf.Txn.Timeout, Origin: "default"},
	} {
		found := slices.ContainsFunc(origins.Settings(conf), func(s Setting) bool { return cmp.Equal(s, want) })
		if !found {
			t.Errorf("no %+v in the list", want)
		}
	}
}

// A typing error in a tag would switch a check off.
func TestTagsAreWellFormed(t *testing.T) {
	t.Parallel()
	conf := Default()
	conf.Routes = []Route{{}}
	conf.Outputs = map[string]Output{"NAME": DefaultOutput()}
	conf.Endpoints = map[string]Endpoint{"NAME": DefaultEndpoint()}
	variables := map[string]string{}
	for _, s := range settings(reflect.ValueOf(conf)) {
		if s.field.doc == "" || !strings.HasSuffix(s.field.doc, ".") {
			t.Errorf("%s: doc %q is no sentence", s.path, s.field.doc)
		}
		if s.field.span != "" {
			low, high := bounds(s.value.Type(), s.field.span) // panics on a malformed one
			if low.CanInt() && low.Int() > high.Int() || !inside(s.value, s.field.span) && s.path != "outputs.NAME.replication" {
				t.Errorf("%s: the default %s is not inside of %s", s.path, text(s.value), s.field.span)
			}
		}
		if s.field.enum != nil && !slices.Contains(s.field.enum, text(s.value)) {
			t.Errorf("%s: the default %s is none of %v", s.path, text(s.value), s.field.enum)
		}
		if other, twice := variables[envName(s.path)]; twice {
			t.Errorf("%s and %s have one variable", s.path, other)
		}
		variables[envName(s.path)] = s.path
	}
	for _, p := range conf.Validate() {
		if !p.absent && !strings.HasPrefix(p.Path, "routes.") && !strings.HasPrefix(p.Path, "outputs.") && !strings.HasPrefix(p.Path, "endpoints.") {
			t.Errorf("the defaults have a problem: %s", p)
		}
	}
}
