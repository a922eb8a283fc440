package dispatch

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"pawl/internal/failpoint"
	"pawl/internal/outbox"
)

// Pauses of a lane that is not owned.
const (
	heldPause    = time.Second // before a held lease is asked for again
	failedPause  = 100 * time.Millisecond
	failedMax    = 5 * time.Second
	storeTimeout = 10 * time.Second // of one question to the store
)

// lane is one partition of the effects topic. Its goroutine runs one tenure after the other; what
// others tell it goes through the fields under mu and the bell.
type lane struct {
	d      *Dispatcher
	number int32
	bell   bell
	seed   maphash.Seed // keys are told apart by their hash: a collision makes two of them wait for each other

	// final has the offsets that this process has seen settled for good, in whatever tenure: not dead, so
	// that there is nothing to retry. It belongs to the goroutine.
	final outbox.Ranges

	mu       sync.Mutex
	assigned bool
	status   LaneStatus
	answered []*entry // by workers
	offers   []outbox.Batch
	offered  int   // intents in offers
	heard    int64 // up to where the lane is known to be ingested
}

func newLane(d *Dispatcher, number int32) *lane {
	return &lane{d: d, number: number, bell: newBell(), seed: maphash.MakeSeed(), status: LaneStatus{Lane: number}}
}

func (l *lane) want(assigned bool) {
	l.mu.Lock()
	l.assigned = assigned
	l.mu.Unlock()
	l.bell.ring()
}

func (l *lane) wanted(ctx context.Context) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.assigned && ctx.Err() == nil
}

func (l *lane) offer(batch outbox.Batch) {
	l.mu.Lock()
	l.heard = max(l.heard, batch.Next)
	if l.status.Owner && l.offered+len(batch.Intents) <= windowMax {
		l.offers = append(l.offers, batch)
		l.offered += len(batch.Intents)
	}
	l.mu.Unlock()
	l.bell.ring()
}

func (l *lane) snapshot() (status LaneStatus, assigned bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status, l.assigned
}

// finalMax bounds the memory of what is final: neighbours are one range, so that holes are what counts.
const finalMax = 1 << 16

// conclude remembers what a flush has settled for good.
func (l *lane) conclude(f *outbox.Flush) {
	dead := func(o outbox.Outcome) bool { return o.Status == outbox.Dead }
	if !slices.ContainsFunc(f.Settled, dead) {
		for _, r := range f.Covered {
			l.final = l.final.Add(r.From, r.To)
		}
	} else {
		for _, o := range f.Settled {
			if !dead(o) {
				l.final = l.final.Add(o.Offset, o.Offset+1)
			}
		}
	}
	if len(l.final) > finalMax { // an order about what is so old is believed
		l.final = slices.Clone(l.final[len(l.final)-finalMax/2:])
	}
}

// publish replaces the status. What was offered to a lane without an owner is nobody's.
func (l *lane) publish(status LaneStatus) {
	status.Lane = l.number
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status = status
	if !status.Owner {
		l.offers, l.offered = nil, 0
	}
}

// call makes one call, on a worker. The lane leaves the entry alone until it has the answer.
func (l *lane) call(e *entry) {
	hooks, g, f := &l.d.config.Hooks, e.end.gate, e.flight
	begun := time.Now()
	hook(hooks.Sent, Sent{Lane: l.number, Offset: e.offset, Endpoint: g.name, Attempt: e.attempts, At: e.payload.At})
	failpoint.Hit("dispatch.send")
	f.answer = g.endpoint.Target.Send(f.volley.ctx, outbox.Call{Intent: *e.payload, Attempt: e.attempts, Fence: f.fence})
	failpoint.Hit("dispatch.sent")
	f.volley.done()
	f.pass.leave(health(f.answer))
	hook(hooks.Answered, Answered{
		Lane: l.number, Offset: e.offset, Endpoint: g.name, Attempt: e.attempts, Status: f.answer.Status,
		Duration: time.Since(begun), Replays: f.answer.Replays, Err: f.answer.Err,
	})
	l.mu.Lock()
	l.answered = append(l.answered, e)
	l.mu.Unlock()
	l.bell.ring()
}

// run owns the lane whenever it is wanted and can be had, until ctx ends.
func (l *lane) run(ctx context.Context) {
	store := context.WithoutCancel(ctx) // a question that was asked is waited for
	var kept *remains
	failures := 0
	for ctx.Err() == nil {
		if !l.wanted(ctx) {
			kept = nil
			l.pause(ctx, 0)
			continue
		}
		t, err := l.acquire(store, kept)
		switch {
		case err == nil:
			kept = t.run(ctx)
			if t.book.written {
				failures = 0
			}
			if t.over != drained {
				l.pause(ctx, jitter(min(failedMax, failedPause<<min(failures, 10))))
				failures++
			}
		case errors.Is(err, outbox.ErrHeld):
			kept = nil // whoever has it begins anew
			l.pause(ctx, jitter(heldPause))
		default:
			hook2(l.d.config.Hooks.Retrying, l.number, err)
			l.pause(ctx, jitter(min(failedMax, failedPause<<min(failures, 10))))
			failures++
		}
	}
}

func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d) //nolint:gosec // spreads processes, secures nothing
}

// pause waits for a while, or for the bell where the while is 0. A change of mind ends it early.
func (l *lane) pause(ctx context.Context, d time.Duration) {
	var over <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-over:
			return
		case <-l.bell:
			if d == 0 || !l.wanted(ctx) {
				return
			}
		}
	}
}

// acquire begins a tenure and loads what the one before it left.
func (l *lane) acquire(ctx context.Context, kept *remains) (*tenure, error) {
	asking, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	held, err := l.d.config.Store.Acquire(asking, l.number, l.d.config.Owner, l.d.config.LeaseTTL)
	if err != nil {
		return nil, fmt.Errorf("acquire lane %d: %w", l.number, err)
	}
	failpoint.Hit("dispatch.acquired")
	kept = kept.under(held)
	recovery, err := l.d.config.Store.Recover(asking, held)
	if err != nil {
		return nil, fmt.Errorf("recover lane %d: %w", l.number, err)
	}
	t := newTenure(ctx, l, held, recovery, kept)
	if err := t.load(ctx, recovery.Parked); err != nil {
		return nil, fmt.Errorf("recover lane %d: %w", l.number, err)
	}
	failpoint.Hit("dispatch.recovered")
	return t, nil
}

// remains are fates that a tenure knew and could not write down. They are facts; the next tenure takes
// them over instead of calling again, if nobody else had the lane in between.
type remains struct {
	epoch    int64
	outcomes map[int64]outbox.Outcome
}

// under gives what a tenure may take over, nil where there is nothing.
func (r *remains) under(held outbox.Tenure) *remains {
	if r == nil || held.After != r.epoch {
		return nil
	}
	r.epoch = held.Epoch // this process had that one too, even if nothing comes of it
	return r
}

// random is in [0, 1).
func random() float64 { return rand.Float64() } //nolint:gosec // spreads retries, secures nothing
