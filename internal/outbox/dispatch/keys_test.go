package dispatch

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"pawl/internal/outbox"
)

// A queue is held against a sorted list. What is under way stays in front, whatever comes back.
func TestQueueIsInOrderOfOffsets(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		q := &queue{}
		var want []*entry
		next := int64(100)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				next++
				e := &entry{offset: next}
				q.push(e)
				want = append(want, e)
			case 2: // a dead one is retried
				e := &entry{offset: rapid.Int64Range(0, next).Draw(t, "offset")}
				if slices.ContainsFunc(want, func(other *entry) bool { return other.offset == e.offset }) {
					continue
				}
				q.insert(e)
				at := 0
				for at < len(want) && (want[at].offset < e.offset || at == 0 && want[0].busy()) {
					at++
				}
				want = slices.Insert(want, at, e)
			default:
				if len(want) > 0 {
					at := rapid.IntRange(0, len(want)-1).Draw(t, "which")
					q.remove(want[at])
					want = slices.Delete(want, at, at+1)
				}
			}
			if len(want) > 0 && rapid.Bool().Draw(t, "sent") {
				want[0].stage = flying
			}
			got := make([]*entry, 0, q.n)
			for e := q.head; e != nil; e = e.after {
				got = append(got, e)
			}
			if !slices.Equal(got, want) || q.n != len(want) || len(want) > 0 && q.tail != want[len(want)-1] {
				t.Fatalf("%d entries, want %d", len(got), len(want))
			}
		}
	})
}

// Of a key, the fate that was first is written first, however many there are and wherever they stand.
func TestAFlushTakesTheOldestFates(t *testing.T) {
	t.Parallel()
	b, w := book{}, newWindow(0)
	const n = flushMax + 500
	for offset := range int64(n) {
		w.add(offset, false)
	}
	for i := range int64(n) {
		offset := n - 1 - i // settled from the end
		b.settled(fate{outcome: outbox.Outcome{Offset: offset}, position: offset}, time.Now())
	}
	f := b.make(outbox.Tenure{}, &w, time.Now())
	if len(f.Settled) != flushMax || f.Settled[0].Offset != n-flushMax || f.Settled[flushMax-1].Offset != n-1 || f.Low != 0 || f.Seq != 1 {
		t.Errorf("%d outcomes from %d on, low %d", len(f.Settled), f.Settled[0].Offset, f.Low)
	}
	if len(f.Covered) != 1 || f.Covered[0] != (outbox.Range{From: n - flushMax, To: n}) {
		t.Errorf("covered are %v", f.Covered)
	}
	if left := b.unwritten(); len(left) != n {
		t.Errorf("%d fates are not written down, want all %d", len(left), n)
	}
}

// Only the tenure that follows at once takes over what was known; then nobody else had the lane.
func TestRemainsAreForTheNextEpochOnly(t *testing.T) {
	t.Parallel()
	for after, want := range map[int64]bool{0: false, 3: false, 4: true, 5: false} {
		r := &remains{epoch: 4}
		if got := r.under(outbox.Tenure{Epoch: 9, After: after}) != nil; got != want {
			t.Errorf("a tenure after epoch %d takes over what one with 4 left: %t, want %t", after, got, want)
		}
	}
	r := (&remains{epoch: 4}).under(outbox.Tenure{Epoch: 9, After: 4})
	if r.under(outbox.Tenure{Epoch: 12, After: 9}) == nil {
		t.Error("a tenure that came to nothing breaks the chain")
	}
	if (*remains)(nil).under(outbox.Tenure{Epoch: 1}) != nil {
		t.Error("something came from nothing")
	}
}
