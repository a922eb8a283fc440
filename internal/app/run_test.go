package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/kafka"
	"pawl/internal/txn"
)

// patience bounds every wait of these tests.
const patience = 30 * time.Second

// running is a service in the background, before a fake cluster.
type running struct {
	t       *testing.T
	cluster *kfake.Cluster
	client  *kgo.Client
	conf    Config
	stop    context.CancelFunc
	done    chan error
	lines   chan logLine
	url     string
}

// logLine is what the tests look at in a line of the log.
type logLine struct {
	Msg    string `json:"msg"`
	Admin  string `json:"admin"`
	Check  string `json:"check"`
	Detail string `json:"detail"`
	Err    string `json:"err"`
	Next   string `json:"next"`

	text string
}

// logLines is a log that is read as it is written.
type logLines chan logLine

func (l logLines) Write(text []byte) (int, error) {
	for one := range bytes.Lines(text) {
		var line logLine
		if err := json.Unmarshal(one, &line); err != nil {
			return 0, err
		}
		line.text = string(one)
		l <- line
	}
	return len(text), nil
}

const testToken = "correct-horse-battery"

// runMinimal runs the minimal configuration on a cluster that fits it, but for what spoil does to it.
func runMinimal(t *testing.T, spoil func(ctx context.Context, admin *kadm.Client) error) *running {
	t.Helper()
	return runWith(t, func(*Config) {}, Options{}, spoil)
}

// nothing is spoiled.
func nothing(context.Context, *kadm.Client) error { return nil }

// runWith does so with a configuration that change makes of the minimal one.
func runWith(t *testing.T, change func(*Config), options Options, spoil func(ctx context.Context, admin *kadm.Client) error) *running {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(testToken), 0o600); err != nil {
		t.Fatal(err)
	}
	conf, _ := load(t, LoadOptions{File: writeConfig(t, minimal), Set: []string{
		"effects.enabled=false", "txn.lanes=1", "admin.listen=127.0.0.1:0", "log.format=json", "log.level=info",
	}})
	conf.Kafka.Brokers, conf.Admin.TokenFile = cluster.ListenAddrs(), token
	change(&conf)

	makeTopics(t, conf, client)
	if err := spoil(t.Context(), kadm.NewClient(client)); err != nil {
		t.Fatal(err)
	}
	r := run(t, conf, options)
	r.cluster, r.client = cluster, client
	return r
}

// makeTopics makes every topic of a configuration, with one partition.
func makeTopics(t *testing.T, conf Config, client *kgo.Client) {
	t.Helper()
	topics := conf.Topics()
	for i := range topics {
		topics[i].Partitions = 1
	}
	plans, err := kafka.Plan(t.Context(), client, topics, kafka.PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := kafka.Apply(t.Context(), client, plans, false); err != nil {
		t.Fatal(err)
	}
}

// run starts the service, which ends with the test.
func run(t *testing.T, conf Config, options Options) *running {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	r := &running{t: t, conf: conf, stop: stop, done: make(chan error, 1), lines: make(chan logLine, 10_000)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.done <- Run(ctx, conf, Build{}, options, logLines(r.lines))
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return r
}

// line waits for a line of the log and returns it.
func (r *running) line(message string) logLine {
	r.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line := <-r.lines:
			if line.Admin != "" {
				r.url = "http://" + line.Admin
			}
			if line.Msg == message {
				return line
			}
		case err := <-r.done:
			r.t.Fatalf("ended with %v before it logged %q", err, message)
		case <-timeout:
			r.t.Fatalf("no log line %q within %s", message, patience)
		}
	}
}

// ask sends a request to the operations HTTP.
func (r *running) ask(method, path, body string) (code int, answer string) {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+testToken)
	request.Header.Set("Content-Type", "application/json")
	response, err := (&http.Client{Timeout: patience}).Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// awaitProbe waits until a probe answers with a code.
func (r *running) awaitProbe(path string, code int) (answer string) {
	r.t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for timeout := time.After(patience); ; {
		got, answer := r.ask(http.MethodGet, path, "")
		if got == code {
			return answer
		}
		select {
		case <-look.C:
		case <-timeout:
			r.t.Fatalf("%s does not answer %d within %s: %d %s", path, code, patience, got, answer)
		}
	}
}

// members counts those of a consumer group.
func (r *running) members(group string) int {
	r.t.Helper()
	groups, err := kadm.NewClient(r.client).DescribeGroups(r.t.Context(), group)
	if err != nil {
		r.t.Fatal(err)
	}
	return len(groups[group].Members)
}

// end gives the order to stop and wants a clean end.
func (r *running) end() {
	r.t.Helper()
	r.stop()
	select {
	case err := <-r.done:
		if err != nil {
			r.t.Errorf("ended with %v", err)
		}
	case <-time.After(patience):
		r.t.Fatalf("no end within %s", patience)
	}
}

// A cluster that the preflight finds unfit keeps the service up, unready and away from its work, also
// where the engine itself could begin.
func TestUnfitClusterKeepsTheServiceUnready(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil         func(ctx context.Context, admin *kadm.Client) error
		check, detail string
	}{
		"no topic for dead letters": {
			spoil: func(ctx context.Context, admin *kadm.Client) error {
				_, err := admin.DeleteTopics(ctx, "shop.dead-letter")
				return err
			},
			check: kafka.CheckTopics, detail: "missing: shop.dead-letter",
		},
		"offsets of another input": {
			spoil: func(ctx context.Context, admin *kadm.Client) error {
				offsets := kadm.Offsets{}
				offsets.Add(kadm.Offset{Topic: "raw", Partition: 0, At: 0, LeaderEpoch: -1, Metadata: txn.OffsetMetadata([16]byte{1, 2, 3})})
				return admin.CommitAllOffsets(ctx, "shop", offsets)
			},
			check: kafka.CheckOffsets, detail: "input topic raw was deleted and created again",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := runMinimal(t, c.spoil)
			joins := r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID, kmsg.JoinGroup}, TopLevel: true, Observe: true, Count: -1})
			r.line("starting")
			if line := r.line("preflight found a problem, not ready"); line.Check != c.check || !strings.Contains(line.Detail, c.detail) {
				t.Errorf("the problem is %+v, want %s: %s", line, c.check, c.detail)
			}
			for _, probe := range []string{"/readyz", "/startupz"} {
				if code, answer := r.ask(http.MethodGet, probe+"?verbose", ""); code != http.StatusServiceUnavailable || !strings.Contains(answer, "[-]preflight") {
					t.Errorf("%s answers %d %s, want 503 because of the preflight", probe, code, answer)
				}
			}
			if code, answer := r.ask(http.MethodGet, "/livez", ""); code != http.StatusOK {
				t.Errorf("/livez answers %d %s, want 200: a restart mends nothing", code, answer)
			}
			soon, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if err := joins.Wait(soon, 1); err == nil {
				t.Error("the engine has begun to work")
			}
			r.end()
		})
	}
}

// A drain by the operations HTTP makes the members leave the group if it says so, and only then. Up to
// then the service is ready, after that it is not.
func TestDrainLeavesTheGroupIfToldTo(t *testing.T) {
	t.Parallel()
	for order, members := range map[string]int{
		`{"leave": true, "reason": "scale-down"}`: 0,
		`{"leave": false, "reason": "restart"}`:   1,
	} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			r := runMinimal(t, nothing)
			r.line("starting")
			r.awaitProbe("/readyz?verbose", http.StatusOK)
			if got := r.members(r.conf.Group()); got != 1 {
				t.Errorf("a ready service with one lane has %d members in the group", got)
			}
			if code, answer := r.ask(http.MethodPost, "/api/v1/drain", order); code != http.StatusAccepted {
				t.Fatalf("drain answers %d %s", code, answer)
			}
			r.line("drained, resting until the process is told to end")
			if code, answer := r.ask(http.MethodGet, "/readyz?verbose", ""); code != http.StatusServiceUnavailable || !strings.Contains(answer, "[-]drain") {
				t.Errorf("/readyz answers %d %s, want 503 because of the drain", code, answer)
			}
			if got := r.members(r.conf.Group()); got != members {
				t.Errorf("after the drain the group has %d members, want %d", got, members)
			}
			r.end()
		})
	}
}

// Of two processes with one name the one that is fenced again and again stays up for a while without work,
// unready, and says what it is: monitoring would never see one that ends at once.
func TestTwinStaysToBeSeen(t *testing.T) {
	t.Parallel()
	linger := func(c *Config) { c.Admin.Linger = Duration(time.Hour) } // ended by the order to stop
	r := runWith(t, linger, Options{}, nothing)
	r.line("starting")
	r.awaitProbe("/readyz?verbose", http.StatusOK)
	one := r.url

	ctx, stop := context.WithCancel(t.Context())
	twin := make(chan error, 1)
	go func() { twin <- Run(ctx, r.conf, Build{}, Options{}, logLines(r.lines)) }()
	r.line("starting")
	two := r.url
	r.line("another process has our name: no work is done here, this process ends soon")
	twins := 0
	for _, url := range []string{one, two} {
		r.url = url
		if _, metrics := r.ask(http.MethodGet, "/metrics", ""); strings.Contains(metrics, "\nprocessor_twin 1\n") {
			twins++
			r.awaitProbe("/readyz?verbose", http.StatusServiceUnavailable)
		}
	}
	if twins != 1 {
		t.Errorf("%d processes say that they have a twin, want the one that gave up", twins)
	}
	stop()
	r.stop()
	if told := fmt.Sprint(<-twin, <-r.done); !strings.Contains(told, "PROCESSOR_INSTANCE") {
		t.Errorf("they ended with %s, want an error that says what to do", told)
	}
}

// Profiles are served if the configuration says so, and only then.
func TestProfilesAreServedIfAskedFor(t *testing.T) {
	t.Parallel()
	for profiling, code := range map[bool]int{true: http.StatusOK, false: http.StatusNotFound} {
		t.Run(strconv.FormatBool(profiling), func(t *testing.T) {
			t.Parallel()
			set := func(c *Config) { c.Admin.Profiling = profiling }
			r := runWith(t, set, Options{}, func(context.Context, *kadm.Client) error { return nil })
			r.line("starting")
			r.awaitProbe("/readyz?verbose", http.StatusOK)
			if got, _ := r.ask(http.MethodGet, "/debug/pprof/goroutine?debug=1", ""); got != code {
				t.Errorf("/debug/pprof/ answers %d, want %d", got, code)
			}
			r.end()
		})
	}
}

// withLedger makes the configuration one with a ledger in the database.
func withLedger(dsn string) func(*Config) {
	return func(c *Config) {
		c.Effects.Enabled, c.Effects.Lanes = true, 1
		c.Postgres.DSN = NewSecret(dsn)
	}
}

// A database that is away holds effects up, not the service; it is told without the password.
func TestDatabaseThatIsAwayLeavesTheServiceReady(t *testing.T) {
	t.Parallel()
	r := runWith(t, withLedger("postgres://pawl:"+testToken+"@127.0.0.1:1/pawl"), Options{}, nothing)
	r.line("starting")
	line := r.line("the effect ledger can't be used yet, effects wait on their topic")
	if line.Err == "" || strings.Contains(line.Err, testToken) {
		t.Errorf("the line says %q, want the reason without the password", line.Err)
	}
	if answer := r.awaitProbe("/readyz?verbose", http.StatusOK); !strings.Contains(answer, "[+]ledger") {
		t.Errorf("ready without a word of the ledger: %s", answer)
	}
	r.produce("a", "b", "c")
	v := r.look("three records", func(v View) bool { return len(v.Inputs) == 1 && v.Inputs[0].Committed == 3 })
	away := v.Effects.Away
	if v.Effects.LedgerUp || away == nil || away.Since.IsZero() || time.Since(away.Since) > patience || strings.Contains(away.Error, testToken) ||
		!strings.Contains(away.Error, "127.0.0.1") || !strings.Contains(away.Next, "`processor migrate status`") {
		t.Errorf("the view says %+v of a ledger that is away", away)
	}
	if _, answer := r.ask(http.MethodGet, "/api/v1/status", ""); !strings.Contains(answer, `"away":`) {
		t.Errorf("the status does not tell since when the ledger is away: %s", answer)
	}
	if code, answer := r.ask(http.MethodGet, "/api/v1/effects", ""); code != http.StatusServiceUnavailable || !strings.Contains(answer, "`processor migrate status`") {
		t.Errorf("the list of effects answers %d %s, want what to do", code, answer)
	}
	if _, answer := r.ask(http.MethodGet, "/metrics", ""); !strings.Contains(answer, "\nprocessor_outbox_ledger_down_seconds ") || strings.Contains(answer, "\nprocessor_outbox_ledger_down_seconds 0\n") {
		t.Error("the metrics do not tell how long the ledger has been away")
	}
	r.end()
}
