package telemetry

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pawl/internal/txn"
)

// facts are the metrics that are read at a scrape instead of counted: a series of a partition that
// has moved away is gone with the next scrape, without anybody having to remove it.
type facts struct {
	status func() txn.Status

	mu         sync.Mutex
	lag        []LagSample
	lastCommit time.Time
}

type factDescs struct {
	assigned, halted, lastCommit, lag *prometheus.Desc
}

func describeFacts() factDescs {
	return factDescs{
		assigned: prometheus.NewDesc("processor_assigned_partitions",
			"Partitions that this process owns now.", nil, nil),
		halted: prometheus.NewDesc("processor_halted_partitions",
			"Partitions that wait for an operator; the log says for what.", nil, nil),
		lastCommit: prometheus.NewDesc("processor_last_commit_timestamp_seconds",
			"Unix time of the last committed transaction; absent before the first.", nil, nil),
		lag: prometheus.NewDesc("processor_consumer_lag_records",
			"Readable records behind the committed offset of a partition that this process owns; absent while the brokers do not tell.",
			[]string{"topic", "partition"}, nil),
	}
}

func (f *facts) setLag(samples []LagSample) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lag = samples
}

func (f *facts) setCommitted(at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastCommit = at
}

// Describe implements prometheus.Collector.
func (f *facts) Describe(descs chan<- *prometheus.Desc) {
	d := describeFacts()
	for _, desc := range []*prometheus.Desc{d.assigned, d.halted, d.lastCommit, d.lag} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (f *facts) Collect(metrics chan<- prometheus.Metric) {
	d := describeFacts()
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...) //nolint:promlinter // it cannot read a parameter; the names stand in describeFacts and a test lints them
	}
	f.mu.Lock()
	samples, lastCommit := f.lag, f.lastCommit
	f.mu.Unlock()

	if !lastCommit.IsZero() {
		gauge(d.lastCommit, float64(lastCommit.UnixNano())/float64(time.Second))
	}
	if f.status == nil {
		return
	}
	type place struct {
		topic     string
		partition int32
	}
	owned := map[place]bool{}
	halted := 0
	for _, lane := range f.status().Lanes {
		halted += len(lane.Halted)
		for topic, partitions := range lane.Partitions {
			for _, partition := range partitions {
				owned[place{topic, partition}] = true
			}
		}
	}
	gauge(d.assigned, float64(len(owned)))
	gauge(d.halted, float64(halted))
	for _, sample := range samples {
		at := place{sample.Topic, sample.Partition}
		if owned[at] {
			delete(owned, at) // a sample given twice must not spoil the scrape
			gauge(d.lag, float64(sample.Records), sample.Topic, strconv.Itoa(int(sample.Partition)))
		}
	}
}
