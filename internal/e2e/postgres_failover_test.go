//go:build chaos && linux

package e2e

import (
	"strings"
	"testing"
	"time"

	"pawl/internal/cluster"
	"pawl/internal/testkit"
)

const (
	failoverOrders = 2000
	failoverRate   = 400
)

// failover is a siege whose database has a standby. The processor knows both and takes the one that
// takes writes.
type failover struct {
	*siege
	primary, standby *cluster.Postgres
	link             *testkit.Proxy // by which the standby follows
}

func newFailover(t *testing.T, k *cluster.Kafka) *failover {
	t.Helper()
	f := &failover{primary: testkit.OpenPostgres(t, cluster.PostgresConfig{Durable: true})}
	f.link = testkit.NewProxy(t, hostOf(t, f.primary.DSN()))
	f.standby = testkit.OpenStandby(t, f.primary, cluster.PostgresConfig{Durable: true}, f.link.Address())
	both := hostOf(t, f.primary.DSN()) + "," + hostOf(t, f.standby.DSN())
	f.siege = besiege(t, k, f.primary.DSN(), withHosts(t, f.primary.DSN(), both)+"&target_session_attrs=read-write")
	return f
}

// fail kills the primary and promotes the standby.
func (f *failover) fail(t *testing.T) {
	t.Helper()
	if err := f.primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := f.standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.dsn = f.standby.DSN()
}

// A primary dies in the middle of the work and its standby takes over. Nothing that was acknowledged is
// missing there, so that nothing happens twice.
func TestEffectsSurviveAFailoverToASynchronousStandby(t *testing.T) {
	f := newFailover(t, testkit.OpenKafka(t, cluster.KafkaConfig{Nodes: 1}))
	if err := f.primary.Synchronize(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.processor.start(t)
	f.processor.awaitReady(t)
	finish := f.feeding(t, failoverOrders, failoverRate)
	testkit.WaitFor(t, time.Minute, "calls to fail over in", func() bool { return f.receiver.accepted() >= failoverOrders/4 })
	f.fail(t)
	before := f.receiver.accepted()
	finish()
	f.settleKnown(t)
	if retries := f.processor.metric("processor_outbox_retries_total"); retries == 0 {
		t.Error("the processor has not noticed that its database died")
	}
	if before >= failoverOrders {
		t.Error("all calls were made before the failover")
	}
	t.Logf("failed over once, at %d of %d calls", before, failoverOrders)
}

// A standby that is behind takes over: acknowledged appends and flushes are missing. What the topic
// still has is read again and called again, under the same key and a later fence; the results that were
// told are not told again.
func TestEffectsSurviveAFailoverThatLosesCommits(t *testing.T) {
	f := newFailover(t, testkit.OpenKafka(t, cluster.KafkaConfig{Nodes: 1}))
	f.processor.start(t)
	f.processor.awaitReady(t)
	f.feed(t, failoverOrders/2, failoverRate)
	if repeated := f.settle(t); len(repeated) > 0 {
		t.Fatalf("calls were repeated without a reason: %v", repeated)
	}
	known := f.readEffects(t)
	f.awaitFollowed(t)
	f.link.Refuse()
	f.feed(t, failoverOrders/4, failoverRate)
	if repeated := f.settle(t); len(repeated) > 0 { // all is told
		t.Fatalf("calls were repeated without a reason: %v", repeated)
	}
	f.fail(t)
	if missing := len(f.readEffects(t)) - f.rows(t, "pawl.effect"); missing != failoverOrders/4 {
		t.Fatalf("%d effects are missing on the standby, want %d", missing, failoverOrders/4)
	}
	f.feed(t, failoverOrders/4, failoverRate)
	repeated := f.settle(t)
	if len(repeated) == 0 {
		t.Error("no call was repeated whose outcome was lost")
	}
	for at, n := range repeated {
		if _, kept := known[at]; kept || n != 1 {
			t.Errorf("the call of %s was repeated %d times; its outcome was lost: %t", at, n, !kept)
		}
	}
	if f.processor.metric("processor_outbox_relay_diverged_total") == 0 {
		t.Error("the relay has not noticed that the ledger lacks what it told")
	}
	t.Logf("failed over once with %d effects missing; %d calls repeated; %v results not told twice", failoverOrders/4, len(repeated),
		f.processor.metric("processor_outbox_results_skipped_total"))
}

// awaitFollowed waits until the standby has all that the primary wrote so far.
func (f *failover) awaitFollowed(t *testing.T) {
	t.Helper()
	connection := f.connect(t)
	defer func() { _ = connection.Close(t.Context()) }()
	var end string
	if err := connection.QueryRow(t.Context(), "SELECT pg_current_wal_flush_lsn()::text").Scan(&end); err != nil {
		t.Fatal(err)
	}
	testkit.WaitFor(t, startTimeout, "the standby to follow", func() bool {
		var there bool
		if err := connection.QueryRow(t.Context(), "SELECT bool_and(replay_lsn >= $1::pg_lsn) FROM pg_stat_replication", end).Scan(&there); err != nil && !strings.Contains(err.Error(), "NULL") {
			t.Fatal(err)
		}
		return there
	})
}
