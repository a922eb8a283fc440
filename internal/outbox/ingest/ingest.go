// Package ingest brings the effects topic into the ledger: each committed effect once, whoever else
// does the same. The ledger's position is the only truth and its compare-and-set the only fence
// (DESIGN.md in the package above); the consumer group is for sharing the work.
package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/outbox"
)

// Store is the ledger as an ingester needs it. An error of Append that is not outbox.ErrOvertaken
// leaves the outcome open; Head tells it.
type Store interface {
	// Head tells how far a lane has been ingested.
	Head(ctx context.Context, lane int32) (outbox.Head, error)
	// Seed begins the chain of a lane that was never ingested. outbox.ErrOvertaken: it has one.
	Seed(ctx context.Context, lane int32, topicID [16]byte, next int64) error
	// Append adds a batch if the lane stands at its Base, else outbox.ErrOvertaken. It sets the Twins.
	Append(ctx context.Context, batch *outbox.Batch) error
}

// Config says what to ingest.
type Config struct {
	Client []kgo.Opt // how to reach the cluster
	Topic  string    // the effects topic
	Lanes  int       // its partitions, fixed for life
	// Results is the results topic, "" where there is none. Where results of a lane were told and the ledger does not know
	// it, or those of any lane and it knows none, the lane is not begun: the ledger was lost, and everything would
	// be called again.
	Results string

	// Group spreads lanes over processes. Without one every lane is taken, which is right but a waste
	// of work where others do so too.
	Group            string
	InstanceID       string        // "" leaves the group with Run, so that the others take over at once; see Leave
	SessionTimeout   time.Duration // this and the next two: 0 is the client's default
	Heartbeat        time.Duration
	RebalanceTimeout time.Duration

	Store    Store
	BatchMax int // intents of one Append
	BytesMax int // payload bytes of one Append; one intent alone may have more

	Hooks Hooks
}

// NoLane is the lane of a hook's call that concerns the group.
const NoLane int32 = -1

// Hooks are told what happens, each of them optional. Those of one lane are called from one goroutine
// at a time, beginning with Assigned and ending with Revoked; the lane waits for them.
type Hooks struct {
	Assigned  func(lane int32)
	Revoked   func(lane int32)
	Ingested  func(batch outbox.Batch)     // after each Append that succeeded; Twins are set
	Landed    func(lane int32, next int64) // an Append that failed turns out to have been made: page up to next
	Halted    func(lane int32, err error)  // until it is assigned anew; err says what to do
	Retrying  func(lane int32, err error)  // what failed is tried again; NoLane for the group
	Overtaken func(lane int32)             // somebody else was faster, or the ledger was restored
	// Unlisted is told of aborted records that a broker gave as committed; none of them was ingested.
	Unlisted func(lane int32, records int64)
}

// Validate returns all problems of a configuration at once.
func (c Config) Validate() error {
	var problems []error
	add := func(wrong bool, format string, args ...any) {
		if wrong {
			problems = append(problems, fmt.Errorf(format, args...))
		}
	}
	add(len(c.Client) == 0, "no client options")
	add(c.Topic == "", "no effects topic")
	add(c.Lanes < 1, "%d lanes, want at least 1", c.Lanes)
	add(c.InstanceID != "" && c.Group == "", "an instance id without a group")
	add(c.Store == nil, "no ledger")
	add(c.BatchMax < 1, "a batch of %d intents, want at least 1", c.BatchMax)
	add(c.BytesMax < 1, "a batch of %d bytes, want at least 1", c.BytesMax)
	return errors.Join(problems...)
}

// Ingester ingests the lanes that the group gives it.
type Ingester struct {
	config Config
	reader *reader // from the beginning of Run

	mu      sync.Mutex
	lanes   map[int32]*lane
	closed  bool // no lane is begun any more
	leaving bool // for good, see Leave
	running sync.WaitGroup
}

// New makes an ingester.
func New(c Config) (*Ingester, error) {
	err := c.Validate()
	if err == nil {
		err = kgo.ValidateOpts(c.reader(fetchAllMax, fetchLaneMax)...)
	}
	if err == nil && c.Group != "" {
		err = kgo.ValidateOpts(c.membership()...)
	}
	if err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	return &Ingester{config: c, lanes: map[int32]*lane{}}, nil
}

// Run ingests until ctx ends, and finishes what is being written to the ledger then. It may be called
// once. An error means that the options of the client are no good.
func (i *Ingester) Run(ctx context.Context) error {
	reader, err := openReader(i.config)
	if err != nil {
		return fmt.Errorf("ingest: %w", err)
	}
	defer reader.client.Close()
	defer i.drain()
	i.reader = reader
	i.running.Go(func() { reader.run(ctx) })
	if i.config.Group == "" {
		for number := range int32(i.config.Lanes) { //nolint:gosec // far fewer than 2^31
			i.begin(ctx, number)
		}
		i.followEnds(ctx, reader.client)
		return nil
	}
	member, err := i.join(ctx)
	if err != nil {
		return err
	}
	i.running.Go(func() { i.followEnds(ctx, reader.client) })
	watch(ctx, member, i.config.Hooks)
	i.drain() // before the others are told to take over
	member.close()
	i.leave(ctx)
	return nil
}

// Leave makes a member with an instance id leave the group when Run ends, for a scale-down: its lanes
// move at once then, and not after the session timeout.
func (i *Ingester) Leave() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.leaving = true
}

// drain waits for the lanes and who follows their ends. Their context has ended.
func (i *Ingester) drain() {
	i.mu.Lock()
	i.closed = true
	i.mu.Unlock()
	i.running.Wait()
}

// begin starts to ingest a lane, after the lane's previous time here has ended.
func (i *Ingester) begin(ctx context.Context, number int32) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed || ctx.Err() != nil {
		return
	}
	previous := i.lanes[number]
	ctx, cancel := context.WithCancel(ctx)
	l := newLane(i.config, i.reader, number, cancel)
	i.lanes[number] = l
	i.running.Go(func() {
		defer cancel()
		if previous != nil {
			previous.cancel()
			<-previous.done
		}
		l.run(ctx)
		i.forget(l)
	})
}

func (i *Ingester) forget(l *lane) {
	i.mu.Lock()
	defer i.mu.Unlock()
	close(l.done)
	if i.lanes[l.number] == l {
		delete(i.lanes, l.number)
	}
}

// end stops lanes without waiting: who comes next is safe from them by compare-and-set.
func (i *Ingester) end(lanes []int32) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, number := range lanes {
		if l := i.lanes[number]; l != nil {
			l.cancel()
		}
	}
}

// Status is a lane that this process ingests.
type Status struct {
	Lane  int32
	State State
	Next  int64 // everything below is in the ledger or is nothing for it; -1 until the ledger has said where it stands
	End   int64 // of the committed part of the topic, as last seen; a few seconds old where the lane does not read
	Since time.Time
	Err   error // why it is halted or retries
}

// State is what a lane is doing.
type State string

// The states.
const (
	Starting State = "starting" // asks the ledger where to begin
	Reading  State = "reading"
	Retrying State = "retrying"
	Halted   State = "halted" // until somebody acts on Err and the lane is assigned anew
)

// Status tells of each lane that this process has, by number.
func (i *Ingester) Status() []Status {
	i.mu.Lock()
	lanes := slices.Collect(maps.Values(i.lanes))
	i.mu.Unlock()
	status := make([]Status, 0, len(lanes))
	for _, l := range lanes {
		status = append(status, l.snapshot())
	}
	slices.SortFunc(status, func(a, b Status) int { return cmp.Compare(a.Lane, b.Lane) })
	return status
}
