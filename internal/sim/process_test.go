//go:build synctests

package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"pawl/internal/outbox"
	"pawl/internal/outbox/dispatch"
	"pawl/internal/outbox/ingest"
	"pawl/internal/outbox/relay"
	"pawl/internal/txn"
)

// Times of the service under test: as short as its own checks allow, so that a history has many of them.
const (
	sessionTimeout   = 6 * time.Second
	heartbeat        = 2 * time.Second
	rebalanceTimeout = 10 * time.Second
	txnTimeout       = 12 * time.Second
	handlerTimeout   = 2 * time.Second
	drainTimeout     = 5 * time.Second
	leaseTTL         = 9 * time.Second
)

// process is one life of a replica, wired as internal/app wires it.
type process struct {
	world *world
	slot  *slot
	name  string // of this life
	power *power
	wire  *wire

	trouble    *trouble
	engine     *txn.Engine
	ingester   *ingest.Ingester
	dispatcher *dispatch.Dispatcher
	relay      *relay.Relay

	stop  context.CancelFunc
	ended chan struct{}
	over  time.Time // when it died or ended; guarded by the slot

	mu      sync.Mutex
	tenures map[int32]outbox.Tenure
}

func (w *world) newProcess(s *slot, life int) *process {
	p := &process{
		world: w, slot: s, name: fmt.Sprintf("%s.%d", s.name, life), power: newPower(),
		trouble: &trouble{bit: w.bit}, ended: make(chan struct{}), tenures: map[int32]outbox.Tenure{},
	}
	p.wire = w.newWire(p.power)
	p.wire.crash = func() { s.crash(p, crashedFor) }
	p.wire.alone = func() bool { return s.alone(p) }
	client := []kgo.Opt{kgo.SeedBrokers(w.cluster.ListenAddrs()...), kgo.Dialer(p.wire.dial), kgo.DisableClientMetrics()}
	ledger := &store{memory: w.ledger, process: p, skies: w.skies, journal: w.journal}
	var err error
	if p.engine, err = txn.New(p.engineConfig(client)); err != nil {
		panic(err)
	}
	p.dispatcher, err = dispatch.New(dispatch.Config{
		Store: ledger, Owner: application + "." + s.name, LeaseTTL: leaseTTL, Workers: 8, DrainTimeout: drainTimeout, StrangerAgeMax: time.Hour,
		Endpoints: map[string]dispatch.Endpoint{endpointName: {
			Target: line{w.journal, p}, Timeout: callTimeout, AttemptsMax: 1000, AgeMax: time.Hour, Concurrency: 8, OnDead: dispatch.Continue,
		}},
		Hooks: dispatch.Hooks{
			Owned: p.owned, Lost: p.lost,
			Flushed: func(f dispatch.Flushed) { p.relay.Wake(f.Lane) },
			Fenced: func(lane int32, epoch int64) {
				w.note("%s: dispatch of lane %d fenced at epoch %d", p.name, lane, epoch)
			},
			Retrying: func(lane int32, err error) { w.note("%s: dispatch of lane %d retries: %v", p.name, lane, err) },
		},
	})
	if err != nil {
		panic(err)
	}
	p.relay, err = relay.New(relay.Config{
		Client: client, Application: application, ResultsTopic: resultsTopic, ProgressTopic: progressTopic, Store: ledger, Tenure: p.tenure,
		Hooks: relay.Hooks{
			Diverged: func(d relay.Diverged) { w.note("%s: relay of lane %d diverged: %s", p.name, d.Lane, d.Why) },
			Halted:   func(lane int32, err error) { w.halted("%s: relay of lane %d halted: %v", p.name, lane, err) },
			Fenced:   func(lane int32, err error) { w.note("%s: relay of lane %d fenced: %v", p.name, lane, err) },
			GaveUp:   func(lane int32) { w.note("%s: relay of lane %d given up", p.name, lane) },
			Retrying: func(lane int32, err error) { w.note("%s: relay of lane %d retries: %v", p.name, lane, err) },
		},
	})
	if err != nil {
		panic(err)
	}
	p.ingester, err = ingest.New(ingest.Config{
		Client: client, Topic: effectsTopic, Lanes: lanes, Results: resultsTopic, Group: ledgerGroup, InstanceID: application + "." + s.name,
		SessionTimeout: sessionTimeout, Heartbeat: heartbeat, RebalanceTimeout: rebalanceTimeout,
		Store: ledger, BatchMax: 50, BytesMax: 1 << 20,
		Hooks: ingest.Hooks{
			Assigned:  func(lane int32) { p.dispatcher.Assign(lane) },
			Revoked:   func(lane int32) { p.dispatcher.Unassign(lane) },
			Ingested:  func(batch outbox.Batch) { p.dispatcher.Offer(batch) },
			Landed:    func(lane int32, next int64) { p.dispatcher.Offer(outbox.Batch{Lane: lane, Base: next, Next: next}) },
			Halted:    func(lane int32, err error) { w.halted("%s: ingest of lane %d halted: %v", p.name, lane, err) },
			Retrying:  func(lane int32, err error) { w.note("%s: ingest of lane %d retries: %v", p.name, lane, err) },
			Overtaken: func(int32) { w.bit("ingest-overtaken") },
		},
	})
	if err != nil {
		panic(err)
	}
	return p
}

func (p *process) engineConfig(client []kgo.Opt) txn.Config {
	w := p.world
	return txn.Config{
		Application: application, Instance: p.slot.name, Group: group, Client: client,
		Protocol: txn.Protocol(w.script.Protocol), SessionTimeout: sessionTimeout, Heartbeat: heartbeat, RebalanceTimeout: rebalanceTimeout,
		Start:   cmp.Or(w.script.Start, txn.StartEarliest),
		Routes:  []txn.Route{{Topics: []string{inTopic}, Name: "work", Handler: work{p.trouble}}, {Topics: []string{resultsTopic}, Name: "settle", Handler: settle{}}},
		Outputs: outputs(), Endpoints: []string{endpointName},
		EffectsTopic: effectsTopic, DeadLetterTopic: deadTopic, ControlTopic: controlTopic,
		Lanes: w.script.Lanes, RecordsMax: 20, BytesMax: 1 << 20, IntervalMin: 20 * time.Millisecond,
		Timeout: txnTimeout, HandlerTimeout: handlerTimeout, DrainTimeout: drainTimeout, Compression: "none",
		Hooks: txn.Hooks{
			Ended:   func(e txn.Ended) { w.ended(p, e) },
			Fenced:  func(lane int, err error) { w.note("%s: lane %d fenced: %v", p.name, lane, err) },
			Rebuilt: func(_ int, why txn.Reason) { w.bit("rebuilt:" + string(why)) },
			Halted:  func(h txn.Halted) { w.engineHalted(p, h) },
			Suspected: func(s txn.Suspected) {
				w.note("%s: lane %d suspects, limit %d, %d deaths, %s", p.name, s.Lane, s.Records, s.Crashes, s.Why)
			},
			Retrying: func(lane int, err error) { w.note("%s: lane %d retries: %v", p.name, lane, err) },
		},
	}
}

func (p *process) owned(lane int32, epoch int64) {
	p.mu.Lock()
	p.tenures[lane] = outbox.Tenure{Lane: lane, Epoch: epoch}
	p.mu.Unlock()
	p.relay.Assign(lane)
}

func (p *process) lost(lane int32, _ int64) {
	p.mu.Lock()
	delete(p.tenures, lane)
	p.mu.Unlock()
	p.relay.Unassign(lane)
}

func (p *process) tenure(lane int32) (outbox.Tenure, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	tenure, owned := p.tenures[lane]
	return tenure, owned
}

// run works until ctx ends or the engine does, and stops the parts in their order.
func (p *process) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var parts errgroup.Group
	dispatching, endDispatch := context.WithCancel(context.WithoutCancel(ctx))
	defer endDispatch()
	relaying, endRelay := context.WithCancel(context.WithoutCancel(ctx))
	defer endRelay()
	parts.Go(func() error { return p.relay.Run(relaying) })
	parts.Go(func() error {
		defer endRelay()
		return p.dispatcher.Run(dispatching)
	})
	parts.Go(func() error {
		defer endDispatch()
		return p.ingester.Run(ctx)
	})
	err := p.engine.Run(ctx)
	if _, stuck := errors.AsType[*txn.StuckError](err); stuck {
		p.die() // the process ends with it
	}
	stop()
	return errors.Join(err, parts.Wait())
}

// die is SIGKILL, as the world sees it. What is left of the process in memory ends by itself.
func (p *process) die() {
	p.slot.buried(p)
	p.power.kill()
	p.wire.die()
	p.stop()
}

// slot is the place of a replica: at most one process has it, but for a twin.
type slot struct {
	world *world
	name  string

	mu      sync.Mutex
	life    int
	process *process
	lives   []*process
	gone    bool // not to be started again
	resting int  // how many keep it from being started: its process drains, or all are away for a while
}

const (
	crashedFor  = 500 * time.Millisecond
	restartedIn = time.Second // of a process that has ended by itself
)

// start begins a new life, unless there is one.
func (s *slot) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil || s.gone || s.resting > 0 || s.world.closing() {
		return
	}
	s.process = s.begin()
}

// begin must be called under the lock.
func (s *slot) begin() *process {
	s.life++
	p := s.world.newProcess(s, s.life)
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	s.lives = append(s.lives, p)
	s.world.running.Go(func() {
		err := p.run(ctx)
		stop()
		close(p.ended)
		s.world.note("%s: ended: %v", p.name, err)
		s.buried(p)
		s.mu.Lock()
		mine := s.process == p
		if mine {
			s.process = nil
		}
		s.mu.Unlock()
		if mine {
			s.later(restartedIn) //nolint:contextcheck // hooks have none
		}
	})
	return p
}

// buried notes when a process ended.
func (s *slot) buried(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.over.IsZero() {
		p.over = time.Now()
	}
}

// alone says whether no life of the slot but this one, if any, has been there for a session.
func (s *slot) alone(p *process) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(s.lives, func(q *process) bool {
		return q != p && (q.over.IsZero() || time.Since(q.over) < sessionTimeout)
	})
}

// later starts the slot after a while.
func (s *slot) later(after time.Duration) {
	s.world.running.Go(func() {
		s.world.sleep(after)
		s.start()
	})
}

func (s *slot) current() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process
}

// take removes the process from its slot, so that what becomes of it is nobody's business any more.
func (s *slot) take(p *process) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p == nil || s.process != p {
		return false
	}
	s.process = nil
	return true
}

// crash kills a process and starts the next one after a while; with a negative time there is none.
func (s *slot) crash(p *process, after time.Duration) bool {
	if p == nil || p.power.over() {
		return false
	}
	mine := s.take(p)
	p.die()
	if mine && after >= 0 {
		s.later(after)
	}
	return true
}

// drain ends a process in good order and starts the next one after a while.
func (s *slot) drain(after time.Duration, leave bool) bool {
	p := s.current()
	if !s.take(p) {
		return false
	}
	if leave {
		p.engine.Leave()
	}
	s.rest(true)
	p.stop()
	s.world.running.Go(func() {
		<-p.ended
		s.world.sleep(after)
		s.rest(false)
		s.start()
	})
	return true
}

// rest keeps others from starting the slot: two processes of one name are another fault.
func (s *slot) rest(resting bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if resting {
		s.resting++
	} else {
		s.resting--
	}
}

// retire ends the slot for good.
func (s *slot) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
}
