package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// process stands in for a running one.
type process struct {
	url    string
	listen string
	asked  chan asked
}

type asked struct{ method, path, authorization, body string }

func newProcess(t *testing.T, code int, kind, answer string) *process {
	t.Helper()
	p := &process{asked: make(chan asked, 8)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		p.asked <- asked{r.Method, r.URL.Path, r.Header.Get("Authorization"), string(body)}
		w.Header().Set("Content-Type", kind)
		if code == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(server.Close)
	p.url, p.listen = server.URL, strings.TrimPrefix(server.URL, "http://")
	return p
}

// wantNothing fails where the process was asked again.
func (p *process) wantNothing(t *testing.T) {
	t.Helper()
	select {
	case got := <-p.asked:
		t.Errorf("asked %+v", got)
	default:
	}
}

func tokenFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHealthcheckAsksLivezOrReadyz(t *testing.T) {
	t.Parallel()
	well := newProcess(t, http.StatusOK, "text/plain", "ok\n")
	for _, test := range []struct {
		args []string
		path string
	}{
		{[]string{"healthcheck", "--url", well.url}, "/livez"},
		{[]string{"healthcheck", "--url", well.url + "/", "--ready"}, "/readyz"},
	} {
		got := invoke(t, nil, test.args...)
		if got.code != 0 || got.stdout != "ok\n" {
			t.Errorf("%v: %+v", test.args, got)
		}
		if asked := <-well.asked; asked.method != http.MethodGet || asked.path != test.path {
			t.Errorf("%v: asked %+v", test.args, asked)
		}
	}
}

// In a container nothing but the environment is there, and maybe not even that is whole.
func TestHealthcheckNeedsNoFile(t *testing.T) {
	t.Parallel()
	well := newProcess(t, http.StatusOK, "text/plain", "ok\n")
	if got := invoke(t, []string{"PROCESSOR_ADMIN_LISTEN=" + well.listen}, "healthcheck"); got.code != 0 {
		t.Errorf("%+v", got)
	}
	if got := invoke(t, nil, "healthcheck", "--set", "admin.listen="+well.listen); got.code != 0 {
		t.Errorf("%+v", got)
	}
}

func TestHealthcheckSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	ill := newProcess(t, http.StatusServiceUnavailable, "text/plain", "[-]joined failed: no broker\nreadyz check failed\n")
	got := invoke(t, nil, "healthcheck", "--ready", "--url", ill.url)
	if got.code != 1 || !strings.Contains(got.stderr, "/readyz says 503: [-]joined failed: no broker") {
		t.Errorf("%+v", got)
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	if got := invoke(t, nil, "healthcheck", "--url", gone.URL); got.code != 1 || !strings.Contains(got.stderr, "refused") {
		t.Errorf("%+v", got)
	}
	got = invoke(t, []string{"PROCESSOR_ADMIN_LISTEN=" + strings.TrimPrefix(gone.URL, "http://")}, "healthcheck")
	if got.code != 1 || !strings.Contains(got.stderr, "refused; the configuration here has problems") {
		t.Errorf("%+v", got)
	}
	for _, bad := range []string{"localhost:9090", "ftp://x", "http://", "http://a b"} {
		if got := invoke(t, nil, "healthcheck", "--url", bad); got.code != 2 || !strings.Contains(got.stderr, "--url is") {
			t.Errorf("%s: %+v", bad, got)
		}
	}
}

// A process that accepts and never answers is not well.
func TestHealthcheckIsBoundedInTime(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	stuck := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(stuck.Close)
	t.Cleanup(func() { close(release) })
	got := invoke(t, nil, "healthcheck", "--url", stuck.URL, "--timeout", "50ms")
	if got.code != 1 || !strings.Contains(got.stderr, "deadline exceeded") {
		t.Errorf("%+v", got)
	}
}

func TestOperationsOfListenAddress(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{
		":9090":          "http://127.0.0.1:9090",
		"0.0.0.0:9090":   "http://127.0.0.1:9090",
		"[::]:9090":      "http://[::1]:9090",
		"10.0.0.7:80":    "http://10.0.0.7:80",
		"localhost:9090": "http://localhost:9090",
	} {
		got, err := operationsOf(listen)
		if err != nil || got.base.String() != want {
			t.Errorf("%s: %v, %v, want %s", listen, got.base, err, want)
		}
	}
	for listen, want := range map[string]string{"9090": "admin.listen", "127.0.0.1:0": "give --url"} {
		if _, err := operationsOf(listen); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", listen, err, want)
		}
	}
}

func TestDrainSendsTokenAndReason(t *testing.T) {
	t.Parallel()
	p := newProcess(t, http.StatusAccepted, "application/json", "{}")
	token := tokenFile(t, "secret-token\n")
	got := invoke(t, nil, "drain", "--leave", "--reason", " scale down ", "--url", p.url, "--token-file", token, "--yes")
	if got.code != 0 || got.stdout != "the drain has begun\n" {
		t.Fatalf("%+v", got)
	}
	asked := <-p.asked
	if asked.method != http.MethodPost || asked.path != "/api/v1/drain" || asked.authorization != "Bearer secret-token" {
		t.Errorf("asked %+v", asked)
	}
	var body drainRequest
	if err := json.Unmarshal([]byte(asked.body), &body); err != nil || body != (drainRequest{Leave: true, Reason: "scale down", Actor: newCLI(nil, nil, nil, nil).actor()}) {
		t.Errorf("body %s: %v", asked.body, err)
	}
	if strings.Contains(got.stdout+got.stderr, "secret-token") {
		t.Error("the token was printed")
	}
}

// In a roll an operator's program is of a later release than the process that it drains.
func TestDrainSpeaksToAnEarlierRelease(t *testing.T) {
	t.Parallel()
	var bodies []string
	older := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		bodies = append(bodies, string(body))
		if strings.Contains(string(body), "actor") {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"title":"Bad Request","status":400,"detail":"read body: json: unknown field \"actor\""}`)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(older.Close)
	got := invoke(t, nil, "drain", "--leave", "--reason", "a", "--url", older.URL, "--token-file", tokenFile(t, "x"), "--yes")
	if got.code != 0 || len(bodies) != 2 || !strings.Contains(bodies[1], `"leave":true,"reason":"a"`) {
		t.Errorf("%+v after %q", got, bodies)
	}
}

func TestDrainSaysWhyItWasRefused(t *testing.T) {
	t.Parallel()
	p := newProcess(t, http.StatusForbidden, "application/problem+json", `{"title":"Forbidden","status":403,"detail":"no token is configured"}`)
	got := invoke(t, nil, "drain", "--reason", "a", "--url", p.url, "--token-file", tokenFile(t, "x"), "--yes")
	if got.code != 1 || !strings.Contains(got.stderr, "says 403: no token is configured") {
		t.Errorf("%+v", got)
	}
}

// The token must not travel to wherever the answer points.
func TestDrainFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	p := newProcess(t, http.StatusFound, "text/plain", "")
	if got := invoke(t, nil, "drain", "--reason", "a", "--url", p.url, "--token-file", tokenFile(t, "x"), "--yes"); got.code != 1 {
		t.Errorf("%+v", got)
	}
	<-p.asked
	p.wantNothing(t)
}

func TestDrainChangesNothingUnlessTold(t *testing.T) {
	t.Parallel()
	p := newProcess(t, http.StatusAccepted, "application/json", "{}")
	token := tokenFile(t, "x")
	for name, test := range map[string]struct {
		args []string
		code int
		said string // on either stream
	}{
		"dry run":         {[]string{"--reason", "a", "--url", p.url, "--token-file", token, "--dry-run", "--leave"}, 0, "would drain " + p.url + " and make it leave the group"},
		"dry run as JSON": {[]string{"--reason", "a", "--url", p.url, "--token-file", token, "--dry-run", "-o", "json"}, 0, `"begun": false`},
		"nobody to ask":   {[]string{"--reason", "a", "--url", p.url, "--token-file", token}, 2, "--yes"},
		"no reason":       {[]string{"--url", p.url, "--token-file", token, "--yes"}, 2, "reason"},
		"empty reason":    {[]string{"--reason", " ", "--url", p.url, "--token-file", token, "--yes"}, 2, "--reason is empty"},
		"no token file":   {[]string{"--reason", "a", "--url", p.url, "--token-file", token + "x", "--yes"}, 2, "read token"},
		"empty token":     {[]string{"--reason", "a", "--url", p.url, "--token-file", tokenFile(t, " \n"), "--yes"}, 2, "is empty"},
		"no address":      {[]string{"--reason", "a", "--url", "localhost", "--token-file", token, "--yes"}, 2, "--url is"},
		"bad environment": {[]string{"--reason", "a", "--token-file", token, "--yes", "--set", "admin.nope=1"}, 2, "admin"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := invoke(t, nil, append([]string{"drain"}, test.args...)...)
			if got.code != test.code || !strings.Contains(got.stdout+got.stderr, test.said) {
				t.Errorf("%+v", got)
			}
			p.wantNothing(t)
		})
	}
}
