// Package rebuild makes a ledger that knows nothing out of the effects topic and of what the results topic has told:
// every effect that the topic still has is in it afterwards, what was told is settled, and only the rest is
// called. DESIGN.md in the package above says what that is worth.
//
// While a lane is rebuilt its lease is the rebuild's, for good: nobody dispatches a lane that is half done, however
// the rebuild ends. Another run goes on with it.
package rebuild

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pawl/internal/outbox"
)

// Store is the ledger as a rebuild needs it.
type Store interface {
	// Head tells how far a lane has been ingested.
	Head(ctx context.Context, lane int32) (outbox.Head, error)
	// Seed begins the chain of a lane that was never ingested. outbox.ErrOvertaken: it has one.
	Seed(ctx context.Context, lane int32, topicID [16]byte, next int64) error
	// Page gives up to limit intents from an offset on; all that there are in [from, next) are among them.
	Page(ctx context.Context, lane int32, from int64, limit int) (intents []outbox.Intent, next int64, err error)

	// Owner tells whose the lease of a lane is, "" where it is nobody's.
	Owner(ctx context.Context, lane int32) (string, error)
	// Acquire begins a tenure. outbox.ErrHeld while another owner's lease lasts.
	Acquire(ctx context.Context, lane int32, owner string, ttl time.Duration) (outbox.Tenure, error)
	// Recover tells what was written down before.
	Recover(ctx context.Context, tenure outbox.Tenure) (outbox.Recovery, error)
	// Flush writes outcomes down.
	Flush(ctx context.Context, flush outbox.Flush) error
	// Release gives a lease up.
	Release(ctx context.Context, tenure outbox.Tenure) error
}

// Filler brings a lane of the effects topic into the ledger. Fill returns when all effects below an offset are
// there.
type Filler interface {
	Fill(ctx context.Context, until int64) (next int64, err error)
	Close()
}

// Config says what to rebuild and where from.
type Config struct {
	Store   Store
	TopicID [16]byte // of the effects topic
	// Fill opens the filler of a lane that has a chain.
	Fill func(ctx context.Context, lane int32) (Filler, error)
	// Fence locks out whoever tells results of a lane, so that what was told is decided; nil waits for it instead.
	Fence func(ctx context.Context, lane int32) error
	// Told gives visit what was told of a lane, in the order in which it was told.
	Told func(ctx context.Context, lane int32, visit func(outbox.Result) error) error
	// Holds reports that a dead effect of an endpoint holds those behind it (on_dead: hold).
	Holds func(endpoint string) bool

	Latest bool // begin at the ends of the lanes: nothing is called again, and what was not called is lost
	Repeat bool // do not look at what was told: everything is called again

	Progress func(Progress) // called often, from the goroutine of Run; may be nil
}

// Progress is how far a rebuild is.
type Progress struct {
	Step Step
	Lane int32
	At   int64 // offset that was reached; with ReadTold, events
	End  int64 // 0 where that is not known
}

// Step is a part of the work.
type Step string

// The steps, in order; each is done for every lane before the next one.
const (
	ReadTold Step = "read results"
	Fill     Step = "read effects"
	Settle   Step = "settle"
)

// Action is what becomes of a lane.
type Action string

// The actions.
const (
	Kept   Action = "kept"   // the ledger knows it, and nothing is changed
	Begin  Action = "begin"  // it is to be begun
	Resume Action = "resume" // a rebuild of it was cut off, and is to be ended
	Begun  Action = "begun"
)

// Lane is a lane and what becomes of it.
type Lane struct {
	Lane   int32  `json:"lane"`
	Start  int64  `json:"start"` // of the lane's log
	End    int64  `json:"end"`
	Next   int64  `json:"next"` // offset that is ingested next
	Action Action `json:"action"`

	// Before Run, Told and Calls are bounds: the former counts effects that may not be there, the latter
	// offsets without an effect. After Run they are exact, unless it was to look at nothing.
	Effects int64 `json:"effects"` // in the ledger
	Told    int64 `json:"told"`    // of them, those that were told and are settled
	Unknown int64 `json:"unknown"` // of them, at-most-once ones that were not told
	Repeats int64 `json:"repeats"` // of them, those of what the topic has no more, and of one that was told
	Held    int64 `json:"held"`    // of them, those that wait behind a dead one
	Twins   int64 `json:"twins"`   // of them, those with the business key of another one
	Calls   int64 `json:"calls"`   // of them, those that will be called
}

// owner has the lanes that are being rebuilt. No instance has a name with a space.
const owner = "ledger rebuild"

// forever is how long it has them: nobody else may take one that is half done.
const forever = 100 * 365 * 24 * time.Hour

// Plan is what a rebuild would do.
type Plan struct {
	Lanes []Lane
	work  *work
}

// Plan finds out what would become of lanes, of which number and bounds are given. It writes nothing, and reads
// what was told, which can take minutes.
func (c Config) Plan(ctx context.Context, lanes []Lane) (*Plan, error) {
	p := &Plan{Lanes: lanes, work: &work{Config: c, told: newMemory()}}
	for i := range lanes {
		lane := &lanes[i]
		if err := c.judge(ctx, lane); err != nil {
			return nil, err
		}
		if lane.Action != Kept {
			p.work.lanes = append(p.work.lanes, &site{Lane: lane})
		}
	}
	if c.Latest || c.Repeat {
		return p, nil
	}
	return p, p.work.readTold(ctx)
}

func (c Config) judge(ctx context.Context, lane *Lane) error {
	head, err := c.Store.Head(ctx, lane.Lane)
	if err != nil {
		return err
	}
	has, err := c.Store.Owner(ctx, lane.Lane)
	if err != nil {
		return err
	}
	switch {
	case head.Known:
		lane.Next = head.Next
	case c.Latest:
		lane.Next = lane.End
	default:
		lane.Next = lane.Start
	}
	switch {
	case has == owner:
		lane.Action = Resume
	case head.Known:
		lane.Action = Kept
		return nil
	default:
		lane.Action = Begin
	}
	lane.Calls = lane.End - lane.Next
	return nil
}

// Run rebuilds the lanes. After an error those that are not done belong to nobody: plan again and run that. No process
// may dispatch any of them meanwhile.
func (p *Plan) Run(ctx context.Context) error {
	w := p.work
	for _, step := range []func(context.Context, *site) error{w.acquire, w.begin} {
		for _, s := range w.lanes {
			if err := step(ctx, s); err != nil {
				return err
			}
		}
	}
	if !w.Latest && !w.Repeat {
		if err := w.fill(ctx); err != nil {
			return err
		}
		if err := w.settle(ctx); err != nil {
			return err
		}
	}
	for _, s := range w.lanes {
		if err := w.Store.Release(ctx, s.tenure); err != nil {
			return err
		}
		s.Action = Begun
	}
	return nil
}

// work is a run.
type work struct {
	Config

	lanes []*site
	told  *memory
}

// site is a lane under work.
type site struct {
	*Lane

	tenure outbox.Tenure
	filler Filler
	top    int64  // every effect below that was told has been told of
	twins  []twin // by offset
}

// acquire takes a lane before any is begun: a process that runs must not find one without its outcomes.
func (w *work) acquire(ctx context.Context, s *site) (err error) {
	s.tenure, err = w.Store.Acquire(ctx, s.Lane.Lane, owner, forever)
	if errors.Is(err, outbox.ErrHeld) {
		return fmt.Errorf("%w: stop every process that has this ledger, and where one was killed, wait for a minute until its lease has run out", err)
	}
	return err
}

// begin begins the chain of a lane, unless it has been begun.
func (w *work) begin(ctx context.Context, s *site) error {
	err := w.Store.Seed(ctx, s.Lane.Lane, w.TopicID, s.Next)
	if errors.Is(err, outbox.ErrOvertaken) {
		head, err := w.Store.Head(ctx, s.Lane.Lane)
		s.Next = head.Next
		return err
	}
	return err
}

// site gives a lane that is rebuilt, nil where it is not.
func (w *work) site(lane int32) *site {
	i := slices.IndexFunc(w.lanes, func(s *site) bool { return s.Lane.Lane == lane })
	if i < 0 {
		return nil
	}
	return w.lanes[i]
}

func (w *work) progress(step Step, lane int32, at, end int64) {
	if w.Progress != nil {
		w.Progress(Progress{step, lane, at, end})
	}
}

// readTold finds out what must be known of all lanes before any is filled.
func (w *work) readTold(ctx context.Context) error {
	for _, s := range w.lanes {
		if w.Fence != nil {
			if err := w.Fence(ctx, s.Lane.Lane); err != nil {
				return err
			}
		}
		s.top = s.Start
		events, seen := int64(0), outbox.Ranges(nil)
		err := w.Told(ctx, s.Lane.Lane, func(r outbox.Result) error {
			events++
			if events%progressEvery == 0 {
				w.progress(ReadTold, s.Lane.Lane, events, 0)
			}
			offset, first := r.Outcome.Offset, r.Intent.Twin
			if offset < s.Start {
				w.told.remember(r)
				return nil
			}
			s.top = max(s.top, offset+1)
			if offset < s.End {
				seen = seen.Add(offset, offset+1)
			}
			if first != nil && first.Lane != s.Lane.Lane {
				s.twins = append(s.twins, twin{offset, first.Lane, first.Offset})
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read what was told of lane %d: %w", s.Lane.Lane, err)
		}
		for _, r := range seen {
			s.Told += r.To - r.From
		}
		s.Calls = s.End - s.Start - s.Told
		slices.SortFunc(s.twins, func(a, b twin) int { return cmp.Compare(a.at, b.at) })
		w.progress(ReadTold, s.Lane.Lane, events, events)
	}
	for _, s := range w.lanes {
		for _, t := range s.twins { // the first may not have been told
			if first := w.site(t.firstLane); first != nil {
				first.top = max(first.top, t.firstOffset+1)
			}
		}
	}
	for _, s := range w.lanes {
		s.top = min(s.top, s.End)
	}
	return nil
}

const progressEvery = 10_000
