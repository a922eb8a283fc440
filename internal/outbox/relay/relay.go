// Package relay tells the results of effects: it reads the outcomes that the ledger has written down and
// writes one event for each to the results topic.
//
// A lane's progress stands where its events stand. Every transaction writes the events of whole flushes
// and one progress record, which names the last of them, so both are there or neither is. A relay starts
// from that record and from nothing else. Three rules make it exactly once:
//
//   - One transactional producer per lane, under a name that belongs to the lane. Asking for its producer
//     id locks the predecessor out and ends the transaction that it may have left open (KIP-98, KIP-360).
//     Only then is the progress read: nobody but us can change it any more.
//   - A transaction whose outcome is unknown is never continued. The client is thrown away, the next one
//     asks for the producer id and reads the progress again, which says what became of it.
//   - The record names the flush not only by its number but also by its epoch and its last offset. A ledger that
//     was restored from a backup counts the same numbers again with other flushes behind them. Then the lane has
//     diverged. It goes back to the last flush that the ledger has in common with the one before, which a trail
//     of older flushes in the record tells, reads back from the results topic what has been told since,
//     and leaves that out. See told for what counts as the same.
//
// The progress is a keyed record of a compacted topic, not a group offset: those expire when a lane is
// idle (offsets.retention.minutes), and the relay would tell everything again.
//
// The offsets of a lane must mean the same as long as its results are kept. Where the effects topic is made
// anew, the results and the progress topic must be too.
package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"pawl/internal/outbox"
)

// Store is what the relay needs of the ledger. Lanes call it at the same time.
type Store interface {
	// Results gives the outcomes of the next flushes of a lane after the flush with the number after:
	// whole flushes, in their order, at most limit of them. Flushes without outcomes are passed over and
	// do not count. Nothing means that there is no later one. Those that retention has dropped are not given.
	Results(ctx context.Context, lane int32, after int64, limit int) ([]outbox.Result, error)
	// FlushAt names a flush by what a restored ledger would not repeat: the epoch that wrote it and the
	// offset of its last outcome.
	FlushAt(ctx context.Context, lane int32, seq int64) (epoch, lastOffset int64, found bool, err error)
	// Told says that everything up to seq has been told. It is a hint for retention.
	Told(ctx context.Context, tenure outbox.Tenure, seq int64) error
}

// Config is what a Relay needs.
type Config struct {
	Client        []kgo.Opt // how to reach the brokers
	Application   string    // prefix of the transactional ids
	ResultsTopic  string    // its partitions are the lanes
	ProgressTopic string    // compacted, its partitions are the lanes
	Store         Store

	// Tenure gives the tenure under which this process dispatches a lane, false where it doesn't. It is
	// for Store.Told alone, which is left out without it. May be nil.
	Tenure func(lane int32) (outbox.Tenure, bool)

	Hooks Hooks
}

// Validate says what is missing, all at once.
func (c Config) Validate() error {
	var errs []error
	for name, value := range map[string]string{"Application": c.Application, "ResultsTopic": c.ResultsTopic, "ProgressTopic": c.ProgressTopic} {
		if value == "" {
			errs = append(errs, fmt.Errorf("relay: %s is empty", name))
		}
	}
	if c.Store == nil {
		errs = append(errs, errors.New("relay: Store is nil"))
	}
	return errors.Join(errs...)
}

// transactionalID is the name of a lane's producer. It has no instance in it, on purpose: whoever opens it
// locks out whoever had it.
func (c Config) transactionalID(lane int32) string {
	return fmt.Sprintf("%s.relay.%d", c.Application, lane)
}

// Relay tells the results of the lanes that are assigned to it. Make it with New.
type Relay struct {
	config  Config
	changed chan struct{} // something was assigned or unassigned
	turns   *rate.Limiter // of the transactions of lanes that keep up

	mu      sync.Mutex
	counted int            // assignments
	wanted  map[int32]int  // lanes to relay, each with the assignment that says so
	lost    map[int32]loss // lanes that were given up
	running map[int32]*lane
}

// loss is when and under which assignment a lane was given up.
type loss struct {
	turn  int
	until time.Time // then it is tried again
}

// New makes a relay without lanes.
func New(config Config) (*Relay, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	return &Relay{
		config: config, changed: make(chan struct{}, 1), turns: rate.NewLimiter(rate.Every(turnEvery), 1),
		wanted: map[int32]int{}, lost: map[int32]loss{}, running: map[int32]*lane{},
	}, nil
}

// Run relays until ctx ends. A transaction in hand is finished then; what is left stays in the ledger for
// the next owner. Run may be called once. It always returns nil: whatever goes wrong is tried again and
// told through hooks.
func (r *Relay) Run(ctx context.Context) error {
	ended := make(chan *lane)
	look := time.NewTicker(lostLook)
	defer look.Stop()
	for {
		r.reconcile(ctx, ended)
		select {
		case <-look.C: // lanes that were given up
		case <-ctx.Done():
			for n := r.stopAll(); n > 0; n-- {
				r.remove(<-ended)
			}
			return nil
		case l := <-ended:
			r.remove(l)
		case <-r.changed:
		}
	}
}

// Assign begins to relay a lane. A lane that is relayed already goes on. May be called at any time.
func (r *Relay) Assign(lane int32) {
	r.mu.Lock()
	r.counted++
	r.wanted[lane] = r.counted
	r.mu.Unlock()
	r.poke()
}

// Unassign ends relaying a lane after the transaction in hand. It does not wait for that: the next owner
// locks us out in any case.
func (r *Relay) Unassign(lane int32) {
	r.mu.Lock()
	delete(r.wanted, lane)
	delete(r.lost, lane)
	r.mu.Unlock()
	r.poke()
}

// Wake says that a lane has new outcomes. It never blocks. Without it they are found by a poll.
func (r *Relay) Wake(lane int32) {
	r.mu.Lock()
	l := r.running[lane]
	r.mu.Unlock()
	if l != nil {
		poke(l.wake)
	}
}

// Status is a snapshot of the lanes that are assigned, in their order.
func (r *Relay) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	status := Status{Lanes: []LaneStatus{}}
	for number, turn := range r.wanted {
		switch l := r.running[number]; {
		case l != nil:
			status.Lanes = append(status.Lanes, l.snapshot())
		case r.gaveUp(number, turn):
			status.Lanes = append(status.Lanes, LaneStatus{Lane: number, Phase: PhaseLost})
		default:
			status.Lanes = append(status.Lanes, LaneStatus{Lane: number, Phase: PhaseOpening})
		}
	}
	slices.SortFunc(status.Lanes, func(a, b LaneStatus) int { return int(a.Lane - b.Lane) })
	return status
}

func (r *Relay) poke() { poke(r.changed) }

func poke(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default: // it rings already
	}
}

// reconcile starts the lanes that are wanted and do not run, and stops those that run and are not wanted.
// A lane that is wanted again while it stops is started when it has stopped.
func (r *Relay) reconcile(ctx context.Context, ended chan<- *lane) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for number, l := range r.running {
		if _, wanted := r.wanted[number]; !wanted {
			l.stop()
		}
	}
	for number, turn := range r.wanted {
		if r.running[number] != nil || r.gaveUp(number, turn) || ctx.Err() != nil {
			continue
		}
		life, stop := context.WithCancel(ctx)
		l := newLane(r.config, number, turn, r.turns, stop)
		l.beaten = r.lost[number].turn == turn
		r.running[number] = l
		go func() {
			l.run(life)
			stop()
			ended <- l
		}()
	}
}

func (r *Relay) stopAll() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.running) // their context has ended already
}

func (r *Relay) remove(l *lane) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, l.number)
	if _, wanted := r.wanted[l.number]; wanted && l.lost {
		r.lost[l.number] = loss{l.turn, time.Now().Add(lostPause)}
	}
}

// gaveUp must be called under the lock.
func (r *Relay) gaveUp(number int32, turn int) bool {
	lost, is := r.lost[number]
	return is && lost.turn == turn && time.Now().Before(lost.until)
}
