package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const benchTestName = "pawl-bench-test"

// benchEnv lets the processes that bench starts be this test binary.
func benchEnv() []string { return append(os.Environ(), asProcessor+"=1") }

// runBench runs bench on the yard's cluster.
func (y *yard) runBench(ctx context.Context, stderr *watcher, args ...string) ran {
	y.t.Helper()
	var stdout bytes.Buffer
	args = append([]string{"bench", "-c", y.config, "--name", benchTestName}, args...)
	code := newCLI(strings.NewReader(""), &stdout, stderr, benchEnv()).execute(ctx, args)
	return ran{code, stdout.String(), stderr.String()}
}

// watcher is standard error, and calls seen once when a text comes.
type watcher struct {
	mu   sync.Mutex
	text bytes.Buffer
	want string
	seen func()
}

func (w *watcher) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.text.Write(p)
	if w.seen != nil && strings.Contains(w.text.String(), w.want) {
		w.seen()
		w.seen = nil
	}
	return n, err
}

func (w *watcher) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// wantNothingLeft: what is on the cluster is what was there before.
func (y *yard) wantNothingLeft(topics ...string) {
	y.t.Helper()
	found, err := ownNames(y.t.Context(), y.client, "")
	if err != nil {
		y.t.Fatal(err)
	}
	if !slices.Equal(found.topics, topics) || len(found.groups) > 0 {
		y.t.Errorf("the cluster has topics %v and groups %v, want %v and no group", found.topics, found.groups, topics)
	}
}

// Both copy every record in turn, the figures are there, and nothing is left on the cluster but what was there: a
// user's topic, which nobody has written to.
func TestBenchMeasuresBothAndLeavesNothing(t *testing.T) {
	t.Parallel()
	const records = 3000
	y := newYard(t, kfake.SeedTopics(1, "logs"))
	got := y.runBench(t.Context(), &watcher{}, "--records", "3000", "--rounds", "2", "--warm-rounds", "0", "--processes", "2", "-o", "json")
	if got.code != exitOK {
		t.Fatalf("exit code %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	var report benchReport
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Copies) != 4 || report.Nodes != 1 || report.Processes != 2 || report.Lanes < 1 || len(report.Figures) != 2*len(benchCopyColumns) {
		t.Fatalf("report %+v, want 4 runs on 1 broker", report)
	}
	for _, run := range report.Copies {
		if run.Tally.Seen != records || run.CPU <= 0 {
			t.Errorf("%s: %+v, want every record and what it took", run.Peer, run)
		}
		if (run.Markers > 0) != (run.Peer == benchPawl) {
			t.Errorf("%s: %d markers, want some of who commits transactions", run.Peer, run.Markers)
		}
	}
	y.wantNothingLeft("logs")
	ends, err := y.admin.ListEndOffsets(t.Context(), "logs")
	if end, _ := ends.Lookup("logs", 0); err != nil || end.Offset != 0 {
		t.Errorf("the user's topic ends at %+v, %v, want it untouched", end, err)
	}
}

// A steady stream has a latency through both, counted from when each record was due.
func TestBenchMeasuresLatency(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	got := y.runBench(t.Context(), &watcher{}, "--latency", "200", "--duration", "1s", "--warm-up", "500ms", "--rounds", "1", "--warm-rounds", "0", "-o", "json")
	if got.code != exitOK {
		t.Fatalf("exit code %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	var report benchReport
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Waits) != 2 || len(report.Figures) != 2*len(benchWaitColumns) {
		t.Fatalf("report %+v, want two runs", report)
	}
	for _, run := range report.Waits {
		if run.Scheduled.Count != 200 || run.Scheduled.P50 <= 0 {
			t.Errorf("%s: %+v, want the latency of 200 records", run.Peer, run.Scheduled)
		}
	}
	y.wantNothingLeft()
}

// Ctrl-C in the midst of a copy ends it, and what was made is deleted all the same.
func TestBenchCleansUpAfterCtrlC(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	ctx, cancel := context.WithCancel(t.Context())
	interrupted := false
	watch := &watcher{want: "filled", seen: func() { interrupted = true; cancel() }}
	got := y.runBench(ctx, watch, "--records", "1000")
	if !interrupted || got.code != exitRuntime || !strings.Contains(got.stderr, "interrupted") || !strings.Contains(got.stderr, "are deleted") {
		t.Errorf("got %+v, want that it was interrupted and cleaned up", got)
	}
	y.wantNothingLeft()
}

// Ctrl-C while a process of ours is in its group: it ends, and its group is deleted, too.
func TestBenchEndsItsProcessesAfterCtrlC(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var joined atomic.Int64
	y.cluster.ControlKey(int16(kmsg.Heartbeat), func(request kmsg.Request) (kmsg.Response, error, bool) {
		y.cluster.KeepControl()
		if request.(*kmsg.HeartbeatRequest).MemberID != "pawl-preflight" {
			joined.Add(1)
			cancel()
		}
		return nil, nil, false
	})
	// The stream is slow and long: what ends it is the first heartbeat.
	got := y.runBench(ctx, &watcher{}, "--latency", "1", "--duration", "10m", "--set", "kafka.heartbeat=100ms")
	if joined.Load() == 0 || got.code != exitRuntime || !strings.Contains(got.stderr, "interrupted") {
		t.Errorf("%d heartbeats, got %+v, want that it was interrupted", joined.Load(), got)
	}
	y.wantNothingLeft()
}

// What cannot be deleted is told with the command that does it, and that command does.
func TestBenchSaysWhatItLeaves(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	refused := 0
	refuse := true
	y.cluster.ControlKey(int16(kmsg.DeleteTopics), func(request kmsg.Request) (kmsg.Response, error, bool) {
		y.cluster.KeepControl()
		if !refuse {
			return nil, nil, false
		}
		refused++
		response := request.ResponseKind().(*kmsg.DeleteTopicsResponse)
		for _, topic := range request.(*kmsg.DeleteTopicsRequest).Topics {
			answer := kmsg.NewDeleteTopicsResponseTopic()
			answer.Topic, answer.ErrorCode = topic.Topic, kerr.TopicAuthorizationFailed.Code
			response.Topics = append(response.Topics, answer)
		}
		return response, nil, true
	})
	got := y.runBench(t.Context(), &watcher{}, "--records", "100", "--rounds", "1", "--warm-rounds", "0")
	if refused == 0 || got.code != exitRuntime || !strings.Contains(got.stderr, "processor bench clean "+benchTestName+" -c "+y.config) ||
		!strings.Contains(got.stderr, "Delete") || !strings.Contains(got.stderr, "--name") {
		t.Errorf("refused %d times, got %+v, want the rights that are needed and the command that cleans up", refused, got)
	}
	if again := y.runBench(t.Context(), &watcher{}); again.code != exitRuntime || !strings.Contains(again.stderr, "this name is taken") {
		t.Errorf("got %+v, want that names which are taken are refused", again)
	}
	refuse = false
	if got := y.run("bench", "clean", benchTestName, "--dry-run"); got.code != exitOK || !strings.Contains(got.stdout, benchTestName+"-in") {
		t.Errorf("got %+v, want what would be deleted", got)
	}
	if got := y.run("bench", "clean", benchTestName, "--yes"); got.code != exitOK {
		t.Errorf("got %+v, want that it is deleted", got)
	}
	y.wantNothingLeft()
}

// A right that is missing is told with all that a bench needs, before anything is written.
func TestBenchNamesMissingRights(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	refused := 0
	y.cluster.ControlKey(int16(kmsg.CreateTopics), func(request kmsg.Request) (kmsg.Response, error, bool) {
		y.cluster.KeepControl()
		refused++
		response := request.ResponseKind().(*kmsg.CreateTopicsResponse)
		for _, topic := range request.(*kmsg.CreateTopicsRequest).Topics {
			answer := kmsg.NewCreateTopicsResponseTopic()
			answer.Topic, answer.ErrorCode = topic.Topic, kerr.TopicAuthorizationFailed.Code
			response.Topics = append(response.Topics, answer)
		}
		return response, nil, true
	})
	got := y.runBench(t.Context(), &watcher{})
	for _, want := range []string{"TOPIC_AUTHORIZATION_FAILED", benchTestName, "transactional ids", "--name"} {
		if refused == 0 || got.code != exitRuntime || !strings.Contains(got.stderr, want) {
			t.Errorf("refused %d times, exit code %d, %q does not tell %s", refused, got.code, got.stderr, want)
		}
	}
}

// The plan is told before anything is done; with --dry-run nothing is.
func TestBenchTellsItsPlan(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.want(exitOK, "bench-dry-run.txt", "bench", "--dry-run", "--name", benchTestName, "--set", "txn.lanes=2")
	y.want(exitOK, "bench-dry-run-latency.txt", "bench", "--dry-run", "--name", "team-a."+benchTestName, "--latency", "5000", "--set", "txn.lanes=1", "--processes", "2")
	y.wantNothingLeft()
}

// Mistakes in the flags come all at once, before anything is started.
func TestBenchRefusesWrongFlags(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"numbers": {
			[]string{"--records", "0", "--bytes", "3", "--partitions", "0", "--processes", "0", "--rounds", "0", "--replication", "0", "--limit", "1ms"},
			[]string{"--records", "--bytes", "--partitions", "--processes", "--rounds", "--replication", "--limit"},
		},
		"names":         {[]string{"--name", "orders", "--kafka", "pigeon"}, []string{"--name", "--kafka"}},
		"rate":          {[]string{"--latency", "NaN"}, []string{"--latency"}},
		"no latency":    {[]string{"--duration", "3s"}, []string{"--duration"}},
		"name to clean": {[]string{"clean", "orders"}, []string{"no name of a bench"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := invoke(t, nil, append([]string{"bench"}, test.args...)...)
			if got.code != exitUsage || got.stdout != "" {
				t.Errorf("got %+v, want exit code %d and nothing on stdout", got, exitUsage)
			}
			for _, want := range test.want {
				if !strings.Contains(got.stderr, want) {
					t.Errorf("stderr %q does not name %s", got.stderr, want)
				}
			}
		})
	}
}

// Brokers elsewhere are written to only when somebody has said so.
func TestBenchTellsBrokersOfThisMachineFromOthers(t *testing.T) {
	t.Parallel()
	for hosts, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "localhost": true, "127.0.0.1 ::1": true,
		"192.0.2.1": false, "127.0.0.1 192.0.2.1": false, "host.invalid": false,
	} {
		var brokers kadm.BrokerDetails
		for host := range strings.FieldsSeq(hosts) {
			brokers = append(brokers, kadm.BrokerDetail{Host: host, Port: 9092})
		}
		if got := ofThisMachine(t.Context(), brokers); got != want {
			t.Errorf("%s: of this machine is %t, want %t", hosts, got, want)
		}
	}
}

// Where brokers say that they are elsewhere nothing is written before somebody has said yes, and where
// nobody can be asked it is refused.
func TestBenchAsksBeforeItWritesElsewhere(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	asked := 0
	y.cluster.ControlKey(int16(kmsg.Metadata), func(request kmsg.Request) (kmsg.Response, error, bool) {
		y.cluster.KeepControl()
		asked++
		response := request.ResponseKind().(*kmsg.MetadataResponse)
		broker := kmsg.NewMetadataResponseBroker()
		_, port, _ := net.SplitHostPort(y.cluster.ListenAddrs()[0])
		number, err := strconv.Atoi(port)
		broker.Host, broker.Port = "0.0.0.0", int32(number) // reaches this machine and is not loopback
		response.Brokers = append(response.Brokers, broker)
		return response, err, true
	})
	got := y.runBench(t.Context(), &watcher{})
	if asked == 0 || got.code != exitUsage || !strings.Contains(got.stderr, "--yes") || !strings.Contains(got.stderr, "writes") {
		t.Errorf("got %+v, want the plan, and that it asks", got)
	}
}

// The size of a load is computed from what bench has measured, and from what is built in where nothing is given.
func TestBenchSizeAnswersFromWhatWasMeasured(t *testing.T) {
	t.Parallel()
	var own, other sizeAnswer
	for into, args := range map[*sizeAnswer][]string{
		&own:   {},
		&other: {"--measured", writeFile(t, sizeRun(30, 300_000)) + "," + writeFile(t, sizeRun(1000, 50_000))},
	} {
		got := invoke(t, nil, append([]string{"bench", "size", "--rate", "1000000", "-o", "json"}, args...)...)
		if got.code != exitOK || got.stderr != "" {
			t.Fatalf("got %+v", got)
		}
		if err := json.Unmarshal([]byte(got.stdout), into); err != nil {
			t.Fatal(err)
		}
	}
	if own.Lanes == 0 || own.Partitions < own.Lanes || own.Costs == other.Costs || other.Transactions == 0 {
		t.Errorf("sizes %+v and %+v, want one of each measurement", own, other)
	}
	got := invoke(t, nil, "bench", "size", "--rate", "10000", "--bytes", "100")
	if got.code != exitOK || !strings.Contains(got.stderr, "processor bench --bytes 100") || !strings.Contains(got.stdout, "partitions") {
		t.Errorf("got %+v, want a table, and a warning of the other size", got)
	}
}

// sizeRun is what bench printed of 500,000 records.
func sizeRun(transactions, rate int) string {
	return fmt.Sprintf(`{"processes": 1, "lanes": 1, "bytes": 500, "throughput": [{"peer": "pawl", "records_per_second": %d,
		"cpu_s_per_million": 2, "transactions": %d, "tally": {"seen": 500000}}]}`, rate, transactions)
}

func TestBenchSizeRefusesWhatItCannotCompute(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no rate":     {nil, "rate"},
		"no number":   {[]string{"--rate", "NaN"}, "--rate"},
		"no time":     {[]string{"--rate", "1000", "--latency", "1ms"}, "no number of lanes"},
		"no file":     {[]string{"--rate", "1000", "--measured", "nowhere.json"}, "nowhere.json"},
		"no result":   {[]string{"--rate", "1000", "--measured", writeFile(t, "{}")}, "processor bench -o json"},
		"one of them": {[]string{"--rate", "1000", "--measured", writeFile(t, sizeRun(30, 300_000))}, "txn.records_max"},
	} {
		got := invoke(t, nil, append([]string{"bench", "size"}, test.args...)...)
		if got.code != exitUsage || !strings.Contains(got.stderr, test.want) {
			t.Errorf("%s: got %+v, want exit code %d and %q", name, got, exitUsage, test.want)
		}
	}
}
