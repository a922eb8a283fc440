package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pawl/internal/testkit/golden"
)

const mistakesMin = 20

// Every mistake is made by the test that it names: the test is there, and its package holds what it is told against the
// mistake by its name.
func TestMistakesAreMade(t *testing.T) {
	t.Parallel()
	seen, code := map[string]bool{}, map[string]string{}
	for _, subject := range Mistakes() {
		for _, m := range subject.Mistakes {
			if seen[m.ID] || m.ID == "" || m.Name == "" || m.Shown == "" || m.Next == "" {
				t.Errorf("mistake %q is there twice, or not whole", m.ID)
			}
			seen[m.ID] = true
			text, known := code[m.Test.Package]
			if !known {
				text = testCode(t, m.Test.Package)
				code[m.Test.Package] = text
			}
			if !strings.Contains(text, "\nfunc "+m.Test.Name+"(t *testing.T) {") {
				t.Errorf("%s: %s has no %s", m.ID, m.Test.Package, m.Test.Name)
			}
			if !regexp.MustCompile(`(faults\.Shows\(t, |mistake: +|refused\()"` + m.ID + `"`).MatchString(text) {
				t.Errorf("%s: no test of %s holds what it is told against it", m.ID, m.Test.Package)
			}
		}
	}
	if len(seen) < mistakesMin {
		t.Errorf("there are %d mistakes, want %d at least", len(seen), mistakesMin)
	}
}

func testCode(t *testing.T, folder string) string {
	t.Helper()
	if !strings.HasPrefix(folder, "cmd/") {
		folder = "internal/" + folder
	}
	paths, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(folder), "*_test.go"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no tests in %s: %v", folder, err)
	}
	var code strings.Builder
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	return code.String()
}

// failures counts what Shows complains of.
type failures []string

func (f *failures) Helper() {}

func (f *failures) Errorf(format string, arguments ...any) {
	*f = append(*f, fmt.Sprintf(format, arguments...))
}

func TestShowsWantsMessageAndNextStep(t *testing.T) {
	t.Parallel()
	for told, want := range map[string]int{
		"connect to kafka: nothing listens at a:1: check kafka.brokers (host and port), and that the brokers are running": 0,
		"nothing listens at a:1": 1,
		"connection refused":     2,
	} {
		var got failures
		Shows(&got, "wrong-address", told)
		if len(got) != want {
			t.Errorf("%q: %q, want %d failures", told, got, want)
		}
	}
	var got failures
	Shows(&got, "no such mistake", "")
	if len(got) != 1 {
		t.Errorf("an unknown mistake: %q", got)
	}
	if holds("b a", "a…b") {
		t.Error("the parts of a message have an order")
	}
}

func TestDocumentationListsEveryMistake(t *testing.T) {
	t.Parallel()
	golden.Is(t, filepath.Join(root, "docs", "troubleshooting.md"), Troubleshooting(Mistakes()))
}
