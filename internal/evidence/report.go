package evidence

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// heading and legend open the part of each kind.
var parts = map[Kind][2]string{
	Simulation: {"Simulation", "The real engine, ingest, dispatch and relay on an in-memory cluster in virtual time. One seed makes every decision, so a history is repeated exactly."},
	Mutants:    {"Mutants", "Rules of our own, broken on purpose one at a time. A mutant that no test notices would be a rule that nothing checks."},
	Chaos:      {"Chaos on real brokers", "The program as it is shipped, three Kafka nodes and a Postgres as processes, faults by a seed, each counted only with proof that it bit. Then everything heals, drains, and is checked."},
	Alerts:     {"Alerts", "The program, a broker, a database and Prometheus with the deployed rules as processes. Faults are made one after the other; each is seen by its alerts, their runbooks' first commands say what they are to say, and all is silent before the next."},
}

const preface = `# Verification

<!-- Written by make report: of docs/verification/*.json, found.md and not-tested.md beside them -->

What was run to find out whether Pawl keeps its [promises](guarantees.md), what that found, and what was not tried. Every line of a table
stands for a run that left its result in [verification](verification/); its command repeats it.
`

// Markdown makes the report of results, as Read gives them, and of the texts of found.md and
// not-tested.md.
func Markdown(results []Result, found, notTested string) string {
	var b strings.Builder
	b.WriteString(preface)
	b.WriteString(summary(results))
	for _, kind := range Kinds() {
		var own []Result
		for _, result := range results {
			if result.Kind == kind {
				own = append(own, result)
			}
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", parts[kind][0], parts[kind][1])
		if len(own) == 0 {
			b.WriteString("\nNo result is kept.\n")
		}
		for i := range own {
			own[i].write(&b)
		}
	}
	fmt.Fprintf(&b, "\n## What was found and fixed\n\n%s\n", strings.TrimSpace(found))
	fmt.Fprintf(&b, "\n## What was not tested\n\n%s\n", strings.TrimSpace(notTested))
	return b.String()
}

// summary is one line for each run.
func summary(results []Result) string {
	var b strings.Builder
	b.WriteString("\n| kind | run | seed | date | took | faults | violations |\n|---|---|---|---|---|---|---|\n")
	for i := range results {
		r := &results[i]
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %d |\n", r.Kind, cell(r.Title), dash(cell(r.Seed)),
			r.Date.UTC().Format(time.DateOnly), took(r.Seconds), thousands(r.FaultsTotal()), len(r.Violations))
	}
	return b.String()
}

func (r *Result) write(b *strings.Builder) {
	fmt.Fprintf(b, "\n### %s\n\n", r.Title)
	fmt.Fprintf(b, "`%s`", r.Command)
	if r.Commit != "" {
		fmt.Fprintf(b, " on %s", r.Commit)
	}
	fmt.Fprintf(b, ", %s, %s.\n", r.Date.UTC().Format(time.DateOnly), took(r.Seconds))
	for _, note := range r.Notes {
		fmt.Fprintf(b, "\n%s\n", note)
	}
	if len(r.Counts)+len(r.Figures) > 0 {
		b.WriteString("\n| what | |\n|---|---|\n")
		for _, one := range r.Counts {
			fmt.Fprintf(b, "| %s | %s |\n", cell(one.Name), thousands(one.Count))
		}
		for _, one := range r.Figures {
			fmt.Fprintf(b, "| %s | %s |\n", cell(one.Name), cell(one.Text))
		}
	}
	if len(r.Faults) > 0 {
		fmt.Fprintf(b, "\n| fault | bit |\n|---|---|\n")
		for _, one := range r.Faults {
			fmt.Fprintf(b, "| %s | %s |\n", cell(one.Name), thousands(one.Count))
		}
	}
	if len(r.Rows) > 0 {
		b.WriteString("\n| what | how |\n|---|---|\n")
		for _, one := range r.Rows {
			fmt.Fprintf(b, "| %s | %s |\n", cell(one.Name), cell(one.Text))
		}
	}
	if r.Table != nil {
		b.WriteString("\n")
		writeRow(b, r.Table.Header)
		b.WriteString(strings.Repeat("|---", len(r.Table.Header)) + "|\n")
		for _, row := range r.Table.Rows {
			writeRow(b, row)
		}
	}
	if r.Passed() {
		b.WriteString("\nViolations: none.\n")
		return
	}
	b.WriteString("\nViolations:\n\n")
	for _, one := range r.Violations {
		fmt.Fprintf(b, "- **%s** %s\n", one.Name, one.Text)
	}
}

func writeRow(b *strings.Builder, cells []string) {
	for _, one := range cells {
		b.WriteString("| " + cell(one) + " ")
	}
	b.WriteString("|\n")
}

// cell keeps a text inside a cell of a table.
func cell(text string) string {
	return strings.NewReplacer("\n", " ", "|", `\|`).Replace(text)
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func took(seconds float64) string {
	return time.Duration(math.Round(seconds) * float64(time.Second)).String()
}

func thousands(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
