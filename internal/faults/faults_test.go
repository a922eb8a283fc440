package faults

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"pawl/internal/testkit/golden"
)

const (
	root         = "../.."
	faults       = 83
	automatedMin = 60
)

// Every fault is there once, in order, and each says of itself what there is to say.
func TestCatalogueIsComplete(t *testing.T) {
	t.Parallel()
	n, automated := 0, 0
	for _, area := range Catalogue() {
		for i := range area.Faults {
			f := &area.Faults[i]
			n++
			if want := fmt.Sprintf("F%02d", n); f.ID != want {
				t.Errorf("%s stands where %s belongs", f.ID, want)
			}
			if f.Name == "" || f.Expected == "" || !f.Automated() && f.Lacks == "" {
				t.Errorf("%s lacks its name, what is expected, or why nothing injects it", f.ID)
			}
			if f.Automated() {
				automated++
			}
		}
	}
	if n != faults || automated < automatedMin {
		t.Errorf("there are %d faults, of which %d are injected; want %d and %d at least", n, automated, faults, automatedMin)
	}
}

// A test that is named is there, in the package that is named.
func TestTestsExist(t *testing.T) {
	t.Parallel()
	there := map[string]map[string]bool{}
	for _, area := range Catalogue() {
		for _, f := range area.Faults {
			seen := map[Test]bool{}
			for _, test := range f.Tests {
				if there[test.Package] == nil {
					there[test.Package] = testsOf(t, test.Package)
				}
				if !there[test.Package][test.Name] {
					t.Errorf("%s: internal/%s has no %s", f.ID, test.Package, test.Name)
				}
				if seen[test] {
					t.Errorf("%s names %s twice", f.ID, test.Name)
				}
				seen[test] = true
			}
		}
	}
}

func testsOf(t *testing.T, folder string) map[string]bool {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, "internal", filepath.FromSlash(folder), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, declared := range file.Decls {
			if f, is := declared.(*ast.FuncDecl); is && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				found[f.Name.Name] = true
			}
		}
	}
	return found
}

func TestDocumentationListsEveryFault(t *testing.T) {
	t.Parallel()
	golden.Is(t, filepath.Join(root, "docs", "faults.md"), Document(Catalogue()))
}
