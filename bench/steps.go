package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/load"
	"pawl/internal/yardstick"
)

const (
	defaultSteps = "10,100,1000,10000,50000,100000,1000"
	stepDuration = 10 * time.Second
	stepWarmUp   = 2 * time.Second // bounds the steps of the round that does not count
	settledBy    = 2               // a second is settled whose p99 is below so many times the median of its step
)

// stepRun is one step of one round: this project as one process with every default, while the load changes.
type stepRun struct {
	Round int `json:"round"`
	Step  int `json:"step"` // from 1

	Wanted       float64      `json:"wanted_records_per_second"`
	Rate         float64      `json:"records_per_second"`    // that was delivered until the next step began
	Latency      load.Summary `json:"latency_from_schedule"` // of the step's records, whenever they were delivered
	Transactions int64        `json:"transactions"`
	PerSecond    float64      `json:"transactions_per_second"`
	Size         float64      `json:"records_per_transaction"`
	Seconds      []float64    `json:"p99_ms_by_second"`
}

// By names the step.
func (run stepRun) By() string { return fmt.Sprintf("step-%d-at-%.0f", run.Step, run.Wanted) }

// settled is how many seconds into the step the first second began that was settled; infinite if none was.
func (run stepRun) settled() float64 {
	median := yardstick.Milliseconds(run.Latency.P50)
	i := slices.IndexFunc(run.Seconds, func(p99 float64) bool { return p99 < settledBy*median })
	if i < 0 {
		return math.Inf(1)
	}
	return float64(i)
}

// worst is the p99 of the worst second.
func (run stepRun) worst() float64 {
	if len(run.Seconds) == 0 {
		return 0
	}
	return slices.Max(run.Seconds)
}

var stepColumns = []yardstick.Column[stepRun]{
	{Title: "records/s", Unit: "records/s", Verb: "%.0f", Pick: func(run stepRun) float64 { return run.Rate }},
	{Title: "p50", Unit: "p50-ms", Verb: "%.1f", Pick: func(run stepRun) float64 { return yardstick.Milliseconds(run.Latency.P50) }},
	{Title: "p99", Unit: "p99-ms", Verb: "%.1f", Pick: func(run stepRun) float64 { return yardstick.Milliseconds(run.Latency.P99) }},
	{Title: "p99.9", Unit: "p99.9-ms", Verb: "%.1f", Pick: func(run stepRun) float64 { return yardstick.Milliseconds(run.Latency.P999) }},
	{Title: "records per transaction", Unit: "records/txn", Verb: "%.1f", Pick: func(run stepRun) float64 { return run.Size }},
	{Title: "transactions/s", Unit: "txn/s", Verb: "%.1f", Pick: func(run stepRun) float64 { return run.PerSecond }},
	{Title: "settled after, s", Unit: "settled-s", Verb: "%.0f", Pick: stepRun.settled},
	{Title: "p99 of the worst second", Unit: "worst-p99-ms", Verb: "%.1f", Pick: stepRun.worst},
}

// stepNames are the steps that were measured, in their order.
func (r *report) stepNames() []string {
	var names []string
	for _, run := range r.Steps {
		if !slices.Contains(names, run.By()) {
			names = append(names, run.By())
		}
	}
	return names
}

// stepRows are a table of the steps.
func (r *report) stepRows() [][]string {
	rows := yardstick.Rows(r.stepNames(), r.Steps, stepColumns)
	rows[0][0] = "step"
	return rows
}

// stepRates are those of the load, one after the other.
func (s settings) stepRates() ([]int, error) {
	if s.points != "" {
		return parsePoints(s.points)
	}
	return parsePoints(defaultSteps)
}

func (s settings) stepDuration() time.Duration {
	if s.duration > 0 {
		return s.duration
	}
	return stepDuration
}

// steps lets the load change under one process that has every default, in every round.
func (s *stage) steps(ctx context.Context, programs programs, report *report) error {
	rates, err := s.settings.stepRates()
	if err != nil {
		return err
	}
	p := &processorPeer{binary: programs.binary, folder: programs.folder, processes: 1, partitions: s.settings.parts}
	for turn := range yardstick.Turns(min(1, s.settings.warmRounds), s.settings.rounds, []*processorPeer{p}) {
		duration := s.settings.stepDuration()
		if !turn.Counts() {
			duration = min(duration, stepWarmUp)
		}
		runs, err := s.stepsOnce(ctx, p, "bench-steps-"+turn.Name(), newLadder(rates, s.settings.bytes, s.settings.warmUp, duration))
		if err != nil {
			return err
		}
		for _, run := range runs {
			s.progress(fmt.Sprintf("steps, %s: %s: %.0f records/s, %s, %.1f records a transaction", turn, run.By(), run.Rate, run.Latency, run.Size))
			if turn.Counts() {
				run.Round = turn.Round
				report.Steps = append(report.Steps, run)
			}
		}
	}
	return nil
}

func (s *stage) stepsOnce(ctx context.Context, p *processorPeer, name string, l *ladder) ([]stepRun, error) {
	j := job{name: name, brokers: s.brokers, in: name + "-in", out: name + "-out", steady: true, lasts: 2 * l.lasts()}
	if err := s.createTopic(ctx, j.in, s.settings.parts); err != nil {
		return nil, err
	}
	ids := make([]string, p.members())
	for lane := range ids {
		ids[lane] = fmt.Sprintf("%s.0.%d", j.name, lane)
	}
	_, err := s.with(ctx, p, j, func(processes []*yardstick.Process) error {
		if err := s.Joined(ctx, j.name, p.members(), processes); err != nil {
			return err
		}
		l.begin(time.Now())
		watch := yardstick.Watch{Delivered: l.delivered, Produced: func(stream int, delivered int64) error {
			now := time.Now() // before the brokers are asked: delivered is of this moment
			transactions, err := s.Transactions(ctx, ids...)
			if err != nil {
				return err
			}
			return l.produced(stream, edge{now, delivered, transactions})
		}}
		_, err := s.Streams(ctx, j.task(), l.streams, watch, processes)
		return err
	})
	if err != nil {
		return nil, err
	}
	if _, err := s.Check(ctx, j.out, 1, l.count(), p.exact()); err != nil {
		return nil, fmt.Errorf("%s: %w", p.name(), err)
	}
	return l.runs(), errors.Join(s.deleteTopic(ctx, j.in), s.deleteTopic(ctx, j.out))
}

// ladder is a load that changes by steps, and what is seen of its records. The first of its streams may be there
// to warm up.
type ladder struct {
	warm    int // streams before the first step
	streams []yardstick.Stream
	seen    []seconds // of each stream, on the goroutine of the reader
	edges   []edge    // before the first stream and after each
}

// edge is what there was at the end of a stream.
type edge struct {
	at           time.Time
	delivered    int64
	transactions int64
}

func newLadder(rates []int, bytes int, warmUp, duration time.Duration) *ladder {
	l := &ladder{}
	add := func(rate int, duration time.Duration) {
		next := l.count()
		count := max(1, int64(duration.Seconds()*float64(rate)))
		l.streams = append(l.streams, yardstick.Stream{First: next, Count: count, Bytes: bytes, Rate: float64(rate)})
	}
	if warmUp > 0 {
		l.warm = 1
		add(rates[0], warmUp)
	}
	for _, rate := range rates {
		add(rate, duration)
	}
	l.seen = make([]seconds, len(l.streams))
	return l
}

// count is how many records the streams have.
func (l *ladder) count() int64 {
	if len(l.streams) == 0 {
		return 0
	}
	last := l.streams[len(l.streams)-1]
	return last.First + last.Count
}

func (l *ladder) lasts() time.Duration {
	sum := time.Duration(0)
	for _, stream := range l.streams {
		sum += time.Duration(float64(stream.Count) / stream.Rate * float64(time.Second))
	}
	return sum
}

func (l *ladder) begin(at time.Time) { l.edges = append(l.edges, edge{at: at}) }

// delivered counts a record for the step that it was produced in, and for its second there.
func (l *ladder) delivered(record *kgo.Record, at time.Time) {
	head, err := load.ParsePlain(record.Value)
	if err != nil {
		return // none of ours; Check tells
	}
	for i, stream := range l.streams {
		if head.N < stream.First+stream.Count {
			l.seen[i].add(int(float64(head.N-stream.First)/stream.Rate), at.Sub(head.Scheduled))
			return
		}
	}
}

// produced notes the end of a stream.
func (l *ladder) produced(stream int, now edge) error {
	// An id's epochs end at 32,767 and begin again. No step comes near, unless it is made to last.
	if before := l.edges[stream].transactions; now.transactions < before {
		return fmt.Errorf("lost count of the transactions: %d after %d; take shorter steps by -duration", now.transactions, before)
	}
	l.edges = append(l.edges, now)
	return nil
}

// runs are the steps.
func (l *ladder) runs() []stepRun {
	var runs []stepRun
	for i := l.warm; i < len(l.streams); i++ {
		before, after := l.edges[i], l.edges[i+1]
		took := after.at.Sub(before.at).Seconds()
		run := stepRun{Step: i - l.warm + 1, Wanted: l.streams[i].Rate, Latency: l.seen[i].all.Summary(), Seconds: l.seen[i].p99()}
		run.Transactions = after.transactions - before.transactions
		run.Rate = quotient(float64(after.delivered-before.delivered), took)
		run.PerSecond = quotient(float64(run.Transactions), took)
		run.Size = quotient(float64(after.delivered-before.delivered), float64(run.Transactions))
		runs = append(runs, run)
	}
	return runs
}

// seconds is the latency of a stream's records, by the second that they were due in.
type seconds struct {
	all load.Histogram
	by  []*load.Histogram
}

func (s *seconds) add(second int, latency time.Duration) {
	for len(s.by) <= second {
		s.by = append(s.by, &load.Histogram{})
	}
	s.by[second].Record(latency)
	s.all.Record(latency)
}

func (s *seconds) p99() []float64 {
	figures := make([]float64, len(s.by))
	for i, one := range s.by {
		figures[i] = yardstick.Milliseconds(one.Quantile(0.99))
	}
	return figures
}
