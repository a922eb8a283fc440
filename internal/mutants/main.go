package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"pawl/internal/evidence"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// The exit codes are those of the processor: 3 is a survivor.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitSurvivor = 3
)

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("only", "", "judge the mutant of this name only")
	tags := flags.String("tags", "", "judge the mutants whose tests need these build tags: integration")
	part := flags.String("part", "", "judge a part only: 2/5 is the second of five")
	parallel := flags.Int("parallel", 2, "mutants at a time")
	result := flags.String("result", "", "write what was found to this file, for make report")
	whole := flags.Bool("whole", false, "run all tests of the packages, to see who else would notice")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	root, err := moduleRoot()
	if err != nil {
		fmt.Fprintln(stderr, "mutants:", err)
		return exitFailed
	}
	mutants, err := choose(catalogue(), *only, *tags, *part)
	if err != nil {
		fmt.Fprintln(stderr, "mutants:", err)
		return exitUsage
	}
	begun := time.Now()
	var verdicts []Verdict
	(&runner{root: root, whole: *whole}).each(ctx, mutants, max(1, *parallel), func(v Verdict) {
		verdicts = append(verdicts, v)
		fmt.Fprintf(stderr, "%3d/%d %s %s\n", len(verdicts), len(mutants), v.Mutant.Name, v.word())
	})
	slices.SortFunc(verdicts, func(a, b Verdict) int { return index(mutants, a.Mutant.Name) - index(mutants, b.Mutant.Name) })
	alive := report(stdout, verdicts, time.Since(begun))
	if *result != "" {
		if err := evidence.Write(*result, resultOf(verdicts, *tags, begun)); err != nil {
			fmt.Fprintln(stderr, "mutants:", err)
			return exitFailed
		}
	}
	if alive > 0 {
		return exitSurvivor
	}
	return 0
}

// resultOf is the report for those who read about it later.
func resultOf(verdicts []Verdict, tags string, begun time.Time) evidence.Result {
	r := evidence.Result{
		Kind: evidence.Mutants, Title: fmt.Sprintf("%d mutants judged by tests without broker and database", len(verdicts)), Command: "make mutants",
		Date: begun.UTC().Truncate(time.Second), Seconds: time.Since(begun).Seconds(),
	}
	if tags != "" {
		r.Title, r.Command = fmt.Sprintf("%d mutants judged by tests with the tag %s", len(verdicts), tags), "go run ./internal/mutants -tags "+tags
	}
	var killed int64
	for i := range verdicts {
		v := &verdicts[i]
		if !v.dead() {
			r.Violations = append(r.Violations, evidence.Fact{Name: v.Mutant.Name, Text: v.word()})
			continue
		}
		killed++
		r.Rows = append(r.Rows, evidence.Fact{Name: v.Mutant.Name, Text: strings.Join(v.Killed, ", ")})
	}
	r.Counts = []evidence.Count{{Name: "killed", Count: killed}, {Name: "not killed", Count: int64(len(r.Violations))}}
	return r
}

// moduleRoot finds the folder with the module's go.mod at or above the present one.
func moduleRoot() (string, error) {
	at, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if text, err := os.ReadFile(filepath.Join(at, "go.mod")); err == nil && strings.HasPrefix(string(text), "module pawl\n") { //nolint:gosec // it looks for the module it stands in
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", errors.New("no go.mod of the module pawl here or above: run it inside the repository")
		}
		at = filepath.Dir(at)
	}
}

// choose picks the mutants that are asked for.
func choose(all []Mutant, only, tags, part string) ([]Mutant, error) {
	if only != "" {
		i := index(all, only)
		if i < 0 {
			return nil, fmt.Errorf("there is no mutant %q", only)
		}
		return all[i : i+1], nil
	}
	all = slices.DeleteFunc(all, func(m Mutant) bool { return m.Tags != tags })
	if part == "" {
		return all, nil
	}
	var n, of int
	if _, err := fmt.Sscanf(part, "%d/%d", &n, &of); err != nil || n < 1 || of < n {
		return nil, fmt.Errorf("part %q is none such as 2/5", part)
	}
	var some []Mutant
	for i := n - 1; i < len(all); i += of {
		some = append(some, all[i])
	}
	return some, nil
}

func index(mutants []Mutant, name string) int {
	return slices.IndexFunc(mutants, func(m Mutant) bool { return m.Name == name })
}

func (v *Verdict) word() string {
	switch {
	case v.Problem != "":
		return "could not be judged: " + v.Problem
	case !v.dead():
		return fmt.Sprintf("SURVIVED %s (noticed by: %s)", strings.Join(v.Missed, ", "), strings.Join(v.Killed, ", "))
	case v.Tries > 1:
		return fmt.Sprintf("killed, by run %d of its tests", v.Tries)
	default:
		return "killed"
	}
}

// report prints the table and gives the number of those that are not dead.
func report(to io.Writer, verdicts []Verdict, took time.Duration) (alive int) {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MUTANT\tRULE\tKILLED BY\tSECONDS")
	for i := range verdicts {
		v := &verdicts[i]
		killers := strings.Join(v.Killed, ", ")
		switch {
		case !v.dead():
			alive++
			killers = v.word()
		case v.Hung:
			killers += " (never ended)"
		case v.Tries > 1:
			killers += fmt.Sprintf(" (by run %d)", v.Tries)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%.1f\n", v.Mutant.Name, v.Mutant.Rule, killers, v.Took.Seconds())
	}
	_ = table.Flush() // nobody is left to tell
	fmt.Fprintf(to, "%d of %d mutants killed in %.0f s\n", len(verdicts)-alive, len(verdicts), took.Seconds())
	return alive
}
