package admin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// fakeEffects answers with what it was asked.
type fakeEffects struct {
	err     error
	entered chan struct{} // where it is set: told when List begins, which then waits for its context
}

type heard struct {
	What   string
	Effect string
	Query  url.Values
	Detail bool
	Order  Order
}

func (f fakeEffects) List(ctx context.Context, query url.Values) (any, error) {
	if f.entered != nil {
		f.entered <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return heard{What: "list", Query: query}, f.err
}

func (f fakeEffects) Show(_ context.Context, effect string, contents bool) (any, error) {
	return heard{What: "show", Effect: effect, Detail: contents}, f.err
}

func (f fakeEffects) Order(_ context.Context, effect, action string, order Order) (any, error) {
	return heard{What: action, Effect: effect, Order: order}, f.err
}

func (f fakeEffects) Audit(_ context.Context, query url.Values) (any, error) {
	return heard{What: "audit", Query: query}, f.err
}

func withEffects(f fakeEffects) func(*Config) {
	return func(c *Config) { c.Effects, c.Contents = f, true }
}

func (s *site) ask(t *testing.T, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	return s.do(t, method, path, body, "Content-Type", "application/json", "Authorization", "Bearer "+token)
}

func TestEffectsAreAskedForAndOrdered(t *testing.T) {
	t.Parallel()
	s := open(t, withEffects(fakeEffects{}))
	for _, test := range []struct {
		method, path, body string
		code               int
		want               []string
	}{
		{"GET", "/api/v1/effects?state=dead&limit=3", "", 200, []string{`"What": "list"`, `"dead"`, `"limit"`}},
		{"GET", "/api/v1/effects/3:42", "", 200, []string{`"What": "show"`, `"Effect": "3:42"`, `"Detail": false`}},
		{"GET", "/api/v1/effects/3:42?contents=true", "", 200, []string{`"Detail": true`}},
		{"GET", "/api/v1/audit?actor=ann", "", 200, []string{`"What": "audit"`, `"ann"`}},
		{"POST", "/api/v1/effects/3:42/retry", `{"reason": " bank is back ", "actor": "ann"}`, 202, []string{`"What": "retry"`, `"reason": "bank is back"`, `"actor": "ann@192.0.2.1"`}},
		{"POST", "/api/v1/effects/3:42/cancel", `{"reason": "by phone"}`, 202, []string{`"What": "cancel"`, `"actor": "api@192.0.2.1"`}},
	} {
		answer := s.ask(t, test.method, test.path, test.body)
		if answer.Code != test.code {
			t.Errorf("%s %s: status %d: %s", test.method, test.path, answer.Code, answer.Body)
		}
		for _, part := range test.want {
			if !strings.Contains(answer.Body.String(), part) {
				t.Errorf("%s %s: %s, want %s in it", test.method, test.path, answer.Body, part)
			}
		}
	}
	for _, part := range []string{"admin action accepted", "action=retry", "effect=3:42", `reason="bank is back"`, "actor=ann@192.0.2.1", "contents of an effect were shown"} {
		if !strings.Contains(s.log.String(), part) {
			t.Errorf("no %q in the log: %s", part, s.log)
		}
	}
}

// Keys and errors are somebody's data: nothing of the ledger is told without the token.
func TestEffectsNeedTheToken(t *testing.T) {
	t.Parallel()
	s := open(t, withEffects(fakeEffects{}))
	none := open(t, func(c *Config) { withEffects(fakeEffects{})(c); c.TokenFile = "" })
	for path, method := range map[string]string{
		"/api/v1/effects": "GET", "/api/v1/effects/3:42": "GET", "/api/v1/audit": "GET",
		"/api/v1/effects/3:42/retry": "POST", "/api/v1/effects/3:42/cancel": "POST",
	} {
		for _, authorization := range []string{"", "Bearer wrong", token} {
			answer := s.do(t, method, path, `{"reason": "a"}`, "Content-Type", "application/json", "Authorization", authorization)
			wantProblem(t, answer, http.StatusUnauthorized, "Authorization: Bearer")
		}
		wantProblem(t, none.ask(t, method, path, `{"reason": "a"}`), http.StatusForbidden, "admin.token_file")
	}
}

func TestEffectsRefuseWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := open(t, withEffects(fakeEffects{}))
	hidden := open(t, func(c *Config) { c.Effects = fakeEffects{} })
	missing := open(t, withEffects(fakeEffects{err: &Problem{http.StatusNotFound, "the ledger has no such effect"}}))
	away := open(t, withEffects(fakeEffects{err: errors.New("connection refused")}))
	long := strings.Repeat("é", 201)
	for _, test := range []struct {
		site               *site
		method, path, body string
		code               int
		part               string
	}{
		{open(t, nil), "GET", "/api/v1/effects", "", 404, "has no effect ledger"},
		{hidden, "GET", "/api/v1/effects/3:42?contents=true", "", 403, "admin.contents"},
		{s, "GET", "/api/v1/effects/3:42?contents=yes", "", 400, "contents=true"},
		{s, "GET", "/api/v1/effects/3:42?body=true", "", 400, "contents=true"},
		{missing, "GET", "/api/v1/effects/3:42", "", 404, "no such effect"},
		{missing, "POST", "/api/v1/effects/3:42/retry", `{"reason": "a"}`, 404, "no such effect"},
		{away, "GET", "/api/v1/effects", "", 503, "the ledger cannot be asked: connection refused"},
		{away, "GET", "/api/v1/audit", "", 503, "connection refused"},
		{s, "POST", "/api/v1/effects/3:42/explode", `{"reason": "a"}`, 404, "retry and cancel"},
		{s, "POST", "/api/v1/effects/3:42/retry", `{}`, 422, "reason is empty"},
		{s, "POST", "/api/v1/effects/3:42/retry", `{"reason": "` + long + `"}`, 422, "200 characters"},
		{s, "POST", "/api/v1/effects/3:42/retry", `{"reason": "a", "actor": "` + long + `"}`, 422, "100 characters"},
		{s, "POST", "/api/v1/effects/3:42/retry", `{"reason": "a", "actor": "a\u001b[2J"}`, 422, "actor"},
		{s, "POST", "/api/v1/effects/3:42/retry", `{"reason": "a", "raeson": "b"}`, 400, "raeson"},
		{s, "DELETE", "/api/v1/effects/3:42", "", 405, "takes"},
	} {
		wantProblem(t, test.site.ask(t, test.method, test.path, test.body), test.code, test.part)
	}
	if !strings.Contains(missing.log.String(), "admin action refused") {
		t.Errorf("no audit line of an order that was refused: %s", missing.log)
	}
	answer := s.do(t, "POST", "/api/v1/effects/3:42/retry", "reason=a", "Authorization", "Bearer "+token, "Content-Type", "application/x-www-form-urlencoded")
	wantProblem(t, answer, http.StatusUnsupportedMediaType, "application/json")
}

// Whoever asks much must not take the ledger's connections from those who make the calls.
func TestEffectsAnswerFewAtOnce(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	s := open(t, withEffects(fakeEffects{entered: entered}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	for range askedAtOnce {
		go func() {
			request := httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/v1/effects", nil)
			request.Header.Set("Authorization", "Bearer "+token)
			s.http.Handler.ServeHTTP(httptest.NewRecorder(), request)
			done <- struct{}{}
		}()
		<-entered
	}
	answer := s.ask(t, http.MethodGet, "/api/v1/effects/3:42", "")
	wantProblem(t, answer, http.StatusServiceUnavailable, "ask again")
	if answer.Header().Get("Retry-After") == "" {
		t.Error("nobody says when to ask again")
	}
	cancel()
	for range askedAtOnce {
		<-done
	}
	if answer := s.ask(t, http.MethodGet, "/api/v1/effects/3:42", ""); answer.Code != http.StatusOK {
		t.Errorf("status %d afterwards: %s", answer.Code, answer.Body)
	}
}
