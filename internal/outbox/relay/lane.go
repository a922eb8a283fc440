package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"pawl/internal/outbox"
)

const (
	pollMin = time.Second // how often an idle lane asks the ledger, unless it is woken
	pollMax = 10 * time.Second

	// intervalMin is the least time from one transaction to the next while the lane keeps up. A dispatcher flushes some
	// twenty times a second, and a transaction for each flush of a dozen lanes would take a quarter of what an effect costs
	// the process, and brokers as much.
	intervalMin = 100 * time.Millisecond

	// turnEvery is the least time from one transaction to the next of all lanes of a process that keep up. Flushes of many lanes come
	// together, and so would their transactions: brokers and database would have them all at once, and whatever else waits
	// for those, such as the next effects, would wait for a dozen transactions.
	turnEvery = 20 * time.Millisecond

	backoffMin = 100 * time.Millisecond // after a failure
	backoffMax = 10 * time.Second
	haltPause  = 30 * time.Second // what an operator has mended is found without a restart

	// Fenced fencesMax times within fencesWindow, a lane is given up: two owners that open it in turn would
	// do nothing else. The one that was assigned later has been fenced less often and stays.
	fencesMax    = 3
	fencesWindow = time.Minute

	// A lane that was given up and is still assigned is tried again after lostPause: brokers say that somebody
	// else has it for other reasons, too, and then nobody would tell its results. It is given up by the first
	// fence until it has told something, so that the one that does have it is disturbed only once.
	lostPause = 2 * time.Minute
	lostLook  = 15 * time.Second

	scanTimeout = 10 * time.Minute // of reading back what was told
	askTimeout  = 10 * time.Second // of one question to the ledger
	toldEvery   = 10 * time.Second // a hint need not be exact

	// A transaction takes between 1 and flushesMax flushes: more while they are small, fewer when what was
	// read had more than bytesMax. A single flush is never split.
	flushesMax = 64
	flushesMin = 8 // to begin with
	bytesMax   = 4 << 20
)

// lane relays one lane. All but wake and snapshot belong to its goroutine.
type lane struct {
	config Config
	number int32
	turn   int // the assignment that it runs under
	stop   context.CancelFunc
	wake   chan struct{}
	turns  *rate.Limiter // of all lanes
	lost   bool          // given up; read when run has returned

	at       progress
	end      int64 // of the last event on the results topic, 0 where that is not known
	told     told  // nil where the lane has not diverged
	flushes  int   // to ask for
	failures int   // in a row
	fences   []time.Time
	beaten   bool // it was given up, and has told nothing since

	hintAt  time.Time
	hintSeq int64

	mu     sync.Mutex
	status LaneStatus
}

func newLane(config Config, number int32, turn int, turns *rate.Limiter, stop context.CancelFunc) *lane {
	return &lane{
		config: config, number: number, turn: turn, turns: turns, stop: stop, wake: make(chan struct{}, 1), flushes: flushesMin,
		status: LaneStatus{Lane: number, Phase: PhaseOpening, Since: time.Now()},
	}
}

// run ends with ctx, or when the lane is given up.
func (l *lane) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := l.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		halt, halted := errors.AsType[*haltError](err)
		switch {
		case halted:
			if l.fail(PhaseHalted, err) && l.config.Hooks.Halted != nil {
				l.config.Hooks.Halted(l.number, halt)
			}
			wait(ctx, haltPause)
		case isFenced(err):
			if l.fenced(err) {
				return
			}
			wait(ctx, backoffMin)
		default:
			l.retry(ctx, err)
		}
	}
}

// serve opens the lane and relays until something fails.
func (l *lane) serve(ctx context.Context) error {
	l.phase(PhaseOpening)
	producer, err := openProducer(ctx, l.config, l.number)
	if err != nil {
		return err
	}
	defer producer.close()
	for {
		err := l.begin(ctx, producer.client)
		if _, asked := errors.AsType[*askError](err); !asked {
			if err != nil {
				return err
			}
			break
		}
		l.retry(ctx, err) // the ledger failed; the producer is as good as before
		if ctx.Err() != nil {
			return nil
		}
	}
	if l.config.Hooks.Opened != nil {
		l.config.Hooks.Opened(Opened{Lane: l.number, Seq: l.at.Seq})
	}
	idle, full := pollMin, false
	for {
		if !full && l.turns.Wait(ctx) != nil || ctx.Err() != nil {
			return nil
		}
		l.phase(PhaseTelling)
		begun := time.Now()
		results, err := l.read(ctx, producer.client)
		if _, asked := errors.AsType[*askError](err); asked {
			l.retry(ctx, err) // as above
			continue
		}
		switch {
		case err != nil:
			return err
		case len(results) > 0:
			idle = pollMin
			full = l.full(results)
			if err := l.tell(producer, results); err != nil { //nolint:contextcheck // a transaction in hand is finished, whatever ends the lane
				return err
			}
			l.hint(ctx)
			if !full {
				wait(ctx, intervalMin-time.Since(begun))
			}
			continue
		}
		full = false
		l.hint(ctx)
		l.phase(PhaseWaiting)
		if l.rest(ctx, idle) {
			idle = pollMin
		} else {
			idle = min(pollMax, 2*idle)
		}
	}
}

// begin finds out where to go on.
func (l *lane) begin(ctx context.Context, client *kgo.Client) error {
	reading, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	var err error
	if l.at, err = readProgress(reading, client, l.config.ProgressTopic, l.number); err != nil {
		return err
	}
	l.told, l.end = nil, 0
	if l.at.Seq == 0 {
		// A lane that never told anything has an empty results partition. Where it is not empty, the
		// record was lost.
		return l.diverge(ctx, client, "there is no progress record")
	}
	later, err := l.ask(ctx, 1)
	if err != nil {
		return err
	}
	why, err := l.compare(ctx, len(later) > 0)
	if err != nil {
		return err
	}
	if why != "" {
		return l.diverge(ctx, client, why)
	}
	if l.at.Until > 0 { // it has diverged earlier
		l.told, _, l.at.Until, err = l.scan(ctx, client, l.at.From, l.at.Until)
	}
	l.progressed()
	return err
}

// ask reads the outcomes of the next flushes.
func (l *lane) ask(ctx context.Context, flushes int) ([]outbox.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	results, err := l.config.Store.Results(ctx, l.number, l.at.Seq, flushes)
	if err != nil {
		return nil, &askError{fmt.Errorf("read outcomes of lane %d after flush %d: %w", l.number, l.at.Seq, err)}
	}
	return results, nil
}

// compare says how the ledger differs from the progress record, "" where it is the one that was relayed. later tells
// that it has outcomes after that flush.
func (l *lane) compare(ctx context.Context, later bool) (string, error) {
	epoch, offset, found, err := l.flushAt(ctx, l.at.Seq)
	switch {
	case err != nil:
		return "", err
	case !found && later:
		return "", nil // retention has dropped it; the ledger always knows its last flush
	case !found:
		return fmt.Sprintf("the progress record has flush %d, which the ledger does not reach", l.at.Seq), nil
	case epoch != l.at.Epoch || offset != l.at.Offset:
		return fmt.Sprintf("flush %d has epoch %d and last offset %d in the progress record, %d and %d in the ledger", l.at.Seq, l.at.Epoch, l.at.Offset, epoch, offset), nil
	default:
		return "", nil
	}
}

func (l *lane) flushAt(ctx context.Context, seq int64) (epoch, offset int64, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if epoch, offset, found, err = l.config.Store.FlushAt(ctx, l.number, seq); err != nil {
		err = &askError{fmt.Errorf("look up flush %d of lane %d: %w", seq, l.number, err)}
	}
	return epoch, offset, found, err
}

// common gives the newest flush of the trail that the ledger still has, as the progress to go on from; zero where
// it has none. The trail matters: the oldest flushes of a ledger can be about effects that retention has dropped,
// and to go through all of them takes hours.
func (l *lane) common(ctx context.Context) (progress, error) {
	for i, a := range l.at.Trail {
		epoch, offset, found, err := l.flushAt(ctx, a.seq())
		if err != nil {
			return progress{}, err
		}
		if found && epoch == a.epoch() && offset == a.offset() {
			return progress{Seq: a.seq(), Epoch: epoch, Offset: offset, From: a.results(), Trail: l.at.Trail[i+1:]}, nil
		}
	}
	return progress{}, nil
}

// diverge goes back to the last flush that the ledger has in common with the one that was relayed, and remembers what
// has been told since. Nothing is written here: a process that dies before the next commit finds the same again.
func (l *lane) diverge(ctx context.Context, client *kgo.Client, why string) error {
	base, err := l.common(ctx)
	if err != nil {
		return err
	}
	if l.at.Until > 0 { // it has diverged before, and that is not over
		base.From = min(base.From, l.at.From)
	}
	found, events, until, err := l.scan(ctx, client, base.From, 0)
	if err != nil {
		return err
	}
	had := l.at.Seq
	base.Until = until
	l.at, l.told, l.end = base, found, 0
	if l.config.Hooks.Diverged != nil && (events > 0 || had > 0) {
		l.config.Hooks.Diverged(Diverged{Lane: l.number, Seq: had, Common: base.Seq, Why: why, Told: events, Until: until})
	}
	l.progressed()
	return nil
}

func (l *lane) scan(ctx context.Context, client *kgo.Client, from, until int64) (told, int, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	return readTold(ctx, client, l.config.ResultsTopic, l.number, from, until)
}

// read asks the ledger for the next outcomes. It may find that the ledger is another one now: then it goes back,
// and the caller asks again.
//
// The ledger is compared after the outcomes were read, on every turn. Without that: we have told up to
// flush 150, the ledger is restored to flush 100 while we run, its new flushes 101 to 150 come and are passed
// over. In this order: what was read before the restore is compared after it and thrown away.
func (l *lane) read(ctx context.Context, client *kgo.Client) ([]outbox.Result, error) {
	for {
		results, err := l.ask(ctx, l.flushes)
		if err != nil || l.at.Seq == 0 {
			return results, err
		}
		why, err := l.compare(ctx, len(results) > 0)
		if err != nil || why == "" {
			return results, err
		}
		if err := l.diverge(ctx, client, why); err != nil {
			return nil, err
		}
	}
}

// tell writes the events of whole flushes and the progress in one transaction. Outcomes that were told
// before the lane diverged are left out, but the progress moves over them.
func (l *lane) tell(producer *producer, results []outbox.Result) error {
	begun := time.Now()
	last := results[len(results)-1]
	next := progress{Seq: last.Seq, Epoch: last.Epoch, Offset: last.Outcome.Offset, From: l.at.From, Until: l.at.Until, Trail: l.trail(last.Seq)}
	relayed := Relayed{Lane: l.number, Seq: last.Seq}
	records := make([]*kgo.Record, 0, len(results)+1)
	for _, r := range results {
		if l.told.has(r.Outcome) {
			relayed.Skipped++
			continue
		}
		made, trimmed, err := record(l.config.ResultsTopic, producer.limit, r)
		if err != nil {
			return err
		}
		if trimmed != nil && l.config.Hooks.Trimmed != nil {
			l.config.Hooks.Trimmed(*trimmed)
		}
		records = append(records, made)
		relayed.Events++
		relayed.Bytes += int64(len(made.Key) + len(made.Value))
	}
	mark, err := next.record(l.config.ProgressTopic, l.number)
	if err != nil {
		return err
	}
	if err := producer.tell(append(records, mark)); err != nil {
		return fmt.Errorf("relay lane %d: %w", l.number, err)
	}
	l.at = next
	if relayed.Events > 0 {
		l.end = records[relayed.Events-1].Offset + 1
	}
	l.failures, l.beaten = 0, false
	l.resize(results, relayed.Bytes)
	l.committed(relayed)
	relayed.Took, relayed.Results = time.Since(begun), results
	if l.config.Hooks.Relayed != nil {
		l.config.Hooks.Relayed(relayed)
	}
	return nil
}

// trail is what the next progress record, of flush seq, says of those before it.
func (l *lane) trail(seq int64) []anchor {
	if l.at.Seq == 0 {
		return nil
	}
	end := l.end
	if end == 0 && len(l.at.Trail) > 0 { // not known since the lane was opened; earlier does no harm
		end = l.at.Trail[0].results()
	}
	return extend(l.at.Trail, anchor{l.at.Seq, l.at.Epoch, l.at.Offset, end}, seq)
}

// full reports that there are probably more results than were asked for.
func (l *lane) full(results []outbox.Result) bool {
	return results[len(results)-1].Seq-results[0].Seq+1 >= int64(l.flushes)
}

// resize adapts how many flushes are read at once to how large they are.
func (l *lane) resize(results []outbox.Result, bytes int64) {
	switch {
	case bytes > bytesMax:
		l.flushes = max(1, l.flushes/2)
	case bytes < bytesMax/4 && l.full(results):
		l.flushes = min(flushesMax, 2*l.flushes)
	}
}

// hint tells the ledger how far the lane is, now and then. It failing is no matter.
func (l *lane) hint(ctx context.Context) {
	if l.config.Tenure == nil || l.at.Seq == l.hintSeq || time.Since(l.hintAt) < toldEvery {
		return
	}
	tenure, ok := l.config.Tenure(l.number)
	if !ok {
		return
	}
	l.hintAt = time.Now()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := l.config.Store.Told(ctx, tenure, l.at.Seq); err == nil {
		l.hintSeq = l.at.Seq
	}
}

// askError says that the ledger did not answer.
type askError struct{ err error }

func (e *askError) Error() string { return e.err.Error() }
func (e *askError) Unwrap() error { return e.err }

// fenced counts, and gives the lane up where it is too much.
func (l *lane) fenced(err error) bool {
	now := time.Now()
	l.fences = append(slices.DeleteFunc(l.fences, func(t time.Time) bool { return now.Sub(t) > fencesWindow }), now)
	l.fail(PhaseBackoff, err)
	if l.config.Hooks.Fenced != nil {
		l.config.Hooks.Fenced(l.number, err)
	}
	if len(l.fences) < fencesMax && !l.beaten {
		return false
	}
	l.lost = true
	if l.config.Hooks.GaveUp != nil {
		l.config.Hooks.GaveUp(l.number)
	}
	return true
}

// retry tells of a failure and waits, longer each time, and never for exactly as long as another lane.
func (l *lane) retry(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	l.fail(PhaseBackoff, err)
	if l.config.Hooks.Retrying != nil {
		l.config.Hooks.Retrying(l.number, err)
	}
	pause := min(backoffMax, backoffMin<<min(l.failures, 10))
	l.failures++
	wait(ctx, pause/2+rand.N(pause/2+1)) //nolint:gosec // spreads load, guards nothing
}

// wait waits for d or the end of ctx. What wakes a lane must not cut its backoff short.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// rest waits for d and returns false, or true as soon as the lane is woken or ctx ends.
func (l *lane) rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return true
	case <-l.wake:
		return true
	case <-timer.C:
		return false
	}
}

func (l *lane) snapshot() LaneStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

func (l *lane) phase(phase Phase) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.status.Phase != phase {
		l.status.Phase, l.status.Since = phase, time.Now()
	}
}

// fail notes a failure and reports whether it is another one than the last.
func (l *lane) fail(phase Phase, err error) bool {
	l.phase(phase)
	l.mu.Lock()
	defer l.mu.Unlock()
	fresh := l.status.Error != err.Error()
	l.status.Error = err.Error()
	return fresh
}

func (l *lane) progressed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.Seq, l.status.Diverged = l.at.Seq, l.at.Until > 0
}

func (l *lane) committed(relayed Relayed) {
	l.progressed()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.Events += int64(relayed.Events)
	l.status.Skipped += int64(relayed.Skipped)
	l.status.LastCommit, l.status.Error = time.Now(), ""
}
