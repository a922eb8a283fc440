package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of one mutant.
const (
	testTimeout = 60 * time.Second // of its tests: a mutant may well make one wait for ever
	wholeTests  = 5 * time.Minute  // of a whole package
	buildTime   = 3 * time.Minute  // beside that
	triesMax    = 3                // a rule that is broken may show by a race only, and a busy machine settles it
)

// Verdict is what became of a mutant.
type Verdict struct {
	Mutant  Mutant
	Killed  []string // tests that failed
	Hung    bool     // they failed by not ending
	Tries   int      // runs of the tests until each killer had failed once; more than one wants a better test
	Missed  []string // tests that were to fail and did not
	Problem string   // it could not be judged
	Took    time.Duration
}

// dead reports whether each of its killers noticed.
func (v *Verdict) dead() bool { return v.Problem == "" && len(v.Missed) == 0 && len(v.Killed) > 0 }

// runner judges mutants of the module at root.
type runner struct {
	root  string
	whole bool // all tests of a package, not only the killers
}

// each judges mutants, several at a time, and tells of each when it is done.
func (r *runner) each(ctx context.Context, mutants []Mutant, parallel int, tell func(Verdict)) {
	next := make(chan Mutant)
	verdicts := make(chan Verdict)
	var workers sync.WaitGroup
	for range parallel {
		workers.Go(func() {
			for m := range next {
				verdicts <- r.judge(ctx, m)
			}
		})
	}
	go func() {
		for _, m := range mutants {
			next <- m
		}
		close(next)
		workers.Wait()
		close(verdicts)
	}()
	for v := range verdicts {
		tell(v)
	}
}

// judge runs the tests against one mutant, again where a killer did not notice.
func (r *runner) judge(ctx context.Context, m Mutant) (v Verdict) {
	begun := time.Now()
	v.Mutant = m
	defer func() { v.Took = time.Since(begun) }()
	for v.Missed = m.Killers; v.Tries < triesMax && len(v.Missed) > 0; {
		v.Tries++
		seen, err := r.test(ctx, &m)
		if err != nil {
			v.Problem = err.Error()
			break
		}
		v.Hung = v.Hung || seen.hung
		v.Killed = slices.Compact(slices.Sorted(slices.Values(append(v.Killed, seen.failed...))))
		v.Missed = slices.DeleteFunc(slices.Clone(m.Killers), func(killer string) bool { return slices.Contains(v.Killed, killer) })
	}
	return v
}

// test runs the tests against one mutant. An error says why nothing can be said of it.
func (r *runner) test(ctx context.Context, m *Mutant) (events, error) {
	folder, err := os.MkdirTemp("", "mutant-")
	if err != nil {
		return events{}, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	overlay, err := r.overlay(folder, m)
	if err != nil {
		return events{}, err
	}
	timeout := testTimeout
	args := []string{"test", "-overlay", overlay, "-count=1", "-vet=off", "-json", "-ldflags=-s -w"}
	if r.whole {
		timeout = wholeTests
	} else {
		args = append(args, "-run", "^("+strings.Join(m.Killers, "|")+")$")
	}
	args = append(args, "-timeout", timeout.String(), "-tags", m.Tags, "./"+m.home())
	if draws, err := r.drawsLots(m.home()); err != nil {
		return events{}, err
	} else if draws {
		args = append(args, "-rapid.nofailfile") // what a mutant fails by is no example worth keeping
	}
	ctx, cancel := context.WithTimeout(ctx, timeout+buildTime)
	defer cancel()
	command := exec.CommandContext(ctx, "go", args...) //nolint:gosec // the catalogue names the tests
	command.Dir = r.root
	var output, complaints bytes.Buffer
	command.Stdout, command.Stderr = &output, &complaints
	exit := command.Run()
	if ctx.Err() != nil {
		return events{}, fmt.Errorf("go test was still at work after %s", timeout+buildTime)
	}
	all := output.String()
	seen := readEvents(&output)
	switch {
	case !seen.built:
		return seen, fmt.Errorf("it does not compile:\n%s%s", complaints.String(), all)
	case seen.ran == 0:
		return seen, fmt.Errorf("none of its tests exists or ran: %s\n%s", strings.Join(m.Killers, ", "), complaints.String())
	case (exit == nil) != (len(seen.failed) == 0):
		return seen, fmt.Errorf("go test ended with %w, and of its tests failed: %s", cmp.Or(exit, errors.New("success")), strings.Join(seen.failed, ", "))
	}
	return seen, nil
}

// drawsLots reports whether tests of a package use rapid.
func (r *runner) drawsLots(folder string) (bool, error) {
	paths, err := filepath.Glob(filepath.Join(r.root, filepath.FromSlash(folder), "*_test.go"))
	if err != nil {
		return false, err
	}
	for _, path := range paths {
		text, err := os.ReadFile(path) //nolint:gosec // it is one of the module's own
		if err != nil {
			return false, err
		}
		if bytes.Contains(text, []byte(`"pgregory.net/rapid"`)) {
			return true, nil
		}
	}
	return false, nil
}

// overlay writes the mutated file, and the file that tells go test to take it.
func (r *runner) overlay(folder string, m *Mutant) (string, error) {
	text, err := m.apply(r.root)
	if err != nil {
		return "", err
	}
	mutated := filepath.Join(folder, "mutated.go")
	if err := os.WriteFile(mutated, text, 0o600); err != nil {
		return "", err
	}
	replace, err := json.Marshal(map[string]map[string]string{
		"Replace": {filepath.Join(r.root, filepath.FromSlash(m.File)): mutated},
	})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(folder, "overlay.json")
	return overlay, os.WriteFile(overlay, replace, 0o600)
}

// events is what a run of go test tells.
type events struct {
	failed []string // top-level tests, by name
	ran    int
	built  bool
	hung   bool
}

// readEvents reads the output of go test -json. Tests that were at work when the process ended, by a panic or a
// timeout, have failed too.
func readEvents(output *bytes.Buffer) events {
	seen, working := events{built: true}, map[string]bool{}
	for {
		line, err := output.ReadBytes('\n')
		if err != nil {
			break
		}
		var event struct{ Action, Test, Output, FailedBuild string }
		if json.Unmarshal(line, &event) != nil {
			continue
		}
		if event.FailedBuild != "" || event.Action == "build-fail" {
			seen.built = false
		}
		seen.hung = seen.hung || strings.HasPrefix(event.Output, "panic: test timed out after")
		if event.Test == "" || strings.Contains(event.Test, "/") {
			continue
		}
		switch event.Action {
		case "run":
			working[event.Test] = true
			seen.ran++
		case "cont":
			working[event.Test] = true
		case "pass", "skip", "pause":
			delete(working, event.Test)
		case "fail":
			delete(working, event.Test)
			seen.failed = append(seen.failed, event.Test)
		}
	}
	seen.failed = slices.AppendSeq(seen.failed, maps.Keys(working))
	slices.Sort(seen.failed)
	return seen
}
