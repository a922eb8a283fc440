package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/admin"
	"pawl/internal/handlers"
	"pawl/internal/kafka"
	"pawl/internal/pause"
	"pawl/internal/telemetry"
	"pawl/internal/txn"
)

// The shipped handlers fit the engine.
var _ txn.Handler = handlers.Handler(nil)

// Build says which program runs.
type Build struct {
	Version string
	Commit  string
	Full    any // what /version shows, as JSON
}

// Options are what a run is told beside its configuration.
type Options struct {
	Migrate  bool      // bring the schema of the effect ledger up to date before it is used
	Settings []Setting // the configuration with its origins, for the status page; nil shows none
}

// preflightPause is the time between two preflights while there are problems.
const preflightPause = 5 * time.Second

// Run is the service: it opens the operations HTTP, waits until the preflight finds the cluster fit,
// and runs the engine until ctx ends, then stops all in the reverse order. A preflight that fails
// keeps the process up and unready, and is tried again: brokers that are still starting, or topics
// that are still to be made, need no restart. It returns nil after a clean drain. Log lines go to w.
func Run(ctx context.Context, conf Config, build Build, options Options, w io.Writer) error {
	censor := &censor{conf: conf}
	log, _, err := telemetry.NewLogger(censor.writer(w), conf.Log.Level, conf.Log.Format)
	if err != nil {
		return err
	}
	s, err := open(ctx, conf, build, options, log)
	if err != nil {
		return err
	}
	s.censor = censor
	defer s.client.Close()
	defer s.effects.close()
	defer s.pauses.Close()
	log.Info("starting", slog.String("version", build.Version),
		slog.String("application", conf.Application), slog.String("instance", conf.Instance),
		slog.Any("brokers", conf.Kafka.Brokers), slog.Any("inputs", conf.inputTopics()),
		slog.Any("outputs", slices.Sorted(maps.Values(conf.OutputTopics()))), slog.String("admin", s.admin.Addr().String()))

	// The operations HTTP and the telemetry outlive the engine: the drain is to be seen.
	rest, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wait sync.WaitGroup
	var adminErr, telemetryErr, pausesErr error
	wait.Go(func() { adminErr = s.admin.Run(rest) })
	wait.Go(func() { telemetryErr = s.telemetry.Run(rest) })
	// The engine asks what is paused to its end, and so does whoever looks at a process that has been drained.
	err = s.runEngine(ctx, func() { wait.Go(func() { pausesErr = s.pauses.Run(rest) }) })
	if twin, ok := errors.AsType[*txn.TwinError](err); ok {
		s.showTwin(ctx, twin)
	}
	if err == nil && ctx.Err() == nil {
		log.Info("drained, resting until the process is told to end")
		<-ctx.Done()
	}
	stop()
	wait.Wait()
	if err := errors.Join(err, adminErr, telemetryErr, pausesErr); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// showTwin keeps the operations HTTP up for some scrapes: a process that is fenced at once, ends and is
// started again would never be seen by who scrapes it, and would take its name back from the other at
// each start.
func (s *service) showTwin(ctx context.Context, twin *txn.TwinError) {
	linger := s.conf.Admin.Linger.Std()
	s.telemetry.Twin()
	s.log.Error("another process has our name: no work is done here, this process ends soon",
		slog.String("member", twin.Member), slog.Any("err", twin.Err), slog.Duration("ends_in", linger),
		slog.String("next", "give each process its own instance name (PROCESSOR_INSTANCE)"))
	select {
	case <-time.After(linger):
	case <-ctx.Done():
	}
}

// service is one running processor.
type service struct {
	conf   Config
	kafka  kafka.Config
	log    *slog.Logger
	client *kgo.Client // for what the service asks beside its work
	censor *censor

	engine    *txn.Engine
	pauses    *pause.Board
	effects   *effects // nil where this process has no ledger
	admin     *admin.Server
	telemetry *telemetry.Telemetry
	tracing   *telemetry.Tracing // nil where it is off
	drained   chan struct{}      // closed by the order to drain

	mu        sync.Mutex
	preflight error // nil once it has passed
	draining  bool
	leaving   bool // the order to drain said so
}

var (
	errPreflight = errors.New("has not run yet")
	errDraining  = errors.New("this process takes no more work")
	errJoining   = errors.New("not every lane is in the consumer group yet")
)

func open(ctx context.Context, conf Config, build Build, told Options, log *slog.Logger) (*service, error) {
	s := &service{conf: conf, kafka: conf.KafkaConfig(log), log: log, preflight: errPreflight, drained: make(chan struct{})}
	s.kafka.Version = build.Version
	options, err := s.kafka.Options()
	if err != nil {
		return nil, fmt.Errorf("configure kafka: %w", err)
	}
	if s.client, err = kgo.NewClient(options...); err != nil {
		return nil, fmt.Errorf("configure kafka: %w", err)
	}
	registry := prometheus.NewRegistry()
	s.tracing, err = conf.tracing(ctx, build)
	if err == nil {
		watched := conf.telemetry(registry, build, log, newWatch(conf, s.kafka, s.client, s.status), s.pauseFacts)
		watched.Tracing = s.tracing
		s.telemetry, err = telemetry.New(watched) //nolint:contextcheck // a line of the log needs none
	}
	if err == nil {
		s.effects, err = s.openEffects(ctx, options, registry, told.Migrate)
	}
	if err == nil {
		err = s.openPauses(options)
	}
	if err == nil {
		err = s.openEngine(options)
	}
	if err == nil {
		view := &viewer{
			conf: conf, since: time.Now(), metrics: registry, status: s.status, recent: s.telemetry.Recent,
			draining: func() bool { return s.notDraining(ctx) != nil }, pauses: s.pauses.Set,
			away: func() *LedgerAway { return s.effects.away(s.censor) },
		}
		ready := []admin.Check{
			{Name: "drain", Probe: s.notDraining},
			{Name: "preflight", Probe: s.preflightPassed},
			{Name: "pauses", Probe: s.pausesKnown},
			{Name: "group", Probe: s.joined},
		}
		if s.effects != nil {
			ready = append(ready, admin.Check{Name: "ledger", Probe: s.effects.ready})
		}
		s.admin, err = admin.Open(ctx, admin.Config{
			DeadLetters: lettersAPI{conf.DeadLetters(options), func(text string) string { return s.censor.text(text) }},
			Effects:     s.effects.api(), Pauses: pausesAPI{s}, Notes: s.pauseNotes, Contents: conf.Admin.Contents, Profiling: conf.Admin.Profiling,
			Listen: conf.Admin.Listen, TokenFile: conf.Admin.TokenFile,
			Application: conf.Application, Instance: conf.Instance, Version: build.Full,
			Metrics: registry, Log: log,
			Live:    []admin.Check{{Name: "lanes", Probe: s.alive}},
			Ready:   ready,
			Started: []admin.Check{{Name: "preflight", Probe: s.preflightPassed}},
			Status: func(context.Context) (any, error) {
				return Status{s.status(), s.pauses.Set().List(), s.effects.status(s.censor)}, nil
			},
			View: view.view, Settings: told.Settings,
			Drain: s.drain,
		})
	}
	if err != nil {
		if s.pauses != nil {
			s.pauses.Close()
		}
		s.effects.close()
		s.client.Close()
		return nil, err
	}
	return s, nil
}

// Status is what the operations HTTP tells of a process.
type Status struct {
	txn.Status
	Pauses  []pause.Pause  `json:"pauses"`            // of the whole application, in force now
	Effects *EffectsStatus `json:"effects,omitempty"` // absent where this process has no ledger
}

func (s *service) openEngine(options []kgo.Opt) error {
	conf, err := s.conf.engine(options, s.telemetry.Hooks())
	if err != nil {
		return err
	}
	conf.Pauses = s.pauses
	if s.engine, err = txn.New(conf); err != nil {
		return fmt.Errorf("configure the engine: %w", err)
	}
	return nil
}

// runEngine waits for the preflight and works until ctx ends or a drain is ordered. followPauses is called when the
// control topic is known to be there.
func (s *service) runEngine(ctx context.Context, followPauses func()) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-s.drained:
			stop()
		case <-ctx.Done():
		}
	}()
	if !s.awaitPreflight(ctx) {
		return nil
	}
	followPauses()
	if !s.awaitPauses(ctx) {
		return nil
	}
	var work sync.WaitGroup
	var effectsErr error
	if s.effects != nil {
		work.Go(func() { effectsErr = s.effects.run(ctx) })
	} else if s.conf.Effects.Enabled && len(s.conf.Endpoints) > 0 {
		s.log.Warn("no database is configured: effects wait on their topic for a process that has one", slog.String("next", "set postgres.dsn_file, or PROCESSOR_POSTGRES_DSN"))
	}
	err := s.engine.Run(ctx)
	s.mu.Lock()
	s.draining = true // for the readiness, whatever ended it
	s.mu.Unlock()
	stop()
	work.Wait()
	return errors.Join(err, effectsErr)
}

// awaitPreflight returns false when ctx ends first. Problems are logged when they change.
func (s *service) awaitPreflight(ctx context.Context) bool {
	var told string
	for {
		findings := kafka.Preflight(ctx, s.kafka, s.conf.Preflight())
		if ctx.Err() != nil {
			return false
		}
		for i := range findings { // they are shown to everybody
			findings[i].Detail = s.censor.text(findings[i].Detail)
		}
		failed := kafka.Failed(findings)
		s.mu.Lock()
		s.preflight = failed
		s.mu.Unlock()
		if text := fmt.Sprint(findings); text != told {
			told = text
			s.tell(findings)
		}
		if failed == nil {
			return true
		}
		timer := time.NewTimer(preflightPause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
}

func (s *service) tell(findings []kafka.Finding) {
	for _, finding := range findings {
		check, detail, next := slog.String("check", finding.Check), slog.String("detail", finding.Detail), slog.String("next", finding.Next)
		switch finding.Status {
		case kafka.Problem:
			s.log.Error("preflight found a problem, not ready", check, detail, next)
		case kafka.Degraded:
			s.log.Warn("preflight found something degraded", check, detail, next)
		case kafka.OK:
			s.log.Debug("preflight passed", check, detail)
		}
	}
}

var errLeaveTooLate = errors.New("a drain without leave has begun already: the members leave the group by themselves after kafka.session_timeout")

// drain is the order to finish what is in hand and take no more. It returns when that has begun and the audit has it. To leave the
// group must be part of the first order: when the second comes, the engine may have ended.
func (s *service) drain(ctx context.Context, order admin.Drain) error {
	s.mu.Lock()
	first := !s.draining
	s.draining = true
	s.leaving = s.leaving || first && order.Leave
	leaving := s.leaving
	s.mu.Unlock()
	if order.Leave && !leaving {
		return errLeaveTooLate
	}
	if first {
		if leaving {
			s.engine.Leave()
			s.effects.leave()
		}
		close(s.drained)
	}
	s.auditDrain(ctx, order)
	return nil
}

func (s *service) status() txn.Status { return s.engine.Status() }

// alive fails where a lane has been at one piece of work for longer than the engine itself allows.
// Waiting, for input or for brokers, is life.
func (s *service) alive(context.Context) error {
	limit := s.conf.Txn.HandlerTimeout.Std() + s.conf.Txn.Timeout.Std()
	for _, lane := range s.status().Lanes {
		since := time.Since(lane.Since)
		if (lane.Phase == txn.PhaseWorking || lane.Phase == txn.PhaseEnding) && since > limit {
			return fmt.Errorf("lane %d has been %s for %s, at most %s is normal", lane.Lane, lane.Phase, since.Round(time.Second), limit)
		}
	}
	return nil
}

func (s *service) notDraining(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return errDraining
	}
	return nil
}

func (s *service) preflightPassed(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.preflight
}

func (s *service) joined(context.Context) error {
	if !s.status().Joined() {
		return errJoining
	}
	return nil
}

func (c Config) inputTopics() []string {
	var topics []string
	for _, route := range c.Routes {
		topics = append(topics, route.Topics...)
	}
	return topics
}

// hash tells two configurations apart in metrics. What each process has of its own does not enter it, its name and its
// address: the processes of one application are to agree. Nor do secrets: they print as ***.
func (c Config) hash() string {
	c.Instance, c.Admin.Listen = "", ""
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // plain data always marshals: our own bug
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:6])
}

func (c Config) telemetry(registry *prometheus.Registry, build Build, log *slog.Logger, watch *watch, pauses func() telemetry.Pauses) telemetry.Config {
	config := telemetry.Config{
		Registry: registry, Log: log, Version: build.Version, Revision: build.Commit, ConfigHash: c.hash(),
		Outputs: slices.Sorted(maps.Values(c.OutputTopics())), Status: watch.status, Lag: watch.lag, Held: watch.held, Pauses: pauses,
	}
	for _, route := range c.Routes {
		config.Routes = append(config.Routes, telemetry.Route{Handler: route.Handler, Topics: route.Topics})
	}
	return config
}

// CheckTracing says everything that is wrong with the OTEL_* variables of an environment, nil where nothing is.
func CheckTracing(env []string) (problems Problems) {
	_, err := telemetry.ReadTracing(func(name string) string {
		for _, pair := range env {
			if key, value, _ := strings.Cut(pair, "="); key == name {
				return value
			}
		}
		return ""
	})
	joined, several := errors.AsType[interface {
		error
		Unwrap() []error
	}](err)
	if !several {
		return nil
	}
	for _, one := range joined.Unwrap() {
		name, text, _ := strings.Cut(one.Error(), " ")
		problems = append(problems, Problem{Origin: Origin{Kind: FromEnv, Name: name}, Text: text})
	}
	return problems
}

// tracing is configured by the environment alone, as everywhere else with OpenTelemetry.
func (c Config) tracing(ctx context.Context, build Build) (*telemetry.Tracing, error) {
	told, err := telemetry.ReadTracing(os.Getenv)
	if err != nil {
		return nil, err
	}
	return telemetry.OpenTracing(ctx, telemetry.TracingConfig{
		Settings: told, Application: c.Application, Instance: c.Instance, Group: c.Group(), Version: build.Version, Results: c.ResultsTopic(),
	})
}

// engine gives the engine's own configuration.
func (c Config) engine(client []kgo.Opt, hooks txn.Hooks) (txn.Config, error) {
	config := txn.Config{
		Application: c.Application, Instance: c.Instance, Group: c.Group(), ReplayGeneration: c.ReplayGeneration,
		Client:   client,
		Protocol: txn.Protocol(c.Kafka.Protocol), SessionTimeout: c.Kafka.SessionTimeout.Std(),
		Heartbeat: c.Kafka.Heartbeat.Std(), RebalanceTimeout: c.Kafka.RebalanceTimeout.Std(),
		Start: txn.Start(c.Input.Start), Outputs: c.OutputTopics(), Endpoints: c.EndpointNames(),
		DeadLetterTopic: c.DeadLetterTopic(), ControlTopic: c.ControlTopic(),
		Lanes: c.Txn.Lanes, RecordsMax: c.Txn.RecordsMax, BytesMax: int64(c.Txn.BytesMax), IntervalMin: c.Txn.IntervalMin.Std(),
		Timeout: c.Txn.Timeout.Std(), HandlerTimeout: c.Txn.HandlerTimeout.Std(), DrainTimeout: c.Txn.DrainTimeout.Std(),
		Compression: c.Kafka.Compression,
		Hooks:       hooks,
	}
	if c.Effects.Enabled {
		config.EffectsTopic = c.EffectsTopic()
	}
	made, err := c.Handlers()
	if err != nil {
		return txn.Config{}, err
	}
	for i, route := range c.Routes {
		config.Routes = append(config.Routes, txn.Route{Topics: route.Topics, Name: route.Handler, Handler: made[i]})
	}
	return config, nil
}

// Handlers makes the handler of each route, in their order.
func (c Config) Handlers() (made []handlers.Handler, err error) {
	settings := handlers.Settings{Outputs: slices.Sorted(maps.Keys(c.Outputs)), Endpoints: c.EndpointNames()}
	for i, route := range c.Routes {
		settings.Config = route.Config
		handler, err := handlers.New(route.Handler, settings)
		if err != nil {
			return nil, fmt.Errorf("routes.%d: %w", i, err)
		}
		made = append(made, handler)
	}
	return made, nil
}
