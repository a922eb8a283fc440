package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	snapshotAge     = 900 * time.Millisecond // until a new one is made; less than eventInterval, so that a stream has a new one each time
	snapshotTimeout = 5 * time.Second        // for making one
)

// snapshot is everything that the page shows and that changes.
type snapshot struct {
	At          time.Time    `json:"at"`
	Application string       `json:"application"`
	Instance    string       `json:"instance"`
	Version     any          `json:"version"`
	Ready       []readyCheck `json:"ready"`
	Can         abilities    `json:"can"`
	View        any          `json:"view"`
}

// readyCheck is a check of the readiness with its answer.
type readyCheck struct {
	Name   string `json:"name"`
	Failed string `json:"failed,omitempty"`
}

// abilities say which orders this process takes.
type abilities struct {
	Drain   bool `json:"drain"`   // a token is configured
	Pause   bool `json:"pause"`   // and there are pauses
	Effects bool `json:"effects"` // and there is a ledger
}

// snapshots makes a snapshot for all who ask, at most one in snapshotAge, however many they are.
type snapshots struct {
	mu   sync.Mutex
	made time.Time
	body []byte // one line of JSON
	err  error
}

func (s *Server) readiness(ctx context.Context) []readyCheck {
	checks := make([]readyCheck, 0, len(s.config.Ready))
	for _, result := range probeAll(ctx, s.config.Ready, nil) {
		shown := readyCheck{Name: result.name}
		if result.err != nil {
			shown.Failed = result.err.Error()
		}
		checks = append(checks, shown)
	}
	return checks
}

// snapshot returns the newest one.
func (s *Server) snapshot(ctx context.Context) ([]byte, error) {
	s.last.mu.Lock()
	defer s.last.mu.Unlock()
	if now := time.Now(); now.Sub(s.last.made) >= snapshotAge {
		// Others get it too, so it must not fail because the one who asked goes away.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), snapshotTimeout)
		defer cancel()
		s.last.body, s.last.err = s.makeSnapshot(ctx, now)
		s.last.made = time.Now()
	}
	return s.last.body, s.last.err
}

func (s *Server) makeSnapshot(ctx context.Context, now time.Time) ([]byte, error) {
	view, err := s.config.View(ctx)
	if err != nil {
		return nil, fmt.Errorf("the view cannot be had: %w", err)
	}
	token := s.config.TokenFile != ""
	body, err := json.Marshal(snapshot{
		At: now.UTC(), Application: s.config.Application, Instance: s.config.Instance, Version: s.config.Version,
		Ready: s.readiness(ctx), Can: abilities{Drain: token, Pause: token && s.config.Pauses != nil, Effects: token && s.config.Effects != nil}, View: view,
	})
	if err != nil {
		return nil, fmt.Errorf("the view is no JSON: %w", err)
	}
	return body, nil
}

// view serves the snapshot once, for whoever wants no stream.
func (s *Server) view(w http.ResponseWriter, r *http.Request) {
	body, err := s.snapshot(r.Context())
	if err != nil {
		writeProblem(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(slices.Clip(body), '\n')) // the client went away: nobody is left to tell
}
