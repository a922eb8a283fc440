package load

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/committed"
)

// Scan visits the committed records of topics, each partition in order from its start to the last
// stable offset as it is when Scan is called. A topic without records is no error.
func Scan(ctx context.Context, options []kgo.Opt, topics []string, visit func(*kgo.Record)) error {
	client, err := kgo.NewClient(options...)
	if err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	ends, starts, err := bounds(ctx, admin, topics)
	if err != nil {
		return fmt.Errorf("scan %v: %w", topics, err)
	}
	details, err := admin.ListTopics(ctx, topics...)
	if err != nil {
		return fmt.Errorf("scan %v: look them up: %w", topics, err)
	}
	for _, end := range ends.Offsets().Sorted() {
		start, _ := starts.Lookup(end.Topic, end.Partition)
		if err := committed.Scan(ctx, client, details[end.Topic], end.Partition, start.Offset, end.At, func(record *kgo.Record) error {
			visit(record)
			return nil
		}); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
	}
	return nil
}

// Outcome is what became of the transactional records of one topic, up to its last stable offset.
type Outcome struct {
	Committed int64 // records that readers see, those without a transaction among them
	Aborted   int64 // records that no read_committed reader ever sees
}

// Outcomes is what became of the transactions on some topics.
type Outcomes struct {
	Topics map[string]Outcome
	// Aborted counts the transactions that wrote to any of the topics and were aborted, each once.
	// It tells transactions apart by producer id and epoch: under Kafka's transaction.version 2 each
	// transaction has its own epoch, under version 1 this is a lower bound.
	Aborted int64
}

// transaction names a transaction by what its end marker carries.
type transaction struct {
	producer int64
	epoch    int16
}

// partition names one partition of a topic.
type partition struct {
	topic string
	index int32
}

// ScanOutcomes reads the topics as no ordinary reader does, with what was aborted in them, and counts by the end
// markers in the log. Scan goes by them too, but shares no code with this: each of the two is a check of the other. A
// compacted topic may have lost the record that ScanOutcomes waits for: bound ctx.
func ScanOutcomes(ctx context.Context, options []kgo.Opt, topics []string) (Outcomes, error) {
	outcomes := Outcomes{Topics: make(map[string]Outcome, len(topics))}
	for _, topic := range topics {
		outcomes.Topics[topic] = Outcome{}
	}
	open := make(map[partition]map[int64]int64) // records per producer without end marker yet
	aborted := make(map[transaction]bool)
	var broken error
	err := scanAll(ctx, options, topics, func(record *kgo.Record) {
		at := partition{record.Topic, record.Partition}
		outcome := outcomes.Topics[record.Topic]
		switch {
		case record.Attrs.IsControl():
			var key kmsg.ControlRecordKey
			if err := key.ReadFrom(record.Key); err != nil {
				broken = fmt.Errorf("control record %s/%d/%d: %w", record.Topic, record.Partition, record.Offset, err)
				return
			}
			n := open[at][record.ProducerID]
			delete(open[at], record.ProducerID)
			if key.Type == kmsg.ControlRecordKeyTypeAbort {
				outcome.Aborted += n
				aborted[transaction{record.ProducerID, record.ProducerEpoch}] = true
			} else {
				outcome.Committed += n
			}
		case record.Attrs.IsTransactional():
			if open[at] == nil {
				open[at] = make(map[int64]int64)
			}
			open[at][record.ProducerID]++
		default:
			outcome.Committed++
		}
		outcomes.Topics[record.Topic] = outcome
	})
	outcomes.Aborted = int64(len(aborted))
	if err == nil {
		err = broken
	}
	return outcomes, err
}

// scanAll visits everything below the last stable offset, control records too: the record before that
// offset is visible either as data or as the marker that ended a transaction, which is how scanAll
// knows that it is through.
func scanAll(ctx context.Context, options []kgo.Opt, topics []string, visit func(*kgo.Record)) error {
	client, err := kgo.NewClient(append(slices.Clip(options),
		kgo.FetchIsolationLevel(kgo.ReadUncommitted()),
		kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	)...)
	if err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	defer client.Close()
	ends, starts, err := bounds(ctx, kadm.NewClient(client), topics)
	if err != nil {
		return fmt.Errorf("scan %v: %w", topics, err)
	}
	left := make(map[partition]int64) // partitions that are not through, with their ends
	positions := make(map[string]map[int32]kgo.Offset)
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(end.Topic, end.Partition)
		if start.Offset >= end.Offset {
			return
		}
		left[partition{end.Topic, end.Partition}] = end.Offset
		if positions[end.Topic] == nil {
			positions[end.Topic] = make(map[int32]kgo.Offset)
		}
		positions[end.Topic][end.Partition] = kgo.NewOffset().At(start.Offset)
	})
	client.AddConsumePartitions(positions)
	for len(left) > 0 { // ends when every partition is through, or with ctx
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("scan %v: %d partitions not read to their end: %w", topics, len(left), context.Cause(ctx))
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("scan %v: %w", topics, err)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			at := partition{record.Topic, record.Partition}
			end, reading := left[at]
			if !reading || record.Offset >= end {
				delete(left, at)
				return
			}
			visit(record)
			if record.Offset == end-1 {
				delete(left, at)
			}
		})
	}
	return nil
}

// bounds finds start and last stable offset of each partition.
func bounds(ctx context.Context, admin *kadm.Client, topics []string) (ends, starts kadm.ListedOffsets, err error) {
	ends, err = admin.ListCommittedOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("find the ends: %w", err)
	}
	starts, err = admin.ListStartOffsets(ctx, topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("find the starts: %w", err)
	}
	return ends, starts, nil
}
