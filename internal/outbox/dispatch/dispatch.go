// Package dispatch delivers the intents of the lanes that this process owns: it calls endpoints, in
// the order of each key, and writes down what became of every intent. Why nothing is lost and nothing
// is sent out of turn stands in DESIGN.md of package outbox; what a dispatcher promises, its tests say.
//
// A lane has one goroutine that owns all its state. Calls are made by workers that all lanes share;
// the store is asked by goroutines of their own, one for each kind of question. Both hand their
// answers to the lane's goroutine.
package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"pawl/internal/outbox"
)

// Store is the ledger as a dispatcher needs it; the contract of each method is that of the ledger.
type Store interface {
	Acquire(ctx context.Context, lane int32, owner string, ttl time.Duration) (outbox.Tenure, error)
	Renew(ctx context.Context, tenure outbox.Tenure, ttl time.Duration) (outbox.Tenure, []outbox.Order, error)
	Release(ctx context.Context, tenure outbox.Tenure) error
	Recover(ctx context.Context, tenure outbox.Tenure) (outbox.Recovery, error)
	Page(ctx context.Context, lane int32, from int64, limit int) (intents []outbox.Intent, next int64, err error)
	Get(ctx context.Context, lane int32, offsets []int64) ([]outbox.Intent, error)
	Waiting(ctx context.Context, lane int32, from int64, limit int) ([]outbox.Parked, error)
	Begin(ctx context.Context, tenure outbox.Tenure, sending []outbox.Sending) error
	Flush(ctx context.Context, flush outbox.Flush) error
}

// Target makes calls. Send must return soon after the end of its context: until then its lane cannot
// be taken up again. It is called from many goroutines at once.
type Target interface {
	Send(ctx context.Context, call outbox.Call) outbox.Answer
}

// OnDead says what becomes of the later intents of a key when one of them is dead.
type OnDead string

// The policies.
const (
	Continue OnDead = "continue" // the next one is sent
	// Hold makes them wait until an operator retries or cancels the dead one, whoever owns the lane.
	Hold OnDead = "hold"
)

// Endpoint is where effects of one name go.
type Endpoint struct {
	Target      Target
	Timeout     time.Duration // of one call
	AttemptsMax int
	AgeMax      time.Duration // since the first attempt; no attempt begins later
	Concurrency int           // calls at once, over all lanes
	Rate        float64       // calls a second, over all lanes; 0: no limit
	OnDead      OnDead
}

// Config is what a dispatcher needs to know. There are no defaults here: the application has them.
type Config struct {
	Store     Store
	Endpoints map[string]Endpoint
	Owner     string // names this process to the store; unique among the living

	LeaseTTL     time.Duration // at least the longest Timeout and leaseMargin
	Workers      int           // calls at once, over all endpoints
	DrainTimeout time.Duration // for calls under way when a lane is given up; then they are cancelled

	// StrangerAgeMax is how long an intent waits for a process that knows its endpoint. It is dead then.
	StrangerAgeMax time.Duration

	Hooks Hooks
}

// leaseMargin is by how much a lease outlasts the longest call: time to renew it, and for clocks that
// run at different speeds.
const leaseMargin = 5 * time.Second

func (c Config) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.Store != nil, "the store is missing")
	check(c.Owner != "", "the owner has no name")
	check(c.Workers >= 1, "workers is %d, want at least 1", c.Workers)
	check(c.DrainTimeout > 0, "the drain timeout is %s, want more than 0", c.DrainTimeout)
	check(c.StrangerAgeMax > 0, "the age limit of unknown endpoints is %s, want more than 0", c.StrangerAgeMax)
	check(c.LeaseTTL >= c.timeoutMax()+leaseMargin, "the lease is %s, want at least %s: the longest timeout and %s", c.LeaseTTL, c.timeoutMax()+leaseMargin, leaseMargin)
	for _, name := range slices.Sorted(maps.Keys(c.Endpoints)) {
		e := c.Endpoints[name]
		check(name != "", "an endpoint has no name")
		check(e.Target != nil, "endpoint %s: the target is missing", name)
		check(e.Timeout > 0, "endpoint %s: timeout is %s, want more than 0", name, e.Timeout)
		check(e.AttemptsMax >= 1, "endpoint %s: attempts_max is %d, want at least 1", name, e.AttemptsMax)
		check(e.AgeMax > 0, "endpoint %s: age_max is %s, want more than 0", name, e.AgeMax)
		check(e.Concurrency >= 1, "endpoint %s: concurrency is %d, want at least 1", name, e.Concurrency)
		check(e.Rate >= 0, "endpoint %s: rate is %g, want at least 0", name, e.Rate)
		check(e.OnDead == Continue || e.OnDead == Hold, "endpoint %s: on_dead is %q, want %s or %s", name, e.OnDead, Continue, Hold)
	}
	return errors.Join(errs...)
}

func (c Config) timeoutMax() time.Duration {
	var longest time.Duration
	for _, e := range c.Endpoints {
		longest = max(longest, e.Timeout)
	}
	return longest
}

// renewal is the time between renewals of a lease. A call may begin while the lease lasts longer than
// its timeout; renewing more often than every third keeps that true for long timeouts too.
func (c Config) renewal() time.Duration {
	return min(c.LeaseTTL/3, (c.LeaseTTL-c.timeoutMax())/2)
}

// Dispatcher delivers lanes. Its methods may be called from any goroutine, before, during and after
// Run.
type Dispatcher struct {
	config Config
	gates  map[string]*gate
	slots  *slots
	jobs   chan *entry // calls to make; as many fit as there are slots, so that nobody waits to send

	parkedMax int // of each lane; a test makes it smaller

	mu      sync.Mutex
	lanes   map[int32]*lane
	running bool
	ended   bool
	ctx     context.Context // that of Run: lanes are assigned after it has begun
	group   sync.WaitGroup  // the lanes' goroutines
}

// New checks the configuration. Nothing runs before Run.
func New(config Config) (*Dispatcher, error) {
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("configure dispatch: %w", err)
	}
	d := &Dispatcher{
		config: config,
		gates:  map[string]*gate{},
		slots:  &slots{free: config.Workers},
		jobs:   make(chan *entry, config.Workers),
		lanes:  map[int32]*lane{},

		parkedMax: parkedMax,
	}
	for name, endpoint := range config.Endpoints {
		d.gates[name] = newGate(name, endpoint, d.slots, func(b Breaker) { hook(config.Hooks.Breaker, b) })
	}
	return d, nil
}

// Run delivers until ctx ends; then it begins no more calls, waits for those under way (up to the drain
// timeout, then it cancels them), writes down what they brought, releases the leases and returns nil.
// It may be called once.
func (d *Dispatcher) Run(ctx context.Context) error {
	if err := d.begin(ctx); err != nil {
		return err
	}
	var workers sync.WaitGroup
	for range d.config.Workers {
		workers.Go(func() {
			for e := range d.jobs {
				e.lane.call(e)
			}
		})
	}
	<-ctx.Done()
	d.mu.Lock()
	d.ended = true
	d.mu.Unlock()
	d.group.Wait()
	close(d.jobs)
	workers.Wait()
	return nil
}

func (d *Dispatcher) begin(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.running {
		return errors.New("run dispatch: it was run before; make a new one")
	}
	d.running, d.ctx = true, ctx
	for _, l := range d.lanes {
		d.group.Go(func() { l.run(ctx) })
	}
	return nil
}

// Assign asks for a lane: the dispatcher tries to own it from now on. A lane that it has is left alone.
func (d *Dispatcher) Assign(number int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return
	}
	l := d.lanes[number]
	if l == nil {
		l = newLane(d, number)
		d.lanes[number] = l
		if d.running {
			ctx := d.ctx
			d.group.Go(func() { l.run(ctx) })
		}
	}
	l.want(true)
}

// Unassign gives a lane up: no more calls begin, those under way are waited for and written down, and
// the lease is released. It does not wait for that.
func (d *Dispatcher) Unassign(number int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.lanes[number]; l != nil {
		l.want(false)
	}
}

// Pause keeps calls from the endpoints that paused names, and from no others. Effects wait, in the order of their keys, and
// use up no attempt; a call that has begun goes on. It may be called before Run, and again at any time.
func (d *Dispatcher) Pause(paused func(endpoint string) bool) {
	for name, g := range d.gates {
		g.pause(paused(name))
	}
}

// Offer hands over what has just been ingested, so that it need not be read from the store. It never
// blocks, and what doesn't fit is not kept: the lane reads it later. The intents are not changed, but
// must not be changed by the caller either.
func (d *Dispatcher) Offer(batch outbox.Batch) {
	d.mu.Lock()
	l := d.lanes[batch.Lane]
	d.mu.Unlock()
	if l != nil {
		l.offer(batch)
	}
}

// Status is a snapshot.
func (d *Dispatcher) Status() Status {
	var s Status
	d.mu.Lock()
	lanes := slices.Collect(maps.Values(d.lanes))
	d.mu.Unlock()
	for _, l := range lanes {
		if status, assigned := l.snapshot(); assigned {
			s.Lanes = append(s.Lanes, status)
		}
	}
	slices.SortFunc(s.Lanes, func(a, b LaneStatus) int { return cmp.Compare(a.Lane, b.Lane) })
	for _, name := range slices.Sorted(maps.Keys(d.gates)) {
		s.Endpoints = append(s.Endpoints, d.gates[name].status())
	}
	return s
}
