package handlers

import (
	"bytes"
	"os"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"pawl/internal/message"
)

// schemas compiles schema/*.json: what other teams read must be what the code does.
func schemas(tb testing.TB) map[string]*jsonschema.Schema {
	tb.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	compiler.AssertContent()
	files, err := os.ReadDir("schema")
	if err != nil {
		tb.Fatal(err)
	}
	compiled := make(map[string]*jsonschema.Schema)
	for _, file := range files {
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(readFile(tb, "schema/"+file.Name())))
		if err != nil {
			tb.Fatalf("%s: %v", file.Name(), err)
		}
		if err := compiler.AddResource(file.Name(), document); err != nil {
			tb.Fatalf("%s: %v", file.Name(), err)
		}
		if compiled[file.Name()], err = compiler.Compile(file.Name()); err != nil {
			tb.Fatalf("%s: %v", file.Name(), err)
		}
	}
	return compiled
}

func valid(schema *jsonschema.Schema, value []byte) error {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	if err != nil {
		return err
	}
	return schema.Validate(document)
}

func TestEverythingWrittenFitsItsSchema(t *testing.T) {
	t.Parallel()
	all := schemas(t)
	orders := mustNew(t, "orders", map[string]any{"review": "review", "review_above": map[string]any{"EUR": 100_000, "JPY": 100_000}})
	results := mustNew(t, "order-results", map[string]any{"void": "refunds"})
	rapid.Check(t, func(t *rapid.T) {
		fits := func(name string, value []byte) {
			if err := valid(all[name], value); err != nil {
				t.Fatalf("%v\n%s", err, value)
			}
		}
		run := func(handler Handler, value []byte) []message.Effect {
			out, err := handle(handler, value)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range out.Outs() {
				if o.Output == "ledger" {
					fits("journal.v1.json", o.Value)
				} else {
					fits("order-event.v1.json", o.Value)
				}
			}
			for _, effect := range out.Effects() {
				fits("charge.v1.json", effect.Body)
			}
			return out.Effects()
		}
		value := drawOrder(t, "o-1")
		fits("order.v1.json", value)
		for _, effect := range run(orders, value) {
			for _, status := range []string{"done", "dead", "unknown", "duplicate", "conflict"} {
				event := resultEvent(effect, status, rapid.SampledFrom([]int{0, 402, 503}).Draw(t, "http status"))
				fits("effect-result.v1.json", event)
				run(results, event)
			}
		}
	})
}

// What orders rejects for its shape, the schema rejects too, so that a producer who checks against
// the schema learns it before we do. Two reasons are beyond a schema: the route's own settings and
// the size of a product.
func TestSchemaRejectsWhatOrdersRejects(t *testing.T) {
	t.Parallel()
	schema := schemas(t)["order.v1.json"]
	beyond := map[string]bool{ReasonUnknownTier: true, ReasonUnknownTax: true, ReasonUnknownCurrency: true, ReasonBadAmount: true, ReasonValueTooLarge: true, ReasonBadJSON: true, ReasonNoValue: true}
	for _, test := range orderRejects() {
		switch {
		case beyond[test.want] || test.name == "deep nesting":
		case test.name == "version as fraction":
			// JSON Schema counts 1.0 as the integer 1; orders wants it written as one.
		case valid(schema, []byte(test.value)) == nil:
			t.Errorf("the schema accepts %q, orders rejects it with %s", test.name, test.want)
		}
	}
}
