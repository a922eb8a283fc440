//go:build integration

package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger"
	"pawl/internal/postgres"
)

// later is when the generations that a migration made are to be dropped.
func later() time.Time { return time.Now().Add(100 * 24 * time.Hour) }

// age moves all generations into the past, so that the one after the newest is due and older ones are
// over, and makes the new ones by way of upkeep. Only a ledger opened after it knows at once.
func (b bench) age() {
	b.t.Helper()
	b.exec("UPDATE pawl.gen SET opens_at = opens_at - interval '30 days', closes_at = closes_at - interval '30 days'")
}

// reopened is a process that starts now.
func (b bench) reopened(config ledger.Config) bench {
	b.Ledger = ledger.Open(b.pool, config)
	b.exec("DELETE FROM pawl.upkeep") // the lease of the process before has run out
	return b
}

func (b bench) upkeep() {
	b.t.Helper()
	b.must(b.Maintain(b.t.Context(), time.Now()))
}

func (b bench) oldest() int64 { return b.number("SELECT min(gen) FROM pawl.gen") }

func TestGenerationsAreMadeAhead(t *testing.T) {
	t.Parallel()
	var made []int
	b := open(t, ledger.Config{Hooks: ledger.Hooks{Made: func(g int) { made = append(made, g) }}})
	b.upkeep()
	b.upkeep()
	if len(made) != 0 {
		t.Errorf("%v were made beside those of the migration", made)
	}
	b.must(b.Maintain(t.Context(), time.Now().Add(36*time.Hour)))
	if !slices.Equal(made, []int{4}) {
		t.Errorf("%v were made, want 4", made)
	}
	b.is(0, "SELECT count(*) FROM pawl.gen a JOIN pawl.gen b ON b.gen = a.gen + 1 WHERE a.closes_at <> b.opens_at")
	// After a year without upkeep there is no generation for each day of it.
	b.must(b.Maintain(t.Context(), time.Now().Add(365*24*time.Hour)))
	if len(made) > 5 {
		t.Errorf("%v were made", made)
	}
}

func TestOneProcessDoesTheUpkeep(t *testing.T) {
	t.Parallel()
	b := open(t, ledger.Config{})
	b.upkeep()
	var made atomic.Int32
	other := ledger.Open(b.pool, ledger.Config{Hooks: ledger.Hooks{Made: func(int) { made.Add(1) }}})
	b.must(other.Maintain(t.Context(), later()))
	if made.Load() != 0 {
		t.Error("two processes do the upkeep")
	}
}

// What waits, what is dead and where a lane stands all outlive their generation; the rest goes.
func TestWhatIsStillNeededOutlivesItsGeneration(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var held, dropped []int
	config := ledger.Config{Hooks: ledger.Hooks{
		Held: func(g int, _ int32) { held = append(held, g) }, Dropped: func(g int) { dropped = append(dropped, g) },
	}}
	b := open(t, config)
	b.filled(lane, 10)
	b.filled(lane+1, 10) // never dispatched
	tenure := b.acquire(lane)
	f := settle(tenure, 1, 10, done(0), done(1), done(3), done(4), done(5), done(6), done(7), done(8), outbox.Outcome{Offset: 9, Status: outbox.Dead, Attempts: 2, HTTPStatus: 422, Error: "no"})
	f.Parked = []outbox.Parked{{Offset: 2, Role: outbox.Retry, Attempts: 1, Status: 503, Error: "busy"}}
	b.must(b.Flush(ctx, f))
	wanted, err := b.Get(ctx, lane, []int64{2, 9})
	b.must(err)

	b.age()
	b = b.reopened(config)
	b.upkeep()
	if len(held) == 0 || held[0] != 1 || b.oldest() != 1 {
		t.Fatalf("held %v: a lane has pending effects, and nothing is relayed", held)
	}
	other := b.acquire(lane + 1)
	b.must(b.Flush(ctx, doneRange(other, 1, 0, 10)))
	b.must(b.Told(ctx, other, 1))
	b.upkeep()
	if b.oldest() != 1 {
		t.Fatal("a generation was dropped whose outcomes are not relayed")
	}
	b.must(b.Told(ctx, tenure, 1))
	stale := ledger.Open(b.pool, ledger.Config{}) // remembers the generations as they are
	if _, _, err := stale.Page(ctx, lane, 0, 5); err != nil {
		t.Fatal(err)
	}
	b.upkeep()
	if b.oldest() == 1 || !slices.Contains(dropped, 1) {
		t.Fatalf("generation 1 is still there, dropped are %v", dropped)
	}
	b.is(0, "SELECT count(*) FROM pg_class WHERE relname ~ '_g1$'")

	for name, l := range map[string]*ledger.Ledger{"one that knows": b.Ledger, "one that remembers": stale} {
		got, err := l.Get(ctx, lane, []int64{2, 9})
		if err != nil || len(got) != 2 || string(got[0].Body) != string(wanted[0].Body) || !got[1].At.Equal(wanted[1].At) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
		if _, err := l.Get(ctx, lane, []int64{3}); err == nil {
			t.Errorf("%s: an effect of a dropped generation is there", name)
		}
		intents, next, err := l.Page(ctx, lane, 0, 10)
		if err != nil || len(intents) != 0 || next != 10 {
			t.Errorf("%s: the page has %d intents and ends at %d, %v", name, len(intents), next, err)
		}
	}
	r, err := b.Recover(ctx, tenure)
	if err != nil || r.Seq != 1 || r.Low != 10 || len(r.Parked) != 1 {
		t.Fatalf("recovered %+v, %v", r, err)
	}
	if epoch, last, found, err := b.FlushAt(ctx, lane, 1); !found || epoch != tenure.Epoch || last != 9 || err != nil {
		t.Errorf("flush 1 has epoch %d and ends with %d (%t, %v)", epoch, last, found, err)
	}

	// The lane goes on: new effects, another attempt of the parked one, an outcome, its event.
	b.must(b.Append(ctx, batchOf(lane, 10, 12)))
	b.must(b.Flush(ctx, outbox.Flush{Tenure: tenure, Seq: 2, Low: 10, Parked: []outbox.Parked{{Offset: 2, Role: outbox.Retry, Attempts: 2, Status: 503}}}))
	b.must(b.Flush(ctx, settle(tenure, 3, 12, done(2), done(10), done(11))))
	b.upkeep()
	results, err := b.Results(ctx, lane, 1, 10)
	if err != nil || len(results) != 3 || string(results[0].Intent.Body) != string(wanted[0].Body) {
		t.Fatalf("results %+v, %v", results, err)
	}
	b.is(2, "SELECT count(*) FROM pawl.kept")
	b.must(b.Told(ctx, tenure, 3))
	b.upkeep()
	b.is(1, "SELECT count(*) FROM pawl.kept") // the dead one
	if e, err := b.Show(ctx, lane, 9); err != nil || e.State != ledger.Dead {
		t.Errorf("the dead one is %+v, %v", e, err)
	}
}

// A parked effect is settled at the very moment at which its generation is retired: after the copy was
// made, before it can be seen. The relay must still find it.
func TestAnEffectThatIsSettledWhileItsGenerationRetiresIsRelayed(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := open(t, ledger.Config{})
	b.filled(lane, 3)
	tenure := b.acquire(lane)
	f := settle(tenure, 1, 3, done(0), done(2))
	f.Parked = []outbox.Parked{{Offset: 1, Role: outbox.Retry, Attempts: 1}}
	b.must(b.Flush(ctx, f))
	b.must(b.Told(ctx, tenure, 1))
	b.age()
	b = b.reopened(ledger.Config{})
	dispatcher := ledger.Open(b.pool, ledger.Config{})
	_, err := dispatcher.Recover(ctx, tenure)
	b.must(err)
	stall := b.begin()
	_, err = stall.Exec(ctx, "SELECT FROM pawl.lane_gen FOR UPDATE")
	b.must(err)
	ended := make(chan error, 1)
	go func() { ended <- b.Maintain(ctx, time.Now()) }()
	b.waiting()
	b.must(dispatcher.Flush(ctx, settle(tenure, 2, 3, done(1))))
	b.must(stall.Rollback(ctx))
	b.must(<-ended)
	b.upkeep()
	b.is(0, "SELECT count(*) FROM pg_class WHERE relname ~ '_g1$'")
	if results, err := b.Results(ctx, lane, 1, 10); err != nil || len(results) != 1 || results[0].Intent.Offset != 1 {
		t.Fatalf("results %+v, %v", results, err)
	}
	b.must(b.Told(ctx, tenure, 2))
	b.upkeep()
	b.is(0, "SELECT count(*) FROM pawl.kept")
}

// A detach waits for a reader, the process dies meanwhile. The next upkeep ends what was begun.
func TestADropThatWasCutShortIsEnded(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := open(t, ledger.Config{})
	b.filled(lane, 10)
	tenure := b.acquire(lane)
	b.must(b.Flush(ctx, doneRange(tenure, 1, 0, 10)))
	b.must(b.Told(ctx, tenure, 1))
	b.age()
	b = b.reopened(ledger.Config{})
	reader := b.begin()
	_, err := reader.Exec(ctx, "SELECT count(*) FROM pawl.attempt")
	b.must(err)
	short, cancel := context.WithCancel(ctx)
	failed := make(chan error, 1)
	go func() { failed <- b.Maintain(short, time.Now()) }()
	b.waiting()
	cancel()
	if err := <-failed; err == nil {
		t.Fatal("the upkeep did not wait")
	}
	b.is(1, "SELECT count(*) FROM pg_inherits WHERE inhdetachpending")
	b.must(reader.Rollback(ctx))
	b.upkeep()
	b.is(0, "SELECT count(*) FROM pg_class WHERE relname ~ '_g1$'")
	b.is(0, "SELECT count(*) FROM pg_inherits WHERE inhdetachpending")
}

// loader appends, flushes and relays one lane, as a process that starts anew every few rounds: only
// so does it notice within a test that time has passed.
type loader struct {
	bench
	lane   int32
	starts atomic.Int32
}

const (
	loadRounds  = 60
	loadSize    = 200
	loadRestart = 3 // rounds
)

func (w *loader) run() error {
	ctx := w.t.Context()
	if err := w.Seed(ctx, w.lane, topicID, 0); err != nil {
		return err
	}
	tenure, err := w.Acquire(ctx, w.lane, "owner", lease)
	if err != nil {
		return err
	}
	for i := range int64(loadRounds) {
		if i%loadRestart == 0 {
			w.Ledger = ledger.Open(w.pool, ledger.Config{})
			w.starts.Add(1)
		}
		if err := w.Append(ctx, batchOf(w.lane, i*loadSize, (i+1)*loadSize)); err != nil {
			return fmt.Errorf("append: %w", err)
		}
		f := doneRange(tenure, i+1, i*loadSize, (i+1)*loadSize)
		if i%5 == 0 {
			f.Settled[0] = outbox.Outcome{Offset: i * loadSize, Status: outbox.Dead, Attempts: 3}
		}
		if err := w.Flush(ctx, f); err != nil {
			return fmt.Errorf("flush: %w", err)
		}
		results, err := w.Results(ctx, w.lane, i, 1)
		if err == nil && len(results) != loadSize {
			err = fmt.Errorf("%d results, want %d", len(results), loadSize)
		}
		if err = errors.Join(err, w.Told(ctx, tenure, i+1)); err != nil {
			return err
		}
		if _, err := w.Recover(ctx, tenure); err != nil {
			return fmt.Errorf("recover: %w", err)
		}
	}
	return nil
}

// Generations come and go under full load, and nobody notices: no error, and no wait for a lock that
// is given up.
func TestLoadGoesOnWhileGenerationsComeAndGo(t *testing.T) {
	t.Parallel()
	b := open(t, ledger.Config{})
	ctx := t.Context()
	b.exec("ALTER DATABASE " + b.database() + " SET lock_timeout = '1s'")
	pool := openPool(t, b.dsn)
	loaders := make([]*loader, 4)
	var all sync.WaitGroup
	var running atomic.Int32
	for i := range loaders {
		w := &loader{bench: bench{t: t, pool: pool, dsn: b.dsn, Ledger: ledger.Open(pool, ledger.Config{})}, lane: int32(i)}
		loaders[i] = w
		running.Add(1)
		all.Go(func() {
			defer running.Add(-1)
			if err := w.run(); err != nil {
				t.Errorf("lane %d: %v (%s)", w.lane, err, postgres.Code(err))
			}
		})
	}
	var dropped, made int
	upkeep := ledger.Open(openPool(t, b.dsn), ledger.Config{Hooks: ledger.Hooks{Dropped: func(int) { dropped++ }, Made: func(int) { made++ }}})
	for running.Load() > 0 {
		// Six days pass once every process has noticed those before; a generation is kept for fourteen.
		seen := make([]int32, len(loaders))
		for i, w := range loaders {
			seen[i] = w.starts.Load()
		}
		b.exec("UPDATE pawl.gen SET opens_at = opens_at - interval '6 days', closes_at = closes_at - interval '6 days'")
		for i := 0; i < len(loaders) && running.Load() > 0; {
			if loaders[i].starts.Load() > seen[i] || running.Load() < int32(len(loaders)) {
				i++
			}
			if err := upkeep.Maintain(ctx, time.Now()); err != nil {
				t.Errorf("upkeep: %v (%s)", err, postgres.Code(err))
			}
		}
	}
	all.Wait()
	t.Logf("%d generations were made, %d dropped", made, dropped)
	if dropped < 2 || made < 2 {
		t.Error("hardly a generation came or went")
	}
	for _, w := range loaders {
		head, err := upkeep.Head(ctx, w.lane)
		if err != nil || head.Next != loadRounds*loadSize {
			t.Errorf("lane %d stands at %d, %v", w.lane, head.Next, err)
		}
	}
}

func (b bench) database() (name string) {
	b.t.Helper()
	b.must(b.pool.QueryRow(b.t.Context(), "SELECT current_database()").Scan(&name))
	return name
}

func TestChainAndKeysAreTrimmed(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := open(t, ledger.Config{})
	b.must(b.Seed(ctx, lane, topicID, 0))
	origin := outbox.Origin{TopicID: inputID, Partition: 1}
	for i := range int64(250) {
		batch := batchOf(lane, i, i+1)
		batch.Intents[0].BusinessKey = fmt.Sprint("order:", i)
		batch.Seen = map[outbox.Origin]outbox.Mark{origin: {Offset: i}}
		b.must(b.Append(ctx, batch))
	}
	b.upkeep()
	b.is(251, "SELECT count(*) FROM pawl.ingest")
	b.is(250, "SELECT count(*) FROM pawl.business_key")
	b.exec("UPDATE pawl.ingest SET at = at - interval '2 hours' WHERE base_off < 240")
	b.exec("UPDATE pawl.business_key SET at = at - interval '91 days' WHERE off < 100")
	b = b.reopened(ledger.Config{})
	b.upkeep()
	b.is(51, "SELECT count(*) FROM pawl.ingest") // from the newest row with all marks on
	b.is(150, "SELECT count(*) FROM pawl.business_key")
	head, err := b.Head(ctx, lane)
	if err != nil || head.Next != 250 || head.Seen[origin].Offset != 249 {
		t.Errorf("head is %+v, %v", head, err)
	}
	again := batchOf(lane, 250, 252)
	again.Intents[0].BusinessKey, again.Intents[1].BusinessKey = "order:50", "order:150"
	b.must(b.Append(ctx, again))
	if again.Intents[0].Twin != nil || again.Intents[1].Twin == nil || again.Intents[1].Twin.Offset != 150 {
		t.Errorf("twins are %+v and %+v: the horizon is between them", again.Intents[0].Twin, again.Intents[1].Twin)
	}
}
