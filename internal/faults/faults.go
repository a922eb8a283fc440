// Package faults is the catalogue of what may go wrong around Pawl, and of the tests that make it go wrong: for
// each fault what is expected, in our words, and which tests inject it, or why it cannot be had here. It is
// data; its test keeps it true, and docs/faults.md is made from it.
package faults

import (
	"bytes"
	"fmt"
	"strings"
)

// Fault is one thing that goes wrong.
type Fault struct {
	ID       string // F01 to F83
	Name     string
	Expected string
	Tests    []Test
	// Lacks says what of the fault no test injects; the whole of it where there is no test, and why.
	Lacks string
}

// Test injects a fault.
type Test struct {
	Package string // below internal
	Name    string
}

// Automated reports whether a test injects the fault.
func (f *Fault) Automated() bool { return len(f.Tests) > 0 }

// Area is a part of the catalogue.
type Area struct {
	Title  string
	Faults []Fault
}

// Catalogue is all of it.
func Catalogue() []Area {
	return []Area{
		{"Client, transaction, group", clients},
		{"Brokers, topics, network, time", brokers},
		{"Bad input", input},
		{"Postgres", database},
		{"Dispatch, endpoint, relay", calls},
	}
}

// in makes tests of one package, given by their names without Test.
func in(folder string, names ...string) []Test {
	tests := make([]Test, len(names))
	for i, name := range names {
		tests[i] = Test{folder, "Test" + name}
	}
	return tests
}

const preface = `# Faults

What may go wrong around Pawl, what must come of it, and the tests that make it go wrong. Whatever the fault: no record is lost, none
counts twice, nothing is skipped without a word, and what stands still says why and what to run. %d of the %d faults are injected
by named tests; every test counts its injections and fails where there were none. Where a part of a fault, or all of it, is not injected, the
table says so.

<!-- Written by the tests of internal/faults: go test ./internal/faults -update -->
`

// Document is the catalogue as a page of documentation.
func Document(areas []Area) []byte {
	var page bytes.Buffer
	all, automated := 0, 0
	for _, area := range areas {
		for i := range area.Faults {
			all++
			if area.Faults[i].Automated() {
				automated++
			}
		}
	}
	fmt.Fprintf(&page, preface, automated, all)
	for _, area := range areas {
		fmt.Fprintf(&page, "\n## %s\n\n| fault | what happens | what must come of it | injected by |\n|---|---|---|---|\n", area.Title)
		for i := range area.Faults {
			f := &area.Faults[i]
			fmt.Fprintf(&page, "| %s | %s | %s | %s |\n", f.ID, f.Name, f.Expected, f.witnesses())
		}
	}
	return page.Bytes()
}

// witnesses lists the tests by package, and what they lack.
func (f *Fault) witnesses() string {
	var text strings.Builder
	last := ""
	for i, test := range f.Tests {
		switch {
		case test.Package != last && i > 0:
			text.WriteString("; " + test.Package + ": ")
		case test.Package != last:
			text.WriteString(test.Package + ": ")
		default:
			text.WriteString(", ")
		}
		last = test.Package
		text.WriteString("`" + test.Name + "`")
	}
	switch {
	case f.Lacks == "":
	case f.Automated():
		text.WriteString(". Not injected: " + f.Lacks)
	default:
		text.WriteString("nothing: " + f.Lacks)
	}
	return text.String()
}
