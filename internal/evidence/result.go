// Package evidence keeps what runs of the proof have shown, simulation, mutants and chaos alike, and
// makes the published report of it.
//
// A run that is worth keeping writes one [Result] as JSON into docs/verification; `make report` makes
// docs/verification.md of all of them and of the two texts beside them that people write: found.md,
// what was found and fixed, and not-tested.md. A test of this package fails while the report is not
// what the results say.
package evidence

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// format is the version of the files.
const format = 1

// Kind is what kind of proof a run is.
type Kind string

// The kinds, in the order of the report.
const (
	Simulation Kind = "simulation" // virtual time, one seed for every decision
	Mutants    Kind = "mutants"    // our own rules broken on purpose
	Chaos      Kind = "chaos"      // the program, brokers and a database as processes, broken at random
	Alerts     Kind = "alerts"     // each alert fired by a fault on such a system
)

// Kinds lists them in the order of the report.
func Kinds() []Kind { return []Kind{Simulation, Mutants, Chaos, Alerts} }

// Result is what one run says of itself.
type Result struct {
	Format  int       `json:"format"`
	Kind    Kind      `json:"kind"`
	Title   string    `json:"title"`            // what was run, in a few words: "2,000 histories per change"
	Command string    `json:"command"`          // that repeats it
	Seed    string    `json:"seed,omitempty"`   // or a range of seeds
	Commit  string    `json:"commit,omitempty"` // of the tree that was run
	Date    time.Time `json:"date"`             // of its start
	Seconds float64   `json:"seconds"`          // it took, by the wall

	Counts     []Count  `json:"counts,omitempty"`     // histories, inputs, outputs, effects, calls: whatever there is to count
	Faults     []Count  `json:"faults,omitempty"`     // by kind, of those that were seen to bite
	Figures    []Fact   `json:"figures,omitempty"`    // such as the time to drain
	Rows       []Fact   `json:"rows,omitempty"`       // a table of its own, such as each mutant and what killed it
	Table      *Table   `json:"table,omitempty"`      // likewise, of more columns
	Violations []Fact   `json:"violations,omitempty"` // what is wrong: the run has failed
	Notes      []string `json:"notes,omitempty"`      // what a reader should know of this run
}

// Count is a number with its name.
type Count struct {
	Name  string `json:"name"`
	Count int64  `json:"count"`
}

// Fact is a text with its name.
type Fact struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// Table is one with a heading for each column.
type Table struct {
	Header []string   `json:"header"`
	Rows   [][]string `json:"rows"`
}

// Passed reports whether the run found nothing wrong.
func (r *Result) Passed() bool { return len(r.Violations) == 0 }

// FaultsTotal adds up the faults of all kinds.
func (r *Result) FaultsTotal() (total int64) {
	for _, fault := range r.Faults {
		total += fault.Count
	}
	return total
}

func (r *Result) validate() error {
	var errs []error
	if r.Format != format {
		errs = append(errs, fmt.Errorf("format is %d, this release knows %d", r.Format, format))
	}
	if !slices.Contains(Kinds(), r.Kind) {
		errs = append(errs, fmt.Errorf("kind is %q, want one of %v", r.Kind, Kinds()))
	}
	if r.Title == "" || r.Command == "" || r.Date.IsZero() || r.Seconds <= 0 {
		errs = append(errs, errors.New("title, command, date and seconds must be given"))
	}
	if len(r.Counts) == 0 && len(r.Rows) == 0 {
		errs = append(errs, errors.New("nothing was counted, so nothing is shown"))
	}
	if r.Table != nil && slices.ContainsFunc(r.Table.Rows, func(row []string) bool { return len(row) != len(r.Table.Header) }) {
		errs = append(errs, errors.New("a row of the table has not as many cells as its header"))
	}
	return errors.Join(errs...)
}

// Write checks a result and writes it to a file, whose folder must exist.
func Write(path string, result Result) error {
	result.Format = format
	if err := result.validate(); err != nil {
		return fmt.Errorf("write result %s: %w", path, err)
	}
	text, err := json.MarshalIndent(result, "", "  ")
	if err == nil {
		err = os.WriteFile(path, append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write result %s: %w", path, err)
	}
	return nil
}

// Read gives the results of a folder, by kind and then by date.
func Read(folder string) ([]Result, error) {
	paths, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	results := make([]Result, 0, len(paths))
	for _, path := range paths {
		text, err := os.ReadFile(path) //nolint:gosec // a file of the folder that was asked for
		if err != nil {
			return nil, fmt.Errorf("read results: %w", err)
		}
		decoder := json.NewDecoder(strings.NewReader(string(text)))
		decoder.DisallowUnknownFields()
		var result Result
		if err := decoder.Decode(&result); err != nil {
			return nil, fmt.Errorf("read result %s: %w", path, err)
		}
		if err := result.validate(); err != nil {
			return nil, fmt.Errorf("read result %s: %w", path, err)
		}
		results = append(results, result)
	}
	slices.SortStableFunc(results, func(a, b Result) int {
		if a.Kind != b.Kind {
			return slices.Index(Kinds(), a.Kind) - slices.Index(Kinds(), b.Kind)
		}
		return a.Date.Compare(b.Date)
	})
	return results, nil
}
