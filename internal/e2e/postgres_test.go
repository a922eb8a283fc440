//go:build chaos && linux

package e2e

import (
	"context"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pawl/internal/cluster"
	"pawl/internal/testkit"
)

// crash is a place of the processor at which the database is killed, with the processes of all its
// connections.
type crash struct {
	name string
	hit  int    // the database dies when the processor is there for the how many-th time
	gate string // instead of a place: a table of which the database holds up an insert, which is done but not committed

	// The database dies when its answer to what comes next is on its way. It has another number of rows in
	// this table then. Only one order is there, so that they are its rows.
	done string

	rate float64 // of orders a second; 0 means placeRate
	once bool    // the effects are to be called at most once
}

// What comes after a place happens without a database.
var crashes = []crash{
	{name: "dispatch.acquired", hit: 1}, // recover
	{name: "dispatch.recovered", hit: 1},
	{name: "ingest.fetched", hit: 2},
	{name: "append", gate: "pawl.ingest"},
	{name: "ledger.append", hit: 2},                      // commit
	{name: "ledger.append", hit: 1, done: "pawl.ingest"}, // the same, the other way
	{name: "ledger.appended", hit: 2},
	{name: "dispatch.flush", hit: 3},
	{name: "flush", gate: "pawl.flush"},
	{name: "flush", gate: "pawl.flush", done: "pawl.flush"},
	{name: "ledger.flush", hit: 2}, // commit
	{name: "dispatch.flushed", hit: 3},
	{name: "dispatch.renew", hit: 1, rate: 30},
	{name: "relay.produce", hit: 2},
	{name: "relay.ended", hit: 2}, // read
	{name: "begin", gate: "pawl.sending", once: true},
	{name: "begin", gate: "pawl.sending", done: "pawl.sending", once: true},
	{name: "dispatch.begun", hit: 1, once: true},
}

// A database that is killed at any place of its work for a process that lives on loses nothing and
// doubles nothing, and not one call is repeated: the process knows the answers that it could not write
// down.
func TestEffectsSurviveACrashOfPostgresAtEveryPlace(t *testing.T) {
	server := testkit.OpenPostgres(t, cluster.PostgresConfig{Durable: true})
	proxy := testkit.NewProxy(t, hostOf(t, server.DSN()))
	s := besiege(t, testkit.OpenKafka(t, cluster.KafkaConfig{Nodes: 1}), server.DSN(), withHosts(t, server.DSN(), proxy.Address()))
	s.processor.program = breakable
	breakable.build(t) // not while a process is awaited
	s.run(t, "migrate", "up", "--yes")
	s.makeGates(t, "pawl.ingest", "pawl.flush", "pawl.sending")
	killed := 0
	for _, c := range crashes {
		name := c.name
		if c.done != "" {
			name += " done"
		}
		if !t.Run(name, func(t *testing.T) { s.crash(t, server, proxy, c) }) {
			return // what follows would count what is wrong again
		}
		killed++
	}
	if killed != len(crashes) {
		t.Errorf("the database was killed %d times, want %d", killed, len(crashes))
	}
}

// crash kills the database at a place, starts it again and holds everything against what was fed.
func (s *siege) crash(t *testing.T, server *cluster.Postgres, proxy *testkit.Proxy, c crash) {
	began, unknown := time.Now(), s.unknown
	if c.gate == "" {
		s.processor.failpoint = fmt.Sprintf("%s:%d:wait", c.name, c.hit)
	}
	defer func() { s.processor.failpoint = "" }()
	s.receiver.be(moody)
	if c.done != "" { // what fails first is written down in more steps
		s.receiver.be(well)
	}
	s.processor.start(t)
	open := func() {}
	if c.gate != "" {
		s.processor.awaitOwnsLanes(t, siegeLanes)
		open = s.shut(t, c.gate)
	}
	rate := float64(placeRate)
	if c.rate > 0 {
		rate = c.rate
	}
	finish := func() {}
	switch {
	case c.once:
		s.feedParcels(t)
	case c.done != "":
		s.feed(t, 1, rate)
	default:
		finish = s.feeding(t, placeOrders, rate)
	}
	if c.gate == "" {
		s.processor.await(t, startTimeout, "at "+c.name, func() bool { return s.processor.reached(t, c.name) > 0 })
	} else {
		s.awaitHeldUp(t)
	}
	if c.done != "" {
		proxy.Hold(testkit.ToClient)
		rows := s.rows(t, c.done)
		open()
		s.processor.resume(t)
		testkit.WaitFor(t, startTimeout, "rows in "+c.done, func() bool { return s.rows(t, c.done) > rows })
	}
	retries := s.processor.metric("processor_outbox_retries_total")
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if cut := proxy.Cut(); cut == 0 && c.done != "" {
		t.Error("no answer was lost: there was no connection")
	}
	proxy.Release()
	s.processor.resume(t)
	s.processor.await(t, time.Minute, "without a database", func() bool { return s.processor.metric("processor_outbox_retries_total") > retries })
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	up := time.Now()
	if c.gate == "" {
		if reached := s.processor.reached(t, c.name); reached != 1 {
			t.Errorf("the processor was at %s %d times, want once", c.name, reached)
		}
	}
	finish()
	s.settleKnown(t)
	if lost := s.unknown - unknown; c.once && c.gate != "" && (lost > 0) != (c.done != "") {
		t.Errorf("%d effects are unknown, want those whose note was written without an answer", lost)
	}
	s.processor.kill()
	t.Logf("killed once, up again after %s; all settled %s later", up.Sub(began).Round(time.Millisecond), time.Since(up).Round(time.Millisecond))
}

// settleKnown settles what one process lived through. It knows all answers, so that nothing is repeated,
// unless it was without a database for so long that its lease ran out.
func (s *siege) settleKnown(t *testing.T) {
	t.Helper()
	repeated, fenced := s.settle(t), s.processor.metric("processor_outbox_fenced_total")
	if len(repeated) > 0 && fenced == 0 {
		t.Errorf("calls were repeated, and their answers were known: %v", repeated)
	}
	for at, n := range repeated {
		if n > 1 {
			t.Errorf("the call of %s was repeated %d times after one crash", at, n)
		}
	}
	if fenced > 0 {
		t.Logf("%v leases ran out, %d calls repeated", fenced, len(repeated))
	}
}

// retries counts what a part of the ledger's work has tried again.
func (p *processor) retries(part string) float64 {
	return p.metric("processor_outbox_retries_total", fmt.Sprintf("part=%q", part))
}

// awaitOwnsLanes waits until the process dispatches all lanes.
func (p *processor) awaitOwnsLanes(t *testing.T, lanes float64) {
	t.Helper()
	p.await(t, startTimeout, "with all lanes", func() bool { return p.metric("processor_outbox_owned_lanes") == lanes })
}

// rows counts those of a table, going around the proxy.
func (s *siege) rows(t *testing.T, table string) (count int) {
	t.Helper()
	connection := s.connect(t)
	defer func() { _ = connection.Close(t.Context()) }()
	if err := connection.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&count); err != nil {
		t.Fatal(err)
	}
	return count
}

func (s *siege) connect(t *testing.T) *pgx.Conn {
	t.Helper()
	connection, err := pgx.Connect(t.Context(), s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	return connection
}

// makeGates lets each insert into a table pass a gate, which is open. A lock of the table would not do:
// with it a statement would wait even to be described, and what it does would be a question later.
func (s *siege) makeGates(t *testing.T, tables ...string) {
	t.Helper()
	s.exec(t, `CREATE FUNCTION pass_gate() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN PERFORM pg_advisory_xact_lock_shared(hashtext(TG_ARGV[0])); RETURN NULL; END'`)
	for _, table := range tables {
		s.exec(t, fmt.Sprintf(`CREATE TRIGGER gate AFTER INSERT ON %s FOR EACH ROW EXECUTE FUNCTION pass_gate('%s')`, table, table))
	}
}

func (s *siege) exec(t *testing.T, sql string) {
	t.Helper()
	connection := s.connect(t)
	defer func() { _ = connection.Close(t.Context()) }()
	if _, err := connection.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// shut shuts the gate of a table until open.
func (s *siege) shut(t *testing.T, table string) (open func()) {
	t.Helper()
	connection := s.connect(t)
	t.Cleanup(func() { _ = connection.Close(context.WithoutCancel(t.Context())) })
	if _, err := connection.Exec(t.Context(), "SELECT pg_advisory_lock(hashtext($1))", table); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := connection.Exec(t.Context(), "SELECT pg_advisory_unlock_all()"); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitHeldUp waits until an insert waits at a gate.
func (s *siege) awaitHeldUp(t *testing.T) {
	t.Helper()
	connection := s.connect(t)
	defer func() { _ = connection.Close(t.Context()) }()
	testkit.WaitFor(t, startTimeout, "an insert at the gate", func() bool {
		var waits bool
		if err := connection.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)").Scan(&waits); err != nil {
			t.Fatal(err)
		}
		return waits
	})
}

// withHosts makes a connection string go to other hosts.
func withHosts(t *testing.T, dsn, hosts string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = hosts
	return u.String()
}

func hostOf(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}
