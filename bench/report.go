package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"
	"time"

	"pawl/internal/yardstick"
)

// report is what a run of bench found.
type report struct {
	Began      time.Time           `json:"began"`
	Command    string              `json:"command"`
	Commit     string              `json:"commit,omitempty"` // that this program was built of
	Peers      []string            `json:"peers"`
	Kafka      string              `json:"kafka"`
	Go         string              `json:"go"`
	Cores      int                 `json:"cores"`
	LoadBefore string              `json:"load_average_before"` // what else the machine was doing
	Records    int64               `json:"records"`
	Bytes      int                 `json:"bytes"`
	Partitions int                 `json:"partitions"`
	Processes  int                 `json:"processes"`
	Lanes      int                 `json:"lanes"`
	Rate       float64             `json:"rate"`
	Duration   time.Duration       `json:"duration_ns"`
	Copies     []yardstick.CopyRun `json:"throughput"`
	Waits      []yardstick.WaitRun `json:"latency"`
	Points     []point             `json:"sweeps,omitempty"`
	Backlog    int64               `json:"backlog,omitempty"` // records of a catch-up
	CatchUps   []catchUpRun        `json:"catch_up,omitempty"`
	StepLength time.Duration       `json:"step_duration_ns,omitempty"`
	Steps      []stepRun           `json:"steps,omitempty"`
	Tracings   []tracingRun        `json:"tracing,omitempty"`
	Wires      []wireRun           `json:"wire,omitempty"`
	WireRate   float64             `json:"wire_rate,omitempty"`
	OrderCount int64               `json:"orders_of_a_run,omitempty"`
	Orders     []orderRun          `json:"orders,omitempty"`
	Postgres   string              `json:"postgres,omitempty"`
	Body       int                 `json:"effect_bytes,omitempty"`
	Length     time.Duration       `json:"effect_duration_ns,omitempty"`
	Effects    []effectRun         `json:"effects,omitempty"`
	Verdicts   []verdict           `json:"targets"`
}

func newReport(s settings, peers []peer) *report {
	r := &report{
		Began: time.Now().UTC(), Go: runtime.Version(), Cores: runtime.NumCPU(), LoadBefore: "unknown",
		Records: s.count, Bytes: s.bytes, Partitions: s.parts, Processes: s.processes, Lanes: s.lanes,
		Rate: s.rate, Duration: s.latencyDuration(),
	}
	if s.has(partCatchUp) {
		r.Backlog = s.backlog
	}
	if s.has(partOrders) {
		r.OrderCount = s.orders
	}
	if s.has(partSteps) {
		r.StepLength = s.stepDuration()
	}
	if s.has(partEffects) {
		r.Body, r.Length = s.effectBytes, s.effectDuration()
	}
	if s.has(partWire) {
		r.Body, r.WireRate = s.effectBytes, s.wireRate
	}
	for _, p := range peers {
		r.Peers = append(r.Peers, p.name())
	}
	r.Commit = builtFrom()
	if average, err := os.ReadFile("/proc/loadavg"); err == nil {
		r.LoadBefore = strings.TrimSpace(string(average))
	}
	return r
}

// builtFrom is the commit that this program was built of, empty where the build does not say.
func builtFrom() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	commit := ""
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision":
			commit = setting.Value[:min(12, len(setting.Value))] + commit
		case setting.Key == "vcs.modified" && setting.Value == "true":
			commit += ", changed"
		}
	}
	return commit
}

func (r *report) addCopy(run yardstick.CopyRun) { r.Copies = append(r.Copies, run) }
func (r *report) addWait(run yardstick.WaitRun) { r.Waits = append(r.Waits, run) }
func (r *report) addWire(run wireRun)           { r.Wires = append(r.Wires, run) }

func (r *report) addEffects(run effectRun) { r.Effects = append(r.Effects, run) }

func (r *report) wires(peer string, pick func(wireRun) float64) yardstick.Spread {
	return yardstick.SpreadFor(r.Wires, peer, pick)
}

// print writes the tables.
func (r *report) print(w io.Writer) {
	r.judge()
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(r.Copies) > 0 {
		fmt.Fprintf(table, "copy of %d records of %d bytes, %d partitions, %d processes; median (least..most)\n", r.Records, r.Bytes, r.Partitions, r.Processes)
		printColumns(table, r.Peers, r.Copies, copyColumns)
	}
	if len(r.Waits) > 0 {
		fmt.Fprintf(table, "latency in ms at %.0f records/s, produce call to read_committed delivery; median (least..most)\n", r.Rate)
		printColumns(table, r.Peers, r.Waits, waitColumns)
	}
	for _, p := range r.Points {
		if len(p.Copies) > 0 {
			fmt.Fprintf(table, "%s: copy with %d %s, %d records; median (least..most)\n", p.Sweep, p.Value, p.Unit, p.Records)
			printColumns(table, r.Peers, p.Copies, copyColumns)
		}
		if len(p.Waits) > 0 {
			fmt.Fprintf(table, "%s: latency in ms at %d %s; median (least..most)\n", p.Sweep, p.Value, p.Unit)
			printColumns(table, r.Peers, p.Waits, waitColumns)
		}
	}
	if len(r.CatchUps) > 0 {
		fmt.Fprintf(table, "catch-up of %d records of %d bytes, %d partitions, %d processes; median (least..most)\n", r.Backlog, r.Bytes, r.Partitions, r.Processes)
		printColumns(table, []string{processorName}, r.CatchUps, catchUpColumns)
		printRows(table, r.tenthRows())
	}
	if len(r.Steps) > 0 {
		fmt.Fprintf(table, "steps of %s, records of %d bytes, one process with its defaults; latency in ms from when a record was due; median (least..most)\n", r.StepLength, r.Bytes)
		printRows(table, r.stepRows())
	}
	if len(r.Tracings) > 0 {
		fmt.Fprintf(table, "tracing: copy of %d records of %d bytes, %d partitions, %d processes; by off: of the same round; median (least..most)\n", r.Records, r.Bytes, r.Partitions, r.Processes)
		printRows(table, r.tracingRows())
	}
	if len(r.Wires) > 0 {
		fmt.Fprintf(table, "%s; median (least..most)\n", r.wireTask())
		printColumns(table, r.Peers, r.Wires, wireColumns)
	}
	if len(r.Orders) > 0 {
		fmt.Fprintf(table, "%s; median (least..most)\n", r.orderTask())
		printRows(table, r.orderRows())
		fmt.Fprintf(table, "%s\n\n", r.orderVerdict())
	}
	for _, target := range r.effectTargets() {
		fmt.Fprintf(table, "%s; median (least..most)\n", r.effectTask(target))
		printRows(table, r.effectRows(target))
	}
	printRows(table, verdictRows(r.Verdicts))
	_ = table.Flush() // the terminal is gone: nobody is left to tell
}

// save writes the report as JSON, and as benchmarks beside it, into the folder, named by its time, and returns the path of the JSON.
func (r *report) save(folder string) (string, error) {
	r.judge()
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return "", fmt.Errorf("make results folder: %w", err)
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write results: %w", err)
	}
	name := filepath.Join(folder, r.Began.Format("20060102T150405Z"))
	for path, content := range map[string][]byte{name + ".json": append(text, '\n'), name + ".txt": []byte(r.benchmarks())} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return "", fmt.Errorf("write results: %w", err)
		}
	}
	return name + ".json", nil
}
