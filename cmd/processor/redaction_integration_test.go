//go:build integration

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"pawl/internal/testkit"
)

// The plants, one for each place in which a secret can stand.
var plants = map[string]string{
	"password of the database":   "plant-dsn-4c1f9a77",
	"password for the brokers":   "plant-sasl-8820bd13",
	"header in the file":         "plant-header-51ee04c2",
	"header in the environment":  "plant-env-header-90ab",
	"header by --set":            "plant-set-header-17fd",
	"file of a header":           "plant-header-file-3be8",
	"signing secret":             "plant-signing-secret-with-32-bytes",
	"token":                      "plant-admin-token-6d2e",
	"query of an endpoint's URL": "plant-query-key-77a0",
	"user of an endpoint's URL":  "plant-userinfo-e3c5",
	"wrong connection string":    "plant-wrong-dsn-2f61",
	"variable without a setting": "plant-stray-variable-b",
	"order":                      "plant-sku-d0c9",
	"header for the collector":   "plant-otlp-header-4e70",
	"password for the collector": "plant-otlp-userinfo-5a1c",
}

// shown gathers what was shown, by where.
type shown struct {
	mu   sync.Mutex
	text map[string]string
}

func (s *shown) add(where, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text[where] += text
}

// check looks for every plant, in the forms that encoders give it.
func (s *shown) check(t *testing.T, plants map[string]string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for where, text := range s.text {
		for what, plant := range plants {
			for _, form := range []string{plant, url.QueryEscape(plant), base64.StdEncoding.EncodeToString([]byte(plant))} {
				if at := strings.Index(text, form); at >= 0 {
					t.Errorf("%s shows the %s: …%s…", where, what, text[max(0, at-200):min(len(text), at+100)])
				}
			}
		}
	}
}

// logTail is a log that tells when it has a line with a text.
type logTail struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logTail) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logTail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// gossip is everything around a process, and quotes to it whatever it was told: the broker the password that it refuses,
// the endpoint the headers of each call.
type gossip struct {
	cluster *kfake.Cluster
	client  *kgo.Client
	config  string
	env     []string

	refusing atomic.Bool
	refused  atomic.Int32
	called   atomic.Int32
	headers  atomic.Int32 // calls that had all of the plants that belong in a call

	collected atomic.Int32 // requests with spans that had the plants that belong in them
	spans     shown
}

func newGossip(t *testing.T) *gossip {
	t.Helper()
	g := &gossip{spans: shown{text: map[string]string{}}}
	sasl := plants["password for the brokers"]
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "service", sasl))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	g.cluster = cluster
	g.client, err = kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.SASL(plain.Auth{User: "service", Pass: sasl}.AsMechanism()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.client.Close)
	cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if !g.refusing.Load() {
			return nil, nil, false
		}
		g.refused.Add(1)
		answer := request.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		answer.ErrorCode = kerr.SaslAuthenticationFailed.Code
		answer.ErrorMessage = new("nobody here has the password " + sasl)
		return answer, nil, true
	})
	endpoint := httptest.NewServer(http.HandlerFunc(g.answer))
	t.Cleanup(endpoint.Close)
	collector := httptest.NewServer(http.HandlerFunc(g.collect))
	t.Cleanup(collector.Close)
	g.configure(t, endpoint.URL)
	g.trace(t, collector.URL)
	return g
}

// collect keeps the spans, and refuses every second request with all that came with it.
func (g *gossip) collect(w http.ResponseWriter, r *http.Request) {
	spans, err := io.ReadAll(r.Body)
	var told bytes.Buffer
	_ = r.Header.Write(&told)
	_, password, _ := r.BasicAuth()
	if err != nil || !strings.Contains(told.String(), plants["header for the collector"]) {
		http.Error(w, "it lacks the header for the collector", http.StatusBadRequest)
		return
	}
	g.spans.add("spans", string(spans))
	if g.collected.Add(1)%2 == 1 {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, "I do not like "+told.String()+password)
	}
}

// trace sends spans to a collector. Its exporter reads the environment of the process by itself.
func (g *gossip) trace(t *testing.T, collector string) {
	t.Helper()
	for name, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": strings.Replace(collector, "://", "://pawl:"+plants["password for the collector"]+"@", 1),
		"OTEL_EXPORTER_OTLP_HEADERS":  "api-key=" + plants["header for the collector"],
		"OTEL_BSP_SCHEDULE_DELAY":     "50",
	} {
		t.Setenv(name, value)
		g.env = append(g.env, name+"="+value)
	}
}

// answer quotes what it was sent, and refuses it.
func (g *gossip) answer(w http.ResponseWriter, r *http.Request) {
	var told bytes.Buffer
	_ = r.Header.Write(&told)
	_, _ = io.Copy(&told, r.Body)
	g.called.Add(1)
	whole := told.String() + r.URL.RawQuery
	for _, what := range []string{"header in the file", "header in the environment", "header by --set", "file of a header", "query of an endpoint's URL"} {
		if !strings.Contains(whole, plants[what]) {
			http.Error(w, "it lacks the "+what, http.StatusServiceUnavailable)
			return
		}
	}
	g.headers.Add(1)
	w.WriteHeader(http.StatusBadRequest)
	_, _ = io.WriteString(w, "I do not like "+whole)
}

func (g *gossip) configure(t *testing.T, endpoint string) {
	t.Helper()
	folder := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	g.config = write("config.yaml", fmt.Sprintf(`application: vault
instance: one
kafka: {brokers: [%q], sasl: {mechanism: PLAIN, username: service, password_file: %q}}
routes: [{topics: [vault.orders], handler: orders}]
outputs: {priced: {topic: vault.priced, partitions: 1}, ledger: {topic: vault.ledger, partitions: 1}}
txn: {lanes: 1}
effects: {lanes: 1}
endpoints:
  payments:
    url: "%s/charges?key=%s"
    allow_private: true
    attempts_max: 3
    headers: {X-File: %s}
    header_files: {Authorization: %q}
    secret_files: [%q]
admin: {listen: "127.0.0.1:0", token_file: %q, profiling: true}
log: {level: debug}
`, g.cluster.ListenAddrs()[0], write("sasl", plants["password for the brokers"]), endpoint, plants["query of an endpoint's URL"], plants["header in the file"],
		write("header", "Bearer "+plants["file of a header"]),
		write("signing", "whsec_"+base64.StdEncoding.EncodeToString([]byte(plants["signing secret"]))), write("token", plants["token"])))
	g.env = []string{
		"PROCESSOR_CONFIG=" + g.config,
		"PROCESSOR_POSTGRES_DSN=" + plantedDSN(t),
		"PROCESSOR_ENDPOINTS_PAYMENTS_HEADERS={X-File: " + plants["header in the file"] + ", X-Env: " + plants["header in the environment"] + "}",
		"PROCESSOR_KAFKA_SASL_PASSWORD=" + plants["variable without a setting"],
	}
}

// plantedDSN makes a user whose password is a plant.
func plantedDSN(t *testing.T) string {
	t.Helper()
	dsn, err := url.Parse(testkit.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	admin, err := pgx.Connect(t.Context(), dsn.String())
	if err != nil {
		t.Fatal(err)
	}
	user := strings.TrimPrefix(dsn.Path, "/") // as unique as the database
	role := pgx.Identifier{user}.Sanitize()
	for _, statement := range []string{
		"CREATE ROLE " + role + " LOGIN PASSWORD '" + plants["password of the database"] + "'",
		"GRANT ALL ON DATABASE " + role + " TO " + role,
	} {
		if _, err := admin.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		_, err := admin.Exec(context.WithoutCancel(t.Context()), "DROP OWNED BY "+role+"; DROP ROLE "+role)
		if err != nil {
			t.Error(err)
		}
		_ = admin.Close(context.WithoutCancel(t.Context()))
	})
	dsn.User = url.UserPassword(user, plants["password of the database"])
	return dsn.String()
}

// set is how every command of the test is told the header that only the command line knows.
func (g *gossip) set() []string {
	return []string{"--set", "endpoints.payments.headers.X-Set=" + plants["header by --set"]}
}

// A secret is planted in every place where one can stand, and everybody around quotes it. What is shown by whatever means
// holds none of them: the log at debug, errors, the configuration, the operations HTTP, metrics, profiles, the stacks that
// a panic prints, commands, spans, and the archive of an incident.
func TestSecretsAppearNowhere(t *testing.T) { // not in parallel: the exporter of spans reads the environment
	g := newGossip(t)
	seen := &shown{text: map[string]string{}}
	command := func(args ...string) ran {
		var stdout, stderr bytes.Buffer
		code := newCLI(strings.NewReader(""), &stdout, &stderr, g.env).execute(t.Context(), append(args, g.set()...))
		seen.add("processor "+strings.Join(args, " "), stdout.String()+stderr.String())
		return ran{code, stdout.String(), stderr.String()}
	}
	if got := command("topics", "apply", "--yes", "--create-inputs", "1"); got.code != exitOK {
		t.Fatalf("topics apply: %+v", got)
	}

	// The process, which the broker refuses at first.
	g.refusing.Store(true)
	log := &logTail{}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- newCLI(strings.NewReader(""), io.Discard, log, g.env).execute(ctx, append([]string{"run", "--migrate"}, g.set()...))
	}()
	said := func(text string) func() bool { return func() bool { return strings.Contains(log.String(), text) } }
	testkit.WaitFor(t, time.Minute, "the refusal", said(`"msg":"kafka authentication refused"`))
	command("check", "--connect")
	command("lag")
	g.refusing.Store(false)
	address := regexp.MustCompile(`"admin":"([^"]+)"`).FindStringSubmatch(log.String())
	if address == nil {
		t.Fatalf("the log names no address:\n%s", log)
	}
	base := "http://" + address[1]
	testkit.WaitFor(t, time.Minute, "a process that is ready", func() bool {
		code, _ := get(t, base+"/readyz", "")
		return code == http.StatusOK
	})
	order := fmt.Sprintf(`{"schema_version":1,"order_id":"o-1","customer":{"id":"c-7","tier":"standard"},"currency":"EUR","placed_at":"2026-11-23T08:00:00Z",`+
		`"lines":[{"sku":%q,"quantity":2,"unit_price":"9.99","tax":"standard"}]}`, plants["order"])
	for _, value := range []string{order, `{"schema_version":1,"customer":"` + plants["order"] + `"`} {
		if err := g.client.ProduceSync(t.Context(), &kgo.Record{Topic: "vault.orders", Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	testkit.WaitFor(t, time.Minute, "a dead effect", func() bool { return strings.Contains(command("effects", "ls", "--state", "dead").stdout, "payments") })

	for _, path := range []string{
		"/", "/metrics", "/livez?verbose", "/readyz?verbose", "/startupz?verbose", "/version", "/api/v1/status", "/api/v1/view", "/api/v1/config",
		"/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1", "/api/v1/effects", "/api/v1/effects?state=dead", "/api/v1/effects/0:0", "/api/v1/audit", "/nothing",
		"/api/v1/dead-letters", "/api/v1/dead-letters/0/0", "/api/v1/dead-letters/0/0?contents=true",
	} {
		for _, token := range []string{"", plants["token"], "wrong"} {
			_, text := get(t, base+path, token)
			seen.add("GET "+path, text)
		}
	}
	seen.add("GET /api/v1/events", firstEvent(t, base+"/api/v1/events"))
	stacks := make([]byte, 8<<20) // what a panic prints of all goroutines
	seen.add("stacks", string(stacks[:runtime.Stack(stacks, true)]))

	archive := filepath.Join(t.TempDir(), "bundle.tar.gz")
	logFile := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(logFile, []byte(log.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	command("bundle", "--admin", address[1], "--log", logFile, "--file", archive)
	files, _ := readBundle(t, archive)
	for name, text := range files {
		seen.add("bundle "+name, text)
	}
	clean := map[string]bool{"top": true, "verify": true, "dlq": true} // what they have to show is shown
	for _, args := range [][]string{
		{"config", "print"},
		{"config", "print", "-o", "json"},
		{"check"},
		{"check", "--rights", "-o", "json"},
		{"lag"},
		{"txn", "ls", "--all"},
		{"dlq", "ls"},
		{"dlq", "show", "0/0", "--bytes", "0"},
		{"top", "--once", "--admin", address[1]},
		{"top", "--admin", address[1], "-o", "json"},
		{"verify"},
		{"audit", "-o", "json"},
		{"effects", "ls", "-o", "json"},
		{"effects", "show", "0:0"},
		{"migrate", "status", "--set", "postgres.dsn=postgres://nobody:" + plants["wrong connection string"] + "@127.0.0.1:1/pawl?connect_timeout=1"},
		{"check", "--set", "postgres.dsn=postgres://nobody:" + plants["wrong connection string"] + "@local host/pawl"},
		{"check", "--set", "endpoints.payments.url=https://anna:" + plants["user of an endpoint's URL"] + "@pay.example/charges"},
		{"config", "print", "--set", "endpoints.payments.url=https://anna:" + plants["user of an endpoint's URL"] + "@pay.example/charges"},
		{"check", "--set", "kafka.sasl.pasword_file=" + plants["wrong connection string"]},
	} {
		if got := command(args...); clean[args[0]] && got.code != exitOK {
			t.Errorf("%v: %+v", args, got)
		}
	}
	orderEverything(t, base, seen, command)

	stop()
	select {
	case code := <-ended:
		if code != exitOK {
			t.Errorf("the process ended with %d", code)
		}
	case <-time.After(time.Minute):
		t.Fatal("the process does not end")
	}
	seen.add("the log", log.String())
	seen.add("spans", g.spans.text["spans"])
	seen.check(t, plants)
	if spans := g.spans.text["spans"]; !strings.Contains(spans, "process vault.orders") || !strings.Contains(spans, "deliver payments") || !strings.Contains(log.String(), "I do not like") {
		t.Errorf("the collector quoted %d requests; no spans, or no word of it in the log: the test shows nothing", g.collected.Load())
	}
	if g.refused.Load() == 0 || g.headers.Load() == 0 {
		t.Errorf("the broker quoted the password %d times, %d of %d calls had their plants: the test shows nothing", g.refused.Load(), g.headers.Load(), g.called.Load())
	}
	if !strings.Contains(log.String(), "nobody here has the password ***") {
		t.Error("the log has no word of what the broker quoted: the test shows nothing")
	}
	t.Logf("looked for %d plants in %d places; %d refusals and %d calls quoted them", len(plants), len(seen.text), g.refused.Load(), g.headers.Load())
}

// orderEverything gives each order that the operations HTTP takes, without the token, with a wrong one and with the right one, and
// looks at what is told of it while it is in force and afterwards.
func orderEverything(t *testing.T, base string, seen *shown, command func(...string) ran) {
	t.Helper()
	order := func(path, target string) {
		t.Helper()
		body := fmt.Sprintf(`{"target": %q, "reason": "a test", "actor": "ann"}`, target)
		if target == "" {
			body = `{"reason": "a test", "actor": "ann"}`
		}
		for _, token := range []string{"", "wrong", plants["token"]} {
			code, text := ask(t, http.MethodPost, base+path, token, body)
			seen.add("POST "+path, text)
			known := code == http.StatusAccepted || code == http.StatusConflict // what is retried may be dead again before it is cancelled
			if known != (token == plants["token"]) {
				t.Errorf("POST %s answers %d %s", path, code, text)
			}
		}
	}
	list := func() {
		t.Helper()
		for _, path := range []string{"/api/v1/pauses", "/readyz?verbose"} {
			_, text := get(t, base+path, "")
			seen.add("GET "+path, text)
		}
		command("pause", "ls")
		command("pause", "ls", "-o", "json")
	}
	order("/api/v1/hold", "endpoint/payments")
	order("/api/v1/pause", "input/vault.orders")
	list()
	if told := command("pause", "ls"); told.code != exitOK || !strings.Contains(told.stdout, "endpoint/payments") || !strings.Contains(told.stdout, "input/vault.orders") {
		t.Errorf("pause ls: %+v; want both", told)
	}
	order("/api/v1/effects/0:0/retry", "")
	order("/api/v1/effects/0:0/cancel", "")
	order("/api/v1/resume", "endpoint/payments")
	order("/api/v1/resume", "input/vault.orders")
	list()
	command("effects", "audit", "-o", "json")
	if told := command("effects", "audit"); told.code != exitOK || !strings.Contains(told.stdout, "retry") {
		t.Errorf("effects audit: %+v; want the retry", told)
	}
	order("/api/v1/drain", "")
}

// get asks the operations HTTP; the headers of the answer count as shown.
func get(t *testing.T, address, token string) (int, string) {
	t.Helper()
	return ask(t, http.MethodGet, address, token, "")
}

func ask(t *testing.T, method, address, token, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var text bytes.Buffer
	_ = response.Header.Write(&text)
	if _, err := text.ReadFrom(response.Body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, text.String()
}

// firstEvent reads one event of a stream.
func firstEvent(t *testing.T, address string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var event strings.Builder
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 8<<20)
	for lines.Scan() && (lines.Text() != "" || event.Len() == 0) {
		event.WriteString(lines.Text() + "\n")
	}
	return event.String()
}
