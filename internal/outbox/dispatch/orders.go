package dispatch

import (
	"context"
	"fmt"
	"time"

	"pawl/internal/outbox"
)

// misreadsMax is how often the intent of an order is looked for, once with each renewal.
const misreadsMax = 5

// obey carries an operator's order out. What can't be done yet is left: the next renewal brings it
// again, until a flush says that it was obeyed.
func (t *tenure) obey(order *outbox.Order) {
	e := t.find(order.Offset)
	switch {
	case e != nil && order.Action == outbox.Cancel:
		t.cancel(e, order)
	case e != nil:
		t.retry(e, order)
	case order.Offset < t.window.next:
		t.revive(order)
	}
}

// find gives the entry at an offset, nil where there is none in memory.
func (t *tenure) find(offset int64) *entry {
	if e := t.parked[offset]; e != nil {
		return e
	}
	for _, q := range t.queues { // orders are rare
		for e := q.head; e != nil; e = e.after {
			if e.offset == offset {
				return e
			}
		}
	}
	return nil
}

func (t *tenure) cancel(e *entry, order *outbox.Order) {
	if e.unborn { // it is not written down that it lives again
		return
	}
	if e.order != nil && e.order.Number != order.Number {
		t.book.obeyed(order.Number, t.now) // it is being cancelled
		return
	}
	e.order = order
	if !e.busy() { // a call can't be taken back: its answer decides
		t.cancelled(e)
	}
}

// cancelled settles an intent that an operator does not want any more.
func (t *tenure) cancelled(e *entry) {
	text := "cancelled: " + e.order.Reason
	if e.reason != "" {
		text += "; before: " + e.reason
	}
	t.settle(e, e.outcome(verdict{status: outbox.Dead, reason: line(text)}, nil))
}

// retry sends a parked intent now. One that waits behind another of its key goes on waiting, unless it
// is an operator that the key waits for.
func (t *tenure) retry(e *entry, order *outbox.Order) {
	t.book.obeyed(order.Number, t.now)
	switch {
	case e.queue.held:
		t.unhold(e.queue)
	case e.stage == pausing && e.end != nil:
		t.pauses.remove(e)
		e.stage, e.due = waiting, time.Time{}
		t.book.changed(e, t.now)
		t.activate(e)
	}
}

// revive obeys an order about an intent that has its fate: a dead one is retried, and with either
// action its key goes on. What is not dead is left alone: the order came too late.
func (t *tenure) revive(order *outbox.Order) {
	if t.book.has(order.Offset) || t.stow.pending[order.Offset] || t.revivals[order.Offset] || len(t.revivals) >= revivalsMax {
		return // the next renewal brings it again
	}
	if t.l.final.Contains(order.Offset) {
		t.book.obeyed(order.Number, t.now)
		return
	}
	t.revivals[order.Offset] = true
	type found struct {
		intents []outbox.Intent
		parked  []outbox.Parked
	}
	ask(t, storeTimeout, func(ctx context.Context) (f found, err error) {
		if f.intents, err = t.l.d.config.Store.Get(ctx, t.l.number, []int64{order.Offset}); err == nil {
			f.parked, err = t.l.d.config.Store.Waiting(ctx, t.l.number, order.Offset, 1)
		}
		return f, err
	}, func(f found, err error) {
		delete(t.revivals, order.Offset)
		switch {
		case t.over != running || t.draining: // left to the next owner
		case err != nil:
			t.misread(order, err)
		case t.find(order.Offset) != nil || t.stow.settled[order.Offset]: // it came back meanwhile: with the next renewal
		case len(f.parked) == 1 && f.parked[0].Offset == order.Offset:
			t.stowed(&f.intents[0], &f.parked[0], order)
		default:
			t.book.obeyed(order.Number, t.now)
			if len(f.intents) == 1 {
				t.revived(&f.intents[0], order.Action)
			}
		}
	})
}

// stowed obeys an order about an intent that is parked and not in memory. One that is to be tried now
// waits for its turn all the same.
func (t *tenure) stowed(intent *outbox.Intent, p *outbox.Parked, order *outbox.Order) {
	if order.Action != outbox.Cancel {
		t.book.obeyed(order.Number, t.now)
		return
	}
	e := t.entry(intent, -1)
	e.role, e.attempts, e.status, e.reason, e.order = p.Role, p.Attempts, p.Status, p.Error, order
	t.cancelled(e)
}

// misread gives an order up whose intent can't be had: most likely there never was one.
func (t *tenure) misread(order *outbox.Order, err error) {
	t.failed(fmt.Errorf("get %d:%d for order %d: %w", t.l.number, order.Offset, order.Number, err))
	t.misreads[order.Number]++
	if t.misreads[order.Number] >= misreadsMax {
		delete(t.misreads, order.Number)
		t.book.obeyed(order.Number, t.now)
	}
}

// revived puts a dead intent back where it stood among those of its key.
func (t *tenure) revived(intent *outbox.Intent, action outbox.Action) {
	q := t.queue(intent)
	switch e := t.entry(intent, -1); {
	case action != outbox.RetryNow || intent.Twin != nil:
	case t.stow.sieve.has(q.hash): // earlier ones of its key may be stowed
		t.put(e, intent)
	default:
		e.role, e.unborn = outbox.Retry, true
		head := q.head
		t.parked[e.offset] = e
		q.insert(e)
		t.blame(q)
		t.weigh(q, 1)
		if head != nil && q.head == e {
			t.unload(head)
		}
		t.book.changed(e, t.now)
	}
	if q.held && q.holder == intent.Offset {
		t.unhold(q)
	}
	t.advance(q, true)
}

// unload benches the head of a key that another one goes before.
func (t *tenure) unload(e *entry) {
	t.bench(e)
	if e.role != 0 && e.payload != nil {
		e.payload = nil
		e.end.loaded--
	}
}
