package committed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	fetchBytesMax   = 4 << 20
	fetchWaitMillis = 500 // a broker's wait for data, where a transaction is still open
	retryPause      = 100 * time.Millisecond
	stallMax        = 60 * time.Second // longer than any transaction may stay open
)

// Scan visits the committed records of one partition from one offset up to, not including, another, in order. It waits
// for transactions that began before that end and are open, and goes on where the log begins if that is later. The topic is the
// one with the id that is given, not another one of its name. It ends with the first error of visit.
//
// It asks for bytes by itself, because a consumer does not tell its position: where the last records below
// the end are aborted, are control records, or have been compacted away, a consumer waits for a record that never
// comes. Here the decoder tells the next offset; and an answer with no bytes at all while the high watermark is at or
// beyond the end means that nothing is left below the end, since a broker answers with at least one batch if it has
// any, unless it throttles us (it then answers at once with nothing, KIP-219).
func Scan(ctx context.Context, client *kgo.Client, topic kadm.TopicDetail, partition int32, from, to int64, visit func(*kgo.Record) error) error {
	s := source{client: client, topic: topic, partition: partition, unpack: kgo.DefaultDecompressor()}
	progress := time.Now()
	var filter Filter
	for from < to || filter.WaitsBelow(to) {
		answer, err := s.fetch(ctx, from)
		if err != nil {
			at, err := s.mend(ctx, err, from, time.Since(progress) > stallMax)
			if err != nil {
				return err
			}
			if at != from {
				from = at
				filter.Restart()
			}
			continue
		}
		came := filter.Add(answer.records)
		if done, err := pass(came, to, visit); done || err != nil {
			return err
		}
		if answer.next > from && from < to || len(came) > 0 {
			progress = time.Now() // after the visits, which take what they take
		}
		from = max(from, answer.next)
		if at, again := filter.Again(); again {
			from = at
		}
		switch {
		case answer.nothing && answer.high >= to && !filter.WaitsBelow(to):
			return nil
		case time.Since(progress) > stallMax:
			return fmt.Errorf("read %s/%d: a transaction has been open for more than %s and hides what follows offset %d: `processor txn ls` shows it, `processor txn abort` ends it", topic.Topic, partition, stallMax, from)
		}
	}
	return nil
}

// pass gives committed records to visit, and reports that there are no more below an offset.
func pass(records []*kgo.Record, to int64, visit func(*kgo.Record) error) (done bool, err error) {
	for _, r := range records {
		switch {
		case r.Offset >= to:
			return true, nil
		case r.Attrs.IsControl():
			continue
		}
		if err := visit(r); err != nil {
			return false, err
		}
	}
	return false, nil
}

// source is a partition of which bytes are asked for.
type source struct {
	client    *kgo.Client
	topic     kadm.TopicDetail
	partition int32
	unpack    kgo.Decompressor
}

// fetched is a broker's answer.
type fetched struct {
	records []*kgo.Record // what is not committed too, and markers
	next    int64         // the offset to go on from
	high    int64         // high watermark
	nothing bool          // it has no more than that
}

// fetch asks the partition's leader once for records, what is not committed too: only so the markers of all that a
// transaction which is open somewhere has not begun before are there to be read.
func (s *source) fetch(ctx context.Context, from int64) (fetched, error) {
	led, known := s.topic.Partitions[s.partition]
	if !known || led.Leader < 0 {
		return fetched{}, kerr.LeaderNotAvailable
	}
	ask := kmsg.NewFetchRequestTopicPartition()
	ask.Partition, ask.FetchOffset, ask.PartitionMaxBytes = s.partition, from, fetchBytesMax
	of := kmsg.NewFetchRequestTopic()
	of.Topic, of.TopicID, of.Partitions = s.topic.Topic, s.topic.ID, []kmsg.FetchRequestTopicPartition{ask}
	request := kmsg.NewPtrFetchRequest() // without a fetch session (KIP-227)
	request.MaxWaitMillis, request.MinBytes, request.MaxBytes = fetchWaitMillis, 1, fetchBytesMax
	request.Topics = []kmsg.FetchRequestTopic{of}

	raw, err := s.client.Broker(int(led.Leader)).RetriableRequest(ctx, request)
	if err != nil {
		return fetched{}, err
	}
	response, ok := raw.(*kmsg.FetchResponse)
	if !ok {
		return fetched{}, fmt.Errorf("broker %d answers a fetch with %T", led.Leader, raw)
	}
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return fetched{}, err
	}
	if len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return fetched{}, nil // throttled
	}
	answer := &response.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return fetched{}, err
	}
	if len(answer.RecordBatches) == 0 {
		return fetched{next: from, high: answer.HighWatermark, nothing: response.ThrottleMillis == 0}, nil
	}
	read, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: from, KeepControlRecords: true, Topic: s.topic.Topic, Partition: s.partition,
	}, answer, s.unpack, nil)
	if read.Err == nil && next <= from {
		read.Err = errors.New("the broker's answer holds nothing at or after this offset")
	}
	return fetched{records: read.Records, next: next, high: answer.HighWatermark}, read.Err
}

// mend says where to go on after a fetch that failed, or that there is no going on.
func (s *source) mend(ctx context.Context, failed error, from int64, stalled bool) (int64, error) {
	wrap := func(err error) error {
		return fmt.Errorf("read %s/%d at offset %d: %w", s.topic.Topic, s.partition, from, err)
	}
	switch {
	case errors.Is(failed, kerr.OffsetOutOfRange):
		start, err := s.start(ctx)
		if err == nil && start <= from {
			err = failed
		}
		if err != nil {
			return from, wrap(err)
		}
		return start, nil
	case errors.Is(failed, kerr.TopicAuthorizationFailed):
		return from, fmt.Errorf("read %s: this user lacks the right Read on it: %w", s.topic.Topic, failed)
	case !kerr.IsRetriable(failed) && !kgo.IsRetryableBrokerErr(failed) || stalled:
		return from, wrap(failed)
	}
	select {
	case <-ctx.Done():
		return from, wrap(fmt.Errorf("%w, after: %w", context.Cause(ctx), failed))
	case <-time.After(retryPause):
	}
	topics, err := kadm.NewClient(s.client).ListTopics(ctx, s.topic.Topic) // the leader has moved, perhaps
	topic := topics[s.topic.Topic]
	if err == nil {
		err = topic.Err
	}
	switch {
	case err != nil:
		return from, wrap(err)
	case topic.ID != s.topic.ID:
		return from, wrap(fmt.Errorf("the topic was deleted and made anew: %w", failed))
	}
	s.topic = topic
	return from, nil
}

// start is where the log begins.
func (s *source) start(ctx context.Context) (int64, error) {
	starts, err := kadm.NewClient(s.client).ListStartOffsets(ctx, s.topic.Topic)
	if err == nil {
		err = starts.Error()
	}
	start, _ := starts.Lookup(s.topic.Topic, s.partition)
	return start.Offset, err
}
