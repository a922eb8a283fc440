package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"pawl/internal/faults"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "correct-horse-battery"

// site is a server under test with everything it did.
type site struct {
	*Server
	log    *safeBuffer
	drains chan Drain
}

type safeBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func passes(context.Context) error { return nil }

func fails(text string) func(context.Context) error {
	return func(context.Context) error { return errors.New(text) }
}

// open makes a server whose facts are all well, then lets change spoil some of them.
func open(t *testing.T, change func(*Config)) *site {
	t.Helper()
	tokenFile := filepath.Join(t.TempDir(), "token")
	writeFile(t, tokenFile, token+"\n")
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewCounterFunc(
		prometheus.CounterOpts{Name: "things_total", Help: "Things."}, func() float64 { return 3 }))
	s := &site{log: &safeBuffer{}, drains: make(chan Drain, 8)}
	config := Config{
		Listen:      "127.0.0.1:0",
		TokenFile:   tokenFile,
		Application: "orders",
		Instance:    "orders-0",
		Version:     map[string]string{"version": "1.2.3"},
		Metrics:     registry,
		Log:         slog.New(slog.NewTextHandler(s.log, nil)),
		Live:        []Check{{Name: "loop", Probe: passes}},
		Ready:       []Check{{Name: "joined", Probe: passes}, {Name: "preflight", Probe: passes}},
		Started:     []Check{{Name: "config", Probe: passes}},
		Status: func(context.Context) (any, error) {
			return map[string]any{"lanes": []int{0, 1}}, nil
		},
		View: func(context.Context) (any, error) { return map[string]any{"since": "then"}, nil },
		Drain: func(_ context.Context, drain Drain) error {
			s.drains <- drain
			return nil
		},
	}
	if change != nil {
		change(&config)
	}
	server, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	s.Server = server
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *site) do(t *testing.T, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	recorder := httptest.NewRecorder()
	s.http.Handler.ServeHTTP(recorder, request)
	return recorder
}

func (s *site) get(t *testing.T, target string) *httptest.ResponseRecorder {
	t.Helper()
	return s.do(t, http.MethodGet, target, "")
}

func wantProblem(t *testing.T, answer *httptest.ResponseRecorder, code int, part string) {
	t.Helper()
	if answer.Code != code {
		t.Errorf("status %d, want %d; body %s", answer.Code, code, answer.Body)
	}
	if kind := answer.Header().Get("Content-Type"); kind != "application/problem+json" {
		t.Errorf("content type %q is no problem", kind)
	}
	var got problem
	if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, answer.Body)
	}
	if got.Type != "about:blank" || got.Status != code || got.Title != http.StatusText(code) {
		t.Errorf("problem %+v does not say status %d", got, code)
	}
	if !strings.Contains(got.Detail, part) {
		t.Errorf("detail %q does not speak of %q", got.Detail, part)
	}
}

func TestEndpointsAnswer(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	for _, test := range []struct{ target, kind, part string }{
		{"/metrics", "text/plain", "things_total 3"},
		{"/livez", "text/plain", "ok\n"},
		{"/readyz", "text/plain", "ok\n"},
		{"/startupz", "text/plain", "ok\n"},
		{"/version", "application/json", `"version": "1.2.3"`},
		{"/api/v1/status", "application/json", `"lanes"`},
		{"/api/v1/view", "application/json", `"view":{"since":"then"}`},
		{"/", "text/html", "orders-0"},
	} {
		answer := s.get(t, test.target)
		if answer.Code != http.StatusOK {
			t.Errorf("%s: status %d", test.target, answer.Code)
		}
		if kind := answer.Header().Get("Content-Type"); !strings.HasPrefix(kind, test.kind) {
			t.Errorf("%s: content type %q, want %q", test.target, kind, test.kind)
		}
		if !strings.Contains(answer.Body.String(), test.part) {
			t.Errorf("%s: %q has no %q", test.target, answer.Body, test.part)
		}
		if answer.Header().Get("Cache-Control") != "no-store" || answer.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers %v", test.target, answer.Header())
		}
	}
}

func TestMetricsSpeakOpenMetrics(t *testing.T) {
	t.Parallel()
	answer := open(t, nil).do(t, http.MethodGet, "/metrics", "", "Accept", "application/openmetrics-text; version=1.0.0")
	if kind := answer.Header().Get("Content-Type"); !strings.HasPrefix(kind, "application/openmetrics-text") {
		t.Errorf("content type %q", kind)
	}
	if !strings.HasSuffix(answer.Body.String(), "# EOF\n") {
		t.Errorf("no end of an OpenMetrics text: %q", answer.Body)
	}
}

// A collector that fails must not take the other metrics with it.
func TestMetricsSurviveABrokenCollector(t *testing.T) {
	t.Parallel()
	s := open(t, func(c *Config) {
		registry := prometheus.NewRegistry()
		registry.MustRegister(
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "well", Help: "Well."}, func() float64 { return 1 }),
			brokenCollector{})
		c.Metrics = registry
	})
	if answer := s.get(t, "/metrics"); answer.Code != http.StatusOK || !strings.Contains(answer.Body.String(), "well 1") {
		t.Errorf("status %d, body %q", answer.Code, answer.Body)
	}
	if !strings.Contains(s.log.String(), "pipe burst") {
		t.Errorf("log %q does not name the failure", s.log)
	}
}

type brokenCollector struct{}

func (brokenCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- prometheus.NewDesc("broken", "Broken.", nil, nil)
}

func (brokenCollector) Collect(metrics chan<- prometheus.Metric) {
	metrics <- prometheus.NewInvalidMetric(prometheus.NewDesc("broken", "Broken.", nil, nil), errors.New("pipe burst"))
}

func TestUnknownPathsAndMethodsAreProblems(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	wantProblem(t, s.get(t, "/nope"), http.StatusNotFound, "/nope")
	wantProblem(t, s.get(t, "//nope"), http.StatusNotFound, "nope")
	wantProblem(t, s.get(t, "/api/v2/status"), http.StatusNotFound, "/api/v2/status")
	answer := s.get(t, "/api/v1/drain")
	wantProblem(t, answer, http.StatusMethodNotAllowed, "takes POST")
	if answer.Header().Get("Allow") != "POST" {
		t.Errorf("Allow is %q", answer.Header().Get("Allow"))
	}
	wantProblem(t, s.do(t, http.MethodDelete, "/metrics", ""), http.StatusMethodNotAllowed, "GET")
}

func TestStatusErrorIsAProblem(t *testing.T) {
	t.Parallel()
	s := open(t, func(c *Config) {
		c.Status = func(context.Context) (any, error) { return nil, errors.New("engine is not there yet") }
	})
	wantProblem(t, s.get(t, "/api/v1/status"), http.StatusServiceUnavailable, "engine is not there yet")
	s = open(t, func(c *Config) {
		c.Status = func(context.Context) (any, error) { return func() {}, nil }
	})
	wantProblem(t, s.get(t, "/api/v1/status"), http.StatusInternalServerError, "no JSON")
}

func TestProfilesAreServedOnlyWhereAsked(t *testing.T) {
	t.Parallel()
	off := open(t, nil)
	wantProblem(t, off.get(t, "/debug/pprof/"), http.StatusNotFound, "/debug/pprof/")
	if strings.Contains(off.get(t, "/").Body.String(), "pprof") {
		t.Error("the page links to profiles that are not served")
	}
	on := open(t, func(c *Config) { c.Profiling = true })
	if answer := on.get(t, "/debug/pprof/goroutine?debug=1"); answer.Code != http.StatusOK {
		t.Errorf("status %d", answer.Code)
	}
	if !strings.Contains(on.get(t, "/").Body.String(), "/debug/pprof/") {
		t.Error("the page has no link to the profiles")
	}
	// The command line may hold a secret.
	if answer := on.get(t, "/debug/pprof/cmdline"); answer.Code != http.StatusNotFound {
		t.Errorf("cmdline: status %d, body %q", answer.Code, answer.Body)
	}
}

func TestPageEscapesWhatItShows(t *testing.T) {
	t.Parallel()
	s := open(t, func(c *Config) {
		c.Instance = "<script>x</script>"
		c.Ready = []Check{{Name: "preflight", Probe: fails("topic <b> is missing: run processor topics apply")}}
	})
	body := s.get(t, "/").Body.String()
	if strings.Contains(body, "<script>x") || strings.Contains(body, "<b>") {
		t.Errorf("unescaped: %s", body)
	}
	if !strings.Contains(body, "failed: topic &lt;b&gt; is missing: run processor topics apply") {
		t.Errorf("the failing check is not shown: %s", body)
	}
}

func TestOpenRefusesIncompleteConfig(t *testing.T) {
	t.Parallel()
	_, err := Open(t.Context(), Config{
		Ready: []Check{{Name: "joined", Probe: passes}, {Name: "joined", Probe: passes}, {Name: "empty"}},
	})
	if err == nil {
		t.Fatal("opened")
	}
	for _, part := range []string{"no source of metrics", "no logger", "status", "view", "drain", `"joined" is there twice`, `"empty" is incomplete`} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

func TestOpenSaysThatThePortIsTaken(t *testing.T) {
	t.Parallel()
	first := open(t, nil)
	config := first.config
	config.Listen = first.Addr().String()
	_, err := Open(t.Context(), config)
	if err == nil || !strings.Contains(err.Error(), "admin.listen") {
		t.Errorf("error %v does not name the setting", err)
	}
}

func TestRunServesUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()

	body := fetch(t, "http://"+s.Addr().String()+"/livez")
	if body != "ok\n" {
		t.Errorf("body %q", body)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close after Run: %v", err)
	}
}

// An answer in flight when the context ends is still given.
func TestRunFinishesAnswersInFlight(t *testing.T) {
	t.Parallel()
	asked, answer := make(chan struct{}), make(chan struct{})
	s := open(t, func(c *Config) {
		c.Status = func(ctx context.Context) (any, error) {
			close(asked)
			<-answer
			return "whole", ctx.Err()
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	body := make(chan string, 1)
	go func() { body <- fetch(t, "http://"+s.Addr().String()+"/api/v1/status") }()
	<-asked
	cancel()
	close(answer)
	if got := <-body; got != "\"whole\"\n" {
		t.Errorf("body %q", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestRunWithAnEndedContextReturnsAtOnce(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestRunReturnsTheErrorOfItsListener(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("no error from a closed listener")
	}
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Error(err)
		return ""
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		t.Error(err)
		return ""
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Error(err)
	}
	return string(body)
}

// Of two processes on one host the second must say which setting to change.
func TestPortInUseIsTold(t *testing.T) {
	t.Parallel()
	first := open(t, nil)
	config := first.config
	config.Listen = first.Addr().String()
	second, err := Open(t.Context(), config)
	if err == nil {
		t.Fatal(errors.Join(errors.New("both listen"), second.Close()))
	}
	faults.Shows(t, "port-in-use", err.Error())
}
