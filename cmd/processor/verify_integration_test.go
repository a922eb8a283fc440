//go:build integration

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/kafka"
	"pawl/internal/load"
	"pawl/internal/message"
	"pawl/internal/testkit"
)

// store is the service on a real broker and a real ledger, with orders, charges, results and dead letters.
type store struct {
	t           *testing.T
	brokers     []string
	application string
	config      string
	dsn         string
	stop        func()
}

const storeParts = 3

func newStore(t *testing.T, charge http.HandlerFunc) *store {
	t.Helper()
	endpoint := httptest.NewServer(charge)
	t.Cleanup(endpoint.Close)
	s := &store{t: t, brokers: testkit.Kafka(t), application: testkit.Name(t, "shop"), dsn: testkit.Postgres(t), config: filepath.Join(t.TempDir(), "config.yaml")}
	text := fmt.Sprintf(`application: %[1]s
instance: one
kafka: {brokers: [%[2]q]}
routes:
  - {topics: [%[1]s.orders], handler: orders}
  - {topics: [%[1]s.effect-results], handler: order-results}
  - {topics: [%[1]s.logs], handler: copy, config: {output: copies}}
outputs:
  priced: {topic: %[1]s.priced, partitions: %[3]d, replication: 1}
  ledger: {topic: %[1]s.ledger, partitions: %[3]d, replication: 1}
  copies: {topic: %[1]s.copies, partitions: %[3]d, replication: 1}
txn: {lanes: 2}
effects: {lanes: %[3]d}
endpoints:
  payments: {url: %[4]q, timeout: 5s, allow_private: true}
postgres: {dsn: %[5]q}
admin: {listen: "127.0.0.1:0"}
log: {level: warn, format: text}
`, s.application, s.brokers[0], storeParts, endpoint.URL, s.dsn)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	testkit.CreateTopics(t, s.brokers, storeParts, nil, s.topic("orders"), s.topic("logs"))
	s.want(exitOK, "", "topics", "apply", "--yes")
	s.want(exitRuntime, "processor migrate up", "verify")
	s.want(exitOK, "", "migrate", "up", "--yes")
	return s
}

func (s *store) topic(name string) string { return s.application + "." + name }

// command runs one command line against the shop.
func (s *store) command(args ...string) ran {
	s.t.Helper()
	return invoke(s.t, nil, append(args, "-c", s.config)...)
}

func (s *store) want(code int, text string, args ...string) ran {
	s.t.Helper()
	got := s.command(args...)
	if got.code != code || !strings.Contains(got.stdout+got.stderr, text) {
		s.t.Fatalf("%v: exit code %d, want %d\nstdout:\n%s\nstderr:\n%s\nwant in it: %s", args, got.code, code, got.stdout, got.stderr, text)
	}
	return got
}

// run runs the service until stop.
func (s *store) run() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	var stderr bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- newCLI(strings.NewReader(""), &stderr, &stderr, nil).execute(ctx, []string{"run", "-c", s.config})
	}()
	s.stop = func() {
		cancel()
		if code := <-ended; code != exitOK {
			s.t.Errorf("the service ended with exit code %d:\n%s", code, stderr.String())
		}
		s.stop = func() {}
	}
	s.t.Cleanup(func() { s.stop() })
}

// feed writes orders, some of them wrong, and logs.
func (s *store) feed(from, to int64) {
	s.t.Helper()
	orders, err := load.NewOrders(load.OrdersConfig{Seed: 1, Customers: 20})
	if err != nil {
		s.t.Fatal(err)
	}
	var records []*kgo.Record
	for n := from; n < to; n++ {
		order := &kgo.Record{Topic: s.topic("orders")}
		orders.Fill(order, load.Stamp{N: n})
		records = append(records, order, &kgo.Record{Topic: s.topic("logs"), Key: fmt.Appendf(nil, "host %d", n), Value: fmt.Appendf(nil, "line %d", n)})
		if n%10 == 0 {
			records = append(records, &kgo.Record{Topic: s.topic("orders"), Value: []byte("{")})
		}
	}
	testkit.Produce(s.t, s.brokers, records...)
}

// awaitIdle waits until so many results were told, and the service has read them.
func (s *store) awaitIdle(results int) {
	s.t.Helper()
	testkit.WaitFor(s.t, time.Minute, fmt.Sprintf("%d results and no lag", results), func() bool {
		return len(testkit.ReadCommitted(s.t, s.brokers, s.topic("effect-results"))) == results && s.command("lag", "--max", "0").code == exitOK
	})
}

// verdicts runs verify and gives its counts.
func (s *store) verdicts(args ...string) (map[string]int64, verifyReport, int) {
	s.t.Helper()
	got := s.command(append([]string{"verify", "-o", "json"}, args...)...)
	var report verifyReport
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil {
		s.t.Fatalf("exit code %d, %v\n%s\n%s", got.code, err, got.stdout, got.stderr)
	}
	counts := map[string]int64{}
	for verdict, n := range report.Counts {
		counts[string(verdict)] = n
	}
	return counts, report, got.code
}

func (s *store) wantVerdicts(want map[string]int64, args ...string) verifyReport {
	s.t.Helper()
	got, report, code := s.verdicts(args...)
	wantCode := exitOK
	if len(want) > 0 {
		wantCode = exitFindings
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || code != wantCode {
		s.t.Errorf("verify %v found %v with exit code %d, want %v and %d: %v\nsaw %+v", args, got, code, want, wantCode, report.Findings, report.Saw)
	}
	return report
}

// The whole of verify on a living system: green while it runs and when it rests; then, one by one, an output that is
// there twice, one that is missing, an effect that was changed in the ledger, one that was deleted there.
func TestVerifyFindsWhatWasDoneByHand(t *testing.T) {
	t.Parallel()
	const orders = 200
	var refused atomic.Int64
	s := newStore(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Pawl-Attempt") == "1" && refused.Add(1)%5 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte(`{"ok":true}`))
	})
	s.run()
	s.awaitGroup()
	follow := s.follow()
	s.feed(0, orders)
	for range 5 { // while it works
		s.wantVerdicts(map[string]int64{}, "--allow-empty")
	}
	s.awaitIdle(orders)
	report := s.wantVerdicts(map[string]int64{})
	saw := report.Saw
	if want := int64(orders + orders/10 + orders + orders); saw.Judged != want || saw.Modelled != want || saw.Effects != orders || saw.Rows != orders ||
		saw.Outcomes != orders || saw.Results != orders || saw.DeadLetters != orders/10 || saw.Outputs != 2*orders+orders+2*orders {
		t.Errorf("saw %+v, want %d inputs, all of them by their handlers", saw, want)
	}
	if refused.Load() < 5 {
		t.Errorf("%d calls were looked at, want enough to fail some", refused.Load())
	}
	s.wantVerdicts(map[string]int64{}, "--from", s.topic("logs")+"/0/10", "--to", s.topic("logs")+"/0/20")
	s.wantVerdicts(map[string]int64{}, "--from", "1h", "--no-model")
	s.want(exitOK, "each input of the range led to one committed outcome", "verify")
	s.explainAll()
	follow.until("everything to be judged", func(verifyReport) bool { return follow.judged == saw.Judged })
	follow.wantMetric(`processor_verify_passes_total{result="failed"} 0`)
	follow.wantMetric(`processor_verify_findings_total{verdict="DUPLICATE"} 0`)
	follow.wantMetric(fmt.Sprintf("processor_verify_inputs_total %d", saw.Judged))

	s.tamper(t)
	follow.until("the duplicate", func(r verifyReport) bool { return r.Counts["DUPLICATE"] == 1 })
	follow.wantMetric(`processor_verify_findings_total{verdict="DUPLICATE"} 1`)
	follow.end()
	if code := <-follow.ended; code != exitFindings {
		t.Errorf("follow ended with exit code %d, want %d", code, exitFindings)
	}
}

// awaitGroup waits until the service has committed where it begins.
func (s *store) awaitGroup() {
	s.t.Helper()
	testkit.WaitFor(s.t, time.Minute, "the service to have begun", func() bool {
		var report lagReport
		if got := s.command("lag", "-o", "json"); got.code != exitOK || json.Unmarshal([]byte(got.stdout), &report) != nil {
			return false // the coordinator may not be there yet
		}
		begun := 0
		for _, one := range report.Partitions {
			if one.Committed != kafka.NoOffset {
				begun++
			}
		}
		return begun == 3*storeParts
	})
}

// explainAll asks for the story of an order by all of its records.
func (s *store) explainAll() {
	s.t.Helper()
	effect := testkit.ReadCommitted(s.t, s.brokers, s.topic("effects"))[0]
	var source string
	for _, h := range effect.Headers {
		if h.Key == message.HeaderSource {
			source = string(h.Value)
		}
	}
	event := testkit.ReadCommitted(s.t, s.brokers, s.topic("effect-results"))[0]
	at := func(r *kgo.Record) string { return fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset) }
	for _, place := range []string{source, at(effect)} {
		got := s.want(exitOK, source, "verify", "--explain", place)
		for _, part := range []string{s.application + ".one.", "committed", s.topic("priced"), at(effect), "payments", "done after", "result", "yes: the committed offset"} {
			if !strings.Contains(got.stdout, part) {
				s.t.Errorf("the story of %s lacks %q:\n%s", place, part, got.stdout)
			}
		}
	}
	// An event is an input, too: its story goes on with what was made of it.
	s.want(exitOK, s.topic("ledger"), "verify", "--explain", at(event))
	s.want(exitRuntime, "no record stands there", "verify", "--explain", s.topic("orders")+"/0/99999")
	s.want(exitUsage, "want topic/partition/offset", "verify", "--explain", "orders")
	s.want(exitRuntime, "neither read nor written", "verify", "--explain", "elsewhere/0/0")
}

// tamper breaks what Pawl wrote, each time in another way, and counts that it did.
func (s *store) tamper(t *testing.T) {
	t.Helper()
	s.stop()
	injected := 0
	// Twice: a committed output is written again, as a zombie would.
	copied := testkit.ReadCommitted(t, s.brokers, s.topic("copies"))[7]
	testkit.Produce(t, s.brokers, &kgo.Record{Topic: copied.Topic, Partition: copied.Partition, Key: copied.Key, Value: copied.Value, Headers: copied.Headers, Timestamp: copied.Timestamp})
	injected++
	s.wantVerdicts(map[string]int64{"DUPLICATE": 1})

	// Missing: the offset was moved past inputs that nobody handled.
	byHand := testkit.Client(t, s.brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := byHand.ProduceSync(t.Context(), &kgo.Record{Topic: s.topic("logs"), Partition: 0, Value: []byte("never copied")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	testkit.WaitFor(t, time.Minute, "a group without members", func() bool {
		return s.command("offsets", "set", "--topic", s.topic("logs"), "--partition", "0", "--to", "latest", "--reason", "test", "--yes").code == exitOK
	})
	injected++
	s.wantVerdicts(map[string]int64{"DUPLICATE": 1, "LOST": 1})
	got := s.command("verify")
	for _, part := range []string{"LOST", s.topic("logs") + "/0/", "must be on " + s.topic("copies"), "NOT PROVEN: 2 findings"} {
		if !strings.Contains(got.stdout, part) || got.code != exitFindings {
			t.Errorf("exit code %d; the report lacks %q:\n%s", got.code, part, got.stdout)
		}
	}

	// Changed, and gone, in the ledger.
	conn, err := pgx.Connect(t.Context(), s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	// Effects are packed: the last byte of a segment is the last one of its last body.
	const first = `(lane, first_off) = (SELECT lane, min(first_off) FROM pawl.segment GROUP BY lane ORDER BY lane LIMIT 1)`
	const last = `(lane, first_off) = (SELECT lane, max(first_off) FROM pawl.segment GROUP BY lane ORDER BY lane DESC LIMIT 1)`
	var gone int64
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pawl.effect WHERE `+last).Scan(&gone); err != nil || gone == 0 {
		t.Fatalf("%d effects are to be deleted, %v", gone, err)
	}
	for _, sql := range []string{
		`UPDATE pawl.segment SET effects = set_byte(effects, length(effects) - 1, 33) WHERE ` + first,
		`DELETE FROM pawl.segment WHERE ` + last,
	} {
		tag, err := conn.Exec(t.Context(), sql)
		if err != nil || tag.RowsAffected() != 1 {
			t.Fatalf("%s: %v, %v", sql, tag, err)
		}
		injected++
	}
	if injected != 4 {
		t.Fatalf("%d faults were made", injected)
	}
	s.wantVerdicts(map[string]int64{"DUPLICATE": 1, "LOST": 1, "PG-CORRUPT": 1, "PG-LOST": gone})
	s.wantVerdicts(map[string]int64{"DUPLICATE": 1, "LOST": 1}, "--no-ledger")
}

// following is a `verify --follow` that runs.
type following struct {
	t       *testing.T
	passes  *json.Decoder
	metrics string // address
	ended   chan int
	end     context.CancelFunc
	judged  int64
}

func (s *store) follow() *following {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	out, stdout := io.Pipe()
	told, stderr := io.Pipe()
	f := &following{t: s.t, passes: json.NewDecoder(out), ended: make(chan int, 1), end: cancel}
	go func() {
		f.ended <- newCLI(strings.NewReader(""), stdout, stderr, nil).execute(ctx, []string{"verify", "--follow", "--interval", "1s", "--listen", "127.0.0.1:0", "-o", "json", "-c", s.config})
		_ = stdout.Close()
		_ = stderr.Close()
	}()
	lines := bufio.NewScanner(told)
	for lines.Scan() {
		if address, is := strings.CutPrefix(lines.Text(), "metrics on "); is {
			f.metrics = address
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, told) }()
	s.t.Cleanup(func() {
		cancel()
		_ = out.Close()
	})
	return f
}

// until reads passes until one is as wanted.
func (f *following) until(what string, wanted func(verifyReport) bool) {
	f.t.Helper()
	for range 60 {
		var report verifyReport
		if err := f.passes.Decode(&report); err != nil {
			f.t.Fatalf("waiting for %s: %v", what, err)
		}
		f.judged += report.Saw.Judged
		if wanted(report) {
			return
		}
		if !report.Clean {
			f.t.Fatalf("waiting for %s: found %v", what, report.Findings)
		}
	}
	f.t.Fatalf("no pass was as wanted: %s, %d inputs judged", what, f.judged)
}

// wantMetric looks for a line of the metrics.
func (f *following) wantMetric(line string) {
	f.t.Helper()
	request, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, f.metrics, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	response, err := new(http.Client).Do(request)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(body), line) {
		f.t.Errorf("%v; the metrics lack %q", err, line)
	}
}
