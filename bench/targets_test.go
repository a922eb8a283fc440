package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"pawl/internal/load"
	"pawl/internal/yardstick"
)

// everything is a report of all parts with all peers, where every target that a part has is just met.
func everything() *report {
	r := &report{Rate: latencyRate, Backlog: catchUpRecords, Length: decayDuration}
	latency := func(p50, p99 int) load.Summary {
		return load.Summary{P50: time.Duration(p50) * time.Millisecond, P99: time.Duration(p99) * time.Millisecond}
	}
	for peer, figures := range map[string]struct {
		rate, cpu, peak float64
		p50, p99        int
	}{
		processorName:   {900, 1, 149, 15, 130},
		loopName:        {1000, 1, 999, 10, 100},
		streamsName:     {100, 7, 999, 60, 900},
		streamsBestName: {225, 6, 999, 20, 390},
	} {
		r.addCopy(yardstick.CopyRun{Peer: peer, Copied: yardstick.Copied{Rate: figures.rate}, CPU: figures.cpu, Peak: figures.peak})
		r.addWait(yardstick.WaitRun{Peer: peer, Latency: latency(figures.p50, figures.p99)})
	}
	r.addWire(wireRun{Peer: processorName, Latency: latency(1, 30)})
	r.addWire(wireRun{Peer: loopName, Latency: latency(1, 10)})
	r.CatchUps = []catchUpRun{caughtUp(90, 100, 90, 1.1)}
	r.Tracings = traced(97)
	r.OrderCount, r.Orders = orderRecords, ordersOf(100_000, 1, 1)
	for target, rate := range map[string]float64{targetNothing: 12, targetHTTP: 5} {
		r.Effects = append(r.Effects, sampleEffects(target, rate, 0.1, effectFigures{Slices: []float64{9, 9, 9, 9}}).Effects...)
	}
	return r
}

const everythingMet = `throughput by that of the loop | 0.900 | at least 0.85 | met
throughput by that of the loop | 0.900 | at least 0.90 | met
throughput by that of Kafka Streams at its best | 4.000 | at least 4.0 | met
client CPU per record by that of Kafka Streams at its best | 0.167 | at most 0.167 | met
peak memory of a process, MiB | 149.000 | below 150 | met
p99 latency at 5,000 records/s by that of the loop | 1.300 | at most 2.5 | met
p99 latency at 5,000 records/s by that of the loop | 1.300 | at most 1.3 | met
p99 latency at 5,000 records/s by that of Kafka Streams at its best | 0.333 | at most 0.333 | met
p50 latency at 5,000 records/s by that of the loop | 1.500 | at most 1.5 | met
records/s of orders with effects, broker and Postgres on the same two cores | 100000.000 | at least 100000 | met
rate of a catch-up of 5,000,000 records by that of a throughput run in its round | 0.900 | at least 0.90 | met
resident memory in the last tenth of a catch-up by that in the second, the worst | 1.100 | at most 1.10 | met
throughput with 1 % of transactions traced by that without, in the same round | 0.970 | at least 0.97 | met
throughput with 1 % of records sampled, and so nearly all transactions traced, by that without, in the same round | 0.970 | at least 0.97 | met
p99 from commit to call by that of the loop | 3.000 | at most 3.0 | met
effects/s by those of river, target no-op | 12.000 | at least 10 | met
effects/s by those of river, target no-op | 12.000 | at least 12 | met
CPU of Postgres per effect by that of river, target no-op | 0.100 | at most 0.2 | met
CPU of Postgres per effect by that of river, target no-op | 0.100 | at most 0.1 | met
WAL per effect by that of river, target no-op | 0.100 | at most 0.2 | met
effects/s under a transaction held open by those without, target no-op | 0.950 | at least 0.9 | met
calls of pawl that were out of order or repeated, in any run, target no-op | 0.000 | at most 0 | met
second half of a run of pawl by its first, the worst, target no-op | 1.000 | at least 0.9 | met
effects/s by those of river, target http | 5.000 | at least 4 | met
effects/s by those of river, target http | 5.000 | at least 5 | met
CPU of Postgres per effect by that of river, target http | 0.100 | at most 0.2 | met
CPU of Postgres per effect by that of river, target http | 0.100 | at most 0.1 | met
WAL per effect by that of river, target http | 0.100 | at most 0.2 | met
effects/s under a transaction held open by those without, target http | 0.950 | at least 0.9 | met
calls of pawl that were out of order or repeated, in any run, target http | 0.000 | at most 0 | met
second half of a run of pawl by its first, the worst, target http | 1.000 | at least 0.9 | met
`

func verdictLines(r *report) string {
	r.judge()
	var lines strings.Builder
	for _, v := range r.Verdicts {
		lines.WriteString(strings.Join(v.cells(), " | ") + "\n")
	}
	return lines.String()
}

func TestEveryTargetIsJudged(t *testing.T) {
	t.Parallel()
	if got := verdictLines(everything()); got != everythingMet {
		t.Errorf("the table is\n%swant\n%s", got, everythingMet)
	}
}

// Nothing is met or missed for want of a peer, of a rate or of a length that the target is for.
func TestWhatWasNotMeasuredIsNotJudged(t *testing.T) {
	t.Parallel()
	without := func(peers ...string) func(*report) {
		return func(r *report) {
			for _, peer := range peers {
				r.Copies = drop(r.Copies, peer)
				r.Waits = drop(r.Waits, peer)
				r.Wires = drop(r.Wires, peer)
				r.Tracings = drop(r.Tracings, peer)
				r.Orders = drop(r.Orders, peer)
				r.Effects = drop(r.Effects, peer)
			}
		}
	}
	tests := map[string]struct {
		spoil func(*report)
		lost  int // of the targets that were measured
	}{
		"nothing at all":            {func(r *report) { *r = report{} }, 31},
		"no loop":                   {without(loopName), 6},
		"Streams with its defaults": {without(streamsBestName), 3},
		"Streams at its best only":  {without(streamsName), 0},
		"no processor":              {without(processorName), 11},
		"no River":                  {without(effectRiver), 2 * 5},
		"no own effects":            {without(effectPawl, effectPawl+effectHeld), 2 * 8},
		"no 1 % of transactions":    {without(tracedTransactions), 1},
		"no 1 % of records":         {without(tracedRecords), 1},
		"another rate":              {func(r *report) { r.Rate = 1000 }, 4},
		"the rate by a sweep": {func(r *report) {
			r.Points, r.Waits = []point{{Sweep: "rates", Value: latencyRate, Waits: r.Waits}}, nil
		}, 0},
		"a short backlog":       {func(r *report) { r.Backlog-- }, 2},
		"few orders":            {func(r *report) { r.OrderCount-- }, 1},
		"short runs of effects": {func(r *report) { r.Length-- }, 2},
		"no tenths":             {func(r *report) { r.CatchUps[0].Tenths = nil }, 1},
	}
	for name, test := range tests {
		r := everything()
		test.spoil(r)
		r.judge()
		if got := len(r.measured()); got != 31-test.lost || !r.met() {
			t.Errorf("%s: %d targets are judged, all met: %t; want %d\n%s", name, got, r.met(), 31-test.lost, verdictLines(r))
		}
		var table bytes.Buffer
		r.print(&table)
		if got := strings.Count(table.String(), "not measured"); got != test.lost {
			t.Errorf("%s: %d targets are told as not measured, want %d\n%s", name, got, test.lost, &table)
		}
	}
}

func drop[R yardstick.Measured](runs []R, peer string) []R {
	var left []R
	for _, run := range runs {
		if run.By() != peer {
			left = append(left, run)
		}
	}
	return left
}

// Each target is missed as soon as its figure is a little worse.
func TestEveryTargetCanBeMissed(t *testing.T) {
	t.Parallel()
	r := everything()
	for i := range r.Copies {
		if run := &r.Copies[i]; run.Peer == processorName {
			run.Rate, run.CPU, run.Peak = 849, 1.01, 150
		}
	}
	for i := range r.Waits {
		if run := &r.Waits[i]; run.Peer == processorName {
			run.Latency.P50, run.Latency.P99 = 16*time.Millisecond, 251*time.Millisecond
		}
	}
	r.Wires[0].Latency.P99 = 31 * time.Millisecond
	r.Orders = ordersOf(99_999, 1, 1)
	r.CatchUps = append(r.CatchUps, caughtUp(89, 100, 89, 1.11), caughtUp(89, 100, 89, 1))
	r.Tracings = traced(96)
	r.Effects = nil
	for _, target := range []string{targetNothing, targetHTTP} {
		worse := sampleEffects(target, 3.9, 0.21, effectFigures{Slices: []float64{9, 9, 9, 5, 5}, Tally: deliveryTally{Disordered: 1}})
		for _, run := range worse.Effects {
			if run.Peer == effectPawl+effectHeld {
				run.Rate *= 0.9
			}
			r.addEffects(run)
		}
	}
	lines := verdictLines(r)
	if got := strings.Count(lines, "missed"); got != 31 || r.met() {
		t.Errorf("%d targets are missed, want 31\n%s", got, lines)
	}
}
