package main

import (
	"fmt"
	"io"
	"strings"

	"pawl/internal/yardstick"
)

var copyColumns = []yardstick.Column[yardstick.CopyRun]{
	{Title: "records/s", Unit: "records/s", Verb: "%.0f", Pick: func(run yardstick.CopyRun) float64 { return run.Rate }},
	{Title: "CPU s per million", Unit: "client-cpu-s/Mrec", Verb: "%.2f", Pick: func(run yardstick.CopyRun) float64 { return run.CPU }},
	{Title: "broker's CPU s per million", Unit: "broker-cpu-s/Mrec", Verb: "%.2f", Pick: func(run yardstick.CopyRun) float64 { return run.Broker }},
	{Title: "peak MiB a process", Unit: "peak-MiB", Verb: "%.0f", Pick: func(run yardstick.CopyRun) float64 { return run.Peak }},
	{Title: "start to first commit, s", Unit: "start-s", Verb: "%.2f", Pick: func(run yardstick.CopyRun) float64 { return run.StartUp.Seconds() }},
}

var waitColumns = []yardstick.Column[yardstick.WaitRun]{
	{Title: "p50", Unit: "p50-ms", Verb: "%.1f", Pick: func(run yardstick.WaitRun) float64 { return yardstick.Milliseconds(run.Latency.P50) }},
	{Title: "p99", Unit: "p99-ms", Verb: "%.1f", Pick: func(run yardstick.WaitRun) float64 { return yardstick.Milliseconds(run.Latency.P99) }},
	{Title: "p99.9", Unit: "p99.9-ms", Verb: "%.1f", Pick: func(run yardstick.WaitRun) float64 { return yardstick.Milliseconds(run.Latency.P999) }},
	{Title: "p99 scheduled", Unit: "p99-scheduled-ms", Verb: "%.1f", Pick: func(run yardstick.WaitRun) float64 { return yardstick.Milliseconds(run.Scheduled.P99) }},
	{Title: "CPU s per million", Unit: "client-cpu-s/Mrec", Verb: "%.2f", Pick: func(run yardstick.WaitRun) float64 { return run.CPU }},
	{Title: "broker's CPU s per million", Unit: "broker-cpu-s/Mrec", Verb: "%.2f", Pick: func(run yardstick.WaitRun) float64 { return run.Broker }},
	{Title: "peak MiB a process", Unit: "peak-MiB", Verb: "%.0f", Pick: func(run yardstick.WaitRun) float64 { return run.Peak }},
}

func printColumns[R yardstick.Measured](table io.Writer, peers []string, runs []R, columns []yardstick.Column[R]) {
	printRows(table, yardstick.Rows(peers, runs, columns))
}

func printRows(table io.Writer, rows [][]string) {
	for _, row := range rows {
		fmt.Fprintln(table, strings.Join(row, "\t"))
	}
	fmt.Fprintln(table)
}
