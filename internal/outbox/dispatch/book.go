package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pawl/internal/failpoint"
	"pawl/internal/outbox"
)

// When what is to be written down is written. A flush costs the store about as much as fifty appended
// intents, whatever it holds: a busy store, of which a slow flush tells, gets fewer and larger ones.
const (
	flushMax  = 1000                   // results in one flush
	flushSoon = 5 * time.Millisecond   // after the first result, where many come
	flushMany = 512                    // results that make it many
	flushIdle = 50 * time.Millisecond  // from one flush to the next, where few results come; at least
	flushRest = 8                      // times the duration of the last flush
	flushLate = 100 * time.Millisecond // at most
)

// fate is an outcome with what is needed to tell of it.
type fate struct {
	outcome  outbox.Outcome
	position int64 // in the window, -1 where it isn't there
	hold     *outbox.Hold
	queue    *queue // of its key; nil where it came in no order
	endpoint string
	at       time.Time
}

// bytes is what an outcome holds of an answer.
func (f *fate) bytes() int {
	if f.outcome.Response == nil {
		return 0
	}
	return len(f.outcome.Response.Body)
}

// book has what is to be written down, in the order in which it became so. A flush takes the first
// ones: of a key, a later fate is never written before an earlier one.
type book struct {
	fates  []fate
	bytes  int // of the answers in fates and in flushing
	dirty  []*entry
	orders []int64
	freed  []int64   // offsets whose hold is to end
	since  time.Time // of the first of them
	hurry  bool      // a call waits for them
	seq    int64     // of the last flush

	flushing []fate // of the flush that is under way
	spare    []fate // memory of the one before
	unborn   []*entry
	under    bool
	took     time.Duration // by the last one
	written  bool          // some flush has succeeded
}

func (b *book) size() int { return len(b.fates) + len(b.flushing) + len(b.dirty) }

func (b *book) empty() bool { return len(b.fates)+len(b.dirty)+len(b.orders)+len(b.freed) == 0 }

func (b *book) touch(now time.Time) {
	if b.empty() {
		b.since = now
	}
}

func (b *book) settled(f fate, now time.Time) {
	b.touch(now)
	b.fates = append(b.fates, f)
	b.bytes += f.bytes()
}

// holds says of the newest fate that the later intents of its key wait. It is written down together
// with the fate: a hold whose intent is sent again after all would never end.
func (b *book) holds(intent *outbox.Intent) {
	b.fates[len(b.fates)-1].hold = &outbox.Hold{Offset: intent.Offset, Endpoint: intent.Endpoint, Key: intent.Key}
}

// owe says of the newest fate whose key it is of.
func (b *book) owe(q *queue) {
	b.fates[len(b.fates)-1].queue = q
	q.owed++
}

// free ends a hold.
func (b *book) free(offset int64, now time.Time) {
	for i := range b.fates {
		if b.fates[i].outcome.Offset == offset {
			b.fates[i].hold = nil
			return
		}
	}
	b.touch(now)
	b.freed = append(b.freed, offset)
}

func (b *book) changed(e *entry, now time.Time) {
	if e.dirty {
		return
	}
	b.touch(now)
	e.dirty = true
	b.dirty = append(b.dirty, e)
}

func (b *book) obeyed(order int64, now time.Time) {
	b.touch(now)
	b.orders = append(b.orders, order)
}

// due is when the next flush is to begin.
func (b *book) due() (at time.Time, is bool) {
	switch n := len(b.fates) + len(b.dirty); {
	case b.under || b.empty():
		return time.Time{}, false
	case n >= flushMax || b.hurry:
		return b.since, true
	case n >= flushMany:
		return b.since.Add(flushSoon), true
	default:
		return tick(b.since, min(flushLate, max(flushIdle, flushRest*b.took))), true
	}
}

// tick is the next time after now at which a clock that strikes at intervals does: so flushes of many lanes come together, and
// the ledger makes one statement of them.
func tick(now time.Time, every time.Duration) time.Time {
	return now.Add(every - time.Duration(now.UnixNano()%int64(every)))
}

// unwritten gives the fates of which it isn't known that they are written down.
func (b *book) unwritten() []fate { return slices.Concat(b.flushing, b.fates) }

// has reports whether the fate of an intent is known and perhaps not written down.
func (b *book) has(offset int64) bool {
	return slices.ContainsFunc(b.unwritten(), func(f fate) bool { return f.outcome.Offset == offset })
}

// done is the number of the last flush that is known to be written.
func (b *book) done() int64 {
	if b.under {
		return b.seq - 1
	}
	return b.seq
}

// owes reports whether what became of an entry so far is not written down.
func (b *book) owes(e *entry) bool { return e.dirty || b.under && e.flush == b.seq }

// make takes what goes into the next flush.
func (b *book) make(held outbox.Tenure, w *window, now time.Time) outbox.Flush {
	n := min(flushMax, len(b.fates))
	all, next := b.fates, b.spare[:0]
	next = append(next, all[n:]...)
	clear(all[n:])
	b.flushing, b.fates, b.spare = all[:n], next, nil
	b.seq++
	f := outbox.Flush{Tenure: held, Seq: b.seq, Freed: b.freed, Obeyed: b.orders}
	for _, e := range b.dirty {
		if !e.dirty { // settled since
			continue
		}
		e.dirty, e.flush = false, f.Seq
		f.Parked = append(f.Parked, e.record(now))
		w.note(e.position)
		if e.unborn {
			b.unborn = append(b.unborn, e)
		}
	}
	b.dirty, b.orders, b.freed = nil, nil, nil
	slices.SortFunc(b.flushing, func(x, y fate) int { return cmp.Compare(x.outcome.Offset, y.outcome.Offset) })
	f.Settled = make([]outbox.Outcome, n)
	for i, fate := range b.flushing {
		f.Settled[i] = fate.outcome
		f.Covered = f.Covered.Add(w.gap(fate.position, fate.outcome.Offset), fate.outcome.Offset+1)
		w.note(fate.position)
		if fate.hold != nil {
			f.Holds = append(f.Holds, *fate.hold)
		}
	}
	f.Low = w.low()
	b.since, b.under, b.hurry = now, true, false
	return f
}

// record is what is written down of a parked one.
func (e *entry) record(now time.Time) outbox.Parked {
	p := outbox.Parked{Offset: e.offset, Role: e.role, Attempts: e.attempts, Status: e.status, Error: e.reason, Endpoint: e.end.name()}
	if e.role == outbox.Retry && e.end != nil { // whoever knows the endpoint may send at once
		p.In = max(0, e.due.Sub(now))
	}
	if !e.since.IsZero() {
		p.Since = max(0, now.Sub(e.since))
	}
	return p
}

// flush writes down what is due, one flush at a time.
func (t *tenure) flush() {
	at, is := t.book.due()
	last := t.draining && t.flying == 0
	if t.over != running || !is || at.After(t.now) && !last {
		return
	}
	f := t.book.make(t.held, &t.window, t.now)
	begun := t.now
	ask(t, storeTimeout, func(ctx context.Context) (struct{}, error) {
		failpoint.Hit("dispatch.flush")
		err := t.l.d.config.Store.Flush(ctx, f)
		failpoint.Hit("dispatch.flushed")
		return struct{}{}, err
	}, func(_ struct{}, err error) {
		if err != nil {
			if t.over == running {
				t.fail(fmt.Errorf("flush %d results of lane %d: %w", len(f.Settled), t.l.number, err))
			}
			return
		}
		t.l.conclude(&f)
		t.stow.written(&f)
		t.flushed(f, time.Since(begun))
	})
}

func (t *tenure) flushed(f outbox.Flush, took time.Duration) {
	b, hooks := &t.book, &t.l.d.config.Hooks
	hook(hooks.Flushed, Flushed{Lane: t.l.number, Results: len(f.Settled), Duration: took})
	if hooks.Settled != nil {
		for _, fate := range b.flushing {
			s := Settled{Lane: t.l.number, Offset: fate.outcome.Offset, Endpoint: fate.endpoint, Status: fate.outcome.Status, Attempts: fate.outcome.Attempts}
			if !fate.at.IsZero() {
				s.Age = t.now.Sub(fate.at)
			}
			hooks.Settled(s)
		}
	}
	for i := range b.flushing {
		b.bytes -= b.flushing[i].bytes()
		if q := b.flushing[i].queue; q != nil {
			q.owed--
			t.forget(q)
		}
	}
	unborn := b.unborn
	clear(b.flushing)
	b.spare = b.flushing
	b.flushing, b.unborn, b.under, b.took, b.written = nil, nil, false, took, true
	for _, e := range unborn {
		e.unborn = false
		if e.stage == waiting && e.queue.head == e {
			t.activate(e)
		}
	}
}

// renew lengthens the lease and brings orders. It also shows whether the ledger still has what was
// written down: a standby that took over, or a backup that was restored, may lack the newest flushes,
// and a lane that has nothing to flush would not notice.
func (t *tenure) renew() {
	if t.over != running || t.renews || t.now.Before(t.renewAt) {
		return
	}
	t.renews = true
	every := t.l.d.config.renewal()
	t.renewAt = t.now.Add(every)
	type renewal struct {
		held   outbox.Tenure
		orders []outbox.Order
	}
	written := t.book.done()
	ask(t, every, func(ctx context.Context) (renewal, error) {
		failpoint.Hit("dispatch.renew")
		held, orders, err := t.l.d.config.Store.Renew(ctx, t.held, t.l.d.config.LeaseTTL)
		return renewal{held, orders}, err
	}, func(r renewal, err error) {
		t.renews = false
		switch {
		case t.over != running:
		case errors.Is(err, outbox.ErrFenced):
			t.over = fenced
		case err != nil:
			t.failed(fmt.Errorf("renew the lease of lane %d: %w", t.l.number, err))
			t.renewAt = t.now.Add(every / 10)
		case r.held.Seq < written:
			t.fail(fmt.Errorf("renew the lease of lane %d: the ledger has flushes up to %d of %d: it went back, and the lane is taken up anew", t.l.number, r.held.Seq, written))
		default:
			t.held = r.held
			for i := range r.orders {
				t.obey(&r.orders[i])
			}
		}
	})
}
