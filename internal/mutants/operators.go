package main

// operators are mutants of what operators are shown, and of what is remembered of them.
var operators = []Mutant{
	{
		Name: "contents-for-everybody", File: "internal/admin/asked.go",
		Old: "\tcase contents == \"true\" && !s.config.Contents:\n", New: "\tcase contents == \"all\" && !s.config.Contents:\n",
		Rule: "contents are shown where admin.contents allows it", Harm: "whoever has the token reads the records of customers",
		Killers: []string{"TestDeadLettersAreShownToWhomTheyMayBe"},
	},
	{
		Name: "look-without-an-end", File: "internal/deadletter/tail.go",
		Old: "\t\t\trest.offsets -= max(0, b.end-from)\n", New: "",
		Rule: "a look reads the end of the dead-letter topic, within limits", Harm: "a click makes a process read a million letters beside its work",
		Killers: []string{"TestNewestReadsNoMoreThanItsLimits"},
	},
	{
		Name: "order-leaves-no-end", File: "internal/audit/audit.go",
		Old: "t.write(context.WithoutCancel(ctx), entry)", New: "t.write(ctx, entry)",
		Rule: "what became of an order is written down although its command was told to stop", Harm: "the audit says that an order may have been carried out, which was",
		Killers: []string{"TestOrdersAreRemembered"},
	},
	{
		Name: "half-a-secret-is-logged", File: "internal/telemetry/span_queue.go",
		Old: "q.redactor.String(err.Error())", New: "err.Error()",
		Rule: "what a collector quotes is told without secrets", Harm: "the key for the collector stands in the log",
		Killers: []string{"TestCollectorsAnswerIsToldWithoutSecrets"},
	},
}
