package dev

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func testProof() *Proof {
	return &Proof{
		Broker: "Apache Kafka 4.3.1, 1 node",
		Why:    "embedded: no Java runtime found (JAVA_HOME, PATH): run `make setup`, or install a JRE of version 17 or later",
		Took:   10900 * time.Millisecond, Inputs: 20_000, Wrong: 238,
		Kill: Kill{
			Instance: "b", Transaction: "orders.b.1", State: "Ongoing", Partitions: []string{"orders.priced/0", "orders.ledger/1"},
			Calls: 3, Tries: 4, Recovered: 570 * time.Millisecond, Outage: 610 * time.Millisecond,
		},
		Effects: EffectsProof{
			Committed: 19_762, Results: map[string]int64{"done": 19_362, "dead": 400},
			Calls: &EndpointSummary{
				Calls: 21_123, Distinct: 19_762, Charged: 19_362, Declined: 400, Failed: 694, Lost: 489, Late: 104,
				Duplicates: 654, AfterLost: 507, AfterDeath: 146, AfterRetry: 1,
			},
		},
		Topics: []TopicProof{
			{Role: "output", Topic: "orders.ledger", Expected: 39_524, Seen: 39_524, Aborted: 18},
			{Role: "results", Topic: "orders.effect-results", Expected: 19_762, Seen: 19_762},
			{Role: "dead-letter", Topic: "orders.dead-letter", Expected: 238, Seen: 238},
		},
		Reasons: map[string]int64{"bad_json": 72, "no_value": 36, "missing_field": 32, "unknown_member": 30, "bad_quantity": 32, "unknown_version": 21, "unknown_currency": 15},
		Aborted: 2,
		Faults:  []string{},
	}
}

// The report is what a person gets out of the demo: it fits a terminal and says it all.
func TestReportReads(t *testing.T) {
	t.Parallel()
	const want = `
The proof

  kafka       embedded: no Java runtime found (JAVA_HOME, PATH): run ` + "`make" + `
              ` + "setup`," + ` or install a JRE of version 17 or later
  broker      Apache Kafka 4.3.1, 1 node
  inputs      20,000 orders, 238 of them made wrong on purpose
  killed      processor b by SIGKILL while its transaction orders.b.1 was open,
              with records of it in 2 output partitions, and 3 calls under way
  back        it committed again 0.6 s after its restart, 0.6 s after the kill
  drained     to lag 0; then every processor stopped with exit code 0
  aborted     2 transactions, 18 records: in the log, seen by no reader
  refused     bad_json 72, no_value 36, bad_quantity 32, missing_field 32,
              unknown_member 30, unknown_version 21, unknown_currency 15
  effects     19,762 committed: 19,362 charged, 400 declined, 0 never called
  calls       21,123: 694 answered 500 or 503, 489 answers lost, 104 late
  repeated    654 calls after the charge was made: 507 for a lost or failed
              answer, 146 for the kill, 1 for a late answer, 0 unexplained
  order       0 violations: each customer was charged in the order of orders
  results     19,762 relayed: 19,362 orders confirmed, 400 cancelled

  topic                 expected     seen missing doubled wrong disorder aborted
  orders.ledger           39,524   39,524       0       0     0        0      18
  orders.effect-results   19,762   19,762       0       0     0        0       0
  orders.dead-letter         238      238       0       0     0        0       0

  duplicates 0, missing 0: every order and charge counted exactly once (10.9 s)
`
	got := testProof().Report()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	for line := range strings.SplitSeq(got, "\n") {
		if n := utf8.RuneCountInString(line); n > reportWidth {
			t.Errorf("a line of %d: %s", n, line)
		}
	}
}

// Without a database the report says that nothing was called, and why, and claims no more than that.
func TestReportTellsThatThereIsNoLedger(t *testing.T) {
	t.Parallel()
	proof := testProof()
	proof.Bare = "no Postgres server binaries found (PAWL_POSTGRES_BIN, PATH, /usr/lib/postgresql): run `make setup`, or install a Postgres server"
	proof.Effects = EffectsProof{Committed: 19_762}
	proof.Topics = slices.Delete(proof.Topics, 1, 2)
	const want = `
              with records of it in 2 output partitions
  back        it committed again 0.6 s after its restart, 0.6 s after the kill
  drained     to lag 0; then every processor stopped with exit code 0
  aborted     2 transactions, 18 records: in the log, seen by no reader
  refused     bad_json 72, no_value 36, bad_quantity 32, missing_field 32,
              unknown_member 30, unknown_version 21, unknown_currency 15
  effects     19,762 committed and not called: no Postgres server binaries
              found (PAWL_POSTGRES_BIN, PATH, /usr/lib/postgresql): run ` + "`make" + `
              ` + "setup`," + ` or install a Postgres server

  topic              expected     seen missing doubled wrong disorder aborted
  orders.ledger        39,524   39,524       0       0     0        0      18
  orders.dead-letter      238      238       0       0     0        0       0

  duplicates 0, missing 0: every order counted exactly once (10.9 s)
`
	_, got, _ := strings.Cut(proof.Report(), "was open,")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

// A failed proof says so in its last line and names each fault.
func TestReportNamesFaults(t *testing.T) {
	t.Parallel()
	proof := testProof()
	proof.Topics[0].Missing, proof.Topics[2].Duplicates = 3, 4
	proof.Faults = []string{"orders.ledger: 3 missing", "orders.dead-letter: 4 there more than once"}
	report := proof.Report()
	for _, want := range []string{"FAULT: orders.ledger: 3 missing", "FAULT: orders.dead-letter: 4", "duplicates 4, missing 3: NOT PROVEN"} {
		if !strings.Contains(report, want) {
			t.Errorf("the report does not say %q:\n%s", want, report)
		}
	}
}

// Scripts read the same facts: the verdict is one member.
func TestProofIsWrittenAsJSON(t *testing.T) {
	t.Parallel()
	proof := testProof()
	text, err := json.Marshal(proof)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"proven":true`, `"inputs":20000`, `"aborted_transactions":2`, `"recovered_seconds":0.57`, `"calls_under_way":3`, `"unexplained":0`, `"results_by_status":{"dead":400,"done":19362}`, `"took_seconds":10.9`, `"faults":[]`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("JSON does not have %s: %s", want, text)
		}
	}
	proof.Faults = []string{"x"}
	if text, err = json.Marshal(proof); err != nil || !strings.Contains(string(text), `"proven":false`) {
		t.Errorf("JSON of a failed proof = %s, %v", text, err)
	}
}
