package main

// pauses are mutants of what operators stop for a while.
var pauses = []Mutant{
	{
		Name: "pause-is-not-looked-up", File: "internal/txn/ownership.go",
		Old: "\t\tif err := l.config.Pauses.Refresh(ctx); err != nil {\n\t\t\treturn err\n\t\t}\n", New: "",
		Rule: "13: a pause that was ordered before a partition came is known before its first record", Harm: "a process that starts or takes over reads what is paused",
		Killers: []string{"TestPauseIsKnownBeforeTheFirstRecord"},
	},
	{
		Name: "pause-comes-after-the-first-record", File: "internal/txn/ownership.go",
		Old: "\t\tpause(held)\n", New: "",
		Rule: "13: it is obeyed before the first record too", Harm: "a process that starts or takes over reads a batch of what is paused",
		Killers: []string{"TestPauseIsKnownBeforeTheFirstRecord"},
	},
	{
		Name: "end-of-a-first-pause-is-not-told", File: "internal/txn/ownership.go",
		Old: "\t\tl.unsure = true\n", New: "",
		Rule: "13: what is paused when a partition comes can be resumed", Harm: "the partition stands still for ever",
		Killers: []string{"TestPauseIsResumedThoughTheLaneNeverSawIt"},
	},
	{
		Name: "waiting-lane-hears-nothing", File: "internal/txn/ears.go",
		Old: "\t\tcase <-changed:\n", New: "\t\tcase <-changed:\n\t\t\t<-waiting.Done()\n",
		Rule: "13: a lane that waits for records hears of a pause", Harm: "the next record is read, hours after the pause",
		Killers: []string{"TestPauseIsObeyedByALaneThatWaits"},
	},
	{
		Name: "hunt-waits-for-a-paused-partition", File: "internal/txn/ownership.go",
		Old: "\t\tl.bisect.drop(owned)\n", New: "\t\t_ = owned\n",
		Rule: "7: a hunt does not wait for what is paused", Harm: "all partitions of the lane stand still with the paused one",
		Killers: []string{"TestRule7HuntDoesNotWaitForAPausedPartition"},
	},
	{
		Name: "held-endpoint-is-called", File: "internal/outbox/dispatch/gate.go",
		Old: "\tif g.paused {\n", New: "\tif g.paused && g.inFlight > 0 {\n",
		Rule: "a held endpoint is not called", Harm: "calls that an operator has stopped are made",
		Killers: []string{"TestAPausedEndpointStopsNobodyElse", "TestAPauseLeavesCallsUnderWayAlone"},
	},
	{
		Name: "held-endpoint-makes-no-room", File: "internal/outbox/dispatch/tenure.go",
		Old: "\tif n.shut == \"\" || !t.pressed()", New: "\tif n.shut != shutByBreaker || !t.pressed()",
		Rule: "a held endpoint stops no other endpoint of its lane", Harm: "one receiver's maintenance stops the calls to all",
		Killers: []string{"TestAPausedEndpointStopsNobodyElse"},
	},
	{
		Name: "pause-has-no-end", File: "internal/pause/note.go",
		Old: "return n.Paused && (n.Until.IsZero() || now.Before(n.Until))", New: "return n.Paused && now.Year() > 0",
		Rule: "a pause with an end is over by itself", Harm: "input stands still until somebody looks",
		Killers: []string{"TestPauseEndsByItself"},
	},
	{
		Name: "refresh-believes-what-it-has", File: "internal/pause/board.go",
		Old: "\t\tif now.next > mark {\n", New: "\t\tif now.next > 0 && mark >= 0 {\n",
		Rule: "a refresh knows all that was ordered before it", Harm: "a partition that moves is read for a moment at its new owner",
		Killers: []string{"TestRefreshKnowsAllThatWasOrderedBefore"},
	},
}
