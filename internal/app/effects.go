package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"pawl/internal/outbox"
	"pawl/internal/outbox/dispatch"
	"pawl/internal/outbox/dispatch/httptarget"
	"pawl/internal/outbox/ingest"
	"pawl/internal/outbox/ledger"
	"pawl/internal/outbox/relay"
	"pawl/internal/postgres"
	"pawl/internal/telemetry"
)

const (
	leaseMin      = 15 * time.Second
	leaseSpare    = 10 * time.Second // by which a lease outlasts the longest call
	workersMax    = 2048             // calls at once, over all endpoints
	strangerAge   = 24 * time.Hour   // an effect waits so long for a process that knows its endpoint
	ingestRecords = 5000
	ingestBytes   = 8 << 20
	upkeepEvery   = time.Minute
	upkeepTimeout = 2 * time.Minute
	schemaPause   = 5 * time.Second // between two looks at a schema that is behind or a database that is away
	schemaTimeout = 10 * time.Second
)

// effects is the ledger's part of a process: it brings the effects topic into Postgres, makes the
// calls, and tells their results. See internal/outbox/DESIGN.md.
type effects struct {
	log        *slog.Logger
	pool       *pgxpool.Pool
	migrations postgres.Migrations
	migrate    bool
	ledger     *ledger.Ledger
	targets    []*httptarget.Target
	ingester   *ingest.Ingester
	dispatcher *dispatch.Dispatcher
	relay      *relay.Relay
	telemetry  *telemetry.LedgerTelemetry
	watch      *ingestWatch

	mu      sync.Mutex
	schema  error                   // why the schema is not fit, nil where it is or where that is not known yet
	tenures map[int32]outbox.Tenure // of the lanes that are dispatched here
}

// ReadDSN returns the connection string of the ledger's database, "" where there is none.
func (c Config) ReadDSN() (string, error) {
	if c.Postgres.DSNFile == "" {
		return c.Postgres.DSN.Reveal(), nil
	}
	text, err := os.ReadFile(c.Postgres.DSNFile)
	if err != nil {
		return "", fmt.Errorf("postgres.dsn_file: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// OpenLedger connects to the ledger's database; close the pool when done. It waits for nothing.
func (c Config) OpenLedger(ctx context.Context) (*pgxpool.Pool, *ledger.Ledger, error) {
	dsn, err := c.ReadDSN()
	if err != nil {
		return nil, nil, err
	}
	if dsn == "" {
		return nil, nil, errors.New("there is no effect ledger: set postgres.dsn_file, or PROCESSOR_POSTGRES_DSN")
	}
	pool, err := postgres.Open(ctx, postgres.Config{DSN: dsn, ConnsMax: int32(c.Postgres.Connections), Credentials: c.ReadDSN}) //nolint:gosec // at most 1000
	if err != nil {
		return nil, nil, fmt.Errorf("postgres: %w", err)
	}
	return pool, ledger.Open(pool, ledger.Config{
		Schema: c.Postgres.Schema, Retention: c.Effects.Retention.Std(), BusinessKeys: c.Effects.KeysFor.Std(),
	}), nil
}

// openEffects returns nil where this process has no ledger.
func (s *service) openEffects(ctx context.Context, client []kgo.Opt, registry *prometheus.Registry, migrate bool) (*effects, error) {
	c := s.conf
	if !c.HasLedger() {
		return nil, nil //nolint:nilnil // said above
	}
	pool, store, err := c.OpenLedger(ctx)
	if err != nil {
		return nil, err
	}
	e := &effects{
		log: s.log, pool: pool, ledger: store, migrations: ledger.Migrations(c.Postgres.Schema), migrate: migrate,
		tenures: map[int32]outbox.Tenure{},
	}
	e.watch = newIngestWatch(c.EffectsTopic(), s.kafka, s.client, func() []ingest.Status { return e.ingester.Status() })
	if err := e.assemble(c, client, s.telemetry, s.tracing, registry); err != nil { //nolint:contextcheck // nothing runs yet
		e.close()
		return nil, fmt.Errorf("configure the effect ledger: %w", err)
	}
	return e, nil
}

// assemble makes the parts and joins them by their hooks.
func (e *effects) assemble(c Config, client []kgo.Opt, watch *telemetry.Telemetry, tracing *telemetry.Tracing, registry *prometheus.Registry) (err error) {
	e.telemetry, err = telemetry.NewLedger(watch, telemetry.LedgerConfig{
		Registry: registry, Endpoints: c.EndpointNames(), Backlog: e.backlog,
		Waiting: e.watch.waiting, Retention: c.Effects.Retention.Std(),
		Ingest:   func() []ingest.Status { return e.ingester.Status() },
		Dispatch: func() dispatch.Status { return e.dispatcher.Status() },
		Relay:    func() relay.Status { return e.relay.Status() },
	})
	if err == nil {
		err = e.openDispatcher(c, tracing)
	}
	if err == nil {
		e.relay, err = relay.New(relay.Config{
			Client: client, Application: c.Application, ResultsTopic: c.ResultsTopic(), ProgressTopic: c.ProgressTopic(),
			Store: e.ledger, Tenure: e.tenure, Hooks: e.telemetry.Relay(),
		})
	}
	if err == nil {
		e.ingester, err = ingest.New(ingest.Config{
			Client: client, Topic: c.EffectsTopic(), Lanes: int(c.Effects.Lanes), Results: c.ResultsTopic(), Group: c.LedgerGroup(), InstanceID: c.owner(),
			SessionTimeout: c.Kafka.SessionTimeout.Std(), Heartbeat: c.Kafka.Heartbeat.Std(), RebalanceTimeout: c.Kafka.RebalanceTimeout.Std(),
			Store: e.ledger, BatchMax: ingestRecords, BytesMax: ingestBytes,
			Hooks: e.telemetry.Ingest(ingest.Hooks{
				Assigned: func(lane int32) { e.dispatcher.Assign(lane) },
				Revoked:  func(lane int32) { e.dispatcher.Unassign(lane) },
				Ingested: func(batch outbox.Batch) { e.dispatcher.Offer(batch) },
				Landed:   func(lane int32, next int64) { e.dispatcher.Offer(outbox.Batch{Lane: lane, Base: next, Next: next}) },
			}),
		})
	}
	return err
}

// owner names this process to the ledger and to the group of its lanes. A process that is started
// again takes its lanes up at once.
func (c Config) owner() string { return c.Application + "." + c.Instance }

func (e *effects) openDispatcher(c Config, tracing *telemetry.Tracing) (err error) {
	config := dispatch.Config{
		Store: e.ledger, Endpoints: map[string]dispatch.Endpoint{}, Owner: c.owner(),
		LeaseTTL: leaseMin, DrainTimeout: c.Txn.DrainTimeout.Std(), StrangerAgeMax: strangerAge,
	}
	for _, name := range slices.Sorted(maps.Keys(c.Endpoints)) {
		endpoint := c.Endpoints[name]
		target, err := httptarget.New(httptarget.Config{
			URL: endpoint.URL, Headers: endpoint.headers(), HeaderFiles: endpoint.HeaderFiles, SecretFiles: endpoint.SecretFiles,
			AllowPrivate: endpoint.AllowPrivate, Concurrency: endpoint.Concurrency,
			Hooks: httptarget.Hooks{Secret: func(file string, err error) { e.tellSecret(name, file, err) }},
		})
		if err != nil {
			return fmt.Errorf("endpoints.%s: %w", name, err)
		}
		e.targets = append(e.targets, target)
		config.Endpoints[name] = dispatch.Endpoint{
			Target: tracing.Target(name, target), Timeout: endpoint.Timeout.Std(), AttemptsMax: endpoint.AttemptsMax, AgeMax: endpoint.AgeMax.Std(),
			Concurrency: endpoint.Concurrency, Rate: endpoint.Rate, OnDead: dispatch.OnDead(endpoint.OnDead),
		}
		config.LeaseTTL = max(config.LeaseTTL, endpoint.Timeout.Std()+leaseSpare)
		config.Workers = min(workersMax, config.Workers+endpoint.Concurrency)
	}
	config.Workers = max(1, config.Workers)
	config.Hooks = e.telemetry.Dispatch(dispatch.Hooks{
		Owned:   e.owned,
		Lost:    e.lost,
		Flushed: func(flushed dispatch.Flushed) { e.relay.Wake(flushed.Lane) },
	})
	e.dispatcher, err = dispatch.New(config)
	return err
}

// headers gives what is sent, in the clear.
func (e Endpoint) headers() map[string]string {
	headers := make(map[string]string, len(e.Headers))
	for name, value := range e.Headers {
		headers[name] = value.Reveal()
	}
	return headers
}

// owned and lost keep the relay to the lanes that are dispatched here, so that two relays need not
// fence each other.
func (e *effects) owned(lane int32, epoch int64) {
	e.mu.Lock()
	e.tenures[lane] = outbox.Tenure{Lane: lane, Epoch: epoch}
	e.mu.Unlock()
	e.relay.Assign(lane)
}

func (e *effects) lost(lane int32, _ int64) {
	e.mu.Lock()
	delete(e.tenures, lane)
	e.mu.Unlock()
	e.relay.Unassign(lane)
}

func (e *effects) tenure(lane int32) (outbox.Tenure, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	tenure, owned := e.tenures[lane]
	return tenure, owned
}

func (e *effects) tellSecret(endpoint, file string, err error) {
	if err != nil {
		e.log.Warn("a secret of an endpoint has changed and can't be used; the last good one stays",
			slog.String("endpoint", endpoint), slog.String("file", file), slog.Any("err", err))
		return
	}
	e.log.Info("a secret of an endpoint has changed", slog.String("endpoint", endpoint), slog.String("file", file))
}

func (e *effects) close() {
	if e == nil {
		return
	}
	for _, target := range e.targets {
		target.Close()
	}
	e.pool.Close()
}

// run works until ctx ends, then finishes the calls under way, writes down what they brought and
// tells what can still be told. A database that is away is waited for, at the start and later: the
// stream of records goes on without it.
func (e *effects) run(ctx context.Context) error {
	if !e.awaitSchema(ctx) {
		return nil
	}
	// Who ends later: ingest, then dispatch, then relay, so that none waits for one that has gone.
	var work errgroup.Group
	dispatching, endDispatch := context.WithCancel(context.WithoutCancel(ctx))
	defer endDispatch()
	relaying, endRelay := context.WithCancel(context.WithoutCancel(ctx))
	defer endRelay()
	work.Go(func() error { return e.telemetry.Run(ctx) })
	work.Go(func() error { e.upkeep(ctx); return nil })
	work.Go(func() error { return e.relay.Run(relaying) })
	work.Go(func() error {
		defer endRelay()
		return e.dispatcher.Run(dispatching)
	})
	work.Go(func() error {
		defer endDispatch()
		return e.ingester.Run(ctx)
	})
	return work.Wait()
}

// leave makes the lanes move to other processes as soon as run has ended.
func (e *effects) leave() {
	if e != nil {
		e.ingester.Leave()
	}
}

// awaitSchema returns false when ctx ends first.
func (e *effects) awaitSchema(ctx context.Context) bool {
	var told string
	for {
		err := e.checkSchema(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if text := err.Error(); text != told {
			told = text
			e.log.Warn("the effect ledger can't be used yet, effects wait on their topic", slog.Any("err", err))
		}
		timer := time.NewTimer(schemaPause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
}

// errSchemaBehind keeps the process unready: an operator has to do something.
var errSchemaBehind = errors.New("the ledger's schema is behind this release")

func (e *effects) checkSchema(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, schemaTimeout)
	defer cancel()
	if e.migrate {
		applied, err := postgres.Migrate(ctx, e.pool, e.migrations)
		if err != nil {
			return err
		}
		e.migrate = false
		e.log.Info("the ledger's schema is up to date", slog.Any("applied", applied))
	}
	version, err := postgres.Status(asking, e.pool, e.migrations)
	if err == nil && version.Behind() {
		err = fmt.Errorf("%w: it has version %d, want %d: run `processor migrate up`, or start with --migrate", errSchemaBehind, version.Current, version.Wanted)
	}
	if err == nil {
		// Generations must be there before the first effect comes.
		err = e.ledger.Maintain(asking, time.Now())
	}
	if err != nil && ctx.Err() == nil {
		e.telemetry.Refused(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.schema = nil
	if errors.Is(err, errSchemaBehind) {
		e.schema = err
	}
	return err
}

// ready fails where the schema is behind. A database that is away makes the process degraded, not
// unready: outputs flow without it.
func (e *effects) ready(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.schema
}

// upkeep makes and drops generations; whichever process is first does it for all.
func (e *effects) upkeep(ctx context.Context) {
	ticker := time.NewTicker(upkeepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		working, cancel := context.WithTimeout(ctx, upkeepTimeout)
		if err := e.ledger.Maintain(working, time.Now()); err != nil && ctx.Err() == nil {
			e.log.Warn("upkeep of the effect ledger failed, it is tried again", slog.Any("err", err))
		}
		cancel()
	}
}

func (e *effects) backlog(ctx context.Context) ([]telemetry.Backlog, error) {
	sums, err := e.ledger.Summary(ctx)
	if err != nil {
		return nil, err
	}
	backlog := make([]telemetry.Backlog, 0, len(sums))
	for _, sum := range sums {
		one := telemetry.Backlog{Endpoint: sum.Endpoint, Pending: sum.Pending, Parked: sum.Parked, Dead: sum.Dead}
		if !sum.Oldest.IsZero() {
			one.Oldest = max(0, time.Since(sum.Oldest))
		}
		backlog = append(backlog, one)
	}
	return backlog, nil
}

// EffectsStatus is the ledger's part of the status of a process.
type EffectsStatus struct {
	Away     *LedgerAway     `json:"away,omitempty"` // absent while the ledger can be asked
	Ingest   []IngestStatus  `json:"ingest"`
	Dispatch dispatch.Status `json:"dispatch"`
	Relay    relay.Status    `json:"relay"`
}

// LedgerAway says that a process cannot use the ledger. Its lanes of effects are not known as long as it has not been able to
// since it began.
type LedgerAway struct {
	Since time.Time `json:"since"`
	Error string    `json:"error"`
	Next  string    `json:"next"` // what to do
}

// away is nil while the ledger can be asked, and where this process has none.
func (e *effects) away(censor *censor) *LedgerAway {
	if e == nil {
		return nil
	}
	since, why := e.telemetry.Down()
	if since.IsZero() {
		return nil
	}
	next := "`processor migrate status` says why its database cannot be had; bring that back and restart nothing"
	if errors.Is(why, errSchemaBehind) {
		next = "run `processor migrate up`, and restart nothing"
	}
	return &LedgerAway{Since: since.UTC(), Error: censor.text(why.Error()), Next: next}
}

// IngestStatus is one lane of the effects topic on its way into the ledger.
type IngestStatus struct {
	Lane  int32     `json:"lane"`
	State string    `json:"state"`
	Next  int64     `json:"next"` // everything below is in the ledger; -1 until that has said where it stands
	End   int64     `json:"end"`  // of what is committed on the topic, as last seen; in an outage of the ledger too
	Since time.Time `json:"since,omitzero"`
	Error string    `json:"error,omitempty"`
}

func (e *effects) status(censor *censor) *EffectsStatus {
	if e == nil {
		return nil
	}
	status := &EffectsStatus{Away: e.away(censor), Dispatch: e.dispatcher.Status(), Relay: e.relay.Status()}
	for _, lane := range e.ingester.Status() {
		one := IngestStatus{Lane: lane.Lane, State: string(lane.State), Next: lane.Next, End: lane.End, Since: lane.Since}
		if lane.Err != nil {
			one.Error = lane.Err.Error()
		}
		status.Ingest = append(status.Ingest, one)
	}
	slices.SortFunc(status.Ingest, func(a, b IngestStatus) int { return cmp.Compare(a.Lane, b.Lane) })
	return status
}
