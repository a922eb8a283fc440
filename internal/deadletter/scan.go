package deadletter

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

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

// scan visits the committed records of one partition from one offset up to another, in order.
func (q *Queue) scan(ctx context.Context, topic kadm.TopicDetail, partition int32, from, to int64, visit func(*kgo.Record) error) error {
	return committed.Scan(ctx, q.client, topic, partition, from, to, visit)
}
