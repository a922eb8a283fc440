package dispatch

import (
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"
)

// The breaker of an endpoint.
const (
	breakerFailures = 10              // in a row that open it
	breakerPause    = 5 * time.Second // for which it stays open
	breakerProbes   = 3               // successes that close it again
	breakerLook     = time.Second     // how soon a lane asks an open breaker again
)

// burst is the time whose calls an endpoint with a rate may get at once: timers are coarser than high rates.
const burst = 100 * time.Millisecond

// bell wakes a lane. It never blocks, and rings that come together are one.
type bell chan struct{}

func newBell() bell { return make(bell, 1) }

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}

// bells are those that wait for something to come free.
type bells []bell

func (b *bells) add(one bell) {
	if !slices.Contains(*b, one) {
		*b = append(*b, one)
	}
}

func (b *bells) ring() {
	for _, one := range *b {
		one.ring()
	}
	clear(*b)
	*b = (*b)[:0]
}

// slots bounds the calls of all endpoints.
type slots struct {
	mu      sync.Mutex
	free    int
	waiting bells
}

func (s *slots) take(who bell) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free == 0 {
		s.waiting.add(who)
		return false
	}
	s.free--
	return true
}

func (s *slots) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free++
	s.waiting.ring()
}

// gate lets the calls of one endpoint through, for all lanes: so many at once, so many a second, and
// none while the breaker is open or an operator has paused it.
type gate struct {
	name     string
	endpoint Endpoint
	slots    *slots
	changed  func(Breaker)

	mu       sync.Mutex
	paused   bool // by an operator
	inFlight int
	waiting  bells
	short    shortage
	limiter  *rate.Limiter // nil where there is no limit
	breaker  *gobreaker.TwoStepCircuitBreaker[struct{}]
	state    State
	changes  []State // not told yet; the breaker tells under its own lock and ours
}

func newGate(name string, endpoint Endpoint, slots *slots, changed func(Breaker)) *gate {
	g := &gate{name: name, endpoint: endpoint, slots: slots, changed: changed, state: Closed, short: newShortage()}
	if endpoint.Rate > 0 {
		g.limiter = rate.NewLimiter(rate.Limit(endpoint.Rate), max(1, int(math.Ceil(endpoint.Rate*burst.Seconds()))))
	}
	g.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name:        name,
		MaxRequests: breakerProbes,
		Timeout:     breakerPause,
		ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= breakerFailures },
		IsExcluded:  func(err error) bool { return errors.Is(err, errNeutral) },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			g.state = stateOf(to)
			g.changes = append(g.changes, g.state)
		},
	})
	return g
}

func stateOf(state gobreaker.State) State {
	switch state {
	case gobreaker.StateOpen:
		return Open
	case gobreaker.StateHalfOpen:
		return HalfOpen
	default:
		return Closed
	}
}

// refusal says why a call may not begin yet.
type refusal struct {
	again time.Duration // when to ask again; 0: the bell rings
	shut  string        // why nothing is let through at all; empty where it is
}

// Why a gate is shut.
const (
	shutByBreaker = "the breaker of the endpoint is open"
	shutByPause   = "an operator paused the endpoint"
)

// pass lets one call begin. It is given back with leave.
type pass struct {
	gate  *gate
	done  func(health error)
	probe bool // the call is there to see whether the endpoint is well again
}

// enter asks for one call. Why says what to wait for where it may not begin now.
func (g *gate) enter(now time.Time, who bell) (p pass, why refusal, ok bool) {
	g.mu.Lock()
	done, why := g.admit(now, who)
	changes, probe := g.take(), g.state == HalfOpen
	g.mu.Unlock()
	g.tell(changes)
	return pass{gate: g, done: done, probe: probe}, why, done != nil
}

// admit must be called under the lock.
func (g *gate) admit(now time.Time, who bell) (func(error), refusal) {
	g.short.end()
	if g.inFlight >= g.endpoint.Concurrency {
		g.short.begin(ByConcurrency, 0) // leave ends it
		g.waiting.add(who)
		return nil, refusal{}
	}
	if g.paused {
		g.waiting.add(who)
		return nil, refusal{again: breakerLook, shut: shutByPause}
	}
	// An open breaker is asked first of all, so that a refusal costs neither a slot nor a token.
	if g.breaker.State() == gobreaker.StateOpen {
		g.waiting.add(who)
		return nil, refusal{again: breakerLook, shut: shutByBreaker}
	}
	if !g.slots.take(who) {
		g.short.begin(ByWorkers, 0) // the bell of the slots has us asked again
		return nil, refusal{}
	}
	if g.limiter != nil {
		reservation := g.limiter.ReserveN(now, 1)
		if wait := reservation.DelayFrom(now); wait > 0 {
			reservation.CancelAt(now)
			g.slots.give()
			// Who comes late for a token has waited until then: in the time of a burst none is lost, so that the rate is
			// what holds calls up even where timers take longer than the wait itself.
			g.short.begin(ByRate, wait+burst)
			return nil, refusal{again: wait}
		}
	}
	done, err := g.breaker.Allow()
	if err != nil { // half open, and as many as may are under way: the first answer rings
		g.slots.give()
		g.waiting.add(who)
		return nil, refusal{again: breakerLook, shut: shutByBreaker}
	}
	g.inFlight++
	return done, refusal{}
}

// leave ends a call, with what it says about the endpoint's health.
func (p pass) leave(health error) {
	g := p.gate
	g.mu.Lock()
	p.done(health)
	g.inFlight--
	g.short.freed()
	g.waiting.ring()
	changes := g.take()
	g.mu.Unlock()
	g.slots.give()
	g.tell(changes)
}

// take must be called under the lock.
func (g *gate) take() []State {
	changes := g.changes
	g.changes = nil
	return changes
}

func (g *gate) tell(changes []State) {
	for _, state := range changes {
		g.changed(Breaker{Endpoint: g.name, State: state})
	}
}

// shut says why nothing is let through, empty where something may be.
func (g *gate) shut() string {
	g.mu.Lock()
	var why string
	switch {
	case g.paused:
		why = shutByPause
	case g.breaker.State() == gobreaker.StateOpen:
		why = shutByBreaker
	}
	changes := g.take()
	g.mu.Unlock()
	g.tell(changes)
	return why
}

// pause shuts the gate, or opens it and rings for those who wait. Calls under way are left alone.
func (g *gate) pause(paused bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.paused && !paused {
		g.waiting.ring()
	}
	g.paused = paused
}

func (g *gate) status() EndpointStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	return EndpointStatus{Endpoint: g.name, InFlight: g.inFlight, Limit: g.endpoint.Concurrency, Breaker: g.state, Paused: g.paused, Saturation: g.short.until(time.Now())}
}
