//go:build integration

package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"pawl/internal/cluster"
	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger"
	"pawl/internal/outbox/ledger/ledgertest"
	"pawl/internal/postgres"
	"pawl/internal/testkit"
)

const (
	lane  int32 = 3
	lease       = time.Minute
)

var (
	topicID = [16]byte{1, 2, 3}
	inputID = [16]byte{9, 8, 7}
)

func openPool(t *testing.T, dsn string) *pgxpool.Pool {
	t.Helper()
	pool, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn, ConnsMax: 12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func migrate(t *testing.T, pool *pgxpool.Pool, schema string) {
	t.Helper()
	if _, err := postgres.Migrate(t.Context(), pool, ledger.Migrations(schema)); err != nil {
		t.Fatal(err)
	}
}

// bench is one test with a ledger in a database of its own.
type bench struct {
	*ledger.Ledger
	t    *testing.T
	dsn  string
	pool *pgxpool.Pool // a superuser's, not the ledger's
}

func open(t *testing.T, config ledger.Config) bench {
	t.Helper()
	return openIn(t, testkit.Postgres(t), config)
}

// openIn makes the ledger in an empty database.
func openIn(t *testing.T, dsn string, config ledger.Config) bench {
	t.Helper()
	pool := openPool(t, dsn)
	migrate(t, pool, "")
	return bench{Ledger: ledger.Open(openPool(t, dsn), config), t: t, dsn: dsn, pool: pool}
}

func (b bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b bench) exec(sql string, arguments ...any) {
	b.t.Helper()
	if _, err := b.pool.Exec(b.t.Context(), sql, arguments...); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
}

// number reads one number.
func (b bench) number(sql string, arguments ...any) (n int64) {
	b.t.Helper()
	if err := b.pool.QueryRow(b.t.Context(), sql, arguments...).Scan(&n); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func (b bench) is(want int64, sql string, arguments ...any) {
	b.t.Helper()
	if got := b.number(sql, arguments...); got != want {
		b.t.Errorf("%s: %d, want %d", sql, got, want)
	}
}

func (b bench) want(err, want error, what string) {
	b.t.Helper()
	if !errors.Is(err, want) {
		b.t.Errorf("%s gave %v, want %v", what, err, want)
	}
}

func intentAt(lane int32, offset int64) outbox.Intent {
	source := message.Source{Topic: "orders", TopicID: inputID, Partition: 4, Offset: 1000 + offset}
	return outbox.Intent{
		Lane: lane, Offset: offset, ID: source.ID(0), Source: source, Endpoint: "payments", Class: message.AtLeastOnce,
		ContentType: "application/json", Key: fmt.Appendf(nil, "key-%d", offset%7), Body: fmt.Appendf(nil, `{"n":%d}`, offset),
		At: time.Now().UTC().Truncate(time.Millisecond),
	}
}

// batchOf has an intent at every offset.
func batchOf(lane int32, base, next int64) *outbox.Batch {
	b := &outbox.Batch{Lane: lane, TopicID: topicID, Base: base, Next: next}
	for offset := base; offset < next; offset++ {
		b.Intents = append(b.Intents, intentAt(lane, offset))
	}
	return b
}

// filled seeds a lane and gives it n intents.
func (b bench) filled(lane int32, n int64) {
	b.t.Helper()
	b.must(b.Seed(b.t.Context(), lane, topicID, 0))
	b.must(b.Append(b.t.Context(), batchOf(lane, 0, n)))
}

func (b bench) acquire(lane int32) outbox.Tenure {
	b.t.Helper()
	tenure, err := b.Acquire(b.t.Context(), lane, "owner", lease)
	b.must(err)
	return tenure
}

func settle(tenure outbox.Tenure, seq, low int64, outcomes ...outbox.Outcome) outbox.Flush {
	f := outbox.Flush{Tenure: tenure, Seq: seq, Low: low, Settled: outcomes}
	for _, o := range outcomes {
		f.Covered = f.Covered.Add(o.Offset, o.Offset+1)
	}
	return f
}

func done(offset int64) outbox.Outcome {
	return outbox.Outcome{Offset: offset, Status: outbox.Done, Attempts: 1, HTTPStatus: 200}
}

func doneRange(tenure outbox.Tenure, seq, from, to int64) outbox.Flush {
	f := outbox.Flush{Tenure: tenure, Seq: seq, Low: to, Covered: outbox.Ranges{{From: from, To: to}}}
	for offset := from; offset < to; offset++ {
		f.Settled = append(f.Settled, done(offset))
	}
	return f
}

// exercise runs the contract, each part of it in a schema of its own.
func exercise(t *testing.T, pool *pgxpool.Pool, migrate func(*testing.T, *pgxpool.Pool, string)) {
	t.Helper()
	var schemas atomic.Int32
	ledgertest.Exercise(t, func(t *testing.T) ledgertest.Store {
		t.Helper()
		schema := fmt.Sprint("ledger_", schemas.Add(1))
		migrate(t, pool, schema)
		return ledger.Open(pool, ledger.Config{Schema: schema})
	})
}

func TestPostgresKeepsTheContract(t *testing.T) {
	t.Parallel()
	exercise(t, openPool(t, testkit.Postgres(t)), migrate)
}

func TestLeasesOfPostgresFitTheModel(t *testing.T) {
	t.Parallel()
	ledgertest.Leases(t, open(t, ledger.Config{}).Ledger, 12)
}

// A pooler in transaction mode gives each transaction another connection of the server.
func TestPostgresKeepsTheContractThroughAPooler(t *testing.T) {
	t.Parallel()
	exercise(t, openPool(t, testkit.PgBouncer(t, testkit.Postgres(t))), migrate)
}

// rolesMu keeps tests from changing the roles, which all databases of a server share, at the same time.
var rolesMu sync.Mutex

const rolePassword = "of-a-test"

// asRoles makes the documented roles and gives a pool for each.
func asRoles(t *testing.T, dsn string, superuser *pgxpool.Pool, schema string) (owner, app *pgxpool.Pool) {
	t.Helper()
	rolesMu.Lock()
	defer rolesMu.Unlock()
	for _, sql := range []string{ledger.Roles(schema), ledger.Roles(schema)} { // it can be run again
		if _, err := superuser.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	as := func(role string) *pgxpool.Pool {
		if _, err := superuser.Exec(t.Context(), "ALTER ROLE "+role+" PASSWORD '"+rolePassword+"'"); err != nil {
			t.Fatal(err)
		}
		address, err := url.Parse(dsn)
		if err != nil {
			t.Fatal(err)
		}
		address.User = url.UserPassword(role, rolePassword)
		return openPool(t, address.String())
	}
	owner, app = as("pawl_owner"), as("pawl_app")
	migrate(t, owner, schema)
	if _, err := superuser.Exec(t.Context(), ledger.Roles(schema)); err != nil { // also on a schema that is there
		t.Fatal(err)
	}
	return owner, app
}

// The service needs no more than roles.sql gives it, and the planner settings there do not hurt.
func TestPostgresKeepsTheContractWithLeastRights(t *testing.T) {
	t.Parallel()
	dsn := testkit.Postgres(t)
	superuser := openPool(t, dsn)
	var schemas atomic.Int32
	ledgertest.Exercise(t, func(t *testing.T) ledgertest.Store {
		t.Helper()
		schema := fmt.Sprint("ledger_", schemas.Add(1))
		_, app := asRoles(t, dsn, superuser, schema)
		return ledger.Open(app, ledger.Config{Schema: schema})
	})
}

func TestTheServiceCannotChangeWhatWasWritten(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dsn := testkit.Postgres(t)
	superuser := openPool(t, dsn)
	owner, app := asRoles(t, dsn, superuser, "pawl")
	b := bench{Ledger: ledger.Open(app, ledger.Config{}), t: t, dsn: dsn, pool: superuser}
	b.filled(lane, 10)
	tenure := b.acquire(lane)
	b.must(b.Flush(ctx, doneRange(tenure, 1, 0, 10)))
	for _, sql := range []string{
		"DELETE FROM pawl.segment_g1", "UPDATE pawl.segment SET effects = ''", "DELETE FROM pawl.flush_g1", "UPDATE pawl.flush SET n = 0",
		"DELETE FROM pawl.ingest", "UPDATE pawl.ingest SET next_off = 0", "DELETE FROM pawl.business_key", "DROP TABLE pawl.segment_g1",
		"DELETE FROM pawl.audit", "UPDATE pawl.audit SET actor = ''", "DELETE FROM pawl.audit_end", "UPDATE pawl.audit_end SET result = 'late'",
		"CREATE TABLE pawl.mine (n int)", "TRUNCATE pawl.parked", "SELECT pawl.make_generation(4, now() + interval '9 years', now() + interval '10 years')",
	} {
		if _, err := app.Exec(ctx, sql); err == nil {
			t.Errorf("%s was allowed", sql)
		}
	}
	// It makes generations and leaves what it may not do to the owner.
	later := time.Now().Add(100 * 24 * time.Hour)
	b.must(b.Told(ctx, tenure, 1))
	b.must(b.Maintain(ctx, later))
	b.is(1, "SELECT min(gen) FROM pawl.gen")
	if n := b.number("SELECT max(gen) FROM pawl.gen"); n < 5 {
		t.Errorf("the newest generation is %d", n)
	}
	b.exec("DELETE FROM pawl.upkeep") // as if its lease had run out
	b.must(ledger.Open(owner, ledger.Config{}).Maintain(ctx, later))
	b.is(0, "SELECT count(*) FROM pg_class WHERE relname = 'segment_g1'")
	// What the upkeep has made the service may use.
	b.must(b.Append(ctx, batchOf(lane, 10, 12)))
	b.must(b.Flush(ctx, doneRange(tenure, 2, 10, 12)))
}

// Eight ingesters of one lane, without any agreement; some go on from an old position on purpose. All
// three ways to append take part.
func TestRacingWritersAddEachOffsetOnce(t *testing.T) {
	t.Parallel()
	const end = 20_000
	b := open(t, ledger.Config{})
	ctx := t.Context()
	b.must(b.Seed(ctx, lane, topicID, 0))
	var overtaken, stale atomic.Int32
	var all sync.WaitGroup
	for writer := range 8 {
		mine := ledger.Open(openPool(t, b.dsn), ledger.Config{})
		random := rand.New(rand.NewPCG(7, uint64(writer)))
		all.Go(func() {
			for {
				head, err := mine.Head(ctx, lane)
				if err != nil || head.Next >= end {
					if err != nil {
						t.Error(err)
					}
					return
				}
				base := head.Next
				if random.IntN(10) == 0 && base > 100 {
					base -= 1 + random.Int64N(100)
					stale.Add(1)
				}
				batch := batchOf(lane, base, min(end, base+1+random.Int64N(600)))
				if random.IntN(3) == 0 {
					for i := range batch.Intents {
						batch.Intents[i].BusinessKey = fmt.Sprint("order:", batch.Intents[i].Offset)
					}
				}
				switch err := mine.Append(ctx, batch); {
				case errors.Is(err, outbox.ErrOvertaken):
					overtaken.Add(1)
				case err != nil:
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if overtaken.Load() == 0 || stale.Load() == 0 {
		t.Errorf("%d writers were overtaken, %d stale: nothing raced", overtaken.Load(), stale.Load())
	}
	b.is(end, "SELECT count(*) FROM pawl.effect")
	b.is(end, "SELECT count(DISTINCT off) FROM pawl.effect")
	b.is(end-1, "SELECT max(off) FROM pawl.effect")
	b.is(0, "SELECT count(*) FROM pawl.effect WHERE twin_off IS NOT NULL") // a refused batch took no key
	b.is(0, "SELECT count(*) FROM pawl.ingest a WHERE base_off >= 0 AND NOT EXISTS (SELECT FROM pawl.ingest p WHERE p.next_off = a.base_off)")
}

// begin opens a transaction that ends with the test at the latest.
func (b bench) begin() pgx.Tx {
	b.t.Helper()
	tx, err := b.pool.Begin(b.t.Context())
	b.must(err)
	b.t.Cleanup(func() { _ = tx.Rollback(context.WithoutCancel(b.t.Context())) }) // where the test did not come to its end
	return tx
}

// stall takes the place of a lane's next chain row in a transaction that stays open, so that an append
// waits within its statement.
func (b bench) stall(base int64) pgx.Tx {
	b.t.Helper()
	tx := b.begin()
	_, err := tx.Exec(b.t.Context(), `
INSERT INTO pawl.ingest (lane, base_off, next_off, number, gen, n, topic_id, whole, marks) VALUES ($1, $2, $3, 1, 1, 0, $4, false, '\x0100')`, lane, base, base+1, topicID)
	b.must(err)
	return tx
}

// eventually asks until the answer is a row.
func (b bench) eventually(sql string) (n int64) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := b.pool.QueryRow(ctx, sql).Scan(&n)
		if err == nil {
			return n
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.t.Fatalf("%s: %v", sql, err)
		}
	}
}

// waiting gives the backend that waits for a lock, once there is one.
func (b bench) waiting() (pid int64) {
	b.t.Helper()
	return b.eventually(`
SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid() LIMIT 1`)
}

// The server ends the connection of an append that is under way. The writer knows nothing, reads the
// head and begins again from there.
func TestAnAppendWithoutAnAnswerIsDecidedByTheHead(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := open(t, ledger.Config{})
	b.must(b.Seed(ctx, lane, topicID, 0))
	other := b.stall(0)
	failed := make(chan error, 1)
	go func() { failed <- b.Append(ctx, batchOf(lane, 0, 10)) }()
	b.is(1, "SELECT count(*) FROM (SELECT pg_terminate_backend($1)) ended", b.waiting())
	if err := <-failed; err == nil || errors.Is(err, outbox.ErrOvertaken) {
		t.Fatalf("the append gave %v, want an unknown outcome", err)
	}
	b.must(other.Rollback(ctx))
	head, err := b.Head(ctx, lane)
	if err != nil || head.Next != 0 {
		t.Fatalf("the head is %+v, %v", head, err)
	}
	b.must(b.Append(ctx, batchOf(lane, 0, 10)))
	b.is(10, "SELECT count(*) FROM pawl.effect")
}

// An append waits for another writer at the same position: whether that one commits decides.
func TestOfTwoAppendsAtOnceOneIsOvertaken(t *testing.T) {
	t.Parallel()
	for _, commits := range []bool{true, false} {
		t.Run(fmt.Sprint("the other commits ", commits), func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			b := open(t, ledger.Config{})
			b.must(b.Seed(ctx, lane, topicID, 0))
			other := b.stall(0)
			result := make(chan error, 1)
			go func() { result <- b.Append(ctx, batchOf(lane, 0, 10)) }()
			b.waiting()
			if commits {
				b.must(other.Commit(ctx))
				b.want(<-result, outbox.ErrOvertaken, "append")
				b.is(0, "SELECT count(*) FROM pawl.effect")
				return
			}
			b.must(other.Rollback(ctx))
			b.must(<-result)
			b.is(10, "SELECT count(*) FROM pawl.effect")
		})
	}
}

// Connections die all the time, some before a commit, some between a commit and its answer.
func TestNothingIsLostOrDoubledWhileConnectionsDie(t *testing.T) {
	t.Parallel()
	const end = 15_000
	b := open(t, ledger.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.must(b.Seed(ctx, lane, topicID, 0))
	tenure := b.acquire(lane)
	var killed atomic.Int64
	var killer sync.WaitGroup
	killer.Go(func() {
		tick := time.NewTicker(7 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			var n int64
			if err := b.pool.QueryRow(ctx, `
SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'`).Scan(&n); err == nil {
				killed.Add(n)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	// One call after the other, as ingester and dispatcher do: after an unknown outcome each reads where things stand.
	var flushed, seq int64
	random := rand.New(rand.NewPCG(1, 2))
	for flushed < end {
		head, err := b.Head(ctx, lane)
		if err != nil {
			continue
		}
		if head.Next < end {
			err := b.Append(ctx, batchOf(lane, head.Next, min(end, head.Next+1+random.Int64N(500))))
			b.alright(err)
		}
		r, err := b.Recover(ctx, tenure)
		if err != nil {
			b.alright(err)
			continue
		}
		if flushed, seq = r.Low, r.Seq; flushed < head.Next {
			b.alright(b.Flush(ctx, doneRange(tenure, seq+1, flushed, min(head.Next, flushed+200))))
		}
	}
	cancel()
	killer.Wait()
	if killed.Load() == 0 {
		t.Error("no connection was killed")
	}
	t.Logf("%d connections were killed", killed.Load())
	b.is(end, "SELECT count(*) FROM pawl.effect")
	b.is(end, "SELECT count(DISTINCT off) FROM pawl.effect")
	b.is(end, "SELECT sum(n) FROM pawl.flush")
	b.is(1, "SELECT count(*) FROM (SELECT unnest(range_agg(done)) FROM pawl.flush) whole")
	b.is(0, "SELECT max(seq) - count(*) FROM pawl.flush")
}

// alright fails the test by what a killed connection does not explain.
func (b bench) alright(err error) {
	b.t.Helper()
	if errors.Is(err, outbox.ErrFenced) || err != nil && strings.Contains(err.Error(), "follows") {
		b.t.Error(err)
	}
}

// A flush has checked its epoch and not committed yet. The takeover waits for it: what the new owner
// recovers is all that the old one will ever have written.
func TestATakeoverWaitsForTheFlushThatIsUnderWay(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := open(t, ledger.Config{})
	b.filled(lane, 10)
	old, err := b.Acquire(ctx, lane, "old", time.Millisecond)
	b.must(err)
	flush := b.begin()
	_, err = flush.Exec(ctx, "SELECT FROM pawl.lane WHERE lane = $1 FOR SHARE", lane)
	b.must(err)
	b.exec("SELECT pg_sleep(0.01)") // the lease runs out by the clock of the database
	type answer struct {
		tenure outbox.Tenure
		err    error
	}
	taken := make(chan answer, 1)
	go func() {
		tenure, err := b.Acquire(ctx, lane, "new", lease)
		taken <- answer{tenure, err}
	}()
	b.waiting()
	select {
	case a := <-taken:
		t.Fatalf("the lane was taken: %+v", a)
	default:
	}
	b.must(flush.Commit(ctx))
	if a := <-taken; a.err != nil || a.tenure.Epoch <= old.Epoch {
		t.Errorf("took %+v", a)
	}
}

// The other way round: the takeover is first, the old owner's flush waits for it and is refused.
func TestAFlushThatWaitsForATakeoverIsFenced(t *testing.T) {
	t.Parallel()
	for _, f := range []struct {
		name  string
		flush func(outbox.Tenure) outbox.Flush
	}{
		{"at once", func(tenure outbox.Tenure) outbox.Flush { return settle(tenure, 2, 2, done(1)) }},
		{"in steps", func(tenure outbox.Tenure) outbox.Flush {
			return settle(tenure, 2, 2, outbox.Outcome{Offset: 1, Status: outbox.Dead, Attempts: 1})
		}},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			b := open(t, ledger.Config{})
			b.filled(lane, 10)
			old := b.acquire(lane)
			b.must(b.Flush(ctx, settle(old, 1, 1, done(0))))
			takeover := b.begin()
			_, err := takeover.Exec(ctx, "UPDATE pawl.lane SET epoch = epoch + 1, owner = 'new' WHERE lane = $1", lane)
			b.must(err)
			result := make(chan error, 1)
			go func() { result <- b.Flush(ctx, f.flush(old)) }()
			b.waiting()
			b.must(takeover.Commit(ctx))
			b.want(<-result, outbox.ErrFenced, "flush")
			b.is(1, "SELECT count(*) FROM pawl.flush")
			b.is(0, "SELECT count(*) FROM pawl.dead")
		})
	}
}

// A backup is restored while a tenure lives; its epoch is the same there. Its next flush would leave a
// hole: those in between are gone.
func TestAFlushAfterARestoreIsFenced(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := open(t, ledger.Config{})
	b.filled(lane, 10)
	tenure := b.acquire(lane)
	for i := range int64(3) {
		b.must(b.Flush(ctx, settle(tenure, i+1, i+1, done(i))))
	}
	b.exec("DELETE FROM pawl.flush WHERE seq > 1")
	b.want(b.Flush(ctx, settle(tenure, 4, 4, done(3))), outbox.ErrFenced, "flush")
	r, err := b.Recover(ctx, tenure)
	if err != nil || r.Seq != 1 || r.Low != 1 {
		t.Errorf("recovered %+v, %v", r, err)
	}
	b.must(b.Flush(ctx, settle(tenure, 2, 2, done(1))))
}

// A backup is restored under the feet of an ingester that remembers where the lane stood. No row has the
// base of its next batch, so that no key keeps it out; a batch beyond the end of the chain would leave a
// hole, and the effects in it would never be called.
func TestAnAppendAfterARestoreIsOvertaken(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int64{"few": 5, "many": 2000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			b := open(t, ledger.Config{})
			b.filled(lane, size)
			b.must(b.Append(ctx, batchOf(lane, size, 2*size)))
			b.exec("DELETE FROM pawl.ingest WHERE base_off >= $1", size)
			b.exec("DELETE FROM pawl.segment WHERE first_off >= $1", size)
			b.want(b.Append(ctx, batchOf(lane, 2*size, 3*size)), outbox.ErrOvertaken, "append")
			head, err := b.Head(ctx, lane)
			if err != nil || head.Next != size {
				t.Errorf("the head is %+v, %v, want next %d", head, err, size)
			}
			b.must(b.Append(ctx, batchOf(lane, size, 3*size)))
			b.is(3*size, "SELECT count(*) FROM pawl.effect")
		})
	}
}

// Somebody locks a table, for a migration by hand perhaps. Who appends or flushes waits no longer than the
// ledger's own limit, nothing is half done, and when the lock is gone all goes on.
func TestALockedTableCostsTimeOnly(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := open(t, ledger.Config{Timeout: 500 * time.Millisecond})
	b.filled(lane, 5)
	tenure := b.acquire(lane)
	lock := b.begin()
	_, err := lock.Exec(ctx, "LOCK TABLE pawl.ingest, pawl.flush, pawl.segment IN ACCESS EXCLUSIVE MODE")
	b.must(err)
	for what, do := range map[string]func() error{
		"append": func() error { return b.Append(ctx, batchOf(lane, 5, 10)) },
		"flush":  func() error { return b.Flush(ctx, settle(tenure, 1, 1, done(0))) },
	} {
		begun := time.Now()
		if err := do(); err == nil || errors.Is(err, outbox.ErrOvertaken) || errors.Is(err, outbox.ErrFenced) {
			t.Errorf("%s gave %v behind a lock, want that it gave up", what, err)
		}
		if took := time.Since(begun); took < 400*time.Millisecond || took > 10*time.Second {
			t.Errorf("%s waited for %s, want half a second", what, took)
		}
	}
	b.must(lock.Rollback(ctx))
	b.eventually("SELECT 1 FROM (SELECT count(*) AS n FROM pg_locks WHERE NOT granted) l WHERE l.n = 0")
	head, err := b.Head(ctx, lane)
	b.must(err)
	if head.Next == 5 { // else the append came through after all, behind the lock
		b.must(b.Append(ctx, batchOf(lane, 5, 10)))
	}
	r, err := b.Recover(ctx, tenure)
	b.must(err)
	if r.Seq == 0 {
		b.must(b.Flush(ctx, settle(tenure, 1, 1, done(0))))
	}
	b.is(10, "SELECT count(*) FROM pawl.effect")
	b.is(1, "SELECT count(*) FROM pawl.flush")
}

// The only synchronous standby stands still: commits are on the primary's disk and wait. When our time is up the server
// gives that wait up, and says that all went well. Nobody may act on that: a failover would take it back.
func TestACommitWithoutItsStandbyIsNoAnswer(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	primary := testkit.OpenPostgres(t, cluster.PostgresConfig{Durable: true})
	standby, err := primary.OpenStandby(ctx, cluster.PostgresConfig{}, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := primary.Synchronize(ctx); err != nil {
		t.Fatal(err)
	}
	b := openIn(t, primary.DSN(), ledger.Config{Timeout: 500 * time.Millisecond})
	b.filled(lane, 5)
	tenure := b.acquire(lane)
	if err := standby.Pause(); err != nil {
		t.Fatal(err)
	}
	for what, do := range map[string]func() error{
		"append":          func() error { return b.Append(ctx, batchOf(lane, 5, 10)) },
		"append in steps": func() error { return b.Append(ctx, batchOf(lane, 10, 300)) },
		"note":            func() error { return b.Begin(ctx, tenure, []outbox.Sending{{Offset: 0, Attempt: 1}}) },
		"flush":           func() error { return b.Flush(ctx, settle(tenure, 1, 1, done(0))) },
		"seed":            func() error { return b.Seed(ctx, lane+1, topicID, 0) },
		"acquire": func() error {
			_, err := b.Acquire(ctx, lane+1, "owner", lease)
			return err
		},
	} {
		if err := do(); err == nil || errors.Is(err, outbox.ErrFenced) {
			t.Errorf("%s without the standby gave %v, want no answer in time", what, err)
		}
	}
	if err := standby.Resume(); err != nil {
		t.Fatal(err)
	}
	var head outbox.Head
	testkit.WaitFor(t, 20*time.Second, "appends to go on with the standby", func() bool {
		head, err = b.Head(ctx, lane)
		return err == nil && b.Append(ctx, batchOf(lane, head.Next, head.Next+5)) == nil
	})
	b.is(head.Next+5, "SELECT count(*) FROM pawl.effect")
	b.is(head.Next+5, "SELECT count(DISTINCT off) FROM pawl.effect")
}

// Nothing on the way of success leaves a dead row, so that nothing decays while a long transaction
// keeps the server from cleaning up. How much it writes is logged beside: a server has one log for all its
// databases, so this test has a server of its own.
func TestSuccessOnlyInserts(t *testing.T) {
	t.Parallel()
	const rounds, size = 20, 1000
	ctx := t.Context()
	b := openIn(t, testkit.OpenPostgres(t, cluster.PostgresConfig{}).DSN(), ledger.Config{})
	own := openPool(t, b.dsn)
	store := ledger.Open(own, ledger.Config{})
	b.must(store.Seed(ctx, lane, topicID, 0))
	tenure, err := store.Acquire(ctx, lane, "owner", lease)
	b.must(err)
	b.exec("CHECKPOINT")
	from := b.number("SELECT pg_current_wal_insert_lsn() - '0/0'")
	for i := range int64(rounds) {
		b.must(store.Append(ctx, batchOf(lane, i*size, (i+1)*size)))
	}
	ingested := b.number("SELECT pg_current_wal_insert_lsn() - '0/0'")
	for i := range int64(rounds) {
		b.must(store.Flush(ctx, doneRange(tenure, i+1, i*size, (i+1)*size)))
	}
	flushed := b.number("SELECT pg_current_wal_insert_lsn() - '0/0'")
	results, err := store.Results(ctx, lane, 0, rounds)
	if err != nil || len(results) != rounds*size {
		t.Fatalf("%d results, %v", len(results), err)
	}
	own.Close() // a connection hands in its counts when it has ended
	b.eventually("SELECT 1 FROM pg_stat_user_tables WHERE schemaname = 'pawl' AND relname = 'flush_g1' AND n_tup_ins > 0")
	b.eventually("SELECT 1 FROM pg_stat_user_tables WHERE schemaname = 'pawl' AND relname = 'segment_g1' AND n_tup_ins > 0")
	segments := b.number("SELECT count(*) FROM pawl.segment")
	b.is(segments, "SELECT n_tup_ins FROM pg_stat_user_tables WHERE schemaname = 'pawl' AND relname = 'segment_g1'")
	b.is(rounds, "SELECT n_tup_ins FROM pg_stat_user_tables WHERE schemaname = 'pawl' AND relname = 'flush_g1'")
	b.is(0, `SELECT sum(n_tup_upd + n_tup_del) FROM pg_stat_user_tables WHERE schemaname = 'pawl' AND relname ~ '^(segment|flush|ingest|attempt|parked|dead|kept)'`)
	const ingestMax, settleMax = 600, 40 // bytes for each effect; what is usual is a good deal less, and logged
	if ingested-from > ingestMax*rounds*size || flushed-ingested > settleMax*rounds*size {
		t.Error("it writes more to the log than it should")
	}
	t.Logf("write-ahead log for each effect, full pages after a checkpoint included: %d bytes to ingest, %.1f to settle",
		(ingested-from)/(rounds*size), float64(flushed-ingested)/(rounds*size))
}
