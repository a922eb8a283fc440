package admin

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
)

// fakeLetters answers with what it heard.
type fakeLetters struct{ err error }

func (f fakeLetters) List(context.Context) (any, error) { return heard{What: "letters"}, f.err }

func (f fakeLetters) Show(_ context.Context, letter string, contents bool) (any, error) {
	return heard{What: "letter " + letter, Detail: contents}, f.err
}

func withLetters(f fakeLetters) func(*Config) {
	return func(c *Config) { c.DeadLetters, c.Contents = f, true }
}

// Keys and errors are somebody's data, and a value is more than that: it needs the token, the setting, and leaves a line.
func TestDeadLettersAreShownToWhomTheyMayBe(t *testing.T) {
	t.Parallel()
	s := open(t, withLetters(fakeLetters{}))
	hidden := open(t, func(c *Config) { c.DeadLetters = fakeLetters{} })
	none := open(t, func(*Config) {})
	locked := open(t, func(c *Config) { withLetters(fakeLetters{})(c); c.TokenFile = "" })
	for _, path := range []string{"/api/v1/dead-letters", "/api/v1/dead-letters/0/42", "/api/v1/dead-letters/0/42?contents=true"} {
		wantProblem(t, s.do(t, "GET", path, "", "Authorization", "Bearer wrong"), http.StatusUnauthorized, "Authorization: Bearer")
		wantProblem(t, locked.ask(t, "GET", path, ""), http.StatusForbidden, "admin.token_file")
		wantProblem(t, none.ask(t, "GET", path, ""), http.StatusNotFound, "processor dlq ls")
	}
	for path, want := range map[string]string{
		"/api/v1/dead-letters":                     `"What": "letters"`,
		"/api/v1/dead-letters/0/42":                `"What": "letter 0/42"`,
		"/api/v1/dead-letters/0/42?contents=false": `"Detail": false`,
	} {
		if answer := s.ask(t, "GET", path, ""); answer.Code != http.StatusOK || !strings.Contains(answer.Body.String(), want) {
			t.Errorf("%s: %d %s, want %s in it", path, answer.Code, answer.Body, want)
		}
	}
	if strings.Contains(s.log.String(), "contents") {
		t.Errorf("the log tells of contents that were not shown: %s", s.log)
	}
	if answer := s.ask(t, "GET", "/api/v1/dead-letters/0/42?contents=true", ""); !strings.Contains(answer.Body.String(), `"Detail": true`) {
		t.Errorf("contents are not shown: %s", answer.Body)
	}
	if line := s.log.String(); !strings.Contains(line, "contents of a dead letter were shown") || !strings.Contains(line, "letter=0/42") {
		t.Errorf("the log is %q", line)
	}
	wantProblem(t, hidden.ask(t, "GET", "/api/v1/dead-letters/0/42?contents=true", ""), http.StatusForbidden, "admin.contents, or use `processor dlq show 0/42`")
	wantProblem(t, s.ask(t, "GET", "/api/v1/dead-letters/0/42?bytes=9", ""), http.StatusBadRequest, "contents=true")
	wantProblem(t, s.ask(t, "GET", "/api/v1/dead-letters?reason=x", ""), http.StatusBadRequest, "no query")

	failing := open(t, withLetters(fakeLetters{err: errors.New("brokers are away")}))
	wantProblem(t, failing.ask(t, "GET", "/api/v1/dead-letters", ""), http.StatusServiceUnavailable, "the dead-letter topic cannot be asked: brokers are away")
	missing := open(t, withLetters(fakeLetters{err: &Problem{http.StatusNotFound, "there is none"}}))
	wantProblem(t, missing.ask(t, "GET", "/api/v1/dead-letters/0/42?contents=true", ""), http.StatusNotFound, "there is none")
	if strings.Contains(missing.log.String(), "contents") {
		t.Errorf("the log tells of contents that were not shown: %s", missing.log)
	}
}
