package main

import (
	"fmt"
	"time"

	"pawl/internal/yardstick"
)

// orderPeers are those of the orders part, in the order of its tables.
var orderPeers = []string{processorName, ordersNoLedger}

// orderKeepsUp is the least share of the effects that has been called for when the last order is committed, for them
// to keep up: the rest was under way.
const orderKeepsUp = 0.95

var orderColumns = []yardstick.Column[orderRun]{
	{Title: "records/s", Unit: "records/s", Verb: "%.0f", Pick: orderRate},
	{Title: "effects ingested/s meanwhile", Unit: "ingested-effects/s", Verb: "%.0f", Pick: orderRun.ingestRate},
	{Title: "effects called/s meanwhile", Unit: "called-effects/s", Verb: "%.0f", Pick: orderRun.callRate},
	{Title: "effects/s to the last", Unit: "effects/s", Verb: "%.0f", Pick: func(run orderRun) float64 { return run.Effects }},
	{Title: "last effect after last order, s", Unit: "behind-s", Verb: "%.1f", Pick: func(run orderRun) float64 { return run.Behind.Seconds() }},
	{Title: "CPU s per million", Unit: "client-cpu-s/Mrec", Verb: "%.2f", Pick: func(run orderRun) float64 { return run.CPU }},
	{Title: "broker's CPU s per million", Unit: "broker-cpu-s/Mrec", Verb: "%.2f", Pick: func(run orderRun) float64 { return run.Broker }},
	{Title: "Postgres' CPU s per million", Unit: "postgres-cpu-s/Mrec", Verb: "%.2f", Pick: func(run orderRun) float64 { return run.Postgres }},
	{Title: "endpoint's CPU s per million", Unit: "endpoint-cpu-s/Mrec", Verb: "%.2f", Pick: func(run orderRun) float64 { return run.Endpoint }},
	{Title: "WAL B per effect", Unit: "WAL-B/effect", Verb: "%.0f", Pick: func(run orderRun) float64 { return run.WAL }},
	{Title: "peak MiB a process", Unit: "peak-MiB", Verb: "%.0f", Pick: func(run orderRun) float64 { return run.Peak }},
	{Title: "calls repeated", Unit: "repeated-calls", Verb: "%.0f", Pick: func(run orderRun) float64 { return float64(run.Repeated) }},
}

func orderRate(run orderRun) float64 { return run.Rate }

// orderRows are a table of the orders part.
func (r *report) orderRows() [][]string { return yardstick.Rows(orderPeers, r.Orders, orderColumns) }

// orderTask says what was measured.
func (r *report) orderTask() string {
	return fmt.Sprintf("%d orders, each with two outputs and one effect in its transaction; %d partitions, %d processes; effects/s that are committed to their topic are records/s", r.OrderCount, r.Partitions, r.Processes)
}

// orderVerdict says whether the effects kept up with the orders. They are asynchronous: records/s is that of the
// orders, while the same processes ingest effects and call for them.
func (r *report) orderVerdict() string {
	of := func(pick func(orderRun) float64) float64 {
		return yardstick.SpreadFor(r.Orders, processorName, pick).Median
	}
	called := of(func(run orderRun) float64 { return run.Called })
	if called >= orderKeepsUp {
		return fmt.Sprintf("Effects keep up: when the last order was committed, %.0f%% of them had been called for.", 100*called)
	}
	behind := time.Duration(of(func(run orderRun) float64 { return float64(run.Behind) }))
	return fmt.Sprintf("Effects are behind: when the last order was committed, %.0f%% of them were ingested and %.0f%% had been called for; the rest took %s more. records/s is that of the orders, while the same processes ingest and call.",
		100*of(func(run orderRun) float64 { return run.Ingested }), 100*called, behind.Round(100*time.Millisecond))
}
