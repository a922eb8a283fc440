package telemetry

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pawl/internal/txn"
)

// exemplarInterval is the least time between two exemplars of one histogram. A scrape shows the last one
// of each bucket, so that more would be made only to be thrown away.
const exemplarInterval = time.Second

// Labels of exemplars. They make no series, so that they may hold what no label of a metric may.
const (
	exemplarSource = "source" // topic/partition/offset of the oldest record of a transaction
	exemplarEffect = "effect" // lane:offset, as `processor effects show` takes it
)

// exemplars lets one observation in exemplarInterval say what it was of.
type exemplars struct{ next atomic.Int64 }

// due reports whether this observation is the one.
func (e *exemplars) due(now time.Time) bool {
	next := e.next.Load()
	return now.UnixNano() >= next && e.next.CompareAndSwap(next, now.Add(exemplarInterval).UnixNano())
}

// observeAs observes with an exemplar. Every histogram of client_golang takes them.
func observeAs(histogram prometheus.Observer, value float64, label, text string) {
	histogram.(prometheus.ExemplarObserver).ObserveWithExemplar(value, prometheus.Labels{label: text})
}

// observe books the size and the times of a transaction.
func (m *metrics) observe(ended txn.Ended, now time.Time) {
	m.transactionRecords.Observe(float64(ended.Records))
	// A producer's clock may be ahead of ours.
	age := max(0, now.Sub(ended.Oldest).Seconds())
	committed := ended.Outcome == txn.Committed && !ended.Oldest.IsZero()
	if ended.Source.Topic != "" && m.exemplars.due(now) {
		source := ended.Source.String()
		observeAs(m.transactionDuration, ended.Duration.Seconds(), exemplarSource, source)
		if committed {
			observeAs(m.endToEnd, age, exemplarSource, source)
		}
		return
	}
	m.transactionDuration.Observe(ended.Duration.Seconds())
	if committed {
		m.endToEnd.Observe(age)
	}
}
