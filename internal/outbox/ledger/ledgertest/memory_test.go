package ledgertest_test

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger/ledgertest"
)

func TestMemoryKeepsTheContract(t *testing.T) {
	t.Parallel()
	ledgertest.Exercise(t, func(*testing.T) ledgertest.Store { return &ledgertest.Memory{} })
}

// A test that plays a lost answer needs the change to have been made, one that plays a refusal not.
func TestMemoryFailsBeforeOrAfterTheChange(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		m := &ledgertest.Memory{Fail: func(method string, is bool) error {
			if method == "Seed" && is == after {
				return os.ErrDeadlineExceeded
			}
			return nil
		}}
		if err := m.Seed(t.Context(), 1, [16]byte{1}, 7); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("seed gave %v", err)
		}
		if head, err := m.Head(t.Context(), 1); err != nil || head.Known != after {
			t.Errorf("the lane is known: %t, %v, want %t", head.Known, err, after)
		}
	}
}

func TestMemoryIsRestoredFromABackup(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	m := &ledgertest.Memory{}
	add := func(base int64) {
		t.Helper()
		if err := m.Append(ctx, &outbox.Batch{
			Lane: 1, Base: base, Next: base + 1, Intents: []outbox.Intent{{Lane: 1, Offset: base, BusinessKey: "k"}},
			Seen: map[outbox.Origin]outbox.Mark{{Partition: 1}: {Offset: base}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Seed(ctx, 1, [16]byte{}, 0); err != nil {
		t.Fatal(err)
	}
	empty := m.Clone()
	add(0)
	backup := m.Clone()
	add(1)
	for range 2 { // a backup outlives its use
		m.Restore(backup)
		head, err := m.Head(ctx, 1)
		if err != nil || head.Next != 1 || head.Seen[outbox.Origin{Partition: 1}].Offset != 0 || len(m.Intents(1)) != 1 || m.Appends(1) != 1 {
			t.Errorf("after the restore: %+v, %v", head, err)
		}
		add(1)
		if twin := m.Intents(1)[1].Twin; twin == nil || twin.Offset != 0 {
			t.Errorf("the twin is %+v", twin)
		}
	}
	m.Restore(empty)
	add(0)
	if twin := m.Intents(1)[0].Twin; twin != nil {
		t.Errorf("the business key outlived the restore: %+v", twin)
	}
}

// Whoever owned a lane before a restore, and still does, may write down what became of effects that the ledger has
// lost: they come again. The next owner has an epoch that none before had.
func TestMemoryTakesOutcomesOfWhatARestoreHasLost(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	m := &ledgertest.Memory{}
	add := func() error {
		return m.Append(ctx, &outbox.Batch{Lane: 1, Base: 0, Next: 1, Intents: []outbox.Intent{{Lane: 1}}})
	}
	if err := m.Seed(ctx, 1, [16]byte{}, 0); err != nil {
		t.Fatal(err)
	}
	tenure, err := m.Acquire(ctx, 1, "a", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	backup := m.Clone()
	if err := add(); err != nil {
		t.Fatal(err)
	}
	lost, err := m.Acquire(ctx, 1, "a", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	m.Restore(backup)
	flush := func(offset int64) error {
		return m.Flush(ctx, outbox.Flush{
			Tenure: tenure, Seq: 1, Low: offset + 1, Settled: []outbox.Outcome{{Offset: offset, Status: outbox.Done}},
			Covered: outbox.Ranges{}.Add(offset, offset+1),
		})
	}
	if err := flush(1); err == nil {
		t.Error("an outcome of what never was is taken")
	}
	if err := flush(0); err != nil {
		t.Errorf("the outcome of what was lost: %v", err)
	}
	if results, err := m.Results(ctx, 1, 0, 10); err == nil {
		t.Errorf("results without their intents: %+v", results)
	}
	if err := add(); err != nil {
		t.Fatal(err)
	}
	if results, err := m.Results(ctx, 1, 0, 10); err != nil || len(results) != 1 {
		t.Errorf("results are %+v, %v", results, err)
	}
	if next, err := m.Acquire(ctx, 1, "b", time.Hour); err == nil || next.Epoch > 0 {
		t.Errorf("the lease of the backup does not hold: %+v", next)
	}
	if next, err := m.Acquire(ctx, 1, "a", time.Hour); err != nil || next.Epoch <= lost.Epoch {
		t.Errorf("the next epoch is %d, %v; %d was lost", next.Epoch, err, lost.Epoch)
	}
}

func TestLeasesOfMemoryRunInVirtualTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &ledgertest.Memory{}
		tenure, err := m.Acquire(t.Context(), 1, "a", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour - 1) //nolint:forbidigo // virtual time
		if _, err := m.Acquire(t.Context(), 1, "b", time.Hour); !errors.Is(err, outbox.ErrHeld) {
			t.Errorf("acquire gave %v", err)
		}
		time.Sleep(time.Nanosecond) //nolint:forbidigo // virtual time
		if _, _, err := m.Renew(t.Context(), tenure, time.Hour); !errors.Is(err, outbox.ErrFenced) {
			t.Errorf("renew gave %v", err)
		}
		if _, err := m.Acquire(t.Context(), 1, "b", time.Hour); err != nil {
			t.Error(err)
		}
	})
}

// Memory is what dispatchers are tested on: it must see what they do wrong.
func TestMemoryRefusesUnsoundFlushes(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	m := &ledgertest.Memory{}
	b := outbox.Batch{Lane: 1, Next: 10}
	for offset := range int64(4) {
		b.Intents = append(b.Intents, outbox.Intent{Lane: 1, Offset: 2 * offset})
	}
	if err := errors.Join(m.Seed(ctx, 1, [16]byte{}, 0), m.Append(ctx, &b)); err != nil {
		t.Fatal(err)
	}
	tenure, err := m.Acquire(ctx, 1, "a", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	settled := func(offsets ...int64) (f outbox.Flush) {
		f = outbox.Flush{Tenure: tenure, Seq: 2}
		for _, offset := range offsets {
			f.Settled = append(f.Settled, outbox.Outcome{Offset: offset, Status: outbox.Done})
			f.Covered = f.Covered.Add(offset, offset+1)
		}
		return f
	}
	first := settled(0)
	first.Seq, first.Low = 1, 2
	if err := m.Flush(ctx, first); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*outbox.Flush){
		"a second outcome":              func(f *outbox.Flush) { *f = settled(0, 2) },
		"an outcome without intent":     func(f *outbox.Flush) { *f = settled(3) },
		"outcomes in disorder":          func(f *outbox.Flush) { *f = settled(4, 2) },
		"covers what is not settled":    func(f *outbox.Flush) { f.Covered = f.Covered.Add(2, 5) },
		"leaves out what is settled":    func(f *outbox.Flush) { f.Covered = nil },
		"low passes what waits":         func(f *outbox.Flush) { f.Low = 5 },
		"low goes back":                 func(f *outbox.Flush) { f.Low = 1 },
		"parks and settles":             func(f *outbox.Flush) { f.Parked = []outbox.Parked{{Offset: 2}} },
		"parks what is not there":       func(f *outbox.Flush) { f.Parked = []outbox.Parked{{Offset: 3}} },
		"begins where another one ends": func(f *outbox.Flush) { f.Seq = 1 },
	} {
		f := settled(2)
		f.Low = 4
		change(&f)
		if err := m.Flush(ctx, f); err == nil {
			t.Errorf("a flush that %s was taken", name)
		}
	}
	sound := settled(2)
	sound.Low = 4
	if err := m.Flush(ctx, sound); err != nil {
		t.Error(err)
	}
}

func TestLeasesOfMemoryFitTheModel(t *testing.T) {
	t.Parallel()
	ledgertest.Leases(t, &ledgertest.Memory{}, 1000)
}
