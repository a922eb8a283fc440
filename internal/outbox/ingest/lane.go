package ingest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/committed"
	"pawl/internal/failpoint"
	"pawl/internal/outbox"
)

// Limits of a lane.
const (
	storeTimeout   = 10 * time.Second // of one question to the ledger
	backoffMin     = 100 * time.Millisecond
	backoffMax     = 5 * time.Second
	overtakenMin   = 2 * time.Millisecond
	overtakenMax   = time.Second
	fetchMaxWait   = 500 * time.Millisecond
	unpackBytesMax = 64 << 20
	metadataMinAge = 50 * time.Millisecond // the default stalls a lane for seconds when a leader moves

	// A ledger that was restored from a backup is found out by the next Append. On an idle lane there
	// is none, so that it is asked now and then.
	askAfter = 30 * time.Second
)

// lane ingests one partition of the effects topic.
type lane struct {
	config Config
	reader *reader
	number int32
	cancel context.CancelFunc
	done   chan struct{}

	position position
	filter   committed.Filter
	asked    time.Time // when the ledger has last said where it stands
	failures int       // since the ledger or the topic has last been of use
	overtook int       // times in a row that somebody was faster

	mu     sync.Mutex
	status Status
}

func newLane(c Config, r *reader, number int32, cancel context.CancelFunc) *lane {
	return &lane{
		config: c, reader: r, number: number, cancel: cancel, done: make(chan struct{}),
		status: Status{Lane: number, State: Starting, Next: -1, Since: time.Now()},
	}
}

// run ingests until ctx ends.
func (l *lane) run(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	hooks := l.config.Hooks
	hook1(hooks.Assigned, l.number)
	defer hook1(hooks.Revoked, l.number)
	for ctx.Err() == nil {
		err := l.session(ctx)
		halted := (*haltError)(nil)
		switch {
		case ctx.Err() != nil || errors.Is(err, errAgain):
		case errors.As(err, &halted):
			l.be(Halted, err)
			hook(hooks.Halted, l.number, err)
			<-ctx.Done()
		default:
			l.retry(ctx, err)
		}
	}
}

// errAgain ends a session that must begin anew from where the ledger stands.
var errAgain = errors.New("the ledger stands elsewhere")

// retry reports what failed and waits.
func (l *lane) retry(ctx context.Context, err error) {
	l.be(Retrying, err)
	hook(l.config.Hooks.Retrying, l.number, err)
	pause(ctx, spread(backoffMin, backoffMax, l.failures))
	l.failures++
}

// session reads from where the ledger stands until something is wrong with the topic, or the ledger
// goes back.
func (l *lane) session(ctx context.Context) error {
	head, err := l.head(ctx)
	if err != nil {
		return err
	}
	l.position = position{}
	l.position.at(head)
	l.filter.Restart()
	l.reached(-1)
	if err := l.start(ctx, l.reader.client, head); err != nil {
		return err
	}
	l.be(Reading, nil)
	feed := l.reader.open(l.number, head.Next)
	defer func() { feed.close() }()
	for {
		records, err := l.poll(ctx, feed)
		if err == nil && time.Since(l.asked) >= askAfter {
			err = l.verify(ctx)
		}
		if err != nil {
			return err
		}
		if err := l.take(ctx, records); err != nil {
			return err
		}
		if from, again := l.filter.Again(); again {
			feed.close()
			feed = l.reader.open(l.number, from)
		}
	}
}

// reader is a client that reads what it is told to: in a fetch so many bytes at most, and so many of a lane.
func (c Config) reader(all, lane int32) []kgo.Opt {
	return append(slices.Clone(c.Client),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // they decide, and the position passes them, else a lane would seem behind for ever
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.FetchMaxWait(fetchMaxWait),
		kgo.FetchMaxBytes(all),
		kgo.FetchMaxPartitionBytes(lane),
		kgo.MaxDecompressBatchBytes(unpackBytesMax),
	)
}

// start holds the ledger against the topic, and begins the chain of a lane that has none.
func (l *lane) start(ctx context.Context, client *kgo.Client, head outbox.Head) error {
	found, err := ask(ctx, client, l.config.Topic, l.number)
	if err != nil {
		return err
	}
	if !head.Known && l.config.Results != "" {
		if found.lost, err = l.lost(ctx, client); err != nil {
			return err
		}
	}
	if err := judge(l.config.Topic, l.config.Lanes, head, found); err != nil || head.Known {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	switch err := l.config.Store.Seed(ctx, l.number, found.topicID, 0); {
	case errors.Is(err, outbox.ErrOvertaken):
		return errAgain
	case err != nil:
		return fmt.Errorf("begin lane %d in the ledger: %w", l.number, err)
	}
	l.position.topicID = found.topicID
	return nil
}

// lost reports that a lane which the ledger does not know was known to another one. A lane of which nothing was told is
// that if no lane is known: what has been begun anew was begun on purpose, or just now by another process.
func (l *lane) lost(ctx context.Context, client *kgo.Client) (bool, error) {
	own, others, err := toldOf(ctx, client, l.config.Results, l.number)
	if err != nil || own || !others {
		return own, err
	}
	for other := range int32(l.config.Lanes) { //nolint:gosec // far fewer than 2^31
		ctx, cancel := context.WithTimeout(ctx, storeTimeout)
		head, err := l.config.Store.Head(ctx, other)
		cancel()
		if err != nil {
			return false, fmt.Errorf("ask the ledger whether it knows lane %d: %w", other, err)
		}
		if head.Known {
			return false, nil
		}
	}
	return true, nil
}

// verify asks whether the ledger still stands where it did.
func (l *lane) verify(ctx context.Context) error {
	head, err := l.head(ctx)
	switch {
	case err != nil:
		return err
	case l.wentBack(head):
		hook1(l.config.Hooks.Overtaken, l.number)
		return errAgain
	}
	l.position.at(head)
	return nil
}

// wentBack reports that the ledger lacks what it had: it was restored or rebuilt.
func (l *lane) wentBack(head outbox.Head) bool {
	return !head.Known || head.TopicID != l.position.topicID || head.Next < l.position.base
}

// poll waits for records, at most until the ledger must be asked or told something. Whatever error it
// gives, nothing that came with it has been taken.
func (l *lane) poll(ctx context.Context, from *feed) ([]*kgo.Record, error) {
	until := l.asked.Add(askAfter)
	if p := &l.position; p.read > p.base && p.since.Add(foldAfter).Before(until) {
		until = p.since.Add(foldAfter)
	}
	wait, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	portions := from.take(wait)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var records []*kgo.Record
	end := int64(-1)
	for _, p := range portions {
		switch {
		case p.Err != nil:
			return nil, l.failure(p.Err)
		case len(p.Records) > 0 && p.topicID != l.position.topicID:
			return nil, fmt.Errorf("read %s/%d: the records are of the topic with id %x", l.config.Topic, l.number, p.topicID)
		}
		records = append(records, p.Records...)
		end = max(end, p.LastStableOffset)
	}
	if end >= 0 {
		l.failures = 0
		l.reached(end)
	}
	return l.decided(records), nil
}

// decided gives what the markers say is committed of all that was read, in the order of offsets.
func (l *lane) decided(records []*kgo.Record) []*kgo.Record {
	before := l.filter.Unlisted()
	records = l.filter.Add(records)
	if n := l.filter.Unlisted() - before; n > 0 {
		hook(l.config.Hooks.Unlisted, l.number, n)
	}
	return records
}

// failure sorts errors of the client. Most of those that it reports it won't mend, but the next
// session begins with what ledger and brokers say, and judges that.
func (l *lane) failure(err error) error {
	var loss *kgo.ErrDataLoss
	var bomb *kgo.ErrDecompressTooLarge
	switch {
	case errors.As(err, &loss):
		return halt("%s/%d has lost records that may have been ingested: %w; effects that took their places would be skipped or sent out of turn; see that unclean.leader.election.enable is false, then begin a new ledger: `processor ledger rebuild --help` says how",
			l.config.Topic, l.number, err)
	case errors.As(err, &bomb):
		return halt("%s/%d can't be read on: %w; only Pawl writes there, and no batch of its is that large: see who else may write", l.config.Topic, l.number, err)
	}
	return fmt.Errorf("read %s/%d: %w", l.config.Topic, l.number, err)
}

// take brings records into the ledger, in as many batches as it takes.
func (l *lane) take(ctx context.Context, records []*kgo.Record) error {
	for {
		b, rest, broken := l.position.build(l.number, records, l.config.BatchMax, l.config.BytesMax)
		if len(b.Intents) == 0 {
			l.position.pass(b, time.Now())
			if broken != nil {
				return halt("lane %d of %s: %w; it was not skipped, and nothing after it is ingested", l.number, l.config.Topic, broken)
			}
			if !l.position.due(time.Now()) {
				return nil
			}
		}
		added, err := l.add(ctx, &b)
		switch {
		case err != nil:
			return err
		case added:
			records = rest
			l.overtook = 0
		default: // from where the other one got to
			pause(ctx, spread(overtakenMin, overtakenMax, l.overtook))
			l.overtook++
		}
		if len(records) == 0 {
			return nil
		}
	}
}

// add appends a batch and does not give up before it knows what became of it. It reports false when
// the ledger stands elsewhere; then the position is there too.
func (l *lane) add(ctx context.Context, b *outbox.Batch) (bool, error) {
	for failed := false; ; failed = true {
		err := l.append(ctx, b)
		if err == nil {
			l.recovered(failed)
			l.position.added(*b)
			l.asked = time.Now()
			l.reached(-1)
			failpoint.Hit("ingest.appended")
			hook1(l.config.Hooks.Ingested, *b)
			return true, nil
		}
		overtaken := errors.Is(err, outbox.ErrOvertaken)
		if !overtaken {
			l.retry(ctx, fmt.Errorf("ingest %s/%d from %d to %d: %w", l.config.Topic, l.number, b.Base, b.Next, err))
		}
		head, err := l.ledger(ctx)
		switch {
		case err != nil:
			return false, err
		case l.wentBack(head):
			hook1(l.config.Hooks.Overtaken, l.number)
			return false, errAgain
		case !overtaken && head.Next == b.Base:
			continue
		case !overtaken && head.Next == b.Next:
			// It was our batch or one just like it. Its Twins are not known, so that it can't be handed on.
			l.recovered(true)
			l.position.read = b.Next
			l.position.at(head)
			l.reached(-1)
			hook(l.config.Hooks.Landed, l.number, head.Next)
			return true, nil
		default:
			l.recovered(failed || !overtaken)
			hook1(l.config.Hooks.Overtaken, l.number)
			l.position.at(head)
			l.reached(-1)
			return false, nil
		}
	}
}

// append is not cancelled by the order to stop: that would not undo it, only hide what became of it.
func (l *lane) append(ctx context.Context, b *outbox.Batch) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	failpoint.Hit("ingest.fetched")
	return l.config.Store.Append(ctx, b)
}

// ledger asks where the ledger stands until it answers or ctx ends.
func (l *lane) ledger(ctx context.Context) (outbox.Head, error) {
	for ctx.Err() == nil {
		head, err := l.head(ctx)
		if err == nil {
			return head, nil
		}
		l.retry(ctx, err)
	}
	return outbox.Head{}, ctx.Err()
}

func (l *lane) head(ctx context.Context) (outbox.Head, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	head, err := l.config.Store.Head(ctx, l.number)
	if err != nil {
		return head, fmt.Errorf("ask the ledger where lane %d stands: %w", l.number, err)
	}
	l.asked = time.Now()
	return head, nil
}

// recovered ends a time of retries.
func (l *lane) recovered(failed bool) {
	l.failures = 0
	if failed {
		l.be(Reading, nil)
	}
}

func (l *lane) be(state State, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.status.State != state {
		l.status.Since = time.Now()
	}
	l.status.State, l.status.Err = state, err
}

// reached updates the offsets of the status; end is -1 where nothing is known of it.
func (l *lane) reached(end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.Next = l.position.read
	if end >= 0 {
		l.status.End = end
	}
	l.status.End = max(l.status.End, l.position.read)
}

// sawEnd takes an answer that may be older than the last fetch.
func (l *lane) sawEnd(end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.End = max(l.status.End, end)
}

func (l *lane) snapshot() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// spread doubles a wait with every try up to a limit, and takes a random part of the upper half.
func spread(first, limit time.Duration, tries int) time.Duration {
	wait := min(limit, first<<min(tries, 20))
	return wait/2 + rand.N(wait/2) //nolint:gosec // spreads retries, protects nothing
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// hook1 calls an optional hook.
func hook1[A any](f func(A), a A) {
	if f != nil {
		f(a)
	}
}
