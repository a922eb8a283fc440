//go:build integration

package sizing

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"pawl/internal/testkit"
	"pawl/internal/transact"
)

const (
	group        = "sizes"
	offsetsTopic = "__consumer_offsets"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// coordinated are some lanes on a cluster of three: each a transactional producer of its own, whose
// transactions write one record to each of the first partitions of a topic, and an offset.
type coordinated struct {
	admin   *kadm.Client
	options []kgo.Opt
	topic   string
	lanes   []*kgo.Client
}

func openCoordinated(tb testing.TB, lanes int, partitions int32) *coordinated {
	tb.Helper()
	kafka := testkit.KafkaCluster(tb, 3)
	// The answers of a machine that has much else to do are waited for: a request that is given up may have been carried out.
	c := &coordinated{options: []kgo.Opt{kgo.SeedBrokers(kafka.Brokers()...), kgo.RequestTimeoutOverhead(5 * time.Minute)}, topic: "out"}
	c.admin = kadm.NewClient(c.client(tb))
	made, err := c.admin.CreateTopics(tb.Context(), partitions, 1, nil, c.topic, "in")
	if err == nil {
		err = made.Error()
	}
	if err != nil {
		tb.Fatal(err)
	}
	for lane := range lanes {
		c.lanes = append(c.lanes, c.client(tb, kgo.TransactionalID(laneID(lane)), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0)))
	}
	return c
}

func laneID(lane int) string { return fmt.Sprintf("%s.one.%d", group, lane) }

func (c *coordinated) client(tb testing.TB, options ...kgo.Opt) *kgo.Client {
	tb.Helper()
	client, err := kgo.NewClient(append(slices.Clip(c.options), options...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(client.Close)
	return client
}

// transact makes one transaction of a lane.
func (c *coordinated) transact(ctx context.Context, lane, partitions int, offset int64) error {
	client := c.lanes[lane]
	if err := client.BeginTransaction(); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	records := make([]*kgo.Record, partitions)
	for i := range records {
		records[i] = &kgo.Record{Topic: c.topic, Partition: int32(i), Value: []byte("x")}
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	id, epoch, err := client.ProducerID(ctx)
	if err != nil {
		return fmt.Errorf("ask for the producer id: %w", err)
	}
	request := kmsg.NewPtrTxnOffsetCommitRequest()
	request.TransactionalID, request.Group, request.ProducerID, request.ProducerEpoch = laneID(lane), group, id, epoch
	partition := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	partition.Partition, partition.Offset = int32(lane), offset
	topic := kmsg.NewTxnOffsetCommitRequestTopic()
	topic.Topic, topic.Partitions = "in", append(topic.Partitions, partition)
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(ctx, client)
	if err == nil {
		err = kerr.ErrorForCode(response.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("commit an offset: %w", err)
	}
	if err := transact.Commit(ctx, client, c.topic, 0); err != nil {
		return fmt.Errorf("end: %w", err)
	}
	return nil
}

// markers counts the markers of commits in each partition of a topic that has any.
func (c *coordinated) markers(t *testing.T, topic string) map[int32]int {
	t.Helper()
	count := map[int32]int{}
	ends, err := c.admin.ListEndOffsets(t.Context(), topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	left := map[int32]int64{}
	from := map[int32]kgo.Offset{}
	ends.Each(func(end kadm.ListedOffset) {
		if end.Offset > 0 {
			left[end.Partition], from[end.Partition] = end.Offset, kgo.NewOffset().At(0)
		}
	})
	reader := c.client(t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}), kgo.KeepControlRecords())
	for len(left) > 0 {
		fetches := reader.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			if record.Attrs.IsControl() {
				count[record.Partition]++
			}
			if record.Offset == left[record.Partition]-1 {
				delete(left, record.Partition)
			}
		})
	}
	return count
}

// What the arithmetic says of brokers is what three of them do: a transaction leaves a marker in each partition
// that it wrote to and one with its offsets, and uses up one epoch; all offsets of a group go to one
// broker, and the lanes of a process have their coordinators on all of them.
func TestBrokersDoWhatTheArithmeticSays(t *testing.T) {
	t.Parallel()
	const lanes, partitions, each = 12, 5, 8
	c := openCoordinated(t, lanes, lanes)
	work, ctx := errgroup.WithContext(t.Context())
	for lane := range lanes {
		work.Go(func() error {
			for n := range each {
				if err := c.transact(ctx, lane, partitions, int64(n)); err != nil {
					return fmt.Errorf("lane %d, transaction %d: %w", lane, n, err)
				}
			}
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		t.Fatal(err)
	}
	s := Size{Lanes: lanes, Partitions: partitions}
	// As many transactions a second as there were, with a record for each partition: what is a rate there is a number here.
	s.markers(lanes*each, Load{Outputs: 1}, partitions)
	written, offsets := c.markers(t, c.topic), c.markers(t, offsetsTopic)
	sum := 0
	for partition, count := range written {
		if sum += count; count != lanes*each {
			t.Errorf("partition %d has %d markers, want one of each of %d transactions", partition, count, lanes*each)
		}
	}
	for _, count := range offsets {
		sum += count
	}
	if len(written) != partitions || len(offsets) != 1 || float64(sum) != s.MarkersMost {
		t.Errorf("markers %v in the output and %v with offsets, want all offsets in one partition, and %v markers in all", written, offsets, s.MarkersMost)
	}
	coordinators := map[int32]int{}
	for lane := range lanes {
		described, err := c.admin.DescribeTransactions(t.Context(), laneID(lane))
		if err != nil {
			t.Fatal(err)
		}
		one := described[laneID(lane)]
		if one.Err != nil || one.ProducerEpoch != each {
			t.Errorf("lane %d is at epoch %d, %v, want one for each of %d transactions", lane, one.ProducerEpoch, one.Err, each)
		}
		coordinators[one.Coordinator]++
	}
	if len(coordinators) != 3 {
		t.Errorf("the lanes have their coordinators on %v, want some on each of three brokers", coordinators)
	}
}

// Transactions a second by lanes at once and partitions that each writes to: what a partition adds to a
// transaction, and where the brokers have enough. An operation is one transaction.
func BenchmarkTransactions(b *testing.B) {
	c := openCoordinated(b, 16, 128)
	for _, lanes := range []int{1, 4, 16} {
		for _, partitions := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("lanes=%d/partitions=%d", lanes, partitions), func(b *testing.B) {
				var begun atomic.Int64
				work, ctx := errgroup.WithContext(b.Context())
				for lane := range lanes {
					work.Go(func() error {
						for n := begun.Add(1); n <= int64(b.N); n = begun.Add(1) {
							if err := c.transact(ctx, lane, partitions, n); err != nil {
								return err
							}
						}
						return nil
					})
				}
				if err := work.Wait(); err != nil {
					b.Fatal(err)
				}
				took := b.Elapsed().Seconds()
				b.ReportMetric(float64(b.N)/took, "transactions/s")
				b.ReportMetric(float64(b.N*(partitions+1))/took, "markers/s")
			})
		}
	}
}
