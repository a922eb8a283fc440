package main

import (
	"math"
	"testing"
	"time"

	"pawl/internal/yardstick"
)

// trackOf is a track with a sighting each second.
func trackOf(records []int64, resident []float64) *track {
	t := &track{}
	for i := range records {
		t.add(sighting{time.Unix(int64(i), 0), records[i], resident[i]})
	}
	return t
}

// The rate of each tenth is that between its first and its last record, wherever the broker was asked; its memory is
// the most that was seen in it.
func TestBacklogIsCutIntoTenths(t *testing.T) {
	t.Parallel()
	// 100 records/s, and 50 from the eighth tenth on; a question without an answer in between.
	records := []int64{0, 100, 200, 0, 400, 500, 600, 700, 800, 850, 900, 950, 1000, 1050, 1100}
	resident := []float64{90, 10, 11, 0, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 20}
	parts := trackOf(records, resident).tenths(1100)
	if len(parts) != tenths {
		t.Fatalf("%d tenths", len(parts))
	}
	for i, part := range parts {
		want := 100.0
		if i >= 7 {
			want = 50
		}
		if math.Abs(part.Rate-want) > 0.001 {
			t.Errorf("tenth %d: %g records/s, want %g", i+1, part.Rate, want)
		}
	}
	if parts[0].Resident != 11 || parts[9].Resident != 21 {
		t.Errorf("memory of the first tenth %g and of the last %g, want 11 and 21", parts[0].Resident, parts[9].Resident)
	}
}

// Where commits are larger than a tenth, and where all came at once, no tenth is infinitely fast.
func TestTenthsOfFewCommits(t *testing.T) {
	t.Parallel()
	for _, part := range trackOf([]int64{100, 600, 1100}, []float64{1, 2, 3}).tenths(1100) {
		if math.Abs(part.Rate-500) > 0.001 {
			t.Errorf("%g records/s, want 500", part.Rate)
		}
	}
	if parts := trackOf([]int64{100}, []float64{1}).tenths(100); parts != nil {
		t.Errorf("tenths of a single commit: %v", parts)
	}
	if run := (catchUpRun{}); run.bySteady() != 0 || run.lastByMedian() != 0 || run.growth() != 0 {
		t.Error("figures of nothing")
	}
}

// caughtUp is a round of a catch-up of so many records.
func caughtUp(rate, steady, last, growth float64) catchUpRun {
	run := catchUpRun{
		Round: 1, Steady: yardstick.CopyRun{Peer: processorName, Copied: yardstick.Copied{Rate: steady}},
		Backlog: yardstick.CopyRun{Peer: processorName, Copied: yardstick.Copied{Rate: rate}, Peak: 77},
	}
	for range tenths {
		run.Tenths = append(run.Tenths, tenth{rate, 100})
	}
	run.Tenths[0].Resident, run.Tenths[tenths-1] = 1, tenth{last, 100 * growth}
	return run
}

func TestCatchUpIsComparedWithItsRound(t *testing.T) {
	t.Parallel()
	run := caughtUp(90, 100, 45, 1.25)
	if run.bySteady() != 0.9 || run.lastByMedian() != 0.5 || run.growth() != 1.25 {
		t.Errorf("by steady %g, last by median %g, growth %g; want 0.9, 0.5, 1.25", run.bySteady(), run.lastByMedian(), run.growth())
	}
}
