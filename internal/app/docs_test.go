package app

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/google/go-cmp/cmp"

	"pawl/internal/kafka"
	"pawl/internal/testkit/golden"
)

// The schema in the repository is the one that `config schema` prints.
func TestSchemaIsCommitted(t *testing.T) {
	t.Parallel()
	schema, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	golden.Is(t, "../../deploy/config.schema.json", schema)
}

// Nobody has to keep the table of settings up to date.
func TestDocumentationListsEverySetting(t *testing.T) {
	t.Parallel()
	golden.Is(t, "../../docs/configuration.md", documentation())
}

// sample has one entry in every list and map, so that a walk sees every setting there is.
func sample() Config {
	conf := Default()
	conf.Routes = []Route{{}}
	conf.Outputs = map[string]Output{"NAME": DefaultOutput()}
	conf.Endpoints = map[string]Endpoint{"NAME": DefaultEndpoint()}
	return conf
}

func documentation() []byte {
	var page bytes.Buffer
	page.WriteString(`# Settings

<!-- Written by the tests of internal/app: go test ./internal/app -run Documentation -update -->

One YAML file, under environment variables, under ` + "`--set PATH=VALUE`" + `: the later wins. The variable of a
setting is ` + "`PROCESSOR_`" + ` and its path, upper-cased, with ` + "`_`" + ` for every other sign: ` + "`txn.lanes`" + ` is
` + "`PROCESSOR_TXN_LANES`, `outputs.priced.topic` is `PROCESSOR_OUTPUTS_PRICED_TOPIC`, `routes.0.handler` is\n`PROCESSOR_ROUTES_0_HANDLER`" + `.
Lists of names are separated by commas there, everything bigger is YAML: ` + "`PROCESSOR_ROUTES='[{topics: [in], handler: copy}]'`" + `.
A whole list or map replaces what stands below it. An explicit 0 is judged like any other value, it never means the default.
Durations are written as ` + "`500ms`, `20s`, `1h30m`, `14d`, sizes as `8MiB`, `500kB`, `4096`" + `.

` + "`processor check`" + ` says everything that is wrong, ` + "`processor config print`" + ` where each value comes from,
` + "`processor config schema`" + ` gives editors the schema. A file with every setting is ` + "[config.example.yaml](../deploy/config.example.yaml)" + `.
`)
	section := "-"
	for _, s := range settings(reflect.ValueOf(sample())) {
		if s.shape == list || s.shape == named && s.value.Len() > 0 {
			continue
		}
		top, _, nested := strings.Cut(s.path, ".")
		if !nested {
			top = ""
		}
		if top != section {
			section = top
			title := "`" + top + "`"
			if top == "" {
				title = "Names"
			}
			fmt.Fprintf(&page, "\n## %s\n\n", title)
			for f := range reflect.TypeFor[Config]().Fields() {
				if inner := fieldOf(f); inner.key == top {
					fmt.Fprintf(&page, "%s\n\n", inner.doc)
				}
			}
			page.WriteString("| setting | default | allowed | meaning |\n|---|---|---|---|\n")
		}
		fmt.Fprintf(&page, "| `%s` | %s | %s | %s |\n", strings.Replace(s.path, "routes.0", "routes.N", 1), shown(s), allowed(s.field), s.field.doc)
	}
	return page.Bytes()
}

func shown(s setting) string {
	switch {
	case s.field.required && (s.value.IsZero() || s.shape != scalar && s.value.Len() == 0):
		return "must be given"
	case s.shape == named:
		return "`{}`"
	case s.shape == texts:
		return "`[" + strings.Join(s.value.Interface().([]string), ", ") + "]`"
	case text(s.value) == "":
		return "empty"
	default:
		return "`" + text(s.value) + "`"
	}
}

func allowed(f field) string {
	if f.enum == nil {
		return f.span
	}
	var values []string
	for _, value := range f.enum {
		if value == "" {
			value = "empty"
		}
		values = append(values, value)
	}
	return strings.Join(values, ", ")
}

// The example is complete, has no problems, and tells the truth about defaults.
func TestExampleHasEverySettingAtItsDefault(t *testing.T) {
	t.Parallel()
	conf, origins := load(t, LoadOptions{File: example})
	if warnings := origins.Warnings(); len(warnings) > 0 {
		t.Errorf("warnings: %v", warnings)
	}
	own := []string{"application", "routes", "outputs", "endpoints"} // what no default can know
	defaults := map[string]string{}
	for _, s := range settings(reflect.ValueOf(Default())) {
		defaults[s.path] = text(s.value)
	}
	for _, s := range settings(reflect.ValueOf(conf)) {
		if s.path != "instance" && origins.Of(s.path).Kind != FromFile && s.shape != free {
			t.Errorf("%s is not in the example", s.path)
		}
		top, _, _ := strings.Cut(s.path, ".")
		if want, known := defaults[s.path]; known && s.path != "instance" && text(s.value) != want && !slices.Contains(own, top) {
			t.Errorf("%s is %s in the example, but the default is %s", s.path, text(s.value), want)
		}
	}
	for name, output := range conf.Outputs {
		if output.Partitions != DefaultOutput().Partitions || output.Replication != DefaultOutput().Replication {
			t.Errorf("outputs.%s differs from the defaults of an output", name)
		}
	}
	want := DefaultEndpoint()
	want.URL, want.AllowPrivate = conf.Endpoints["payments"].URL, true // the example's receiver is on this host
	if !cmp.Equal(want, conf.Endpoints["payments"], equateEmpty) {
		t.Errorf("endpoints.payments is %+v, the defaults are %+v", conf.Endpoints["payments"], want)
	}
}

// The schema knows the example, and what it refuses Load refuses too.
func TestSchemaAgreesWithLoad(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := yaml.Load(text, &file); err != nil {
		t.Fatal(err)
	}
	schema, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var rules map[string]any
	if err := yaml.Load(schema, &rules); err != nil { // JSON is YAML
		t.Fatal(err)
	}
	compare(t, "", file, rules)
}

// compare holds a document against the keywords of JSON Schema that Schema uses.
func compare(t *testing.T, path string, value any, rules map[string]any) {
	t.Helper()
	properties, _ := rules["properties"].(map[string]any)
	switch value := value.(type) {
	case map[string]any:
		for _, key := range asList(rules["required"]) {
			if _, found := value[key.(string)]; !found {
				t.Errorf("%s: the schema demands %s", path, key)
			}
		}
		for key, inner := range value {
			if known, found := properties[key].(map[string]any); found {
				compare(t, join(path, key), inner, known)
			} else if other, found := rules["additionalProperties"].(map[string]any); found {
				compare(t, join(path, key), inner, other)
			} else if rules["additionalProperties"] == false {
				t.Errorf("%s: the schema does not know %s", path, key)
			}
		}
	case []any:
		items, _ := rules["items"].(map[string]any)
		for _, inner := range value {
			compare(t, path, inner, items)
		}
	default:
		if enum := asList(rules["enum"]); enum != nil && !slices.Contains(enum, value) {
			t.Errorf("%s: %v is none of %v", path, value, enum)
		}
		if kind, said := rules["type"]; said && kind != kindOf(value) && (kind != "number" || kindOf(value) != "integer") {
			t.Errorf("%s: %v is no %s", path, value, kind)
		}
	}
}

func asList(v any) []any {
	items, _ := v.([]any)
	return items
}

func kindOf(v any) string {
	switch v.(type) {
	case string:
		return "string"
	case int:
		return "integer"
	case float64:
		return "number"
	case bool:
		return "boolean"
	default:
		return fmt.Sprintf("%T", v)
	}
}

// The table of rights is that of kafka.Rights, which a real broker is asked about (TestServiceNeedsItsTableOfRightsAndNoMore).
func TestSecurityPageHasTheTableOfRights(t *testing.T) {
	t.Parallel()
	conf := Config{
		Application: "<application>", Instance: "<instance>",
		Routes:   []Route{{Topics: []string{"each input", "<application>.effect-results"}}},
		Outputs:  map[string]Output{"any": {Topic: "each output"}},
		Effects:  Effects{Enabled: true},
		Postgres: Postgres{DSN: NewSecret("any")},
	}
	var rows bytes.Buffer
	rows.WriteString("\n\n| on | name | operations | because |\n|---|---|---|---|\n")
	for _, right := range kafka.Rights(conf.KafkaConfig(nil), conf.Preflight()) {
		name := right.Name
		if !strings.HasPrefix(name, "each ") {
			name = "`" + name + "`"
		}
		if right.Prefixed {
			name += " and all that begin so"
		}
		fmt.Fprintf(&rows, "| %s | %s | %s | %s |\n", right.Resource, name, strings.Join(right.Operations, ", "), right.Why)
	}
	rows.WriteString("\n")
	const path, end = "../../docs/security.md", "<!-- end of rights -->"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(page), " -run Security -update -->")
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for the table of rights", path)
	}
	golden.Is(t, path, []byte(before+" -run Security -update -->"+rows.String()+end+after))
}
