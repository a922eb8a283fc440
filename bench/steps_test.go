package main

import (
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/load"
)

// plainRecord is record n of a load, due at a time.
func plainRecord(t *testing.T, n int64, due time.Time) *kgo.Record {
	t.Helper()
	plain, err := load.NewPlain(load.PlainConfig{Run: 1, Bytes: 100, Keys: 10})
	if err != nil {
		t.Fatal(err)
	}
	var record kgo.Record
	plain.Fill(&record, load.Stamp{N: n, Scheduled: due, Called: due})
	return &record
}

// Each record counts for the step that it was produced in, though it comes out in the next, and for its second; what
// warms up counts for none. Transactions are those between the edges of a step.
func TestStepsAreToldApart(t *testing.T) {
	t.Parallel()
	l := newLadder([]int{2, 10}, 100, time.Second, 2*time.Second)
	began := time.Unix(1000, 0)
	l.begin(began)
	due := func(second float64) time.Time { return began.Add(time.Duration(second * float64(time.Second))) }
	for n := range l.count() {
		at, wait := due(float64(n)/2), 10*time.Millisecond
		switch {
		case n >= 6+10: // the last second
			wait = 30 * time.Millisecond
		case n >= 6: // the first second of 10 records/s
			wait = 90 * time.Millisecond
		case n < 2:
			wait = time.Hour
		}
		l.delivered(plainRecord(t, n, at), at.Add(wait))
	}
	for i, now := range []edge{{due(1), 2, 7}, {due(3), 5, 10}, {due(5), 26, 12}} {
		if err := l.produced(i, now); err != nil {
			t.Fatal(err)
		}
	}
	runs := l.runs()
	if len(runs) != 2 || l.count() != 2+4+20 || l.lasts() != 5*time.Second {
		t.Fatalf("%d runs of %d records in %s, want 2 of 26 in 5s", len(runs), l.count(), l.lasts())
	}
	first, second := runs[0], runs[1]
	if first.By() != "step-1-at-2" || first.Latency.Count != 4 || first.Transactions != 3 || first.PerSecond != 1.5 || first.Size != 1 || first.Rate != 1.5 || first.settled() != 0 {
		t.Errorf("first step: %+v", first)
	}
	if second.Latency.Count != 20 || second.Latency.Max != 90*time.Millisecond || second.Size != 10.5 || len(second.Seconds) != 2 || second.settled() != 1 || second.worst() < 90 {
		t.Errorf("second step: %+v, settled after %g s", second, second.settled())
	}
	l.edges = l.edges[:1]
	l.edges[0].transactions = 32766
	if err := l.produced(0, edge{transactions: 3}); err == nil {
		t.Error("epochs that began again are counted as transactions")
	}
}

func TestStepThatNeverSettles(t *testing.T) {
	t.Parallel()
	run := stepRun{Latency: load.Summary{P50: 10 * time.Millisecond}, Seconds: []float64{30, 20, 25}}
	if !math.IsInf(run.settled(), 1) {
		t.Errorf("settled after %g s, want never", run.settled())
	}
	run.Seconds = append(run.Seconds, 19)
	if run.settled() != 3 {
		t.Errorf("settled after %g s, want 3", run.settled())
	}
}

// The load has its rates and its length by the flags, and the process has no knob set.
func TestStepsTakeTheirPoints(t *testing.T) {
	t.Parallel()
	s, err := parseFlags([]string{"-only", partSteps}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if rates, err := s.stepRates(); err != nil || !slices.Equal(rates, []int{10, 100, 1000, 10_000, 50_000, 100_000, 1000}) || s.stepDuration() != stepDuration {
		t.Errorf("rates %v, %v, each for %s", rates, err, s.stepDuration())
	}
	if s, err = parseFlags([]string{"-only", partSteps, "-points", "5,200000,5", "-duration", "3s"}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if rates, err := s.stepRates(); err != nil || !slices.Equal(rates, []int{5, 200_000, 5}) || s.stepDuration() != 3*time.Second {
		t.Errorf("rates %v, %v, each for %s", rates, err, s.stepDuration())
	}
	bare := &processorPeer{processes: 1, partitions: 8}
	if text := bare.config(job{name: "a"}); strings.Contains(text, "txn:") || bare.members() != defaultLanes() {
		t.Errorf("%d members, and a knob is set:\n%s", bare.members(), text)
	}
	if text := (&processorPeer{processes: 1, partitions: 8, lanes: 3}).config(job{name: "a"}); !strings.Contains(text, "txn: {lanes: 3}") {
		t.Errorf("the lanes are not set:\n%s", text)
	}
}

// stepsOf is a round of steps.
func stepsOf() []stepRun {
	latency := load.Summary{P50: 4 * time.Millisecond, P99: 6 * time.Millisecond}
	return []stepRun{
		{Round: 1, Step: 1, Wanted: 10, Rate: 10, Latency: latency, Size: 1.5, Seconds: []float64{6}},
		{Round: 1, Step: 2, Wanted: 1000, Rate: 1000, Latency: latency, Size: 20, Seconds: []float64{9}},
		{Round: 1, Step: 3, Wanted: 10, Rate: 10, Latency: latency, Size: 1.25, Seconds: []float64{9, 7}},
	}
}
