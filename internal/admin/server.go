// Package admin serves the operations HTTP of one process: metrics, health, version, a status page
// for people, and the few actions an operator may take. It knows nothing of lanes, brokers or
// ledgers: every fact comes through a function in Config.
//
// What only reads the state of the process needs no token; what changes anything needs the bearer token of
// Config.TokenFile and a reason, and leaves an audit line in the log. What reads effects or dead letters needs the token too. No
// answer holds a secret, nor a payload that was not asked for and allowed.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	headerReadTimeout = 5 * time.Second
	requestTimeout    = 10 * time.Second // reading one request, with its body
	responseTimeout   = 30 * time.Second // handling it and writing the answer
	idleTimeout       = 60 * time.Second
	closeTimeout      = 5 * time.Second // for answers in flight when Run ends
	headerBytesMax    = 16 << 10
	scrapesMax        = 4 // at the same time; a monitoring loop gone wild gets 503
)

// Config holds the settings of a server and its sources of facts. The functions are called on the
// goroutines of requests, several at a time; they must answer from memory or heed their context.
type Config struct {
	Listen    string // host:port; port 0 takes a free one
	TokenFile string // holds the bearer token; empty refuses whatever needs one
	Profiling bool   // serve /debug/pprof/, which shows the process's inside to every reader

	Application string
	Instance    string
	Version     any // what /version shows, as JSON

	Metrics prometheus.Gatherer
	Log     *slog.Logger

	Live    []Check // /livez: fails only where a restart of the process helps, never for a broker's sake
	Ready   []Check // /readyz
	Started []Check // /startupz

	// Status returns what /api/v1/status shows, as JSON.
	Status func(ctx context.Context) (any, error)
	// View returns what the status page shows of the process, as JSON. It is asked about once a second while
	// somebody looks, and never where nobody does.
	View func(ctx context.Context) (any, error)
	// Settings is what /api/v1/config shows, as JSON: the configuration without its secrets.
	Settings any
	// Effects answers for the effect ledger, nil where this process has none.
	Effects Effects
	// DeadLetters shows dead letters, nil: not here.
	DeadLetters DeadLetters
	// Pauses lets operators leave input and endpoints alone for a while; nil: there is no such thing here.
	Pauses Pauses
	// Notes are lines for whoever asks for the readiness in full: what is as an operator wanted it, and not as usual.
	Notes func() []string
	// Contents allows Effects to show what was sent and answered, and DeadLetters what was refused, to whoever has the token.
	Contents bool
	// Drain begins a drain and returns when it has begun. An error says why it cannot begin. Asking again
	// while a drain goes on is no error.
	Drain func(ctx context.Context, order Drain) error
}

func (c Config) validate() error {
	var errs []error
	if c.Metrics == nil {
		errs = append(errs, errors.New("no source of metrics"))
	}
	if c.Log == nil {
		errs = append(errs, errors.New("no logger"))
	}
	if c.Status == nil {
		errs = append(errs, errors.New("no source of the status"))
	}
	if c.View == nil {
		errs = append(errs, errors.New("no source of the view"))
	}
	if c.Drain == nil {
		errs = append(errs, errors.New("no way to drain"))
	}
	for _, list := range [][]Check{c.Live, c.Ready, c.Started} {
		seen := make(map[string]bool, len(list))
		for _, check := range list {
			if check.Name == "" || check.Probe == nil {
				errs = append(errs, fmt.Errorf("check %q is incomplete", check.Name))
			}
			if seen[check.Name] {
				errs = append(errs, fmt.Errorf("check %q is there twice", check.Name))
			}
			seen[check.Name] = true
		}
	}
	return errors.Join(errs...)
}

// Server is one listening server. It answers from Run on; Close it where Run is never called.
type Server struct {
	config   Config
	listener net.Listener
	http     *http.Server
	refusals limiter
	last     snapshots
	viewers  chan struct{} // one for each open stream
	ending   chan struct{} // closed when Run begins to end
}

// Open binds the address, so that a port in use is known before anything else has started.
func Open(ctx context.Context, config Config) (*Server, error) {
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("open admin server: %w", err)
	}
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", config.Listen)
	if err != nil {
		return nil, fmt.Errorf("open admin server: set another admin.listen or end what holds the port: %w", err)
	}
	s := &Server{config: config, listener: listener, viewers: make(chan struct{}, viewersMax), ending: make(chan struct{})}
	s.http = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: headerReadTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      responseTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytesMax,
		ErrorLog:          slog.NewLogLogger(config.Log.Handler(), slog.LevelWarn),
	}
	return s, nil
}

// Addr is the address the server is bound to.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Run serves until ctx ends, then lets answers in flight finish for a few seconds. It returns nil
// after such an end, and may be called once.
func (s *Server) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve admin: %w", err)
	case <-ctx.Done():
	}
	close(s.ending) // streams would go on for ever
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	err := s.http.Shutdown(closing)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close() // a client that does not read its answer must not hold up our end
	}
	if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	if err != nil {
		return fmt.Errorf("close admin: %w", err)
	}
	return nil
}

// Close frees the address of a server whose Run was never called; after Run it does nothing.
func (s *Server) Close() error {
	if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close admin: %w", err)
	}
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.config.Metrics, promhttp.HandlerOpts{
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: scrapesMax,
		ErrorLog:            slog.NewLogLogger(s.config.Log.Handler(), slog.LevelWarn),
		// One broken collector must not blind us for all the others.
		ErrorHandling: promhttp.ContinueOnError,
	}))
	mux.Handle("GET /livez", s.probe("livez", s.config.Live))
	mux.Handle("GET /readyz", s.probe("readyz", s.config.Ready))
	mux.Handle("GET /startupz", s.probe("startupz", s.config.Started))
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, s.config.Version)
	})
	s.routePage(mux)
	mux.HandleFunc("GET /api/v1/status", s.status)
	mux.HandleFunc("GET /api/v1/view", s.view)
	mux.HandleFunc("GET /api/v1/events", s.events)
	mux.HandleFunc("GET /api/v1/config", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"settings": s.config.Settings})
	})
	mux.HandleFunc("POST /api/v1/drain", s.drain)
	s.routeEffects(mux)
	s.routeLetters(mux)
	s.routePauses(mux)
	if s.config.Profiling {
		// Not pprof.Cmdline: an argument may hold a secret.
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if handler, pattern := mux.Handler(r); pattern == "" {
			unmatched(w, r, handler)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	status, err := s.config.Status(r.Context())
	if err != nil {
		writeProblem(w, http.StatusServiceUnavailable, "the status cannot be had: "+err.Error())
		return
	}
	writeJSON(w, http.StatusOK, status)
}

func writeJSON(w http.ResponseWriter, code int, value any) {
	body, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		writeProblem(w, http.StatusInternalServerError, "the answer is no JSON: "+err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // the client went away: nobody is left to tell
}
