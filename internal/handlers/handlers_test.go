package handlers

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestNewRefusesSettingsAndSaysWhatToWrite(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, handler string
		config        map[string]any
		outputs       []string
		endpoints     []string
		want          []string // parts of the error, in order
	}{
		{"unknown handler", "coppy", nil, outputs(), nil, []string{`"coppy"`, "copy, order-results, orders"}},
		{"no output", "copy", nil, outputs(), nil, []string{"config.output", "is not set", "priced, ledger, review"}},
		{"no output at all", "copy", nil, nil, nil, []string{"config.output", "(none)"}},
		{"null output", "copy", map[string]any{"output": nil}, outputs(), nil, []string{"config.output", "is not set"}},
		{"unknown output", "copy", map[string]any{"output": "pricd"}, outputs(), nil, []string{"config.output", `"pricd" is not configured`, "add it under outputs"}},
		{"output of wrong type", "copy", map[string]any{"output": 5}, outputs(), nil, []string{"config.output", "is 5, want a string"}},
		{"unknown key", "copy", map[string]any{"output": "priced", "ouput": "x"}, outputs(), nil, []string{"config.ouput", "is unknown", "knows output"}},
		{"default outputs missing", "orders", nil, []string{"other"}, nil, []string{"config.priced", "config.ledger", "config.endpoint", "add it under endpoints"}},
		{"default endpoint missing", "order-results", nil, outputs(), nil, []string{`config.endpoint: endpoint "payments" is not configured`}},
		{"void names no endpoint", "order-results", map[string]any{"void": "nowhere"}, outputs(), endpoints(), []string{`config.void: endpoint "nowhere"`}},
		{"review without limits", "orders", map[string]any{"review": "review"}, outputs(), endpoints(), []string{"config.review", "need each other"}},
		{"limits without review", "orders", map[string]any{"review_above": map[string]any{"EUR": 5}}, outputs(), endpoints(), []string{"config.review", "need each other"}},
		{"limits of wrong type", "orders", map[string]any{"review_above": 5}, outputs(), endpoints(), []string{"config.review_above", "want a map"}},
		{"limit in no currency", "orders", map[string]any{"review": "review", "review_above": map[string]any{"EURO": 5}}, outputs(), endpoints(), []string{"config.review_above.EURO", "ISO 4217"}},
		{"limit with too many decimals", "orders", map[string]any{"review": "review", "review_above": map[string]any{"JPY": "5.5"}}, outputs(), endpoints(), []string{"config.review_above.JPY", "decimals"}},
		{"float percentage", "orders", map[string]any{"discounts": map[string]any{"standard": 2.5}}, outputs(), endpoints(), []string{"config.discounts.standard", "in quotes"}},
		{"percentage over 100", "orders", map[string]any{"taxes": map[string]any{"standard": "100.1"}}, outputs(), endpoints(), []string{"config.taxes.standard", "want 0..100"}},
		{"percentage with exponent", "orders", map[string]any{"taxes": map[string]any{"standard": "1e1"}}, outputs(), endpoints(), []string{"config.taxes.standard", "plain decimal"}},
		{"tier that needs escaping", "orders", map[string]any{"discounts": map[string]any{`go"ld`: "1"}}, outputs(), endpoints(), []string{"config.discounts", "no usable name"}},
		{"all problems at once", "orders", map[string]any{"priced": "x", "ledger": 1, "zzz": 1}, outputs(), endpoints(), []string{"config.priced", "config.ledger", "config.zzz"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := New(test.handler, Settings{Config: test.config, Outputs: test.outputs, Endpoints: test.endpoints})
			if err == nil {
				t.Fatal("accepted")
			}
			rest := err.Error()
			for _, part := range test.want {
				_, after, found := strings.Cut(rest, part)
				if !found {
					t.Fatalf("error lacks %q:\n%v", part, err)
				}
				rest = after
			}
		})
	}
}

func TestNewAcceptsEveryHandlerWithDefaults(t *testing.T) {
	t.Parallel()
	if got, want := strings.Join(Names(), " "), "copy order-results orders"; got != want {
		t.Fatalf("names are %s, want %s", got, want)
	}
	mustNew(t, "copy", map[string]any{"output": "priced"})
	mustNew(t, "orders", nil)
	mustNew(t, "order-results", map[string]any{})
	mustNew(t, "orders", map[string]any{
		"priced": "priced", "ledger": "ledger", "review": "review", "endpoint": "payments",
		"review_above": map[string]any{"EUR": 1000, "JPY": "150000"},
		"discounts":    map[string]any{"staff": "30"}, "taxes": map[string]any{"zero": 0},
	})
}

// Metrics labels come from Reasons: a constant that is not in it would open the set.
func TestReasonsListsEveryConstantOnce(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "reject.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var constants []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if ok && strings.HasPrefix(spec.Names[0].Name, "Reason") {
			text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			constants = append(constants, text)
		}
		return true
	})
	listed := slices.Sorted(slices.Values(Reasons()))
	slices.Sort(constants)
	if len(constants) == 0 || !slices.Equal(constants, listed) || len(slices.Compact(listed)) != len(constants) {
		t.Errorf("constants %v, listed %v", constants, listed)
	}
}

func TestRejectTextIsOneBoundedPrintableLine(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"a\nb\r\n\x00\xff", strings.Repeat("é", 1000), strings.Repeat("\xff", 1000), "x" + strings.Repeat("\u2028", 400)} {
		reason(t, reject(ReasonBadJSON, "%s", text))
	}
}
