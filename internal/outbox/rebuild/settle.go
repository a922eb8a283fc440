package rebuild

import (
	"context"
	"fmt"
	"hash/maphash"
	"slices"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

// pageMax is how many effects one flush is about.
const pageMax = 1000

// settle writes down what was told, and what must not be called although nothing was told of it.
func (w *work) settle(ctx context.Context) error {
	for _, s := range w.lanes {
		w.told.forget()
		err := w.Told(ctx, s.Lane.Lane, func(r outbox.Result) error {
			if r.Outcome.Offset >= s.Start {
				w.told.add(r.Outcome)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read what was told of lane %d: %w", s.Lane.Lane, err)
		}
		if err := w.settleLane(ctx, s); err != nil {
			return fmt.Errorf("settle lane %d: %w", s.Lane.Lane, err)
		}
	}
	return nil
}

func (w *work) settleLane(ctx context.Context, s *site) error {
	recovery, err := w.Store.Recover(ctx, s.tenure)
	if err != nil {
		return err
	}
	t := newTurn(w, s, recovery)
	s.Told, s.Calls = 0, 0
	for from := s.Start; from < s.End; { // what came after that was asked for while no ledger was there
		intents, next, err := w.Store.Page(ctx, s.Lane.Lane, from, pageMax)
		if err != nil {
			return err
		}
		next = min(next, s.End)
		intents = slices.DeleteFunc(intents, func(i outbox.Intent) bool { return i.Offset >= s.End })
		if len(intents) == 0 {
			return nil
		}
		flush := outbox.Flush{Tenure: s.tenure, Seq: t.seq + 1}
		for i := range intents {
			t.judge(&intents[i], &flush)
		}
		flush.Low = max(recovery.Low, next)
		if t.low >= 0 {
			flush.Low = max(recovery.Low, t.low)
		}
		if len(flush.Settled)+len(flush.Parked)+len(flush.Freed) > 0 {
			if err := w.Store.Flush(ctx, flush); err != nil {
				return err
			}
			t.seq++
		}
		from = next
		w.progress(Settle, s.Lane.Lane, from, s.End)
	}
	return nil
}

// turn is the way through a lane, in the order of its offsets.
type turn struct {
	*work

	site   *site
	seq    int64
	low    int64 // the first effect that is to be called, -1 where there is none so far
	before outbox.Recovery
	parked map[int64]bool // by a rebuild that was cut off
	seed   maphash.Seed
	held   map[uint64]int64 // by key, the dead effect that holds the others
}

func newTurn(w *work, s *site, before outbox.Recovery) *turn {
	t := &turn{work: w, site: s, seq: before.Seq, low: -1, before: before, parked: map[int64]bool{}, seed: maphash.MakeSeed(), held: map[uint64]int64{}}
	for _, p := range before.Parked {
		t.parked[p.Offset] = true
	}
	return t
}

// judge adds an effect to a flush, or leaves it to the dispatcher.
func (t *turn) judge(intent *outbox.Intent, flush *outbox.Flush) {
	s, key := t.site, maphash.Bytes(t.seed, intent.Key)
	outcome, told := t.told.find(intent.Offset)
	s.Effects++
	switch {
	case told:
		s.Told++
		t.free(key, flush) // it was let go, if it waited
		if len(intent.Key) > 0 && outcome.Status == outbox.Dead && t.Holds(intent.Endpoint) {
			t.held[key] = intent.Offset
		}
	case intent.Twin != nil: // the dispatcher settles it without a call
		s.Twins++
		t.leave(intent)
		return
	default:
		var repeats bool
		switch outcome, repeats = t.told.repeats(intent); {
		case repeats:
			s.Repeats++
		case intent.Class == message.AtMostOnce:
			// Whether it was begun stood in the ledger that is lost.
			s.Unknown++
			outcome = outbox.Outcome{Offset: intent.Offset, Status: outbox.Unknown, Error: "the ledger was lost, and with it whether the call was begun"}
		case t.holds(key):
			s.Held++
			if !t.parked[intent.Offset] {
				flush.Parked = append(flush.Parked, outbox.Parked{Offset: intent.Offset, Role: outbox.Held})
			}
			return
		default:
			s.Calls++
			t.leave(intent)
			return
		}
	}
	if intent.Offset < t.before.Low || t.before.Settled.Contains(intent.Offset) {
		return // by a rebuild that was cut off
	}
	flush.Covered = flush.Covered.Add(intent.Offset, intent.Offset+1)
	flush.Settled = append(flush.Settled, outcome)
	if holder, held := t.held[key]; held && holder == intent.Offset {
		flush.Holds = append(flush.Holds, outbox.Hold{Offset: intent.Offset, Endpoint: intent.Endpoint, Key: intent.Key})
	}
}

// holds reports whether a key waits for an operator.
func (t *turn) holds(key uint64) bool {
	_, held := t.held[key]
	return held
}

// free lets a key go on.
func (t *turn) free(key uint64, flush *outbox.Flush) {
	holder, held := t.held[key]
	if !held {
		return
	}
	delete(t.held, key)
	n := len(flush.Holds)
	flush.Holds = slices.DeleteFunc(flush.Holds, func(h outbox.Hold) bool { return h.Offset == holder })
	if len(flush.Holds) == n { // it stands in an earlier flush
		flush.Freed = append(flush.Freed, holder)
	}
}

// leave keeps the low mark below an effect that is still to be settled.
func (t *turn) leave(intent *outbox.Intent) {
	if t.low < 0 {
		t.low = intent.Offset
	}
}
