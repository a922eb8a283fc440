package main

// overview is the stream of one application, all of its processes together.
func overview() *dashboard {
	d := newDashboard("overview", "Pawl: stream", "Input, transactions and outputs of one application. Begin here.")
	d.row("Now", 4,
		figure("Behind", "s", `max(job_topic:processor_consumer_lag_seconds:max{job="$job"})`, 60),
		figure("Records that wait", "short", `job:processor_consumer_lag_records:sum{job="$job"}`, 0),
		figure("Kafka answers", "bool_yes_no", `max(processor_kafka_up{job="$job"})`, 0),
		figure("Halted partitions", "short", `sum(processor_halted_partitions{job="$job"})`, 1),
		figure("Since the last commit", "s", `time() - max(processor_last_commit_timestamp_seconds{job="$job"})`, 0),
		figure("Processes", "short", `count(processor_build_info{job="$job"})`, 0),
	)
	d.row("Flow", 8,
		view{title: "Records in, by topic and outcome", unit: "reqps", queries: []query{
			{`job_topic_outcome:processor_records:rate1m{job="$job"} > 0`, "{{topic}} {{outcome}}"},
		}},
		view{title: "Records out, by topic", unit: "reqps", queries: []query{{`job_topic:processor_output_records:rate1m{job="$job"}`, "{{topic}}"}}},
		view{title: "From input to commit", unit: "s", description: "Age of the oldest record of a transaction at its commit.", queries: []query{
			{`job:processor_end_to_end_latency_seconds:p50_rate5m{job="$job"}`, "median"},
			{`job:processor_end_to_end_latency_seconds:p99_rate5m{job="$job"}`, "99th percentile"},
		}},
	)
	d.row("Lag", 8,
		view{title: "Behind, by topic", unit: "s", queries: []query{{`job_topic:processor_consumer_lag_seconds:max{job="$job"}`, "{{topic}}"}}},
		view{title: "Records that wait, by topic", unit: "short", description: "Readable ones; what an open transaction upstream holds back is shown apart.", queries: []query{
			{`job_topic:processor_consumer_lag_records:sum{job="$job"}`, "{{topic}}"},
			{`sum by (topic) (max by (topic, partition) (processor_consumer_held_records{job="$job"})) > 0`, "{{topic}} held back"},
		}},
		view{title: "Readers held back, by topic", unit: "s", description: "How long the last stable offset has stood still: the oldest open transaction.", queries: []query{
			{`job_topic:processor_readers_held_seconds:max{job="$job"} > 0`, "{{topic}}"},
		}},
	)
	d.row("Transactions", 8,
		view{title: "By outcome", unit: "reqps", stacked: true, queries: []query{
			{`sum by (outcome) (job_outcome_reason:processor_transactions:rate5m{job="$job"})`, "{{outcome}}"},
		}},
		view{title: "Not committed, by reason", unit: "reqps", queries: []query{
			{`sum by (outcome, reason) (job_outcome_reason:processor_transactions:rate5m{job="$job", outcome!="committed"}) > 0`, "{{outcome}} {{reason}}"},
		}},
		view{title: "Duration and age", unit: "s", queries: []query{
			{`job:processor_transaction_duration_seconds:p99_rate5m{job="$job"}`, "99th percentile of those that ended"},
			{`max(processor_transaction_open_seconds{job="$job"})`, "oldest in work"},
		}},
	)
	d.row("Trouble", 8,
		view{title: "Dead letters, by topic", unit: "percentunit", description: "Share of the records that handlers refuse.", queries: []query{
			{`job_topic:processor_records_rejected:ratio_rate5m{job="$job"}`, "{{topic}}"},
		}},
		view{title: "Fenced, by kind", unit: "short", description: "Within five minutes. Twins under one instance name fence each other.", queries: []query{
			{`sum by (kind) (increase(processor_fenced_total{job="$job"}[5m]))`, "{{kind}}"},
		}},
		view{title: "Rebalances and rebuilt sessions", unit: "short", description: "Within five minutes.", queries: []query{
			{`sum by (kind) (increase(processor_rebalances_total{job="$job"}[5m]))`, "partitions {{kind}}"},
			{`sum(increase(processor_session_rebuilds_total{job="$job"}[5m]))`, "sessions rebuilt"},
		}},
		view{title: "Paused by operators", unit: "s", description: "How long input or an endpoint has been paused. What is paused does not catch up by itself.", queries: []query{
			{`max by (target) (processor_pause_age_seconds{job="$job"}) > 0`, "{{target}}"},
		}},
	)
	return d
}
