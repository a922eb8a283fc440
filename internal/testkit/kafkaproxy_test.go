//go:build integration

package testkit

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/cluster"
	"pawl/internal/transact"
)

// produceInTransaction writes one record in a transaction that it leaves open.
func produceInTransaction(t *testing.T, client *kgo.Client) {
	t.Helper()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), kgo.StringRecord("in a transaction")).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// The two faults that hide the end of a transaction from its client: the broker commits, and its
// answer is lost again and again, or says that something went wrong.
func TestEndTxnAnswerIsLostOrRewritten(t *testing.T) {
	t.Parallel()
	k, proxies := KafkaBehindProxies(t, cluster.KafkaConfig{})
	topic := Name(t, "topic")
	CreateTopics(t, k.InternalBrokers(), 1, nil, topic)
	id := Name(t, "id")
	options := []kgo.Opt{kgo.TransactionalID(id), kgo.DefaultProduceTopic(topic), kgo.RetryTimeout(2 * time.Second)}
	mine := func(r kmsg.Request) bool {
		end, ok := r.(*kmsg.EndTxnRequest)
		return ok && end.TransactionalID == id
	}

	client := Client(t, k.Brokers(), options...)
	produceInTransaction(t, client)
	lost := proxies.Inject(t, Fault{Key: kmsg.EndTxn, Match: mine, LoseAnswer: true})
	if err := transact.Commit(t.Context(), client, topic, 0); err == nil {
		t.Error("the client learned how the transaction ended")
	}
	if lost.Hits() < 2 {
		t.Errorf("%d answers lost, want all of several tries", lost.Hits())
	}
	lost.Remove()
	if got := ReadCommitted(t, k.InternalBrokers(), topic); len(got) != 1 {
		t.Errorf("after the lost answer: %d committed records, want 1", len(got))
	}

	client = Client(t, k.Brokers(), options...)
	produceInTransaction(t, client)
	rewritten := proxies.Inject(t, Fault{Key: kmsg.EndTxn, Times: 1, Rewrite: ErrorCode(kerr.UnknownServerError)})
	if err := transact.Commit(t.Context(), client, topic, 0); !errors.Is(err, kerr.UnknownServerError) {
		t.Errorf("end: %v, want %v", err, kerr.UnknownServerError)
	}
	if rewritten.Hits() != 1 {
		t.Errorf("%d answers rewritten, want 1", rewritten.Hits())
	}
	if got := ReadCommitted(t, k.InternalBrokers(), topic); len(got) != 2 {
		t.Errorf("after the rewritten answer: %d committed records, want 2", len(got))
	}
}

// A request that is held back, and a connection that is cut before the request: nothing happens at
// the broker before time, and the client gets over it.
func TestRequestsAreHeldAndDropped(t *testing.T) {
	t.Parallel()
	k, proxies := KafkaBehindProxies(t, cluster.KafkaConfig{})
	topic := Name(t, "topic")
	CreateTopics(t, k.InternalBrokers(), 1, nil, topic)
	client := Client(t, k.Brokers(), kgo.DefaultProduceTopic(topic))

	release := make(chan struct{})
	held := proxies.Inject(t, Fault{Key: kmsg.Produce, Times: 1, HoldRequest: release})
	done := make(chan error, 1)
	go func() {
		done <- client.ProduceSync(context.WithoutCancel(t.Context()), kgo.StringRecord("held")).FirstErr()
	}()
	held.AwaitHits(t, 10*time.Second, 1)
	if end := EndOffsets(t, k.InternalBrokers(), topic)[0]; end != 0 {
		t.Errorf("end offset is %d while the request is held, want 0", end)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}

	proxies.Inject(t, Fault{Key: kmsg.Produce, Times: 2, DropRequest: true})
	if err := client.ProduceSync(t.Context(), kgo.StringRecord("dropped twice")).FirstErr(); err != nil {
		t.Error(err)
	}
	if end := EndOffsets(t, k.InternalBrokers(), topic)[0]; end != 2 {
		t.Errorf("end offset is %d, want 2", end)
	}
}

// A processor alone can be cut off from brokers that all others reach, by its clients' id.
func TestHoldAndCutStrikeChosenClientsOnly(t *testing.T) {
	t.Parallel()
	k, proxies := KafkaBehindProxies(t, cluster.KafkaConfig{})
	proxy := proxies.Node(0)
	chosen, other := Client(t, k.Brokers(), kgo.ClientID("chosen")), Client(t, k.Brokers(), kgo.ClientID("other"))
	ping := func(client *kgo.Client, timeout time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		return client.Ping(ctx)
	}
	for _, client := range []*kgo.Client{chosen, other} {
		if err := ping(client, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	proxies.Choose(func(id string) bool { return id == "chosen" })
	proxy.Hold(Both)
	if err := ping(other, 10*time.Second); err != nil {
		t.Errorf("the other client is held, too: %v", err)
	}
	if err := ping(chosen, time.Second); err == nil {
		t.Error("the chosen client is not held")
	}
	if proxy.Cut() == 0 {
		t.Error("no connection of the chosen client was cut")
	}
	proxy.Release()
	if err := ping(chosen, 10*time.Second); err != nil {
		t.Error(err)
	}
	proxies.Choose(nil)
	if proxy.Cut() < 2 {
		t.Error("with nobody chosen, not everybody's connections were cut")
	}
	never := proxies.Try(Fault{Key: kmsg.EndTxn, DropRequest: true})
	never.Remove() // that it never happened is no failure
}
