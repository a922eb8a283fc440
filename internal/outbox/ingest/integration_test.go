//go:build integration

package ingest

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"pawl/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m, func() error { return goleak.Find() })) }

func realWorld(t *testing.T, lanes int32) *world {
	t.Helper()
	brokers := testkit.Kafka(t)
	name := testkit.Name(t, "effects")
	testkit.CreateTopics(t, brokers, lanes, nil, name)
	return openWorld(t, name, lanes, nil, kgo.SeedBrokers(brokers...))
}

// A group of three ingesters, of which one leaves and one comes, on a ledger that fails now and then,
// while transactions commit and abort. A broker has its own ideas of when a marker is visible.
func TestRealBrokerEachEffectOnce(t *testing.T) {
	t.Parallel()
	w := realWorld(t, 4)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var calls, failed atomic.Int64
	w.ledger.Fail = func(string, bool) error {
		if rand.New(rand.NewPCG(seed, uint64(calls.Add(1)))).IntN(20) != 0 {
			return nil
		}
		failed.Add(1)
		return errStore
	}
	join := func(c *Config) { c.Group, c.Heartbeat = w.topic, 200*time.Millisecond }
	first := w.run(join)
	w.run(join)
	producer := w.connect(kgo.TransactionalID(w.topic))
	chance := rand.New(rand.NewPCG(seed, 0))
	var last [4]int64 // of the lane's committed records
	input := int64(0)
	for n := range 120 {
		var records []*kgo.Record
		for range 1 + chance.IntN(50) {
			records = append(records, effect(int32(chance.IntN(4)), input))
			input++
		}
		end := kgo.TransactionEndTry(chance.IntN(4) > 0)
		w.transact(producer, end, records...)
		for _, r := range records {
			if end {
				last[r.Partition] = r.Offset + 1
			}
		}
		switch n {
		case 40:
			w.drain(first)
		case 80:
			w.run(join)
		}
	}
	for lane := range int32(4) {
		w.await(lane, last[lane])
		w.exact(lane)
	}
	if failed.Load() == 0 {
		t.Error("the ledger never failed: nothing was shown")
	}
}

// From the end of a transaction to the hand-off: a reader of committed records must be woken by the
// marker and not wait for its fetch to run out.
func TestRealBrokerWakesTheReaderAtTheMarker(t *testing.T) {
	t.Parallel()
	w := realWorld(t, 1)
	w.run()
	producer := w.connect(kgo.TransactionalID(w.topic))
	var took []time.Duration
	for n := range int64(200) {
		w.must(producer.BeginTransaction())
		record := effect(0, n)
		w.must(producer.ProduceSync(t.Context(), record).FirstErr())
		begun := time.Now()
		w.end(producer, kgo.TryCommit, record)
		next(t, w.ingested, "batch")
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	t.Logf("p50 %s, p95 %s, p99 %s", took[100], took[190], took[198])
	if took[100] > fetchMaxWait/5 {
		t.Errorf("half of the effects took %s and more", took[100])
	}
}

// What a broker answers about topics that are not what they were.
func TestRealBrokerHaltsTheLane(t *testing.T) {
	t.Parallel()
	t.Run("recreated", func(t *testing.T) {
		t.Parallel()
		w := realWorld(t, 1)
		w.run()
		w.produce(effects(0, 0, 5)...)
		w.await(0, 5)
		_, err := w.admin.DeleteTopics(t.Context(), w.topic)
		w.must(err)
		brokers := testkit.Kafka(t)
		testkit.CreateTopics(t, brokers, 1, nil, w.topic)
		w.must(w.connect().ProduceSync(t.Context(), effects(0, 100, 120)...).FirstErr())
		if h := next(t, w.halted, "halt"); !strings.Contains(h.err.Error(), "deleted and made again") {
			t.Errorf("halted: %v", h.err)
		}
		if got := w.offsets(0); len(got) != 5 {
			t.Errorf("the ledger has %v of the new topic", got)
		}
	})
	t.Run("truncated", func(t *testing.T) {
		t.Parallel()
		w := realWorld(t, 2)
		w.produce(append(effects(0, 0, 10), effects(1, 0, 10)...)...)
		w.must(w.ledger.Seed(t.Context(), 0, w.topicID(), 3))
		w.truncate(0, 4)
		w.run()
		if h := next(t, w.halted, "halt"); h.lane != 0 || !strings.Contains(h.err.Error(), "up to 3, but it begins at 4") {
			t.Errorf("lane %d halted: %v", h.lane, h.err)
		}
		w.await(1, 10)
		w.exact(1)
	})
}
