package main

// effects is the ledger of one application and its endpoints.
func effects() *dashboard {
	d := newDashboard("effects", "Pawl: effects", "Effects on their way from their topic through the ledger to the endpoints.")
	d.row("Now", 4,
		figure("Oldest effect", "s", `max(job_sink:processor_outbox_oldest_pending_age_seconds:max{job="$job"})`, 900),
		figure("Not in the ledger for", "s", `job:processor_outbox_ingest_lag_seconds:max{job="$job"}`, 300),
		figure("Of the topic's retention", "percentunit", `job:processor_outbox_retention_used:ratio{job="$job"}`, 0.25),
		figure("Ledger answers", "bool_yes_no", `max(processor_outbox_ledger_up{job="$job"})`, 0),
		figure("Breakers not closed", "short", `sum(max by (sink) (processor_outbox_breaker_state{job="$job", state=~"open|half-open"}))`, 1),
		figure("Halted lanes", "short", `sum(processor_outbox_halted_lanes{job="$job"})`, 1),
	)
	d.row("What waits", 8,
		view{title: "Oldest effect, by endpoint", unit: "s", queries: []query{{`job_sink:processor_outbox_oldest_pending_age_seconds:max{job="$job"}`, "{{sink}}"}}},
		view{title: "Effects in the ledger", unit: "short", queries: []query{{`job_sink_state:processor_outbox_effects:max{job="$job"}`, "{{sink}} {{state}}"}}},
		view{title: "On the topic, not in the ledger", unit: "short", description: "Offsets, markers included.", queries: []query{
			{`sum(max by (lane) (processor_outbox_ingest_lag_offsets{job="$job"}))`, "offsets"},
		}},
		view{title: "Held endpoints", unit: "bool_yes_no", description: "Endpoints that an operator holds: their effects wait in the ledger.", queries: []query{
			{`max by (sink) (processor_outbox_paused{job="$job"}) > 0`, "{{sink}}"},
		}},
	)
	d.row("Calls", 8,
		view{title: "By answer", unit: "reqps", queries: []query{{`job_sink_outcome:processor_outbox_attempts:rate1m{job="$job"} > 0`, "{{sink}} {{outcome}}"}}},
		view{title: "Duration, 99th percentile", unit: "s", queries: []query{{`job_sink:processor_outbox_delivery_duration_seconds:p99_rate5m{job="$job"}`, "{{sink}}"}}},
		view{title: "Use of the allowed calls at once", unit: "percentunit", queries: []query{{`job_sink:processor_outbox_calls_saturation:ratio{job="$job"}`, "{{sink}}"}}},
		view{title: "Time in which calls waited", unit: "percentunit", description: "For the endpoint's concurrency or rate, or for the calls of the process.", queries: []query{
			{`job_sink_by:processor_outbox_saturated:ratio{job="$job"} > 0`, "{{sink}} {{by}}"},
		}},
	)
	d.row("Fates", 8,
		view{title: "Settled, by endpoint and fate", unit: "reqps", queries: []query{
			{`sum by (sink, status) (rate(processor_outbox_settled_effects_total{job="$job"}[1m])) > 0`, "{{sink}} {{status}}"},
		}},
		view{title: "Parked, by endpoint", unit: "reqps", queries: []query{{`sum by (sink) (rate(processor_outbox_parked_effects_total{job="$job"}[1m]))`, "{{sink}}"}}},
		view{title: "Results told", unit: "reqps", queries: []query{
			{`sum(rate(processor_outbox_results_total{job="$job"}[1m]))`, "told"},
			{`sum(rate(processor_outbox_results_skipped_total{job="$job"}[1m]))`, "told before a restore"},
		}},
	)
	d.row("Ledger", 8,
		view{title: "Ingested", unit: "reqps", queries: []query{
			{`sum(rate(processor_outbox_ingested_effects_total{job="$job"}[1m]))`, "ingested"},
			{`sum(rate(processor_outbox_suppressed_effects_total{job="$job"}[1m]))`, "suppressed"},
		}},
		view{title: "From the topic to the first call, 99th percentile", unit: "s", queries: []query{
			{`histogram_quantile(0.99, sum by (le) (rate(processor_outbox_first_attempt_age_seconds_bucket{job="$job"}[5m])))`, "age at the first call"},
			{`histogram_quantile(0.99, sum by (le) (rate(processor_outbox_flush_duration_seconds_bucket{job="$job"}[5m])))`, "one flush"},
		}},
		view{title: "Tried again, by part", unit: "reqps", queries: []query{{`sum by (part) (rate(processor_outbox_retries_total{job="$job"}[1m]))`, "{{part}}"}}},
	)
	return d
}
