package dispatch

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"time"

	"pawl/internal/failpoint"
	"pawl/internal/message"
	"pawl/internal/outbox"
)

// Bounds of what a lane keeps in memory.
const (
	windowMax      = 4096           // intents with their payload
	windowBytesMax = 32 << 20       // of their bodies; the last one in may go beyond
	spanMax        = 16 * windowMax // intents from the low mark on, of which only the offset is kept
	parkedMax      = 8 * windowMax  // parked ones without their payload, of all endpoints; see stow
	pendingMax     = windowMax / 2  // those that are to be stowed and are not written down; beyond it nothing new is read
	loadedMax      = 64             // parked ones with their payload, for each endpoint

	unflushedMax      = windowMax // results that are not written down; beyond it no call begins
	unflushedBytesMax = 8 << 20   // of the answers among them
)

// What is read at once, and how often the store is asked whether there is something new.
const (
	pageMax = 1000
	getMax  = 256
	pollMin = 100 * time.Millisecond
	pollMax = time.Second
)

// An endpoint is slow if what waits for it has filled half the window for slowAfter and, by what was
// answered meanwhile, will need more than slowWait. Then slowKept of its line keep their place.
const (
	slowAfter = 5 * time.Second
	slowWait  = 20 * time.Second
	slowKept  = windowMax / 8
)

// When those behind a parked one of their key leave the window, so that the low mark moves on.
const (
	followersMax = 4           // more than these wait
	asideAfter   = time.Second // or they would have to wait longer
)

// volleyShare is the part of their time by which calls may begin apart and still end together.
const volleyShare = 128

// orphanPause is how long an intent waits whose payload the store did not give.
const orphanPause = 30 * time.Second

// ending says why a tenure is over.
type ending int

const (
	running ending = iota
	drained        // everything is written down
	fenced         // somebody else may have the lane
	lost           // it is unknown what a change of the store did
)

// tenure is the time in which a lane is owned, from a lease to its end. All of it belongs to the lane's
// goroutine.
type tenure struct {
	l     *lane
	ctx   context.Context // of the store's calls; never cancelled
	held  outbox.Tenure
	now   time.Time // of this turn
	over  ending
	calls context.Context // of the endpoints' calls
	stop  context.CancelFunc

	// What the tenure before left, until the intents come by.
	kept    map[int64]outbox.Outcome
	settled outbox.Ranges
	ahead   map[int64]outbox.Parked
	sending map[int64]int // attempts by offset

	window window
	live   int // intents in the window that are neither settled nor parked
	bytes  int // of their bodies
	flying int // let through and not answered
	landed []*flight
	queues map[uint64]*queue
	parked map[int64]*entry
	stow   stow
	pauses pauses
	ends   map[string]*end
	lines  []*end

	strangers int // parked ones in memory that wait for an endpoint that is unknown here

	loads  []*entry // whose payload is wanted
	begins []*entry // whose note is to be written
	book   book     // what is to be written down

	replies chan func() // of the store, to be run on the lane's goroutine
	asking  int         // questions under way
	paging  bool
	getting bool
	noting  bool
	renews  bool

	known     int64 // up to where there is something to read, as far as is known
	pollAt    time.Time
	pollPause time.Duration
	getAt     time.Time
	renewAt   time.Time

	revivals map[int64]bool // offsets of dead intents whose payload is being read
	misreads map[int64]int  // of orders, by number

	wanted   func() bool // that the lane is delivered
	draining bool
	cancelAt time.Time
}

// questions is how many are put to the store at once: one to page, get, fetch, note, renew and flush, and some
// for orders.
const (
	revivalsMax = 8
	questions   = 6 + revivalsMax
)

func newTenure(ctx context.Context, l *lane, held outbox.Tenure, recovery outbox.Recovery, kept *remains) *tenure {
	t := &tenure{
		l: l, ctx: ctx, held: held, now: time.Now(),
		settled: recovery.Settled, ahead: map[int64]outbox.Parked{}, sending: map[int64]int{},
		window: newWindow(recovery.Low), known: recovery.Low,
		queues: map[uint64]*queue{}, parked: map[int64]*entry{}, ends: map[string]*end{},
		revivals: map[int64]bool{}, misreads: map[int64]int{},
		book: book{seq: recovery.Seq}, stow: newStow(&recovery),
		replies: make(chan func(), questions), pollPause: pollMin,
	}
	t.calls, t.stop = context.WithCancel(ctx)
	t.renewAt = t.now.Add(l.d.config.renewal())
	for _, p := range recovery.Parked {
		t.ahead[p.Offset] = p
	}
	for _, s := range recovery.Sending {
		t.sending[s.Offset] = s.Attempt
	}
	t.holdOn(recovery.Holds)
	if kept != nil {
		t.kept = maps.Clone(kept.outcomes) // what comes of this tenure is not certain yet
		maps.DeleteFunc(t.kept, func(offset int64, _ outbox.Outcome) bool { return t.settledBefore(offset, recovery.Rest) })
	}
	return t
}

// holdOn stops the keys that an earlier tenure has stopped, unless the endpoint's policy is another one
// by now.
func (t *tenure) holdOn(holds []outbox.Hold) {
	for _, h := range holds {
		if n := t.end(h.Endpoint); n != nil && !n.holds() {
			t.book.free(h.Offset, t.now)
			continue
		}
		q := t.queue(&outbox.Intent{Key: h.Key})
		q.held, q.holder = true, h.Offset
	}
}

// settledBefore reports whether an earlier tenure has written a fate down. A parked one is not settled,
// even if it was once: an operator retries it. Of those from rest on, the survey of what is stowed tells.
func (t *tenure) settledBefore(offset, rest int64) bool {
	_, parked := t.ahead[offset]
	return !parked && (offset < min(rest, t.window.next) || t.settled.Contains(offset))
}

// load takes the parked ones over. Those below the low mark will not come by, so their keys are read
// now; the others wait until the window reaches them, so that each key is in order of offsets at any
// time.
func (t *tenure) load(ctx context.Context, parked []outbox.Parked) error {
	var offsets []int64
	for _, p := range parked {
		if p.Offset < t.window.next {
			offsets = append(offsets, p.Offset)
		}
	}
	for len(offsets) > 0 {
		part := offsets[:min(getMax, len(offsets))]
		offsets = offsets[len(part):]
		asking, cancel := context.WithTimeout(ctx, storeTimeout)
		intents, err := t.l.d.config.Store.Get(asking, t.l.number, part)
		cancel()
		if err != nil {
			return fmt.Errorf("get %d parked intents: %w", len(part), err)
		}
		for i := range intents {
			t.adopt(&intents[i], -1)
		}
	}
	return nil
}

// run delivers until the tenure is over, and gives what the next one may take over.
func (t *tenure) run(ctx context.Context) *remains {
	hooks := &t.l.d.config.Hooks
	hook2(hooks.Owned, t.l.number, t.held.Epoch)
	timer := time.NewTimer(0)
	defer timer.Stop()
	t.wanted = func() bool { return t.l.wanted(ctx) }
	quit := ctx.Done()
	var set time.Time // when the timer goes off, zero once it has
	for t.over == running {
		select {
		case <-quit:
			quit = nil
		case <-t.l.bell:
		case <-timer.C:
			set = time.Time{}
		case reply := <-t.replies:
			t.hear(reply)
		}
		t.turn() //nolint:contextcheck // what a lane has begun it ends, whatever becomes of ctx
		// Most turns change nothing about when the next thing happens by itself.
		if at := t.next(); !at.Equal(set) {
			timer.Reset(time.Until(at))
			set = at
		}
	}
	if t.over == fenced {
		hook2(hooks.Fenced, t.l.number, t.held.Epoch)
	}
	left := t.close() //nolint:contextcheck // as above
	t.l.publish(LaneStatus{})
	hook2(hooks.Lost, t.l.number, t.held.Epoch)
	return left
}

func (t *tenure) hear(reply func()) {
	t.asking--
	reply()
}

// turn does all that can be done now.
func (t *tenure) turn() {
	t.now = time.Now()
	for len(t.replies) > 0 {
		t.hear(<-t.replies)
	}
	if t.over != running {
		return
	}
	for _, e := range t.answers() {
		t.answered(e)
	}
	if !t.draining && !t.wanted() {
		t.draining, t.cancelAt = true, t.now.Add(t.l.d.config.DrainTimeout)
	}
	t.wake()
	if t.draining {
		t.drain()
	} else {
		t.fill()
		for _, n := range t.lines {
			t.pump(n)
		}
		t.read()
		t.fetch()
		t.note()
	}
	t.flush()
	t.renew()
	t.l.publish(LaneStatus{
		Owner: t.over == running, Epoch: t.held.Epoch, Window: t.live, InFlight: t.flying, Parked: len(t.parked), Stowed: t.stow.sieve.n,
		Low: t.window.low(), Next: t.window.next,
	})
}

// answers takes what the workers brought.
func (t *tenure) answers() []*entry {
	t.l.mu.Lock()
	defer t.l.mu.Unlock()
	answered := t.l.answered
	t.l.answered = nil
	return answered
}

// next is when something happens by itself.
func (t *tenure) next() time.Time {
	at := t.renewAt
	sooner := func(other time.Time) {
		if other.Before(at) {
			at = other
		}
	}
	if t.draining {
		if t.flying > 0 {
			sooner(t.cancelAt)
		}
	} else {
		if !t.paging && t.roomy() {
			sooner(t.pollAt)
		}
		if len(t.pauses) > 0 {
			sooner(t.pauses[0].due)
		}
		if len(t.loads) > 0 && !t.getting {
			sooner(t.getAt)
		}
		if t.stow.sweep != nil && !t.stow.reading && t.stow.readAt.After(t.now) {
			sooner(t.stow.readAt)
		}
		if t.stow.sieve.n > 0 && !t.stow.reading { // an endpoint may have come back
			sooner(t.now.Add(breakerLook))
		}
		for _, n := range t.lines {
			if len(n.line) > 0 && n.again.After(t.now) {
				sooner(n.again)
			}
		}
	}
	if due, is := t.book.due(); is {
		sooner(due)
	}
	return at
}

// ask puts a question to the store and goes on; the reply is heard in a later turn.
func ask[T any](t *tenure, timeout time.Duration, question func(context.Context) (T, error), then func(T, error)) {
	t.asking++
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	go func() {
		defer cancel()
		result, err := question(ctx)
		t.replies <- func() { then(result, err) }
	}()
}

// failed tells that a question is put again.
func (t *tenure) failed(err error) { hook2(t.l.d.config.Hooks.Retrying, t.l.number, err) }

// room reports whether one more intent may be read.
func (t *tenure) room() bool {
	return t.live < windowMax && t.bytes < windowBytesMax && t.window.span() < spanMax &&
		t.stow.surveyed && len(t.stow.pending) < pendingMax && (t.stow.sieve.n == 0 && len(t.parked) < t.l.d.parkedMax || t.serves())
}

// roomy reports whether it is worth asking for a page.
func (t *tenure) roomy() bool { return t.room() && t.live <= windowMax-pageMax }

// pressed reports whether what can't be sent should make room for what can.
func (t *tenure) pressed() bool {
	return t.live >= windowMax/2 || t.bytes >= windowBytesMax/2 || t.window.span() >= spanMax/2
}

// fill reads what is new: what was offered, if it goes on where the lane stands, else a page.
func (t *tenure) fill() {
	if t.paging {
		return
	}
	t.l.mu.Lock()
	offers := t.l.offers
	t.l.offers, t.l.offered = nil, 0
	t.known = max(t.known, t.l.heard)
	t.l.heard = 0
	t.l.mu.Unlock()
	for _, offer := range offers {
		if offer.Base <= t.window.next {
			t.take(offer.Intents, offer.Next)
			t.pollAt = t.now.Add(t.pollPause)
		}
	}
	if !t.roomy() || t.known <= t.window.next && t.now.Before(t.pollAt) {
		return
	}
	limit := min(pageMax, windowMax-t.live)
	if t.live > 0 {
		mean := t.bytes/t.live + 1
		limit = min(limit, max(1, (windowBytesMax-t.bytes)/mean))
	}
	t.page(limit)
}

type page struct {
	intents []outbox.Intent
	next    int64
}

func (t *tenure) page(limit int) {
	t.paging = true
	from := t.window.next
	ask(t, storeTimeout, func(ctx context.Context) (page, error) {
		intents, next, err := t.l.d.config.Store.Page(ctx, t.l.number, from, limit)
		return page{intents, next}, err
	}, func(p page, err error) {
		t.paging = false
		if err != nil {
			t.failed(fmt.Errorf("page lane %d from %d: %w", t.l.number, from, err))
			t.known, t.pollAt = 0, t.now.Add(pollMax)
			return
		}
		t.take(p.intents, p.next)
		switch {
		case len(p.intents) >= limit: // there may be more
			t.known = max(t.known, t.window.next+1)
		case len(p.intents) > 0:
			t.known, t.pollPause = max(t.window.next, p.next), pollMin
		default:
			t.known, t.pollPause = t.window.next, min(pollMax, 2*t.pollPause)
		}
		t.pollAt = t.now.Add(t.pollPause)
	})
}

// take reads intents that go on where the lane stands, as many as there is room for. upto is where
// they end: what is below is among them.
func (t *tenure) take(intents []outbox.Intent, upto int64) {
	for i := range intents {
		if intents[i].Offset < t.window.next {
			continue
		}
		if !t.room() {
			t.known = max(t.known, upto)
			return
		}
		t.place(&intents[i])
	}
	t.window.next = max(t.window.next, upto)
}

// place takes the next intent in.
func (t *tenure) place(intent *outbox.Intent) {
	if _, parked := t.ahead[intent.Offset]; parked {
		position := t.window.add(intent.Offset, true)
		if e := t.entry(intent, position); t.stows(e, intent) {
			delete(t.ahead, intent.Offset)
			t.left(e, intent)
			return
		}
		t.adopt(intent, position)
		return
	}
	if t.settled.Contains(intent.Offset) {
		t.window.add(intent.Offset, true)
		return
	}
	e := t.entry(intent, t.window.add(intent.Offset, false))
	e.payload = clone(intent)
	t.count(e, 1)
	if t.fated(e, intent) {
		return
	}
	if t.stows(e, intent) {
		t.count(e, -1)
		t.put(e, intent)
		return
	}
	q := t.queue(intent)
	q.push(e)
	t.blame(q)
	switch {
	case q.held:
		t.park(e, outbox.Held, time.Time{}, "")
	case q.head == e:
		t.activate(e)
	case q.aside:
		t.park(e, outbox.Follower, time.Time{}, "")
	case q.head.role != 0 && q.head.stage != flying:
		t.aside(q, q.head.due.Sub(t.now))
	}
}

// adopt takes an intent in that was parked by an earlier tenure.
func (t *tenure) adopt(intent *outbox.Intent, position int64) {
	p := t.ahead[intent.Offset]
	delete(t.ahead, intent.Offset)
	e := t.entry(intent, position)
	e.role, e.attempts, e.status, e.reason = p.Role, p.Attempts, p.Status, p.Error
	if p.Attempts > 0 || e.end == nil && p.Since > 0 {
		e.since = t.now.Add(-p.Since)
	}
	if e.end != nil && e.attempts >= e.end.gate.endpoint.AttemptsMax {
		e.excused = e.attempts // else it would be dead: some of them were trials of a breaker
	}
	if p.Role == outbox.Retry {
		e.due = t.now.Add(p.In)
	}
	t.parked[e.offset] = e
	if t.fated(e, intent) {
		return
	}
	q := t.queue(intent)
	q.push(e)
	t.blame(q)
	t.weigh(q, 1)
	q.aside = true
	switch {
	case q.held && p.Role != outbox.Held:
		t.park(e, outbox.Held, time.Time{}, e.reason)
	case q.head == e:
		t.activate(e)
	}
}

// count notes that an intent with its payload has come into the window, or has left it.
func (t *tenure) count(e *entry, n int) {
	t.live += n
	t.bytes += n * len(e.payload.Body)
	if e.end != nil {
		e.end.live += n
	}
}

// clone is an intent by itself: its batch can go.
func clone(intent *outbox.Intent) *outbox.Intent {
	alone := *intent
	return &alone
}

func (t *tenure) entry(intent *outbox.Intent, position int64) *entry {
	return &entry{lane: t.l, end: t.end(intent.Endpoint), offset: intent.Offset, position: position}
}

func (t *tenure) end(name string) *end {
	if n := t.ends[name]; n != nil {
		return n
	}
	g := t.l.d.gates[name]
	if g == nil {
		return nil
	}
	n := &end{gate: g}
	t.ends[name] = n
	t.lines = append(t.lines, n)
	return n
}

// fated settles an intent whose fate is known without a call.
func (t *tenure) fated(e *entry, intent *outbox.Intent) bool {
	outcome, known := t.kept[e.offset]
	attempts, sent := t.sending[e.offset]
	switch {
	case known: // before sending: an answer that came is better than none
		delete(t.kept, e.offset)
	case sent:
		outcome = outbox.Outcome{Status: outbox.Unknown, Attempts: attempts, Error: "the owner of the lane was lost before it wrote down what the endpoint answered"}
	case intent.Twin != nil && intent.Twin.Same:
		outcome = outbox.Outcome{Status: outbox.Duplicate, Error: fmt.Sprintf("the same call is %d:%d", intent.Twin.Lane, intent.Twin.Offset)}
	case intent.Twin != nil:
		outcome = outbox.Outcome{Status: outbox.Conflict, Error: fmt.Sprintf("%d:%d has the same business key and another body", intent.Twin.Lane, intent.Twin.Offset)}
	default:
		return false
	}
	delete(t.sending, e.offset)
	outcome.Offset = e.offset
	t.settle(e, outcome)
	if !known && !sent {
		return true
	}
	q := t.queue(intent)
	t.book.owe(q)
	if known && outcome.Status == outbox.Dead && e.end.holds() {
		t.hold(q, intent)
	}
	return true
}

// queue gives the queue of an intent's key. An intent without one has an order of its own.
func (t *tenure) queue(intent *outbox.Intent) *queue {
	hash := t.hash(intent)
	q := t.queues[hash]
	if q == nil {
		q = &queue{hash: hash}
		t.queues[hash] = q
	}
	return q
}

func (t *tenure) hash(intent *outbox.Intent) uint64 {
	if len(intent.Key) > 0 {
		return maphash.Bytes(t.l.seed, intent.Key)
	}
	return maphash.Comparable(t.l.seed, intent.Offset)
}

// activate lets the head of a key do what it waits for.
func (t *tenure) activate(e *entry) {
	switch {
	case e.queue.held:
		if e.role != outbox.Held {
			t.park(e, outbox.Held, time.Time{}, e.reason)
		}
	case e.unborn: // the flush that is under way wakes it
	case e.end == nil:
		t.estrange(e)
	case e.due.After(t.now):
		t.pauses.add(e)
	default:
		e.end.join(e)
	}
}

// estrange puts an intent aside whose endpoint is not known here: a process with a newer configuration
// may know it.
func (t *tenure) estrange(e *entry) {
	if e.since.IsZero() {
		e.since = t.now
	}
	e.due = e.since.Add(t.l.d.config.StrangerAgeMax)
	if e.role != outbox.Retry {
		t.park(e, outbox.Retry, e.due, "the endpoint is not in the configuration")
	}
	t.pauses.add(e)
	t.aside(e.queue, asideAfter+1)
}

// wake lets those go on whose time has come.
func (t *tenure) wake() {
	for e := t.pauses.next(t.now); e != nil; e = t.pauses.next(t.now) {
		if e.end == nil {
			t.settle(e, outbox.Outcome{Offset: e.offset, Status: outbox.Dead, Attempts: e.attempts, Error: "no process knew the endpoint"})
			continue
		}
		e.end.join(e)
	}
}

// park puts an intent aside: it leaves the window with the next flush.
func (t *tenure) park(e *entry, role outbox.Role, due time.Time, reason string) {
	switch {
	case e.role == 0:
		t.count(e, -1)
		t.parked[e.offset] = e
		t.weigh(e.queue, 1)
		if e.stage == ready {
			e.end.fresh--
		}
	case e.payload != nil:
		e.end.loaded--
	}
	changed := e.role != role
	e.payload, e.role, e.due, e.reason = nil, role, due, reason
	t.book.changed(e, t.now)
	if changed || role == outbox.Retry {
		hook(t.l.d.config.Hooks.Parked, Parked{
			Lane: t.l.number, Offset: e.offset, Endpoint: e.end.name(), Role: role, Attempts: e.attempts,
			In: max(0, due.Sub(t.now)), Reason: reason,
		})
	}
}

// aside parks those that wait behind the head of a key, if they are many or would wait long.
func (t *tenure) aside(q *queue, wait time.Duration) {
	if q.aside || q.n-1 <= followersMax && wait <= asideAfter {
		return
	}
	q.aside = true
	for e := q.head.after; e != nil; e = e.after {
		if e.role == 0 {
			t.park(e, outbox.Follower, time.Time{}, "")
		}
	}
}

// hold stops a key behind a dead intent, whose fate is the newest in the book. Without a key there is
// nothing to stop.
func (t *tenure) hold(q *queue, dead *outbox.Intent) {
	if len(dead.Key) == 0 {
		return
	}
	t.book.holds(dead)
	q.held, q.holder = true, dead.Offset
	for e := q.head; e != nil; e = e.after {
		if e.role != outbox.Held && !e.busy() {
			t.bench(e)
			t.park(e, outbox.Held, time.Time{}, e.reason)
		}
	}
}

// unhold lets a key go on.
func (t *tenure) unhold(q *queue) {
	if !q.held {
		return
	}
	q.held = false
	t.book.free(q.holder, t.now)
	for e := q.head; e != nil; e = e.after {
		if e.role == outbox.Held {
			t.park(e, outbox.Follower, time.Time{}, e.reason)
		}
	}
	t.advance(q, true)
}

// bench takes an entry back that is about to be sent. One that is under way is left alone.
func (t *tenure) bench(e *entry) {
	switch e.stage {
	case ready:
		e.end.quit(e)
	case pausing:
		t.pauses.remove(e)
	case loading:
		e.end.loaded--
	case waiting, beginning, flying, gone:
		return
	}
	e.stage = waiting
}

// settle gives an intent its fate; the next one of its key goes on.
func (t *tenure) settle(e *entry, outcome outbox.Outcome) {
	f := fate{outcome: outcome, position: e.position, endpoint: e.end.name()}
	if e.payload != nil {
		f.at = e.payload.At
	}
	t.bench(e)
	if e.role == 0 {
		t.count(e, -1)
	} else {
		delete(t.parked, e.offset)
		t.stow.settled[e.offset] = true
		if e.payload != nil {
			e.end.loaded--
		}
	}
	t.book.settled(f, t.now)
	if e.order != nil {
		t.book.obeyed(e.order.Number, t.now)
	}
	q := e.queue
	if q != nil {
		t.book.owe(q)
		first := q.head == e
		q.remove(e)
		if e.role != 0 {
			t.weigh(q, -1)
		}
		t.blame(q)
		if outcome.Status == outbox.Dead && e.order == nil && e.end.holds() {
			t.hold(q, e.payload)
		}
		t.advance(q, first)
	}
	e.stage, e.payload, e.dirty = gone, nil, false
}

// advance goes on with a key after something left it.
func (t *tenure) advance(q *queue, headChanged bool) {
	if q.parked == 0 {
		q.aside = false
	}
	switch {
	case q.n > 0 && headChanged && !q.held && q.head.stage == waiting:
		t.activate(q.head)
	default:
		t.forget(q)
	}
}

// forget drops a key of which there is nothing to remember.
func (t *tenure) forget(q *queue) {
	if q.n == 0 && q.owed == 0 && !q.held {
		delete(t.queues, q.hash)
	}
}

// full reports whether no call may begin for want of memory for its result.
func (t *tenure) full() bool {
	results := t.flying + t.book.size()
	if t.room() { // what is kept will come by
		results += len(t.kept)
	}
	return results >= unflushedMax || t.book.bytes >= unflushedBytesMax
}

// pump sends what is in line for an endpoint, as far as it is let through.
func (t *tenure) pump(n *end) {
	if t.slow(n) && n.shut == "" {
		t.makeRoom(n, slowKept, "the endpoint is slow")
	}
	if n.again.After(t.now) && (n.shut == "" || n.gate.shut() != "") {
		t.relieve(n)
		return
	}
	n.shut = ""
	for len(n.line) > 0 && !t.full() && !t.now.Add(n.gate.endpoint.Timeout).After(t.held.Until) {
		e := n.line[0]
		if e.payload == nil {
			if n.loaded >= loadedMax {
				return
			}
			if why := n.gate.shut(); why != "" {
				t.refused(n, refusal{again: breakerLook, shut: why})
				return
			}
			n.pop()
			n.loaded++
			e.stage = loading
			t.loads = append(t.loads, e)
			continue
		}
		pass, why, ok := n.gate.enter(t.now, t.l.bell)
		if !ok {
			t.refused(n, why)
			return
		}
		n.pop()
		t.launch(e, pass)
		if e.payload.Class == message.AtMostOnce {
			e.stage = beginning
			t.begins = append(t.begins, e)
			continue
		}
		if n.volley == nil || !t.now.Before(n.volley.until) {
			if n.volley != nil {
				n.volley.done()
			}
			n.volley = t.volley(n)
		}
		t.let(e, n.volley.share())
	}
}

// volley is for calls that begin now or a little later. Their time ends with the lease at the latest.
func (t *tenure) volley(n *end) *volley {
	deadline := t.now.Add(n.gate.endpoint.Timeout)
	if t.held.Until.Before(deadline) {
		deadline = t.held.Until
	}
	return newVolley(t.calls, deadline, t.now.Add(n.gate.endpoint.Timeout/volleyShare))
}

func (t *tenure) refused(n *end, why refusal) {
	n.again, n.shut = t.now.Add(why.again), why.shut
	t.relieve(n)
}

// relieve makes room for other endpoints where a breaker is open or an endpoint is paused; no attempt is used up.
func (t *tenure) relieve(n *end) {
	if n.shut == "" || !t.pressed() || n.fresh == 0 && t.now.Before(n.swept.Add(breakerLook)) {
		return
	}
	n.swept = t.now
	t.makeRoom(n, 0, n.shut)
}

// makeRoom parks what is in line for an endpoint, but for the first ones, and all that waits behind
// an intent of it. The line stays as it is.
func (t *tenure) makeRoom(n *end, kept int, why string) {
	for _, e := range n.line[min(kept, len(n.line)):] {
		if e.role == 0 {
			t.park(e, outbox.Retry, time.Time{}, why)
		}
	}
	for _, q := range t.queues {
		if q.head != nil && q.head.end == n {
			t.aside(q, asideAfter+1)
		}
	}
}

// slow reports whether an endpoint takes so long for so much that others would wait for it: those of
// its lane whose intents can't be read while the window is full. With one endpoint there are none.
func (t *tenure) slow(n *end) bool {
	switch {
	case n.live == 0 || len(t.l.d.gates) == 1:
		n.crowd = time.Time{}
		return false
	case n.live < windowMax/2:
		return false
	case n.crowd.IsZero():
		n.crowd, n.answers = t.now, 0
	}
	took := t.now.Sub(n.crowd)
	if took > slowWait { // what it was long ago counts for less
		took /= 2
		n.crowd, n.answers = t.now.Add(-took), n.answers/2
	}
	return took >= slowAfter && time.Duration(n.live)*took/time.Duration(max(1, n.answers)) > slowWait
}

// launch makes ready for a call.
func (t *tenure) launch(e *entry, pass pass) {
	e.attempts++
	if e.since.IsZero() {
		e.since = t.now
	}
	e.flight = new(flight)
	if n := len(t.landed); n > 0 {
		e.flight, t.landed = t.landed[n-1], t.landed[:n-1]
	}
	*e.flight = flight{fence: t.held.Epoch, pass: pass}
	t.flying++
}

// land ends a call.
func (t *tenure) land(e *entry) {
	t.landed = append(t.landed, e.flight)
	e.flight = nil
	t.flying--
}

// let lets a call go.
func (t *tenure) let(e *entry, calls *volley) {
	e.stage, e.flight.volley = flying, calls
	t.l.d.jobs <- e // there are as many places as slots
}

// note writes down that at-most-once calls are about to be sent, and sends them then. A flush that has
// an intent as parked takes its note away, so none is written while such a flush is still to come. Nor is one written before the
// fates of earlier ones of its key: whoever finds a note tells at once that the fate is unknown, and those come first.
func (t *tenure) note() {
	if t.noting {
		return
	}
	var entries, later []*entry
	for _, e := range t.begins {
		if t.book.owes(e) || e.queue.owed > 0 {
			later = append(later, e)
		} else {
			entries = append(entries, e)
		}
	}
	t.begins = later
	t.book.hurry = t.book.hurry || len(later) > 0
	if len(entries) == 0 {
		return
	}
	t.noting = true
	sending := make([]outbox.Sending, len(entries))
	for i, e := range entries {
		sending[i] = outbox.Sending{Offset: e.offset, Attempt: e.attempts}
	}
	held := t.held // a renewal changes it meanwhile
	ask(t, storeTimeout, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, t.l.d.config.Store.Begin(ctx, held, sending)
	}, func(_ struct{}, err error) {
		t.noting = false
		if err != nil && t.over == running {
			t.fail(fmt.Errorf("begin %d calls of lane %d: %w", len(entries), t.l.number, err))
		}
		for _, e := range entries {
			if t.over != running || t.draining || e.order != nil || t.now.Add(e.end.gate.endpoint.Timeout).After(t.held.Until) {
				t.unsent(e)
				continue
			}
			failpoint.Hit("dispatch.begun")
			t.let(e, t.volley(e.end))
		}
	})
}

// unsent takes a call back that was noted and not made.
func (t *tenure) unsent(e *entry) {
	e.flight.pass.leave(errNeutral)
	t.land(e)
	e.attempts--
	if t.over != running {
		return
	}
	e.stage = waiting
	if e.order != nil {
		t.cancelled(e)
		return
	}
	t.park(e, outbox.Retry, time.Time{}, e.reason)
	t.activate(e)
}

// fail ends the tenure after a change of the store that may or may not have been made.
func (t *tenure) fail(err error) {
	if errors.Is(err, outbox.ErrFenced) {
		t.over = fenced
		return
	}
	t.failed(err)
	t.over = lost
}

// read gets the payload of parked ones whose turn it is.
func (t *tenure) read() {
	if t.getting || len(t.loads) == 0 || t.now.Before(t.getAt) {
		return
	}
	t.getting = true
	n := min(getMax, len(t.loads))
	entries := t.loads[:n:n]
	t.loads = t.loads[n:]
	offsets := make([]int64, n)
	for i, e := range entries {
		offsets[i] = e.offset
	}
	ask(t, storeTimeout, func(ctx context.Context) ([]outbox.Intent, error) {
		return t.l.d.config.Store.Get(ctx, t.l.number, offsets)
	}, func(intents []outbox.Intent, err error) {
		t.getting = false
		if err != nil {
			t.failed(fmt.Errorf("get %d intents of lane %d: %w", n, t.l.number, err))
			t.loads = append(entries, t.loads...)
			t.getAt = t.now.Add(pollMax)
			return
		}
		t.loaded(entries, intents)
	})
}

func (t *tenure) loaded(entries []*entry, intents []outbox.Intent) {
	found := make(map[int64]*outbox.Intent, len(intents))
	for i := range intents {
		found[intents[i].Offset] = &intents[i]
	}
	back := map[*end][]*entry{}
	for _, e := range entries {
		if e.stage != loading { // cancelled or benched meanwhile
			continue
		}
		intent := found[e.offset]
		if intent == nil {
			t.failed(fmt.Errorf("get %d:%d: the store has no payload of it", t.l.number, e.offset))
			e.end.loaded--
			e.due = t.now.Add(orphanPause)
			t.pauses.add(e)
			continue
		}
		e.payload = clone(intent)
		back[e.end] = append(back[e.end], e)
	}
	for n, entries := range back {
		n.front(entries)
	}
}

// answered judges what came of a call.
func (t *tenure) answered(e *entry) {
	e.end.answers++
	v := t.judge(e)
	response := e.flight.answer.Response
	t.land(e)
	e.stage = waiting
	if v.status != "" {
		t.settle(e, e.outcome(v, response))
		return
	}
	e.reason = v.reason
	if e.order != nil {
		t.cancelled(e)
		return
	}
	t.park(e, outbox.Retry, t.now.Add(v.pause), v.reason)
	t.activate(e)
	t.aside(e.queue, v.pause)
}

func (t *tenure) judge(e *entry) verdict {
	answer := e.flight.answer
	e.attempts += answer.Replays
	if answer.Err == nil {
		e.status = answer.Status
	}
	if e.flight.pass.probe { // an outage must not kill those that happen to be at the front of it
		e.excused++
	}
	at := e.end.gate.endpoint
	made := tried{class: e.payload.Class, attempts: e.attempts, excused: e.excused, age: t.now.Sub(e.since)}
	return judge(answer, made, at.AttemptsMax, at.AgeMax, random())
}

func (e *entry) outcome(v verdict, response *outbox.Response) outbox.Outcome {
	return outbox.Outcome{Offset: e.offset, Status: v.status, Attempts: e.attempts, HTTPStatus: e.status, Error: v.reason, Response: response}
}

// drain ends the tenure once nothing is under way.
func (t *tenure) drain() {
	for _, e := range t.begins {
		t.unsent(e)
	}
	t.begins = nil
	switch {
	case t.flying == 0 && t.book.empty() && !t.book.under:
		t.over = drained
	case t.flying > 0 && !t.now.Before(t.cancelAt):
		t.stop()
		t.cancelAt = t.now.Add(time.Hour)
	}
}

// close waits for all that is under way and gives what was not written down.
func (t *tenure) close() *remains {
	if t.over == fenced {
		t.stop() // somebody else may be making the same calls
	}
	defer t.stop()
	for _, e := range t.begins {
		t.unsent(e)
	}
	left := &remains{epoch: t.held.Epoch, outcomes: map[int64]outbox.Outcome{}}
	maps.Copy(left.outcomes, t.kept) // they have not come by yet
	patience := time.NewTimer(t.l.d.config.DrainTimeout)
	defer patience.Stop()
	for t.flying > 0 || t.asking > 0 {
		select {
		case <-t.l.bell:
		case <-patience.C:
			t.stop()
		case reply := <-t.replies:
			t.hear(reply)
		}
		t.now = time.Now()
		for _, e := range t.answers() {
			t.flying--
			response := e.flight.answer.Response
			if v := t.judge(e); v.status != "" {
				left.outcomes[e.offset] = e.outcome(v, response)
			}
		}
	}
	for _, f := range t.book.unwritten() {
		left.outcomes[f.outcome.Offset] = f.outcome
	}
	if t.over == drained || t.over == lost && !t.wanted() {
		t.release()
	}
	return left
}

// release gives the lease up. Where it fails the lease runs out by itself.
func (t *tenure) release() {
	ctx, cancel := context.WithTimeout(t.ctx, storeTimeout)
	defer cancel()
	failpoint.Hit("dispatch.release")
	if err := t.l.d.config.Store.Release(ctx, t.held); err != nil {
		t.failed(fmt.Errorf("release lane %d: %w", t.l.number, err))
	}
}
