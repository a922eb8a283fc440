//go:build chaos && linux

package e2e

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/cluster"
	"pawl/internal/message"
	"pawl/internal/testkit"
)

// badEffectsConfiguration takes the application, brokers, endpoints, and the paths of the connection string
// and of the token.
const badEffectsConfiguration = `application: %[1]s
kafka: {brokers: [%[2]s], heartbeat: 1s}
routes: [{topics: [%[1]s.orders], handler: orders}]
outputs:
  priced: {topic: %[1]s.priced, partitions: 1}
  ledger: {topic: %[1]s.ledger, partitions: 1}
txn: {lanes: 1}
effects: {lanes: 1}
endpoints:
%[3]spostgres: {dsn_file: %[4]q}
admin: {listen: "127.0.0.1:0", token_file: %[5]q}
`

const (
	badAttempts = 3 // attempts_max of each endpoint
	hugeBytes   = 1 << 30

	plainSecret = "hunter2-plain" // values of headers of each endpoint
	fileSecret  = "hunter2-file"
)

// badServer misbehaves at each path in its own way, and counts.
type badServer struct {
	*httptest.Server
	private *httptest.Server // where it redirects to
	release chan struct{}    // closed when the silent are to end

	mu      sync.Mutex
	headers map[string][]http.Header // of the calls, by path
	touched int                      // calls of private
	sent    int64                    // bytes of the huge answer
	mended  bool
}

func openBadServer(t *testing.T) *badServer {
	t.Helper()
	s := &badServer{headers: map[string][]http.Header{}, release: make(chan struct{})}
	s.private = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		s.mu.Lock()
		s.touched++
		s.mu.Unlock()
	}))
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(func() {
		close(s.release)
		s.Close()
		s.private.Close()
	})
	return s
}

func (s *badServer) serve(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return // cut off before it was a call
	}
	s.mu.Lock()
	s.headers[r.URL.Path] = append(s.headers[r.URL.Path], r.Header)
	mended := s.mended
	s.mu.Unlock()
	name := strings.TrimPrefix(r.URL.Path, "/")
	status, err := strconv.Atoi(strings.TrimPrefix(name, "says"))
	switch {
	case name == "good", name == "large", name == "payments", mended:
	case name == "redirects":
		http.Redirect(w, r, s.private.URL+"/secret", http.StatusTemporaryRedirect)
	case name == "silent":
		select {
		case <-s.release:
		case <-r.Context().Done():
		}
	case name == "huge":
		s.pour(w)
	case name == "resets":
		s.seize(w, "")
	case name == "garbage":
		s.seize(w, "\x00\xff I am no HTTP server \x1b[31m\r\n\r\n")
	case err == nil:
		if status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "1")
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "what the endpoint says")
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// pour answers with more than anybody wants.
func (s *badServer) pour(w http.ResponseWriter) {
	chunk := bytes.Repeat([]byte("x"), 64<<10)
	w.Header().Set("Content-Length", strconv.Itoa(hugeBytes))
	for range hugeBytes / len(chunk) {
		n, err := w.Write(chunk)
		s.mu.Lock()
		s.sent += int64(n)
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// seize ends the connection below HTTP, with RST where there is nothing to say.
func (s *badServer) seize(w http.ResponseWriter, say string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if tcp, is := conn.(*net.TCPConn); is && say == "" {
		_ = tcp.SetLinger(0)
	}
	_, _ = io.WriteString(conn, say)
	_ = conn.Close()
}

func (s *badServer) calls(path string) []http.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.headers[path]
}

// badEffect is an effect that something is wrong with, and what is to become of it.
type badEffect struct {
	name        string
	endpoint    string
	class       message.Class // at-least-once where it is empty
	key         string
	contentType string
	trace       string
	body        string

	state    string
	attempts int      // calls, exactly; -1: from 1 to badAttempts
	errors   []string // texts that show one of
	check    func(t *testing.T, shown shownEffect, calls []http.Header)

	place string // once it is written
}

// shownEffect is what `effects show -o json` and the operations HTTP print, as far as it matters here.
type shownEffect struct {
	Effect     string `json:"effect"`
	State      string `json:"state"`
	Attempts   int    `json:"attempts"`
	Error      string `json:"error"`
	HTTPStatus int    `json:"http_status"`
	BodyBytes  int    `json:"body_bytes"`
	Body       []byte `json:"body"`
	Response   *struct {
		BodyBytes int  `json:"body_bytes"`
		Truncated bool `json:"truncated"`
	} `json:"response"`
	Audit []struct {
		Action string `json:"action"`
		Actor  string `json:"actor"`
		Reason string `json:"reason"`
		Result string `json:"result"`
	} `json:"audit"`
}

func badEffects() []*badEffect {
	gaveUp := fmt.Sprintf("gave up after %d attempts: ", badAttempts)
	noneInjected := func(t *testing.T, _ shownEffect, calls []http.Header) {
		t.Helper()
		for _, header := range calls {
			if header.Get("X-Injected") != "" || header.Get("Pawl-Fence") == "99" {
				t.Errorf("a header was injected: %v", header)
			}
		}
	}
	noCall := func(t *testing.T, _ shownEffect, calls []http.Header) {
		t.Helper()
		if len(calls) > 0 {
			t.Errorf("it was called: %v", calls)
		}
	}
	const injection = "\r\nX-Injected: 1\r\nPawl-Fence: 99"
	large := strings.Repeat("x", 900_000)
	return []*badEffect{
		{name: "nothing", endpoint: "good", state: "done", attempts: 1},
		{name: "unknown endpoint", endpoint: "nowhere", state: "parked", errors: []string{"the endpoint is not in the configuration"}, check: noCall},
		{name: "unknown endpoint of an evil name", endpoint: "evil" + injection, state: "parked", errors: []string{"the endpoint is not in the configuration"}, check: noCall},
		{name: "injection by key", endpoint: "good", key: "k" + injection, state: "done", attempts: 1, check: noneInjected},
		{name: "injection by traceparent", endpoint: "good", trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" + injection, state: "done", attempts: 1, check: noneInjected},
		{name: "injection by content type", endpoint: "typed", contentType: "text/plain" + injection, state: "dead", errors: []string{"content type has a control character"}, check: noCall},
		{name: "large", endpoint: "large", body: large, state: "done", attempts: 1, check: func(t *testing.T, shown shownEffect, _ []http.Header) {
			t.Helper()
			if string(shown.Body) != large {
				t.Errorf("its body has %d bytes, want %d", len(shown.Body), len(large))
			}
		}},
		{name: "redirect to a private address", endpoint: "redirects", state: "dead", attempts: 1, errors: []string{"the endpoint answered 307"}},
		{name: "never answers", endpoint: "silent", state: "dead", attempts: badAttempts, errors: []string{gaveUp + "no answer in time"}},
		{name: "never answers, at most once", endpoint: "silent-once", class: message.AtMostOnce, state: "unknown", attempts: 1, errors: []string{"no answer in time"}},
		{name: "answers 1 GB", endpoint: "huge", state: "done", attempts: 1, check: func(t *testing.T, shown shownEffect, _ []http.Header) {
			t.Helper()
			if shown.Response == nil || !shown.Response.Truncated || shown.Response.BodyBytes != 16<<10 {
				t.Errorf("kept of the answer is %+v, want 16 KiB of it", shown.Response)
			}
		}},
		{name: "resets", endpoint: "resets", state: "dead", attempts: -1, errors: []string{"before it answered"}},
		{name: "resets, at most once", endpoint: "resets-once", class: message.AtMostOnce, state: "unknown", attempts: 1, errors: []string{"before it answered"}},
		{name: "garbage", endpoint: "garbage", state: "dead", attempts: badAttempts, errors: []string{gaveUp + "malformed HTTP", gaveUp + "the answer", gaveUp + "the endpoint"}},
		{name: "409", endpoint: "says409", state: "dead", attempts: badAttempts, errors: []string{gaveUp + "the endpoint answered 409"}},
		{name: "422", endpoint: "says422", state: "dead", attempts: 1, errors: []string{"the endpoint answered 422"}},
		{name: "429", endpoint: "says429", state: "dead", attempts: badAttempts, errors: []string{gaveUp + "the endpoint answered 429"}},
		{name: "500", endpoint: "says500", state: "dead", attempts: badAttempts, errors: []string{gaveUp + "the endpoint answered 500"}},
	}
}

// record is the effect as the engine writes one.
func (e *badEffect) record(topic string, offset int64) *kgo.Record {
	source := message.Source{Application: "shop", Topic: "orders", TopicID: [16]byte{1}, Offset: offset}
	class, kind := e.class, e.contentType
	if class == "" {
		class = message.AtLeastOnce
	}
	if kind == "" {
		kind = "application/json"
	}
	key, body := e.key, e.body
	if key == "" {
		key = e.name
	}
	if body == "" {
		body = `{"amount":"1.00"}`
	}
	headers := []kgo.RecordHeader{
		header(message.HeaderFormat, message.EffectFormat), header(message.HeaderID, source.ID(0).String()), header(message.HeaderSource, source.String()),
		header(message.HeaderIndex, "0"), header(message.HeaderTopicID, hex.EncodeToString(source.TopicID[:])), header(message.HeaderGeneration, "0"),
		header(message.HeaderEndpoint, e.endpoint), header(message.HeaderClass, string(class)), header(message.HeaderContentType, kind),
	}
	if e.trace != "" {
		headers = append(headers, header(message.HeaderTrace, e.trace))
	}
	return &kgo.Record{Topic: topic, Key: []byte(key), Value: []byte(body), Headers: headers}
}

// TestBadEffectsEndToEnd sends effects that something is wrong with, or whose endpoint does what an endpoint
// should not, all at once. Each ends as it must, with a message that says why, after a bounded number of calls; good ones
// beside it are made; nothing is lost, and nothing turns in a loop.
func TestBadEffectsEndToEnd(t *testing.T) {
	k := testkit.OpenKafka(t, cluster.KafkaConfig{Nodes: 1})
	database := testkit.OpenPostgres(t, cluster.PostgresConfig{})
	server := openBadServer(t)
	s, token := newBadEffects(t, k, database.DSN(), server)
	p := s.processor("a")
	p.arguments = []string{"--migrate"}
	p.start(t)
	p.awaitReady(t)

	effects := badEffects()
	client := testkit.Client(t, k.InternalBrokers())
	for i, e := range effects {
		written, err := client.ProduceSync(t.Context(), e.record(s.effects, int64(i))).First()
		if err != nil {
			t.Fatal(err)
		}
		e.place = fmt.Sprintf("%d:%d", written.Partition, written.Offset)
	}
	var shown map[string]shownEffect
	t.Cleanup(func() {
		for _, e := range effects {
			if got := shown[e.place]; t.Failed() && got.State != e.state {
				t.Logf("%s (%s) is %s after %d attempts: %s", e.name, e.place, got.State, got.Attempts, got.Error)
			}
		}
	})
	settled := 0
	for _, e := range effects {
		if e.state != "parked" {
			settled++
		}
	}
	p.await(t, workTimeout, "outcomes", func() bool { return p.metric("processor_outbox_settled_effects_total") >= float64(settled) })
	p.await(t, workTimeout, "each effect in its last state", func() bool {
		shown = s.showAll(t, effects)
		for _, e := range effects {
			if shown[e.place].State != e.state {
				return false
			}
		}
		return true
	})
	for _, e := range effects {
		t.Run(e.name, func(t *testing.T) { e.verify(t, shown[e.place], server) })
	}
	server.mu.Lock()
	if server.touched > 0 {
		t.Errorf("%d calls followed the redirect", server.touched)
	}
	if server.sent == 0 || server.sent > hugeBytes/8 {
		t.Errorf("%d bytes of the huge answer were taken", server.sent)
	}
	server.mu.Unlock()

	for metric, want := range map[string]float64{
		`processor_outbox_settled_effects_total status="done"`:    5,
		`processor_outbox_settled_effects_total status="dead"`:    9,
		`processor_outbox_settled_effects_total status="unknown"`: 2,
		`processor_outbox_attempts_total sink="says409"`:          badAttempts,
		`processor_outbox_attempts_total sink="says422"`:          1,
		`processor_outbox_halted_lanes`:                           0,
	} {
		name, label, _ := strings.Cut(metric, " ")
		if got := p.metric(name, label); got != want {
			t.Errorf("%s is %v, want %v", metric, got, want)
		}
	}
	results := 0.0
	p.await(t, workTimeout, "a result of each that is settled", func() bool {
		results = p.metric("processor_outbox_results_total")
		return results >= float64(settled)
	})
	if results != float64(settled) {
		t.Errorf("%v results were told, want one of each that is settled", results)
	}
	p.rests(t, 0, restTime)

	t.Run("mended", func(t *testing.T) { mend(t, s, p, token, server, effects) })
	t.Run("larger than its topic takes", func(t *testing.T) { testLargeEffect(t, s, p) })
	for _, header := range server.calls("/good") {
		if header.Get("X-Plan") != plainSecret || header.Get("Authorization") != "Bearer "+fileSecret {
			t.Errorf("a call has the headers %v", header)
		}
	}
	testNoSecretIsTold(t, s, p, token)
	p.terminate(t, endTimeout)
}

// testNoSecretIsTold looks for the values of headers wherever the program says something.
func testNoSecretIsTold(t *testing.T, s *shop, p *processor, token string) {
	t.Helper()
	log, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{"the log": string(log)}
	for _, path := range []string{"/metrics", "/api/v1/status", "/", "/readyz?verbose"} {
		_, told[path] = p.get(t.Context(), path)
	}
	_, told["a list of effects"] = p.ask(t, token, http.MethodGet, "/api/v1/effects?limit=1000", "")
	for _, arguments := range []string{"config print", "config print -o json", "check", "check --set endpoints.good.headers.Pawl-X=hunter2", "run --set endpoints.good.timeout=x"} {
		stdout, stderr, _ := s.command(t, strings.Fields(arguments)...)
		told["processor "+arguments] = stdout + stderr
	}
	for where, text := range told {
		if text == "" || strings.Contains(text, "hunter2") {
			t.Errorf("%s tells the value of a header, or nothing:\n%s", where, text)
		}
	}
}

// newBadEffects writes the configuration of an application whose endpoints are the paths of the server.
func newBadEffects(t *testing.T, k *cluster.Kafka, dsn string, server *badServer) (_ *shop, token string) {
	t.Helper()
	application := testkit.Name(t, "app")
	folder := t.ArtifactDir()
	s := &shop{
		rig: &rig{
			t: t, kafka: k, application: application, deadLetter: application + ".dead-letter", folder: folder,
			config: filepath.Join(folder, "config.yaml"), token: filepath.Join(folder, "token"),
		},
		orders: application + ".orders", effects: application + ".effects",
	}
	s.client = testkit.Client(t, k.InternalBrokers())
	s.admin = kadm.NewClient(s.client)
	var endpoints strings.Builder
	for _, name := range []string{"payments", "good", "typed", "large", "redirects", "silent", "silent-once", "huge", "resets", "resets-once", "garbage", "says409", "says422", "says429", "says500"} {
		path := strings.TrimSuffix(name, "-once")
		fmt.Fprintf(&endpoints, "  %s: {url: \"%s/%s\", allow_private: true, timeout: 1s, attempts_max: %d, age_max: 30s, headers: {X-Plan: %s}, header_files: {Authorization: %q}}\n",
			name, server.URL, path, badAttempts, plainSecret, filepath.Join(folder, "authorization"))
	}
	token, secret := "a token for this test", filepath.Join(folder, "dsn")
	s.write(t, secret, dsn+"\n")
	s.write(t, filepath.Join(folder, "authorization"), "Bearer "+fileSecret+"\n")
	s.write(t, s.token, token+"\n")
	s.write(t, s.config, fmt.Sprintf(badEffectsConfiguration, application, strings.Join(quoted(k.Brokers()), ", "), endpoints.String(), secret, s.token))
	s.applyTopics(t, "--create-inputs", "1")
	return s, token
}

// showAll asks the program's own command for all effects, by their places; there are none before they are
// ingested.
func (s *shop) showAll(t *testing.T, effects []*badEffect) map[string]shownEffect {
	t.Helper()
	arguments := []string{"effects", "show", "-o", "json"}
	for _, e := range effects {
		arguments = append(arguments, e.place)
	}
	stdout, stderr, code := s.command(t, arguments...)
	if code != 0 {
		if !strings.Contains(stderr, "no such effect") {
			t.Fatalf("effects show: exit code %d: %s", code, stderr)
		}
		return nil
	}
	var shown []shownEffect
	if err := json.Unmarshal([]byte(stdout), &shown); err != nil {
		t.Fatal(err)
	}
	byPlace := map[string]shownEffect{}
	for _, e := range shown {
		byPlace[e.Effect] = e
	}
	return byPlace
}

func (e *badEffect) verify(t *testing.T, shown shownEffect, server *badServer) {
	t.Helper()
	calls := server.calls("/" + strings.TrimSuffix(e.endpoint, "-once"))
	switch {
	case e.attempts < 0 && (shown.Attempts < 1 || shown.Attempts > badAttempts):
		t.Errorf("it took %d attempts, want 1 to %d", shown.Attempts, badAttempts)
	case e.attempts > 0 && shown.Attempts != e.attempts:
		t.Errorf("it took %d attempts, want %d", shown.Attempts, e.attempts)
	}
	if len(calls) > 2*badAttempts { // of the two classes together
		t.Errorf("%d calls were made", len(calls))
	}
	said := len(e.errors) == 0
	for _, text := range e.errors {
		said = said || strings.Contains(shown.Error, text)
	}
	if !said || strings.ContainsAny(shown.Error, "\r\n\x1b\x00") {
		t.Errorf("the error is %q, want one of %q in one line", shown.Error, e.errors)
	}
	if e.check != nil {
		e.check(t, shown, calls)
	}
}

// ask asks the operations HTTP with the token.
func (p *processor) ask(t *testing.T, token, method, path, body string) (code int, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*askTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+p.admin+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(answer)
}

// mend is what an operator does over HTTP: looks at what is dead, page by page, sends some again once the
// endpoints are well, gives up one that nobody knows the endpoint of, and finds all that in the audit.
func mend(t *testing.T, s *shop, p *processor, token string, server *badServer, effects []*badEffect) {
	t.Helper()
	places := map[string]string{}
	for _, e := range effects {
		places[e.name] = e.place
	}
	if code, _ := p.get(t.Context(), "/api/v1/effects"); code != http.StatusUnauthorized {
		t.Errorf("without the token: status %d", code)
	}
	listed := map[string]bool{}
	for cursor := ""; ; {
		code, text := p.ask(t, token, http.MethodGet, "/api/v1/effects?state=dead&limit=2&cursor="+cursor, "")
		var page struct {
			Effects []shownEffect `json:"effects"`
			Next    string        `json:"next"`
		}
		if err := json.Unmarshal([]byte(text), &page); err != nil || code != http.StatusOK || len(page.Effects) == 0 {
			t.Fatalf("status %d: %s %v", code, text, err)
		}
		for _, e := range page.Effects {
			listed[e.Effect] = true
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if len(listed) != 9 || !listed[places["422"]] {
		t.Errorf("dead are %v, want 9", listed)
	}

	server.mu.Lock()
	server.mended = true
	server.mu.Unlock()
	before := len(server.calls("/says422"))
	order := func(name, action string, want int) {
		t.Helper()
		code, text := p.ask(t, token, http.MethodPost, "/api/v1/effects/"+places[name]+"/"+action, `{"reason": "it is mended", "actor": "anna"}`)
		if code != want {
			t.Errorf("%s %s: status %d, want %d: %s", action, name, code, want, text)
		}
	}
	order("422", "retry", http.StatusAccepted)
	order("unknown endpoint", "cancel", http.StatusAccepted)
	order("nothing", "retry", http.StatusConflict)
	show := func(name string) (shown shownEffect) {
		t.Helper()
		code, text := p.ask(t, token, http.MethodGet, "/api/v1/effects/"+places[name], "")
		if err := json.Unmarshal([]byte(text), &shown); err != nil || code != http.StatusOK {
			t.Fatalf("status %d: %s %v", code, text, err)
		}
		return shown
	}
	p.await(t, workTimeout, "the orders to be obeyed", func() bool {
		return show("422").State == "done" && show("unknown endpoint").State == "dead"
	})
	for name, action := range map[string]string{"422": "retry", "unknown endpoint": "cancel"} {
		shown := show(name)
		if len(shown.Audit) != 1 || shown.Audit[0].Action != action || shown.Audit[0].Actor != "anna@127.0.0.1" || shown.Audit[0].Reason != "it is mended" || shown.Audit[0].Result != "obeyed" {
			t.Errorf("the audit of %s is %+v", name, shown.Audit)
		}
		if shown.BodyBytes == 0 || len(shown.Body) > 0 {
			t.Errorf("%s is shown with its body, which nobody allowed: %q", name, shown.Body)
		}
	}
	calls := server.calls("/says422")
	if len(calls) != before+1 || calls[0].Get("Idempotency-Key") != calls[before].Get("Idempotency-Key") {
		t.Errorf("%d calls after the retry, want one more than %d, with the same key", len(calls), before)
	}
	if code, text := p.ask(t, token, http.MethodGet, "/api/v1/audit?since=1h&actor=anna@127.0.0.1", ""); code != http.StatusOK || strings.Count(text, `"obeyed"`) != 2 {
		t.Errorf("the audit is %d: %s", code, text)
	}
	if stdout, _, _ := s.command(t, "effects", "audit", "-o", "json"); strings.Count(stdout, `"obeyed"`) != 2 {
		t.Errorf("the command's audit is %s", stdout)
	}
}

// testLargeEffect lowers what the effects topic takes, so that an order's charge does not fit: the order is a dead
// letter, nothing of it is written or called, and later ones go on.
func testLargeEffect(t *testing.T, s *shop, p *processor) {
	t.Helper()
	s.limit(t, s.effects, 200)
	testkit.Produce(t, s.kafka.InternalBrokers(), &kgo.Record{Topic: s.orders, Key: []byte("customer-7"), Value: []byte(orderJSON("o-large", 1))})
	p.await(t, workTimeout, "a dead letter", func() bool {
		return p.metric("processor_dead_letter_records_total") == 1
	})
	s.limit(t, s.effects, 1<<20)
	letters := testkit.ReadCommitted(t, s.kafka.InternalBrokers(), s.deadLetter)
	if len(letters) != 1 || !strings.Contains(string(letters[0].Value), "o-large") {
		t.Errorf("dead letters are %v, want the order", letters)
	}
	if called := len(testkit.ReadCommitted(t, s.kafka.InternalBrokers(), s.effects)); called != len(badEffects()) {
		t.Errorf("%d effects are committed, want %d", called, len(badEffects()))
	}
	testkit.Produce(t, s.kafka.InternalBrokers(), &kgo.Record{Topic: s.orders, Key: []byte("customer-7"), Value: []byte(orderJSON("o-small", 1))})
	p.await(t, workTimeout, "the order after it", func() bool {
		return p.metric("processor_outbox_settled_effects_total", `sink="payments"`, `status="done"`) == 1
	})
}
