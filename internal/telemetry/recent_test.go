package telemetry

import (
	"errors"
	"testing"
	"time"

	"pawl/internal/txn"
)

// A flood of commits pushes out older commits, not the aborts that somebody wants to know of.
func TestRecentTransactionsAreBoundedAndKeepFailures(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	if all, failed := b.Recent(); len(all) != 0 || len(failed) != 0 {
		t.Errorf("before the first there are %d and %d", len(all), len(failed))
	}
	b.hooks.Ended(txn.Ended{Lane: 3, Outcome: txn.Aborted, Reason: txn.ReasonProduce, Records: 7, Bytes: 70, Duration: 2 * time.Second, Err: errors.New("payload")})
	for range 2 * recentMax {
		b.hooks.Ended(txn.Ended{Outcome: txn.Committed, Records: 1})
	}
	all, failed := b.Recent()
	if len(all) != recentMax {
		t.Fatalf("%d are remembered, want %d", len(all), recentMax)
	}
	for i, one := range all {
		if want := int64(recentMax + 2 + i); one.Number != want || one.Outcome != txn.Committed {
			t.Errorf("number %d is %+v, want %d", i, one, want)
		}
	}
	if len(failed) != 1 {
		t.Fatalf("failed are %+v, want one", failed)
	}
	want := Transaction{Number: 1, At: failed[0].At, Lane: 3, Outcome: txn.Aborted, Reason: txn.ReasonProduce, Records: 7, Bytes: 70, Seconds: 2}
	if failed[0] != want || failed[0].At.IsZero() {
		t.Errorf("failed is %+v, want %+v at some time", failed[0], want)
	}
}

// The hook runs once per transaction on the goroutine of a lane.
func TestRecentTransactionsAllocateNothing(t *testing.T) {
	var r recent
	ended, now := txn.Ended{Outcome: txn.Aborted, Reason: txn.ReasonRebalance, Records: 5000}, time.Now()
	if allocated := testing.AllocsPerRun(1000, func() { r.add(ended, now) }); allocated != 0 {
		t.Errorf("%v allocations for a transaction", allocated)
	}
}
