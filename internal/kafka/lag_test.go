package kafka

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/transact"
)

// producer is a transactional producer of partition 0 of a topic.
type producer struct {
	t      *testing.T
	client *kgo.Client
	topic  string
}

func (f *fake) producer(t *testing.T, id, topic string) *producer {
	t.Helper()
	opts, err := f.conf.ProbeOptions()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(append(opts, kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &producer{t: t, client: client, topic: topic}
}

// write begins a transaction if none is open, and writes records of the given times.
func (p *producer) write(times ...time.Time) {
	p.t.Helper()
	for _, at := range times {
		if err := p.client.ProduceSync(p.t.Context(), &kgo.Record{Topic: p.topic, Value: []byte("v"), Timestamp: at}).FirstErr(); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *producer) begin() {
	p.t.Helper()
	if err := p.client.BeginTransaction(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *producer) end(how kgo.TransactionEndTry) {
	p.t.Helper()
	if err := transact.End(p.t.Context(), p.client, how, p.topic, 0); err != nil {
		p.t.Fatal(err)
	}
}

var withoutError = cmpopts.IgnoreFields(PartitionLag{}, "Err")

func TestLagCountsMarkersAndOpenTransactions(t *testing.T) {
	t.Parallel()
	fake := newFake(t, kfake.SeedTopics(2, "in")).open(t)
	ctx := short(t)
	first := time.UnixMilli(1_700_000_000_000)
	producer := fake.producer(t, "upstream", "in")
	producer.begin()
	producer.write(first, first.Add(time.Second), first.Add(2*time.Second))
	producer.end(kgo.TryCommit) // offsets 0 to 2, marker 3

	lag := func(want PartitionLag) []PartitionLag {
		t.Helper()
		want.Topic = "in"
		lags, err := Lag(ctx, fake.admin, "app", []string{"in"})
		if err != nil {
			t.Fatal(err)
		}
		idle := PartitionLag{Topic: "in", Partition: 1, Committed: NoOffset}
		if diff := cmp.Diff([]PartitionLag{want, idle}, lags, withoutError); diff != "" {
			t.Errorf("lag (-want +got):\n%s", diff)
		}
		return lags
	}
	lag(PartitionLag{Committed: NoOffset, Stable: 4, End: 4, Lag: 4})
	fake.commit(t, "in", 0, 1, "")
	lags := lag(PartitionLag{Committed: 1, Stable: 4, End: 4, Lag: 3})
	if err := AddOldest(ctx, fake.conf, lags); err != nil {
		t.Fatal(err)
	}
	if want := first.Add(time.Second); !lags[0].Oldest.Equal(want) || !lags[1].Oldest.IsZero() {
		t.Errorf("oldest %v and %v, want %v and none", lags[0].Oldest, lags[1].Oldest, want)
	}

	// Only the marker is left: a record-wise commit stops here, and no record is waiting.
	fake.commit(t, "in", 0, 3, "")
	lags = lag(PartitionLag{Committed: 3, Stable: 4, End: 4, Lag: 1})
	if err := AddOldest(ctx, fake.conf, lags); err != nil {
		t.Fatal(err)
	}
	if !lags[0].Oldest.IsZero() {
		t.Errorf("a marker was taken for a record of %v", lags[0].Oldest)
	}
	fake.commit(t, "in", 0, 4, "")
	lag(PartitionLag{Committed: 4, Stable: 4, End: 4, Lag: 0})

	producer.begin()
	producer.write(first.Add(5*time.Second), first.Add(6*time.Second))
	lags = lag(PartitionLag{Committed: 4, Stable: 4, End: 6, Lag: 2, Held: 2})
	if err := AddOldest(ctx, fake.conf, lags); err != nil {
		t.Fatal(err)
	}
	if want := first.Add(5 * time.Second); !lags[0].Oldest.Equal(want) || !lags[0].OldestHeld || lags[1].OldestHeld {
		t.Errorf("oldest %v, held back %v, want %v of the open transaction", lags[0].Oldest, lags[0].OldestHeld, want)
	}
	lags[0].Committed = 1 // as if what is before it were still to be read
	lags[0].Oldest = time.Time{}
	if err := AddOldest(ctx, fake.conf, lags); err != nil {
		t.Fatal(err)
	}
	if want := first.Add(time.Second); !lags[0].Oldest.Equal(want) || lags[0].OldestHeld {
		t.Errorf("oldest %v, held back %v, want %v, which waits for the group", lags[0].Oldest, lags[0].OldestHeld, want)
	}
	producer.end(kgo.TryAbort)
	lags = lag(PartitionLag{Committed: 4, Stable: 7, End: 7, Lag: 3})
	if err := AddOldest(ctx, fake.conf, lags); err != nil {
		t.Fatal(err)
	}
	if !lags[0].Oldest.IsZero() {
		t.Error("an aborted record was taken for one that waits")
	}
}

// An open transaction of the group itself must not make the lag unknown, nor count.
func TestLagShowsWhatIsCommittedWhileATransactionIsOpen(t *testing.T) {
	t.Parallel()
	fake := newFake(t, kfake.SeedTopics(1, "in", "out")).open(t)
	plain, err := fake.conf.Open(short(t))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	for range 5 {
		if err := plain.ProduceSync(t.Context(), &kgo.Record{Topic: "in", Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	fake.commit(t, "in", 0, 2, "")
	pending(t, fake, "app.one.0", 5)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	lags, err := Lag(ctx, fake.admin, "app", []string{"in"})
	if err != nil {
		t.Fatal(err)
	}
	if want := (PartitionLag{Topic: "in", Committed: 2, Stable: 5, End: 5, Lag: 3}); lags[0] != want {
		t.Errorf("got %+v, want %+v", lags[0], want)
	}
}

// pending opens a transaction with an offset of the group app for in/0 in it.
func pending(t *testing.T, f *fake, id string, at int64) *producer {
	t.Helper()
	producer := f.producer(t, id, "out")
	producer.begin()
	producer.write(time.Now())
	addOffset(t, producer.client, id, "app", "in", f.TopicInfo("in").TopicID, at)
	return producer
}

// addOffset does what an engine does before it ends its transaction, and does not end it.
func addOffset(t *testing.T, client *kgo.Client, id, group, name string, topicID [16]byte, at int64) {
	t.Helper()
	producerID, epoch, err := client.ProducerID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	commit := kmsg.NewPtrTxnOffsetCommitRequest()
	commit.TransactionalID, commit.Group, commit.ProducerID, commit.ProducerEpoch, commit.Generation = id, group, producerID, epoch, -1
	topic := kmsg.NewTxnOffsetCommitRequestTopic()
	topic.Topic, topic.TopicID = name, topicID
	partition := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	partition.Offset = at
	topic.Partitions = append(topic.Partitions, partition)
	commit.Topics = append(commit.Topics, topic)
	committed, err := commit.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	if err := kerr.ErrorForCode(committed.Topics[0].Partitions[0].ErrorCode); err != nil {
		t.Fatal(err)
	}
}

func TestLagOfAMissingTopicSaysSo(t *testing.T) {
	t.Parallel()
	fake := newFake(t, kfake.SeedTopics(1, "in")).open(t)
	lags, err := Lag(short(t), fake.admin, "app", []string{"in", "nowhere"})
	if err != nil {
		t.Fatal(err)
	}
	if len(lags) != 2 || lags[0].Err != nil || lags[1].Err != kerr.UnknownTopicOrPartition { //nolint:errorlint // this one and no more
		t.Errorf("got %+v", lags)
	}
}
