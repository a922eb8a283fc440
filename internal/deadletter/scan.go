package deadletter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/committed"
)

// bounds is the readable part of one partition.
type bounds struct {
	partition  int32
	start, end int64
}

// listOffsets is one of kadm's ways to list offsets: ListCommittedOffsets for the end that a
// read_committed reader reaches now, ListEndOffsets for the end it reaches once every transaction
// that is open now has ended.
type listOffsets func(context.Context, ...string) (kadm.ListedOffsets, error)

// bounds lists the partitions of a topic in order.
func (q *Queue) bounds(ctx context.Context, topic string, list listOffsets) ([]bounds, error) {
	starts, err := q.admin.ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list start offsets of %s: %w", topic, err)
	}
	ends, err := list(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list end offsets of %s: %w", topic, err)
	}
	var all []bounds
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(topic, end.Partition)
		all = append(all, bounds{partition: end.Partition, start: start.Offset, end: end.Offset})
	})
	slices.SortFunc(all, func(a, b bounds) int { return int(a.partition - b.partition) })
	return all, nil
}

const (
	fetchBytes   = 4 << 20
	fetchWait    = 500 // ms
	retryPause   = 100 * time.Millisecond
	scanStallMax = 60 * time.Second // longer than any transaction may stay open
)

// scan visits the committed records of one partition from one offset up to another, in order.
//
// It fetches by itself because a consumer does not tell its position: where the last records below
// the end are aborted, are control records, or have been compacted away, a consumer waits for a
// record that never comes. Here the decoder tells the next offset; and an empty answer while the
// high watermark is at or beyond the end means that nothing is left below the end, since a
// broker answers with at least one batch if it has any.
func (q *Queue) scan(ctx context.Context, topic kadm.TopicDetail, partition int32, from, to int64, visit func(*kgo.Record) error) error {
	progress := time.Now()
	var filter committed.Filter
	for from < to || filter.WaitsBelow(to) {
		answer, err := q.fetch(ctx, topic, partition, from)
		switch {
		case err == nil:
		case errors.Is(err, kerr.OffsetOutOfRange):
			if from, err = q.startAfter(ctx, topic.Topic, partition, from); err != nil {
				return err
			}
			filter.Restart()
			continue
		case errors.Is(err, kerr.TopicAuthorizationFailed):
			return fmt.Errorf("read %s: this user lacks the right Read on it: %w", topic.Topic, err)
		case !kerr.IsRetriable(err) && !kgo.IsRetryableBrokerErr(err) || time.Since(progress) > scanStallMax:
			return fmt.Errorf("read %s/%d at offset %d: %w", topic.Topic, partition, from, err)
		default:
			if err := pause(ctx, retryPause); err != nil {
				return err
			}
			if topic, err = q.describe(ctx, topic.Topic); err != nil {
				return err // the leader has moved, perhaps
			}
			continue
		}
		if done, err := pass(filter.Add(answer.records), to, visit); done || err != nil {
			return err
		}
		if answer.next > from {
			if from < to {
				progress = time.Now()
			}
			from = answer.next
		}
		if at, again := filter.Again(); again {
			from = at
		}
		switch {
		case answer.high >= to && answer.empty && !filter.WaitsBelow(to):
			return nil
		case time.Since(progress) > scanStallMax:
			return fmt.Errorf("read %s/%d: a transaction has been open for more than %s and hides what follows offset %d: `processor txn ls` shows it, `processor txn abort` ends it", topic.Topic, partition, scanStallMax, from)
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

type fetched struct {
	records []*kgo.Record // what is not committed too, and markers
	next    int64         // the offset to go on from
	high    int64         // high watermark
	empty   bool          // the broker has sent no batch
}

func (q *Queue) fetch(ctx context.Context, topic kadm.TopicDetail, partition int32, from int64) (fetched, error) {
	leader := topic.Partitions[partition].Leader
	if leader < 0 {
		return fetched{}, kerr.LeaderNotAvailable
	}
	ask := kmsg.NewFetchRequestTopicPartition()
	ask.Partition, ask.FetchOffset, ask.PartitionMaxBytes = partition, from, fetchBytes
	askTopic := kmsg.NewFetchRequestTopic()
	askTopic.Topic, askTopic.TopicID, askTopic.Partitions = topic.Topic, topic.ID, []kmsg.FetchRequestTopicPartition{ask}
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = fetchWait, 1, fetchBytes
	req.Topics = []kmsg.FetchRequestTopic{askTopic}

	response, err := q.client.Broker(int(leader)).RetriableRequest(ctx, req)
	if err != nil {
		return fetched{}, err
	}
	resp, ok := response.(*kmsg.FetchResponse)
	if !ok {
		return fetched{}, fmt.Errorf("broker answers a fetch with %T", response)
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return fetched{}, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return fetched{high: -1}, nil
	}
	answer := &resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return fetched{}, err
	}
	decoded, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: from, KeepControlRecords: true, Topic: topic.Topic, Partition: partition,
	}, answer, kgo.DefaultDecompressor(), nil)
	if decoded.Err != nil {
		return fetched{}, decoded.Err
	}
	return fetched{records: decoded.Records, next: next, high: answer.HighWatermark, empty: len(answer.RecordBatches) == 0}, nil
}

// startAfter gives the partition's first offset where it has moved beyond from.
func (q *Queue) startAfter(ctx context.Context, topic string, partition int32, from int64) (int64, error) {
	all, err := q.bounds(ctx, topic, q.admin.ListEndOffsets)
	if err != nil {
		return 0, err
	}
	for _, b := range all {
		if b.partition == partition && b.start > from {
			return b.start, nil
		}
	}
	return 0, fmt.Errorf("read %s/%d: offset %d does not exist", topic, partition, from)
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
