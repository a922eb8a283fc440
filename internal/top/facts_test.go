package top

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

const scrape = `# HELP processor_build_info The program that runs. Always 1.
# TYPE processor_build_info gauge
processor_build_info{goversion="go1.26.8",revision="abc",version="v1.2.3"} 1
# TYPE processor_config_info gauge
processor_config_info{hash="0f1e2d"} 1
# TYPE processor_kafka_up gauge
processor_kafka_up 1
# TYPE processor_last_commit_timestamp_seconds gauge
processor_last_commit_timestamp_seconds 1.7959896e+09
# TYPE processor_transaction_open_seconds gauge
processor_transaction_open_seconds 0.25
# TYPE processor_transactions_total counter
processor_transactions_total{outcome="committed",reason="none"} 100
processor_transactions_total{outcome="aborted",reason="rebalance"} 3
processor_transactions_total{outcome="unknown",reason="unknown"} 1
# TYPE processor_records_total counter
processor_records_total{handler="orders",outcome="committed",topic="orders"} 900
processor_records_total{handler="orders",outcome="rejected",topic="orders"} 10
processor_records_total{handler="orders",outcome="aborted",topic="orders"} 70
# TYPE processor_output_records_total counter
processor_output_records_total{topic="priced"} 900
processor_output_records_total{topic="ledger"} 901
# TYPE processor_consumer_lag_records gauge
processor_consumer_lag_records{partition="0",topic="orders"} 12
# TYPE processor_consumer_lag_seconds gauge
processor_consumer_lag_seconds{partition="0",topic="orders"} 1.5
# TYPE processor_consumer_held_records gauge
processor_consumer_held_records{partition="0",topic="orders"} 4
# TYPE processor_outbox_ledger_down_seconds gauge
processor_outbox_ledger_down_seconds 754
# TYPE processor_outbox_ledger_up gauge
processor_outbox_ledger_up 1
# TYPE processor_outbox_effects gauge
processor_outbox_effects{sink="payments",state="pending"} 7
processor_outbox_effects{sink="payments",state="parked"} 2
processor_outbox_effects{sink="payments",state="dead"} 1
# TYPE processor_outbox_oldest_pending_age_seconds gauge
processor_outbox_oldest_pending_age_seconds{sink="payments"} 33
# TYPE processor_outbox_attempts_total counter
processor_outbox_attempts_total{outcome="ok",sink="payments"} 50
processor_outbox_attempts_total{outcome="timeout",sink="payments"} 5
# TYPE processor_outbox_calls_in_flight gauge
processor_outbox_calls_in_flight{sink="payments"} 3
# TYPE processor_outbox_calls_limit gauge
processor_outbox_calls_limit{sink="payments"} 64
# TYPE processor_outbox_breaker_state gauge
processor_outbox_breaker_state{sink="payments",state="closed"} 0
processor_outbox_breaker_state{sink="payments",state="half-open"} 1
processor_outbox_breaker_state{sink="payments",state="open"} 0
# TYPE processor_transaction_duration_seconds histogram
processor_transaction_duration_seconds_bucket{le="0.1"} 5
processor_transaction_duration_seconds_bucket{le="+Inf"} 5
processor_transaction_duration_seconds_sum 0.3
processor_transaction_duration_seconds_count 5
`

const lanes = `{"lanes": [
  {"lane": 0, "phase": "working", "partitions": {"orders": [0, 2]}, "halted": [{"topic": "orders", "partition": 2, "error": "offset out of range"}]},
  {"lane": 1, "phase": "polling", "partitions": {}, "halted": [{"topic": "orders", "partition": 5, "error": "unreadable"}]}
]}`

func TestFactsAreWhatAProcessTold(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_795_989_601, 0)
	f := Read("one:9090", at, Told{Status: []byte(lanes), Metrics: []byte(scrape), IsReady: true})
	if f.Err != nil {
		t.Fatal(f.Err)
	}
	if f.Version != "v1.2.3" || f.Config != "0f1e2d" || f.NotReady != "" || !f.KafkaUp || f.Ledger != Up || f.LedgerDown != 754*time.Second || f.Open != 250*time.Millisecond {
		t.Errorf("facts %+v", f)
	}
	if at.Sub(f.LastCommit) != time.Second {
		t.Errorf("last commit %s", f.LastCommit)
	}
	if f.Committed != 100 || f.Records != 910 || f.Rejected != 10 || f.Outputs != 1801 || f.Aborts["aborted rebalance"] != 3 || f.Aborts["unknown unknown"] != 1 {
		t.Errorf("counts %+v", f)
	}
	if f.Phases["working"] != 1 || f.Phases["polling"] != 1 || len(f.Partitions) != 3 {
		t.Fatalf("lanes %v, partitions %+v", f.Phases, f.Partitions)
	}
	first, halted, given := f.Partitions[0], f.Partitions[1], f.Partitions[2]
	if first.Name() != "orders/0" || *first.Lag != 12 || *first.Seconds != 1.5 || first.Held != 4 || first.Process != "one:9090" || first.Phase != "working" {
		t.Errorf("first %+v", first)
	}
	if halted.Name() != "orders/2" || halted.Lag != nil || halted.Halted != "offset out of range" {
		t.Errorf("halted %+v", halted)
	}
	if given.Name() != "orders/5" || given.Lane != 1 || given.Halted != "unreadable" {
		t.Errorf("halted and given away %+v", given)
	}
	want := Endpoint{
		Endpoint: "payments", Known: true, Pending: 7, Parked: 2, Dead: 1, Oldest: 33 * time.Second, InFlight: 3, Limit: 64, Attempts: 55, Breaker: "half-open",
	}
	if len(f.Endpoints) != 1 || f.Endpoints[0] != want {
		t.Errorf("endpoints %+v", f.Endpoints)
	}
}

func TestFactsSayWhyThereAreNone(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		told Told
		want string
	}{
		"no metrics":         {Told{Metrics: []byte("<html>"), Status: []byte(lanes)}, "read metrics: "},
		"somebody else":      {Told{Metrics: []byte("up 1\n"), Status: []byte(lanes)}, "is it a processor?"},
		"status of no kind":  {Told{Metrics: []byte(scrape), Status: []byte("404")}, "read status: "},
		"nothing whatsoever": {Told{}, "read status: "},
	} {
		if f := Read("x", time.Now(), test.told); f.Err == nil || !strings.Contains(f.Err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, f.Err, test.want)
		}
	}
	for listing, want := range map[string]string{
		"[+]drain ok\n[-]group failed: not every lane is in\nreadyz check failed\n": "group: not every lane is in",
		"": "not ready",
	} {
		if f := Read("x", time.Now(), Told{Metrics: []byte(scrape), Status: []byte(lanes), Ready: []byte(listing)}); f.NotReady != want {
			t.Errorf("%q: %q, want %q", listing, f.NotReady, want)
		}
	}
}

// A metric under another name would be 0 here for ever, and nobody would see it.
func TestEveryMetricThatIsReadExists(t *testing.T) {
	t.Parallel()
	list, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("facts.go")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`"(processor_[a-z_]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(names) < 15 {
		t.Fatalf("only %d metrics are read: the test has lost its subject", len(names))
	}
	for _, name := range names {
		if !strings.Contains(string(list), "`"+name[1]+"`") {
			t.Errorf("%s is not in docs/metrics.md", name[1])
		}
		if !strings.Contains(scrape, name[1]+"{") && !strings.Contains(scrape, name[1]+" ") {
			t.Errorf("%s is not in what the tests read", name[1])
		}
	}
}
