package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/goleak"

	"pawl/internal/message"
	"pawl/internal/txn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a Telemetry under test with everything it wrote.
type bench struct {
	*Telemetry
	hooks    txn.Hooks
	registry *prometheus.Registry
	log      *logBuffer
}

type logBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

// lines returns the attributes of every line with the message.
func (b *logBuffer) lines(t *testing.T, message string) []map[string]any {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []map[string]any
	for line := range strings.Lines(b.buffer.String()) {
		var attrs map[string]any
		if err := json.Unmarshal([]byte(line), &attrs); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if attrs["msg"] == message {
			found = append(found, attrs)
		}
	}
	return found
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func newBench(tb testing.TB, change func(*Config)) *bench {
	tb.Helper()
	b := &bench{registry: prometheus.NewRegistry(), log: &logBuffer{}}
	log, _, err := NewLogger(b.log, "info", FormatJSON)
	if err != nil {
		tb.Fatal(err)
	}
	config := Config{
		Registry: b.registry, Log: log,
		Version: "1.2.3", Revision: "abc", ConfigHash: "f00d",
		Routes:  []Route{{Handler: "orders", Topics: []string{"in"}}},
		Outputs: []string{"out"},
	}
	if change != nil {
		change(&config)
	}
	if b.Telemetry, err = New(config); err != nil {
		tb.Fatal(err)
	}
	b.hooks = b.Hooks()
	return b
}

// want compares whole metric families with their text form.
func (b *bench) want(t *testing.T, text string, names ...string) {
	t.Helper()
	if err := testutil.GatherAndCompare(b.registry, strings.NewReader(text), names...); err != nil {
		t.Error(err)
	}
}

// value returns the one series of a family that has all these label values, or -1.
func (b *bench) value(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := b.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
	series:
		for _, metric := range family.GetMetric() {
			for i := 0; i < len(labels); i += 2 {
				found := false
				for _, pair := range metric.GetLabel() {
					found = found || pair.GetName() == labels[i] && pair.GetValue() == labels[i+1]
				}
				if !found {
					continue series
				}
			}
			switch {
			case metric.GetCounter() != nil:
				return metric.GetCounter().GetValue()
			case metric.GetHistogram() != nil:
				return float64(metric.GetHistogram().GetSampleCount())
			default:
				return metric.GetGauge().GetValue()
			}
		}
	}
	return -1
}

// transaction tells the hooks of one batch of the topic "in".
func (b *bench) transaction(lane, records, rejects int, outcome txn.Outcome, reason txn.Reason) {
	b.hooks.Polled(txn.Polled{Lane: lane, Records: records})
	b.hooks.Handled(txn.Handled{Lane: lane, Handler: "orders", Topic: "in", Records: records, Rejects: rejects, Duration: time.Millisecond})
	if outcome == txn.Committed {
		b.hooks.Produced(txn.Produced{Lane: lane, Topic: "out", Records: records - rejects})
		for i := range rejects {
			b.hooks.Rejected(rejection("bad_json", int64(i)))
		}
	}
	b.hooks.Ended(txn.Ended{Lane: lane, Outcome: outcome, Reason: reason, Records: records, Duration: 5 * time.Millisecond})
}

// payload stands in errors of handlers and must stand nowhere else.
const payload = "card-of-a-customer"

func rejection(reason string, offset int64) txn.Rejected {
	return txn.Rejected{
		Lane: 1, Handler: "orders", Reason: reason, Err: errors.New("unexpected " + payload),
		Source: message.Source{Topic: "in", Partition: 3, Offset: offset},
	}
}

func TestSeriesAreThereBeforeTheFirstEvent(t *testing.T) {
	t.Parallel()
	newBench(t, nil).want(t, `
# HELP processor_records_total Input records by what became of them; a redone record counts as aborted or unknown each time.
# TYPE processor_records_total counter
processor_records_total{handler="orders",outcome="aborted",topic="in"} 0
processor_records_total{handler="orders",outcome="committed",topic="in"} 0
processor_records_total{handler="orders",outcome="rejected",topic="in"} 0
processor_records_total{handler="orders",outcome="unknown",topic="in"} 0
# HELP processor_output_records_total Records written by committed transactions.
# TYPE processor_output_records_total counter
processor_output_records_total{topic="out"} 0
# HELP processor_rebalances_total Changes of the partitions a lane owns, by kind.
# TYPE processor_rebalances_total counter
processor_rebalances_total{kind="assigned"} 0
processor_rebalances_total{kind="lost"} 0
processor_rebalances_total{kind="revoked"} 0
`, "processor_records_total", "processor_output_records_total", "processor_rebalances_total")
}

func TestInfoNamesProgramAndConfiguration(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	if b.value(t, "processor_config_info", "hash", "f00d") != 1 ||
		b.value(t, "processor_build_info", "version", "1.2.3", "revision", "abc") != 1 {
		t.Error("no info")
	}
}

// A record counts as committed or rejected once, however often it was redone.
func TestRecordsAreBookedByTheEndOfTheirTransaction(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.transaction(0, 10, 2, txn.Aborted, txn.ReasonProduce)
	b.transaction(0, 10, 2, txn.Unknown, txn.ReasonUnknown)
	b.transaction(0, 10, 2, txn.Committed, txn.ReasonNone)
	b.transaction(1, 5, 0, txn.Committed, txn.ReasonNone)
	for outcome, want := range map[string]float64{
		recordCommitted: 13, recordRejected: 2, recordAborted: 10, recordUnknown: 10,
	} {
		if got := b.value(t, "processor_records_total", "topic", "in", "handler", "orders", "outcome", outcome); got != want {
			t.Errorf("%s: %v, want %v", outcome, got, want)
		}
	}
	if got := b.value(t, "processor_output_records_total", "topic", "out"); got != 13 {
		t.Errorf("outputs: %v, want 13", got)
	}
	for labels, want := range map[[2]string]float64{
		{"committed", "none"}: 2, {"aborted", "produce"}: 1, {"unknown", "unknown"}: 1, {"aborted", "rebalance"}: 0,
	} {
		if got := b.value(t, "processor_transactions_total", "outcome", labels[0], "reason", labels[1]); got != want {
			t.Errorf("transactions %v: %v, want %v", labels, got, want)
		}
	}
	for name, want := range map[string]float64{
		"processor_transaction_duration_seconds": 4,
		"processor_transaction_records":          4,
		"processor_handler_duration_seconds":     4,
	} {
		if got := b.value(t, name); got != want {
			t.Errorf("%s observed %v, want %v", name, got, want)
		}
	}
}

// A session is lost between the handlers and the end of the transaction: no end is told for that
// batch. Its records must not be booked with the next one.
func TestRecordsOfALostSessionAreNotBooked(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.hooks.Polled(txn.Polled{Lane: 0, Records: 7})
	b.hooks.Handled(txn.Handled{Lane: 0, Handler: "orders", Topic: "in", Records: 7})
	b.transaction(0, 1, 0, txn.Committed, txn.ReasonNone)
	if got := b.value(t, "processor_records_total", "outcome", recordCommitted); got != 1 {
		t.Errorf("committed %v, want 1", got)
	}
}

// What lane 1 does between the polls of lane 0 stays apart.
func TestLanesAreBookedApart(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.hooks.Handled(txn.Handled{Lane: 0, Handler: "orders", Topic: "in", Records: 3})
	b.hooks.Handled(txn.Handled{Lane: 1, Handler: "orders", Topic: "in", Records: 4})
	b.hooks.Ended(txn.Ended{Lane: 1, Outcome: txn.Aborted, Reason: txn.ReasonRebalance})
	b.hooks.Ended(txn.Ended{Lane: 0, Outcome: txn.Committed})
	if got := b.value(t, "processor_records_total", "outcome", recordCommitted); got != 3 {
		t.Errorf("committed %v, want 3", got)
	}
	if got := b.value(t, "processor_records_total", "outcome", recordAborted); got != 4 {
		t.Errorf("aborted %v, want 4", got)
	}
}

func TestHooksMayRunTogether(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	var lanes sync.WaitGroup
	for lane := range 4 {
		lanes.Go(func() {
			for range 100 {
				b.transaction(lane, 2, 1, txn.Committed, txn.ReasonNone)
				b.hooks.Assigned(lane, map[string][]int32{"in": {int32(lane)}})
			}
		})
	}
	lanes.Wait()
	if got := b.value(t, "processor_records_total", "outcome", recordCommitted); got != 400 {
		t.Errorf("committed %v, want 400", got)
	}
}

func TestLatencyIsThatOfTheOldestRecord(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.hooks.Ended(txn.Ended{Outcome: txn.Committed, Oldest: time.Now().Add(-3 * time.Second)})
		b.hooks.Ended(txn.Ended{Outcome: txn.Committed, Oldest: time.Now().Add(time.Hour)}) // a clock ahead of ours
		b.hooks.Ended(txn.Ended{Outcome: txn.Committed})                                    // control records only
		b.hooks.Ended(txn.Ended{Outcome: txn.Aborted, Reason: txn.ReasonRebalance, Oldest: time.Now().Add(-time.Hour)})
		families, err := b.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() == "processor_end_to_end_latency_seconds" {
				histogram := family.GetMetric()[0].GetHistogram()
				if histogram.GetSampleCount() != 2 || histogram.GetSampleSum() != 3 {
					t.Errorf("observed %d of %v seconds, want 2 of 3", histogram.GetSampleCount(), histogram.GetSampleSum())
				}
			}
		}
	})
}

func TestHistogramsAreClassicAndNative(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	everything(b)
	families, err := b.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, family := range families {
		histogram := family.GetMetric()[0].GetHistogram()
		if histogram == nil || !strings.HasPrefix(family.GetName(), namespace) {
			continue
		}
		seen++
		if len(histogram.GetBucket()) < 5 || histogram.Schema == nil || histogram.GetSchema() != 3 {
			t.Errorf("%s: %d classic buckets, schema %d", family.GetName(), len(histogram.GetBucket()), histogram.GetSchema())
		}
	}
	if seen != 4 {
		t.Errorf("%d histograms, want 4", seen)
	}
}

// The reason is the handler's word. Data in it must become neither a label nor a log line.
func TestDeadLetterReasonsAreBounded(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	for _, reason := range []string{"", "bad json", "Bad", "é", strings.Repeat("a", reasonBytesMax+1), `4111"`} {
		b.hooks.Rejected(rejection(reason, 1))
	}
	if got := b.value(t, "processor_dead_letter_records_total", "topic", "in", "reason", reasonOther); got != 6 {
		t.Errorf("other: %v, want 6", got)
	}
	for i := range 10 * deadLettersMax {
		b.hooks.Rejected(rejection("customer_"+strings.Repeat("x", i%8)+string(rune('a'+i%26))+string(rune('a'+i/26%26))+string(rune('a'+i/676)), 1))
	}
	count, err := testutil.GatherAndCount(b.registry, "processor_dead_letter_records_total")
	if err != nil {
		t.Fatal(err)
	}
	if count != deadLettersMax {
		t.Errorf("%d series, want %d", count, deadLettersMax)
	}
	if strings.Contains(b.log.String(), `"reason":"4111"`) || strings.Contains(b.log.String(), payload) {
		t.Error("payload in the log")
	}
}

func TestFactsComeFromTheStatus(t *testing.T) {
	t.Parallel()
	var status txn.Status
	b := newBench(t, func(c *Config) { c.Status = func() txn.Status { return status } })
	names := []string{"processor_assigned_partitions", "processor_halted_partitions", "processor_consumer_lag_records", "processor_last_commit_timestamp_seconds"}
	const none = `
# HELP processor_assigned_partitions Partitions that this process owns now.
# TYPE processor_assigned_partitions gauge
processor_assigned_partitions 0
# HELP processor_halted_partitions Partitions that wait for an operator; the log says for what.
# TYPE processor_halted_partitions gauge
processor_halted_partitions 0
`
	b.want(t, none, names...)

	b.facts.setLag([]LagSample{{Topic: "in", Partition: 0, Records: 7}, {Topic: "in", Partition: 1, Records: 8}, {Topic: "in", Partition: 2, Records: 9}, {Topic: "in", Partition: 2, Records: 9}, {Topic: "other", Partition: 0, Records: 1}})
	status = txn.Status{Lanes: []txn.LaneStatus{
		{Partitions: map[string][]int32{"in": {0}}},
		{Partitions: map[string][]int32{"in": {2}}, Halted: []txn.HaltedPartition{{Topic: "in", Partition: 2}}},
	}}
	b.want(t, `
# HELP processor_assigned_partitions Partitions that this process owns now.
# TYPE processor_assigned_partitions gauge
processor_assigned_partitions 2
# HELP processor_consumer_lag_records Readable records behind the committed offset of a partition that this process owns; absent while the brokers do not tell.
# TYPE processor_consumer_lag_records gauge
processor_consumer_lag_records{partition="0",topic="in"} 7
processor_consumer_lag_records{partition="2",topic="in"} 9
# HELP processor_halted_partitions Partitions that wait for an operator; the log says for what.
# TYPE processor_halted_partitions gauge
processor_halted_partitions 1
`, names...)

	// The partitions move away, and their series with them, before the lag is asked for again.
	status = txn.Status{}
	b.want(t, none, names...)
}

// What is open, what each lane does, and how old what waits is.
func TestAgesAreThoseOfTheOldest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		b := newBench(t, func(c *Config) {
			c.Status = func() txn.Status {
				return txn.Status{Lanes: []txn.LaneStatus{
					{Phase: txn.PhaseWorking, Begun: now.Add(-time.Second), Partitions: map[string][]int32{"in": {0}}},
					{Phase: txn.PhaseEnding, Begun: now.Add(-7 * time.Second)},
					{Phase: txn.PhasePolling},
				}}
			}
		})
		b.facts.setLag([]LagSample{{Topic: "in", Records: 7, Held: 3, Waiting: 12 * time.Second}})
		b.facts.setHeld(map[string]time.Duration{"out": 9 * time.Second, "in": 0})
		for _, c := range []struct {
			name   string
			labels []string
			want   float64
		}{
			{"processor_transaction_open_seconds", nil, 7},
			{"processor_lanes", []string{"phase", "working"}, 1},
			{"processor_lanes", []string{"phase", "ending"}, 1},
			{"processor_lanes", []string{"phase", "stopped"}, 0},
			{"processor_consumer_lag_seconds", []string{"topic", "in", "partition", "0"}, 12},
			{"processor_consumer_held_records", []string{"topic", "in", "partition", "0"}, 3},
			{"processor_readers_held_seconds", []string{"topic", "out"}, 9},
			{"processor_readers_held_seconds", []string{"topic", "in"}, 0},
			{"processor_kafka_up", nil, -1}, // nobody was asked yet
		} {
			if got := b.value(t, c.name, c.labels...); got != c.want {
				t.Errorf("%s%v is %v, want %v", c.name, c.labels, got, c.want)
			}
		}
	})
}

func TestFencesAreCountedByKind(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	for _, fence := range txn.Fences() {
		if got := b.value(t, "processor_fenced_total", "kind", string(fence)); got != 0 {
			t.Errorf("%s is %v before the first, want 0", fence, got)
		}
	}
	b.hooks.Fenced(0, fmt.Errorf("poll: %w", kerr.FencedInstanceID))
	b.hooks.Fenced(0, kerr.ProducerFenced)
	b.hooks.Fenced(1, kerr.ProducerFenced)
	b.hooks.Fenced(1, kerr.InvalidProducerEpoch)
	for fence, want := range map[txn.Fence]float64{txn.FenceMember: 1, txn.FenceProducer: 2, txn.FenceEpoch: 1} {
		if got := b.value(t, "processor_fenced_total", "kind", string(fence)); got != want {
			t.Errorf("%s is %v, want %v", fence, got, want)
		}
	}
}

func TestLastCommitIsAbsentBeforeTheFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const name = "processor_last_commit_timestamp_seconds"
		b := newBench(t, nil)
		b.transaction(0, 1, 0, txn.Aborted, txn.ReasonProduce)
		if got := b.value(t, name); got != -1 {
			t.Errorf("%v before the first commit", got)
		}
		b.transaction(0, 1, 0, txn.Committed, txn.ReasonNone)
		if got := b.value(t, name); got != float64(time.Now().Unix()) {
			t.Errorf("%v, want %v", got, time.Now().Unix())
		}
	})
}

// run starts Run in a bubble and returns what ends it.
func (b *bench) run(t *testing.T) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// A lag that cannot be had is first shown as it was, then not at all: an old one looks as if all
// were well.
func TestLagIsDroppedWhenBrokersDoNotTell(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const name = "processor_consumer_lag_records"
		var fails atomic.Bool
		b := newBench(t, func(c *Config) {
			c.Status = func() txn.Status {
				return txn.Status{Lanes: []txn.LaneStatus{{Partitions: map[string][]int32{"in": {0}}}}}
			}
			c.Lag = func(context.Context) ([]LagSample, error) {
				if fails.Load() {
					return nil, errors.New("no broker")
				}
				return []LagSample{{Topic: "in", Partition: 0, Records: 42}}, nil
			}
		})
		end := b.run(t)
		defer end()
		synctest.Wait()
		if got := b.value(t, name); got != 42 {
			t.Fatalf("lag %v, want 42", got)
		}
		fails.Store(true)
		for range lagFailuresMax - 1 {
			time.Sleep(lagInterval) //nolint:forbidigo // virtual time
			synctest.Wait()
		}
		if got := b.value(t, name); got != 42 {
			t.Errorf("lag %v after a short outage, want 42", got)
		}
		time.Sleep(lagInterval) //nolint:forbidigo // virtual time
		synctest.Wait()
		if got := b.value(t, name); got != -1 {
			t.Errorf("lag %v after a long outage", got)
		}
		if up := b.value(t, "processor_kafka_up"); up != 0 {
			t.Errorf("the brokers are up: %v, and do not answer", up)
		}
		if got := b.value(t, "processor_lag_poll_failures_total"); got != lagFailuresMax {
			t.Errorf("%v failures, want %d", got, lagFailuresMax)
		}
		fails.Store(false)
		time.Sleep(lagInterval) //nolint:forbidigo // virtual time
		synctest.Wait()
		if got := b.value(t, name); got != 42 {
			t.Errorf("lag %v after the outage, want 42", got)
		}
		if up := b.value(t, "processor_kafka_up"); up != 1 {
			t.Errorf("the brokers are up: %v, and answer", up)
		}
		if lines := b.log.lines(t, "consumer lag unknown"); len(lines) != lagFailuresMax || lines[0]["err"] != "no broker" {
			t.Errorf("log %v", lines)
		}
	})
}

// A broker that does not answer holds up neither the next question nor our end.
func TestLagQuestionIsBoundedInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		b := newBench(t, func(c *Config) {
			c.Lag = func(ctx context.Context) ([]LagSample, error) {
				asked.Add(1)
				<-ctx.Done()
				return nil, ctx.Err()
			}
		})
		end := b.run(t)
		time.Sleep(3*lagInterval + time.Second) //nolint:forbidigo // virtual time
		synctest.Wait()
		begin := time.Now()
		end()
		if asked.Load() != 4 || time.Since(begin) != 0 {
			t.Errorf("asked %d times, end took %s", asked.Load(), time.Since(begin))
		}
		if got := b.value(t, "processor_lag_poll_failures_total"); got != 3 {
			t.Errorf("%v failures, want 3: ending is none", got)
		}
	})
}

func TestNewNamesWhatIsMissingOrThere(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "no registry") || !strings.Contains(err.Error(), "no logger") {
		t.Errorf("error %v", err)
	}
	b := newBench(t, nil)
	if _, err := New(Config{Registry: b.registry, Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("registered everything twice")
	}
}

// The hooks run in every transaction of every lane.
func TestCommitCostsNoAllocations(t *testing.T) {
	b := newBench(t, nil)
	commit := func() { b.transaction(0, 5000, 0, txn.Committed, txn.ReasonNone) }
	commit()
	if allocations := testing.AllocsPerRun(100, commit); allocations > 1 {
		t.Errorf("%v allocations a transaction, want at most 1", allocations)
	}
}

func BenchmarkCommit(b *testing.B) {
	bench := newBench(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		bench.transaction(0, 5000, 0, txn.Committed, txn.ReasonNone)
	}
}
