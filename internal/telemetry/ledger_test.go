package telemetry

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"pawl/internal/outbox"
	"pawl/internal/outbox/dispatch"
	"pawl/internal/outbox/ingest"
	"pawl/internal/outbox/relay"
)

// newLedgerBench adds a ledger with one endpoint, one lane of each part, and a backlog.
func newLedgerBench(t *testing.T, b *bench, backlog func(context.Context) ([]Backlog, error)) *LedgerTelemetry {
	t.Helper()
	l, err := NewLedger(b.Telemetry, LedgerConfig{
		Registry: b.registry, Endpoints: []string{"payments"},
		Ingest: func() []ingest.Status {
			return []ingest.Status{{Lane: 3, State: ingest.Reading, Next: 10, End: 14}, {Lane: 4, State: ingest.Halted}, {Lane: 5, State: ingest.Retrying, Next: -1, End: 9}}
		},
		Dispatch: func() dispatch.Status {
			return dispatch.Status{
				Lanes:     []dispatch.LaneStatus{{Lane: 3, Owner: true, Window: 9}, {Lane: 4, Window: 1}},
				Endpoints: []dispatch.EndpointStatus{{Endpoint: "payments", InFlight: 2, Limit: 64, Breaker: dispatch.Open, Saturation: dispatch.Saturation{dispatch.ByRate: 2500 * time.Millisecond}}},
			}
		},
		Relay:   func() relay.Status { return relay.Status{Lanes: []relay.LaneStatus{{Lane: 3, Seq: 7}}} },
		Backlog: backlog, Retention: 14 * 24 * time.Hour,
		Waiting: func(context.Context) (map[int32]time.Duration, error) {
			return map[int32]time.Duration{3: 4 * time.Second}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func twoEndpoints(context.Context) ([]Backlog, error) {
	return []Backlog{
		{Endpoint: "payments", Pending: 5, Parked: 2, Dead: 1, Oldest: 90 * time.Second},
		{Endpoint: "gone", Pending: 1},
		{Endpoint: "gone too", Parked: 1, Oldest: time.Second},
	}, nil
}

func TestLedgerIsCountedByItsHooks(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	l := newLedgerBench(t, b, twoEndpoints)
	passed := 0
	in := l.Ingest(ingest.Hooks{Ingested: func(outbox.Batch) { passed++ }, Overtaken: func(int32) { passed++ }})
	in.Ingested(outbox.Batch{Lane: 3, Intents: make([]outbox.Intent, 4), Suppressed: 2})
	in.Unlisted(3, 7)
	in.Overtaken(3)
	in.Halted(4, errors.New("the topic is another one"))
	in.Retrying(ingest.NoLane, errors.New("no database"))
	out := l.Dispatch(dispatch.Hooks{Settled: func(dispatch.Settled) { passed++ }})
	out.Sent(dispatch.Sent{Endpoint: "payments", Attempt: 1, At: time.Now()})
	out.Sent(dispatch.Sent{Endpoint: "payments", Attempt: 2, At: time.Now()})
	for _, status := range []int{200, 204, 0, 409, 429, 503, 302, 422} {
		out.Answered(dispatch.Answered{Endpoint: "payments", Status: status})
	}
	out.Settled(dispatch.Settled{Endpoint: "payments", Status: outbox.Done})
	out.Settled(dispatch.Settled{Endpoint: "", Status: outbox.Dead, Offset: 9})
	out.Parked(dispatch.Parked{Endpoint: "payments"})
	out.Flushed(dispatch.Flushed{Duration: time.Millisecond})
	out.Breaker(dispatch.Breaker{Endpoint: "payments", State: dispatch.Open})
	out.Fenced(3, 5)
	out.Retrying(3, errors.New("no answer"))
	told := l.Relay()
	told.Relayed(relay.Relayed{Events: 6, Skipped: 1})
	told.Diverged(relay.Diverged{Lane: 3, Why: "another epoch"})
	told.Retrying(3, errors.New("no broker"))

	for _, c := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"processor_outbox_ingested_effects_total", nil, 4},
		{"processor_outbox_suppressed_effects_total", nil, 2},
		{"processor_outbox_unlisted_aborted_records_total", nil, 7},
		{"processor_outbox_ingest_overtaken_total", nil, 1},
		{"processor_outbox_first_attempt_age_seconds", nil, 1},
		{"processor_outbox_attempts_total", []string{"sink", "payments", "outcome", "accepted"}, 2},
		{"processor_outbox_attempts_total", []string{"sink", "payments", "outcome", "no_answer"}, 1},
		{"processor_outbox_attempts_total", []string{"sink", "payments", "outcome", "later"}, 3},
		{"processor_outbox_attempts_total", []string{"sink", "payments", "outcome", "refused"}, 2},
		{"processor_outbox_delivery_duration_seconds", []string{"sink", "payments"}, 8},
		{"processor_outbox_settled_effects_total", []string{"sink", "payments", "status", "done"}, 1},
		{"processor_outbox_settled_effects_total", []string{"sink", "unknown", "status", "dead"}, 1},
		{"processor_outbox_parked_effects_total", []string{"sink", "payments"}, 1},
		{"processor_outbox_flush_duration_seconds", nil, 1},
		{"processor_outbox_fenced_total", nil, 1},
		{"processor_outbox_results_total", nil, 6},
		{"processor_outbox_results_skipped_total", nil, 1},
		{"processor_outbox_relay_diverged_total", nil, 1},
		{"processor_outbox_retries_total", []string{"part", "ingest"}, 1},
		{"processor_outbox_retries_total", []string{"part", "dispatch"}, 1},
		{"processor_outbox_retries_total", []string{"part", "relay"}, 1},
	} {
		if got := b.value(t, c.name, c.labels...); got != c.want {
			t.Errorf("%s%v is %v, want %v", c.name, c.labels, got, c.want)
		}
	}
	if passed != 4 {
		t.Errorf("%d events were passed on to the hooks below, want 4", passed)
	}
	for _, want := range []string{"lane of effects halted", "effects suppressed", "a broker gave aborted effects as committed", "effect not delivered", "breaker of endpoint changed", "retrying work of the ledger"} {
		if !strings.Contains(b.log.String(), want) {
			t.Errorf("no line says %q:\n%s", want, b.log)
		}
	}
}

// Endpoints that other processes know are one series: names from records are no closed set.
func TestLedgerShowsItsBacklogAndItsLanes(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	failing := false
	l := newLedgerBench(t, b, func(ctx context.Context) ([]Backlog, error) {
		if failing {
			return nil, errors.New("no database")
		}
		return twoEndpoints(ctx)
	})
	b.want(t, `
# HELP processor_outbox_ledger_up 1 if the ledger's database answered the last question about what it holds, asked every 15 s, else 0; 0 while its schema is behind too.
# TYPE processor_outbox_ledger_up gauge
processor_outbox_ledger_up 0
`, "processor_outbox_ledger_up")
	wantDown := func(what string, is bool) {
		t.Helper()
		since, why := l.Down()
		if got := b.value(t, "processor_outbox_ledger_down_seconds"); (got > 0) != is || since.IsZero() == is || (why != nil) != is {
			t.Errorf("%s it is down for %v s, since %v: %v", what, got, since, why)
		}
	}
	wantDown("before the first question", false)
	l.Refused(errors.New("schema behind"))
	first, _ := l.Down()
	wantDown("refused", true)
	l.Refused(errors.New("schema still behind"))
	if since, why := l.Down(); !since.Equal(first) || why.Error() != "schema still behind" {
		t.Errorf("refused again it is down since %v: %v, want since %v", since, why, first)
	}
	l.askBacklog(t.Context())
	wantDown("after an answer", false)
	l.askWaiting(t.Context())
	for name, want := range map[string]float64{
		"processor_outbox_ledger_up": 1, "processor_outbox_calls_limit": 64, "processor_outbox_calls_in_flight": 2, "processor_outbox_window_effects": 9,
		"processor_outbox_ingest_lag_seconds": 4, "processor_outbox_retention_seconds": 1209600,
	} {
		if got := b.value(t, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	b.want(t, `
# HELP processor_outbox_effects Effects in the ledger by state (pending, parked, dead) and endpoint; absent while the database does not tell.
# TYPE processor_outbox_effects gauge
processor_outbox_effects{sink="payments",state="dead"} 1
processor_outbox_effects{sink="payments",state="parked"} 2
processor_outbox_effects{sink="payments",state="pending"} 5
processor_outbox_effects{sink="unknown",state="dead"} 0
processor_outbox_effects{sink="unknown",state="parked"} 1
processor_outbox_effects{sink="unknown",state="pending"} 1
# HELP processor_outbox_oldest_pending_age_seconds Age of the oldest effect of an endpoint that is not settled; 0 where there is none.
# TYPE processor_outbox_oldest_pending_age_seconds gauge
processor_outbox_oldest_pending_age_seconds{sink="payments"} 90
processor_outbox_oldest_pending_age_seconds{sink="unknown"} 1
# HELP processor_outbox_owned_lanes Lanes of the effects topic that this process dispatches.
# TYPE processor_outbox_owned_lanes gauge
processor_outbox_owned_lanes 1
# HELP processor_outbox_halted_lanes Lanes that wait for an operator, by part; the log says for what.
# TYPE processor_outbox_halted_lanes gauge
processor_outbox_halted_lanes{part="ingest"} 1
processor_outbox_halted_lanes{part="relay"} 0
# HELP processor_outbox_ingest_lag_offsets Offsets of a lane that are committed and not yet in the ledger, markers included; absent until the ledger has said where the lane stands.
# TYPE processor_outbox_ingest_lag_offsets gauge
processor_outbox_ingest_lag_offsets{lane="3"} 4
processor_outbox_ingest_lag_offsets{lane="4"} 0
# HELP processor_outbox_saturated_seconds_total Time in which a call to an endpoint waited for what bounds its calls: concurrency or rate of the endpoint, or the calls of this process at once (workers). Its rate is the share of the time.
# TYPE processor_outbox_saturated_seconds_total counter
processor_outbox_saturated_seconds_total{by="concurrency",sink="payments"} 0
processor_outbox_saturated_seconds_total{by="rate",sink="payments"} 2.5
processor_outbox_saturated_seconds_total{by="workers",sink="payments"} 0
# HELP processor_outbox_breaker_state 1 for the state that the breaker of an endpoint is in.
# TYPE processor_outbox_breaker_state gauge
processor_outbox_breaker_state{sink="payments",state="closed"} 0
processor_outbox_breaker_state{sink="payments",state="half-open"} 0
processor_outbox_breaker_state{sink="payments",state="open"} 1
`, "processor_outbox_effects", "processor_outbox_oldest_pending_age_seconds", "processor_outbox_owned_lanes", "processor_outbox_halted_lanes", "processor_outbox_ingest_lag_offsets", "processor_outbox_saturated_seconds_total", "processor_outbox_breaker_state")
	failing = true
	l.askBacklog(t.Context())
	if n := testutil.CollectAndCount(l, "processor_outbox_effects"); n != 0 {
		t.Errorf("%d old figures are shown although the database does not tell", n)
	}
	if up := b.value(t, "processor_outbox_ledger_up"); up != 0 {
		t.Errorf("the ledger is up: %v, and does not answer", up)
	}
}
