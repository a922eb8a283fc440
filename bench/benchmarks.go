package main

import (
	"fmt"
	"runtime"
	"strings"

	"pawl/internal/yardstick"
)

// benchmarks is the report in the Go benchmark format, a line for each run, so that benchstat compares
// peers within a report (benchstat -col /peer) and reports with each other.
func (r *report) benchmarks() string {
	var b strings.Builder
	fmt.Fprintf(&b, "goos: %s\ngoarch: %s\npkg: pawl/bench\nkafka: %s\n", runtime.GOOS, runtime.GOARCH, r.Kafka)
	task := fmt.Sprintf("bytes=%d/partitions=%d/processes=%d/lanes=%d", r.Bytes, r.Partitions, r.Processes, r.Lanes)
	writeBenchmarks(&b, "Throughput/"+task, r.Cores, r.Copies, copyColumns, func(yardstick.CopyRun) int64 { return r.Records })
	count := func(run yardstick.WaitRun) int64 { return run.Latency.Count }
	writeBenchmarks(&b, fmt.Sprintf("Latency/rate=%.0f/%s", r.Rate, task), r.Cores, r.Waits, waitColumns, count)
	for _, p := range r.Points {
		name := fmt.Sprintf("Sweep/%s=%d", p.Sweep, p.Value)
		writeBenchmarks(&b, name, r.Cores, p.Copies, copyColumns, func(yardstick.CopyRun) int64 { return p.Records })
		writeBenchmarks(&b, name, r.Cores, p.Waits, waitColumns, count)
	}
	writeBenchmarks(&b, "CatchUp/"+task, r.Cores, r.CatchUps, catchUpColumns, func(catchUpRun) int64 { return r.Backlog })
	writeBenchmarks(&b, fmt.Sprintf("Steps/bytes=%d/partitions=%d", r.Bytes, r.Partitions), r.Cores, r.Steps, stepColumns, func(run stepRun) int64 { return run.Latency.Count })
	writeBenchmarks(&b, "Tracing/"+task, r.Cores, r.Tracings, tracingColumns, func(tracingRun) int64 { return r.Records })
	writeBenchmarks(&b, fmt.Sprintf("Orders/partitions=%d/processes=%d/lanes=%d", r.Partitions, r.Processes, r.Lanes), r.Cores, r.Orders, orderColumns, func(orderRun) int64 { return r.OrderCount })
	writeBenchmarks(&b, fmt.Sprintf("Wire/rate=%.0f/bytes=%d", r.WireRate, r.Body), r.Cores, r.Wires, wireColumns, func(run wireRun) int64 { return run.Latency.Count })
	for _, target := range r.effectTargets() {
		writeBenchmarks(&b, fmt.Sprintf("Effects/target=%s/bytes=%d", target, r.Body), r.Cores, r.effectsOf(target), effectColumns, func(run effectRun) int64 { return run.Effects })
	}
	return b.String()
}

func writeBenchmarks[R yardstick.Measured](b *strings.Builder, name string, cores int, runs []R, columns []yardstick.Column[R], count func(R) int64) {
	for _, run := range runs {
		fmt.Fprintf(b, "Benchmark%s/peer=%s-%d %d", name, run.By(), cores, count(run))
		for _, c := range columns {
			fmt.Fprintf(b, " %g %s", c.Pick(run), c.Unit)
		}
		b.WriteByte('\n')
	}
}
