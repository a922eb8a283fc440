//go:build integration

package ingest

import (
	"bytes"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/cluster"
	"pawl/internal/outbox/ledger/ledgertest"
	"pawl/internal/testkit"
)

// move makes the other one of two brokers the only replica of a lane, which catches up by itself.
func (w *world) move(lane int32) {
	w.t.Helper()
	leader := func() (broker int32, replicas int) {
		topics, err := w.admin.ListTopics(w.t.Context(), w.topic)
		w.must(err)
		p := topics[w.topic].Partitions[lane]
		return p.Leader, len(p.Replicas)
	}
	from, _ := leader()
	var request kadm.AlterPartitionAssignmentsReq
	request.Assign(w.topic, lane, []int32{1 - from})
	answers, err := w.admin.AlterPartitionAssignments(w.t.Context(), request)
	w.must(err)
	w.must(answers.Error())
	testkit.WaitFor(w.t, patience, "the other broker to lead alone", func() bool {
		broker, replicas := leader()
		return broker == 1-from && replicas == 1
	})
}

// A producer aborts twice in a row and another one commits. A replica that catches up with all that at once writes
// into its index that everything up to the third transaction was decided with the first. Leader later, it does not
// list the second one with an answer that ends within it, and a client gives its records as committed.
func TestAbortedEffectsThatTheBrokerDoesNotListAreNotIngested(t *testing.T) {
	t.Parallel()
	const large = 2 * fetchBytesMax
	kafka := testkit.OpenKafka(t, cluster.KafkaConfig{Nodes: 2, Settings: map[string]string{
		"default.replication.factor": "1", "replica.fetch.max.bytes": "16777216", "replica.fetch.response.max.bytes": "16777216",
	}})
	name := testkit.Name(t, "effects")
	testkit.CreateTopics(t, kafka.Brokers(), 1, nil, name)
	w := openWorld(t, name, 1, nil, kgo.SeedBrokers(kafka.Brokers()...))
	one := w.connect(kgo.TransactionalID(name+"-1"), kgo.ProducerBatchCompression(kgo.NoCompression()))
	other := w.connect(kgo.TransactionalID(name + "-2"))
	w.transact(one, kgo.TryAbort, effect(0, 0))
	var batch []*kgo.Record
	for n := range int64(32) {
		batch = append(batch, effect(0, n, func(r *kgo.Record) { r.Value = bytes.Repeat([]byte("x"), large/32) }))
	}
	w.transact(one, kgo.TryAbort, batch...)
	w.transact(other, kgo.TryCommit, effect(0, 32))
	w.move(0)

	var unlisted atomic.Int64
	w.run(func(c *Config) { c.Hooks.Unlisted = func(_ int32, records int64) { unlisted.Add(records) } })
	end := w.topicEnd(0)
	w.await(0, end)
	w.exact(0)
	if unlisted.Load() == 0 {
		t.Error("the broker listed all that was aborted: nothing was shown")
	}

	anew := w.config
	ledger := &ledgertest.Memory{}
	anew.Store = ledger
	w.must(ledger.Seed(t.Context(), 0, w.topicID(), 0))
	filler, err := OpenFiller(t.Context(), anew, 0)
	w.must(err)
	defer filler.Close()
	_, err = filler.Fill(t.Context(), end)
	w.must(err)
	if got := ledger.Intents(0); len(got) != 1 || got[0].Source.Offset != 32 {
		t.Errorf("a ledger that is made anew has %d effects, want the one that is committed", len(got))
	}
}
