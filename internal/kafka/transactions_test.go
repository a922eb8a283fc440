package kafka

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/transact"
)

func TestOpenTransactionsAreListedWithWhatTheyHold(t *testing.T) {
	t.Parallel()
	fake := newFake(t, kfake.SeedTopics(2, "in", "out")).open(t)
	ctx := short(t)
	if open, err := OpenTransactions(ctx, fake.admin, ""); err != nil || len(open) != 0 {
		t.Fatalf("idle cluster: %+v, %v", open, err)
	}
	ours, foreign, ended := fake.producer(t, "app.one.0", "out"), fake.producer(t, "upstream", "in"), fake.producer(t, "app.one.1", "out")
	ended.begin()
	ended.write(time.Now())
	ended.end(kgo.TryCommit) // record 0, marker 1
	ours.begin()
	ours.write(time.Now(), time.Now())
	foreign.begin()
	foreign.write(time.Now())

	open, err := OpenTransactions(ctx, fake.admin, "app.")
	if err != nil {
		t.Fatal(err)
	}
	if len(open) != 1 || open[0].TransactionalID != "app.one.0" || open[0].State != "Ongoing" || time.Since(open[0].Started) > time.Minute {
		t.Errorf("own transactions: %+v", open)
	}
	if all, err := OpenTransactions(ctx, fake.admin, ""); err != nil || len(all) != 2 {
		t.Errorf("all transactions: %+v, %v", all, err)
	}
	held, err := HeldPartitions(ctx, fake.admin, "in", "out")
	if err != nil {
		t.Fatal(err)
	}
	if len(held) != 2 || held[0].Topic != "in" || held[1].Topic != "out" {
		t.Fatalf("held: %+v", held)
	}
	out := held[1]
	if out.Partition != 0 || out.Stable != 2 || out.End != 4 || out.Held != 2 || len(out.Holders) != 1 {
		t.Fatalf("held: %+v", out)
	}
	if holder := out.Holders[0]; holder.TransactionalID != "app.one.0" || holder.FirstOffset != 2 || holder.Hanging {
		t.Errorf("holder: %+v", holder)
	}
	ours.end(kgo.TryCommit)
	foreign.end(kgo.TryAbort)
	if held, err := HeldPartitions(ctx, fake.admin); err != nil || len(held) != 0 {
		t.Errorf("after the end: %+v, %v", held, err)
	}
}

func TestAbortByIDFencesTheProducer(t *testing.T) {
	t.Parallel()
	fake := newFake(t, kfake.SeedTopics(1, "out")).open(t)
	ctx := short(t)
	producer := fake.producer(t, "app.one.0", "out")
	producer.begin()
	producer.write(time.Now())
	aborted, err := AbortTransaction(ctx, fake.conf, "app.one.0")
	if err != nil {
		t.Fatal(err)
	}
	if aborted.State != "Ongoing" {
		t.Errorf("aborted %+v", aborted)
	}
	if held, err := HeldPartitions(ctx, fake.admin, "out"); err != nil || len(held) != 0 {
		t.Errorf("still held: %+v, %v", held, err)
	}
	if err := transact.Commit(ctx, producer.client, producer.topic, 0); err == nil {
		t.Error("the fenced producer has committed")
	}
	_, err = AbortTransaction(ctx, fake.conf, "app.one.0")
	failing(t, err, "transactional id app.one.0 has no open transaction, its state is")
}

// To take an unknown id over would make it known: a typing error must leave nothing behind.
func TestAbortOfAnUnknownIDLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	fake := newFake(t).open(t)
	_, err := AbortTransaction(short(t), fake.conf, "app.onee.0")
	failing(t, err, "transactional id app.onee.0 does not exist", "processor txn ls --all")
	if listed, err := fake.admin.ListTransactions(t.Context(), nil, nil); err != nil || len(listed) != 0 {
		t.Errorf("left behind: %v, %v", listed, err)
	}
}

func TestAbortOfADecidedTransactionIsRefused(t *testing.T) {
	t.Parallel()
	fake := newFake(t, kfake.SeedTopics(1, "out")).open(t)
	producer := fake.producer(t, "app.one.0", "out")
	producer.begin()
	producer.write(time.Now())
	fake.ControlKey(int16(kmsg.DescribeTransactions), func(req kmsg.Request) (kmsg.Response, error, bool) {
		resp := req.ResponseKind().(*kmsg.DescribeTransactionsResponse)
		state := kmsg.NewDescribeTransactionsResponseTransactionState()
		state.TransactionalID, state.State = "app.one.0", "PrepareCommit"
		resp.TransactionStates = append(resp.TransactionStates, state)
		return resp, nil, true
	})
	asked := fake.Fault(kfake.Fault{Observe: true, Count: -1, Keys: []kmsg.Key{kmsg.InitProducerID}})
	_, err := AbortTransaction(short(t), fake.conf, "app.one.0")
	failing(t, err, "is in state PrepareCommit: its outcome is decided")
	if asked.Hits() > 0 {
		t.Error("the id was taken over all the same")
	}
}

// A transaction that no coordinator knows, of a producer that has long been silent, is what only an
// operator can end. The fake's coordinator forgets one here.
func TestHangingTransactionIsFoundAndAborted(t *testing.T) {
	t.Parallel()
	fake := newFake(t, kfake.SeedTopics(1, "out")).open(t)
	ctx := short(t)
	producer := fake.producer(t, "app.one.0", "out")
	producer.begin()
	producer.write(time.Now())
	_, err := FindHanging(ctx, fake.admin, "out", 0, 0, false)
	failing(t, err, "belongs to app.one.0 and is not hanging: run `processor txn abort app.one.0 --reason WHY`")

	forget(fake)
	_, err = FindHanging(ctx, fake.admin, "out", 0, 0, false)
	failing(t, err, "is not known to hang", "--force")
	silence(t, fake, 16*time.Minute)
	held, err := HeldPartitions(ctx, fake.admin, "out")
	if err != nil {
		t.Fatal(err)
	}
	if len(held) != 1 || len(held[0].Holders) != 1 || !held[0].Holders[0].Hanging {
		t.Fatalf("held: %+v", held)
	}
	_, err = FindHanging(ctx, fake.admin, "out", 0, 4711, false)
	failing(t, err, "0 open transactions of out/0 match: choose one with --producer-id")
	holder, err := FindHanging(ctx, fake.admin, "out", 0, held[0].Holders[0].ProducerID, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := AbortHanging(ctx, fake.admin, "out", 0, holder); err != nil {
		t.Fatal(err)
	}
	if holder.FirstOffset != 0 {
		t.Errorf("aborted %+v", holder)
	}
	if held, err := HeldPartitions(ctx, fake.admin, "out"); err != nil || len(held) != 0 {
		t.Errorf("still held: %+v, %v", held, err)
	}
	_, err = FindHanging(ctx, fake.admin, "out", 0, 0, false)
	failing(t, err, "no open transaction holds out/0 back")
	_, err = FindHanging(ctx, fake.admin, "out", 7, 0, false)
	failing(t, err, "topic out has no partition 7, but 0 to 0")
	_, err = FindHanging(ctx, fake.admin, "ot", 0, 0, false)
	failing(t, err, "topic ot does not exist")
}

// forget makes every coordinator say that it has no open transaction.
func forget(f *fake) {
	f.ControlKey(int16(kmsg.ListTransactions), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.KeepControl()
		return req.ResponseKind(), nil, true
	})
}

// silence makes the one producer of out/0 look as if it had written its last record so long ago.
func silence(t *testing.T, f *fake, age time.Duration) {
	t.Helper()
	set := make(kadm.TopicsSet)
	set.Add("out", 0)
	described, err := f.admin.DescribeProducers(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	producer := described.SortedProducers()[0]
	f.ControlKey(int16(kmsg.DescribeProducers), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.KeepControl()
		resp := req.ResponseKind().(*kmsg.DescribeProducersResponse)
		topic := kmsg.NewDescribeProducersResponseTopic()
		topic.Topic = "out"
		partition := kmsg.NewDescribeProducersResponseTopicPartition()
		one := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		one.ProducerID, one.ProducerEpoch = producer.ProducerID, int32(producer.ProducerEpoch)
		one.CurrentTxnStartOffset = producer.CurrentTxnStartOffset
		one.LastTimestamp = time.Now().Add(-age).UnixMilli()
		partition.ActiveProducers = append(partition.ActiveProducers, one)
		topic.Partitions = append(topic.Partitions, partition)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
}

func TestForbiddenListingIsAnError(t *testing.T) {
	t.Parallel()
	fake := newFake(t).open(t)
	fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListTransactions}, TopLevel: true, Err: kerr.ClusterAuthorizationFailed, Count: -1})
	_, err := OpenTransactions(short(t), fake.admin, "")
	if !errors.Is(err, kerr.ClusterAuthorizationFailed) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := HeldPartitions(ctx, fake.admin); err == nil {
		t.Error("a cancelled call has an answer")
	}
}

// Who may not read the outputs still learns that their readers are held back.
func TestHeldPartitionsAreFoundWithoutTheRightToRead(t *testing.T) {
	t.Parallel()
	fake := newFake(t, kfake.SeedTopics(1, "out")).open(t)
	producer := fake.producer(t, "app.one.0", "out")
	producer.begin()
	producer.write(time.Now())
	fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeProducers}, Err: kerr.TopicAuthorizationFailed, Count: -1})
	held, err := HeldPartitions(short(t), fake.admin, "out")
	if err != nil || len(held) != 1 || held[0].Held != 1 || !held[0].Hidden {
		t.Errorf("got %+v, %v", held, err)
	}
	_, err = FindHanging(short(t), fake.admin, "out", 0, 0, true)
	failing(t, err, "needs the right to Read the topic")
}
