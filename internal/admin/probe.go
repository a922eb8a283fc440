package admin

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// probeTimeout is for all checks of one request.
const probeTimeout = 2 * time.Second

// Check is one named condition of a health endpoint.
type Check struct {
	Name string
	// Probe returns nil where the condition holds. Its error is shown to everybody who asks: one
	// line, with the next step, without secrets.
	Probe func(ctx context.Context) error
}

// result is a check with its answer.
type result struct {
	name     string
	excluded bool
	err      error
}

func probeAll(ctx context.Context, checks []Check, excluded []string) []result {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	results := make([]result, 0, len(checks))
	for _, check := range checks {
		if slices.Contains(excluded, check.Name) {
			results = append(results, result{name: check.Name, excluded: true})
			continue
		}
		results = append(results, result{name: check.Name, err: check.Probe(ctx)})
	}
	return results
}

func failed(results []result) []string {
	var names []string
	for _, result := range results {
		if result.err != nil {
			names = append(names, result.name)
		}
	}
	return names
}

// probe serves one health endpoint the way Kubernetes' own servers do: "ok" or, on ?verbose and on
// failure, a line per check, as plain text, because that is what an event of a failed probe shows.
// ?exclude=NAME leaves a check out.
func (s *Server) probe(endpoint string, checks []Check) http.HandlerFunc {
	var last state
	return func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		excluded := query["exclude"]
		results := probeAll(r.Context(), checks, excluded)
		failures := failed(results)
		if len(excluded) == 0 && last.changed(failures) {
			s.config.Log.LogAttrs(r.Context(), slog.LevelInfo, "health changed",
				slog.String("endpoint", endpoint), slog.Bool("ok", len(failures) == 0), slog.Any("failed", failures))
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if len(failures) > 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		} else if !query.Has("verbose") {
			_, _ = w.Write([]byte("ok\n")) // the client went away: nobody is left to tell
			return
		}
		var notes []string
		if s.config.Notes != nil && endpoint == "readyz" {
			notes = s.config.Notes()
		}
		_, _ = w.Write(listing(endpoint, checks, results, excluded, notes))
	}
}

func listing(endpoint string, checks []Check, results []result, excluded, notes []string) []byte {
	var text bytes.Buffer
	for _, result := range results {
		switch {
		case result.excluded:
			fmt.Fprintf(&text, "[+]%s excluded\n", result.name)
		case result.err != nil:
			fmt.Fprintf(&text, "[-]%s failed: %s\n", result.name, strings.Join(strings.Fields(result.err.Error()), " "))
		default:
			fmt.Fprintf(&text, "[+]%s ok\n", result.name)
		}
	}
	for _, name := range excluded {
		if !slices.ContainsFunc(checks, func(check Check) bool { return check.Name == name }) {
			fmt.Fprintf(&text, "warn: no check %q to exclude\n", name)
		}
	}
	for _, note := range notes {
		fmt.Fprintf(&text, "note: %s\n", strings.Join(strings.Fields(note), " "))
	}
	verdict := "passed"
	if len(failed(results)) > 0 {
		verdict = "failed"
	}
	fmt.Fprintf(&text, "%s check %s\n", endpoint, verdict)
	return text.Bytes()
}

// state remembers which checks of an endpoint failed when it was last asked.
type state struct {
	mu       sync.Mutex
	asked    bool
	failures []string
}

// changed takes the newest failures and reports whether they differ from the last ones. The first
// answer counts as a change.
func (s *state) changed(failures []string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked && slices.Equal(s.failures, failures) {
		return false
	}
	s.asked, s.failures = true, failures
	return true
}
