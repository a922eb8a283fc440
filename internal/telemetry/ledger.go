package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pawl/internal/outbox"
	"pawl/internal/outbox/dispatch"
	"pawl/internal/outbox/ingest"
	"pawl/internal/outbox/relay"
)

// stranger stands for the endpoints that this process does not know: names that come with records
// are no closed set.
const stranger = "unknown"

// Values of the label outcome of processor_outbox_attempts_total.
const (
	answerAccepted  = "accepted"  // 2xx
	answerRefused   = "refused"   // any other answer that waiting would not mend
	answerLater     = "later"     // 408, 409, 425, 429 and 5xx
	answerNone      = "no_answer" // nothing came back
	statusAccepted  = 200         // up to 299
	statusRedirects = 300         // the first that is not accepted
	statusServer    = 500         // the first that is the server's fault
	summaryInterval = 15 * time.Second
	summaryTimeout  = 10 * time.Second
)

func answers() []string { return []string{answerAccepted, answerRefused, answerLater, answerNone} }

// Values of the label part of processor_outbox_retries_total.
const (
	partIngest   = "ingest"
	partDispatch = "dispatch"
	partRelay    = "relay"
)

func parts() []string { return []string{partIngest, partDispatch, partRelay} }

func statuses() []outbox.Status {
	return []outbox.Status{outbox.Done, outbox.Dead, outbox.Unknown, outbox.Duplicate, outbox.Conflict}
}

// Backlog is what the ledger holds for one endpoint.
type Backlog struct {
	Endpoint string
	Pending  int64 // neither settled nor parked
	Parked   int64
	Dead     int64
	Oldest   time.Duration // age of the oldest that is not settled, 0 where there is none
}

// LedgerConfig says what a LedgerTelemetry watches.
type LedgerConfig struct {
	Registry  *prometheus.Registry
	Endpoints []string

	Ingest   func() []ingest.Status
	Dispatch func() dispatch.Status
	Relay    func() relay.Status
	Backlog  func(ctx context.Context) ([]Backlog, error) // asked every few seconds while Run runs
	// Waiting tells for each lane of this process how long the oldest effect that is not in the ledger has been
	// on the topic; asked as often.
	Waiting   func(ctx context.Context) (map[int32]time.Duration, error)
	Retention time.Duration // of the effects topic
}

// LedgerTelemetry holds the metrics of the effect ledger's part of a process. Log lines are thinned
// out together with the others of the process.
type LedgerTelemetry struct {
	t      *Telemetry
	config LedgerConfig

	ingested, suppressed, unlisted prometheus.Counter
	overtaken, fenced              prometheus.Counter
	events, skipped, diverged      prometheus.Counter
	retries                        *prometheus.CounterVec
	attempts, settled, parked      *prometheus.CounterVec
	delivery                       *prometheus.HistogramVec
	flush, reaction                prometheus.Histogram
	known                          map[string]bool

	exemplars exemplars // of calls

	mu      sync.Mutex
	backlog []Backlog
	waiting map[int32]time.Duration
	up      bool
	down    time.Time // since when the ledger cannot be asked, zero where it can be or was not asked yet
	why     error
}

// NewLedger registers the metrics of the effect ledger beside those of t.
func NewLedger(t *Telemetry, config LedgerConfig) (*LedgerTelemetry, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Subsystem: "outbox", Name: name, Help: help})
	}
	vector := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: "outbox", Name: name, Help: help}, labels)
	}
	options := func(name, help string, buckets []float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: "outbox", Name: name, Help: help, Buckets: buckets,
			NativeHistogramBucketFactor: nativeFactor, NativeHistogramMaxBucketNumber: nativeMax, NativeHistogramMinResetDuration: nativeReset,
		}
	}
	latencies := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	l := &LedgerTelemetry{
		t: t, config: config, known: map[string]bool{},
		ingested:   counter("ingested_effects_total", "Effects brought from the effects topic into the ledger."),
		suppressed: counter("suppressed_effects_total", "Effects left out because a rewound input had asked for them before."),
		unlisted:   counter("unlisted_aborted_records_total", "Records of aborted transactions that a broker gave as committed; none was ingested."),
		overtaken:  counter("ingest_overtaken_total", "Batches refused because the ledger stood elsewhere: another ingester was faster, or it was restored."),
		fenced:     counter("fenced_total", "Lanes lost to another owner, or because the lease ran out."),
		events:     counter("results_total", "Result events written to the results topic by committed transactions."),
		skipped:    counter("results_skipped_total", "Outcomes that had been told before the ledger was restored."),
		diverged:   counter("relay_diverged_total", "Times that the ledger was found to be another one than was relayed so far."),
		retries:    vector("retries_total", "Work of the ledger that failed and is tried again, by part.", "part"),
		attempts:   vector("attempts_total", "Calls to endpoints by what came back.", "sink", "outcome"),
		settled:    vector("settled_effects_total", "Effects whose fate is final, by endpoint and fate.", "sink", "status"),
		parked:     vector("parked_effects_total", "Effects put aside to be sent later, by endpoint.", "sink"),
		delivery:   prometheus.NewHistogramVec(options("delivery_duration_seconds", "Duration of a call to an endpoint.", latencies), []string{"sink"}),
		flush:      prometheus.NewHistogram(options("flush_duration_seconds", "Time to write the outcomes of a lane to the ledger.", latencies)),
		reaction:   prometheus.NewHistogram(options("first_attempt_age_seconds", "Age of an effect when its first call began, from its time on the effects topic.", latencies)),
	}
	for _, part := range parts() {
		l.retries.WithLabelValues(part)
	}
	for _, endpoint := range append([]string{stranger}, config.Endpoints...) {
		l.known[endpoint] = true
		for _, status := range statuses() {
			l.settled.WithLabelValues(endpoint, string(status))
		}
		l.parked.WithLabelValues(endpoint)
		if endpoint == stranger {
			continue // no call is made to it
		}
		l.delivery.WithLabelValues(endpoint)
		for _, answer := range answers() {
			l.attempts.WithLabelValues(endpoint, answer)
		}
	}
	for _, collector := range []prometheus.Collector{
		l.ingested, l.suppressed, l.unlisted, l.overtaken, l.fenced, l.events, l.skipped, l.diverged,
		l.retries, l.attempts, l.settled, l.parked, l.delivery, l.flush, l.reaction, l,
	} {
		if err := config.Registry.Register(collector); err != nil {
			return nil, fmt.Errorf("register metrics of the ledger: %w", err)
		}
	}
	return l, nil
}

// Run asks for the backlog until ctx ends. It returns nil.
func (l *LedgerTelemetry) Run(ctx context.Context) error {
	ticker := time.NewTicker(summaryInterval)
	defer ticker.Stop()
	for {
		l.askBacklog(ctx)
		l.askWaiting(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (l *LedgerTelemetry) askBacklog(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, summaryTimeout)
	defer cancel()
	backlog, err := l.config.Backlog(ctx)
	if err != nil {
		backlog = nil // old figures would look like new ones
		if ctx.Err() == nil {
			l.retry(partDispatch, ingest.NoLane, fmt.Errorf("look up backlog: %w", err)) //nolint:contextcheck // a line of the log needs none
		}
	}
	l.answered(backlog, err)
}

// answered notes what the ledger has said, or why it has not.
func (l *LedgerTelemetry) answered(backlog []Backlog, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.backlog, l.up, l.why = backlog, err == nil, err
	switch {
	case l.up:
		l.down = time.Time{}
	case l.down.IsZero():
		l.down = time.Now()
	}
}

// Refused notes that the ledger cannot be used, for whoever finds that out before Run begins to ask.
func (l *LedgerTelemetry) Refused(err error) { l.answered(nil, err) }

// Down says since when the ledger cannot be asked, and why. The time is zero where it can be.
func (l *LedgerTelemetry) Down() (since time.Time, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down, l.why
}

// askWaiting asks the brokers. They may be away while the database is there, and the other way round.
func (l *LedgerTelemetry) askWaiting(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, summaryTimeout)
	defer cancel()
	waiting, err := l.config.Waiting(ctx)
	if err != nil {
		waiting = nil // as with the backlog
		if ctx.Err() == nil {
			l.retry(partIngest, ingest.NoLane, fmt.Errorf("look up what waits on the effects topic: %w", err)) //nolint:contextcheck // a line of the log needs none
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = waiting
}

// sink is the label for an endpoint.
func (l *LedgerTelemetry) sink(endpoint string) string {
	if l.known[endpoint] {
		return endpoint
	}
	return stranger
}

// Ingest adds to the hooks of an ingester what counts and logs.
func (l *LedgerTelemetry) Ingest(hooks ingest.Hooks) ingest.Hooks {
	own := hooks
	own.Ingested = func(batch outbox.Batch) {
		l.ingested.Add(float64(len(batch.Intents)))
		l.suppressed.Add(float64(batch.Suppressed))
		if batch.Suppressed > 0 {
			l.line(slog.LevelWarn, "effects suppressed: the input was rewound", "", batch.Lane, slog.Int("effects", batch.Suppressed))
		}
		call(hooks.Ingested, batch)
	}
	own.Unlisted = func(lane int32, records int64) {
		l.unlisted.Add(float64(records))
		l.line(slog.LevelWarn, "a broker gave aborted effects as committed: none was ingested", "", lane, slog.Int64("records", records))
		call2(hooks.Unlisted, lane, records)
	}
	own.Overtaken = func(lane int32) {
		l.overtaken.Inc()
		call(hooks.Overtaken, lane)
	}
	own.Halted = func(lane int32, err error) {
		l.line(slog.LevelError, "lane of effects halted", partIngest, lane, slog.Any("err", err))
		call2(hooks.Halted, lane, err)
	}
	own.Retrying = func(lane int32, err error) {
		l.retry(partIngest, lane, err)
		call2(hooks.Retrying, lane, err)
	}
	return own
}

// Dispatch adds to the hooks of a dispatcher what counts and logs.
func (l *LedgerTelemetry) Dispatch(hooks dispatch.Hooks) dispatch.Hooks {
	own := hooks
	own.Sent = func(sent dispatch.Sent) {
		if sent.Attempt == 1 {
			l.reaction.Observe(max(0, time.Since(sent.At).Seconds()))
		}
		call(hooks.Sent, sent)
	}
	own.Answered = func(answered dispatch.Answered) {
		sink := l.sink(answered.Endpoint)
		l.attempts.WithLabelValues(sink, answerOf(answered.Status)).Inc()
		if delivery := l.delivery.WithLabelValues(sink); l.exemplars.due(time.Now()) {
			observeAs(delivery, answered.Duration.Seconds(), prometheus.Labels{exemplarEffect: effectName(answered.Lane, answered.Offset)})
		} else {
			delivery.Observe(answered.Duration.Seconds())
		}
		call(hooks.Answered, answered)
	}
	own.Settled = func(settled dispatch.Settled) {
		sink := l.sink(settled.Endpoint)
		l.settled.WithLabelValues(sink, string(settled.Status)).Inc()
		if settled.Status == outbox.Dead || settled.Status == outbox.Unknown || settled.Status == outbox.Conflict {
			l.line(slog.LevelWarn, "effect not delivered", sink+" "+string(settled.Status), settled.Lane, slog.Int64("offset", settled.Offset),
				slog.String("endpoint", sink), slog.String("status", string(settled.Status)), slog.Int("attempts", settled.Attempts))
		}
		call(hooks.Settled, settled)
	}
	own.Parked = func(parked dispatch.Parked) {
		l.parked.WithLabelValues(l.sink(parked.Endpoint)).Inc()
		call(hooks.Parked, parked)
	}
	own.Flushed = func(flushed dispatch.Flushed) {
		l.flush.Observe(flushed.Duration.Seconds())
		call(hooks.Flushed, flushed)
	}
	own.Breaker = func(breaker dispatch.Breaker) {
		l.t.log.LogAttrs(context.Background(), slog.LevelWarn, "breaker of endpoint changed",
			slog.String("endpoint", breaker.Endpoint), slog.String("state", string(breaker.State)))
		call(hooks.Breaker, breaker)
	}
	own.Fenced = func(lane int32, epoch int64) {
		l.fenced.Inc()
		l.line(slog.LevelWarn, "lane of effects fenced", "", lane, slog.Int64("epoch", epoch))
		call2(hooks.Fenced, lane, epoch)
	}
	own.Retrying = func(lane int32, err error) {
		l.retry(partDispatch, lane, err)
		call2(hooks.Retrying, lane, err)
	}
	return own
}

// Relay gives the hooks of a relay.
func (l *LedgerTelemetry) Relay() relay.Hooks {
	return relay.Hooks{
		Relayed: func(relayed relay.Relayed) {
			l.events.Add(float64(relayed.Events))
			l.skipped.Add(float64(relayed.Skipped))
			l.t.tracing.relayed(&relayed)
		},
		Diverged: func(diverged relay.Diverged) {
			l.diverged.Inc()
			l.line(slog.LevelError, "ledger is not the one that was relayed: told results are read back", "", diverged.Lane,
				slog.String("why", diverged.Why), slog.Int("told", diverged.Told))
		},
		Trimmed: func(trimmed relay.Trimmed) {
			l.line(slog.LevelWarn, "result event too large: the response was left out", "", trimmed.Lane, slog.Int64("offset", trimmed.Offset))
		},
		Halted: func(lane int32, err error) {
			l.line(slog.LevelError, "relay of lane halted", "", lane, slog.Any("err", err))
		},
		Fenced: func(lane int32, err error) {
			l.line(slog.LevelWarn, "relay of lane fenced", "", lane, slog.Any("err", err))
		},
		GaveUp: func(lane int32) {
			l.line(slog.LevelWarn, "relay of lane given up: another owner has it", "", lane)
		},
		Retrying: func(lane int32, err error) { l.retry(partRelay, lane, err) },
	}
}

func (l *LedgerTelemetry) retry(part string, lane int32, err error) {
	l.retries.WithLabelValues(part).Inc()
	l.line(slog.LevelWarn, "retrying work of the ledger", part, lane, slog.String("part", part), slog.Any("err", err))
}

// line writes a line that floods are thinned out of; label tells sorts of one message apart.
func (l *LedgerTelemetry) line(level slog.Level, message, label string, lane int32, attrs ...slog.Attr) {
	suppressed, pass := l.t.pass(context.Background(), level, kind{message, label})
	if !pass {
		return
	}
	if lane != ingest.NoLane {
		attrs = append([]slog.Attr{slog.Int("effects_lane", int(lane))}, attrs...)
	}
	l.t.log.LogAttrs(context.Background(), level, message, append(attrs, suppressed)...) //nolint:sloglint // every caller's is a constant
}

func answerOf(status int) string {
	switch {
	case status == 0:
		return answerNone
	case status >= statusAccepted && status < statusRedirects:
		return answerAccepted
	case status >= statusServer, status == 408, status == 409, status == 425, status == 429:
		return answerLater
	default:
		return answerRefused
	}
}

type ledgerDescs struct {
	effects, oldest, breaker, paused, inFlight, limit, saturated, window, lanes, halted, lag, waiting, retention, up, down, untold *prometheus.Desc
}

func describeLedger() ledgerDescs {
	return ledgerDescs{
		effects: prometheus.NewDesc("processor_outbox_effects",
			"Effects in the ledger by state (pending, parked, dead) and endpoint; absent while the database does not tell.", []string{"state", "sink"}, nil),
		oldest: prometheus.NewDesc("processor_outbox_oldest_pending_age_seconds",
			"Age of the oldest effect of an endpoint that is not settled; 0 where there is none.", []string{"sink"}, nil),
		breaker: prometheus.NewDesc("processor_outbox_breaker_state",
			"1 for the state that the breaker of an endpoint is in.", []string{"sink", "state"}, nil),
		paused: prometheus.NewDesc("processor_outbox_paused",
			"1 while an operator holds an endpoint, so that this process does not call it, else 0.", []string{"sink"}, nil),
		inFlight: prometheus.NewDesc("processor_outbox_calls_in_flight",
			"Calls to an endpoint that this process has under way.", []string{"sink"}, nil),
		limit: prometheus.NewDesc("processor_outbox_calls_limit",
			"Calls to an endpoint that this process makes at a time at most; a dispatcher with as many in flight is saturated.", []string{"sink"}, nil),
		saturated: prometheus.NewDesc("processor_outbox_saturated_seconds_total",
			"Time in which a call to an endpoint waited for what bounds its calls: concurrency or rate of the endpoint, or the calls of this process at once (workers). Its rate is the share of the time.", []string{"sink", "by"}, nil),
		window: prometheus.NewDesc("processor_outbox_window_effects",
			"Effects that a lane has in memory and that are not settled.", []string{"lane"}, nil),
		waiting: prometheus.NewDesc("processor_outbox_ingest_lag_seconds",
			"How long the oldest effect of a lane that is not in the ledger has been on its topic; 0 where none is. Absent until the ledger has said where the lane stands, and while the brokers do not tell.", []string{"lane"}, nil),
		retention: prometheus.NewDesc("processor_outbox_retention_seconds",
			"How long the effects topic keeps effects: what has not come into the ledger by then is lost.", nil, nil),
		up: prometheus.NewDesc("processor_outbox_ledger_up",
			"1 if the ledger's database answered the last question about what it holds, asked every 15 s, else 0; 0 while its schema is behind too.", nil, nil),
		down: prometheus.NewDesc("processor_outbox_ledger_down_seconds",
			"How long this process has not been able to use the ledger's database, from the first question without an answer; 0 while it can.", nil, nil),
		lanes: prometheus.NewDesc("processor_outbox_owned_lanes",
			"Lanes of the effects topic that this process dispatches.", nil, nil),
		halted: prometheus.NewDesc("processor_outbox_halted_lanes",
			"Lanes that wait for an operator, by part; the log says for what.", []string{"part"}, nil),
		lag: prometheus.NewDesc("processor_outbox_ingest_lag_offsets",
			"Offsets of a lane that are committed and not yet in the ledger, markers included; absent until the ledger has said where the lane stands.", []string{"lane"}, nil),
		untold: prometheus.NewDesc("processor_outbox_relay_seq",
			"Number of the last flush of a lane whose results were told.", []string{"lane"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (l *LedgerTelemetry) Describe(descs chan<- *prometheus.Desc) {
	d := describeLedger()
	for _, desc := range []*prometheus.Desc{
		d.effects, d.oldest, d.breaker, d.paused, d.inFlight, d.limit, d.saturated, d.window, d.lanes, d.halted, d.lag, d.waiting, d.retention, d.up, d.down, d.untold,
	} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (l *LedgerTelemetry) Collect(metrics chan<- prometheus.Metric) {
	d := describeLedger()
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...) //nolint:promlinter // it cannot read a parameter; the names stand in describeLedger and a test lints them
	}
	l.mu.Lock()
	backlog, waiting, up, down := l.backlog, l.waiting, 0.0, 0.0
	if l.up {
		up = 1
	}
	if !l.down.IsZero() {
		down = time.Since(l.down).Seconds()
	}
	l.mu.Unlock()
	gauge(d.up, up)
	gauge(d.down, down)
	l.collectBacklog(backlog, gauge)
	l.collectDispatch(gauge, func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, value, labels...) //nolint:promlinter // as above
	})
	halted := map[string]int{partIngest: 0, partRelay: 0}
	for _, lane := range l.config.Ingest() {
		number := strconv.Itoa(int(lane.Lane))
		if lane.State == ingest.Halted {
			halted[partIngest]++
		}
		if lane.Next >= 0 {
			gauge(d.lag, float64(max(0, lane.End-lane.Next)), number)
		}
		if wait, known := waiting[lane.Lane]; known {
			gauge(d.waiting, wait.Seconds(), number)
		}
	}
	gauge(d.retention, l.config.Retention.Seconds())
	for _, lane := range l.config.Relay().Lanes {
		if lane.Phase == relay.PhaseHalted {
			halted[partRelay]++
		}
		gauge(d.untold, float64(lane.Seq), strconv.Itoa(int(lane.Lane)))
	}
	for part, count := range halted {
		gauge(d.halted, float64(count), part)
	}
}

// emit shows one series at a scrape.
type emit func(desc *prometheus.Desc, value float64, labels ...string)

func (l *LedgerTelemetry) collectBacklog(backlog []Backlog, show emit) {
	d := describeLedger()
	sums := map[string]*Backlog{}
	for _, one := range backlog {
		sink := l.sink(one.Endpoint)
		sum := sums[sink]
		if sum == nil {
			sum = &Backlog{Endpoint: sink}
			sums[sink] = sum
		}
		sum.Pending, sum.Parked, sum.Dead, sum.Oldest = sum.Pending+one.Pending, sum.Parked+one.Parked, sum.Dead+one.Dead, max(sum.Oldest, one.Oldest)
	}
	for sink, sum := range sums {
		show(d.effects, float64(sum.Pending), "pending", sink)
		show(d.effects, float64(sum.Parked), "parked", sink)
		show(d.effects, float64(sum.Dead), "dead", sink)
		show(d.oldest, sum.Oldest.Seconds(), sink)
	}
}

func (l *LedgerTelemetry) collectDispatch(show, counted emit) {
	d := describeLedger()
	dispatching := l.config.Dispatch()
	for _, endpoint := range dispatching.Endpoints {
		show(d.inFlight, float64(endpoint.InFlight), endpoint.Endpoint)
		show(d.limit, float64(endpoint.Limit), endpoint.Endpoint)
		for _, by := range dispatch.Bounds() {
			counted(d.saturated, endpoint.Saturation[by].Seconds(), endpoint.Endpoint, string(by))
		}
		paused := 0.0
		if endpoint.Paused {
			paused = 1
		}
		show(d.paused, paused, endpoint.Endpoint)
		for _, state := range dispatch.States() {
			value := 0.0
			if endpoint.Breaker == state {
				value = 1
			}
			show(d.breaker, value, endpoint.Endpoint, string(state))
		}
	}
	owned := 0
	for _, lane := range dispatching.Lanes {
		if lane.Owner {
			owned++
			show(d.window, float64(lane.Window), strconv.Itoa(int(lane.Lane)))
		}
	}
	show(d.lanes, float64(owned))
}

func call[A any](f func(A), a A) {
	if f != nil {
		f(a)
	}
}

func call2[A, B any](f func(A, B), a A, b B) {
	if f != nil {
		f(a, b)
	}
}
