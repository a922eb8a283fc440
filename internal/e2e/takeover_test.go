//go:build chaos && linux

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/cluster"
	"pawl/internal/testkit"
)

// A processor is killed after its offsets are in the transaction and before the transaction ends, and nobody starts it
// again. The survivor waits for the group to give the dead one up, and not for the transaction's timeout, which is far:
// it commits for all partitions of the dead one within session timeout + 2 heartbeats + 2 s. That bound is the
// protocol's, and what is promised to operators.
func TestSurvivorTakesOverWhatNobodyRestarts(t *testing.T) {
	k, proxies := testkit.KafkaBehindProxies(t, cluster.KafkaConfig{Nodes: 1, Settings: map[string]string{
		// Under the newer protocol brokers decide what the configuration says for the classic one.
		"group.consumer.min.session.timeout.ms": "6000", "group.consumer.session.timeout.ms": "6000",
		"group.consumer.min.heartbeat.interval.ms": "1000", "group.consumer.heartbeat.interval.ms": "1000",
	}})
	for _, protocol := range []string{"classic", "consumer"} {
		t.Run(protocol, func(t *testing.T) { survive(t, k, proxies, protocol) })
	}
}

func survive(t *testing.T, k *cluster.Kafka, proxies *testkit.KafkaProxies, protocol string) {
	t.Helper()
	const session, heartbeat = 6 * time.Second, time.Second
	r := newRig(t, k, "txn.timeout=5m", "kafka.rebalance_timeout=5m", "kafka.session_timeout=6s", "kafka.protocol="+protocol)
	dead, survivor := r.processor("dead"), r.processor("survivor")
	for _, p := range []*processor{dead, survivor} {
		p.start(t)
		p.awaitReady(t)
	}
	for _, p := range []*processor{dead, survivor} {
		p.await(t, startTimeout, "half of the partitions", func() bool { return p.metric("processor_assigned_partitions") == partitions/2 })
	}
	r.send(t, 0, 1000)
	r.awaitCaughtUp(t)
	id := r.application + ".dead."
	died := make(chan time.Time, 1)
	fault := proxies.Inject(t, testkit.Fault{Key: kmsg.EndTxn, Times: 1, DropRequest: true, Match: func(request kmsg.Request) bool {
		end, ok := request.(*kmsg.EndTxnRequest)
		return ok && end.Commit && strings.HasPrefix(end.TransactionalID, id)
	}, Strike: func() {
		dead.kill()
		died <- time.Now()
	}})
	r.send(t, 1000, 1000)
	fault.AwaitHits(t, time.Minute, 1)
	at := <-died
	if open := r.ongoing(t, "dead"); len(open) == 0 {
		t.Error("the kill hit no open transaction")
	}
	r.awaitCaughtUp(t)
	took := time.Since(at)
	t.Logf("%s: the survivor had committed for every partition of the dead one %s after its death", protocol, took)
	if most := session + 2*heartbeat + 2*time.Second; took > most {
		t.Errorf("the survivor took %s, want at most %s", took, most)
	}
	if open := r.ongoing(t, "dead"); len(open) > 0 {
		t.Errorf("transactions of the dead one are still open: %v", open)
	}
	if n := survivor.metric("processor_buried_transactions_total"); n < 1 {
		t.Errorf("the survivor ended %v transactions of the dead one, want at least 1", n)
	}
	survivor.terminate(t, endTimeout)
	if saw := r.verify(t, nil); saw.Judged != 2000 {
		t.Errorf("%d records were judged, want 2000", saw.Judged)
	}
}
