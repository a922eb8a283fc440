package dispatch

import (
	"context"
	"fmt"
	"maps"
	"time"

	"pawl/internal/outbox"
)

// Of what is parked, each endpoint of a lane may have so many in memory: its share. What comes for one
// that has its share is stowed: written down as parked like any other, and forgotten but for its key, which a sieve
// knows. Later intents of a key that is stowed are stowed too, whatever their endpoint. So
//
//	(1) of each key, what is in memory comes before what is stowed.
//
// A sweep brings stowed ones back, in the order of offsets: it reads all that is parked and not in
// memory, takes in what may wait in memory again, and leaves the rest, with all that comes later of the
// same keys. Thereby (1) stays true, and what it left makes the sieve anew, so that keys are forgotten in their turn.
// It waits where an endpoint that is called has its share again, and goes past those of one that is not:
// an endpoint that is down stops no other, however much waits for it.
type stow struct {
	sieve   sieve
	pending map[int64]bool // offsets that are not written down yet

	// settled are parked ones that have their fate and may still be read as parked: it is not written
	// down, or was while a question was under way. Those of the second kind stand in late, too.
	settled map[int64]bool
	late    []int64

	sweep    *sweep
	surveyed bool // what earlier tenures stowed is in the sieve; before that nothing new is read
	reading  bool
	readAt   time.Time
	vain     int // sweeps in a row that brought nothing back
}

// sweep is one way through what is stowed.
type sweep struct {
	left    sieve // what it leaves
	since   sieve // what is stowed meanwhile
	brought bool  // something back
	next    int64
	until   int64 // what stands from there on is stowed after it began
	flush   int64 // by which the rest is written down
	waits   bool
	waitsOn *end // which has its share
}

// The rest after a sweep that brought nothing back.
const (
	sweepRest    = time.Second
	sweepRestMax = time.Minute
)

const stowReason = "more wait for the endpoint than are kept in memory"

func newStow(r *outbox.Recovery) stow {
	s := stow{pending: map[int64]bool{}, settled: map[int64]bool{}, surveyed: r.Rest >= r.Low}
	if !s.surveyed {
		s.sweep = &sweep{next: r.Rest, until: r.Low}
	}
	return s
}

// parkedOf counts what is in memory of the parked ones that wait for an endpoint, be it that others of their key do.
func (t *tenure) parkedOf(n *end) *int {
	if n == nil {
		return &t.strangers
	}
	return &n.parked
}

// weigh notes that intents of a key were parked, or left.
func (t *tenure) weigh(q *queue, n int) {
	q.parked += n
	*t.parkedOf(q.blamed) += n
}

// blame sees to it that what is parked of a key counts for the endpoint of the first of them.
func (t *tenure) blame(q *queue) {
	if q.head == nil || q.head.end == q.blamed {
		return
	}
	*t.parkedOf(q.blamed) -= q.parked
	q.blamed = q.head.end
	*t.parkedOf(q.blamed) += q.parked
}

// waitsFor gives the endpoint that an intent would wait for.
func (t *tenure) waitsFor(e *entry, hash uint64) *end {
	if q := t.queues[hash]; q != nil && q.head != nil {
		return q.head.end
	}
	return e.end
}

// share is how many parked ones of an endpoint may be in memory.
func (t *tenure) share() int { return max(1, t.l.d.parkedMax/max(1, len(t.l.d.gates))) }

// serves reports whether it is of use to read on while much is parked: some endpoint can be called.
func (t *tenure) serves() bool {
	for name := range t.l.d.gates {
		if n := t.ends[name]; n == nil || t.open(n) && n.parked < t.share() {
			return true
		}
	}
	return false
}

// open reports whether calls of an endpoint are let through. One that is unknown here is not called; its
// intents have to come by when their time is up.
func (t *tenure) open(n *end) bool { return n == nil || n.gate.shut() == "" }

// useful reports whether a sweep would bring back what can be called.
func (t *tenure) useful(left *sieve, but *end) bool {
	for n, heads := range left.heads {
		if heads > 0 && n != but && t.open(n) && *t.parkedOf(n) <= t.share()/2 {
			return true
		}
	}
	return false
}

// stows reports whether a new intent is to be stowed.
func (t *tenure) stows(e *entry, intent *outbox.Intent) bool {
	if t.stow.sieve.n == 0 && len(t.parked) < t.share() {
		return false
	}
	hash := t.hash(intent)
	return t.stow.sieve.has(hash) || *t.parkedOf(t.waitsFor(e, hash)) >= t.share()
}

// put stows an intent: it is written down as parked, and in memory no more than its key.
func (t *tenure) put(e *entry, intent *outbox.Intent) {
	t.left(e, intent)
	t.stow.pending[e.offset] = true
	e.payload, e.role, e.reason = nil, outbox.Retry, stowReason
	t.book.changed(e, t.now)
	hook(t.l.d.config.Hooks.Parked, Parked{Lane: t.l.number, Offset: e.offset, Endpoint: e.end.name(), Role: e.role, Reason: e.reason})
}

// left notes that an intent is left to the ledger.
func (t *tenure) left(e *entry, intent *outbox.Intent) {
	hash := t.hash(intent)
	waitsFor := t.waitsFor(e, hash)
	t.stow.sieve.add(hash, waitsFor)
	if w := t.stow.sweep; w != nil {
		w.since.add(hash, waitsFor)
	}
}

// written notes what a flush has written down.
func (s *stow) written(f *outbox.Flush) {
	for i := range f.Parked {
		delete(s.pending, f.Parked[i].Offset)
	}
	for i := range f.Settled {
		offset := f.Settled[i].Offset
		switch {
		case !s.settled[offset]:
		case s.reading:
			s.late = append(s.late, offset)
		default:
			delete(s.settled, offset)
		}
	}
}

// read notes that the answer to a question is there, and what it may have had that is over.
func (s *stow) read() {
	s.reading = false
	for _, offset := range s.late {
		delete(s.settled, offset)
	}
	s.late = s.late[:0]
}

// fetch begins a sweep where one is of use, and goes on with one.
func (t *tenure) fetch() {
	s := &t.stow
	if s.reading || t.now.Before(s.readAt) {
		return
	}
	if s.sweep == nil {
		if s.sieve.n == 0 || !t.useful(&s.sieve, nil) {
			return
		}
		s.sweep = &sweep{until: t.window.next, flush: t.book.seq}
		if len(t.book.dirty) > 0 {
			s.sweep.flush++
		}
	}
	w := s.sweep
	if t.book.done() < w.flush || len(t.book.dirty) >= pendingMax || w.waits && !t.goesOn(w) {
		return
	}
	w.waits = false
	s.reading = true
	from := w.next
	type found struct {
		parked  []outbox.Parked
		intents []outbox.Intent
	}
	ask(t, storeTimeout, func(ctx context.Context) (found, error) {
		parked, err := t.l.d.config.Store.Waiting(ctx, t.l.number, from, getMax)
		if err != nil || len(parked) == 0 {
			return found{}, err
		}
		offsets := make([]int64, len(parked))
		for i := range parked {
			offsets[i] = parked[i].Offset
		}
		intents, err := t.l.d.config.Store.Get(ctx, t.l.number, offsets)
		return found{parked, intents}, err
	}, func(f found, err error) {
		switch {
		case t.over != running:
		case err != nil:
			t.failed(fmt.Errorf("read what waits in lane %d from %d: %w", t.l.number, from, err))
			s.readAt = t.now.Add(pollMax)
		default:
			t.sweep(f.parked, f.intents)
		}
		s.read()
	})
}

// goesOn reports whether a sweep that waits for room may go on: there is some, or others need it more.
func (t *tenure) goesOn(w *sweep) bool {
	return *t.parkedOf(w.waitsOn) <= t.share()/2 || !t.open(w.waitsOn) || t.useful(&w.left, w.waitsOn)
}

// sweep goes past what was read.
func (t *tenure) sweep(parked []outbox.Parked, intents []outbox.Intent) {
	w := t.stow.sweep
	for i := range parked {
		offset := parked[i].Offset
		if offset >= w.until {
			parked = parked[:i]
			break
		}
		if t.parked[offset] == nil && !t.stow.settled[offset] && !t.pass(&parked[i], &intents[i]) {
			w.next, w.waits = offset, true
			return
		}
	}
	if len(parked) == getMax {
		w.next = parked[getMax-1].Offset + 1
		return
	}
	t.swept(w)
}

// swept ends a sweep. What was stowed meanwhile counts as waiting for its endpoint even where it comes behind what the sweep
// left: then the next sweep is in vain, and the one after that waits longer.
func (t *tenure) swept(w *sweep) {
	s := &t.stow
	w.left.join(&w.since)
	if !s.surveyed { // what has not come by was settled before
		maps.DeleteFunc(t.kept, func(offset int64, _ outbox.Outcome) bool { return offset < w.until })
	}
	s.sieve, s.sweep, s.surveyed = w.left, nil, true
	s.vain++
	if w.brought {
		s.vain = 0
	}
	s.readAt = t.now.Add(min(sweepRest<<min(s.vain, 10)-sweepRest, sweepRestMax))
}

// pass brings one back or leaves it where it is. It gives false where the sweep has to wait. One whose fate is kept takes no room,
// and nothing of its key that is not settled comes before it.
func (t *tenure) pass(p *outbox.Parked, intent *outbox.Intent) bool {
	w, hash := t.stow.sweep, t.hash(intent)
	n := t.waitsFor(&entry{end: t.end(intent.Endpoint)}, hash)
	_, known := t.kept[p.Offset]
	switch full := *t.parkedOf(n) >= t.share(); {
	case known:
		t.ahead[p.Offset] = *p
		t.adopt(intent, -1)
	case w.left.has(hash), !t.open(n), full && !t.stow.surveyed, full && t.useful(&w.left, n):
		w.left.add(hash, n)
	case full:
		w.waitsOn = n
		return false
	default:
		w.brought = true
		t.ahead[p.Offset] = *p
		t.adopt(intent, -1)
	}
	return true
}
