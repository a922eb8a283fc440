//go:build synctests

package sim

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pawl/internal/evidence"
)

var (
	flagN    = flag.Int("sim.n", 10, "histories to play")
	flagSeed = flag.Uint64("sim.seed", 1, "the first seed")
	flagFor  = flag.Duration("sim.for", 0, "begin no history after this time; 0: no limit")
	flagMin  = flag.Int("sim.least", 1, "fail where fewer histories were played, because time was over")
	flagKind = flag.String("sim.kinds", "", "draw faults of these `KINDS` only, with commas between them")
	flagKept = flag.String("sim.result", "", "write what was found to this file, for make report")
	flagOut  = flag.String("sim.out", "", "where failing scripts are kept; default: a directory of the system's temporary one")
)

// result is what became of one history.
type result struct {
	script  Script
	report  string // "" where all is well
	story   string
	bits    map[string]int
	outcome map[string]int
	records int
	jammed  bool
	virtual time.Duration
}

// play plays a script in virtual time.
func play(t *testing.T, script Script) (r result) {
	t.Helper()
	r.script = script
	synctest.Test(t, func(t *testing.T) {
		w, err := open(script)
		if err != nil {
			t.Fatal(err)
		}
		w.history()
		r.virtual = time.Since(w.begun)
		w.close()
		r.report, r.story, r.bits, r.outcome, r.records, r.jammed = w.report(), w.story(), w.bits, w.outcomes, w.records, w.jammed
	})
	return r
}

// history is the whole of it: load under fault, heal, come to rest, check.
func (w *world) history() {
	for _, s := range w.slots {
		s.start()
	}
	n := &nemesis{world: w}
	var fed error
	var work sync.WaitGroup
	work.Go(func() { fed = w.feed() })
	work.Go(n.run)
	work.Wait()
	w.heal()
	if fed != nil {
		w.problem("SETUP %v", fed)
		return
	}
	if w.jammed {
		return
	}
	err := w.drained()
	if errors.Is(err, errJammed) {
		w.jammed = true
		return
	}
	if err != nil {
		w.problem("NOT-DRAINED %v", err)
		return
	}
	w.check()
}

// TestMain lets garbage grow: a history is short, and most of what it makes is garbage at once.
func TestMain(m *testing.M) {
	debug.SetGCPercent(800)
	os.Exit(m.Run())
}

// plannedOften is how often a kind of fault must have been planned before it must have bitten.
const plannedOften = 5

// Many histories, each with a seed of its own.
func TestHistoriesKeepThePromise(t *testing.T) {
	if *flagScript != "" {
		t.Log("a script is played instead")
		return
	}
	chosen := kinds()
	if *flagKind != "" {
		chosen = strings.Split(*flagKind, ",")
	}
	var mu sync.Mutex
	bits, planned, outcomes := map[string]int{}, map[string]int{}, map[string]int{}
	var records, failed, played, jammed int
	var violations []evidence.Fact
	var virtual time.Duration
	begun := time.Now()
	var next atomic.Int64
	t.Run("all", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("worker", func(t *testing.T) {
				t.Parallel()
				for {
					i := next.Add(1) - 1
					if i >= int64(*flagN) || *flagFor > 0 && time.Since(begun) > *flagFor || t.Failed() && failed > 20 {
						return
					}
					seed := *flagSeed + uint64(i)
					r := play(t, draw(seed, chosen))
					mu.Lock()
					for _, f := range r.script.Faults {
						planned[f.name()]++
					}
					for kind, n := range r.bits {
						bits[kind] += n
					}
					for kind, n := range r.outcome {
						outcomes[kind] += n
					}
					records += r.records
					played++
					if r.jammed {
						jammed++
						t.Logf("seed %d: %v, nothing was checked", seed, errJammed)
					}
					virtual += r.virtual
					if r.report != "" {
						failed++
						violations = append(violations, evidence.Fact{Name: fmt.Sprintf("seed %d", seed), Text: r.report})
						t.Errorf("seed %d: %s\nscript and story: %s\nagain: make sim N=1 SEED=%d", seed, r.report, keep(t, r), seed)
					}
					mu.Unlock()
				}
			})
		}
	})
	took := time.Since(begun)
	if played < *flagN {
		t.Logf("%d of %d histories were played: no other was begun after %s", played, *flagN, *flagFor)
	}
	if played < min(*flagMin, *flagN) {
		t.Errorf("%d histories say too little, want at least %d: give it more time, or look for what slows it down", played, *flagMin)
	}
	t.Logf("%d histories, %d failed, %.1f virtual hours in %s, %.1f histories/s/core, %d records, transactions %v",
		played, failed, virtual.Hours(), took.Round(time.Millisecond), float64(played)/took.Seconds()/float64(runtime.GOMAXPROCS(0)), records, outcomes)
	for _, kind := range slices.Sorted(maps.Keys(bits)) {
		t.Logf("bit %6d times (planned %4d): %s", bits[kind], planned[kind], kind)
	}
	if *flagKept != "" {
		// What a fault brings about is counted beside the faults, and is none.
		maps.DeleteFunc(bits, func(kind string, n int) bool {
			what, is := strings.CutPrefix(kind, "rebuilt:")
			if is {
				outcomes["sessions rebuilt, "+what] = n
			}
			return is
		})
		found := evidence.Result{
			Kind: evidence.Simulation, Title: fmt.Sprintf("%d histories", played), Command: fmt.Sprintf("make sim N=%d SEED=%d", played, *flagSeed),
			Seed: fmt.Sprintf("%d to %d", *flagSeed, *flagSeed+uint64(played)-1), Date: begun.UTC().Truncate(time.Second), Seconds: took.Seconds(),
			Counts:     append([]evidence.Count{{Name: "histories", Count: int64(played)}, {Name: "of them, say nothing", Count: int64(jammed)}, {Name: "records", Count: int64(records)}}, counts(outcomes)...),
			Faults:     counts(bits),
			Figures:    []evidence.Fact{{Name: "virtual time", Text: virtual.Round(time.Minute).String()}, {Name: "speed", Text: fmt.Sprintf("%.1f histories a second and core", float64(played)/took.Seconds()/float64(runtime.GOMAXPROCS(0)))}},
			Violations: violations,
		}
		if err := evidence.Write(*flagKept, found); err != nil {
			t.Error(err)
		}
	}
	if jammed > 1+played/200 {
		t.Errorf("%d of %d histories say nothing: %v", jammed, played, errJammed)
	}
	// A fault that waits for a rare request may wait in vain now and then; a kind that always does is a hole.
	kindBit, kindPlanned := map[string]int{}, map[string]int{}
	for name, n := range planned {
		kind, _, _ := strings.Cut(name, ":")
		kindPlanned[kind] += n
		kindBit[kind] += bits[name]
	}
	for _, kind := range slices.Sorted(maps.Keys(kindPlanned)) {
		switch {
		case kindBit[kind] > 0:
		case kindPlanned[kind] >= plannedOften:
			t.Errorf("%s was planned %d times and never did anything", kind, kindPlanned[kind])
		default:
			t.Logf("never bit (planned %d times): %s", kindPlanned[kind], kind)
		}
	}
	for _, v := range violations { // at the end again: a log is often cut from above
		t.Logf("failed: %s: %s", v.Name, v.Text)
	}
}

// counts lists what was counted, by name.
func counts(of map[string]int) (listed []evidence.Count) {
	for _, name := range slices.Sorted(maps.Keys(of)) {
		listed = append(listed, evidence.Count{Name: name, Count: int64(of[name])})
	}
	return listed
}

// keep saves what is needed to play a history again.
func keep(t *testing.T, r result) string {
	t.Helper()
	dir := *flagOut
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "pawl-sim")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, fmt.Sprintf("seed-%d", r.script.Seed))
	if err := r.script.save(name + ".json"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name+".log", []byte(r.story), 0o644); err != nil {
		t.Fatal(err)
	}
	return name + ".json"
}
