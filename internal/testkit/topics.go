package testkit

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/committed"
)

const (
	stepTimeout = 60 * time.Second // of one helper's work
	metadataAge = 50 * time.Millisecond
)

// Client makes a client that is closed when the test ends.
func Client(tb testing.TB, brokers []string, options ...kgo.Opt) *kgo.Client {
	tb.Helper()
	client := client(tb, brokers, options...)
	tb.Cleanup(client.Close)
	return client
}

func client(tb testing.TB, brokers []string, options ...kgo.Opt) *kgo.Client {
	tb.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(brokers...), kgo.MetadataMinAge(metadataAge)}, options...)...)
	if err != nil {
		tb.Fatalf("make client: %v", err)
	}
	return client
}

// CreateTopics creates topics with the broker's default replication and waits until every broker
// that is up knows them. settings may be nil.
func CreateTopics(tb testing.TB, brokers []string, partitions int32, settings map[string]string, names ...string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), stepTimeout)
	defer cancel()
	client := client(tb, brokers)
	defer client.Close()
	configs := make(map[string]*string, len(settings))
	for name, value := range settings {
		configs[name] = &value
	}
	admin := kadm.NewClient(client)
	made, err := admin.CreateTopics(ctx, partitions, -1, configs, names...)
	if err == nil {
		err = made.Error()
	}
	if err != nil {
		tb.Fatalf("create topics %v: %v", names, err)
	}
	WaitFor(tb, stepTimeout, fmt.Sprintf("leaders of topics %v", names), func() bool {
		details, err := admin.ListTopics(ctx, names...)
		if err != nil || details.Error() != nil {
			return false
		}
		for _, name := range names {
			if len(details[name].Partitions) != int(partitions) {
				return false
			}
			for _, p := range details[name].Partitions {
				if p.Err != nil || p.Leader < 0 {
					return false
				}
			}
		}
		return true
	})
}

// Produce writes records outside any transaction, and fails the test unless all are acknowledged.
// Records that name no partition go where the default partitioner sends them.
func Produce(tb testing.TB, brokers []string, records ...*kgo.Record) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), stepTimeout)
	defer cancel()
	client := client(tb, brokers)
	defer client.Close()
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		tb.Fatalf("produce %d records: %v", len(records), err)
	}
}

// ReadCommitted returns the records of all partitions of a topic that are committed by their markers, up to the high
// watermark at the time of the call: it waits for transactions that are open below it. Order is kept within each
// partition. When the end is not reached in a minute the test fails.
func ReadCommitted(tb testing.TB, brokers []string, topic string) []*kgo.Record {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), stepTimeout)
	defer cancel()
	starts, ends := logBounds(tb, brokers, topic)
	client := client(tb, brokers)
	defer client.Close()
	details, err := kadm.NewClient(client).ListTopics(ctx, topic)
	if err != nil {
		tb.Fatalf("look up %s: %v", topic, err)
	}
	var records []*kgo.Record
	for partition := range int32(len(ends)) { //nolint:gosec // a handful
		if err := committed.Scan(ctx, client, details[topic], partition, starts[partition], ends[partition], func(r *kgo.Record) error {
			records = append(records, r)
			return nil
		}); err != nil {
			tb.Fatalf("%v; %d records so far", err, len(records))
		}
	}
	return records
}

// ReadUncommitted is ReadCommitted for a reader that also gets records of open and of aborted
// transactions.
func ReadUncommitted(tb testing.TB, brokers []string, topic string) []*kgo.Record {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), stepTimeout)
	defer cancel()
	starts, ends := logBounds(tb, brokers, topic)
	offsets := map[int32]kgo.Offset{}
	for partition, end := range ends {
		if starts[partition] < end {
			offsets[partition] = kgo.NewOffset().At(starts[partition])
		}
	}
	var records []*kgo.Record
	if len(offsets) == 0 {
		return records
	}
	// Control records are kept to see that the position has passed the end of the log, which may
	// be one of them.
	client := client(tb, brokers, kgo.FetchIsolationLevel(kgo.ReadUncommitted()), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}))
	defer client.Close()
	for len(offsets) > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			tb.Fatalf("read %s: %d partitions not at their end after %v; %d records so far", topic, len(offsets), stepTimeout, len(records))
		}
		if err := fetches.Err(); err != nil {
			tb.Fatalf("read %s: %v", topic, err)
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			for _, r := range p.Records {
				if !r.Attrs.IsControl() && r.Offset < ends[p.Partition] {
					records = append(records, r)
				}
				if r.Offset >= ends[p.Partition]-1 {
					delete(offsets, p.Partition)
				}
			}
		})
	}
	return records
}

// EndOffsets returns the high watermark of each partition of a topic: the offset of the next record.
func EndOffsets(tb testing.TB, brokers []string, topic string) map[int32]int64 {
	tb.Helper()
	_, ends := logBounds(tb, brokers, topic)
	return ends
}

// logBounds returns the first offset and the next offset of each partition of a topic.
func logBounds(tb testing.TB, brokers []string, topic string) (starts, ends map[int32]int64) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), stepTimeout)
	defer cancel()
	client := client(tb, brokers)
	defer client.Close()
	admin := kadm.NewClient(client)
	bounds := make([]map[int32]int64, 0, 2)
	for _, list := range []func(context.Context, ...string) (kadm.ListedOffsets, error){admin.ListStartOffsets, admin.ListEndOffsets} {
		listed, err := list(ctx, topic)
		if err == nil {
			err = listed.Error()
		}
		if err != nil {
			tb.Fatalf("list offsets of %s: %v", topic, err)
		}
		offsets := map[int32]int64{}
		for partition, o := range listed[topic] {
			offsets[partition] = o.Offset
		}
		bounds = append(bounds, offsets)
	}
	return bounds[0], bounds[1]
}

// CommittedOffsets returns the offsets a group has committed for the partitions of a topic, without
// those that have none. It waits while a transaction that is still open holds an offset back.
func CommittedOffsets(tb testing.TB, brokers []string, group, topic string) map[int32]int64 {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), stepTimeout)
	defer cancel()
	client := client(tb, brokers)
	defer client.Close()
	admin := kadm.NewClient(client)
	var found kadm.OffsetResponses
	WaitFor(tb, stepTimeout, "stable offsets of group "+group, func() bool {
		var err error
		found, err = admin.FetchOffsetsForTopics(kadm.RequireStable(ctx), group, topic)
		if err != nil && !errors.Is(err, kerr.UnstableOffsetCommit) {
			tb.Fatalf("fetch offsets of group %s: %v", group, err)
		}
		return err == nil
	})
	offsets := map[int32]int64{}
	for partition, o := range found[topic] {
		if o.At >= 0 {
			offsets[partition] = o.At
		}
	}
	return offsets
}
