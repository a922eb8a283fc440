package admin

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestProbeNamesWhatFails(t *testing.T) {
	t.Parallel()
	s := open(t, func(c *Config) {
		c.Ready = []Check{
			{Name: "joined", Probe: passes},
			{Name: "preflight", Probe: fails("topic orders is missing:\nrun processor topics apply")},
		}
	})
	for _, test := range []struct {
		target string
		code   int
		want   string
	}{
		{"/readyz", 503, "[+]joined ok\n[-]preflight failed: topic orders is missing: run processor topics apply\nreadyz check failed\n"},
		{"/readyz?exclude=preflight", 200, "ok\n"},
		{"/readyz?exclude=preflight&verbose", 200, "[+]joined ok\n[+]preflight excluded\nreadyz check passed\n"},
		{"/readyz?exclude=preflight&exclude=moon&verbose=1", 200, "[+]joined ok\n[+]preflight excluded\nwarn: no check \"moon\" to exclude\nreadyz check passed\n"},
		{"/livez", 200, "ok\n"},
		{"/livez?verbose", 200, "[+]loop ok\nlivez check passed\n"},
		{"/startupz?verbose", 200, "[+]config ok\nstartupz check passed\n"},
	} {
		answer := s.get(t, test.target)
		if answer.Code != test.code || answer.Body.String() != test.want {
			t.Errorf("%s: %d %q, want %d %q", test.target, answer.Code, answer.Body, test.code, test.want)
		}
	}
}

// A probe that waits for a slow system gives up before the asker does.
func TestProbeIsBoundedInTime(t *testing.T) {
	t.Parallel()
	s := open(t, func(c *Config) {
		c.Ready = []Check{{Name: "slow", Probe: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}}}
	})
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		if answer := s.get(t, "/readyz"); answer.Code != http.StatusServiceUnavailable {
			t.Errorf("status %d", answer.Code)
		}
		if took := time.Since(begin); took != probeTimeout {
			t.Errorf("took %s, want %s", took, probeTimeout)
		}
	})
}

// Probes come every few seconds; the log hears of changes only, and never of what a stranger chose
// to exclude.
func TestProbeLogsChangesOnly(t *testing.T) {
	t.Parallel()
	var failing bool
	s := open(t, func(c *Config) {
		c.Ready = []Check{{Name: "joined", Probe: func(ctx context.Context) error {
			if failing {
				return fails("no group")(ctx)
			}
			return nil
		}}}
	})
	for _, step := range []struct {
		failing bool
		target  string
		lines   int
	}{
		{false, "/readyz", 1},
		{false, "/readyz", 1},
		{true, "/readyz?exclude=joined", 1},
		{true, "/readyz", 2},
		{true, "/readyz", 2},
		{false, "/readyz?exclude=joined", 2},
		{false, "/readyz", 3},
	} {
		failing = step.failing
		s.get(t, step.target)
		if lines := strings.Count(s.log.String(), "health changed"); lines != step.lines {
			t.Errorf("%+v: %d lines:\n%s", step, lines, s.log)
		}
	}
	if !strings.Contains(s.log.String(), "ok=false failed=[joined]") {
		t.Errorf("log does not name the failed check:\n%s", s.log)
	}
}
