//go:build integration

package relay

import (
	"net"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"pawl/internal/outbox"
	"pawl/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m, func() error { return goleak.Find() })) }

func realWorld(t *testing.T, lanes int32) *world {
	t.Helper()
	brokers := testkit.Kafka(t)
	application := testkit.Name(t, "app")
	w := &world{
		t: t, brokers: brokers, dial: new(net.Dialer).DialContext,
		application: application, results: application + ".effect-results", progress: application + ".relay-progress",
	}
	testkit.CreateTopics(t, brokers, lanes, nil, w.results)
	testkit.CreateTopics(t, brokers, lanes, map[string]string{"cleanup.policy": "compact"}, w.progress)
	return w.open()
}

// A relay dies in each place where a transaction can be cut, one after the other, on a broker that has its
// own ideas of when a transaction has ended and where a log ends.
func TestRealBrokerOneEventEachThroughDeaths(t *testing.T) {
	t.Parallel()
	w := realWorld(t, 2)
	settled := int64(0)
	settle := func(n int) {
		w.settle(0, n, 5, outbox.Done)
		w.settle(1, n, 5, outbox.Done)
		settled += int64(n)
	}
	settle(20)
	for _, f := range []fault{
		{key: kmsg.Produce}, {key: kmsg.Produce, after: true}, {key: kmsg.EndTxn}, {key: kmsg.EndTxn, after: true}, {key: kmsg.Fetch, after: true},
	} {
		p := w.run(nil)
		f.kill, f.then = true, p.stop
		p.wire.arm(f)
		p.relay.Assign(0)
		<-p.ended
		if p.wire.struck() != 1 {
			t.Fatalf("%v: the relay died %d times, want once", f.key, p.wire.struck())
		}
		settle(5)
	}
	begun := time.Now()
	last := w.run([]int32{0, 1})
	testkit.WaitFor(t, time.Minute, "the lanes to be told", func() bool {
		lanes := last.relay.Status().Lanes
		return lanes[0].Seq == w.seqs[0] && lanes[1].Seq == w.seqs[1]
	})
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("the last relay needed %s: it must not wait for the timeout of a transaction", took)
	}
	w.wantOnce(outbox.Done, map[int32]int64{0: settled, 1: settled})
}

// The last thing in the log of the progress is an aborted transaction: no record ever comes that shows its end.
func TestRealBrokerProgressBeforeAbortedTail(t *testing.T) {
	t.Parallel()
	w := realWorld(t, 1)
	w.settle(0, 10, 5, outbox.Done)
	p := w.run([]int32{0})
	p.told(10)
	p.end()
	rogue := testkit.Client(t, w.brokers, kgo.TransactionalID(w.application+".rogue"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := rogue.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := rogue.ProduceSync(t.Context(), &kgo.Record{Topic: w.progress, Key: []byte("0"), Value: []byte(`{"format":1,"seq":99}`)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := rogue.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	w.settle(0, 10, 5, outbox.Done)
	w.run([]int32{0}).told(10)
	w.wantOnce(outbox.Done, map[int32]int64{0: 20})
}

// A ledger is restored under a running relay.
func TestRealBrokerRestoredLedgerTellsNothingTwice(t *testing.T) {
	t.Parallel()
	w := realWorld(t, 1)
	w.settle(0, 200, 5, outbox.Done)
	backup := w.backup()
	w.settle(0, 300, 5, outbox.Done)
	p := w.run([]int32{0})
	p.told(500)
	w.restore(0, backup)
	w.settle(0, 350, 7, outbox.Done)
	p.relay.Wake(0)
	p.told(50)
	next(t, p.diverged, "divergence")
	w.wantOnce(outbox.Done, map[int32]int64{0: 550})
}
