package relay

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/failpoint"
	"pawl/internal/transact"
)

const (
	// The transaction is ended long before the broker would end it: produce and end together take less
	// than half of its timeout.
	transactionTimeout = time.Minute
	produceTimeout     = 10 * time.Second
	endTimeout         = 10 * time.Second
	abortTimeout       = 5 * time.Second

	openTimeout           = 20 * time.Second
	metadataMinAge        = 50 * time.Millisecond
	concurrentTxnsBackoff = 2 * time.Millisecond
	retryBackoffMin       = 5 * time.Millisecond
	retryBackoffMax       = time.Second

	// sizeDefault is Kafka's default of max.message.bytes, used where we may not read the setting.
	sizeDefault = 1<<20 + 12
)

// producer is a lane's transactional producer. After an error of tell the only legal call is close.
type producer struct {
	client *kgo.Client
	limit  int // bytes of the largest record that the results topic takes
}

// openProducer locks the predecessor of the same name out and returns when its transaction has ended: the
// broker answers CONCURRENT_TRANSACTIONS as long as markers are still to be written, and the client asks again.
func openProducer(ctx context.Context, c Config, lane int32) (*producer, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	id := c.transactionalID(lane)
	p := &producer{limit: sizeDefault}
	var mu sync.Mutex // the client asks on goroutines of its own
	client, err := kgo.NewClient(append(append([]kgo.Opt(nil), c.Client...),
		kgo.ClientID(id),
		kgo.TransactionalID(id),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.ConcurrentTransactionsBackoff(concurrentTxnsBackoff),
		kgo.RetryBackoffFn(func(tries int) time.Duration {
			return min(retryBackoffMax, retryBackoffMin<<min(tries-1, 10))
		}),
		kgo.ProducerBatchMaxBytesFn(func(topic string) int32 {
			mu.Lock()
			defer mu.Unlock()
			if topic == c.ResultsTopic {
				return int32(p.limit) //nolint:gosec // it came from a broker as an int32
			}
			return sizeDefault
		}),
	)...)
	if err != nil {
		return nil, fmt.Errorf("open producer %s: %w", id, err)
	}
	p.client = client
	if _, _, err := client.ProducerID(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("open producer %s: load producer id: %w", id, err)
	}
	limit, err := sizeLimit(ctx, client, c.ResultsTopic)
	if err != nil {
		client.Close()
		return nil, err
	}
	mu.Lock()
	defer mu.Unlock()
	p.limit = limit
	return p, nil
}

// sizeLimit looks up the largest record that a topic takes.
func sizeLimit(ctx context.Context, client *kgo.Client, topic string) (int, error) {
	configs, err := kadm.NewClient(client).DescribeTopicConfigs(ctx, topic)
	if err != nil {
		if _, forbidden := errors.AsType[*kadm.AuthError](err); forbidden {
			return sizeDefault, nil
		}
		return 0, fmt.Errorf("look up max.message.bytes of %s: %w", topic, err)
	}
	for _, config := range configs {
		for _, setting := range config.Configs {
			if setting.Key != "max.message.bytes" || config.Err != nil {
				continue
			}
			if size, err := strconv.Atoi(setting.MaybeValue()); err == nil {
				return size, nil
			}
		}
	}
	return sizeDefault, nil
}

// tell writes records in one transaction. It commits only if every one of them was taken. After an error
// nobody knows whether they are there. Neither the produce nor the end is ever cancelled from outside:
// that would undo nothing and only hide the outcome.
func (p *producer) tell(records []*kgo.Record) error {
	if err := p.client.BeginTransaction(); err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	failpoint.Hit("relay.produce")
	if err := p.produce(records); err != nil {
		p.abort()
		return err
	}
	failpoint.Hit("relay.produced")
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	if err := transact.Commit(ctx, p.client, records[0].Topic, records[0].Partition); err != nil {
		return fmt.Errorf("end transaction: %w", err)
	}
	failpoint.Hit("relay.ended")
	return nil
}

func (p *producer) produce(records []*kgo.Record) error {
	ctx, cancel := context.WithTimeout(context.Background(), produceTimeout)
	defer cancel()
	var mu sync.Mutex
	var failure error
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if failure == nil {
			failure = err
		}
	}
	for _, record := range records {
		p.client.Produce(ctx, record, func(r *kgo.Record, err error) {
			if err != nil {
				fail(fmt.Errorf("produce to %s/%d: %w", r.Topic, r.Partition, err))
			}
		})
	}
	if err := p.client.Flush(ctx); err != nil {
		fail(fmt.Errorf("produce: no answer within %s: %w", produceTimeout, err))
	}
	mu.Lock()
	defer mu.Unlock()
	return failure
}

// abort is a courtesy to the readers of the results topic: what is still open holds them back until the next
// owner opens the producer or the transaction runs into its timeout. Whether it works is no matter, since this
// client is not used again.
func (p *producer) abort() {
	ctx, cancel := context.WithTimeout(context.Background(), abortTimeout)
	defer cancel()
	_ = p.client.AbortBufferedRecords(ctx)
	_ = p.client.EndTransaction(ctx, kgo.TryAbort)
}

func (p *producer) close() { p.client.Close() }

// isFenced reports that another relay has opened this lane's producer. A transaction that ran into its
// timeout looks the same.
func isFenced(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch)
}
