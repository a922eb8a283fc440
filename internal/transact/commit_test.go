package transact

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const topic = "results"

// open makes a cluster and a producer in a transaction, in virtual time.
func open(t *testing.T) (*kfake.Cluster, *kgo.Client) {
	t.Helper()
	var network kfake.VirtualNetwork
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic), kfake.ListenFn(network.Listen), kfake.Ports(9092))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.Dialer(network.DialContext), kgo.TransactionalID("id"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if _, _, err := client.ProducerID(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	return cluster, client
}

// ends counts EndTxn requests by what they ask for.
func ends(cluster *kfake.Cluster, commit bool) *kfake.FaultHandle {
	return cluster.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.EndTxn}, TopLevel: true, Observe: true, Count: -1,
		When: func(request kmsg.Request) bool {
			end, ok := request.(*kmsg.EndTxnRequest)
			return ok && end.Commit == commit
		},
	})
}

// The client learns of its first topic late, here because brokers are slow to tell. The transaction is not ended before.
func TestCommitWaitsUntilTheClientKnowsWhereItWrote(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster, client := open(t)
		commits, aborts := ends(cluster, true), ends(cluster, false)
		held := false
		cluster.ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
			cluster.KeepControl()
			if !held {
				held = true
				cluster.SleepControl(func() { time.Sleep(time.Second) }) //nolint:forbidigo // virtual time
			}
			return nil, nil, false
		})
		client.Produce(t.Context(), &kgo.Record{Topic: topic, Value: []byte("v")}, nil)
		began := time.Now()
		if err := Commit(t.Context(), client, topic, 0); err != nil {
			t.Fatal(err)
		}
		leader, _, _ := client.PartitionLeader(topic, 0)
		if took := time.Since(began); !held || leader < 0 || took < time.Second {
			t.Errorf("ended after %s with %d commits and %d aborts, leader %d; metadata was held: %t; want it after a second, and a leader",
				took, commits.Hits(), aborts.Hits(), leader, held)
		}
	})
}

func TestCommitOfWhatNobodyKnowsIsAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster, client := open(t)
		commits, aborts := ends(cluster, true), ends(cluster, false)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := Commit(ctx, client, "nowhere", 0); err == nil || commits.Hits()+aborts.Hits() > 0 {
			t.Errorf("error %v, %d commits and %d aborts were sent; want an error and none", err, commits.Hits(), aborts.Hits())
		}
	})
}

// What is aborted needs no partition that the client knows.
func TestEndEndsAsItIsAskedTo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster, client := open(t)
		commits, aborts := ends(cluster, true), ends(cluster, false)
		record := &kgo.Record{Topic: topic, Value: []byte("v")}
		if err := client.ProduceSync(t.Context(), record).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := End(t.Context(), client, kgo.TryAbort, "nowhere", 0); err != nil || commits.Hits() > 0 || aborts.Hits() != 1 {
			t.Errorf("error %v, %d commits and %d aborts were sent; want one abort", err, commits.Hits(), aborts.Hits())
		}
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := client.ProduceSync(t.Context(), record).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := End(t.Context(), client, kgo.TryCommit, topic, 0); err != nil || commits.Hits() != 1 || aborts.Hits() != 1 {
			t.Errorf("error %v, %d commits and %d aborts were sent; want one commit beside the abort", err, commits.Hits(), aborts.Hits())
		}
	})
}

func TestCommitCommits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster, client := open(t)
		commits, aborts := ends(cluster, true), ends(cluster, false)
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := Commit(t.Context(), client, topic, 0); err != nil || commits.Hits() != 1 || aborts.Hits() > 0 {
			t.Errorf("error %v, %d commits and %d aborts were sent; want one commit", err, commits.Hits(), aborts.Hits())
		}
	})
}
