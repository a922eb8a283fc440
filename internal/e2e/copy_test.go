//go:build chaos && linux

package e2e

import (
	"testing"
	"time"

	"pawl/internal/cluster"
	"pawl/internal/testkit"
)

// TestCopyIsExactlyOnceThroughFaults lets Kafka's own performance producer write records that two
// processors copy, while processors are killed, frozen for longer than the session timeout and let
// go on as zombies, the broker is restarted, and a third processor joins and leaves. In the end every
// value must be there once, in order; a reader that follows the output all the time must never see
// anything twice or go back.
func TestCopyIsExactlyOnceThroughFaults(t *testing.T) {
	const (
		nodes  = 3
		heapMB = 384
		bytes  = 500
		kills  = 10
		frozen = 3
		broken = 3
		visits = 5
		rate   = 8000 // records/s on average; what the producer misses while it stands it makes up for at once
	)
	records, rounds := int64(500_000), 1
	if *long {
		records, rounds = 5_000_000, 10
	}
	random := chance(t)
	// Transactions that nobody ends are looked for every second instead of every ten: only the speed
	// of this test hangs on it.
	k := testkit.OpenKafka(t, cluster.KafkaConfig{Nodes: nodes, HeapMB: heapMB, Settings: map[string]string{"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000"}})
	r := newRig(t, k, "kafka.session_timeout=6s", "txn.timeout=10s", "txn.handler_timeout=2s")
	n := &nemesis{
		t: t, rig: r, random: random, monitor: r.monitor(), total: records,
		steady: []*processor{r.processor("a"), r.processor("b")}, extra: r.processor("c"),
		counts: map[fault]int{}, open: map[fault]int{}, took: map[fault]time.Duration{},
	}
	reader := watch(t.Context(), t, "the reader that followed", k.Brokers(), "", r.output)
	for _, p := range n.steady {
		p.start(t)
	}
	for _, p := range n.steady {
		p.awaitReady(t)
	}

	began := time.Now()
	faults := plan(random, kills*rounds, frozen*rounds, broken*rounds, visits*rounds)
	producer := r.perfProducer(t, n.monitor, records, bytes, rate, len(faults))
	for i, f := range faults {
		n.strike(f)
		producer.plan(len(faults)-1-i, i+1, time.Since(began))
	}
	t.Logf("%d faults in %.0fs", len(faults), time.Since(began).Seconds())
	began = time.Now()
	producer.finish(t, 5*time.Minute)
	n.monitor.awaitCaughtUp(t, 2*time.Minute, records)
	t.Logf("caught up %.1fs after the last fault", time.Since(began).Seconds())

	for f, want := range map[fault]int{
		kill: kills * rounds, zombie: frozen * rounds, join: visits * rounds,
		leaveDrain: (visits*rounds + 1) / 2, leaveSilent: visits * rounds / 2,
		brokerKill: (broken*rounds + 1) / 2, brokerStop: broken * rounds / 2,
	} {
		if n.counts[f] < want {
			t.Errorf("%s %d times, want %d", f, n.counts[f], want)
		}
	}
	if n.open[kill] == 0 {
		t.Errorf("none of %d kills hit an open transaction", n.counts[kill])
	}
	for _, p := range n.steady {
		p.terminate(t, endTimeout)
	}

	began = time.Now()
	saw := r.verify(t, nil)
	if saw.Judged != records {
		t.Errorf("the input has %d records, want %d", saw.Judged, records)
	}
	if saw.TransactionsAborted == 0 {
		t.Error("no transaction was aborted: no fault has hit anything")
	}
	r.verifyReader(t, reader)
	r.verifyByConsole(t)
	t.Logf("verified in %.1fs: %d values once each, %d aborted transactions with %d records that no reader saw; kills in mid-transaction: %d of %d; zombies in mid-transaction: %d of %d",
		time.Since(began).Seconds(), saw.Judged, saw.TransactionsAborted, saw.Aborted,
		n.open[kill], n.counts[kill], n.open[zombie], n.counts[zombie])
	for f, took := range n.took {
		t.Logf("%s: %d times, %.1fs each", f, n.counts[f], took.Seconds()/float64(n.counts[f]))
	}
}
