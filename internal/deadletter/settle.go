package deadletter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Options are what redriving and discarding have in common.
type Options struct {
	Filter   Filter
	Max      int           // letters to settle at most; 0 is all
	DryRun   bool          // look and count, write nothing, fence nobody
	Progress func(Summary) // after each transaction, on the caller's goroutine; may be nil
}

// RedriveOptions say which letters go back, and how.
type RedriveOptions struct {
	Options
	RedrivesMax int  // a letter that has been redriven so often is refused
	Restamp     bool // give records the time of the redrive; their own may be past their topic's retention
	Recreated   bool // write to a topic of the same name that is not the one they came from
}

// DiscardOptions say which letters are given up.
type DiscardOptions struct {
	Options
	Reason string // in the operator's words; stands in the marker
}

// Summary is what a run has done so far, or would do.
type Summary struct {
	// Settled counts letters that were redriven or discarded, or under DryRun would be. Where another
	// run takes over for a moment, a transaction of letters may be counted by both.
	Settled  int
	Refused  map[Cause]int // could not be redriven, and stay open
	Refusals []Refusal     // the first of them
}

const (
	refusalsMax = 100 // told in full; the rest is counted
	attemptsMax = 5   // of one transaction whose failure is not the fault of a record
	attemptWait = 250 * time.Millisecond
)

// Redrive writes the letters that the filter selects back to the topics and partitions they came
// from, each once, however often it is cut off and called again. A letter that cannot go back is
// refused, stays open and does not stop the others. On an error the summary tells what is known to
// be done.
func (q *Queue) Redrive(ctx context.Context, options RedriveOptions) (Summary, error) {
	facts := &origins{known: make(map[string]*origin)}
	r := &run{queue: q, options: options.Options, origins: facts, state: StateRedriven}
	r.plan = func(ctx context.Context, l *Letter) (*kgo.Record, *Refusal, error) {
		var record *kgo.Record
		if l.Unreadable == nil {
			record = l.restore(options.Restamp)
		}
		refusal, err := q.check(ctx, facts, l, record, &options)
		return record, refusal, err
	}
	if err := r.run(ctx); err != nil {
		return r.summary, fmt.Errorf("redrive: %w", err)
	}
	return r.summary, nil
}

// Discard gives up the letters that the filter selects. They stay readable until Purge.
func (q *Queue) Discard(ctx context.Context, options DiscardOptions) (Summary, error) {
	r := &run{
		queue: q, options: options.Options, origins: &origins{known: make(map[string]*origin)},
		state: StateDiscarded, reason: options.Reason,
		plan: func(context.Context, *Letter) (*kgo.Record, *Refusal, error) { return nil, nil, nil },
	}
	if err := r.run(ctx); err != nil {
		return r.summary, fmt.Errorf("discard: %w", err)
	}
	return r.summary, nil
}

// run settles letters in transactions of bounded size.
type run struct {
	queue   *Queue
	options Options
	origins *origins
	state   State  // that letters get
	reason  string // of a discard
	// plan gives the record to write beside the marker, if any, or why the letter can't be settled.
	plan func(context.Context, *Letter) (*kgo.Record, *Refusal, error)

	session *session // nil under DryRun
	batch   []item
	bytes   int
	summary Summary
}

// item is one letter of the transaction in hand.
type item struct {
	letter Position
	record *kgo.Record // nil when discarding
	marker *kgo.Record
}

var errEnough = errors.New("as many as were asked for")

func (r *run) run(ctx context.Context) error {
	r.summary.Refused = make(map[Cause]int)
	topic, err := r.queue.describe(ctx, r.queue.config.Topic)
	if err != nil {
		return err
	}
	var known *markers
	if r.options.DryRun {
		known, err = r.queue.readMarkers(ctx, topic, r.queue.admin.ListCommittedOffsets, 0)
	} else if r.session, err = r.queue.openSession(ctx, r.origins); err == nil {
		defer func() {
			if r.session != nil {
				r.session.close()
			}
		}()
	}
	if err != nil {
		return err
	}
	// Letters are judged by the markers of the session that is open when they are met. While it can
	// commit at all, nobody else settles anything. After a failure the next session has read markers
	// that others may have written in between: to judge by the first session's would double those.
	state := func(partition int32, offset int64) State {
		if r.session != nil {
			known = r.session.markers
		}
		return known.state(partition, offset)
	}
	err = r.queue.each(ctx, topic, r.options.Filter, state, func(l Letter) error { return r.take(ctx, &l) })
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	return r.flush(ctx)
}

// take adds one letter to the transaction in hand, and ends that when it is full.
func (r *run) take(ctx context.Context, l *Letter) error {
	if r.options.Max > 0 && r.summary.Settled+len(r.batch) >= r.options.Max {
		return errEnough
	}
	if l.State != StateOpen {
		return nil
	}
	record, refusal, err := r.plan(ctx, l)
	if err != nil {
		return err
	}
	if refusal != nil {
		r.refuse(*refusal)
		return nil
	}
	if r.options.DryRun {
		r.summary.Settled++
		return nil
	}
	marker, err := r.session.markers.record(r.queue.config.ControlTopic, l.Position(), r.state, r.reason)
	if err != nil {
		return err
	}
	bytes := size(marker)
	if record != nil {
		bytes += size(record)
	}
	if len(r.batch) > 0 && r.bytes+bytes > r.queue.bytesMax {
		if err := r.flush(ctx); err != nil {
			return err
		}
	}
	r.batch = append(r.batch, item{letter: l.Position(), record: record, marker: marker})
	r.bytes += bytes
	if len(r.batch) >= r.queue.recordsMax {
		return r.flush(ctx)
	}
	return nil
}

func (r *run) refuse(refusal Refusal) {
	r.summary.Refused[refusal.Cause]++
	if len(r.summary.Refusals) < refusalsMax {
		r.summary.Refusals = append(r.summary.Refusals, refusal)
	}
}

// flush ends the transaction in hand, whatever it takes within attemptsMax: every failure throws the
// session away, opens the next one, which resolves how the last one ended, and goes on with what the
// markers say is still open.
func (r *run) flush(ctx context.Context) error {
	for attempt := 0; len(r.batch) > 0; {
		err := r.session.commit(ctx, r.records())
		if err == nil {
			r.settled(len(r.batch))
			r.batch, r.bytes = r.batch[:0], 0
			break
		}
		if fenced(err) {
			return fmt.Errorf("%w: %w", ErrFenced, err)
		}
		if r.markersDenied(err) {
			return fmt.Errorf("this user lacks the right Write on the control topic %s: %w", r.queue.config.ControlTopic, err)
		}
		if !r.refuseUnsent(err) {
			if attempt++; attempt >= attemptsMax {
				return fmt.Errorf("gave up after %d attempts, run the command again: %w", attempt, err)
			}
			if err := pause(ctx, r.queue.attemptWait<<attempt); err != nil {
				return err
			}
		}
		if err := r.reopen(ctx); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (r *run) records() []*kgo.Record {
	records := make([]*kgo.Record, 0, 2*len(r.batch))
	for _, item := range r.batch {
		if item.record != nil {
			records = append(records, item.record)
		}
		records = append(records, item.marker)
	}
	return records
}

func (r *run) settled(n int) {
	r.summary.Settled += n
	if n > 0 && r.options.Progress != nil {
		told := r.summary
		told.Refused = maps.Clone(told.Refused)
		r.options.Progress(told)
	}
}

// refuseUnsent takes the letters out of the batch whose records a broker refused for their own sake.
// It returns whether there were any: then trying again without them is no repetition.
func (r *run) refuseUnsent(err error) bool {
	var unsent *unsent
	if !errors.As(err, &unsent) {
		return false
	}
	kept := r.batch[:0]
	for _, item := range r.batch {
		err, failed := unsent.errs[item.record]
		cause, its := judgeProduce(err)
		if item.record == nil || !failed || !its {
			kept = append(kept, item)
			continue
		}
		r.refuse(Refusal{Letter: item.letter, Cause: cause, Err: fmt.Errorf("%s refuses it: %w", item.record.Topic, err)})
	}
	refused := len(kept) < len(r.batch)
	r.batch = kept
	return refused
}

func (r *run) markersDenied(err error) bool {
	var unsent *unsent
	if !errors.As(err, &unsent) {
		return false
	}
	for record, err := range unsent.errs {
		if record.Topic == r.queue.config.ControlTopic && errors.Is(err, kerr.TopicAuthorizationFailed) {
			return true
		}
	}
	return false
}

// reopen replaces the session and leaves in the batch what the new one sees to be open.
func (r *run) reopen(ctx context.Context) error {
	r.session.close()
	r.session = nil
	r.origins.forget()
	next, err := r.queue.openSession(ctx, r.origins)
	if err != nil {
		return fmt.Errorf("find out how the last transaction ended: %w", err)
	}
	r.session = next
	open := r.batch[:0]
	for _, item := range r.batch {
		if next.markers.state(item.letter.Partition, item.letter.Offset) == StateOpen {
			open = append(open, item)
		}
	}
	done := len(r.batch) - len(open)
	r.batch = open
	r.settled(done)
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
