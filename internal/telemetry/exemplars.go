package telemetry

import (
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"pawl/internal/txn"
)

// exemplarInterval is the least time between two exemplars of one histogram. A scrape shows the last one
// of each bucket, so that more would be made only to be thrown away.
const exemplarInterval = time.Second

// Labels of exemplars. They make no series, so that they may hold what no label of a metric may.
const (
	exemplarSource = "source" // topic/partition/offset of the oldest record of a transaction
	exemplarTrace  = "trace_id"
	exemplarEffect = "effect" // lane:offset, as `processor effects show` takes it
)

// exemplars lets one observation in exemplarInterval say what it was of.
type exemplars struct{ next atomic.Int64 }

// due reports whether this observation is the one.
func (e *exemplars) due(now time.Time) bool {
	next := e.next.Load()
	return now.UnixNano() >= next && e.next.CompareAndSwap(next, now.Add(exemplarInterval).UnixNano())
}

// observeAs observes with an exemplar. Every histogram of client_golang takes them, and panics where their text is too long.
func observeAs(histogram prometheus.Observer, value float64, labels prometheus.Labels) {
	size := 0
	for name, text := range labels {
		size += utf8.RuneCountInString(name) + utf8.RuneCountInString(text)
	}
	if size == 0 || size > prometheus.ExemplarMaxRunes {
		histogram.Observe(value)
		return
	}
	histogram.(prometheus.ExemplarObserver).ObserveWithExemplar(value, labels)
}

// example says what a transaction was, by its trace where that is recorded, and by its oldest record where there is room
// for that: a topic's name can be long.
func example(ended txn.Ended, span trace.SpanContext) prometheus.Labels {
	labels := prometheus.Labels{}
	room := prometheus.ExemplarMaxRunes
	if span.IsValid() {
		labels[exemplarTrace] = span.TraceID().String()
		room -= len(exemplarTrace) + len(labels[exemplarTrace])
	}
	if source := ended.Source.String(); ended.Source.Topic != "" && len(exemplarSource)+utf8.RuneCountInString(source) <= room {
		labels[exemplarSource] = source
	}
	return labels
}

// observe books the size and the times of a transaction.
func (m *metrics) observe(ended txn.Ended, span trace.SpanContext, now time.Time) {
	m.transactionRecords.Observe(float64(ended.Records))
	// A producer's clock may be ahead of ours.
	age := max(0, now.Sub(ended.Oldest).Seconds())
	committed := ended.Outcome == txn.Committed && !ended.Oldest.IsZero()
	// One that has a trace is worth more than one that has none, which may have come just before.
	if span.IsValid() && m.traced.due(now) || ended.Source.Topic != "" && m.exemplars.due(now) {
		labels := example(ended, span)
		observeAs(m.transactionDuration, ended.Duration.Seconds(), labels)
		if committed {
			observeAs(m.endToEnd, age, labels)
		}
		return
	}
	m.transactionDuration.Observe(ended.Duration.Seconds())
	if committed {
		m.endToEnd.Observe(age)
	}
}
