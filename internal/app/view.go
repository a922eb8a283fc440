package app

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pawl/internal/pause"
	"pawl/internal/telemetry"
	"pawl/internal/txn"
)

// View is what the status page shows of a process. Counts are since Since, and rates are the reader's
// business. It is made of the metrics, so that page and monitoring can't tell different stories; what a metric
// does not tell now is absent.
type View struct {
	Since        time.Time        `json:"since"`
	Draining     bool             `json:"draining"`
	Pauses       []PauseView      `json:"pauses"`
	KafkaUp      *bool            `json:"kafka_up,omitempty"` // whether the brokers answered the last question about the lag
	Inputs       []InputView      `json:"inputs"`
	Outputs      []OutputView     `json:"outputs"`
	Lanes        []LaneView       `json:"lanes"`
	Partitions   []PartitionView  `json:"partitions"`
	Transactions TransactionsView `json:"transactions"`
	DeadLetters  []DeadLetterView `json:"dead_letters"`
	Endpoints    []string         `json:"endpoints"`
	Effects      *EffectsView     `json:"effects,omitempty"` // absent where this process has no ledger
}

// PauseView is what an operator has stopped for a while, here and in all other processes.
type PauseView struct {
	pause.Pause

	Overdue float64 `json:"overdue_seconds"` // by which it has lasted longer than it was said to
}

// InputView is an input topic with what became of its records.
type InputView struct {
	Topic     string   `json:"topic"`
	Handler   string   `json:"handler"`
	Committed int64    `json:"committed"`
	Rejected  int64    `json:"rejected"`
	Aborted   int64    `json:"aborted"`
	Unknown   int64    `json:"unknown"`
	Held      *float64 `json:"held_seconds,omitempty"` // how long an open transaction of its writers has been holding us back
}

// What an output is for.
const (
	KindOutput     = "output"
	KindDeadLetter = "dead-letter"
	KindEffects    = "effects"
)

// OutputView is a topic that transactions write to.
type OutputView struct {
	Topic   string   `json:"topic"`
	Kind    string   `json:"kind"`
	Records int64    `json:"records"`
	Held    *float64 `json:"held_seconds,omitempty"` // how long an open transaction has been holding its readers back
}

// LaneView is a lane of the engine.
type LaneView struct {
	Lane       int       `json:"lane"`
	Phase      txn.Phase `json:"phase"`
	Since      time.Time `json:"since"`
	Begun      time.Time `json:"begun,omitzero"`
	Joined     bool      `json:"joined"`
	Partitions int       `json:"partitions"`
	LastCommit time.Time `json:"last_commit,omitzero"`
}

// PartitionView is a partition that this process owns.
type PartitionView struct {
	Topic     string   `json:"topic"`
	Partition int32    `json:"partition"`
	Lane      int      `json:"lane"`
	Records   *int64   `json:"lag_records,omitempty"`
	Held      *int64   `json:"held_records,omitempty"`
	Seconds   *float64 `json:"lag_seconds,omitempty"`
	Halted    string   `json:"halted,omitempty"` // why it stands still
	Paused    string   `json:"paused,omitempty"` // by what pause it is not read
}

// TransactionsView is what became of transactions.
type TransactionsView struct {
	Ended  []EndedView             `json:"ended"`  // counts by outcome and reason, those that happened
	Recent []telemetry.Transaction `json:"recent"` // the last ones, oldest first
	Failed []telemetry.Transaction `json:"failed"` // the last that did not commit, oldest first
}

// EndedView counts one way to end.
type EndedView struct {
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
	Count   int64  `json:"count"`
}

// DeadLetterView counts dead letters that this process wrote.
type DeadLetterView struct {
	Topic   string `json:"topic"` // where the record was read
	Reason  string `json:"reason"`
	Records int64  `json:"records"`
}

// EffectsView is the ledger, and this process's part of the work on it.
type EffectsView struct {
	LedgerUp  bool           `json:"ledger_up"`      // whether the database answered the last question
	Away      *LedgerAway    `json:"away,omitempty"` // since when it does not, and why; absent while it does
	Ingested  int64          `json:"ingested"`
	Results   int64          `json:"results"`
	Lanes     int            `json:"lanes"`                     // that are dispatched here
	Halted    int            `json:"halted"`                    // lanes that wait for an operator
	Waiting   *float64       `json:"waiting_seconds,omitempty"` // of the oldest effect that is not in the ledger yet
	Endpoints []EndpointView `json:"endpoints"`
}

// EndpointView is one endpoint. What the ledger holds is of all processes, the calls are of this one.
type EndpointView struct {
	Endpoint string           `json:"endpoint"`
	Pending  *int64           `json:"pending,omitempty"`
	Parked   *int64           `json:"parked,omitempty"`
	Dead     *int64           `json:"dead,omitempty"`
	Oldest   *float64         `json:"oldest_seconds,omitempty"`
	Breaker  string           `json:"breaker,omitempty"`
	Paused   bool             `json:"paused"` // by an operator
	InFlight int64            `json:"in_flight"`
	Limit    int64            `json:"limit"`
	Calls    map[string]int64 `json:"calls"`   // by what came back
	Settled  map[string]int64 `json:"settled"` // effects by their fate
}

// viewer makes views.
type viewer struct {
	conf     Config
	since    time.Time
	metrics  prometheus.Gatherer
	status   func() txn.Status
	recent   func() (all, failed []telemetry.Transaction)
	draining func() bool
	pauses   func() pause.Set
	away     func() *LedgerAway
}

// view implements admin.Config.View.
func (v *viewer) view(context.Context) (any, error) {
	all, err := gather(v.metrics)
	if err != nil {
		return nil, err
	}
	status, pauses := v.status(), v.pauses()
	view := View{
		Since: v.since.UTC(), Draining: v.draining(), Pauses: pausesView(pauses), Inputs: v.inputs(all), Outputs: v.outputs(all),
		Lanes: lanesView(status), Partitions: partitionsView(status, pauses, all), Transactions: v.transactions(all),
		DeadLetters: []DeadLetterView{}, Endpoints: append([]string{}, v.conf.EndpointNames()...), Effects: v.effects(pauses, all),
	}
	if up, known := all.find("processor_kafka_up"); known {
		answered := up == 1
		view.KafkaUp = &answered
	}
	for _, one := range all["processor_dead_letter_records_total"] {
		view.DeadLetters = append(view.DeadLetters, DeadLetterView{Topic: one.labels["topic"], Reason: one.labels["reason"], Records: int64(one.value)})
	}
	slices.SortFunc(view.DeadLetters, func(a, b DeadLetterView) int {
		return cmp.Or(cmp.Compare(b.Records, a.Records), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Reason, b.Reason))
	})
	return view, nil
}

func pausesView(pauses pause.Set) []PauseView {
	shown := make([]PauseView, 0, len(pauses))
	for _, p := range pauses.List() {
		shown = append(shown, PauseView{Pause: p, Overdue: p.Overdue(time.Now()).Seconds()})
	}
	return shown
}

func (v *viewer) inputs(all measured) []InputView {
	inputs := []InputView{}
	for _, route := range v.conf.Routes {
		for _, topic := range route.Topics {
			count := func(outcome string) int64 {
				return all.count("processor_records_total", "topic", topic, "handler", route.Handler, "outcome", outcome)
			}
			inputs = append(inputs, InputView{
				Topic: topic, Handler: route.Handler,
				Committed: count("committed"), Rejected: count("rejected"), Aborted: count("aborted"), Unknown: count("unknown"),
				Held: all.number("processor_readers_held_seconds", "topic", topic),
			})
		}
	}
	return inputs
}

func (v *viewer) outputs(all measured) []OutputView {
	outputs := []OutputView{}
	add := func(topic, kind string) {
		outputs = append(outputs, OutputView{
			Topic: topic, Kind: kind, Records: all.count("processor_output_records_total", "topic", topic),
			Held: all.number("processor_readers_held_seconds", "topic", topic),
		})
	}
	for _, topic := range slices.Sorted(maps.Values(v.conf.OutputTopics())) {
		add(topic, KindOutput)
	}
	if v.conf.Effects.Enabled && len(v.conf.Endpoints) > 0 {
		add(v.conf.EffectsTopic(), KindEffects)
	}
	add(v.conf.DeadLetterTopic(), KindDeadLetter)
	return outputs
}

func lanesView(status txn.Status) []LaneView {
	lanes := make([]LaneView, 0, len(status.Lanes))
	for _, lane := range status.Lanes {
		shown := LaneView{Lane: lane.Lane, Phase: lane.Phase, Since: lane.Since.UTC(), Begun: lane.Begun, Joined: lane.Joined, LastCommit: lane.LastCommit}
		for _, partitions := range lane.Partitions {
			shown.Partitions += len(partitions)
		}
		lanes = append(lanes, shown)
	}
	return lanes
}

func partitionsView(status txn.Status, pauses pause.Set, all measured) []PartitionView {
	partitions := []PartitionView{}
	for _, lane := range status.Lanes {
		halted := map[string]string{}
		for _, one := range lane.Halted {
			halted[one.Topic+"/"+strconv.Itoa(int(one.Partition))] = one.Error
		}
		for topic, owned := range lane.Partitions {
			for _, partition := range owned {
				number := strconv.Itoa(int(partition))
				labels := []string{"topic", topic, "partition", number}
				by, _ := pauses.Input(topic, partition)
				partitions = append(partitions, PartitionView{
					Topic: topic, Partition: partition, Lane: lane.Lane, Halted: halted[topic+"/"+number], Paused: string(by.Target),
					Records: whole(all.number("processor_consumer_lag_records", labels...)),
					Held:    whole(all.number("processor_consumer_held_records", labels...)),
					Seconds: all.number("processor_consumer_lag_seconds", labels...),
				})
			}
		}
	}
	slices.SortFunc(partitions, func(a, b PartitionView) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return partitions
}

func (v *viewer) transactions(all measured) TransactionsView {
	view := TransactionsView{Ended: []EndedView{}}
	view.Recent, view.Failed = v.recent()
	for _, one := range all["processor_transactions_total"] {
		if one.value > 0 {
			view.Ended = append(view.Ended, EndedView{Outcome: one.labels["outcome"], Reason: one.labels["reason"], Count: int64(one.value)})
		}
	}
	return view
}

func (v *viewer) effects(pauses pause.Set, all measured) *EffectsView {
	up, found := all.find("processor_outbox_ledger_up")
	if !found {
		return nil
	}
	view := &EffectsView{
		LedgerUp: up == 1, Away: v.away(), Endpoints: []EndpointView{},
		Ingested: all.count("processor_outbox_ingested_effects_total"), Results: all.count("processor_outbox_results_total"),
		Lanes: int(all.count("processor_outbox_owned_lanes")),
	}
	for _, one := range all["processor_outbox_halted_lanes"] {
		view.Halted += int(one.value)
	}
	for _, one := range all["processor_outbox_ingest_lag_seconds"] {
		if view.Waiting == nil || one.value > *view.Waiting {
			view.Waiting = &one.value
		}
	}
	names := v.conf.EndpointNames()
	for _, one := range all["processor_outbox_effects"] {
		if sink := one.labels["sink"]; !slices.Contains(names, sink) { // effects whose endpoint is no more
			names = append(names, sink)
		}
	}
	for _, name := range names {
		one := endpointView(name, all, view.LedgerUp)
		_, one.Paused = pauses.Endpoint(name)
		view.Endpoints = append(view.Endpoints, one)
	}
	return view
}

func endpointView(name string, all measured, up bool) EndpointView {
	view := EndpointView{
		Endpoint: name, Oldest: all.number("processor_outbox_oldest_pending_age_seconds", "sink", name),
		InFlight: all.count("processor_outbox_calls_in_flight", "sink", name), Limit: all.count("processor_outbox_calls_limit", "sink", name),
		Calls:   all.by("outcome", "processor_outbox_attempts_total", "sink", name),
		Settled: all.by("status", "processor_outbox_settled_effects_total", "sink", name),
	}
	for _, state := range []struct {
		name string
		into **int64
	}{{"pending", &view.Pending}, {"parked", &view.Parked}, {"dead", &view.Dead}} {
		*state.into = whole(all.number("processor_outbox_effects", "state", state.name, "sink", name))
		if *state.into == nil && up {
			*state.into = new(int64) // a ledger that answers leaves out endpoints of which it holds nothing
		}
	}
	for _, one := range all["processor_outbox_breaker_state"] {
		if one.labels["sink"] == name && one.value == 1 {
			view.Breaker = one.labels["state"]
		}
	}
	return view
}

// measured holds counters and gauges by their names.
type measured map[string][]series

type series struct {
	labels map[string]string
	value  float64
}

// gather asks for everything that a scrape would see, histograms left out.
func gather(from prometheus.Gatherer) (measured, error) {
	families, err := from.Gather()
	if err != nil {
		return nil, fmt.Errorf("gather metrics: %w", err)
	}
	all := measured{}
	for _, family := range families {
		name := family.GetName()
		if !strings.HasPrefix(name, "processor_") {
			continue
		}
		for _, metric := range family.GetMetric() {
			one := series{labels: make(map[string]string, len(metric.GetLabel()))}
			switch {
			case metric.GetCounter() != nil:
				one.value = metric.GetCounter().GetValue()
			case metric.GetGauge() != nil:
				one.value = metric.GetGauge().GetValue()
			default:
				continue
			}
			for _, label := range metric.GetLabel() {
				one.labels[label.GetName()] = label.GetValue()
			}
			all[name] = append(all[name], one)
		}
	}
	return all, nil
}

func (s series) has(labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		if s.labels[labels[i]] != labels[i+1] {
			return false
		}
	}
	return true
}

// find returns the first series that has the labels, given as name and value in turn.
func (m measured) find(name string, labels ...string) (value float64, found bool) {
	for _, one := range m[name] {
		if one.has(labels) {
			return one.value, true
		}
	}
	return 0, false
}

// number is find for what may be absent.
func (m measured) number(name string, labels ...string) *float64 {
	if value, found := m.find(name, labels...); found {
		return &value
	}
	return nil
}

// count is find for what is 0 where it is absent.
func (m measured) count(name string, labels ...string) int64 {
	value, _ := m.find(name, labels...)
	return int64(value)
}

// by spreads the series that have the labels over the values of one more.
func (m measured) by(label, name string, labels ...string) map[string]int64 {
	counts := map[string]int64{}
	for _, one := range m[name] {
		if one.has(labels) {
			counts[one.labels[label]] += int64(one.value)
		}
	}
	return counts
}

func whole(value *float64) *int64 {
	if value == nil {
		return nil
	}
	rounded := int64(*value)
	return &rounded
}
