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
	pauses func() Pauses

	mu         sync.Mutex
	lag        []LagSample
	held       map[string]time.Duration
	lastCommit time.Time
	brokers    answer
}

// answer is how the last question to somebody went.
type answer string

const (
	unasked  answer = ""
	answered answer = "answered"
	silent   answer = "silent"
)

type factDescs struct {
	assigned, halted, lastCommit, lag, heldRecords, lagSeconds, held, lanes, open, brokers, paused, pauseAge, pauseOverdue, pauseIgnored *prometheus.Desc
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
		heldRecords: prometheus.NewDesc("processor_consumer_held_records",
			"Records of a partition that this process owns and that nobody can read yet: an open transaction of its producers holds them back.",
			[]string{"topic", "partition"}, nil),
		lagSeconds: prometheus.NewDesc("processor_consumer_lag_seconds",
			"How long the oldest readable record of a partition that this process owns has been waiting for its commit; 0 where none is. To within 5 s where the process keeps up, else by the record's timestamp.",
			[]string{"topic", "partition"}, nil),
		held: prometheus.NewDesc("processor_readers_held_seconds",
			"How long the last stable offset of a partition has stood still with records behind it, the longest of a topic: the age of the oldest open transaction, since this process began to look.",
			[]string{"topic"}, nil),
		lanes: prometheus.NewDesc("processor_lanes",
			"Lanes of this process by what they are doing.", []string{"phase"}, nil),
		open: prometheus.NewDesc("processor_transaction_open_seconds",
			"Age of the oldest transaction that this process has in work; 0 where there is none.", nil, nil),
		paused: prometheus.NewDesc("processor_consumer_paused",
			"1 for a partition that this process owns and does not read, because an operator paused it, else 0.",
			[]string{"topic", "partition"}, nil),
		pauseAge: prometheus.NewDesc("processor_pause_age_seconds",
			"How long input or an endpoint has been paused by an operator, 0 where it is not; every process tells of all, of partitions only while they are paused by themselves.",
			[]string{"target"}, nil),
		pauseOverdue: prometheus.NewDesc("processor_pause_overdue_seconds",
			"By how much a pause has lasted longer than it was said to, an hour where nothing was said; 0 until then.",
			[]string{"target"}, nil),
		pauseIgnored: prometheus.NewDesc("processor_pause_notes_ignored",
			"Targets of which the newest order to pause or resume can't be read by this release.", nil, nil),
		brokers: prometheus.NewDesc("processor_kafka_up",
			"1 if the brokers answered the last question about the lag, asked every 5 s, else 0.", nil, nil),
	}
}

func (f *facts) setLag(samples []LagSample) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lag = samples
}

func (f *facts) setHeld(held map[string]time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = held
}

func (f *facts) setBrokers(how answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.brokers = how
}

func (f *facts) setCommitted(at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastCommit = at
}

// Describe implements prometheus.Collector.
func (f *facts) Describe(descs chan<- *prometheus.Desc) {
	d := describeFacts()
	for _, desc := range []*prometheus.Desc{d.assigned, d.halted, d.lastCommit, d.lag, d.heldRecords, d.lagSeconds, d.held, d.lanes, d.open, d.brokers, d.paused, d.pauseAge, d.pauseOverdue, d.pauseIgnored} {
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
	samples, held, lastCommit, brokers := f.lag, f.held, f.lastCommit, f.brokers
	f.mu.Unlock()

	if !lastCommit.IsZero() {
		gauge(d.lastCommit, float64(lastCommit.UnixNano())/float64(time.Second))
	}
	if brokers != unasked {
		up := 0.0
		if brokers == answered {
			up = 1
		}
		gauge(d.brokers, up)
	}
	for topic, age := range held {
		gauge(d.held, age.Seconds(), topic)
	}
	if f.pauses != nil {
		pauses := f.pauses()
		for _, p := range pauses.Targets {
			gauge(d.pauseAge, p.Age.Seconds(), p.Target)
			gauge(d.pauseOverdue, p.Overdue.Seconds(), p.Target)
		}
		gauge(d.pauseIgnored, float64(pauses.Ignored))
	}
	if f.status == nil {
		return
	}
	view := viewOf(f.status(), time.Now())
	gauge(d.assigned, float64(len(view.owned)))
	gauge(d.halted, float64(view.halted))
	for at := range view.owned {
		paused := 0.0
		if view.paused[at] {
			paused = 1
		}
		gauge(d.paused, paused, at.topic, strconv.Itoa(int(at.partition)))
	}
	gauge(d.open, view.open.Seconds())
	for _, phase := range txn.Phases() {
		gauge(d.lanes, float64(view.phases[phase]), string(phase))
	}
	for _, sample := range samples {
		at := place{sample.Topic, sample.Partition}
		if view.owned[at] {
			delete(view.owned, at) // a sample given twice must not spoil the scrape
			partition := strconv.Itoa(int(sample.Partition))
			gauge(d.lag, float64(sample.Records), sample.Topic, partition)
			gauge(d.heldRecords, float64(sample.Held), sample.Topic, partition)
			gauge(d.lagSeconds, sample.Waiting.Seconds(), sample.Topic, partition)
		}
	}
}

type place struct {
	topic     string
	partition int32
}

// view is the status of the lanes, summed up.
type view struct {
	owned  map[place]bool
	paused map[place]bool
	halted int
	open   time.Duration // the oldest transaction in work
	phases map[txn.Phase]int
}

func viewOf(status txn.Status, now time.Time) view {
	v := view{owned: map[place]bool{}, paused: map[place]bool{}, phases: map[txn.Phase]int{}}
	for _, lane := range status.Lanes {
		v.halted += len(lane.Halted)
		v.phases[lane.Phase]++
		if !lane.Begun.IsZero() {
			v.open = max(v.open, now.Sub(lane.Begun))
		}
		for topic, partitions := range lane.Paused {
			for _, partition := range partitions {
				v.paused[place{topic, partition}] = true
			}
		}
		for topic, partitions := range lane.Partitions {
			for _, partition := range partitions {
				v.owned[place{topic, partition}] = true
			}
		}
	}
	return v
}
