//go:build integration

package app

import (
	"net/http"
	"regexp"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/testkit"
	"pawl/internal/transact"
)

// scraped gives the value of a series as a scrape shows it, and whether it is there.
func (r *running) scraped(series string) (value float64, is bool) {
	r.t.Helper()
	code, text := r.ask(http.MethodGet, "/metrics", "")
	if code != http.StatusOK {
		r.t.Fatalf("/metrics answers %d", code)
	}
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(text)
	if found == nil {
		return 0, false
	}
	value, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		r.t.Fatal(err)
	}
	return value, true
}

// What a scrape of a running service says of its input is so: markers of transactions are no lag, what an open transaction
// holds back is told apart from what waits for us, and for how long readers are held is an age that grows until it ends.
func TestScrapedLagIsTheTruth(t *testing.T) {
	t.Parallel()
	r := runMinimal(t, nothing)
	r.line("starting")
	r.awaitProbe("/readyz", http.StatusOK)
	producer, err := kgo.NewClient(kgo.SeedBrokers(r.conf.Kafka.Brokers...), kgo.TransactionalID("upstream"))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	write := func(records int) {
		t.Helper()
		if err := producer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for range records {
			if err := producer.ProduceSync(t.Context(), &kgo.Record{Topic: "raw", Value: []byte("v")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	end := func(commit kgo.TransactionEndTry) {
		t.Helper()
		if err := transact.End(t.Context(), producer, commit, "raw", 0); err != nil {
			t.Fatal(err)
		}
	}
	const (
		lag     = `processor_consumer_lag_records{partition="0",topic="raw"}`
		seconds = `processor_consumer_lag_seconds{partition="0",topic="raw"}`
		held    = `processor_consumer_held_records{partition="0",topic="raw"}`
		readers = `processor_readers_held_seconds{topic="raw"}`
		done    = `processor_records_total{handler="copy",outcome="committed",topic="raw"}`
	)
	is := func(series string, want float64) func() bool {
		return func() bool {
			got, there := r.scraped(series)
			return there && got == want
		}
	}
	write(3)
	end(kgo.TryCommit)
	testkit.WaitFor(t, patience, "three records and no lag", func() bool { return is(done, 3)() && is(lag, 0)() && is(seconds, 0)() && is(held, 0)() })

	write(2) // and leave it open
	testkit.WaitFor(t, patience, "two records that are held back", is(held, 2))
	if got, _ := r.scraped(lag); got != 0 {
		t.Errorf("of what nobody can read yet the lag is %v, want 0", got)
	}
	first := 0.0
	testkit.WaitFor(t, patience, "readers that are held", func() bool {
		first, _ = r.scraped(readers)
		return first > 0
	})
	testkit.WaitFor(t, patience, "an age that grows", func() bool {
		later, _ := r.scraped(readers)
		return later > first
	})
	end(kgo.TryAbort)
	testkit.WaitFor(t, patience, "readers that are free", func() bool { return is(readers, 0)() && is(held, 0)() && is(lag, 0)() })
	if got, _ := r.scraped(done); got != 3 {
		t.Errorf("%v records were committed, want 3: the others were taken back", got)
	}
	r.end()
}
