package main

// process is one process, or some of them beside each other.
func process() *dashboard {
	d := newDashboard("process", "Pawl: process", "Processes of one application beside each other: work, lanes, memory.", variable{
		Name: "instance", Label: "Process", Type: "query", Query: `label_values(processor_build_info{job="$job"}, instance)`,
		Datasource: prometheus(), Refresh: 2, Multi: true, IncludeAll: true, AllValue: ".+", Sort: 1,
	})
	const which = `{job="$job", instance=~"$instance"}`
	d.row("Work", 8,
		view{title: "Partitions", unit: "short", stacked: true, queries: []query{{`processor_assigned_partitions` + which, "{{instance}}"}}},
		view{title: "Lanes by what they do", unit: "short", queries: []query{{`processor_lanes` + which + ` > 0`, "{{instance}} {{phase}}"}}},
		view{title: "Records committed", unit: "reqps", queries: []query{
			{`sum by (instance) (rate(processor_records_total{job="$job", instance=~"$instance", outcome="committed"}[1m]))`, "{{instance}}"},
		}},
	)
	d.row("Transactions", 8,
		view{title: "Records of one, average", unit: "short", queries: []query{
			{`rate(processor_transaction_records_sum` + which + `[5m]) / (rate(processor_transaction_records_count` + which + `[5m]) > 0)`, "{{instance}}"},
		}},
		view{title: "Oldest in work", unit: "s", queries: []query{{`processor_transaction_open_seconds` + which, "{{instance}}"}}},
		view{title: "Handlers, 99th percentile of a batch", unit: "s", queries: []query{
			{`histogram_quantile(0.99, sum by (instance, handler, le) (rate(processor_handler_duration_seconds_bucket` + which + `[5m])))`, "{{instance}} {{handler}}"},
		}},
	)
	d.row("Effects", 8,
		view{title: "Lanes that are dispatched", unit: "short", stacked: true, queries: []query{{`processor_outbox_owned_lanes` + which, "{{instance}}"}}},
		view{title: "Calls in flight", unit: "short", queries: []query{{`processor_outbox_calls_in_flight` + which, "{{instance}} {{sink}}"}}},
		view{title: "Effects in memory", unit: "short", queries: []query{{`sum by (instance) (processor_outbox_window_effects` + which + `)`, "{{instance}}"}}},
	)
	d.row("Process", 8,
		view{title: "Processor time", unit: "percentunit", description: "1 is one core.", queries: []query{{`rate(process_cpu_seconds_total` + which + `[1m])`, "{{instance}}"}}},
		view{title: "Memory", unit: "bytes", queries: []query{
			{`process_resident_memory_bytes` + which, "{{instance}} resident"},
			{`go_memstats_heap_inuse_bytes` + which, "{{instance}} heap"},
		}},
		view{title: "Goroutines", unit: "short", queries: []query{{`go_goroutines` + which, "{{instance}}"}}},
	)
	d.row("Brokers", 8,
		view{title: "Kafka and ledger answer", unit: "bool_yes_no", queries: []query{
			{`processor_kafka_up` + which, "{{instance}} Kafka"}, {`processor_outbox_ledger_up` + which, "{{instance}} ledger"},
		}},
		view{title: "Tried again", unit: "reqps", queries: []query{
			{`rate(processor_retries_total` + which + `[1m])`, "{{instance}} polls and sessions"},
			{`rate(processor_lag_poll_failures_total` + which + `[1m])`, "{{instance}} questions about the lag"},
		}},
		view{title: "Fenced and rebuilt", unit: "short", description: "Within five minutes.", queries: []query{
			{`sum by (instance, kind) (increase(processor_fenced_total` + which + `[5m]))`, "{{instance}} fenced {{kind}}"},
			{`sum by (instance) (increase(processor_outbox_fenced_total` + which + `[5m]))`, "{{instance}} lanes of effects"},
		}},
	)
	return d
}
