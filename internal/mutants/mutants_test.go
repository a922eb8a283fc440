package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pawl/internal/testkit/golden"
)

const root = "../.."

// fastMin is how many mutants must die without a broker or a database.
const fastMin = 25

// The code moves on. A mutant that no longer fits it would break nothing and be counted as survived at best.
func TestMutantsApply(t *testing.T) {
	t.Parallel()
	names, fast := map[string]bool{}, 0
	for _, m := range catalogue() {
		if !regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)+$`).MatchString(m.Name) || names[m.Name] {
			t.Errorf("the name %q is taken, or no slug", m.Name)
		}
		names[m.Name] = true
		if m.Rule == "" || m.Harm == "" || len(m.Killers) == 0 || m.Old == m.New {
			t.Errorf("%s lacks a rule, a harm or killers, or changes nothing", m.Name)
		}
		text, err := m.apply(root)
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := parser.ParseFile(token.NewFileSet(), m.File, text, parser.SkipObjectResolution); err != nil {
			t.Errorf("%s is no Go any more: %v", m.Name, err)
		}
		if m.Tags == "" {
			fast++
		}
	}
	if fast < fastMin {
		t.Errorf("%d mutants need neither broker nor database, want %d at least", fast, fastMin)
	}
}

// What must fail must be there, in the package and under the build tags that are said.
func TestKillersExist(t *testing.T) {
	t.Parallel()
	there := map[string]map[string]string{} // package, test, build tag
	for _, m := range catalogue() {
		if there[m.home()] == nil {
			there[m.home()] = testsOf(t, m.home())
		}
		for _, killer := range m.Killers {
			if tag, is := there[m.home()][killer]; !is || tag != "" && tag != m.Tags {
				t.Errorf("%s: %s has no %s without build tag %q", m.Name, m.home(), killer, tag)
			}
		}
	}
}

// testsOf gives the tests of a package with the build tag of their file.
func testsOf(t *testing.T, folder string) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(folder), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		tag := ""
		for _, group := range file.Comments {
			if text, is := strings.CutPrefix(group.List[0].Text, "//go:build "); is {
				tag = text
			}
		}
		for _, declared := range file.Decls {
			if f, is := declared.(*ast.FuncDecl); is && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				found[f.Name.Name] = tag
			}
		}
	}
	return found
}

func TestDocumentationListsEveryMutant(t *testing.T) {
	t.Parallel()
	golden.Is(t, filepath.Join(root, "docs", "mutants.md"), document(catalogue()))
}

// A module with one rule and one test of it, and mutants of every fate.
func TestVerdictsAreRight(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module small\n\ngo 1.26\n")
	write("sum.go", "package small\n\nfunc Sum(a, b int) int {\n\treturn a + b\n}\n\nfunc Twice(a int) int { return 2 * a }\n")
	write("sum_test.go", "package small\n\nimport \"testing\"\n\n"+
		"func TestSum(t *testing.T) {\n\tif Sum(1, 2) != 3 {\n\t\tt.Fatal(\"wrong\")\n\t}\n}\n\n"+
		"func TestTwice(t *testing.T) {\n\tif Twice(0) != 0 {\n\t\tt.Fatal(\"wrong\")\n\t}\n}\n")
	write("late.go", "package small\n\nfunc Late() int { return 1 }\n")
	write("late_test.go", "package small\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\n"+
		"func TestLate(t *testing.T) {\n\tif _, err := os.Stat(\"seen\"); err == nil && Late() != 1 {\n\t\tt.Fatal(\"wrong\")\n\t}\n"+
		"\tif err := os.WriteFile(\"seen\", nil, 0o600); err != nil {\n\t\tt.Fatal(err)\n\t}\n}\n")
	both := []string{"TestSum", "TestTwice"}
	fates := map[string]struct {
		mutant Mutant
		dead   bool
		word   string
	}{
		"killed":            {Mutant{Old: "a + b", New: "a - b", Killers: both[:1]}, true, "killed"},
		"panic":             {Mutant{Old: "return a + b", New: "ended := make(chan int)\n\tgo func() { panic(a + b) }()\n\treturn <-ended", Killers: both[:1]}, true, "killed"},
		"survived":          {Mutant{Old: "2 * a", New: "3 * a", Killers: both[1:]}, false, "SURVIVED TestTwice"},
		"noticed by one":    {Mutant{Old: "a + b", New: "a - b", Killers: both}, false, "SURVIVED TestTwice (noticed by: TestSum)"},
		"by the second run": {Mutant{File: "late.go", Old: "return 1", New: "return 2", Killers: []string{"TestLate"}}, true, "killed, by run 2"},
		"does not build":    {Mutant{Old: "a + b", New: "a + c", Killers: both}, false, "does not compile"},
		"no such test":      {Mutant{Old: "a + b", New: "a - b", Killers: []string{"TestNone"}}, false, "none of its tests"},
		"no such text":      {Mutant{Old: "a * b", New: "a - b", Killers: both}, false, "0 times"},
		"ambiguous text":    {Mutant{Old: "a", New: "b", Killers: both}, false, "times, want once"},
		"of another name":   {Mutant{File: "none.go", Old: "a", New: "b", Killers: both}, false, "none.go"},
	}
	var mutants []Mutant
	for name, fate := range fates {
		m := fate.mutant
		if m.File == "" {
			m.File = "sum.go"
		}
		m.Name = name
		mutants = append(mutants, m)
	}
	told := 0
	(&runner{root: folder}).each(t.Context(), mutants, 2, func(v Verdict) {
		told++
		fate := fates[v.Mutant.Name]
		if v.dead() != fate.dead || !strings.Contains(v.word(), fate.word) {
			t.Errorf("%s: dead is %v, %q, want %q", v.Mutant.Name, v.dead(), v.word(), fate.word)
		}
	})
	if told != len(fates) {
		t.Errorf("told of %d mutants, want %d", told, len(fates))
	}
}

func TestMutantsAreChosen(t *testing.T) {
	t.Parallel()
	all := make([]Mutant, 10)
	for i := range all {
		all[i].Name = fmt.Sprintf("m-%d", i)
	}
	all[3].Tags = "integration"
	for _, test := range []struct{ only, tags, part, want string }{
		{want: "m-0 m-1 m-2 m-4 m-5 m-6 m-7 m-8 m-9"},
		{part: "2/4", want: "m-1 m-6"},
		{tags: "integration", want: "m-3"},
		{only: "m-3", want: "m-3"},
		{only: "m-11", want: "there is no mutant"},
		{part: "5/4", want: "is none such as"},
		{part: "half", want: "is none such as"},
	} {
		chosen, err := choose(slices.Clone(all), test.only, test.tags, test.part)
		var names []string
		for _, m := range chosen {
			names = append(names, m.Name)
		}
		if got := strings.Join(names, " ") + fmt.Sprint(err); !strings.Contains(got, test.want) {
			t.Errorf("%+v chose %s", test, got)
		}
	}
}

func TestSurvivorsAreReported(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	alive := report(&text, []Verdict{
		{Mutant: Mutant{Name: "one", Killers: []string{"TestA"}}, Killed: []string{"TestA"}, Took: time.Second},
		{Mutant: Mutant{Name: "two", Killers: []string{"TestB"}}, Missed: []string{"TestB"}},
		{Mutant: Mutant{Name: "three"}, Problem: "it does not compile"},
		{Mutant: Mutant{Name: "four"}},
	}, time.Minute)
	if alive != 3 || !strings.Contains(text.String(), "1 of 4 mutants killed") {
		t.Errorf("%d alive:\n%s", alive, text.String())
	}
}

// A mutant that lives is a violation in what is kept of a run, never one of the killed.
func TestResultTellsSurvivorsFromTheDead(t *testing.T) {
	t.Parallel()
	r := resultOf([]Verdict{
		{Mutant: Mutant{Name: "dies"}, Killed: []string{"TestA"}},
		{Mutant: Mutant{Name: "lives"}, Missed: []string{"TestB"}},
		{Mutant: Mutant{Name: "breaks"}, Killed: []string{"TestC"}, Problem: "it does not compile"},
	}, "", time.Now())
	if r.Passed() || len(r.Rows) != 1 || r.Rows[0].Name != "dies" || len(r.Violations) != 2 {
		t.Errorf("the result is %+v", r)
	}
}
