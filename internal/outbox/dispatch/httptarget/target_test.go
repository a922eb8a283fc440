package httptarget

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

func TestCallCarriesItsHeadersAndNothingElse(t *testing.T) {
	t.Parallel()
	r := receive(t, nil, nil)
	target := open(t, r.URL+"/charges?tenant=7", func(c *Config) {
		c.Headers = map[string]string{"authorization": "Bearer abc", "X-Shop": "9"}
	})
	if answer := send(t, target, call(nil)); answer.Err != nil || answer.Status != 200 || answer.Replays != 0 {
		t.Fatalf("answer: %+v", answer)
	}
	want := http.Header{
		"Authorization": {"Bearer abc"}, "X-Shop": {"9"}, "User-Agent": {"pawl"},
		"Idempotency-Key": {source.ID(1).String()}, "Pawl-Attempt": {"2"}, "Pawl-Fence": {"7"}, "Pawl-Order": {"5:1234"},
		"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, "Tracestate": {"a=1, b=2"}, "Content-Type": {"application/json"},
		"Content-Length": {strconv.Itoa(len(call(nil).Intent.Body))},
	}
	got := r.seen()
	if len(got) != 1 {
		t.Fatalf("%d calls arrived", len(got))
	}
	if diff := cmp.Diff(want, got[0].header); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	sameBytes(t, [][]byte{got[0].body}, call(nil).Intent.Body)
}

func TestConfiguredAgentReplacesOurs(t *testing.T) {
	t.Parallel()
	r := receive(t, nil, nil)
	target := open(t, r.URL, func(c *Config) { c.Headers = map[string]string{"user-agent": "shop/1"} })
	send(t, target, call(nil))
	if got := r.seen()[0].header["User-Agent"]; !cmp.Equal(got, []string{"shop/1"}) {
		t.Errorf("User-Agent: %q", got)
	}
}

// Attempts differ in their number and in nothing that a receiver compares.
func TestEveryAttemptHasTheSameKeyAndBytes(t *testing.T) {
	t.Parallel()
	for _, class := range []message.Class{message.AtLeastOnce, message.AtMostOnce} {
		t.Run(string(class), func(t *testing.T) {
			t.Parallel()
			r := receive(t, status(503), nil)
			target := open(t, r.URL, nil)
			for attempt := 1; attempt <= 4; attempt++ {
				answer := send(t, target, call(func(c *outbox.Call) { c.Attempt, c.Intent.Class = attempt, class }))
				if answer.Status != 503 {
					t.Fatalf("answer: %+v", answer)
				}
			}
			calls := r.seen()
			if len(calls) != 4 {
				t.Fatalf("%d calls arrived", len(calls))
			}
			for i, c := range calls {
				sameBytes(t, [][]byte{c.body}, call(nil).Intent.Body)
				if c.header.Get("Idempotency-Key") != source.ID(1).String() || c.header.Get("Pawl-Attempt") != strconv.Itoa(i+1) {
					t.Errorf("attempt %d: %v", i+1, c.header)
				}
			}
		})
	}
}

func TestEmptyBodyIsSentAsOne(t *testing.T) {
	t.Parallel()
	for _, class := range []message.Class{message.AtLeastOnce, message.AtMostOnce} {
		r := receive(t, nil, nil)
		answer := send(t, open(t, r.URL, nil), call(func(c *outbox.Call) { c.Intent.Body, c.Intent.Class = nil, class }))
		if answer.Err != nil || r.seen()[0].header.Get("Content-Length") != "0" {
			t.Errorf("%s: %+v %v", class, answer, r.seen())
		}
	}
}

// The handler's content type comes from its input perhaps. A line break in it would begin a header of
// the sender's choice.
func TestContentTypeThatInjectsAHeaderIsNotSent(t *testing.T) {
	t.Parallel()
	r := receive(t, nil, nil)
	target := open(t, r.URL, nil)
	for _, content := range []string{"a/b\r\nPawl-Fence: 99", "a/b\nX: y", "a/b\x00", " a/b", "a/b\x7f"} {
		answer := send(t, target, call(func(c *outbox.Call) { c.Intent.ContentType = content }))
		if answer.Err == nil || answer.Sent || !answer.Hopeless || strings.Contains(answer.Err.Error(), "a/b") {
			t.Errorf("content type %q: %+v", content, answer)
		}
	}
	if got := r.seen(); len(got) != 0 {
		t.Errorf("%d calls arrived", len(got))
	}
}

// The input's sender wrote the traceparent. One that is none is left out; the call is made.
func TestTraceThatIsNoneIsLeftOut(t *testing.T) {
	t.Parallel()
	r := receive(t, nil, nil)
	target := open(t, r.URL, nil)
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for trace, sent := range map[string]bool{
		good: true, "cc" + good[2:] + "-more": true,
		"": false, good + "-more": false, good[:54]: false, "ff" + good[2:]: false, strings.ToUpper(good): false,
		"cc" + good[2:] + "-a\r\nX: y": false, "cc" + good[2:] + "+": false, good[:53] + "\r\n": false, good[:35] + "_" + good[36:]: false,
	} {
		before := len(r.seen())
		if answer := send(t, target, call(func(c *outbox.Call) { c.Intent.Trace = trace })); answer.Err != nil {
			t.Fatalf("trace %q: %+v", trace, answer)
		}
		header := r.seen()[before].header
		if got := header["Traceparent"]; sent != (len(got) == 1 && got[0] == trace) || sent != (header.Get("Tracestate") != "") || header.Get("X") != "" {
			t.Errorf("trace %q: sent %q and state %q", trace, got, header["Tracestate"])
		}
	}
}

func TestStatusIsToldAsItIs(t *testing.T) {
	t.Parallel()
	for _, code := range []int{200, 201, 204, 400, 401, 404, 409, 410, 422, 429, 500, 503, 599} {
		r := receive(t, status(code), nil)
		answer := send(t, open(t, r.URL, nil), call(nil))
		want := outbox.Answer{Status: code, Sent: true, Response: &outbox.Response{ContentType: "text/plain", Body: []byte("said")}}
		if code == 204 {
			want.Response.Body = nil
		}
		if diff := cmp.Diff(want, answer); diff != "" {
			t.Errorf("status %d (-want +got):\n%s", code, diff)
		}
	}
}

// The other server stands for what only this service can reach. A client that follows would carry our
// headers and, with 307 and 308, the body there.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	private := receive(t, nil, nil)
	for _, class := range []message.Class{message.AtLeastOnce, message.AtMostOnce} {
		for _, code := range []int{301, 302, 303, 307, 308} {
			r := receive(t, func(w http.ResponseWriter, q *http.Request) { http.Redirect(w, q, private.URL, code) }, nil)
			answer := send(t, open(t, r.URL, nil), call(func(c *outbox.Call) { c.Intent.Class = class }))
			if answer.Status != code || answer.Err != nil || len(r.seen()) != 1 {
				t.Errorf("%s, status %d: %+v, %d calls", class, code, answer, len(r.seen()))
			}
		}
	}
	if private.connections() != 0 {
		t.Errorf("%d connections were opened to where the redirects lead", private.connections())
	}
}

// A proxy would dial in our place, and no guard checks where to.
func TestNoProxyOfTheEnvironmentIsUsed(t *testing.T) { // not parallel: it changes the environment
	proxy, r := receive(t, nil, nil), receive(t, nil, nil)
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	target := open(t, "http://pay.example:"+port(t, r.URL), nil)
	target.pool.dialer.Resolver = resolve(t, "127.0.0.1") // a proxy is never used for what looks local
	if answer := send(t, target, call(nil)); answer.Status != 200 {
		t.Fatalf("answer: %+v", answer)
	}
	if proxy.connections() != 0 || len(r.seen()) != 1 {
		t.Errorf("%d connections to the proxy, %d calls to the endpoint", proxy.connections(), len(r.seen()))
	}
}

func TestEndpointThatNeverAnswersCostsTheTimeoutAndMayHaveBeenCalled(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	r := receive(t, func(http.ResponseWriter, *http.Request) { <-release }, nil)
	t.Cleanup(func() { close(release) })
	for _, class := range []message.Class{message.AtLeastOnce, message.AtMostOnce} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		answer := open(t, r.URL, nil).Send(ctx, call(func(c *outbox.Call) { c.Intent.Class = class }))
		cancel()
		check(t, answer)
		if !errors.Is(answer.Err, context.DeadlineExceeded) || !answer.Sent || answer.Err.Error() != "no answer in time" {
			t.Errorf("%s: %+v", class, answer)
		}
	}
}

func TestNothingWasSentWhereThereWasNoConnection(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close() // nobody listens there now
	untrusted := receive(t, nil, func(s *httptest.Server) {
		s.TLS = &tls.Config{}
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	})
	plain := receive(t, nil, func(s *httptest.Server) { s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0) })
	for _, c := range []struct{ name, url, want string }{
		{"connection refused", "http://" + listener.Addr().String(), "connection refused"},
		{"certificate of nobody we trust", untrusted.URL, "certificate"},
		{"no TLS", "https" + strings.TrimPrefix(plain.URL, "http"), "does not look like a TLS handshake"},
	} {
		for _, class := range []message.Class{message.AtLeastOnce, message.AtMostOnce} {
			answer := send(t, open(t, c.url, nil), call(func(c *outbox.Call) { c.Intent.Class = class }))
			if answer.Err == nil || answer.Sent || !strings.Contains(answer.Err.Error(), c.want) {
				t.Errorf("%s, %s: %+v", c.name, class, answer)
			}
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if answer := open(t, plain.URL, nil).Send(cancelled, call(nil)); answer.Err == nil || answer.Sent || answer.Err.Error() != "the call was cancelled" {
		t.Errorf("cancelled before: %+v", answer)
	}
	if len(untrusted.seen())+len(plain.seen()) != 0 {
		t.Error("a call arrived")
	}
}

// A server may close a connection that it kept for us just when we use it: the request is there, the
// answer isn't, and nobody knows.
func TestReplayIsCountedAndCarriesTheSameBytes(t *testing.T) {
	t.Parallel()
	var resets atomic.Int32
	r := serveRaw(t, func(conn *net.TCPConn, connection, request int) bool {
		if connection == 0 && request == 1 {
			resets.Add(1)
			return reset(conn)
		}
		return say(conn, fine)
	})
	target := open(t, r.url, nil)
	if first := send(t, target, call(nil)); first.Err != nil || first.Replays != 0 {
		t.Fatalf("first: %+v", first)
	}
	second := send(t, target, call(nil))
	if second.Status != 200 || second.Replays != 1 || !second.Sent {
		t.Errorf("second: %+v", second)
	}
	if got := r.bodies(); len(got) != 3 || resets.Load() != 1 {
		t.Errorf("%d transmissions, %d resets; want 3 and 1", len(got), resets.Load())
	}
	sameBytes(t, r.bodies(), call(nil).Intent.Body)
}

// The same server, and a call that may be made once: it gets no connection that was used before, and
// no second one.
func TestAtMostOnceCallIsNeverReplayed(t *testing.T) {
	t.Parallel()
	for _, body := range [][]byte{[]byte("once"), nil} {
		var resets atomic.Int32
		r := serveRaw(t, func(conn *net.TCPConn, connection, request int) bool {
			if connection >= 1 || request >= 1 {
				resets.Add(1)
				return reset(conn)
			}
			return say(conn, fine)
		})
		target := open(t, r.url, nil)
		// The first call leaves a connection behind that could be reused; the second may not use it.
		if first := send(t, target, call(func(c *outbox.Call) { c.Intent.Body = body })); first.Err != nil {
			t.Fatalf("first: %+v", first)
		}
		second := send(t, target, call(func(c *outbox.Call) { once(c); c.Intent.Body = body }))
		if second.Err == nil || !second.Sent || second.Replays != 0 {
			t.Errorf("second: %+v", second)
		}
		if got := r.bodies(); len(got) != 2 || resets.Load() != 1 {
			t.Errorf("%d transmissions, %d resets; want 2 and 1", len(got), resets.Load())
		}
	}
}

func TestAtMostOnceCallsHaveConnectionsOfTheirOwn(t *testing.T) {
	t.Parallel()
	r := receive(t, nil, nil)
	target := open(t, r.URL, nil)
	for range 3 {
		if answer := send(t, target, call(once)); answer.Err != nil {
			t.Fatalf("answer: %+v", answer)
		}
	}
	if got := r.connections(); got != 3 {
		t.Errorf("%d connections for 3 calls", got)
	}
}

// An unknown class comes from a newer release perhaps: it is treated as the one that must not be risked.
func TestUnknownClassIsNeverReplayed(t *testing.T) {
	t.Parallel()
	r := receive(t, nil, nil)
	target := open(t, r.URL, nil)
	for range 2 {
		send(t, target, call(func(c *outbox.Call) { c.Intent.Class = "twice-at-most" }))
	}
	if got := r.connections(); got != 2 {
		t.Errorf("%d connections for 2 calls", got)
	}
}

func TestConnectionsAreReusedAndNoMoreThanTheConcurrency(t *testing.T) {
	t.Parallel()
	const workers, calls = 8, 50
	r := receive(t, status(200), nil)
	target := open(t, r.URL, func(c *Config) { c.Concurrency = workers })
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for range calls {
				ctx, cancel := context.WithTimeout(t.Context(), wait)
				if answer := target.Send(ctx, call(nil)); answer.Status != 200 {
					t.Errorf("answer: %+v", answer)
				}
				cancel()
			}
		})
	}
	running.Wait()
	if got := r.connections(); got > workers {
		t.Errorf("%d connections for %d workers", got, workers)
	}
}

// An endpoint that moves by DNS is noticed even where its old connections are never idle.
func TestConnectionsAreRotated(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{}, 2)
	r := receive(t, nil, func(s *httptest.Server) {
		count := s.Config.ConnState
		s.Config.ConnState = func(conn net.Conn, state http.ConnState) {
			count(conn, state)
			if state == http.StateClosed {
				closed <- struct{}{}
			}
		}
	})
	target := open(t, r.URL, nil)
	send(t, target, call(nil))
	send(t, target, call(nil))
	if got := r.connections(); got != 1 {
		t.Fatalf("%d connections before the rotation", got)
	}
	target.pool.rotate = 0
	send(t, target, call(nil))
	<-closed // the old one, for it has no call
	target.pool.rotate = time.Hour
	send(t, target, call(nil))
	if got := r.connections(); got != 2 {
		t.Errorf("%d connections after one rotation", got)
	}
}

// A receiver that prefers HTTP/2 is offered HTTP/1.1 only, whatever the class.
func TestTLSCarriesHTTP1AndVerifiesTheHost(t *testing.T) {
	t.Parallel()
	r := receive(t, nil, func(s *httptest.Server) {
		s.EnableHTTP2 = true
		s.TLS = &tls.Config{}
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	})
	target := open(t, r.URL, nil)
	trust(target, r)
	for _, c := range []outbox.Call{call(nil), call(nil), call(once)} {
		if answer := send(t, target, c); answer.Status != 200 || answer.Replays != 0 {
			t.Fatalf("answer: %+v", answer)
		}
	}
	calls := r.seen()
	if calls[0].proto != "HTTP/1.1" || calls[1].from != calls[0].from || calls[2].proto != "HTTP/1.1" || calls[2].from == calls[0].from {
		t.Errorf("calls: %+v", calls)
	}
	sameBytes(t, [][]byte{calls[0].body, calls[1].body, calls[2].body}, call(nil).Intent.Body)

	other := open(t, "https://pay.example:"+port(t, r.URL), nil)
	trust(other, r) // whom it names are example.com and 127.0.0.1
	other.pool.dialer.Resolver = resolve(t, "127.0.0.1")
	if answer := send(t, other, call(nil)); answer.Err == nil || answer.Sent || !strings.Contains(answer.Err.Error(), "certificate is valid for") {
		t.Errorf("another host's certificate: %+v", answer)
	}
	if got := len(r.seen()); got != 3 {
		t.Errorf("%d calls arrived, want 3", got)
	}
}

// trust makes a target believe a receiver's certificate.
func trust(target *Target, r *receiver) {
	target.pool.tls.RootCAs = x509.NewCertPool()
	target.pool.tls.RootCAs.AddCert(r.Certificate())
}

func TestClosedTargetSendsNothing(t *testing.T) {
	t.Parallel()
	r := receive(t, nil, nil)
	target := open(t, r.URL, nil)
	target.Close()
	target.Close()
	if answer := send(t, target, call(nil)); answer.Err == nil || answer.Sent || r.connections() != 0 {
		t.Errorf("answer: %+v, %d connections", answer, r.connections())
	}
}

func TestProblemsOfTheConfigurationComeAllAtOnceAndQuoteNoSecret(t *testing.T) {
	t.Parallel()
	_, err := New(Config{
		URL:         "https://user:hunter2@pay.example/",
		Headers:     map[string]string{"Authorization": "hunter2\r\n", "Pawl-Fence": "hunter2", "bad name": "hunter2"},
		SecretFiles: []string{"testdata/none", "testdata/none2"},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"the URL has a user", "header Authorization: the value", "header Pawl-Fence is not yours", `"bad name"`, "concurrency is 0", "testdata/none:", "testdata/none2:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("lacks %q:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("quotes a secret:\n%v", err)
	}
}

func TestURLsThatNameNoEndpointAreRefused(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"", "pay.example", "ftp://pay.example", "http://", "https:///charges", "http://:80/", "http://a/#part", "http://a b/", "http://u@a/",
		"http://bücher.example/", "http://a<b/", "http://a,b/", "http://a/?b c", "http://a/?b\r\nX: y", "http://a/b\nc", "http://a%0ab/", "http://[fe80::1%25%0a]/",
	} {
		if _, err := New(Config{URL: bad, Concurrency: 1, AllowPrivate: true}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	for _, private := range []string{
		"http://localhost/", "http://LOCALHOST.:80/", "http://a.localhost/", "http://127.0.0.1/", "http://[::1]:8080/", "http://10.1.2.3/",
		"http://169.254.169.254/latest", "http://[::ffff:10.0.0.1]/", "http://[fe80::1%25eth0]/",
	} {
		if _, err := New(Config{URL: private, Concurrency: 1}); err == nil {
			t.Errorf("%q is accepted without AllowPrivate", private)
		}
		if _, err := New(Config{URL: private, Concurrency: 1, AllowPrivate: true}); err != nil {
			t.Errorf("%q with AllowPrivate: %v", private, err)
		}
	}
}

// Whatever prints a target or its configuration, no credential is in it.
func TestNothingPrintsCredentials(t *testing.T) {
	t.Parallel()
	token := filepath.Join(t.TempDir(), "token")
	write(t, token, "hunter2")
	conf := Config{
		URL: "https://pay.example/charges?token=hunter2", Headers: map[string]string{"Authorization": "hunter2"},
		HeaderFiles: map[string]string{"X-Token": token},
		SecretFiles: []string{secretFile1(t, "hunter2-hunter2-hunter2-hunter2")}, Concurrency: 1,
	}
	target, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, thing := range []any{conf, &conf, target, struct{ C Config }{conf}, struct{ T *Target }{target}} {
			fmt.Fprintf(&printed, verb+"\n", thing)
		}
	}
	slog.New(slog.NewJSONHandler(&printed, nil)).Info("said", slog.Any("conf", conf), slog.Any("target", target), slog.Any("both", []any{conf, &conf}))
	slog.New(slog.NewTextHandler(&printed, nil)).Info("said", slog.Any("conf", conf), slog.Any("target", target))
	for _, secret := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), fmt.Sprintf("%X", "hunter2")} {
		if strings.Contains(printed.String(), secret) {
			t.Errorf("%s was printed:\n%s", secret, printed.String())
		}
	}
	if !strings.Contains(printed.String(), "POST https://pay.example/charges [Authorization X-Token]") {
		t.Errorf("the address was not printed:\n%s", printed.String())
	}
}

func port(t *testing.T, url string) string {
	t.Helper()
	_, number, err := net.SplitHostPort(strings.TrimPrefix(strings.TrimPrefix(url, "http://"), "https://"))
	if err != nil {
		t.Fatal(err)
	}
	return number
}
