package deadletter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/transact"
)

const (
	// A command that is killed leaves its transaction open for so long at most; it holds readers of
	// the topics of origin back.
	transactionTimeout = 30 * time.Second
	openTimeout        = 60 * time.Second // the predecessor's transaction may have to be ended first
	produceTimeout     = 10 * time.Second
	endTimeout         = 30 * time.Second
	abortTimeout       = 5 * time.Second
	metadataAge        = 50 * time.Millisecond // how soon the client may ask for metadata again
	concurrentPause    = 5 * time.Millisecond
)

// session is the one transactional producer that settles, and what it knows to be settled. After an
// error it must be closed.
type session struct {
	client  *kgo.Client
	markers *markers
	hooks   hooks
}

// openSession fences every earlier session of the application and then, not before, reads the
// markers. From there on nobody but this session adds any; when somebody else opens one, our next
// transaction does not commit.
func (q *Queue) openSession(ctx context.Context, o *origins) (*session, error) {
	id := q.config.Application + ".redrive"
	client, err := kgo.NewClient(append(slices.Clone(q.config.Client),
		kgo.TransactionalID(id),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), // a record goes back to the partition it came from
		kgo.ProducerBatchMaxBytesFn(o.batchBytesMax),
		kgo.MetadataMinAge(metadataAge),
		kgo.ConcurrentTransactionsBackoff(concurrentPause),
	)...)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	s := &session{client: client, hooks: q.hooks}
	open, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if _, _, err := client.ProducerID(open); err != nil {
		s.close()
		if errors.Is(err, kerr.TransactionalIDAuthorizationFailed) {
			return nil, fmt.Errorf("this user lacks the rights Describe and Write on the transactional id %s: %w", id, err)
		}
		return nil, fmt.Errorf("take over the transactional id %s: %w", id, err)
	}
	topic, err := q.describe(ctx, q.config.Topic)
	if err == nil {
		s.markers, err = q.readMarkers(ctx, topic, q.admin.ListEndOffsets, 0)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *session) close() { s.client.Close() }

// unsent says that brokers refused records; their transaction was not committed.
type unsent struct {
	errs map[*kgo.Record]error
}

func (e *unsent) Error() string {
	for r, err := range e.errs {
		return fmt.Sprintf("write to %s/%d: %v (%d records in all)", r.Topic, r.Partition, err, len(e.errs))
	}
	return "no record refused"
}

func (e *unsent) Unwrap() []error {
	errs := make([]error, 0, len(e.errs))
	for _, err := range e.errs {
		errs = append(errs, err)
	}
	return errs
}

// commit writes records in one transaction and ends it. An error means that it may or may not have
// been committed, unless it is *unsent: then it has not. Work that has begun is not cancelled with
// ctx: that would not undo it, only hide how it ended. The produce calls are bounded by their
// context and not by kgo.RecordDeliveryTimeout, which counts from a record's timestamp: dead letters
// are old.
func (s *session) commit(ctx context.Context, records []*kgo.Record) error {
	ctx = context.WithoutCancel(ctx)
	if err := s.client.BeginTransaction(); err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	var (
		mu      sync.Mutex
		refused = unsent{errs: make(map[*kgo.Record]error)}
		taken   *kgo.Record
	)
	produce, cancel := context.WithTimeout(ctx, produceTimeout)
	defer cancel()
	for _, r := range records {
		once := *r // the client keeps this attempt's context in it, and the record may be sent again
		s.client.Produce(produce, &once, func(sent *kgo.Record, err error) {
			mu.Lock()
			defer mu.Unlock()
			if taken = sent; err != nil {
				refused.errs[r] = err
			}
		})
	}
	if err := s.client.Flush(produce); err != nil {
		s.abort(ctx)
		return fmt.Errorf("write %d records: %w", len(records), err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(refused.errs) > 0 {
		s.abort(ctx)
		return &refused
	}
	if s.hooks.produced != nil {
		s.hooks.produced()
	}
	end, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	if err := transact.Commit(end, s.client, taken.Topic, taken.Partition); err != nil {
		return fmt.Errorf("end transaction: %w", err)
	}
	return nil
}

// abort frees the readers of the topics that were written to. Whether it works decides nothing: the
// session is thrown away, and opening the next one aborts what is still open.
func (s *session) abort(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, abortTimeout)
	defer cancel()
	if s.client.AbortBufferedRecords(ctx) == nil {
		_ = s.client.EndTransaction(ctx, kgo.TryAbort)
	}
}

// fenced tells that another session has taken the transactional id over.
func fenced(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch) ||
		errors.Is(err, kerr.InvalidProducerIDMapping)
}
