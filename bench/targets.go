package main

import (
	"fmt"
	"math"
	"slices"
	"time"

	"pawl/internal/yardstick"
)

// target is a figure that is wanted of this project. Most are ratios of its median to that of a peer in the same run.
type target struct {
	what   string
	wanted limit
	figure func(*report) float64 // below 0 where it, or a peer it is compared with, was not measured
}

// limit is what a figure has to keep.
type limit struct {
	word string
	line float64
	verb string
}

func atLeast(line float64, verb string) limit { return limit{"at least", line, verb} }
func atMost(line float64, verb string) limit  { return limit{"at most", line, verb} }
func below(line float64, verb string) limit   { return limit{"below", line, verb} }

func (l limit) String() string { return fmt.Sprintf("%s "+l.verb, l.word, l.line) }

func (l limit) met(value float64) bool {
	switch l.word {
	case "at least":
		return value >= l.line
	case "at most":
		return value <= l.line
	default:
		return value < l.line
	}
}

const (
	unmeasured = -1.0 // a figure that is not there
	// decayDuration is how long a run of effects must be for its decay to be judged.
	decayDuration = 5 * time.Minute
	// latencyRate is the rate that the targets of latency are for, in records/s.
	latencyRate = 5000
)

// targets are all that are wanted, in the order of the report. Where a figure has two, the second is the higher aim.
var targets = []target{
	{"throughput by that of the loop", atLeast(0.85, "%.2f"), rateByLoop},
	{"throughput by that of the loop", atLeast(0.9, "%.2f"), rateByLoop},
	{"throughput by that of Kafka Streams at its best", atLeast(4, "%.1f"), func(r *report) float64 {
		return ratio(copied(r, processorName, copyRate), atBest(r.Copies, copyRate, math.Max))
	}},
	{"client CPU per record by that of Kafka Streams at its best", atMost(1.0/6, "%.3f"), func(r *report) float64 {
		return ratio(copied(r, processorName, copyCPU), atBest(r.Copies, copyCPU, math.Min))
	}},
	{"peak memory of a process, MiB", below(150, "%.0f"), func(r *report) float64 {
		peak := yardstick.SpreadFor(r.Copies, processorName, func(run yardstick.CopyRun) float64 { return run.Peak }).Most
		return ratio(peak, 1)
	}},
	{"p99 latency at 5,000 records/s by that of the loop", atMost(2.5, "%.1f"), p99ByLoop},
	{"p99 latency at 5,000 records/s by that of the loop", atMost(1.3, "%.1f"), p99ByLoop},
	{"p99 latency at 5,000 records/s by that of Kafka Streams at its best", atMost(1.0/3, "%.3f"), func(r *report) float64 {
		runs := r.waitsAt(latencyRate)
		return ratio(yardstick.SpreadFor(runs, processorName, waitP99).Median, atBest(runs, waitP99, math.Min))
	}},
	{"p50 latency at 5,000 records/s by that of the loop", atMost(1.5, "%.1f"), func(r *report) float64 {
		return byLoop(r.waitsAt(latencyRate), waitP50)
	}},
	{"records/s of orders with effects, broker and Postgres on the same two cores", atLeast(100_000, "%.0f"), func(r *report) float64 {
		if r.OrderCount < orderRecords {
			return unmeasured
		}
		return ratio(yardstick.SpreadFor(r.Orders, processorName, orderRate).Median, 1)
	}},
	{"rate of a catch-up of 5,000,000 records by that of a throughput run in its round", atLeast(0.9, "%.2f"), func(r *report) float64 {
		return ratio(yardstick.SpreadFor(r.fullCatchUps(), processorName, catchUpRun.bySteady).Median, 1)
	}},
	{"resident memory in the last tenth of a catch-up by that in the second, the worst", atMost(1.1, "%.2f"), func(r *report) float64 {
		return ratio(yardstick.SpreadFor(r.fullCatchUps(), processorName, catchUpRun.growth).Most, 1)
	}},
	{"throughput with 1 % of transactions traced by that without, in the same round", atLeast(0.97, "%.2f"), byOff(tracedTransactions)},
	{"throughput with 1 % of records sampled, and so nearly all transactions traced, by that without, in the same round", atLeast(0.97, "%.2f"), byOff(tracedRecords)},
	{"p99 from commit to call by that of the loop", atMost(3, "%.1f"), func(r *report) float64 {
		return ratio(r.wires(processorName, wireP99).Median, r.wires(loopName, wireP99).Median)
	}},
}

func copyRate(run yardstick.CopyRun) float64 { return run.Rate }
func copyCPU(run yardstick.CopyRun) float64  { return run.CPU }
func waitP50(run yardstick.WaitRun) float64  { return yardstick.Milliseconds(run.Latency.P50) }
func waitP99(run yardstick.WaitRun) float64  { return yardstick.Milliseconds(run.Latency.P99) }

// ratio is unmeasured where one of the two is not there.
func ratio(value, by float64) float64 {
	if value <= 0 || by <= 0 {
		return unmeasured
	}
	return value / by
}

func copied(r *report, peer string, pick func(yardstick.CopyRun) float64) float64 {
	return yardstick.SpreadFor(r.Copies, peer, pick).Median
}

func byLoop[R yardstick.Measured](runs []R, pick func(R) float64) float64 {
	return ratio(yardstick.SpreadFor(runs, processorName, pick).Median, yardstick.SpreadFor(runs, loopName, pick).Median)
}

func rateByLoop(r *report) float64 { return byLoop(r.Copies, copyRate) }
func p99ByLoop(r *report) float64  { return byLoop(r.waitsAt(latencyRate), waitP99) }

// byOff is the rate of a way to trace by that without tracing.
func byOff(how string) func(*report) float64 {
	return func(r *report) float64 {
		return ratio(yardstick.SpreadFor(r.Tracings, how, func(run tracingRun) float64 { return run.RateByOff }).Median, 1)
	}
}

// atBest is the median of Kafka Streams with its best settings or, where that is better, with its defaults; 0 where
// its best settings were not in the run.
func atBest[R yardstick.Measured](runs []R, pick func(R) float64, better func(a, b float64) float64) float64 {
	best, plain := yardstick.SpreadFor(runs, streamsBestName, pick).Median, yardstick.SpreadFor(runs, streamsName, pick).Median
	if best <= 0 || plain <= 0 {
		return best
	}
	return better(best, plain)
}

// waitsAt are the latency runs at a rate, of the part or of the sweep.
func (r *report) waitsAt(rate int) []yardstick.WaitRun {
	if len(r.Waits) > 0 && r.Rate == float64(rate) {
		return r.Waits
	}
	for _, at := range r.Points {
		if at.Sweep == "rates" && at.Value == rate {
			return at.Waits
		}
	}
	return nil
}

// fullCatchUps are those of a backlog that is long enough to be judged by.
func (r *report) fullCatchUps() []catchUpRun {
	if r.Backlog < catchUpRecords {
		return nil
	}
	return r.CatchUps
}

// effectTargetsOf are what is wanted where effects call something: ratios to River as it comes, or to the own figure
// where nothing holds the server back.
func effectTargetsOf(called string, rates ...float64) []target {
	of := func(peer, base string, pick func(effectRun) float64) func(*report) float64 {
		return func(r *report) float64 {
			return ratio(r.effects(called, peer, pick).Median, r.effects(called, base, pick).Median)
		}
	}
	pace := make([]target, len(rates))
	for i, rate := range rates {
		pace[i] = target{"effects/s by those of river", atLeast(rate, "%.0f"), of(effectPawl, effectRiver, effectRate)}
	}
	all := slices.Concat(pace, []target{
		{"CPU of Postgres per effect by that of river", atMost(0.2, "%.1f"), of(effectPawl, effectRiver, effectServerCPU)},
		{"CPU of Postgres per effect by that of river", atMost(0.1, "%.1f"), of(effectPawl, effectRiver, effectServerCPU)},
		{"WAL per effect by that of river", atMost(0.2, "%.1f"), of(effectPawl, effectRiver, effectWAL)},
		{"effects/s under a transaction held open by those without", atLeast(0.9, "%.1f"), of(effectPawl+effectHeld, effectPawl, effectRate)},
		{"calls of pawl that were out of order or repeated, in any run", atMost(0, "%.0f"), func(r *report) float64 {
			return worstOfPawl(r, called, math.Max, func(run effectRun) float64 { return float64(run.Tally.Disordered + run.Tally.Repeated) })
		}},
		{"second half of a run of pawl by its first, the worst", atLeast(0.9, "%.1f"), func(r *report) float64 {
			if r.Length < decayDuration {
				return unmeasured
			}
			return worstOfPawl(r, called, math.Min, func(run effectRun) float64 { return run.steadiness() })
		}},
	})
	for i := range all {
		all[i].what += ", target " + called
	}
	return all
}

// worstOfPawl is the worst of all runs of this project, with a transaction held open too.
func worstOfPawl(r *report, called string, worse func(a, b float64) float64, pick func(effectRun) float64) float64 {
	worst := unmeasured
	for _, run := range r.Effects {
		if run.Target != called || run.Peer != effectPawl && run.Peer != effectPawl+effectHeld {
			continue
		}
		if worst == unmeasured {
			worst = pick(run)
		}
		worst = worse(worst, pick(run))
	}
	return worst
}

// verdict compares a figure with its target.
type verdict struct {
	What     string  `json:"what"`
	Measured bool    `json:"measured"` // where not, the rest is empty
	Value    float64 `json:"value"`
	Target   string  `json:"target"`
	Met      bool    `json:"met"`
}

// cells are the verdict as a row of a table.
func (v verdict) cells() []string {
	switch {
	case !v.Measured:
		return []string{v.What, "-", v.Target, "not measured"}
	case v.Met:
		return []string{v.What, fmt.Sprintf("%.3f", v.Value), v.Target, "met"}
	default:
		return []string{v.What, fmt.Sprintf("%.3f", v.Value), v.Target, "missed"}
	}
}

// verdictRows are a table of verdicts.
func verdictRows(verdicts []verdict) [][]string {
	rows := make([][]string, 1+len(verdicts))
	rows[0] = []string{"target", "measured", "wanted", ""}
	for i, v := range verdicts {
		rows[1+i] = v.cells()
	}
	return rows
}

// judge compares with every target what was measured.
func (r *report) judge() {
	all := slices.Concat(targets, effectTargetsOf(targetNothing, 10, 12), effectTargetsOf(targetHTTP, 4, 5))
	r.Verdicts = make([]verdict, len(all))
	for i, one := range all {
		v := verdict{What: one.what, Target: one.wanted.String()}
		if value := one.figure(r); value >= 0 {
			v.Measured, v.Value, v.Met = true, value, one.wanted.met(value)
		}
		r.Verdicts[i] = v
	}
}

// measured are the verdicts on what was measured.
func (r *report) measured() []verdict {
	return slices.DeleteFunc(slices.Clone(r.Verdicts), func(v verdict) bool { return !v.Measured })
}

// met tells whether no target was missed.
func (r *report) met() bool {
	return !slices.ContainsFunc(r.measured(), func(v verdict) bool { return !v.Met })
}
