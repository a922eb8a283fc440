//go:build chaos && linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pawl/internal/cluster"
	"pawl/internal/load"
	"pawl/internal/testkit"
)

// An outage of an hour is not waited for. What it does is shaped: so many effects come while it lasts
// as an hour at thirty a second brings, as fast as the stream takes them, and each lane has several
// times what its dispatcher holds. What depends on time alone (pauses, the breaker, limits of age) the
// tests of internal/outbox show in virtual time.
const (
	outageOrders   = 110_000
	healthyOrders  = 20_000           // before the first fault, to compare with
	streamMin      = 0.5              // of the rate without a fault
	drainTimeout   = 5 * time.Minute  // of all that waited
	faultTimeout   = 30 * time.Second // for a fault to be seen
	connectionsMax = 40               // of the database

	// Bytes beyond what the process had without a fault. Its collector lets a heap double; the backlog in
	// memory would take more than this even so.
	memoryMore = 250 << 20
)

// outage is something that the stream of records does not need and that fails for a time.
type outage struct {
	name   string
	strike func(t *testing.T)
	heal   func(t *testing.T)
	seen   func() bool // the processor has noticed
}

// ordeal is an application whose input is watched.
type ordeal struct {
	*siege
	monitor *monitor
	healthy float64 // records a second without a fault
	memory  int64   // the most that the process had until then
}

// newOrdeal starts a processor and measures it without a fault.
func newOrdeal(t *testing.T, s *siege, lanes float64) *ordeal {
	t.Helper()
	o := &ordeal{siege: s, monitor: s.monitor()}
	o.processor.start(t)
	o.processor.awaitReady(t)
	o.processor.awaitOwnsLanes(t, lanes)
	o.healthy = o.stream(t, healthyOrders)
	o.awaitTold(t)
	o.memory = o.peak(t)
	return o
}

// stream feeds orders as fast as they are taken, waits until all are through, and gives the rate.
func (o *ordeal) stream(t *testing.T, count int64) float64 {
	t.Helper()
	began := time.Now()
	o.feed(t, count, 0)
	o.monitor.awaitCaughtUp(t, drainTimeout, o.orders)
	return float64(count) / time.Since(began).Seconds()
}

// awaitTold waits until every effect has its result.
func (o *ordeal) awaitTold(t *testing.T) {
	t.Helper()
	o.processor.await(t, drainTimeout, fmt.Sprintf("with %d results told", o.orders), func() bool {
		return o.processor.metric("processor_outbox_results_total") >= float64(o.orders)
	})
}

func (o *ordeal) peak(t *testing.T) int64 {
	t.Helper()
	peak, err := o.processor.memoryPeak()
	if err != nil {
		t.Fatal(err)
	}
	return peak
}

// endure lets one thing after the other fail, each for the whole of a load, and after the last lets the
// backlog drain. behind is asked at the end of the last load, when all that waits must be in view.
func (o *ordeal) endure(t *testing.T, outages []outage, behind func(t *testing.T, waiting int64)) {
	t.Helper()
	made := int64(o.receiver.accepted())
	for _, fault := range outages {
		fault.strike(t)
		rate := o.stream(t, outageOrders/int64(len(outages)))
		if rate < streamMin*o.healthy {
			t.Errorf("%s: the stream ran at %.0f records/s, without a fault at %.0f", fault.name, rate, o.healthy)
		}
		for _, path := range []string{"/livez", "/readyz"} {
			if code, text := o.processor.get(t.Context(), path); code != http.StatusOK {
				t.Errorf("%s: %s says %d, want 200: outputs flow: %s", fault.name, path, code, text)
			}
		}
		o.processor.await(t, faultTimeout, "aware of "+fault.name, fault.seen)
		t.Logf("%s: the stream ran at %.0f records/s, without a fault at %.0f", fault.name, rate, o.healthy)
		if fault.name == outages[len(outages)-1].name {
			behind(t, o.orders-made)
		}
		fault.heal(t)
	}
	began := time.Now()
	o.awaitTold(t)
	took := time.Since(began)
	repeated := o.settle(t)
	for at, n := range repeated {
		if n > len(outages) {
			t.Errorf("the call of %s was repeated %d times in %d outages", at, n, len(outages))
		}
	}
	peak := o.peak(t)
	if peak > o.memory+memoryMore {
		t.Errorf("the processor grew from %d MiB to %d MiB, want at most %d MiB more", o.memory>>20, peak>>20, int64(memoryMore)>>20)
	}
	t.Logf("%d effects drained in %s; %d calls repeated; memory %d MiB at most, without a fault %d MiB",
		outageOrders, took.Round(100*time.Millisecond), len(repeated), peak>>20, o.memory>>20)
}

// status asks for the ledger's part of what the process says of itself.
func (o *ordeal) status(t *testing.T) (status struct {
	Effects struct {
		Ingest []struct {
			State string
			Error string
		}
		Dispatch struct {
			Endpoints []struct{ Endpoint, Breaker string }
		}
	}
},
) {
	t.Helper()
	code, text := o.processor.get(t.Context(), "/api/v1/status")
	if err := json.Unmarshal([]byte(text), &status); err != nil || code != http.StatusOK {
		t.Fatalf("status: code %d, %v: %s", code, err, text)
	}
	return status
}

// The database is away in every way that there is, for as long as records come. They go on at their
// speed, their effects wait on the topic, and all are made when it is back.
func TestStreamRunsOnWithoutPostgres(t *testing.T) {
	server := testkit.OpenPostgres(t, cluster.PostgresConfig{Durable: true, Settings: map[string]string{"max_connections": strconv.Itoa(connectionsMax)}})
	proxy := testkit.NewProxy(t, hostOf(t, server.DSN()))
	s := besiege(t, testkit.OpenKafka(t, cluster.KafkaConfig{Nodes: 1}), server.DSN(), withHosts(t, server.DSN(), proxy.Address()))
	s.run(t, "migrate", "up", "--yes")
	o := newOrdeal(t, s, siegeLanes)
	var retries float64
	failing := func() bool { return o.retries() > retries }
	must := func(do func() error) func(t *testing.T) {
		return func(t *testing.T) {
			retries = o.retries()
			if err := do(); err != nil {
				t.Fatal(err)
			}
		}
	}
	start := must(func() error { return server.Start(t.Context()) })
	var hogs []*pgx.Conn
	var before int64 // orders, when the last outage begins
	o.endure(t, []outage{
		{"Postgres stopped", must(server.Stop), start, failing},
		{"Postgres frozen", must(server.Pause), must(server.Resume), failing},
		{"Postgres read-only", func(t *testing.T) { retries = o.retries(); o.readOnly(t, true) }, func(t *testing.T) { o.readOnly(t, false) }, failing},
		{"Postgres slow", func(*testing.T) { proxy.Delay(200 * time.Millisecond) }, func(*testing.T) { proxy.Delay(0) }, func() bool { return proxy.Hits() > 0 }},
		{"Postgres full", func(t *testing.T) { retries = o.retries(); hogs = o.fillUp(t); before = o.orders }, func(t *testing.T) {
			for _, hog := range hogs {
				_ = hog.Close(t.Context())
			}
		}, failing},
	}, func(t *testing.T, _ int64) {
		// Those of the earlier outages may have come through: in one of them the database was only slow.
		waiting := o.orders - before
		o.processor.await(t, faultTimeout, fmt.Sprintf("with the backlog of %d effects in view", waiting), func() bool {
			return o.processor.metric("processor_outbox_ingest_lag_offsets") > float64(waiting*9/10)
		})
		for _, lane := range o.status(t).Effects.Ingest {
			if lane.State != "retrying" || lane.Error == "" {
				t.Errorf("the status shows a lane that is %s with error %q, want retrying", lane.State, lane.Error)
			}
		}
	})
}

func (o *ordeal) retries() float64 {
	return o.processor.retries("ingest") + o.processor.retries("dispatch")
}

// readOnly makes the database refuse writes, as a standby does, or take them again.
func (o *ordeal) readOnly(t *testing.T, on bool) {
	t.Helper()
	connection := o.connect(t)
	defer func() { _ = connection.Close(t.Context()) }()
	for _, sql := range []string{fmt.Sprintf("ALTER SYSTEM SET default_transaction_read_only = %t", on), "SELECT pg_reload_conf()"} {
		if _, err := connection.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
}

// fillUp takes every connection that the database has.
func (o *ordeal) fillUp(t *testing.T) (hogs []*pgx.Conn) {
	t.Helper()
	t.Cleanup(func() {
		for _, hog := range hogs {
			_ = hog.Close(t.Context())
		}
	})
	var pids []int32
	testkit.WaitFor(t, faultTimeout, "all connections of the database", func() bool {
		hog, err := pgx.Connect(t.Context(), o.dsn)
		if err == nil {
			hogs, pids = append(hogs, hog), append(pids, int32(hog.PgConn().PID()))
		}
		if len(hogs) > 0 {
			_, err = hogs[0].Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> ALL($1)`, pids)
			if err != nil {
				t.Fatal(err)
			}
		}
		return len(hogs) == connectionsMax
	})
	return hogs
}

// The one endpoint is away in every way that there is, for as long as records come. They go on at their
// speed, their effects wait in the ledger, and all are made when it is back.
func TestStreamRunsOnWithoutItsEndpoint(t *testing.T) {
	dsn := testkit.Postgres(t)
	// With one lane most of the backlog is more than its dispatcher may have in memory, in whatever form.
	o := newOrdeal(t, besiege(t, testkit.OpenKafka(t, cluster.KafkaConfig{Nodes: 1}), dsn, dsn, "effects.lanes=1"), 1)
	fault := func(m mood) outage {
		return outage{
			"endpoint " + string(m), func(*testing.T) { o.receiver.be(m) }, func(*testing.T) { o.receiver.be(moody) },
			func() bool {
				return o.processor.metric("processor_outbox_breaker_state", `sink="payments"`, `state="closed"`) == 0
			},
		}
	}
	o.endure(t, []outage{fault(down), fault(hanging), fault(erroring)}, func(t *testing.T, waiting int64) {
		o.processor.await(t, faultTimeout, "with the backlog in view", func() bool {
			pending := o.processor.metric("processor_outbox_effects", `sink="payments"`, `state="pending"`)
			parked := o.processor.metric("processor_outbox_effects", `sink="payments"`, `state="parked"`)
			return int64(pending+parked) > waiting*9/10 && parked > 0
		})
		if age := o.processor.metric("processor_outbox_oldest_pending_age_seconds", `sink="payments"`); age <= 0 {
			t.Errorf("the oldest effect that waits is %v s old", age)
		}
		endpoints := o.status(t).Effects.Dispatch.Endpoints
		if !slices.ContainsFunc(endpoints, func(e struct{ Endpoint, Breaker string }) bool {
			return e.Endpoint == "payments" && e.Breaker != "closed"
		}) {
			t.Errorf("the status shows %v, want an open breaker of payments", endpoints)
		}
	})
}

// An endpoint that answers, but slowly, has a closed breaker. More of its effects than a lane may hold in
// memory stand before those of another endpoint, whose calls are made all the same.
func TestSlowEndpointHoldsNoOtherUp(t *testing.T) {
	const backlog = 8000 // four minutes of the slow one's work
	dsn := testkit.Postgres(t)
	s := besiege(t, testkit.OpenKafka(t, cluster.KafkaConfig{Nodes: 1}), dsn, dsn, "effects.lanes=1", "endpoints.payments.concurrency=16")
	var err error
	if s.generator, err = load.NewOrders(load.OrdersConfig{Seed: 1, Customers: 100 * backlog}); err != nil { // few wait for an older one of their own
		t.Fatal(err)
	}
	s.processor.start(t)
	s.processor.awaitOwnsLanes(t, 1)
	s.receiver.be(slow)
	s.feed(t, backlog, 0)
	testkit.WaitFor(t, time.Minute, "all charges on their topic", func() bool { return len(s.readEffects(t)) == backlog })
	s.feedParcels(t)
	made := func(endpoint string) int {
		return int(s.processor.metric("processor_outbox_settled_effects_total", fmt.Sprintf("sink=%q", endpoint), `status="done"`))
	}
	s.processor.await(t, drainTimeout, "done with the parcels", func() bool { return made("parcels") == parcels })
	charged := made("payments")
	if charged > backlog/2 {
		t.Errorf("the parcels waited until %d of %d charges were made", charged, backlog)
	}
	if closed := s.processor.metric("processor_outbox_breaker_state", `sink="payments"`, `state="closed"`); closed != 1 {
		t.Error("the breaker of the slow endpoint has opened: this is another test")
	}
	s.receiver.be(well)
	s.processor.await(t, drainTimeout, "done with the charges", func() bool { return made("payments") == backlog })
	if repeated := s.settle(t); len(repeated) > 0 {
		t.Errorf("calls were repeated without a reason: %v", repeated)
	}
	t.Logf("%d parcels were called behind %d charges of a slow endpoint, when %d of them were made", parcels, backlog, charged)
}
