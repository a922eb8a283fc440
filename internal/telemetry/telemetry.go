// Package telemetry turns what the engine tells through its hooks into metrics and log lines.
//
// It draws the line between the two: a metric counts every event, the log has one line for an event
// that a person may want to know of, none per record above debug, and never a payload. Lines of one
// kind that come in floods are thinned out and counted.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pawl/internal/txn"
)

const (
	lagInterval    = 5 * time.Second // between two questions about the lag
	lagTimeout     = 4 * time.Second // for one answer
	lagFailuresMax = 3               // failed questions in a row until the old answer is dropped
)

// LagSample is the lag of one partition.
type LagSample struct {
	Topic     string
	Partition int32
	Records   int64         // readable records behind the group's committed offset
	Held      int64         // records behind the last stable offset, which nobody can read yet
	Waiting   time.Duration // how long the oldest of Records has been waiting
}

// Route names a handler and the topics it reads: with them every series is there, at zero, from the
// start, so that a first event is a rise and not a new series.
type Route struct {
	Handler string
	Topics  []string
}

// Config holds what a Telemetry is made of.
type Config struct {
	Registry *prometheus.Registry // an own one; its owner serves it
	Log      *slog.Logger

	Version    string // of the program
	Revision   string // of its source
	ConfigHash string // tells two configurations apart; never the configuration itself

	Routes  []Route
	Outputs []string // topics that handlers write to

	// Status is asked at every scrape; nil where there is no engine.
	Status func() txn.Status
	// Lag is asked every few seconds while Run runs; nil asks nothing. It may return the lag of
	// the whole group: only the partitions that this process owns by Status are shown.
	Lag func(ctx context.Context) ([]LagSample, error)
	// Held is asked as often: how long readers of topics have been held back by an open transaction.
	// nil asks nothing.
	Held func(ctx context.Context) (map[string]time.Duration, error)
	// Pauses is asked at every scrape; nil: there are none.
	Pauses func() Pauses

	Tracing *Tracing // nil where it is off
}

// Pauses are what operators have stopped for a while, in all processes of the application.
type Pauses struct {
	Targets []Pause
	Ignored int // targets of which the newest order can't be read by this release
}

// Pause is one of them, or what may be paused and is not.
type Pause struct {
	Target  string
	Age     time.Duration // 0 where it is not paused
	Overdue time.Duration // by which it has lasted longer than it was said to
}

// Telemetry holds the metrics and the log of one process.
type Telemetry struct {
	log     *slog.Logger
	limiter *limiter
	metrics *metrics
	tracing *Tracing
	facts   *facts
	shares  *shares
	recent  recent
	lag     *question[[]LagSample]
	held    *question[map[string]time.Duration]
}

// New registers all metrics.
func New(config Config) (*Telemetry, error) {
	var errs []error
	if config.Registry == nil {
		errs = append(errs, errors.New("no registry"))
	}
	if config.Log == nil {
		errs = append(errs, errors.New("no logger"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("open telemetry: %w", err)
	}
	t := &Telemetry{
		log:     config.Log,
		limiter: newLimiter(),
		metrics: newMetrics(config),
		tracing: config.Tracing,
		facts:   &facts{status: config.Status, pauses: config.Pauses},
		shares:  &shares{lanes: map[int][]txn.Handled{}},
	}
	t.lag = &question[[]LagSample]{line: "consumer lag unknown", ask: config.Lag, tell: t.facts.setLag, heard: t.facts.setBrokers}
	t.held = &question[map[string]time.Duration]{line: "held readers unknown", ask: config.Held, tell: t.facts.setHeld, heard: func(answer) {}}
	for _, collector := range append(t.metrics.collectors(), t.facts) {
		errs = append(errs, config.Registry.Register(collector))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	if t.tracing != nil {
		t.tracing.attach(t)
	}
	return t, nil
}

// Hooks returns the functions for the engine. They may run on several goroutines at a time.
func (t *Telemetry) Hooks() txn.Hooks {
	return txn.Hooks{
		Polled:    t.polled,
		Handled:   t.handled,
		Produced:  t.produced,
		Rejected:  t.rejected,
		Ended:     t.ended,
		Stories:   t.tracing != nil,
		Assigned:  t.assigned,
		Revoked:   t.revoked,
		Lost:      t.lost,
		Fenced:    t.fenced,
		Buried:    t.buried,
		Rebuilt:   t.rebuilt,
		Halted:    t.halted,
		Suspected: t.suspected,
		Unlisted:  t.unlisted,
		Retrying:  t.retrying,
	}
}

// Run asks the brokers, reports log lines that were suppressed and sends spans, until ctx ends. Then it sends the last
// spans, within a few seconds. It returns nil.
func (t *Telemetry) Run(ctx context.Context) error {
	ticker := time.NewTicker(lagInterval)
	defer ticker.Stop()
	defer t.reportSuppressed(ctx, true)
	if t.tracing != nil {
		var sending sync.WaitGroup
		sending.Go(func() { t.tracing.queue.run(ctx) })
		defer sending.Wait()
	}
	for {
		t.lag.put(ctx, t)
		t.held.put(ctx, t)
		t.reportSuppressed(ctx, false)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// question is something that is asked again and again, of brokers that may not answer.
type question[T any] struct {
	line     string // of the log, where there is no answer
	ask      func(ctx context.Context) (T, error)
	tell     func(T)
	heard    func(answer)
	failures int // in a row
}

// put asks once.
func (q *question[T]) put(ctx context.Context, t *Telemetry) {
	if q.ask == nil {
		return
	}
	asking, cancel := context.WithTimeout(ctx, lagTimeout)
	defer cancel()
	told, err := q.ask(asking)
	switch {
	case ctx.Err() != nil: // we are ending; that is no failure
		return
	case err == nil:
		q.failures = 0
		q.tell(told)
		q.heard(answered)
		return
	}
	q.failures++
	q.heard(silent)
	t.metrics.lagFailures.Inc()
	if suppressed, pass := t.pass(ctx, slog.LevelWarn, kind{q.line, ""}); pass {
		t.log.LogAttrs(ctx, slog.LevelWarn, q.line, slog.Any("err", err), suppressed) //nolint:sloglint // each question's is a constant
	}
	if q.failures >= lagFailuresMax {
		// An old answer looks as if all were well; an absent one can be alerted on.
		var none T
		q.tell(none)
	}
}
