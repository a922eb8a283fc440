package dispatch

import (
	"container/heap"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"pawl/internal/outbox"
)

// stage is what an intent is doing.
type stage uint8

const (
	waiting   stage = iota // behind another one of its key, or for an operator
	ready                  // at the head of its key, in the line of its endpoint
	loading                // as ready; its payload is being read
	beginning              // as ready, let through; its note is being written (at-most-once)
	flying                 // being called
	pausing                // at the head of its key; for its time
	gone                   // it has its fate
)

// entry is an intent that is not settled.
type entry struct {
	lane  *lane
	queue *queue // of its key; nil once it is gone
	after *entry // in the queue
	end   *end   // nil where the endpoint is unknown here

	offset   int64
	position int64          // in the window, -1 where it never was in this tenure's
	payload  *outbox.Intent // nil while it waits outside the window
	stage    stage
	role     outbox.Role // 0 where it is not parked
	dirty    bool        // what was written down of it, or will be next, is out of date
	flush    int64       // the last one that has it as parked
	unborn   bool        // a dead one that is retried: it waits until it is written down as parked
	attempts int
	excused  int       // of the attempts, those that were trials of a breaker: they don't count towards the limit
	since    time.Time // of the first attempt, zero before
	due      time.Time // of the next, where it pauses
	place    int       // among those that pause
	status   int       // of the last answer
	reason   string
	order    *outbox.Order // to cancel it; obeyed when it has its fate

	flight *flight // from launch to answer
}

// flight is one call of an entry. A worker has it until the answer is in; then another entry gets it, since the memory of one that
// was just used is near.
type flight struct {
	volley *volley // nil until the call is let go
	fence  int64
	pass   pass
	answer outbox.Answer
}

// volley is a number of calls that begin at about the same time, with one context: a timer for each of them
// would cost more than the rest of a call.
type volley struct {
	ctx    context.Context // ends with the calls' time, and with the tenure's patience
	cancel context.CancelFunc
	until  time.Time    // calls that begin from then on have one of their own
	left   atomic.Int32 // those that hold it
}

func newVolley(ctx context.Context, deadline, until time.Time) *volley {
	v := &volley{until: until}
	v.ctx, v.cancel = context.WithDeadline(ctx, deadline)
	v.left.Store(1)
	return v
}

// share lets one more call hold it.
func (v *volley) share() *volley {
	v.left.Add(1)
	return v
}

// done lets go of it; the last one ends it.
func (v *volley) done() {
	if v.left.Add(-1) == 0 {
		v.cancel()
	}
}

// queue has the intents of one key by offset. Only the head is ever called.
type queue struct {
	hash       uint64
	head, tail *entry
	n, parked  int   // intents, and how many of them are parked
	owed       int   // fates of the key that are not known to be written down
	blamed     *end  // what those wait for
	aside      bool  // newcomers are parked at once
	held       bool  // nothing is sent before an operator says so
	holder     int64 // the dead intent that holds it
}

func (q *queue) push(e *entry) {
	e.queue, e.after = q, nil
	q.n++
	if q.head == nil {
		q.head, q.tail = e, e
		return
	}
	q.tail.after, q.tail = e, e
}

// insert puts an entry where its offset belongs, but not before a call that is under way.
func (q *queue) insert(e *entry) {
	var before *entry
	for at := q.head; at != nil && (at.offset < e.offset || at == q.head && at.busy()); at = at.after {
		before = at
	}
	e.queue = q
	q.n++
	if before == nil {
		e.after, q.head = q.head, e
	} else {
		e.after, before.after = before.after, e
	}
	if e.after == nil {
		q.tail = e
	}
}

func (q *queue) remove(e *entry) {
	var before *entry
	for at := q.head; at != e; at = at.after {
		before = at
	}
	if before == nil {
		q.head = e.after
	} else {
		before.after = e.after
	}
	if q.tail == e {
		q.tail = before
	}
	q.n--
	e.queue, e.after = nil, nil
}

// busy reports whether a call is under way or about to be: it can't be taken back.
func (e *entry) busy() bool { return e.stage == beginning || e.stage == flying }

// end is an endpoint as a lane sees it.
type end struct {
	gate   *gate
	line   []*entry  // those that are ready
	fresh  int       // of them, those that are not parked
	swept  time.Time // when it was last relieved
	loaded int       // parked ones whose payload is in memory or on its way
	again  time.Time // when the gate is asked again
	shut   string    // why the gate let nothing through, when it was asked last
	volley *volley   // for calls that begin now; nil before the first

	parked  int       // of the parked ones in memory, those of keys whose first one is for it
	live    int       // intents in the window that wait for it, behind others of their key or not
	crowd   time.Time // since when they fill half the window, zero while there are none
	answers int       // since then
}

// name gives what hooks call the endpoint.
func (n *end) name() string {
	if n == nil {
		return ""
	}
	return n.gate.name
}

// holds reports whether a dead intent holds its key.
func (n *end) holds() bool { return n != nil && n.gate.endpoint.OnDead == Hold }

func (n *end) join(e *entry) {
	e.stage = ready
	n.line = append(n.line, e)
	if e.role == 0 {
		n.fresh++
	}
}

// front lets parked entries go first whose payload has come.
func (n *end) front(entries []*entry) {
	for _, e := range entries {
		e.stage = ready
	}
	n.line = append(entries, n.line...)
}

// pop takes the first one out of the line.
func (n *end) pop() {
	e := n.line[0]
	n.line[0] = nil
	n.line = n.line[1:]
	if e.role == 0 {
		n.fresh--
	}
}

// quit takes any one out of the line.
func (n *end) quit(e *entry) {
	i := slices.Index(n.line, e)
	n.line = slices.Delete(n.line, i, i+1)
	if e.role == 0 {
		n.fresh--
	}
}

// pauses are the entries that wait for their time, the next one first.
type pauses []*entry

func (p pauses) Len() int           { return len(p) }
func (p pauses) Less(i, j int) bool { return p[i].due.Before(p[j].due) }
func (p pauses) Swap(i, j int) {
	p[i], p[j] = p[j], p[i]
	p[i].place, p[j].place = i, j
}

// Push is for package heap.
func (p *pauses) Push(x any) {
	e := x.(*entry)
	e.place = len(*p)
	*p = append(*p, e)
}

// Pop is for package heap.
func (p *pauses) Pop() any {
	last := len(*p) - 1
	e := (*p)[last]
	(*p)[last] = nil
	*p = (*p)[:last]
	return e
}

func (p *pauses) add(e *entry) {
	e.stage = pausing
	heap.Push(p, e)
}

func (p *pauses) remove(e *entry) { heap.Remove(p, e.place) }

func (p *pauses) next(now time.Time) *entry {
	if len(*p) == 0 || (*p)[0].due.After(now) {
		return nil
	}
	e := heap.Pop(p).(*entry)
	e.stage = waiting
	return e
}
