//go:build synctests

package sim

import (
	"flag"
	"slices"
	"strings"
	"testing"
)

var (
	flagScript = flag.String("sim.script", "", "play this saved script, -sim.n times, instead of seeds")
	flagShrink = flag.Bool("sim.shrink", false, "with -sim.script: leave out what the failure does not need, and save what is left beside the script")
)

// A saved script again. It fails if any of its plays does: what faults meet is up to the scheduler.
func TestSavedScriptKeepsThePromise(t *testing.T) {
	if *flagScript == "" {
		t.Log("no -sim.script, nothing to play")
		return
	}
	script, err := load(*flagScript)
	if err != nil {
		t.Fatal(err)
	}
	fails := func(s Script) bool {
		for range *flagN {
			if r := play(t, s); r.report != "" {
				t.Logf("with %d faults: %s\nscript and story: %s", len(s.Faults), r.report, keep(t, r))
				return true
			}
		}
		return false
	}
	if !fails(script) {
		t.Logf("%d plays, none failed", *flagN)
		return
	}
	t.Errorf("%s fails", *flagScript)
	if *flagShrink {
		script = shrink(script, fails)
		path := strings.TrimSuffix(*flagScript, ".json") + ".small.json"
		if err := script.save(path); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d faults are left: %s", len(script.Faults), path)
	}
}

// shrink leaves out faults, halves first and then smaller parts, as long as what is left still fails
// (Zeller's delta debugging).
func shrink(script Script, fails func(Script) bool) Script {
	for size := (len(script.Faults) + 1) / 2; size > 0; {
		left := false
		for from := 0; from < len(script.Faults); {
			fewer := script
			to := min(len(script.Faults), from+size)
			fewer.Faults = slices.Concat(script.Faults[:from], script.Faults[to:])
			if fails(fewer) {
				script, left = fewer, true
				continue
			}
			from = to
		}
		if !left || size > len(script.Faults) {
			size /= 2
		}
	}
	return script
}

// What the failure needs is kept, and nothing else.
func TestShrinkKeepsWhatTheFailureNeeds(t *testing.T) {
	t.Parallel()
	var script Script
	for i := range 17 {
		script.Faults = append(script.Faults, Fault{Replica: i})
	}
	needed := []int{3, 4, 11}
	small := shrink(script, func(s Script) bool {
		return !slices.ContainsFunc(needed, func(n int) bool {
			return !slices.ContainsFunc(s.Faults, func(f Fault) bool { return f.Replica == n })
		})
	})
	var left []int
	for _, f := range small.Faults {
		left = append(left, f.Replica)
	}
	if !slices.Equal(left, needed) {
		t.Errorf("%v are left, want %v", left, needed)
	}
}

// A script says the same after it was saved, and a seed always draws the same one.
func TestScriptsAreRepeatable(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/script.json"
	for seed := range uint64(50) {
		script := draw(seed, kinds())
		if err := script.save(path); err != nil {
			t.Fatal(err)
		}
		again, err := load(path)
		if err != nil {
			t.Fatal(err)
		}
		for name, other := range map[string]Script{"saved": again, "drawn again": draw(seed, kinds())} {
			if len(other.Faults) != len(script.Faults) || !slices.Equal(other.Faults, script.Faults) || other.Spread != script.Spread || other.Inputs != script.Inputs || other.Start != script.Start {
				t.Errorf("seed %d: %s it is %+v, was %+v", seed, name, other, script)
			}
		}
		for _, f := range script.Faults {
			if f.Request != "" && keyNamed(f.Request) < 0 || f.Code != "" && codeNamed(f.Code) == 0 {
				t.Errorf("seed %d: no request %q or no error %q", seed, f.Request, f.Code)
			}
		}
	}
}
