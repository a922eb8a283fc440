package main

import (
	"fmt"
	"io"
	"strings"
)

// column is one figure of the runs of a part: in tables, benchmarks and charts.
type column[R any] struct {
	title string // in a table
	unit  string // in a benchmark; per-second units count as better when higher
	verb  string
	pick  func(R) float64
}

// measuredRun is a run of a peer.
type measuredRun interface{ peer() string }

func (run copyRun) peer() string { return run.Peer }
func (run waitRun) peer() string { return run.Peer }

var copyColumns = []column[copyRun]{
	{"records/s", "records/s", "%.0f", func(run copyRun) float64 { return run.Rate }},
	{"CPU s per million", "client-cpu-s/Mrec", "%.2f", func(run copyRun) float64 { return run.CPU }},
	{"broker's CPU s per million", "broker-cpu-s/Mrec", "%.2f", func(run copyRun) float64 { return run.Broker }},
	{"peak MiB a process", "peak-MiB", "%.0f", func(run copyRun) float64 { return run.Peak }},
	{"start to first commit, s", "start-s", "%.2f", func(run copyRun) float64 { return run.StartUp.Seconds() }},
}

var waitColumns = []column[waitRun]{
	{"p50", "p50-ms", "%.1f", func(run waitRun) float64 { return milliseconds(run.Latency.P50) }},
	{"p99", "p99-ms", "%.1f", func(run waitRun) float64 { return milliseconds(run.Latency.P99) }},
	{"p99.9", "p99.9-ms", "%.1f", func(run waitRun) float64 { return milliseconds(run.Latency.P999) }},
	{"p99 scheduled", "p99-scheduled-ms", "%.1f", func(run waitRun) float64 { return milliseconds(run.Scheduled.P99) }},
	{"CPU s per million", "client-cpu-s/Mrec", "%.2f", func(run waitRun) float64 { return run.CPU }},
	{"broker's CPU s per million", "broker-cpu-s/Mrec", "%.2f", func(run waitRun) float64 { return run.Broker }},
	{"peak MiB a process", "peak-MiB", "%.0f", func(run waitRun) float64 { return run.Peak }},
}

// rows are the titles and then a row for each peer: its name and its figures.
func rows[R measuredRun](peers []string, runs []R, columns []column[R]) [][]string {
	all := make([][]string, 1+len(peers))
	all[0] = []string{"peer"}
	for i, peer := range peers {
		all[1+i] = []string{peer}
	}
	for _, c := range columns {
		all[0] = append(all[0], c.title)
		for i, peer := range peers {
			all[1+i] = append(all[1+i], spreadFor(runs, peer, c).format(c.verb))
		}
	}
	return all
}

func spreadFor[R measuredRun](runs []R, peer string, c column[R]) spread {
	return figures(runs, func(run R) bool { return run.peer() == peer }, c.pick)
}

func printColumns[R measuredRun](table io.Writer, peers []string, runs []R, columns []column[R]) {
	for _, row := range rows(peers, runs, columns) {
		fmt.Fprintln(table, strings.Join(row, "\t"))
	}
	fmt.Fprintln(table)
}
