package relay

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/committed"
)

const (
	readWaitMillis = 500     // a broker's wait for data, where a transaction is still open
	readBytesMax   = 4 << 20 // per fetch
)

// bounds gives the first offset of a partition and the one after its last. Brokers whose view of the end lags
// behind after an election refuse to answer (KIP-207), so the end covers whatever was acknowledged.
func bounds(ctx context.Context, client *kgo.Client, topic string, partition int32) (start, end int64, err error) {
	admin := kadm.NewClient(client)
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return 0, 0, fmt.Errorf("list offsets of %s: %w", topic, err)
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, 0, fmt.Errorf("list offsets of %s: %w", topic, err)
	}
	for _, listed := range []kadm.ListedOffsets{starts, ends} {
		o, ok := listed.Lookup(topic, partition)
		if !ok {
			return 0, 0, fmt.Errorf("list offsets of %s: it has no partition %d: run `processor topics plan`", topic, partition)
		}
		if o.Err != nil {
			return 0, 0, fmt.Errorf("list offsets of %s/%d: %w", topic, partition, o.Err)
		}
		start, end = end, o.Offset
	}
	return start, end, nil
}

// readPartition gives visit the committed records of a partition from the offset at up to, not including, the
// offset end, where a transaction begins at the earliest. It waits for those that are open, and writes nothing.
//
// It asks for bytes by itself, because a consumer cannot tell that it has reached the end: where the last
// records were compacted away or aborted, no record ever comes that shows it. An answer with no bytes at all
// shows it, provided that nothing waits for its marker and the broker does not throttle us (it then answers at
// once with nothing, KIP-219).
func readPartition(ctx context.Context, client *kgo.Client, topic string, partition int32, at, end int64, visit func(*kgo.Record) error) error {
	if at >= end {
		return nil
	}
	details, err := kadm.NewClient(client).ListTopics(ctx, topic)
	if err == nil {
		err = details[topic].Err
	}
	if err != nil {
		return fmt.Errorf("look up %s: %w", topic, err)
	}
	leader := details[topic].Partitions[partition].Leader
	decompressor := kgo.DefaultDecompressor()
	var filter committed.Filter
	for at < end || filter.WaitsBelow(end) {
		answer, throttled, err := fetch(ctx, client, leader, topic, details[topic].ID, partition, at)
		if err != nil {
			return fmt.Errorf("read %s/%d at %d: %w", topic, partition, at, err)
		}
		if len(answer.RecordBatches) == 0 {
			if answer.HighWatermark >= end && !throttled && !filter.WaitsBelow(end) {
				return nil
			}
			continue // ctx bounds this
		}
		read, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
			Offset: at, KeepControlRecords: true, Topic: topic, Partition: partition,
		}, answer, decompressor, nil)
		if read.Err != nil {
			return fmt.Errorf("read %s/%d at %d: %w", topic, partition, at, read.Err)
		}
		if next <= at {
			return fmt.Errorf("read %s/%d at %d: the broker's answer holds nothing at or after this offset", topic, partition, at)
		}
		at = next
		for _, r := range filter.Add(read.Records) {
			if r.Offset >= end {
				return nil
			}
			if r.Attrs.IsControl() {
				continue
			}
			if err := visit(r); err != nil {
				return err
			}
		}
		if from, again := filter.Again(); again {
			at = from
		}
	}
	return nil
}

// fetch asks a partition's leader once for records, what is not committed too: only so the markers of all that a
// transaction which is open somewhere has not begun before are there to be read.
func fetch(ctx context.Context, client *kgo.Client, leader int32, topic string, id [16]byte, partition int32, at int64) (*kmsg.FetchResponseTopicPartition, bool, error) {
	request := kmsg.NewPtrFetchRequest()
	request.MaxWaitMillis = readWaitMillis
	request.MinBytes, request.MaxBytes = 1, readBytesMax
	request.SessionEpoch = -1 // no fetch session (KIP-227)
	of := kmsg.NewFetchRequestTopic()
	of.Topic, of.TopicID = topic, id
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition, part.FetchOffset, part.PartitionMaxBytes = partition, at, readBytesMax
	of.Partitions = append(of.Partitions, part)
	request.Topics = append(request.Topics, of)

	answer, err := client.Broker(int(leader)).RetriableRequest(ctx, request)
	if err != nil {
		return nil, false, err
	}
	response, ok := answer.(*kmsg.FetchResponse)
	if !ok || len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		if ok && response.ErrorCode != 0 {
			return nil, false, kerr.ErrorForCode(response.ErrorCode)
		}
		return nil, false, fmt.Errorf("the answer of broker %d is not about the one partition that was asked for", leader)
	}
	got := &response.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
		return nil, false, err
	}
	return got, response.ThrottleMillis > 0, nil
}
