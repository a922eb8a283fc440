package testkit

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/cluster"
	"pawl/internal/transact"
)

// UnlistedKafka opens two brokers for this test alone, and a topic on them of one partition whose leader does not list an
// aborted transaction with every answer to a read_committed fetch that holds records of it (see package committed).
//
// A producer aborts the record first, and after it the records aborted, which must not be compressed below what a fetch
// may bring: only a fetch that ends among them lacks it. Another producer commits the last record. Then the other broker
// takes the partition over, and catches up with all of it in one append.
func UnlistedKafka(tb testing.TB, first *kgo.Record, aborted []*kgo.Record, committed *kgo.Record) (k *cluster.Kafka, topic string) {
	tb.Helper()
	k = OpenKafka(tb, cluster.KafkaConfig{Nodes: 2, Settings: map[string]string{
		"default.replication.factor": "1", "replica.fetch.max.bytes": "16777216", "replica.fetch.response.max.bytes": "16777216",
	}})
	topic = Name(tb, "unlisted")
	CreateTopics(tb, k.Brokers(), 1, nil, topic)
	producer := func(id string) *kgo.Client {
		return Client(tb, k.Brokers(), kgo.TransactionalID(topic+id), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.NoCompression()))
	}
	one, other := producer("-1"), producer("-2")
	write(tb, one, kgo.TryAbort, first)
	write(tb, one, kgo.TryAbort, aborted...)
	write(tb, other, kgo.TryCommit, committed)
	moveReplica(tb, one, topic)
	return k, topic
}

func write(tb testing.TB, producer *kgo.Client, end kgo.TransactionEndTry, records ...*kgo.Record) {
	tb.Helper()
	err := producer.BeginTransaction()
	if err == nil {
		err = producer.ProduceSync(tb.Context(), records...).FirstErr()
	}
	if err == nil {
		err = transact.End(tb.Context(), producer, end, records[0].Topic, records[0].Partition)
	}
	if err != nil {
		tb.Fatalf("write a transaction: %v", err)
	}
}

// moveReplica makes the other one of two brokers the only replica of partition 0.
func moveReplica(tb testing.TB, client *kgo.Client, topic string) {
	tb.Helper()
	admin := kadm.NewClient(client)
	where := func() (leader int32, replicas int) {
		topics, err := admin.ListTopics(tb.Context(), topic)
		if err != nil {
			tb.Fatal(err)
		}
		p := topics[topic].Partitions[0]
		return p.Leader, len(p.Replicas)
	}
	from, _ := where()
	var request kadm.AlterPartitionAssignmentsReq
	request.Assign(topic, 0, []int32{1 - from})
	answers, err := admin.AlterPartitionAssignments(tb.Context(), request)
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		tb.Fatalf("move %s: %v", topic, err)
	}
	WaitFor(tb, stepTimeout, fmt.Sprintf("broker %d to lead %s alone", 1-from, topic), func() bool {
		leader, replicas := where()
		return leader == 1-from && replicas == 1
	})
}
