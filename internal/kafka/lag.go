package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// addOldestTimeout bounds the reading of AddOldest.
const addOldestTimeout = 10 * time.Second

// NoOffset stands for an offset that was never committed.
const NoOffset = -1

// PartitionLag is how far a consumer group is behind in one partition. Offsets count transaction
// markers too; the engine commits past them, so that Lag reaches 0.
type PartitionLag struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed int64  `json:"committed"` // NoOffset before the first commit
	Start     int64  `json:"start"`     // the oldest record there is
	Stable    int64  `json:"stable"`    // the last stable offset: readers of committed records get no further
	End       int64  `json:"end"`       // the high watermark

	// Lag counts what is not committed yet: End minus Committed, or minus Start where nothing is
	// committed.
	Lag int64 `json:"lag"`
	// Held counts what an open transaction of the input's producers holds back: End minus Stable.
	// It is part of Lag, and no fault of this group.
	Held int64 `json:"held"`

	// Oldest is the time of the first record that is not committed yet, zero until AddOldest.
	Oldest time.Time `json:"oldest,omitzero"`
	// OldestHeld says that Oldest belongs to what is held back: nothing older waits for the group.
	OldestHeld bool `json:"oldest_held,omitempty"`
	// Err is why this partition could not be looked at, such as kerr.UnknownTopicOrPartition. The
	// numbers are not valid then.
	Err error `json:"-"`
}

// from is the first offset that is not committed: nothing is read from before the start of a log.
func (l PartitionLag) from() int64 { return max(l.Committed, l.Start) }

// Readable counts what waits for the group and for nobody else: Lag without Held. Markers and aborted
// records that are not passed yet count, as in Lag.
func (l PartitionLag) Readable() int64 { return max(l.Stable-l.from(), 0) }

// Lag tells how far group is behind in every partition of topics, ordered by topic and partition.
// It makes four requests and reads no record, so it may be called every few seconds.
//
// Committed offsets are asked for without require-stable. A broker keeps the offsets of an open
// transaction apart until it commits, so the answer never shows one that may be taken back; and it
// comes at once, even while a transaction hangs.
func Lag(ctx context.Context, admin *kadm.Client, group string, topics []string) ([]PartitionLag, error) {
	committed, err := fetchOffsets(ctx, admin, group, topics)
	if err != nil {
		return nil, err
	}
	positions := make(Positions, len(committed))
	for topic, partitions := range committed {
		positions[topic] = make(map[int32]int64, len(partitions))
		for partition, offset := range partitions {
			positions[topic][partition] = offset.at
		}
	}
	return Behind(ctx, admin, positions, topics)
}

// Positions is how far something has come, by topic and partition: the offset of what it takes next.
type Positions map[string]map[int32]int64

// Behind is like Lag for a reader that keeps its positions elsewhere.
func Behind(ctx context.Context, admin *kadm.Client, positions Positions, topics []string) ([]PartitionLag, error) {
	starts, startsErr := admin.ListStartOffsets(ctx, topics...)
	stables, stablesErr := admin.ListCommittedOffsets(ctx, topics...)
	ends, endsErr := admin.ListEndOffsets(ctx, topics...)
	if err := errors.Join(fatal(startsErr), fatal(stablesErr), fatal(endsErr)); err != nil {
		return nil, fmt.Errorf("list offsets: %w", err)
	}
	var lags []PartitionLag
	ends.Each(func(end kadm.ListedOffset) {
		lag := PartitionLag{Topic: end.Topic, Partition: end.Partition, Committed: NoOffset}
		if offset, found := positions[end.Topic][end.Partition]; found {
			lag.Committed = offset
		}
		start, _ := starts.Lookup(end.Topic, end.Partition)
		stable, found := stables.Lookup(end.Topic, end.Partition)
		// One question was asked in three ways: the first error is enough.
		if lag.Err = cmp.Or(end.Err, start.Err, stable.Err); lag.Err != nil || !found {
			lags = append(lags, lag)
			return
		}
		lag.Start, lag.Stable, lag.End = start.Offset, stable.Offset, end.Offset
		from := lag.Committed
		if from == NoOffset {
			from = lag.Start
		}
		// The three lists are not one snapshot: what was asked first may already be outdated.
		lag.Lag = max(lag.End-from, 0)
		lag.Held = max(lag.End-lag.Stable, 0)
		lags = append(lags, lag)
	})
	slices.SortFunc(lags, func(a, b PartitionLag) int {
		if byTopic := strings.Compare(a.Topic, b.Topic); byTopic != 0 {
			return byTopic
		}
		return int(a.Partition) - int(b.Partition)
	})
	return lags, nil
}

// fatal drops the error of an answer that is only in part missing: the partitions carry their own.
func fatal(err error) error {
	var shards *kadm.ShardErrors
	if errors.As(err, &shards) && !shards.AllFailed {
		return nil
	}
	return err
}

type committedOffset struct {
	at       int64
	metadata string
}

// fetchOffsets reads the committed offsets of topics; partitions without one are left out. Of a
// group that does not exist there are none.
func fetchOffsets(ctx context.Context, admin *kadm.Client, group string, topics []string) (map[string]map[int32]committedOffset, error) {
	answer, err := admin.FetchOffsets(ctx, group)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return map[string]map[int32]committedOffset{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("fetch offsets of group %s: %w", group, err)
	}
	offsets := make(map[string]map[int32]committedOffset, len(topics))
	var errs []error
	answer.Each(func(offset kadm.OffsetResponse) {
		if !slices.Contains(topics, offset.Topic) {
			return
		}
		if offset.Err != nil {
			errs = append(errs, fmt.Errorf("fetch offset of %s/%d: %w", offset.Topic, offset.Partition, offset.Err))
			return
		}
		if offset.At < 0 {
			return
		}
		if offsets[offset.Topic] == nil {
			offsets[offset.Topic] = make(map[int32]committedOffset)
		}
		offsets[offset.Topic][offset.Partition] = committedOffset{at: offset.At, metadata: offset.Metadata}
	})
	return offsets, errors.Join(errs...)
}

// AddOldest finds the time of the first record that is not committed yet, for each partition that has a lag.
// Where all that may be read is done, that is a record which an open transaction holds back, see Held: whether it
// will ever count is not decided. It reads about one fetch per partition with a client of its own, and leaves
// Oldest zero where it finds no record within addOldestTimeout (a lag may consist of markers and aborted records
// only).
func AddOldest(ctx context.Context, conf Config, lags []PartitionLag) error {
	ctx, cancel := context.WithTimeout(ctx, addOldestTimeout)
	defer cancel()
	err := addOldest(ctx, conf, lags, kgo.ReadCommitted(), func(lag *PartitionLag) (from, to int64) { return lag.from(), lag.Stable })
	if err != nil {
		return err
	}
	for i := range lags {
		lags[i].OldestHeld = lags[i].Oldest.IsZero() && lags[i].Held > 0
	}
	return addOldest(ctx, conf, lags, kgo.ReadUncommitted(), func(lag *PartitionLag) (from, to int64) {
		if !lag.OldestHeld {
			return 0, 0
		}
		return max(lag.Committed, lag.Stable), lag.End
	})
}

// addOldest reads the first record of each partition in the span that is to be looked at.
func addOldest(ctx context.Context, conf Config, lags []PartitionLag, level kgo.IsolationLevel, span func(*PartitionLag) (from, to int64)) error {
	from := make(map[string]map[int32]kgo.Offset)
	waiting := make(map[string]map[int32]int)
	open := 0
	for i := range lags {
		lag := &lags[i]
		at, to := span(lag)
		if lag.Err != nil || at >= to {
			continue
		}
		if from[lag.Topic] == nil {
			from[lag.Topic] = make(map[int32]kgo.Offset)
			waiting[lag.Topic] = make(map[int32]int)
		}
		from[lag.Topic][lag.Partition] = kgo.NewOffset().At(at)
		waiting[lag.Topic][lag.Partition] = i
		open++
	}
	if open == 0 {
		return nil
	}
	client, err := conf.Open(ctx,
		kgo.ConsumePartitions(from),
		kgo.FetchIsolationLevel(level),
		kgo.KeepControlRecords(), // so that the end of a log without records is noticed
		kgo.FetchMaxPartitionBytes(1<<10),
		kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		return err
	}
	defer client.Close()
	for open > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil // what was found in time is the answer
		}
		var errs []error
		fetches.EachError(func(topic string, partition int32, err error) {
			errs = append(errs, fmt.Errorf("read %s/%d: %w", topic, partition, err))
		})
		if err := errors.Join(errs...); err != nil {
			return err
		}
		fetches.EachRecord(func(record *kgo.Record) {
			i, found := waiting[record.Topic][record.Partition]
			if !found {
				return
			}
			_, to := span(&lags[i])
			if !record.Attrs.IsControl() {
				lags[i].Oldest = record.Timestamp
			} else if record.Offset+1 < to {
				return
			}
			delete(waiting[record.Topic], record.Partition)
			client.PauseFetchPartitions(map[string][]int32{record.Topic: {record.Partition}})
			open--
		})
	}
	return nil
}
