package deploy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// faultTests are the tests that fire alerts for real: make alerts.
const faultTests = "internal/e2e/alerts*_test.go"

// A new alert brings a fault that fires it on the running system, and a try of its runbook's first command: it is not
// enough that its rule does so on series that somebody wrote down.
func TestEveryAlertHasAFaultThatFiresIt(t *testing.T) {
	t.Parallel()
	fired, tried := alertsNamedIn(t, "awaitFiring"), alertsNamedIn(t, "first")
	known := map[string]bool{}
	for _, rule := range readRules(t) {
		if rule.Alert == "" {
			continue
		}
		known[rule.Alert] = true
		if !fired[rule.Alert] {
			t.Errorf("no fault of %s fires %s: make one there", faultTests, rule.Alert)
		}
		if !tried[rule.Alert] {
			t.Errorf("%s does not try the first command of the runbook of %s", faultTests, rule.Alert)
		}
	}
	for name := range maps.Keys(fired) {
		if !known[name] {
			t.Errorf("%s waits for %s, which is no alert", faultTests, name)
		}
	}
	if len(known) < 20 {
		t.Errorf("the rules have only the alerts %v: they can't be read right", slices.Sorted(maps.Keys(known)))
	}
}

// alertsNamedIn gives the alerts that stand, as texts, in the calls of a method of the tests.
func alertsNamedIn(t *testing.T, method string) map[string]bool {
	t.Helper()
	named := map[string]bool{}
	for _, path := range files(t, faultTests) {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(node ast.Node) bool {
			call, is := node.(*ast.CallExpr)
			if !is {
				return true
			}
			if called, is := call.Fun.(*ast.SelectorExpr); !is || called.Sel.Name != method {
				return true
			}
			for _, argument := range call.Args {
				if text, is := argument.(*ast.BasicLit); is && text.Kind == token.STRING {
					if name, err := strconv.Unquote(text.Value); err == nil && strings.HasPrefix(name, "Pawl") {
						named[name] = true
					}
				}
			}
			return true
		})
	}
	return named
}
