//go:build integration

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// measured runs bench and reads its report back. What the figures are is no matter of a test that
// shares its machine; that they are there is.
func measured(t *testing.T, args ...string) (found report, out string) {
	t.Helper()
	folder := t.TempDir()
	var tables, problems bytes.Buffer
	if code := run(append([]string{"-processor", "../bin/processor", "-out", folder, "-rounds", "1", "-warm-rounds", "1"}, args...), &tables, &problems); code != 0 {
		t.Fatalf("exit code %d\n%s\n%s", code, &problems, &tables)
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("result files %v, %v, want one", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err == nil {
		err = json.Unmarshal(text, &found)
	}
	if err != nil {
		t.Fatal(err)
	}
	return found, tables.String()
}

// Both peers copy a little on a real broker, and then call for effects: more than goes into one transaction, since a rate is from one commit to
// another.
func TestBothPeersAreMeasured(t *testing.T) {
	t.Parallel()
	profiles := t.TempDir()
	found, out := measured(t, "-only", partThroughput+","+partLatency+","+partWire,
		"-records", "100000", "-rate", "500", "-wire-rate", "100", "-duration", "2s", "-warm-up", "0s", "-cpu-profile", profiles)
	if len(found.Copies) != 2 || len(found.Waits) != 2 || len(found.Wires) != 2 || len(found.measured()) != 4 {
		t.Fatalf("%d throughput, %d latency and %d wire runs, %d targets, want 2 of each and 4\n%s", len(found.Copies), len(found.Waits), len(found.Wires), len(found.measured()), out)
	}
	for _, run := range found.Copies {
		if run.Tally.Seen != 100000 || run.Peak == 0 || run.CPU == 0 {
			t.Errorf("%s: %+v, want every record, and figures of memory and CPU", run.Peer, run)
		}
	}
	for _, run := range found.Waits {
		if run.Latency.Count != 1000 {
			t.Errorf("%s: latency %+v, want that of 1000 records", run.Peer, run.Latency)
		}
	}
	for _, run := range found.Wires {
		if run.Latency.Count != 200 || run.CPU == 0 || run.Peak == 0 {
			t.Errorf("%s: %+v, want the latency of 200 effects, and figures of memory and CPU", run.Peer, run)
		}
	}
	if files, err := filepath.Glob(filepath.Join(profiles, "bench-wire-*.pprof")); err != nil || len(files) != 2 {
		t.Errorf("profiles %v, %v, want one for each run of the loop", files, err)
	}
}

// Kafka Streams and a session of the client copy every record exactly once at each point of a sweep, and
// what the broker took meanwhile is told apart.
func TestPeersThatCopyExactlyOnceAreMeasured(t *testing.T) {
	t.Parallel()
	names := []string{sessionName, streamsName, streamsBestName}
	found, out := measured(t, "-only", "partitions", "-points", "1,3", "-peers", strings.Join(names, ","), "-records", "2000", "-warm-rounds", "0")
	if len(found.Points) != 2 {
		t.Fatalf("%d points, want 2\n%s", len(found.Points), out)
	}
	for _, at := range found.Points {
		if len(at.Copies) != len(names) {
			t.Errorf("%d %s: %d runs, want %d", at.Value, at.Unit, len(at.Copies), len(names))
		}
		for _, run := range at.Copies {
			if run.Tally.Seen != 2000 || run.CPU == 0 || run.Broker == 0 || run.Peak == 0 {
				t.Errorf("%s with %d %s: %+v, want every record, and figures of memory and CPU", run.Peer, at.Value, at.Unit, run)
			}
		}
	}
}

// Latency of a stream is measured through Kafka Streams too, with its settings for that.
func TestLatencyOfKafkaStreamsIsMeasured(t *testing.T) {
	t.Parallel()
	found, out := measured(t, "-only", "rates", "-points", "200", "-peers", streamsBestName, "-duration", "1s", "-warm-up", "0s", "-warm-rounds", "0")
	if len(found.Points) != 1 || len(found.Points[0].Waits) != 1 || found.Points[0].Waits[0].Latency.Count != 200 || found.Points[0].Waits[0].Scheduled.Count != 200 {
		t.Errorf("points %+v, want the latency of 200 records\n%s", found.Points, out)
	}
}

// A backlog is copied beside another in its round, and every tenth of it has its rate and its memory.
func TestCatchUpIsMeasured(t *testing.T) {
	t.Parallel()
	found, out := measured(t, "-only", partCatchUp, "-records", "50000", "-warm-rounds", "0")
	if len(found.CatchUps) != 1 || len(found.measured()) != 0 {
		t.Fatalf("%d runs and %d targets, want one and none for so small a backlog\n%s", len(found.CatchUps), len(found.measured()), out)
	}
	run := found.CatchUps[0]
	if run.Backlog.Tally.Seen != 50000 || run.Steady.Tally.Seen != 50000 || run.Backlog.CPU == 0 {
		t.Errorf("%+v, want every record of both", run)
	}
	for i, part := range run.Tenths {
		if part.Rate <= 0 || part.Resident <= 0 {
			t.Errorf("tenth %d: %+v, want figures", i+1, part)
		}
	}
}

// Orders are priced with a ledger and without one; every output and every call is there.
func TestOrdersAreMeasured(t *testing.T) {
	t.Parallel()
	found, out := measured(t, "-only", partOrders, "-records", "5000", "-warm-rounds", "0")
	if len(found.Orders) != 2 || len(found.measured()) != 0 || !strings.Contains(out, "Effects ") {
		t.Fatalf("%d runs and %d targets, want two and none for so few orders\n%s", len(found.Orders), len(found.measured()), out)
	}
	for _, run := range found.Orders {
		if run.CPU <= 0 || run.Broker <= 0 || run.Peak <= 0 {
			t.Errorf("%+v, want figures of CPU and memory", run)
		}
		if ledger := run.Peer == processorName; (run.Postgres > 0) != ledger || (run.WAL > 0) != ledger || (run.Effects > 0) != ledger || (run.Behind > 0) != ledger {
			t.Errorf("%+v, want figures of effects where there is a ledger", run)
		}
	}
}

// The load changes under one process with its defaults, and each step has its latency and its transactions.
func TestStepsAreMeasured(t *testing.T) {
	t.Parallel()
	found, out := measured(t, "-only", partSteps, "-points", "20,500,20", "-duration", "1s", "-warm-up", "1s", "-warm-rounds", "0")
	if len(found.Steps) != 3 {
		t.Fatalf("%d steps, want 3\n%s", len(found.Steps), out)
	}
	for _, run := range found.Steps {
		if float64(run.Latency.Count) != run.Wanted || run.Transactions <= 0 || run.Size <= 0 || run.Rate <= 0 || len(run.Seconds) != 1 {
			t.Errorf("%s: %+v, want all of its records, and transactions", run.By(), run)
		}
	}
}

// Every way to trace copies all, and the sink sees as many spans as it has to.
func TestTracingIsMeasured(t *testing.T) {
	t.Parallel()
	found, out := measured(t, "-only", partTracing, "-records", "20000", "-warm-rounds", "0")
	if len(found.Tracings) != len(tracingNames) {
		t.Fatalf("%d runs, want %d\n%s", len(found.Tracings), len(tracingNames), out)
	}
	links := map[string]float64{} // of a span
	for _, run := range found.Tracings {
		if run.Tally.Seen != 20000 || run.CPU == 0 || run.CPUByOff <= 0 {
			t.Errorf("%s: %+v, want every record, and figures of CPU: there may be one commit only, and so no rate", run.Peer, run)
		}
		links[run.Peer] = quotient(float64(run.Sink.Links), float64(run.Sink.Spans))
	}
	// The sampled record that is there is a link of one of the spans; where all are sampled, spans have more.
	if links[tracingOff] != 0 || links[tracedTransactions] == 0 || links[tracedRecords] == 0 || links[tracedAll] <= links[tracedRecords] {
		t.Errorf("links of a span %v\n%s", links, out)
	}
}

// Every peer of the effects part does a little on a real Postgres, and none loses anything.
func TestEveryPeerOfTheEffectsPartIsMeasured(t *testing.T) {
	t.Parallel()
	found, out := measured(t, "-only", partEffects, "-duration", "500ms", "-hold-xmin")
	// Five peers without a call, and the bare loop too with one.
	if len(found.Effects) != 5+6 || len(found.measured()) != 2*7 {
		t.Fatalf("%d runs and %d targets, want 11 and 14\n%s", len(found.Effects), len(found.measured()), out)
	}
	for _, run := range found.Effects {
		if run.Effects == 0 || run.Rate <= 0 || run.OwnCPU <= 0 || run.Tally.Calls < run.Effects {
			t.Errorf("%s, target %s: %+v, want effects and what they cost", run.Peer, run.Target, run.effectFigures)
		}
		if (run.EndpointCPU > 0) != (run.Target == targetHTTP) {
			t.Errorf("%s, target %s: the endpoint took %g us of a call", run.Peer, run.Target, run.EndpointCPU)
		}
		if run.Peer != effectHTTP && (run.ServerCPU <= 0 || run.WAL <= 0) {
			t.Errorf("%s, target %s: %+v, want what it cost Postgres", run.Peer, run.Target, run.effectFigures)
		}
		if mine := run.Peer == effectPawl || run.Peer == effectPawl+effectHeld; mine && run.Tally.Disordered+run.Tally.Repeated > 0 {
			t.Errorf("%s, target %s: %+v, want each call once and in order", run.Peer, run.Target, run.Tally)
		}
	}
}

// The held transaction is one that keeps the server from cleaning up: it has a snapshot and an id.
func TestHeldTransactionHasASnapshot(t *testing.T) {
	t.Parallel()
	server, err := openDatabases(t.Context(), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.close(); err != nil {
			t.Error(err)
		}
	})
	dsn, err := server.create(t.Context(), "held")
	if err != nil {
		t.Fatal(err)
	}
	release, err := hold(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	held := 0
	err = server.with(t.Context(), func(connection *pgx.Conn) error {
		return connection.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND backend_xmin IS NOT NULL AND backend_xid IS NOT NULL").Scan(&held)
	})
	if err != nil || held != 1 {
		t.Errorf("%d transactions are held, %v; want 1", held, err)
	}
}
