// Package top shows running processes in a terminal, as top shows those of a machine: what flows, what waits, what
// aborted and why. It reads what each process tells everybody, its status and its metrics, and changes nothing.
//
// Facts are what one process told at one time, a Fleet keeps those of all processes over the last minute, a Snapshot
// is what a Fleet comes to, and a Screen is how that looks.
package top

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// The metrics that are read. A test holds them against docs/metrics.md.
const (
	metricBuild        = "processor_build_info"
	metricConfig       = "processor_config_info"
	metricKafkaUp      = "processor_kafka_up"
	metricLastCommit   = "processor_last_commit_timestamp_seconds"
	metricOpen         = "processor_transaction_open_seconds"
	metricTransactions = "processor_transactions_total"
	metricRecords      = "processor_records_total"
	metricOutputs      = "processor_output_records_total"
	metricLag          = "processor_consumer_lag_records"
	metricLagSeconds   = "processor_consumer_lag_seconds"
	metricHeld         = "processor_consumer_held_records"
	metricLedgerUp     = "processor_outbox_ledger_up"
	metricLedgerDown   = "processor_outbox_ledger_down_seconds"
	metricEffects      = "processor_outbox_effects"
	metricOldest       = "processor_outbox_oldest_pending_age_seconds"
	metricAttempts     = "processor_outbox_attempts_total"
	metricInFlight     = "processor_outbox_calls_in_flight"
	metricLimit        = "processor_outbox_calls_limit"
	metricBreaker      = "processor_outbox_breaker_state"
)

// Told is what one process answered.
type Told struct {
	Status  []byte // of /api/v1/status
	Metrics []byte // of /metrics, in the text format
	Ready   []byte // of /readyz?verbose, whatever its code
	IsReady bool   // the code was 200
}

// Facts are what one process told at one time.
type Facts struct {
	Process string
	At      time.Time
	Err     error // it could not be asked: nothing below is known

	Version    string
	Config     string // hash
	NotReady   string // the first check that fails; empty where it is ready
	Phases     map[string]int
	KafkaUp    bool
	Ledger     Tristate
	LedgerDown time.Duration // how long it has not been reached
	Open       time.Duration // age of the oldest transaction in work
	LastCommit time.Time     // zero before the first

	Aborts     map[string]float64 // ended and not committed, by outcome and reason, such as "aborted rebalance"
	Committed  float64            // transactions
	Records    float64            // input, committed
	Rejected   float64
	Outputs    float64
	Partitions []Partition
	Endpoints  []Endpoint
	Pauses     []Pause // of the whole application, as this process knows them
}

// Pause is what operators have stopped for a while: input, or an endpoint.
type Pause struct {
	Target   string    `json:"target"`
	Reason   string    `json:"reason"`
	Actor    string    `json:"actor"`
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until,omitzero"`    // it ends by itself
	Expected time.Time `json:"expected,omitzero"` // from then on it is overdue
}

// Tristate is up, down or nothing, for what a process may not have.
type Tristate string

// The states of what a process may not have.
const (
	Absent Tristate = ""
	Up     Tristate = "up"
	Down   Tristate = "down"
)

// Partition is an input partition that a process owns.
type Partition struct {
	Topic     string   `json:"topic"`
	Partition int32    `json:"partition"`
	Lag       *float64 `json:"lag"`     // records; nil while the brokers do not tell
	Seconds   *float64 `json:"seconds"` // how long the oldest record has been waiting
	Held      float64  `json:"held"`    // records that an open transaction upstream holds back
	Process   string   `json:"process"`
	Lane      int      `json:"lane"`
	Phase     string   `json:"phase"`
	Halted    string   `json:"halted,omitempty"` // why it waits for an operator
	Paused    bool     `json:"paused,omitempty"` // by an operator
}

// Name gives orders/3.
func (p Partition) Name() string { return p.Topic + "/" + strconv.Itoa(int(p.Partition)) }

// Endpoint is a receiver of effects. What the ledger holds is the same whoever is asked; calls are of one process.
type Endpoint struct {
	Endpoint string
	Known    bool // the database answered
	Pending  float64
	Parked   float64
	Dead     float64
	Oldest   time.Duration
	InFlight float64
	Limit    float64
	Attempts float64 // calls since the process began
	Breaker  string  // closed, half-open or open; empty where the process does not call
}

// status is the part of /api/v1/status that is read.
type status struct {
	Lanes []struct {
		Lane       int                `json:"lane"`
		Phase      string             `json:"phase"`
		Partitions map[string][]int32 `json:"partitions"`
		Paused     map[string][]int32 `json:"paused"`
		Halted     []struct {
			Topic     string `json:"topic"`
			Partition int32  `json:"partition"`
			Error     string `json:"error"`
		} `json:"halted"`
	} `json:"lanes"`
	Pauses []Pause `json:"pauses"`
}

// Read makes facts of what a process told.
func Read(process string, at time.Time, told Told) Facts {
	f := Facts{Process: process, At: at}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(told.Metrics))
	if err != nil {
		f.Err = fmt.Errorf("read metrics: %w", err)
		return f
	}
	var s status
	if err := json.Unmarshal(told.Status, &s); err != nil {
		f.Err = fmt.Errorf("read status: %w", err)
		return f
	}
	m := metrics(families)
	if _, is := families[metricBuild]; !is {
		f.Err = fmt.Errorf("there is no %s in its metrics: is it a processor?", metricBuild)
		return f
	}
	f.readMetrics(m)
	if !told.IsReady {
		f.NotReady = firstFailure(string(told.Ready))
	}
	lag, seconds, held := m.places(metricLag), m.places(metricLagSeconds), m.places(metricHeld)
	f.Pauses = s.Pauses
	f.Phases = map[string]int{}
	for _, lane := range s.Lanes {
		f.Phases[lane.Phase]++
		for _, topic := range slices.Sorted(maps.Keys(lane.Partitions)) {
			for _, number := range lane.Partitions[topic] {
				at := place{topic, strconv.Itoa(int(number))}
				f.Partitions = append(f.Partitions, Partition{
					Topic: topic, Partition: number, Process: process, Lane: lane.Lane, Phase: lane.Phase,
					Lag: lookup(lag, at), Seconds: lookup(seconds, at), Held: held[at], Paused: slices.Contains(lane.Paused[topic], number),
				})
			}
		}
		for _, halted := range lane.Halted {
			f.halt(halted.Topic, halted.Partition, lane.Lane, halted.Error)
		}
	}
	return f
}

// halt marks a partition, which may have been given away by its lane.
func (f *Facts) halt(topic string, number int32, lane int, why string) {
	for i := range f.Partitions {
		if p := &f.Partitions[i]; p.Topic == topic && p.Partition == number {
			p.Halted = why
			return
		}
	}
	f.Partitions = append(f.Partitions, Partition{Topic: topic, Partition: number, Process: f.Process, Lane: lane, Phase: "halted", Halted: why})
}

// firstFailure finds the first check of a health endpoint that fails: "[-]group failed: not every lane ...".
func firstFailure(listing string) string {
	for line := range strings.Lines(listing) {
		if rest, is := strings.CutPrefix(line, "[-]"); is {
			name, why, _ := strings.Cut(strings.TrimSpace(rest), " failed: ")
			return name + ": " + why
		}
	}
	return "not ready"
}

func (f *Facts) readMetrics(m metrics) {
	m.each(metricBuild, func(labels map[string]string, _ float64) { f.Version = labels["version"] })
	m.each(metricConfig, func(labels map[string]string, _ float64) { f.Config = labels["hash"] })
	f.KafkaUp = m.sum(metricKafkaUp) > 0
	if _, has := m[metricLedgerUp]; has {
		f.Ledger = Down
		if m.sum(metricLedgerUp) > 0 {
			f.Ledger = Up
		}
		f.LedgerDown = duration(m.sum(metricLedgerDown))
	}
	f.Open = duration(m.sum(metricOpen))
	if at := m.sum(metricLastCommit); at > 0 {
		f.LastCommit = time.UnixMilli(int64(at * 1000))
	}
	f.Aborts = map[string]float64{}
	m.each(metricTransactions, func(labels map[string]string, value float64) {
		if labels["outcome"] == "committed" {
			f.Committed += value
			return
		}
		f.Aborts[labels["outcome"]+" "+labels["reason"]] += value
	})
	m.each(metricRecords, func(labels map[string]string, value float64) {
		switch labels["outcome"] {
		case "committed":
			f.Records += value
		case "rejected":
			f.Records += value
			f.Rejected += value
		}
	})
	f.Outputs = m.sum(metricOutputs)
	f.readEndpoints(m)
}

func (f *Facts) readEndpoints(m metrics) {
	found := map[string]*Endpoint{}
	of := func(labels map[string]string) *Endpoint {
		name := labels["sink"]
		if found[name] == nil {
			found[name] = &Endpoint{Endpoint: name}
		}
		return found[name]
	}
	m.each(metricEffects, func(labels map[string]string, value float64) {
		e := of(labels)
		e.Known = true
		switch labels["state"] {
		case "pending":
			e.Pending = value
		case "parked":
			e.Parked = value
		case "dead":
			e.Dead = value
		}
	})
	m.each(metricOldest, func(labels map[string]string, value float64) { of(labels).Oldest = duration(value) })
	m.each(metricAttempts, func(labels map[string]string, value float64) { of(labels).Attempts += value })
	m.each(metricInFlight, func(labels map[string]string, value float64) { of(labels).InFlight = value })
	m.each(metricLimit, func(labels map[string]string, value float64) { of(labels).Limit = value })
	m.each(metricBreaker, func(labels map[string]string, value float64) {
		if value > 0 {
			of(labels).Breaker = labels["state"]
		}
	})
	for _, name := range slices.Sorted(maps.Keys(found)) {
		f.Endpoints = append(f.Endpoints, *found[name])
	}
}

// metrics are a scrape.
type metrics map[string]*dto.MetricFamily

// each visits the series of a counter or a gauge.
func (m metrics) each(name string, visit func(labels map[string]string, value float64)) {
	for _, one := range m[name].GetMetric() {
		labels := make(map[string]string, len(one.GetLabel()))
		for _, label := range one.GetLabel() {
			labels[label.GetName()] = label.GetValue()
		}
		visit(labels, one.GetCounter().GetValue()+one.GetGauge().GetValue()+one.GetUntyped().GetValue())
	}
}

func (m metrics) sum(name string) (sum float64) {
	m.each(name, func(_ map[string]string, value float64) { sum += value })
	return sum
}

// place names a partition.
type place struct{ topic, partition string }

// places gives the value of each partition.
func (m metrics) places(name string) map[place]float64 {
	found := map[place]float64{}
	m.each(name, func(labels map[string]string, value float64) {
		found[place{labels["topic"], labels["partition"]}] = value
	})
	return found
}

func lookup(values map[place]float64, at place) *float64 {
	if value, is := values[at]; is {
		return &value
	}
	return nil
}

func duration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }
