package relay

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/committed"
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
	return committed.Scan(ctx, client, details[topic], partition, at, end, visit)
}
