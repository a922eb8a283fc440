package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"pawl/internal/app"
	"pawl/internal/yardstick"
)

// benchReport is what `bench -o json` prints.
type benchReport struct {
	Name       string              `json:"name"`
	Began      time.Time           `json:"began"`
	Took       float64             `json:"took_seconds"`
	Program    build               `json:"program"`
	Cores      int                 `json:"cores"`
	Load       string              `json:"load_average_before,omitempty"` // what else the machine was doing
	Brokers    []string            `json:"brokers"`
	Nodes      int                 `json:"nodes"`
	Records    int64               `json:"records"` // of a run
	Bytes      int                 `json:"bytes"`
	Partitions int32               `json:"partitions"`
	Processes  int                 `json:"processes"`
	Lanes      int                 `json:"lanes"` // of a process, and members of a loop's
	Rate       float64             `json:"rate,omitempty"`
	Settings   []app.Setting       `json:"settings"` // of transactions
	Peers      []string            `json:"peers"`
	Figures    []benchFigure       `json:"figures"`
	Copies     []yardstick.CopyRun `json:"throughput,omitempty"`
	Waits      []yardstick.WaitRun `json:"latency,omitempty"`
}

// benchFigure is what came of the rounds.
type benchFigure struct {
	Figure string `json:"figure"`
	Peer   string `json:"peer"`
	yardstick.Spread
}

func newBenchReport(t *trial, conf app.Config, origins *app.Origins) *benchReport {
	f := t.flags
	r := &benchReport{
		Name: t.name, Began: time.Now().UTC(), Program: thisBuild(), Cores: runtime.GOMAXPROCS(0), Brokers: conf.Kafka.Brokers,
		Records: f.records, Bytes: f.bytes, Partitions: f.partitions, Processes: f.processes, Lanes: conf.Lanes(int(f.partitions)), Rate: f.latency,
		Peers: []string{benchPawl, benchLoop},
	}
	if f.latency > 0 {
		r.Records = t.streamed()
	}
	if average, err := os.ReadFile("/proc/loadavg"); err == nil {
		r.Load = strings.TrimSpace(string(average))
	}
	for _, setting := range origins.Settings(conf) {
		if strings.HasPrefix(setting.Path, "txn.") || setting.Path == "kafka.compression" || setting.Path == "kafka.protocol" {
			r.Settings = append(r.Settings, setting)
		}
	}
	return r
}

var benchCopyColumns = []yardstick.Column[yardstick.CopyRun]{
	{Title: "records/s", Verb: "%.0f", Pick: func(run yardstick.CopyRun) float64 { return run.Rate }},
	{Title: "CPU s per million", Verb: "%.2f", Pick: func(run yardstick.CopyRun) float64 { return run.CPU }},
	{Title: "peak MiB", Verb: "%.0f", Pick: func(run yardstick.CopyRun) float64 { return run.Peak }},
	{Title: "start s", Verb: "%.2f", Pick: func(run yardstick.CopyRun) float64 { return run.StartUp.Seconds() }},
}

var benchWaitColumns = []yardstick.Column[yardstick.WaitRun]{
	{Title: "p50 ms", Verb: "%.1f", Pick: func(run yardstick.WaitRun) float64 { return yardstick.Milliseconds(run.Scheduled.P50) }},
	{Title: "p99 ms", Verb: "%.1f", Pick: func(run yardstick.WaitRun) float64 { return yardstick.Milliseconds(run.Scheduled.P99) }},
	{Title: "p99.9 ms", Verb: "%.1f", Pick: func(run yardstick.WaitRun) float64 { return yardstick.Milliseconds(run.Scheduled.P999) }},
	{Title: "CPU s per million", Verb: "%.2f", Pick: func(run yardstick.WaitRun) float64 { return run.CPU }},
	{Title: "peak MiB", Verb: "%.0f", Pick: func(run yardstick.WaitRun) float64 { return run.Peak }},
}

// render prints the report as JSON or as a table, with a last row for this program's median by the loop's.
func (r *benchReport) render(c *cli) error {
	var rows [][]string
	if r.Rate > 0 {
		rows = benchRows(r, r.Waits, benchWaitColumns)
	} else {
		rows = benchRows(r, r.Copies, benchCopyColumns)
	}
	for i := range rows[0] {
		rows[0][i] = strings.ToUpper(rows[0][i])
	}
	return c.render(r, table{header: rows[0], rows: rows[1:]})
}

// benchRows gives the table of the runs and keeps the figures for the JSON.
func benchRows[R yardstick.Measured](r *benchReport, runs []R, columns []yardstick.Column[R]) [][]string {
	ratios := append(make([]string, 0, 1+len(columns)), benchPawl+" by "+benchLoop)
	for _, c := range columns {
		own, other := yardstick.SpreadFor(runs, benchPawl, c.Pick), yardstick.SpreadFor(runs, benchLoop, c.Pick)
		r.Figures = append(r.Figures, benchFigure{c.Title, benchPawl, own}, benchFigure{c.Title, benchLoop, other})
		ratio := "-"
		if other.Median > 0 {
			ratio = fmt.Sprintf("%.2f", own.Median/other.Median)
		}
		ratios = append(ratios, ratio)
	}
	return append(yardstick.Rows(r.Peers, runs, columns), ratios)
}
