package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pawl/internal/yardstick"
)

const performancePreface = `# Performance

<!-- Written by make performance: of the results in docs/performance -->

What ` + "`make bench`" + ` measured: this project (` + "`processor`" + `, the real binary) beside a plain at-least-once loop (` + "`loop`" + `), a single
transaction session of the client library with its defaults (` + "`session`" + `) and Kafka Streams with exactly_once_v2 (` + "`streams`" + ` with its
defaults, ` + "`streams-best`" + ` with its best settings here), on one real broker that shares the machine with them, round after round in
turn. Figures are medians of the rounds with the least and the most. A record's latency counts from its produce call to its
delivery to a read_committed reader; "scheduled" from when the call was due, which counts what a producer that was held up hides. CPU is that of the peer's processes from start to end, and of the broker meanwhile; Kafka Streams
pays for the start of its virtual machine in it. [bench/README.md](../bench/README.md) says how each part is measured and how a result gets here.
`

// page is a document made of results, and the charts that it shows, by their path from the folder of
// documents.
type page struct {
	text   strings.Builder
	charts map[string]string
}

// publish writes performance.md and its charts in a folder of documents, of the results that are kept
// in its folder performance.
func publish(docs string) error {
	p, err := makePage(docs)
	if err != nil {
		return err
	}
	files := map[string]string{"performance.md": p.text.String()}
	maps.Copy(files, p.charts)
	for path, text := range files {
		if err := os.WriteFile(filepath.Join(docs, path), []byte(text), 0o600); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	return nil
}

func makePage(docs string) (*page, error) {
	paths, err := filepath.Glob(filepath.Join(docs, "performance", "*.json")) // in the order of their names
	if err != nil {
		return nil, fmt.Errorf("find results: %w", err)
	}
	p := &page{charts: map[string]string{}}
	p.text.WriteString(performancePreface)
	if len(paths) == 0 {
		p.text.WriteString("\nNo result is kept.\n")
	}
	results := make([]result, len(paths))
	for i, path := range paths {
		r, err := readReport(path)
		if err != nil {
			return nil, err
		}
		r.judge() // by the targets of today
		results[i] = result{strings.TrimSuffix(filepath.Base(path), ".json"), r}
	}
	p.addTargets(results)
	for _, one := range results {
		p.add(one.name, one.report)
	}
	return p, nil
}

// result is a report that is kept, under the name of its file.
type result struct {
	name string
	*report
}

// addTargets writes every target with the newest result that tells of it.
func (p *page) addTargets(results []result) {
	p.text.WriteString("\n## Targets\n\nAll that is wanted, by the newest result that has the figure and, where it is a ratio, both of its peers.\n")
	var nothing report
	nothing.judge()
	rows := verdictRows(nothing.Verdicts)
	rows[0] = append(rows[0], "result")
	for i, v := range nothing.Verdicts {
		from := ""
		var newest time.Time
		for _, one := range results {
			if one.Verdicts[i].Measured && one.Began.After(newest) {
				v, newest, from = one.Verdicts[i], one.Began, fmt.Sprintf("[%[1]s](#%[1]s)", one.name)
			}
		}
		rows[1+i] = append(v.cells(), from)
	}
	p.table(rows)
}

// readReport reads what save wrote. A file that says neither when nor how it was made is no result.
func readReport(path string) (*report, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the folder that the caller named
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	var r report
	err = json.Unmarshal(text, &r)
	if err == nil && (r.Began.IsZero() || r.Command == "") {
		err = errors.New("it has no date or no command")
	}
	if err != nil {
		return nil, fmt.Errorf("read results %s: %w", path, err)
	}
	return &r, nil
}

// add writes a result's part of the page. name is that of its file.
func (p *page) add(name string, r *report) {
	commit := ""
	if r.Commit != "" {
		commit = " of commit " + r.Commit
	}
	kafka := ""
	if r.Kafka != "" {
		kafka = "Kafka " + r.Kafka + ", "
	}
	fmt.Fprintf(&p.text, "\n## %s\n\n`%s`%s on %s: %s%s, %d cores, load average before it %s. [Data](performance/%s.json)\n",
		name, r.Command, commit, r.Began.Format(time.DateOnly), kafka, r.Go, r.Cores, r.LoadBefore, name)
	if len(r.Copies) > 0 {
		fmt.Fprintf(&p.text, "\n### Throughput\n\nA copy of %d records of %d bytes, %d partitions, %d processes with %d lanes each.\n", r.Records, r.Bytes, r.Partitions, r.Processes, r.Lanes)
		p.table(yardstick.Rows(r.Peers, r.Copies, copyColumns))
		all := []chartGroup{groupOf("", r.Peers, r.Copies, copyColumns[0])}
		p.chart(name+"-throughput", chart{title: "Throughput, records/s (more is better)", verb: copyColumns[0].Verb, groups: all})
		p.chart(name+"-cpu", chart{title: "CPU seconds of the client per million records (less is better)", verb: copyColumns[1].Verb, groups: []chartGroup{groupOf("", r.Peers, r.Copies, copyColumns[1])}})
	}
	if len(r.Waits) > 0 {
		fmt.Fprintf(&p.text, "\n### Latency\n\nIn ms at %.0f records/s of %d bytes, %d partitions, %d processes with %d lanes each.\n", r.Rate, r.Bytes, r.Partitions, r.Processes, r.Lanes)
		p.table(yardstick.Rows(r.Peers, r.Waits, waitColumns))
		groups := make([]chartGroup, 0, 3)
		for _, c := range waitColumns[:3] {
			groups = append(groups, groupOf(c.Title, r.Peers, r.Waits, c))
		}
		p.chart(name+"-latency", chart{title: "Latency, ms (less is better)", verb: waitColumns[0].Verb, groups: groups})
	}
	for _, w := range sweeps {
		p.addSweep(name, w, r)
	}
	p.addCatchUp(name, r)
	p.addSteps(name, r)
	p.addTracing(name, r)
	p.addWire(name, r)
	p.addOrders(name, r)
	p.addEffects(name, r)
	p.addVerdicts(r.measured())
}

// addSweep writes the part of a sweep, if it was measured.
func (p *page) addSweep(name string, w sweep, r *report) {
	picture := chart{title: "Throughput by " + w.name + ", records/s (more is better)", verb: copyColumns[0].Verb}
	if w.steady {
		picture = chart{title: "p99 latency by " + w.name + ", ms (less is better)", verb: waitColumns[1].Verb}
	}
	for _, at := range r.Points {
		if at.Sweep != w.name {
			continue
		}
		label := fmt.Sprintf("%d %s", at.Value, at.Unit)
		if len(picture.groups) == 0 {
			fmt.Fprintf(&p.text, "\n### By %s\n", w.name)
		}
		fmt.Fprintf(&p.text, "\n%s:\n", label)
		if w.steady {
			p.table(yardstick.Rows(r.Peers, at.Waits, waitColumns))
			picture.groups = append(picture.groups, groupOf(label, r.Peers, at.Waits, waitColumns[1]))
			continue
		}
		p.table(yardstick.Rows(r.Peers, at.Copies, copyColumns))
		picture.groups = append(picture.groups, groupOf(label, r.Peers, at.Copies, copyColumns[0]))
	}
	if len(picture.groups) > 0 {
		p.chart(name+"-"+w.name, picture)
	}
}

// addCatchUp writes the part of a backlog, if it was measured.
func (p *page) addCatchUp(name string, r *report) {
	if len(r.CatchUps) == 0 {
		return
	}
	fmt.Fprintf(&p.text, "\n### Catch-up\n\nA backlog of %d records of %d bytes that waits as the processor starts, beside a throughput run in the same round; %d partitions, %d processes with %d lanes each. A tenth is one of what was copied after the first commit; its memory is the most that was seen.\n",
		r.Backlog, r.Bytes, r.Partitions, r.Processes, r.Lanes)
	p.table(yardstick.Rows([]string{processorName}, r.CatchUps, catchUpColumns))
	p.table(r.tenthRows())
	p.chart(name+"-catch-up", chart{title: "Rate and memory over a backlog", verb: "%.0f", apart: true, groups: []chartGroup{
		{label: "records/s (even is better)", bars: r.tenthsOf(tenthRate)},
		{label: "MiB of all processes (even is better)", bars: r.tenthsOf(tenthResident)},
	}})
}

// addSteps writes the part of a load that changes, if it was measured.
func (p *page) addSteps(name string, r *report) {
	if len(r.Steps) == 0 {
		return
	}
	fmt.Fprintf(&p.text, "\n### Steps\n\nOne process with its defaults, while the load changes every %s; records of %d bytes, %d partitions. Latency in ms from when a record was due, for the records of the step. Settled is the first second whose p99 is below twice the median of its step; `+Inf`: none was.\n",
		r.StepLength, r.Bytes, r.Partitions)
	p.table(r.stepRows())
	names := r.stepNames()
	picture := chart{title: "A load that changes under one process with its defaults", verb: "%.1f", apart: true}
	picture.groups = []chartGroup{
		groupOf("p50, ms (less is better)", names, r.Steps, stepColumns[1]),
		groupOf("p99, ms (less is better)", names, r.Steps, stepColumns[2]),
		groupOf("records per transaction", names, r.Steps, stepColumns[4]),
	}
	p.chart(name+"-steps", picture)
}

// addTracing writes the part of what tracing costs, if it was measured.
func (p *page) addTracing(name string, r *report) {
	if len(r.Tracings) == 0 {
		return
	}
	fmt.Fprintf(&p.text, "\n### Tracing\n\nA copy of %d records of %d bytes that all carry a traceparent, %d partitions, %d processes with %d lanes each; spans go over OTLP to a sink on the same machine. `%s`: the ratio sampler at 1 %%, of records that are not sampled; `%s`: one record in a hundred is sampled, which has its transaction traced; `%s`: all are. By off: of the same round.\n",
		r.Records, r.Bytes, r.Partitions, r.Processes, r.Lanes, tracedTransactions, tracedRecords, tracedAll)
	p.table(r.tracingRows())
	p.chart(name+"-tracing", chart{title: "Throughput with tracing by that without (more is better)", verb: tracingColumns[1].Verb, groups: []chartGroup{groupOf("", tracingNames, r.Tracings, tracingColumns[1])}})
}

// addOrders writes the part of orders, if it was measured.
func (p *page) addOrders(name string, r *report) {
	if len(r.Orders) == 0 {
		return
	}
	fmt.Fprintf(&p.text, "\n### Orders\n\nHandler `orders`, as it ships: %s; %d lanes each. Postgres %s. `%s` has no Postgres: its effects wait on their topic.\n\n%s\n",
		r.orderTask(), r.Lanes, r.Postgres, ordersNoLedger, r.orderVerdict())
	p.table(r.orderRows())
	p.chart(name+"-orders", chart{title: "Orders, records/s (more is better)", verb: "%.0f", groups: []chartGroup{groupOf("", orderPeers, r.Orders, orderColumns[0])}})
}

// addWire writes the part of the way from commit to call, if it was measured.
func (p *page) addWire(name string, r *report) {
	if len(r.Wires) == 0 {
		return
	}
	fmt.Fprintf(&p.text, "\n### From commit to call\n\nThe %s. `%s` reads the effects topic and calls, and keeps no account. Postgres %s.\n", r.wireTask(), loopName, r.Postgres)
	p.table(yardstick.Rows(r.Peers, r.Wires, wireColumns))
	p.chart(name+"-wire", chart{title: "From commit to call, ms (less is better)", verb: "%.1f", groups: []chartGroup{
		groupOf("p50", r.Peers, r.Wires, wireColumns[0]), groupOf("p99", r.Peers, r.Wires, wireColumns[1]),
	}})
}

// addEffects writes the part of effects, if it was measured.
func (p *page) addEffects(name string, r *report) {
	for _, target := range r.effectTargets() {
		fmt.Fprintf(&p.text, "\n### Effects, target %s\n\nThe %s. `%s` has none of River's GIN indexes, `%s` is a loop that only calls, and with `%s` a transaction was open the whole time.\n",
			target, r.effectTask(target), effectRiverLean, effectHTTP, effectHeld)
		p.table(r.effectRows(target))
		peers, runs := r.effectPeers(target), r.effectsOf(target)
		p.chart(name+"-"+target, chart{title: "Effects/s, target " + target + " (more is better)", verb: "%.0f", groups: []chartGroup{groupOf("", peers, runs, effectColumns[0])}})
	}
}

func (p *page) addVerdicts(verdicts []verdict) {
	if len(verdicts) == 0 {
		return
	}
	p.text.WriteString("\n### Targets\n")
	p.table(verdictRows(verdicts))
}

// groupOf gives each peer its bar.
func groupOf[R yardstick.Measured](label string, peers []string, runs []R, c yardstick.Column[R]) chartGroup {
	group := chartGroup{label: label}
	for _, peer := range peers {
		group.bars = append(group.bars, chartBar{label: peer, Spread: yardstick.SpreadFor(runs, peer, c.Pick)})
	}
	return group
}

// table writes rows, of which the first has the titles.
func (p *page) table(rows [][]string) {
	p.text.WriteByte('\n')
	for i, row := range rows {
		fmt.Fprintf(&p.text, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			p.text.WriteString(strings.Repeat("|---", len(row)) + "|\n")
		}
	}
}

// chart keeps a picture and shows it.
func (p *page) chart(name string, c chart) {
	path := "performance/" + name + ".svg"
	p.charts[path] = c.svg()
	fmt.Fprintf(&p.text, "\n![%s](%s)\n", c.title, path)
}
