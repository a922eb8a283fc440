package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"pawl/internal/load"
	"pawl/internal/yardstick"
)

// The ways to trace, by the names of their rows.
const (
	tracingOff         = "off"
	tracedTransactions = "transactions-1-percent"
	tracedRecords      = "records-1-percent"
	tracedAll          = "all"
)

var tracingNames = []string{tracingOff, tracedTransactions, tracedRecords, tracedAll}

// exportEvery is how long a span waits for a batch to be full. With the default of 5 s, most would go out when the copy
// is over, and cost it nothing.
const exportEvery = 200 * time.Millisecond

// tracingSetting is one way to trace. All of its records have a traceparent, so that every setting copies as many bytes.
type tracingSetting struct {
	name  string
	ratio string // of the transactions that no sampled record decides on; empty: tracing is off
	every int64  // one of so many records is of a sampled trace, from the first on
}

// tracingSettings are all, for a backlog of count records. Sampled records have their transaction recorded, and a
// transaction has so many that 1 % of records are nearly all transactions. Where the ratio alone decides, there is one
// sampled record, the first: without it, a run of few transactions could not be told from one whose spans get lost.
func tracingSettings(count int64) []tracingSetting {
	return []tracingSetting{
		{name: tracingOff, every: 100},
		{name: tracedTransactions, ratio: "0.01", every: count},
		{name: tracedRecords, ratio: "0.01", every: 100},
		{name: tracedAll, ratio: "1", every: 1},
	}
}

// environment is that of a process: what base says of tracing counts for nothing.
func (how tracingSetting) environment(base []string, sink string) []string {
	env := slices.DeleteFunc(slices.Clone(base), func(pair string) bool { return strings.HasPrefix(pair, "OTEL_") })
	if how.ratio == "" {
		return env
	}
	return append(env, "OTEL_EXPORTER_OTLP_ENDPOINT="+sink, "OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG="+how.ratio,
		fmt.Sprintf("OTEL_BSP_SCHEDULE_DELAY=%d", exportEvery.Milliseconds()))
}

// check refuses a run whose figures would be those of another setting.
func (how tracingSetting) check(seen sinkTally) error {
	switch {
	case how.ratio == "" && seen.Requests > 0:
		return fmt.Errorf("tracing is off, but the sink was sent %d requests", seen.Requests)
	case how.ratio != "" && seen.Spans == 0:
		return fmt.Errorf("the sink saw no span in %d requests: what was measured is not tracing", seen.Requests)
	}
	return nil
}

// tracedPeer is this project with one of the settings.
type tracedPeer struct {
	*processorPeer

	how  tracingSetting
	sink string // its URL
}

func (p *tracedPeer) name() string { return p.how.name }

func (p *tracedPeer) commands(ctx context.Context, j job) []*exec.Cmd {
	commands := p.processorPeer.commands(ctx, j)
	for _, command := range commands {
		command.Env = p.how.environment(command.Env, p.sink)
	}
	return commands
}

// in is the topic of its records. Each setting has its own, also where records are alike, so that none finds what
// another has just brought to the broker's memory.
func (p *tracedPeer) in() string { return "bench-tracing-" + p.how.name + "-in" }

// tracingRun is a throughput run with one of the settings.
type tracingRun struct {
	yardstick.CopyRun

	Sink      sinkTally `json:"sink"`
	RateByOff float64   `json:"rate_by_off"` // of the same round
	CPUByOff  float64   `json:"cpu_by_off"`
}

var tracingColumns = []yardstick.Column[tracingRun]{
	{Title: "records/s", Unit: "records/s", Verb: "%.0f", Pick: func(run tracingRun) float64 { return run.Rate }},
	{Title: "by off", Unit: "by-off", Verb: "%.3f", Pick: func(run tracingRun) float64 { return run.RateByOff }},
	{Title: "CPU s per million", Unit: "client-cpu-s/Mrec", Verb: "%.2f", Pick: func(run tracingRun) float64 { return run.CPU }},
	{Title: "by off", Unit: "cpu-by-off", Verb: "%.3f", Pick: func(run tracingRun) float64 { return run.CPUByOff }},
	{Title: "broker's CPU s per million", Unit: "broker-cpu-s/Mrec", Verb: "%.2f", Pick: func(run tracingRun) float64 { return run.Broker }},
	{Title: "peak MiB a process", Unit: "peak-MiB", Verb: "%.0f", Pick: func(run tracingRun) float64 { return run.Peak }},
	{Title: "spans/s", Unit: "spans/s", Verb: "%.1f", Pick: func(run tracingRun) float64 { return quotient(float64(run.Sink.Spans), run.Took.Seconds()) }},
	{Title: "links a span", Unit: "links/span", Verb: "%.1f", Pick: func(run tracingRun) float64 { return quotient(float64(run.Sink.Links), float64(run.Sink.Spans)) }},
}

// tracingRows are a table of the settings.
func (r *report) tracingRows() [][]string {
	rows := yardstick.Rows(tracingNames, r.Tracings, tracingColumns)
	rows[0][0] = "tracing"
	return rows
}

// tracing fills a topic for each setting and lets this project copy each in every round, in turn.
func (s *stage) tracing(ctx context.Context, programs programs, report *report) (err error) {
	sink, err := openTraceSink(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sink.close()) }()
	run := uint64(time.Now().UnixNano()) // tells this run's records from others
	settings := tracingSettings(s.settings.count)
	peers := make([]*tracedPeer, len(settings))
	for i, how := range settings {
		peers[i] = &tracedPeer{newProcessorPeer(s.settings, programs), how, sink.url}
		if err := s.createTopic(ctx, peers[i].in(), s.settings.parts); err != nil {
			return err
		}
		s.progress(fmt.Sprintf("filling %s with %d records of %d bytes, one in %d sampled", peers[i].in(), s.settings.count, s.settings.bytes, how.every))
		plain := load.PlainConfig{Run: run, Bytes: s.settings.bytes, SampledEvery: how.every}
		if err := s.Fill(ctx, peers[i].in(), plain, s.settings.count, func(int64) {}); err != nil {
			return err
		}
	}
	var round []tracingRun
	for turn, p := range yardstick.Turns(s.settings.warmRounds, s.settings.rounds, peers) {
		one, err := s.tracedOnce(ctx, p, turn, run, sink)
		if err != nil {
			return err
		}
		s.progress(fmt.Sprintf("tracing, %s: %s: %.0f records/s, %.2f CPU s per million, %d spans", turn, p.name(), one.Rate, one.CPU, one.Sink.Spans))
		if round = append(round, one); turn.Place < len(peers)-1 {
			continue
		}
		if turn.Counts() {
			report.Tracings = append(report.Tracings, besideOff(round)...)
		}
		round = nil
	}
	for _, p := range peers {
		if err := s.deleteTopic(ctx, p.in()); err != nil {
			return err
		}
	}
	return nil
}

// tracedOnce is one run of one setting. Its processes have ended by the time the sink is asked, and so sent what they had.
func (s *stage) tracedOnce(ctx context.Context, p *tracedPeer, turn yardstick.Turn, run uint64, sink *traceSink) (tracingRun, error) {
	j := job{name: "bench-tracing-" + turn.Name(), brokers: s.brokers, in: p.in(), out: "bench-tracing-out-" + turn.Name()}
	copied, err := s.copyOnce(ctx, p, j, run, func([]*yardstick.Process, int64) {})
	if err != nil {
		return tracingRun{}, err
	}
	copied.Round = turn.Round
	one := tracingRun{CopyRun: copied}
	if one.Sink, err = sink.taken(); err == nil {
		err = p.how.check(one.Sink)
	}
	if err != nil {
		return tracingRun{}, fmt.Errorf("tracing, %s: %s: %w", turn, p.name(), err)
	}
	return one, nil
}

// besideOff compares the runs of a round with the one that did not trace: what disturbed the machine then disturbed all.
func besideOff(round []tracingRun) []tracingRun {
	for _, off := range round {
		if off.Peer != tracingOff {
			continue
		}
		for i := range round {
			round[i].RateByOff, round[i].CPUByOff = quotient(round[i].Rate, off.Rate), quotient(round[i].CPU, off.CPU)
		}
	}
	return round
}
