package main

import (
	"bytes"
	"fmt"
	"strings"
)

const preface = `# Mutants

A test suite proves something only if it would fail where the code is wrong. Each row below is a change of the code that
breaks one rule, and tests that must fail under it, each of them. ` + "`make mutants`" + ` makes the changes one at a time, runs the
tests, prints who was killed by what in how many seconds, and fails for the first survivor; every change of this
repository runs it. A broken rule may show by a race only: a killer that did not notice gets two more runs, and the table says
where they were needed, since the test is to be made surer then.

A mutant is data: a file, a piece of it, and what to put in its place, laid over the file for one run of the tests
(` + "`go test -overlay`" + `). Build tags would have done it as well; but then the mutants would stand in the code that people read, and
could be shipped by mistake. A piece that is no longer there fails the unit tests: the mutant must follow the code.

<!-- Written by the tests of internal/mutants: go test ./internal/mutants -update -->
`

// document is the catalogue as a page of documentation.
func document(mutants []Mutant) []byte {
	var page bytes.Buffer
	page.WriteString(preface)
	table := func(title, tags string) {
		fmt.Fprintf(&page, "\n## %s\n\n| mutant | breaks the rule | else | killed by |\n|---|---|---|---|\n", title)
		for i := range mutants {
			m := &mutants[i]
			if m.Tags != tags {
				continue
			}
			killers := make([]string, len(m.Killers))
			for i, killer := range m.Killers {
				killers[i] = "`" + killer + "`"
			}
			fmt.Fprintf(&page, "| %s | %s | %s | %s, %s |\n", m.Name, m.Rule, m.Harm, strings.TrimPrefix(m.home(), "internal/"), strings.Join(killers, ", "))
		}
	}
	table("Killed without a broker or a database", "")
	table("Killed on a real Postgres", "integration")
	return page.Bytes()
}
