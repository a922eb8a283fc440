package telemetry

import (
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"pawl/internal/txn"
)

const namespace = "processor"

// Values of the label outcome of processor_records_total. A record that was redone counts once as
// aborted or unknown for each time, and once as committed or rejected.
const (
	recordCommitted = "committed"
	recordRejected  = "rejected"
	recordAborted   = "aborted"
	recordUnknown   = "unknown"
)

func recordOutcomes() []string {
	return []string{recordCommitted, recordRejected, recordAborted, recordUnknown}
}

// Values of the label kind of processor_rebalances_total.
const (
	rebalanceAssigned = "assigned"
	rebalanceRevoked  = "revoked"
	rebalanceLost     = "lost"
)

func rebalanceKinds() []string {
	return []string{rebalanceAssigned, rebalanceRevoked, rebalanceLost}
}

const (
	reasonNone     = "none"  // of a transaction that committed
	reasonOther    = "other" // of dead letters, where a handler's own label cannot be one
	reasonBytesMax = 40      // of a dead letter's reason
	deadLettersMax = 256     // series of processor_dead_letter_records_total

	// Every histogram has classic buckets and native ones, for whoever reads it.
	nativeFactor = 1.1 // neighbouring buckets differ by at most a tenth
	nativeMax    = 160
	nativeReset  = time.Hour // at the earliest, where there are more buckets
)

type recordKey struct{ topic, handler, outcome string }

type transactionKey struct {
	outcome txn.Outcome
	reason  txn.Reason
}

type deadLetterKey struct{ topic, reason string }

// metrics are what is counted and observed. Hooks run once per transaction, or at most once per
// topic of one, and find their series in a map: no label is looked up per record.
type metrics struct {
	recordsVec, outputsVec, transactionsVec, rebalancesVec *prometheus.CounterVec
	rebuildsVec, deadLettersVec, suspectsVec, fencedVec    *prometheus.CounterVec
	spansVec                                               *prometheus.CounterVec
	handlerVec                                             *prometheus.HistogramVec

	records      children[recordKey, prometheus.Counter]
	outputs      children[string, prometheus.Counter]
	transactions children[transactionKey, prometheus.Counter]
	deadLetters  children[deadLetterKey, prometheus.Counter]
	handler      children[string, prometheus.Observer]

	transactionDuration, transactionRecords, endToEnd prometheus.Histogram
	buried, retries, lagFailures, unlisted            prometheus.Counter
	twin                                              prometheus.Gauge

	exemplars exemplars // of transactions
	traced    exemplars // of those whose spans are recorded

	info []prometheus.Collector
}

func newMetrics(config Config) *metrics {
	m := &metrics{
		recordsVec: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "records_total",
			Help: "Input records by what became of them; a redone record counts as aborted or unknown each time.",
		}, []string{"topic", "handler", "outcome"}),
		outputsVec: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "output_records_total",
			Help: "Records written by committed transactions.",
		}, []string{"topic"}),
		transactionsVec: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "transactions_total",
			Help: "Transactions ended, by outcome and by the reason where they did not commit.",
		}, []string{"outcome", "reason"}),
		rebalancesVec: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "rebalances_total",
			Help: "Changes of the partitions a lane owns, by kind.",
		}, []string{"kind"}),
		rebuildsVec: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "session_rebuilds_total",
			Help: "Sessions discarded and made anew, by reason.",
		}, []string{"reason"}),
		deadLettersVec: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "dead_letter_records_total",
			Help: "Input records that went to the dead-letter topic, by topic of origin and reason.",
		}, []string{"topic", "reason"}),
		suspectsVec: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "suspected_batches_total",
			Help: "Batches shrunk to find a record that does harm, by the reason of the last abort.",
		}, []string{"reason"}),
		spansVec: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "spans_total",
			Help: "Spans by what became of them: exported, or dropped because the queue was full (queue_full) or the collector did not take them (failed).",
		}, []string{"outcome"}),
		handlerVec: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "handler_duration_seconds",
			Help:                            "Time that a handler took for its share of one batch.",
			Buckets:                         []float64{.00001, .0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5, 10},
			NativeHistogramBucketFactor:     nativeFactor,
			NativeHistogramMaxBucketNumber:  nativeMax,
			NativeHistogramMinResetDuration: nativeReset,
		}, []string{"handler"}),
		transactionDuration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "transaction_duration_seconds",
			Help:                            "Time from a complete batch, whose handlers begin, to the answer to the end of its transaction, whatever the outcome; each attempt counts.",
			Buckets:                         []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
			NativeHistogramBucketFactor:     nativeFactor,
			NativeHistogramMaxBucketNumber:  nativeMax,
			NativeHistogramMinResetDuration: nativeReset,
		}),
		transactionRecords: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "transaction_records",
			Help:                            "Input records of one transaction, whatever the outcome.",
			Buckets:                         []float64{1, 10, 50, 100, 250, 500, 1000, 2500, 5000, 10000},
			NativeHistogramBucketFactor:     nativeFactor,
			NativeHistogramMaxBucketNumber:  nativeMax,
			NativeHistogramMinResetDuration: nativeReset,
		}),
		endToEnd: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "end_to_end_latency_seconds",
			Help:                            "Age of the oldest input record of a transaction, by its timestamp, when the transaction committed.",
			Buckets:                         []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600},
			NativeHistogramBucketFactor:     nativeFactor,
			NativeHistogramMaxBucketNumber:  nativeMax,
			NativeHistogramMinResetDuration: nativeReset,
		}),
		fencedVec: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "fenced_total",
			Help: "Times that a transactional id (producer), a member name (member) or the epoch of a transaction (epoch) was taken from us, by kind.",
		}, []string{"kind"}),
		twin: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Name: "twin",
			Help: "1 where this process found its name in use by another and does no work; it ends soon (admin.linger).",
		}),
		unlisted: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "unlisted_aborted_records_total",
			Help: "Input records of aborted transactions that a broker gave as committed; none was handled.",
		}),
		buried: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "buried_transactions_total",
			Help: "Open transactions of other processes' lanes that were ended here, since those lanes left the group without an end.",
		}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "retries_total",
			Help: "Polls and sessions that could not be had and are tried again.",
		}),
		lagFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "lag_poll_failures_total",
			Help: "Questions about the lag and about held readers that the brokers did not answer.",
		}),
		info: []prometheus.Collector{
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Namespace: namespace, Name: "config_info",
				Help:        "The configuration in use, by its hash. Always 1.",
				ConstLabels: prometheus.Labels{"hash": config.ConfigHash},
			}, one),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Namespace: namespace, Name: "build_info",
				Help: "The program that runs. Always 1.",
				ConstLabels: prometheus.Labels{
					"version": config.Version, "revision": config.Revision, "goversion": runtime.Version(),
				},
			}, one),
			collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsGC, collectors.MetricsScheduler)),
			collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		},
	}
	m.resolve(config)
	return m
}

// resolve makes every series that is known beforehand, at zero.
func (m *metrics) resolve(config Config) {
	m.records.create = func(key recordKey) prometheus.Counter {
		return m.recordsVec.WithLabelValues(key.topic, key.handler, key.outcome)
	}
	m.outputs.create = func(topic string) prometheus.Counter { return m.outputsVec.WithLabelValues(topic) }
	m.transactions.create = func(key transactionKey) prometheus.Counter {
		return m.transactionsVec.WithLabelValues(string(key.outcome), reasonLabel(key.reason))
	}
	m.deadLetters.create = func(key deadLetterKey) prometheus.Counter {
		return m.deadLettersVec.WithLabelValues(key.topic, key.reason)
	}
	m.handler.create = func(name string) prometheus.Observer { return m.handlerVec.WithLabelValues(name) }

	for _, route := range config.Routes {
		m.handler.of(route.Handler)
		for _, topic := range route.Topics {
			for _, outcome := range recordOutcomes() {
				m.records.of(recordKey{topic, route.Handler, outcome})
			}
		}
	}
	for _, topic := range config.Outputs {
		m.outputs.of(topic)
	}
	for _, kind := range rebalanceKinds() {
		m.rebalancesVec.WithLabelValues(kind)
	}
	for _, outcome := range spanOutcomes() {
		m.spansVec.WithLabelValues(outcome)
	}
	for _, fence := range txn.Fences() {
		m.fencedVec.WithLabelValues(string(fence))
	}
	m.transactions.of(transactionKey{txn.Committed, txn.ReasonNone})
	for _, reason := range txn.Reasons() {
		if reason != txn.ReasonNone {
			m.transactions.of(transactionKey{txn.Aborted, reason})
			m.transactions.of(transactionKey{txn.Unknown, reason})
			m.rebuildsVec.WithLabelValues(string(reason))
			m.suspectsVec.WithLabelValues(string(reason))
		}
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return append([]prometheus.Collector{
		m.recordsVec, m.outputsVec, m.transactionsVec, m.rebalancesVec, m.rebuildsVec, m.deadLettersVec, m.suspectsVec, m.spansVec,
		m.handlerVec, m.transactionDuration, m.transactionRecords, m.endToEnd, m.fencedVec, m.twin, m.buried, m.unlisted, m.retries, m.lagFailures,
	}, m.info...)
}

// deadLetter counts one and returns the reason it was counted under. The reason is a handler's own
// word: whatever is not a short lower-case label, and whatever comes after deadLettersMax series, is
// "other", so that a handler that puts data into its reason cannot fill a monitoring system, or the
// log, with it.
func (m *metrics) deadLetter(topic, reason string) string {
	if !isLabel(reason) {
		reason = reasonOther
	}
	counter, found := m.deadLetters.bounded(deadLetterKey{topic, reason}, deadLettersMax)
	if !found {
		reason = reasonOther
		counter = m.deadLetters.of(deadLetterKey{topic, reason})
	}
	counter.Inc()
	return reason
}

func isLabel(reason string) bool {
	if reason == "" || len(reason) > reasonBytesMax || reason[0] < 'a' || reason[0] > 'z' {
		return false
	}
	other := func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') }
	return !strings.ContainsFunc(reason, other)
}

func reasonLabel(reason txn.Reason) string {
	if reason == txn.ReasonNone {
		return reasonNone
	}
	return string(reason)
}

func one() float64 { return 1 }

// children remembers the series of a vector by a key that costs nothing to build.
type children[K comparable, C any] struct {
	create func(K) C

	mu    sync.Mutex
	known map[K]C
}

func (c *children[K, C]) of(key K) C {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.locked(key)
}

// bounded is like of, but does not make more series than limit.
func (c *children[K, C]) bounded(key K, limit int) (child C, found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.known[key]; !known && len(c.known) >= limit {
		return child, false
	}
	return c.locked(key), true
}

func (c *children[K, C]) locked(key K) C {
	child, known := c.known[key]
	if !known {
		if c.known == nil {
			c.known = map[K]C{}
		}
		child = c.create(key)
		c.known[key] = child
	}
	return child
}
