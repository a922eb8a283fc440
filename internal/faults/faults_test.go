package faults

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/faults.md and docs/troubleshooting.md anew")

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
	wantPage(t, "faults.md", Document(Catalogue()))
}

// wantPage holds a page of docs/ against what the lists of this package make of it.
func wantPage(t *testing.T, name string, want []byte) {
	t.Helper()
	path := filepath.Join(root, "docs", name)
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("docs/%s is not what its list makes; run go test ./internal/faults -update (-want +got):\n%s", name, diff)
	}
}
