package admin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pawl/internal/faults"
)

func (s *site) drainRequest(t *testing.T, body, bearer string) *httptest.ResponseRecorder {
	t.Helper()
	return s.do(t, http.MethodPost, "/api/v1/drain", body, "Content-Type", "application/json", "Authorization", "Bearer "+bearer)
}

func (s *site) wantNoDrain(t *testing.T) {
	t.Helper()
	select {
	case drain := <-s.drains:
		t.Errorf("drained: %+v", drain)
	default:
	}
}

func TestDrainIsPassedOnAndAudited(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	answer := s.drainRequest(t, `{"leave": true, "reason": " scale down to 3 ", "actor": "ann"}`, token)
	if answer.Code != http.StatusAccepted {
		t.Fatalf("status %d: %s", answer.Code, answer.Body)
	}
	if got, want := <-s.drains, (Drain{Leave: true, Reason: "scale down to 3", Actor: "ann@192.0.2.1"}); got != want {
		t.Errorf("drain %+v, want %+v", got, want)
	}
	for _, part := range []string{"admin action accepted", "action=drain", "leave=true", `reason="scale down to 3"`, "actor=ann@192.0.2.1", "remote="} {
		if !strings.Contains(s.log.String(), part) {
			t.Errorf("no %q in the audit line: %s", part, s.log)
		}
	}
	if strings.Contains(s.log.String(), token) {
		t.Error("the token is in the log")
	}
}

func TestDrainThatCannotBeginIsAConflict(t *testing.T) {
	t.Parallel()
	s := open(t, func(c *Config) {
		c.Drain = func(context.Context, Drain) error { return errors.New("the engine has ended") }
	})
	wantProblem(t, s.drainRequest(t, `{"reason": "test"}`, token), http.StatusConflict, "the engine has ended")
	if !strings.Contains(s.log.String(), "admin action refused") {
		t.Errorf("no audit line: %s", s.log)
	}
}

func TestDrainRefusesBadBodies(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	for _, test := range []struct {
		name, body string
		code       int
		part       string
	}{
		{"empty", ``, http.StatusBadRequest, "body"},
		{"no reason", `{"leave": true}`, http.StatusUnprocessableEntity, "reason is empty"},
		{"blank reason", `{"reason": " \t "}`, http.StatusUnprocessableEntity, "reason is empty"},
		{"long reason", `{"reason": "` + strings.Repeat("é", reasonRuneMax+1) + `"}`, http.StatusUnprocessableEntity, "200 characters"},
		{"control characters", `{"reason": "a\nb"}`, http.StatusUnprocessableEntity, "control"},
		{"unknown field", `{"reason": "a", "laeve": true}`, http.StatusBadRequest, "laeve"},
		{"wrong type", `{"reason": 1}`, http.StatusBadRequest, "reason"},
		{"two objects", `{"reason": "a"} {}`, http.StatusBadRequest, "follows"},
		{"trailing rubbish", `{"reason": "a"} x`, http.StatusBadRequest, "follows"},
		{"too large", `{"reason": "` + strings.Repeat("a", bodyBytesMax) + `"}`, http.StatusRequestEntityTooLarge, "bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			wantProblem(t, s.drainRequest(t, test.body, token), test.code, test.part)
			s.wantNoDrain(t)
		})
	}
	wantProblem(t, s.do(t, http.MethodPost, "/api/v1/drain", "reason=a", "Authorization", "Bearer "+token,
		"Content-Type", "application/x-www-form-urlencoded"), http.StatusUnsupportedMediaType, "application/json")
}

// The token is asked for before the body is looked at.
func TestDrainNeedsTheToken(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	for _, authorization := range []string{
		"", "Bearer", "Bearer ", "Bearer wrong", "Bearer " + token + "x", "Bearer " + token[:5], "Basic " + token, token,
	} {
		answer := s.do(t, http.MethodPost, "/api/v1/drain", "rubbish", "Authorization", authorization)
		wantProblem(t, answer, http.StatusUnauthorized, "Authorization: Bearer")
		faults.Shows(t, "wrong-token", answer.Body.String())
		if !strings.HasPrefix(answer.Header().Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("%q: no challenge", authorization)
		}
	}
	s.wantNoDrain(t)
}

func TestDrainWithoutAConfiguredTokenIsRefused(t *testing.T) {
	t.Parallel()
	s := open(t, func(c *Config) { c.TokenFile = "" })
	for _, bearer := range []string{"", token} {
		answer := s.drainRequest(t, `{"reason": "a"}`, bearer)
		wantProblem(t, answer, http.StatusForbidden, "admin.token_file")
		faults.Shows(t, "no-token", answer.Body.String())
	}
	s.wantNoDrain(t)
}

func TestTokenFileIsReadAgainWhenItChanges(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	path := s.config.TokenFile
	code := func(bearer string) int { return s.drainRequest(t, `{"reason": "a"}`, bearer).Code }
	if got := code(token); got != http.StatusAccepted {
		t.Fatalf("status %d", got)
	}
	// Rotated the way a mounted secret is: another file renamed over it, of the same length.
	next := filepath.Join(filepath.Dir(path), "next")
	rotated := strings.ToUpper(token)
	writeFile(t, next, rotated)
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
	if got := code(token); got != http.StatusUnauthorized {
		t.Errorf("old token: status %d", got)
	}
	if got := code(rotated); got != http.StatusAccepted {
		t.Errorf("new token: status %d", got)
	}
}

// An empty or missing file never means "no token needed".
func TestUnusableTokenFileRefusesEverything(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(path string) error{
		"missing":   os.Remove,
		"empty":     func(path string) error { return os.WriteFile(path, []byte(" \n"), 0o600) },
		"too large": func(path string) error { return os.WriteFile(path, make([]byte, tokenBytesMax+1), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, nil)
			if err := spoil(s.config.TokenFile); err != nil {
				t.Fatal(err)
			}
			for _, bearer := range []string{"", token} {
				answer := s.drainRequest(t, `{"reason": "a"}`, bearer)
				wantProblem(t, answer, http.StatusInternalServerError, "the log says why")
				if strings.Contains(answer.Body.String(), s.config.TokenFile) {
					t.Error("the answer shows the path")
				}
			}
			if !strings.Contains(s.log.String(), s.config.TokenFile) {
				t.Errorf("the log does not name the file: %s", s.log)
			}
			s.wantNoDrain(t)
		})
	}
}

// Somebody who guesses tokens gets one log line a second, with the number of the others.
func TestRefusedTokensDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	synctest.Test(t, func(t *testing.T) {
		guess := func() { s.drainRequest(t, `{"reason": "a"}`, "guess") }
		for range 100 {
			guess()
		}
		if lines := strings.Count(s.log.String(), "admin token refused"); lines != 1 {
			t.Errorf("%d lines", lines)
		}
		time.Sleep(refusalLogMinimum) //nolint:forbidigo // virtual time
		guess()
		if !strings.Contains(s.log.String(), "suppressed=99") {
			t.Errorf("the others are not counted:\n%s", s.log)
		}
		if strings.Contains(s.log.String(), "guess") {
			t.Error("the guess is in the log")
		}
	})
}
