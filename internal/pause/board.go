package pause

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/control"
)

const (
	writeTimeout = 10 * time.Second
	againMin     = 50 * time.Millisecond
	againMax     = 2 * time.Second
	// lookEvery is the time between two looks at the clock while something ends by itself: a clock may be set.
	lookEvery = time.Second
)

// Config says where the notes are.
type Config struct {
	Client []kgo.Opt // how to reach the brokers
	Topic  string    // the control topic
	Reader string    // names this process among the readers
	Hooks  Hooks
}

// Hooks are told on the goroutine of Run, before anybody who waits for the news has it.
type Hooks struct {
	Changed  func(Change)
	Obey     func(Set) // what is in force now; also where nothing is, when that is first known
	Ignored  func(Ignored)
	Retrying func(error)
}

// Kind says what happened to a target.
type Kind string

// The kinds of a change.
const (
	Began  Kind = "began"  // also one that was in force already when this process began to look
	Again  Kind = "again"  // another note took its place
	Lifted Kind = "lifted" // by somebody
	Ended  Kind = "ended"  // by itself
)

// Change is one thing that happened to a target.
type Change struct {
	Kind   Kind
	Pause  Pause // that began, or that is over
	Reason string
	Actor  string // who brought the change, where somebody did
}

// Ignored is a note that this release can't read.
type Ignored struct {
	Key    string
	Offset int64
	Err    error
}

// state is one look at the notes; it does not change.
type state struct {
	set     Set
	ignored int
	next    int64         // all below is known
	moved   chan struct{} // closed when there is a newer state
}

// Board follows the notes. Its methods may be called from any goroutine.
type Board struct {
	config Config
	topic  control.Topic

	mu      sync.Mutex
	state   state
	changed chan struct{} // closed when what is in force has changed
	ready   chan struct{} // closed when it is known for the first time
}

// Open makes a board; Close it. Nothing is read before Run.
func Open(config Config) (*Board, error) {
	topic, err := control.Open(config.Topic, config.Client)
	if err != nil {
		return nil, fmt.Errorf("open the notes about pauses: %w", err)
	}
	return &Board{
		config: config, topic: topic,
		state: state{moved: make(chan struct{})}, changed: make(chan struct{}), ready: make(chan struct{}),
	}, nil
}

// Close is for after Run.
func (b *Board) Close() { b.topic.Client.Close() }

// Run follows the notes until ctx ends, and returns nil. What was in force stays in force while the brokers are away.
func (b *Board) Run(ctx context.Context) error {
	for tries := 0; ctx.Err() == nil; tries++ {
		began := time.Now()
		if err := b.follow(ctx); err != nil && ctx.Err() == nil {
			hook(b.config.Hooks.Retrying, err)
		}
		if time.Since(began) > againMax {
			tries = 0 // that went well for a while
		}
		rest(ctx, againMin<<min(tries, 6))
	}
	return nil
}

// Set is what is in force, as far as it is known.
func (b *Board) Set() Set {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state.set
}

// Ignored counts targets of which the newest note can't be read.
func (b *Board) Ignored() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state.ignored
}

// Ready is closed when it is known for the first time what is in force.
func (b *Board) Ready() <-chan struct{} { return b.ready }

// Changed is closed with the next change of what is in force. Ask for it before Set, or a change between the two is
// missed.
func (b *Board) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

// Paused reports whether a partition is not to be read.
func (b *Board) Paused(topic string, partition int32) bool {
	_, paused := b.Set().Input(topic, partition)
	return paused
}

// Refresh returns when every note is known that was on the brokers before the call.
func (b *Board) Refresh(ctx context.Context) error {
	mark, err := b.mark(ctx)
	if err != nil {
		return err
	}
	for {
		b.mu.Lock()
		now := b.state
		b.mu.Unlock()
		if now.next > mark {
			return nil
		}
		select {
		case <-now.moved:
		case <-ctx.Done():
			return fmt.Errorf("read the notes about pauses: %w", ctx.Err())
		}
	}
}

func (b *Board) mark(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	mark, err := b.topic.Mark(ctx, b.config.Reader)
	if err != nil {
		return 0, fmt.Errorf("write a mark to control topic %s: %w", b.config.Topic, err)
	}
	return mark, nil
}

// Write gives a word about a target. It is in force for all when it returns, and known to them a moment later.
func (b *Board) Write(ctx context.Context, target Target, note Note) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	value, err := encode(note)
	if err != nil {
		return err
	}
	record := &kgo.Record{Topic: b.config.Topic, Key: []byte(Prefix + string(target)), Value: value}
	if err := b.topic.Client.ProduceSync(ctx, record).FirstErr(); err != nil {
		return fmt.Errorf("write a note about %s to control topic %s: %w", target, b.config.Topic, err)
	}
	return nil
}

// follow reads the topic from its start and goes on until something fails. Until it has read all that was there, what
// was known before stays.
func (b *Board) follow(ctx context.Context) error {
	b.move(func(s *state) { s.next = 0 }) // the topic may be another one than before
	mark, err := b.mark(ctx)
	if err != nil {
		return err
	}
	reader, err := b.topic.Follow()
	if err != nil {
		return err
	}
	defer reader.Close()
	n := notes{found: map[Target]Note{}, bad: map[string]bool{}}
	for {
		err := n.poll(ctx, reader, b.config.Hooks.Ignored)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if reader.Next() > mark {
			b.publish(&n, reader.Next(), time.Now())
		}
	}
}

// notes are those that one reader has seen.
type notes struct {
	found map[Target]Note
	bad   map[string]bool // keys whose newest note can't be read
}

// poll takes what comes next, but waits no longer than until it is worth looking at the clock.
func (n *notes) poll(ctx context.Context, reader *control.Reader, ignored func(Ignored)) error {
	wait := time.Duration(0)
	for _, note := range n.found {
		if left := max(time.Millisecond, time.Until(note.Until)); note.Paused && !note.Until.IsZero() && (wait == 0 || left < wait) {
			wait = left
		}
	}
	if wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, min(lookEvery, wait))
		defer cancel()
	}
	return reader.Poll(ctx, func(r *kgo.Record) {
		if bad := n.take(r); bad != nil {
			hook(ignored, *bad)
		}
	})
}

// take notes a record, or says why it is passed over. What stood there before it goes with it: it is not the newest word.
func (n *notes) take(r *kgo.Record) *Ignored {
	target, note, is, err := decode(r.Key, r.Value)
	switch {
	case !is:
		return nil
	case err != nil:
		delete(n.found, target)
		n.bad[string(r.Key)] = true
		return &Ignored{Key: string(r.Key), Offset: r.Offset, Err: err}
	}
	delete(n.bad, string(r.Key))
	n.found[target] = note
	return nil
}

func (n *notes) inForce(now time.Time) Set {
	set := Set{}
	for target, note := range n.found {
		if note.inForce(now) {
			set[target] = note.pause(target)
		} else if note.Paused {
			note.Paused = false // it is over, whatever becomes of the clock
			n.found[target] = note
		}
	}
	return set
}

// publish makes known what is in force. Who waits for the news is told last: what is told by then is obeyed.
func (b *Board) publish(n *notes, next int64, now time.Time) {
	was, set := b.Set(), n.inForce(now)
	different := !maps.Equal(was, set)
	if different || !b.isReady() {
		b.mu.Lock()
		b.state.set = set
		b.mu.Unlock()
		hook(b.config.Hooks.Obey, set)
	}
	for _, change := range changes(was, set, n.found) {
		hook(b.config.Hooks.Changed, change)
	}
	if different {
		b.mu.Lock()
		close(b.changed)
		b.changed = make(chan struct{})
		b.mu.Unlock()
	}
	b.move(func(s *state) { s.next, s.ignored = next, len(n.bad) })
	if !b.isReady() {
		close(b.ready)
	}
}

func (b *Board) isReady() bool {
	select {
	case <-b.ready:
		return true
	default:
		return false
	}
}

func (b *Board) move(change func(*state)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.state)
	close(b.state.moved)
	b.state.moved = make(chan struct{})
}

// changes lists what is new between two looks.
func changes(was, is Set, found map[Target]Note) (list []Change) {
	for target, p := range is {
		old, had := was[target]
		switch {
		case !had:
			list = append(list, Change{Kind: Began, Pause: p, Reason: p.Reason, Actor: p.Actor})
		case old != p:
			list = append(list, Change{Kind: Again, Pause: p, Reason: p.Reason, Actor: p.Actor})
		}
	}
	for target, p := range was {
		if _, still := is[target]; still {
			continue
		}
		// A note that ended by itself is still the one that began it.
		if note, known := found[target]; known && (note.At != p.Since || note.Until != p.Until) {
			list = append(list, Change{Kind: Lifted, Pause: p, Reason: note.Reason, Actor: note.Actor})
			continue
		}
		list = append(list, Change{Kind: Ended, Pause: p})
	}
	slices.SortFunc(list, func(a, b Change) int { return compare(a.Pause.Target, b.Pause.Target) })
	return list
}

func rest(ctx context.Context, d time.Duration) {
	d = min(d, againMax)
	timer := time.NewTimer(d/2 + rand.N(d/2)) //nolint:gosec // spreads retries, protects nothing
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func hook[T any](f func(T), value T) {
	if f != nil {
		f(value)
	}
}
