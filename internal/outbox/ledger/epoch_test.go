//go:build integration

package ledger_test

import (
	"testing"
	"time"

	"pawl/internal/outbox/ledger"
)

// A receiver that refuses low fences must not refuse a ledger that was restored from a backup, whose
// lane rows have the epochs of back then.
func TestEpochsGrowOverARestore(t *testing.T) {
	t.Parallel()
	b := open(t, ledger.Config{})
	ctx := t.Context()
	first, err := b.Acquire(ctx, 3, "a", time.Minute)
	b.must(err)
	next, err := b.Acquire(ctx, 3, "a", time.Minute)
	b.must(err)
	if next.Epoch <= first.Epoch || next.After != first.Epoch || first.After != 0 {
		t.Errorf("taken up again as %+v after %+v", next, first)
	}
	for owner, lease := range map[string]string{"a": "1 hour", "b": "-1 hour"} { // the lease of who has it may last
		b.exec("UPDATE pawl.lane SET epoch = $1, owner = 'a', lease_until = clock_timestamp() + $2::interval", first.Epoch-1_000_000, lease)
		restored, err := b.Acquire(ctx, 3, owner, time.Millisecond)
		b.must(err)
		if restored.Epoch <= first.Epoch {
			t.Errorf("%s has epoch %d after a restore, %d before it", owner, restored.Epoch, first.Epoch)
		}
	}
	b.exec("DELETE FROM pawl.lane")
	anew, err := b.Acquire(ctx, 3, "a", time.Minute)
	b.must(err)
	if anew.Epoch <= first.Epoch {
		t.Errorf("epoch %d in a new ledger, %d in the old one", anew.Epoch, first.Epoch)
	}
}
