// Mutants proves that our tests would find our mistakes: it breaks one rule of the product at a time and
// demands that the tests which are said to keep the rule fail.
//
// A mutant is data: a file, a piece of it, and what to put in its place. It is laid over the file for one
// run of go test (-overlay), so that the product's code has nothing of it: no build tag, no branch that is
// never taken, nothing that could be shipped by mistake. The price is that a mutant knows the text it
// changes; where that text has changed, TestMutantsApply fails and says which mutant must follow it.
//
//	go run ./internal/mutants              # every mutant, two at a time
//	go run ./internal/mutants -only NAME   # one
//	go run ./internal/mutants -whole       # all tests of the package, to see who else would notice
package main

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
)

// Mutant breaks one rule.
type Mutant struct {
	Name string // a slug
	File string // below the root of the module
	Old  string // stands in the file exactly once
	New  string

	Rule string // that is broken, in words
	Harm string // what would become of whose records

	// Killers are the tests that must fail, every one of them. They are of the package of the file unless In
	// names another.
	Killers []string
	In      string
	Tags    string // build tags of the killers: "integration" where they need a real broker or database
}

// home is the package whose tests kill the mutant.
func (m *Mutant) home() string {
	if m.In != "" {
		return m.In
	}
	return path.Dir(m.File)
}

// apply gives the mutated text of the file.
func (m *Mutant) apply(root string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(m.File))) //nolint:gosec // the catalogue names it
	if err != nil {
		return nil, fmt.Errorf("mutant %s: %w", m.Name, err)
	}
	if n := bytes.Count(text, []byte(m.Old)); n != 1 {
		return nil, fmt.Errorf("mutant %s: %s has the text it replaces %d times, want once: make the mutant follow the code, or think about whether its rule still stands\n%s", m.Name, m.File, n, m.Old)
	}
	return bytes.Replace(text, []byte(m.Old), []byte(m.New), 1), nil
}

// catalogue is all mutants, in the order of the way of a record.
func catalogue() []Mutant {
	var all []Mutant
	for _, part := range [][]Mutant{nouns, engine, effects, dispatching, telling, repairs, pauses, operators, database} {
		all = append(all, part...)
	}
	return all
}
