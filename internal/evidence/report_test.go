package evidence

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pawl/internal/testkit/golden"
)

const (
	folder = "../../docs/verification"
	report = "../../docs/verification.md"
)

// The published report is what the kept results say, and nobody has edited it.
func TestReportIsWhatTheResultsSay(t *testing.T) {
	t.Parallel()
	results, err := Read(folder)
	if err != nil {
		t.Fatal(err)
	}
	want := Markdown(results, read(t, filepath.Join(folder, "found.md")), read(t, filepath.Join(folder, "not-tested.md")))
	golden.Is(t, report, want)
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func example() Result {
	return Result{
		Kind: Chaos, Title: "A run", Command: "make it so", Seed: "7", Date: time.Unix(1e9, 0), Seconds: 61,
		Counts: []Count{{"inputs", 1234567}}, Faults: []Count{{"processor killed", 3}, {"broker | killed", 2}},
		Table: &Table{Header: []string{"fault", "alert"}, Rows: [][]string{{"cut | held", "PawlStale"}}},
	}
}

func TestResultSurvivesItsFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "one.json")
	if err := Write(path, example()); err != nil {
		t.Fatal(err)
	}
	results, err := Read(filepath.Dir(path))
	if err != nil || len(results) != 1 {
		t.Fatalf("read %d results: %v", len(results), err)
	}
	text := Markdown(results, "- a bug", "- the moon")
	for _, part := range []string{
		"| chaos | A run | 7 | 2001-09-09 | 1m1s | 5 | 0 |", "| inputs | 1,234,567 |", `| broker \| killed | 2 |`,
		"| fault | alert |\n|---|---|\n| cut \\| held | PawlStale |\n", "Violations: none.", "- a bug", "- the moon", "`make it so`",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("the report lacks %q:\n%s", part, text)
		}
	}
}

func TestReportTellsOfViolations(t *testing.T) {
	t.Parallel()
	failed := example()
	failed.Violations = []Fact{{"lost", "orders/3/17"}}
	text := Markdown([]Result{failed}, "", "")
	if strings.Contains(text, "Violations: none.") || !strings.Contains(text, "- **lost** orders/3/17") {
		t.Errorf("the report hides the violation:\n%s", text)
	}
}

func TestResultThatShowsNothingIsRefused(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*Result){
		"no command":    func(r *Result) { r.Command = "" },
		"no date":       func(r *Result) { r.Date = time.Time{} },
		"no time":       func(r *Result) { r.Seconds = 0 },
		"nothing done":  func(r *Result) { r.Counts = nil },
		"a lost cell":   func(r *Result) { r.Table.Rows[0] = r.Table.Rows[0][1:] },
		"unknown kind":  func(r *Result) { r.Kind = "guess" },
		"without title": func(r *Result) { r.Title = "" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			result := example()
			spoil(&result)
			path := filepath.Join(t.TempDir(), "one.json")
			if err := Write(path, result); err == nil {
				t.Error("it was written")
			}
			if _, err := os.Stat(path); err == nil {
				t.Error("there is a file")
			}
		})
	}
}
