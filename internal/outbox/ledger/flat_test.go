//go:build integration

package ledger

import (
	"context"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/postgres"
	"pawl/internal/testkit"
)

const (
	flatLanes = 8
	flatLane  = int32(3) // that is measured
	flatBatch = 1000
	// flatSegment is how many of a batch are a segment in what is made by the server.
	flatSegment = 25
	// flatEffects is how many effects the ledger has in the end, unless the environment says otherwise.
	flatEffects  = 2_000_000
	flatVariable = "PAWL_FLAT_EFFECTS"
)

// flat is a ledger whose work is counted in blocks of tables and indexes that the server touches.
type flat struct {
	*Ledger
	t     *testing.T
	dsn   string
	admin *pgxpool.Pool
	lanes [flatLanes]struct {
		tenure    outbox.Tenure
		next, seq int64
	}
}

// A queue in a database decays in two ways: it grows, and dead rows pile up while some transaction is
// open. Here both happen: a transaction with a snapshot and an id is open from before the first effect to the
// end, the ledger works as it does in service, and then it gets millions of effects. What an
// operation touches of the large tables must stay as it was, but for one level of an index. What was appended
// must never be changed. Each statement must still go by its one index.
//
// Each renewal of a lease and each note of the relay changes a row of the lane, so old versions do pile
// up meanwhile, by the hours of the transaction and not by effects: some hundreds an hour, about ten to a block.
func TestTheLedgerStaysFlatUnderAHeldTransaction(t *testing.T) {
	t.Parallel()
	const before, between, perCycle = wholeEvery, 160, 0.2
	f := openFlat(t)
	f.hold()
	for lane := range int32(flatLanes) {
		f.open(lane)
	}
	f.cycles(before)
	first := f.measure()
	f.cycles(between)
	worked := f.measure()
	size := flatSize(t)
	f.fill(size)
	filled := f.measure()
	for i, o := range first {
		t.Logf("blocks of %-18s at first %6.1f + %4.1f, after %d cycles %6.1f + %4.1f, with %d effects %6.1f + %4.1f",
			o.name, o.large, o.small, between, worked[i].large, worked[i].small, size, filled[i].large, filled[i].small)
		for _, later := range []operation{worked[i], filled[i]} {
			if later.large > o.large+float64(o.rows)+2 {
				t.Errorf("%s touched %.1f blocks of large tables, and now %.1f", o.name, o.large, later.large)
			}
			if later.small > o.small+perCycle*between {
				t.Errorf("%s touched %.1f blocks of small tables, and now %.1f", o.name, o.small, later.small)
			}
		}
	}
	f.onlyInserted()
	_, pool := planPool(t, f.dsn+roleSettings)
	checkPlans(t, f.Ledger, pool, flatLane, f.lanes[flatLane].seq, f.lanes[flatLane].next)
}

func flatSize(t *testing.T) int64 {
	t.Helper()
	text := os.Getenv(flatVariable)
	if text == "" {
		return flatEffects
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q, want a number of effects", flatVariable, text)
	}
	return n
}

func openFlat(t *testing.T) *flat {
	t.Helper()
	dsn, admin := planPool(t, testkit.Postgres(t))
	f := &flat{t: t, dsn: dsn, admin: admin, Ledger: Open(nil, Config{Timeout: time.Minute})}
	if _, err := postgres.Migrate(t.Context(), admin, Migrations("")); err != nil {
		t.Fatal(err)
	}
	// Statistics that come and go would change what is counted, and there are none under the worst of loads.
	f.exec(`DO $$ DECLARE t text; BEGIN
  FOR t IN SELECT format('pawl.%I', relname) FROM pg_class WHERE relnamespace = 'pawl'::regnamespace AND relkind = 'r' LOOP
    EXECUTE 'ALTER TABLE ' || t || ' SET (autovacuum_enabled = off)';
  END LOOP; END $$`)
	return f
}

func (f *flat) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *flat) exec(sql string, arguments ...any) {
	f.t.Helper()
	_, err := f.admin.Exec(f.t.Context(), sql, arguments...)
	f.must(err)
}

func (f *flat) number(sql string, arguments ...any) (n int64) {
	f.t.Helper()
	f.must(f.admin.QueryRow(f.t.Context(), sql, arguments...).Scan(&n))
	return n
}

// hold opens the transaction that keeps the server from cleaning up until the end of the test.
func (f *flat) hold() {
	f.t.Helper()
	connection, err := pgx.Connect(f.t.Context(), f.dsn)
	f.must(err)
	f.t.Cleanup(func() { _ = connection.Close(context.WithoutCancel(f.t.Context())) })
	_, err = connection.Exec(f.t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()")
	f.must(err)
}

// using runs work on a connection of its own, which has handed in its counts when it has ended.
func (f *flat) using(work func(ctx context.Context)) {
	f.t.Helper()
	const name = "flat"
	pool, err := postgres.Open(f.t.Context(), postgres.Config{DSN: f.dsn + roleSettings + "&application_name=" + name, ConnsMax: 1})
	f.must(err)
	f.pool = pool
	work(f.t.Context())
	pool.Close()
	testkit.WaitFor(f.t, time.Minute, "the end of a connection", func() bool {
		return f.number("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1", name) == 0
	})
}

func (f *flat) open(lane int32) {
	f.t.Helper()
	f.using(func(ctx context.Context) {
		f.must(f.Seed(ctx, lane, [16]byte{}, 0))
		tenure, err := f.Acquire(ctx, lane, "owner", time.Hour)
		f.must(err)
		f.lanes[lane].tenure = tenure
	})
}

// append adds a batch with n intents.
func (f *flat) append(ctx context.Context, lane int32, n int64) {
	f.t.Helper()
	at := &f.lanes[lane]
	b := &outbox.Batch{Lane: lane, Base: at.next, Next: at.next + n}
	for offset := b.Base; offset < b.Next; offset++ {
		b.Intents = append(b.Intents, outbox.Intent{Lane: lane, Offset: offset, Endpoint: "payments", Class: message.AtLeastOnce, Body: []byte("{}")})
	}
	f.must(f.Append(ctx, b))
	at.next = b.Next
}

// settle flushes the n intents from an offset on.
func (f *flat) settle(ctx context.Context, lane int32, from, n int64) {
	f.t.Helper()
	at := &f.lanes[lane]
	flush := outbox.Flush{Tenure: at.tenure, Seq: at.seq + 1, Low: from + n, Covered: outbox.Ranges{{From: from, To: from + n}}}
	for offset := from; offset < from+n; offset++ {
		flush.Settled = append(flush.Settled, outbox.Outcome{Offset: offset, Status: outbox.Done, Attempts: 1, HTTPStatus: 200})
	}
	f.must(f.Flush(ctx, flush))
	at.seq++
}

// cycles are what every lane does in service, with a renewal and a note of the relay each time.
func (f *flat) cycles(n int) {
	f.t.Helper()
	f.using(func(ctx context.Context) {
		for range n {
			for lane := range int32(flatLanes) {
				at := &f.lanes[lane]
				f.append(ctx, lane, 50)
				f.settle(ctx, lane, at.next-50, 50)
				_, _, err := f.Renew(ctx, at.tenure, time.Hour)
				f.must(err)
				f.must(f.Told(ctx, at.tenure, at.seq))
			}
		}
	})
}

// fill brings the ledger to n effects. Their rows are made by the server, in batches, of the right size and with nothing in
// them that can be read; chain and flushes are the ledger's own.
func (f *flat) fill(n int64) {
	f.t.Helper()
	began := time.Now()
	missing := n - f.number("SELECT sum(n) FROM pawl.segment")
	batches := missing / flatBatch / flatLanes
	for lane := range int32(flatLanes) {
		at := &f.lanes[lane]
		f.using(func(ctx context.Context) {
			// By this connection, too: one that stays open hands in its counts when it likes, in the middle of a
			// later measurement.
			_, err := f.pool.Exec(ctx, `
INSERT INTO pawl.segment_g1 (gen, lane, first_off, last_off, n, totals, effects)
SELECT 1, $1, g, g + $4 - 1, $4, ''::bytea, $5 FROM generate_series($2::bigint, $3, $4) g`,
				lane, at.next, at.next+batches*flatBatch-1, flatSegment, make([]byte, segmentMax))
			f.must(err)
			for range batches {
				from := at.next
				f.must(f.Append(ctx, &outbox.Batch{Lane: lane, Base: from, Next: from + flatBatch})) // over rows that are there
				at.next += flatBatch
				f.settle(ctx, lane, from, flatBatch)
			}
		})
	}
	f.t.Logf("%d effects were made in %v", missing, time.Since(began).Round(time.Second))
}

// operation is how many blocks one call of the ledger touches, in memory or not.
type operation struct {
	name         string
	rows         int // that it looks up one by one or inserts
	large, small float64
}

// measure counts blocks of a few calls of each operation.
func (f *flat) measure() (found []operation) {
	f.t.Helper()
	const times = 5
	lane, at := flatLane, &f.lanes[flatLane]
	for _, o := range []struct {
		name string
		rows int
		call func(ctx context.Context)
	}{
		{"append of 1000", 1000, func(ctx context.Context) { f.append(ctx, lane, 1000) }},
		{"append of 50", 50, func(ctx context.Context) { f.append(ctx, lane, 50) }},
		{"flush of 200", 3, func(ctx context.Context) { f.settle(ctx, lane, at.next-200, 200) }},
		{"head", 1, func(ctx context.Context) {
			_, err := f.Head(ctx, lane)
			f.must(err)
		}},
		{"page of 500", 2, func(ctx context.Context) {
			intents, _, err := f.Page(ctx, lane, at.next-500, 500)
			if f.must(err); len(intents) != 500 {
				f.t.Fatalf("a page has %d intents", len(intents))
			}
		}},
		// A segment is looked for, and then read.
		{"get of 3", 6, func(ctx context.Context) {
			_, err := f.Get(ctx, lane, []int64{at.next - 10, at.next - 500, at.next - 1000})
			f.must(err)
		}},
		{"results of 1 flush", 2, func(ctx context.Context) {
			results, err := f.Results(ctx, lane, at.seq-1, 1)
			if f.must(err); len(results) != 200 {
				f.t.Fatalf("%d results", len(results))
			}
		}},
		{"recover", 2, func(ctx context.Context) {
			_, err := f.Recover(ctx, at.tenure)
			f.must(err)
		}},
		{"renew", 0, func(ctx context.Context) {
			_, _, err := f.Renew(ctx, at.tenure, time.Hour)
			f.must(err)
		}},
	} {
		large, small := f.blocks()
		f.using(func(ctx context.Context) {
			for range times {
				o.call(ctx)
			}
		})
		nowLarge, nowSmall := f.blocks()
		found = append(found, operation{o.name, o.rows, (nowLarge - large) / times, (nowSmall - small) / times})
	}
	return found
}

// largeTables matches the names of those that are only ever added to.
const largeTables = `'^(segment|flush|ingest|attempt)'`

// blocks counts those of tables and their indexes that were touched so far.
func (f *flat) blocks() (large, small float64) {
	f.t.Helper()
	f.must(f.admin.QueryRow(f.t.Context(), `
WITH touched AS (
  SELECT relname ~ `+largeTables+` AS large, coalesce(heap_blks_read, 0) + coalesce(heap_blks_hit, 0) + coalesce(idx_blks_read, 0)
    + coalesce(idx_blks_hit, 0) + coalesce(toast_blks_read, 0) + coalesce(toast_blks_hit, 0) + coalesce(tidx_blks_read, 0)
    + coalesce(tidx_blks_hit, 0) AS n
  FROM pg_statio_user_tables WHERE schemaname = 'pawl')
SELECT sum(n) FILTER (WHERE large), sum(n) FILTER (WHERE NOT large) FROM touched`).Scan(&large, &small))
	return large, small
}

func (f *flat) onlyInserted() {
	f.t.Helper()
	for _, column := range []string{"n_tup_upd", "n_tup_del", "n_dead_tup"} {
		if n := f.number("SELECT sum(" + column + ")::bigint FROM pg_stat_user_tables WHERE schemaname = 'pawl' AND relname ~ " + largeTables); n != 0 {
			f.t.Errorf("%s of what is only added to is %d", column, n)
		}
	}
	if n := f.number("SELECT sum(n_tup_upd)::bigint FROM pg_stat_user_tables WHERE schemaname = 'pawl' AND relname = 'lane'"); n == 0 {
		f.t.Error("no update was counted, not even that of a lease")
	}
}
