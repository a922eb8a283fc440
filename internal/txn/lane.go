package txn

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// lane owns one session at a time and is the only one to touch it.
type lane struct {
	config Config
	number int
	plain  *kgo.Client
	memory suspectStore
	open   func(ctx context.Context, watch watcher) (Session, error)

	transformer *transformer
	builder     *builder
	batch       *batch
	pace        *pace
	bisect      bisect
	fences      fences
	joined      string           // the member id of the newest session that had one
	marks       map[place]marked // written to the control topic for the batch in flight
	aborts      int              // in a row, for the backoff
	failures    int              // of polls in a row, likewise
	bytesEach   int64            // moving average of a record's size
	handled     []Handled        // of the batch in work
	unreadable  unreadable
	story       *story // nil where nobody wants it

	// pausing is held from the look at what is to be paused until the client has been told, which both the lane and the
	// client's own goroutine do: else the older look of the two might be the last to be told.
	pausing sync.Mutex
	paused  map[place]bool // as the client was told last, in this session
	unsure  bool           // the client was told more than that

	mu     sync.Mutex // what follows is written on the client's goroutine too
	tenure *tenure    // of the session that we have; nil between sessions
	ids    map[string][16]byte
	fresh  map[place]fresh // assigned, and nothing committed since
	lost   []map[string][]int32
	// expelled: the group has given this session's member up once.
	expelled bool
	state    LaneStatus
}

// suspectStore outlives the process; memory is the real one.
type suspectStore interface {
	read(ctx context.Context) (map[string]suspect, error)
	write(ctx context.Context, suspects map[string]suspect) error
}

// fresh is a partition from which this owner has not committed yet.
type fresh struct {
	offset int64
	past   suspect // what the control topic knew, if it is about this offset
}

// marked is a note in the control topic with what it replaced.
type marked struct {
	note, past suspect
}

// TwinError ends an engine whose name is in use by another living process.
type TwinError struct {
	Member string
	Err    error
}

func (e *TwinError) Error() string {
	return fmt.Sprintf("%s was taken over %d times within %s: another process runs with the same application and instance name; give each its own (PROCESSOR_INSTANCE): %v",
		e.Member, fencesMax, fencesWithin, e.Err)
}

func (e *TwinError) Unwrap() error { return e.Err }

const (
	backoffMin = 20 * time.Millisecond
	backoffMax = 2 * time.Second
	// rosterTimeout bounds the question who is in the group, and rosterPause lies between two of them.
	rosterTimeout = 5 * time.Second
	rosterPause   = 100 * time.Millisecond
	// controlWriteMax bounds one write to the control topic.
	controlWriteMax = 5 * time.Second
)

func newLane(c Config, number, workers int, plain *kgo.Client, memory suspectStore, sizes map[string]int) *lane {
	l := &lane{
		config: c, number: number, plain: plain, memory: memory,
		transformer: newTransformer(c, sizes, workers), builder: newBuilder(c, sizes),
		batch: newBatch(), pace: newPace(c), story: newStory(c), marks: map[place]marked{},
		ids: map[string][16]byte{}, fresh: map[place]fresh{},
		state: LaneStatus{Lane: number, Phase: PhaseOpening, Since: time.Now(), Partitions: map[string][]int32{}},
	}
	l.open = func(ctx context.Context, watch watcher) (Session, error) {
		return openSession(ctx, c, number, plain, sizes, watch)
	}
	return l
}

// run works until ctx ends, with one session after the other, and returns nil after a clean drain.
func (l *lane) run(ctx context.Context) error {
	defer l.phase(PhaseStopped)
	for tries := 0; !stopping(ctx); tries++ {
		if tries > 0 {
			l.phase(PhaseBackoff)
			if !pause(ctx, jitter(tries)) {
				return nil
			}
		}
		l.phase(PhaseOpening)
		session, err := l.open(ctx, l.begin())
		if err != nil {
			l.forget()
			if stopping(ctx) {
				return nil
			}
			if _, refused := errors.AsType[*optionError](err); refused {
				return err
			}
			if l.fenced(nil, err) >= fencesMax {
				return &TwinError{l.config.member(l.number), err}
			}
			hook2(l.config.Hooks.Retrying, l.number, err)
			continue
		}
		committed := l.pace.lastCommit
		next, why, err := l.work(ctx, session)
		l.unmark(nil)
		if member := session.Member(); member != "" {
			l.joined = member
		}
		session.Close()
		l.forget()
		if l.pace.lastCommit != committed {
			tries = 0 // it did work; this loss is a new one
		}
		switch next {
		case exit:
			return &TwinError{l.config.member(l.number), err}
		case rebuild:
			hook2(l.config.Hooks.Rebuilt, l.number, why)
		case advance, redo: // ctx ended
		}
	}
	return nil
}

// work runs transactions on one session until ctx ends or the session must go.
func (l *lane) work(ctx context.Context, session Session) (verdict, Reason, error) {
	ears := ears{pauses: l.config.Pauses}
	defer ears.close()
	for {
		l.handleLost()
		polling := ears.listen(ctx) // before the look at what is paused
		l.holdBack(session)
		l.phase(PhasePolling)
		if fatal := l.gather(ctx, polling, session); fatal != nil {
			if l.fenced(session, fatal) >= fencesMax {
				return exit, ReasonFenced, fatal
			}
			return rebuild, reasonOf(ending{end: end{err: fatal}}, ReasonGroup), fatal
		}
		if l.batch.empty() {
			if stopping(ctx) {
				return advance, ReasonNone, nil
			}
			continue
		}
		if l.hunt() && len(l.batch.records) > l.bisect.limit {
			// The records came with the news that they are suspects: give them back, take fewer.
			if e := session.End(false); e.err != nil {
				return rebuild, reasonOf(e, ReasonSuspects), e.err
			}
			continue
		}
		next, why, err := l.transact(session)
		switch next {
		case advance:
			l.aborts = 0
		case redo:
			l.aborts++
			l.phase(PhaseBackoff)
			if !pause(ctx, jitter(l.aborts)) {
				return redo, why, nil
			}
		case rebuild, exit:
			return next, why, err
		}
		if stopping(ctx) {
			return advance, ReasonNone, nil
		}
	}
}

// gather polls one batch. It blocks until there is something, then keeps the batch open as long as
// pace says. When ctx ends it returns with what it has: that will be finished, not dropped. So it does when polling
// ends: then there is something to be heard before the next record is asked for.
func (l *lane) gather(ctx, polling context.Context, session Session) (fatal error) {
	b := l.batch
	b.reset()
	limit := l.pace.limit(l.bisect.limit)
	for {
		waitCtx, cancel := polling, context.CancelFunc(func() {})
		if !b.empty() {
			rest, wait := l.pace.wait(time.Now(), b.first, len(b.records), limit, b.bytes, b.behind())
			if wait <= 0 {
				return nil
			}
			if rest > 0 {
				pause(polling, rest)
			}
			waitCtx, cancel = context.WithTimeout(polling, wait-rest)
		}
		fetches := session.Poll(waitCtx, l.ask(limit))
		cancel()
		failed, fatal := l.pollErrors(session, fetches)
		if fatal != nil {
			return fatal
		}
		b.add(fetches, time.Now())
		l.rest(ctx, failed)
		if stopping(polling) {
			return nil
		}
	}
}

// ask is the number of records the next poll may return, so that the batch stays near its limit of
// bytes. What a poll can return is also bounded by what is buffered, fetchBytesMax for each broker.
func (l *lane) ask(limit int) int {
	ask := limit - len(l.batch.records)
	if l.bytesEach > 0 {
		ask = min(ask, int((l.pace.bytesMax()-l.batch.bytes)/l.bytesEach))
	}
	return max(1, ask)
}

// rest keeps the client from asking in a tight loop for what was refused a moment ago: each refusal in
// a row doubles the pause, but not while there are records to work on.
func (l *lane) rest(ctx context.Context, failed bool) {
	switch {
	case !failed:
		l.failures = 0
	case l.batch.empty():
		l.failures++
		pause(ctx, jitter(l.failures))
	default:
		pause(ctx, backoffMin)
	}
}

// pollErrors sorts the errors among what was polled. The fatal one ends the session; failed says that
// something could not be had and will be asked for again.
func (l *lane) pollErrors(session Session, fetches kgo.Fetches) (failed bool, fatal error) {
	fetches.EachError(func(topic string, partition int32, err error) {
		at := place{topic, partition}
		var group *kgo.ErrGroupSession
		switch {
		case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			// ours: a poll that was not to wait longer
		case errors.Is(err, kgo.ErrClientClosed), isFenced(err):
			fatal = err
		case errors.As(err, &group):
			failed = true // the client joins again by itself
			hook2(l.config.Hooks.Retrying, l.number, err)
		case isHalting(err):
			l.halt(session, at, haltStory(at, err))
		case l.unreadable.again(at, err, time.Now()):
			l.halt(session, at, haltStory(at, err))
		default:
			failed = true
			hook2(l.config.Hooks.Retrying, l.number, fmt.Errorf("poll %s/%d: %w", topic, partition, err))
		}
	})
	l.unreadable.read(fetches)
	return failed, fatal
}

// isHalting tells errors of a partition that no waiting will mend and that must not be skipped.
func isHalting(err error) bool {
	var loss *kgo.ErrDataLoss
	var bomb *kgo.ErrDecompressTooLarge
	return errors.As(err, &loss) || errors.As(err, &bomb) || errors.Is(err, kerr.OffsetOutOfRange) ||
		errors.Is(err, kerr.UnknownTopicID) || errors.Is(err, kerr.CorruptMessage)
}

func haltStory(at place, err error) error {
	return fmt.Errorf("%s/%d can't be read on: %w; nothing was skipped; decide where to go on, stop the group, then run: processor offsets set --topic %s --partition %d --to earliest|latest|OFFSET --reason WHY",
		at.topic, at.partition, err, at.topic, at.partition)
}

// transact runs one batch to its end and says what comes next.
func (l *lane) transact(session Session) (verdict, Reason, error) {
	b := l.batch
	hook(l.config.Hooks.Polled, Polled{Lane: l.number, Records: len(b.records), Bytes: b.bytes, Behind: b.behind()})
	l.phase(PhaseWorking)
	begun := time.Now()
	cause, blame, err := l.fill(session)
	l.phase(PhaseEnding)
	ending := time.Now()
	e := session.End(err == nil)
	l.pace.ended(time.Since(ending))
	if e.produce != nil && err == nil {
		cause, err = ReasonProduce, e.produce
		if e.refused {
			cause, blame = ReasonRefused, true
		}
	}
	if e.err != nil {
		l.noteFence(session, e.err)
	} else if e.produce != nil {
		l.noteFence(session, e.produce)
	}
	if errors.Is(e.produce, context.DeadlineExceeded) || errors.Is(e.err, context.DeadlineExceeded) {
		l.pace.overran(len(b.records))
	}
	e.fences = l.fences.count(time.Now())
	next := judge(e.end)
	l.report(next, cause, e, err, begun)
	if next == redo && blame {
		l.accuse(session, cause, err)
	}
	if next == rebuild || next == exit {
		// Promises of the discarded session may still come: its records must not be reused.
		l.builder = newBuilder(l.config, l.transformer.sizes)
		if e.err != nil {
			err = e.err
		}
		return next, reasonOf(e, cause), err
	}
	l.builder.reset()
	return next, cause, err
}

// fill runs the handlers and produces what they asked for. blame says that a record of the batch may
// be the reason of the failure.
func (l *lane) fill(session Session) (cause Reason, blame bool, err error) {
	b := l.batch
	l.story.begin()
	if err := l.mark(); err != nil {
		return ReasonSuspects, false, err
	}
	l.convictDead()
	var took time.Duration
	defer func() { l.tellHandled(took) }()
	source := message.Source{Application: l.config.Application, ReplayGeneration: l.config.ReplayGeneration}
	var route *Route
	for part, err := range l.transformer.run(b.records, l.topicID, l.bisect.poison, l.pace.perRecord) {
		took += part.took
		l.noteHandled(part)
		l.story.saw(part.records)
		switch {
		case errors.Is(err, errSlow):
			l.pace.slow(len(b.records), took)
			return ReasonSlow, false, err
		case err != nil:
			return ReasonHandler, true, err
		}
		for i, r := range part.records {
			if r.Topic != source.Topic {
				source.Topic, source.TopicID = r.Topic, l.topicID(r.Topic)
				route = l.transformer.routes[r.Topic]
			}
			source.Partition, source.Offset = r.Partition, r.Offset
			if err := l.builder.build(r, source, &part.outcomes[i], route.Name, session.Produce); err != nil {
				return ReasonRefused, true, err
			}
		}
	}
	l.story.filled()
	l.pace.handled(len(b.records), took)
	written, bytes := l.builder.made()
	l.pace.wrote(len(b.records), b.bytes, written, bytes)
	if n := int64(len(b.records)); n > 0 {
		l.bytesEach = max(1, (l.bytesEach+b.bytes/n)/2)
	}
	return ReasonNone, false, nil
}

// accuse counts an abort that a record may have caused (rule 7).
func (l *lane) accuse(session Session, cause Reason, err error) {
	if large, ok := errors.AsType[*tooLarge](err); ok {
		l.halt(session, large.at, err)
		return
	}
	b := l.batch
	var only spot
	if len(b.records) == 1 {
		only = spot{place{b.records[0].Topic, b.records[0].Partition}, b.records[0].Offset}
	}
	before := l.bisect.limit
	if l.bisect.aborted(len(b.records), only, b.ends, err) {
		l.halt(session, only.place, fmt.Errorf("%s/%d: the record at offset %d is refused, and so is its dead letter: %w", only.topic, only.partition, only.offset, err))
		return
	}
	if l.bisect.limit != before {
		hook(l.config.Hooks.Suspected, Suspected{Lane: l.number, Records: l.bisect.limit, Why: cause})
	}
}

// report updates what follows from the end of a transaction and tells the hooks.
func (l *lane) report(next verdict, cause Reason, e ending, err error, begun time.Time) {
	b := l.batch
	now := time.Now()
	ended := Ended{
		Lane: l.number, Outcome: Aborted, Reason: reasonOf(e, cause), Records: len(b.records), Bytes: b.bytes,
		Duration: now.Sub(begun), Err: errors.Join(err, e.err), Story: l.story.tell(b, l.builder, now),
	}
	if r := b.oldest; r != nil {
		ended.Oldest = r.Timestamp
		ended.Source = message.Source{Application: l.config.Application, Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}
	}
	switch next {
	case advance:
		ended.Outcome, ended.Reason, ended.Err = Committed, ReasonNone, nil
		l.pace.committed(now)
		l.bisect.committed(b.ends)
		l.settle(b.ends, now)
		for _, p := range l.builder.produced {
			if p.Records > 0 {
				p.Lane = l.number
				hook(l.config.Hooks.Produced, *p)
			}
		}
		for _, rejection := range l.builder.rejects {
			rejection.Lane = l.number
			hook(l.config.Hooks.Rejected, rejection)
		}
	case rebuild:
		if !e.stale || e.err != nil || e.wanted {
			ended.Outcome = Unknown
		}
	case redo, exit:
	}
	hook(l.config.Hooks.Ended, ended)
}

// reasonOf names the cause of a transaction that did not commit.
func reasonOf(e ending, cause Reason) Reason {
	var begin *beginError
	switch {
	case isFenced(e.err), isFenced(e.produce):
		return ReasonFenced
	case errors.As(e.err, &begin):
		return ReasonBegin
	case cause != ReasonNone:
		return cause
	case e.err != nil:
		return ReasonUnknown
	case e.wanted && !e.committed && !e.offsetsEqual:
		return ReasonOffsets
	case e.committed:
		return ReasonNone
	default:
		return ReasonRebalance
	}
}

func (l *lane) fenced(session Session, err error) int {
	l.noteFence(session, err)
	return l.fences.count(time.Now())
}

// noteFence counts a fence, unless it is the end of a session that the group had given up before: then it was another
// process's undertaker, and nobody has our name. session is nil where there is none yet.
func (l *lane) noteFence(session Session, err error) {
	if !isFenced(err) || session != nil && FenceOf(err) != FenceMember && l.thrownOut(session) {
		return
	}
	l.fences.add(time.Now())
	hook2(l.config.Hooks.Fenced, l.number, err)
}

// thrownOut tells whether the group has given this session's member up, and no other has come under our name. Where
// the group can't be asked it is not so.
func (l *lane) thrownOut(session Session) bool {
	ctx, cancel := context.WithTimeout(context.Background(), rosterTimeout)
	defer cancel()
	members, err := l.config.roster(ctx, l.plain)
	if err != nil {
		return false
	}
	member := members[l.config.member(l.number)]
	if member == "" {
		return true
	}
	own := session.Member()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expelled && (own == "" || own == member) // we are back already, or about to be
}

// noteHandled counts a part's records by topic, for tellHandled.
func (l *lane) noteHandled(p part) {
	n := -1
	for i, r := range p.records {
		if n < 0 || l.handled[n].Topic != r.Topic {
			n = slices.IndexFunc(l.handled, func(h Handled) bool { return h.Topic == r.Topic })
		}
		if n < 0 {
			n = len(l.handled)
			l.handled = append(l.handled, Handled{Lane: l.number, Handler: l.transformer.routes[r.Topic].Name, Topic: r.Topic})
		}
		l.handled[n].Records++
		if p.outcomes[i].reject != nil {
			l.handled[n].Rejects++
		}
	}
}

// tellHandled shares the handlers' time of a batch out.
func (l *lane) tellHandled(took time.Duration) {
	records := 0
	for _, h := range l.handled {
		records += h.Records
	}
	for _, h := range l.handled {
		h.Duration = took * time.Duration(h.Records) / time.Duration(records)
		hook(l.config.Hooks.Handled, h)
	}
	l.handled = l.handled[:0]
}

// stopping reports that the order to take no more work has come.
func stopping(ctx context.Context) bool { return ctx.Err() != nil }

func jitter(tries int) time.Duration {
	limit := min(backoffMax, backoffMin<<min(tries, 10))
	return limit/2 + rand.N(limit/2) //nolint:gosec // spreads retries, protects nothing
}

func hook2[A, B any](f func(A, B), a A, b B) {
	if f != nil {
		f(a, b)
	}
}
