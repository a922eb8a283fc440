//go:build integration

package ingest

import (
	"bytes"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/outbox/ledger/ledgertest"
	"pawl/internal/testkit"
)

// A producer aborts twice in a row and another one commits. A replica that catches up with all that at once writes
// into its index that everything up to the third transaction was decided with the first. Leader later, it does not
// list the second one with an answer that ends within it, and a client gives its records as committed.
func TestAbortedEffectsThatTheBrokerDoesNotListAreNotIngested(t *testing.T) {
	t.Parallel()
	const count, size = 32, 2 * fetchBytesMax / 32
	var aborted []*kgo.Record
	for n := range int64(count) {
		aborted = append(aborted, effect(0, n, func(r *kgo.Record) { r.Value = bytes.Repeat([]byte("x"), size) }))
	}
	kafka, topic := testkit.UnlistedKafka(t, effect(0, 0), aborted, effect(0, count))
	w := openWorld(t, topic, 1, nil, kgo.SeedBrokers(kafka.Brokers()...))
	end := w.topicEnd(0)

	var unlisted atomic.Int64
	w.run(func(c *Config) { c.Hooks.Unlisted = func(_ int32, records int64) { unlisted.Add(records) } })
	w.await(0, end)
	w.exact(0)
	if unlisted.Load() == 0 {
		t.Error("the broker listed all that was aborted: nothing was shown")
	}
	if got := testkit.ReadCommitted(t, kafka.Brokers(), topic); len(got) != 1 || got[0].Offset != end-2 {
		t.Errorf("tests are given %d records, want the one that is committed", len(got))
	}

	anew, ledger := w.config, &ledgertest.Memory{}
	anew.Store = ledger
	w.must(ledger.Seed(t.Context(), 0, w.topicID(), 0))
	filler, err := OpenFiller(t.Context(), anew, 0)
	w.must(err)
	defer filler.Close()
	_, err = filler.Fill(t.Context(), end)
	w.must(err)
	if got := ledger.Intents(0); len(got) != 1 || got[0].Source.Offset != count {
		t.Errorf("a ledger that is made anew has %d effects, want the one that is committed", len(got))
	}
}
