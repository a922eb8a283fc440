package main

// effects are mutants of the way from the effects topic into the ledger.
var effects = []Mutant{
	{
		Name: "ingest-believes-the-broker", File: "internal/outbox/ingest/lane.go",
		Old: "\trecords = l.filter.Add(records)\n", New: "",
		Rule: "an effect is committed when the marker says so", Harm: "a call for an order whose transaction was aborted and not listed",
		Killers: []string{"TestEffectsAreCommittedByTheirMarkersAlone"},
	},
	{
		Name: "aborts-are-commits", File: "internal/committed/filter.go",
		Old: "if w.fate != nil && w.fate.aborted {", New: "if w.fate != nil && w.fate.aborted != w.fate.aborted {",
		Rule: "what was aborted is dropped, listed or not", Harm: "a call for an order whose transaction was aborted and not listed",
		Killers: []string{"TestRecordsPassWithTheirMarker", "TestRandomLogsComeOutAsTheirMarkersSay"},
	},
	{
		Name: "first-marker-is-for-all", File: "internal/committed/ahead.go",
		Old: "return ends[n].offset > offset })", New: "return ends[n].offset > offset || len(ends) > 0 })",
		Rule: "a marker that was read ahead decides what stands before it, back to the marker before", Harm: "an effect gets the fate of another transaction of its producer",
		Killers: []string{"TestRandomLogsComeOutAsTheirMarkersSay"},
	},
	{
		Name: "filter-holds-everything", File: "internal/committed/filter.go",
		Old: "f.bytes > most && !f.losing {", New: "f.bytes > most && f.losing {",
		Rule: "what waits for markers is bounded", Harm: "a coordinator that is slow for minutes fills the memory",
		Killers: []string{"TestFilterHoldsNoMoreThanItMay"},
	},
	{
		Name: "scan-ends-when-throttled", File: "internal/committed/scan.go",
		Old: "nothing: response.ThrottleMillis == 0}", New: "nothing: true}",
		Rule: "an answer of a broker that throttles does not show the end of the log", Harm: "dead letters, or what was told, are taken for fewer than they are",
		Killers: []string{"TestScanEndsWithAnAnswerWithNothing"},
	},
	{
		Name: "append-without-compare-and-set", File: "internal/outbox/ledger/ledgertest/memory.go",
		Old: "if !l.known || l.next != batch.Base || l.topicID != batch.TopicID {", New: "if !l.known {",
		Rule: "a batch is added only where the ledger stands at its base", Harm: "two ingesters of one lane add every effect twice",
		Killers: []string{"TestMemoryKeepsTheContract"},
	},
	{
		Name: "records-of-the-faster-are-added-again", File: "internal/outbox/ingest/batch.go",
		Old: "\t\tif r.Offset < b.Next {\n\t\t\tcontinue // somebody else was faster\n\t\t}\n", New: "",
		Rule: "who was overtaken goes on from where the ledger stands", Harm: "the lane stands still: the ledger refuses its batches for ever",
		Killers: []string{"TestOvertakenIngesterGoesOnFromTheLedger"},
	},
	{
		Name: "restored-ledger-is-not-noticed", File: "internal/outbox/ingest/lane.go",
		Old: "return !head.Known || head.TopicID != l.position.topicID || head.Next < l.position.base", New: "return false",
		Rule: "a ledger that went back is filled again", Harm: "effects between the backup and now are never called",
		Killers: []string{"TestRestoredLedgerIsFilledAgain"},
	},
	{
		Name: "repeats-are-ingested", File: "internal/outbox/ingest/batch.go",
		Old: "if known && !mark.Above(highest) {", New: "if known && mark == highest && mark != highest {",
		Rule: "an effect that is not above its origin's mark is a repeat", Harm: "rewinding the input charges every customer again",
		Killers: []string{"TestRewoundInputIsSuppressedUnlessItsGenerationWasRaised"},
	},
	{
		Name: "marks-ignore-the-index", File: "internal/outbox/outbox.go",
		Old: "return m.Offset > n.Offset || m.Offset == n.Offset && m.Index > n.Index", New: "return m.Offset > n.Offset",
		Rule: "two effects of one input are two", Harm: "the second call of an order is taken for a repeat and dropped",
		Killers: []string{"TestRewoundInputIsSuppressedUnlessItsGenerationWasRaised"}, In: "internal/outbox/ingest",
	},
	{
		Name: "unreadable-effect-is-skipped", File: "internal/outbox/ingest/batch.go",
		Old:  "\t\tif err != nil {\n\t\t\treturn b, records[n:], fmt.Errorf(\"the record at offset %d can't be read: %w\", r.Offset, err)\n\t\t}\n",
		New:  "\t\tif err != nil {\n\t\t\t_ = fmt.Errorf\n\t\t\tb.Next = r.Offset + 1\n\t\t\tcontinue\n\t\t}\n",
		Rule: "what cannot be read halts its lane", Harm: "a call is lost without a word",
		Killers: []string{"TestUnreadableRecordHaltsItsLaneOnly"},
	},
	{
		Name: "retention-passes-silently", File: "internal/outbox/ingest/halt.go",
		Old: "case head.Next < f.start:", New: "case false:",
		Rule: "effects that retention took halt their lane", Harm: "calls are lost without a word",
		Killers: []string{"TestLaneHaltsWhereTopicAndLedgerDoNotFit"},
	},
	{
		Name: "recreated-effects-topic-is-read-on", File: "internal/outbox/ingest/halt.go",
		Old: "case head.TopicID != f.topicID:", New: "case false:",
		Rule: "another incarnation of the effects topic halts", Harm: "the head of the new topic is skipped",
		Killers: []string{"TestLaneHaltsWhereTopicAndLedgerDoNotFit"},
	},
	{
		Name: "another-number-of-lanes", File: "internal/outbox/ingest/halt.go",
		Old: "case f.partitions != lanes:", New: "case false:",
		Rule: "the number of lanes is fixed for life", Harm: "keys change their lane, and effects overtake each other",
		Killers: []string{"TestLaneHaltsWhereTopicAndLedgerDoNotFit"},
	},
	{
		Name: "ranges-forget-a-neighbour", File: "internal/outbox/ranges.go",
		Old: "from, to = min(from, r[after].From), max(to, r[after].To)", New: "from = min(from, r[after].From)",
		Rule: "a set of offsets keeps what was added", Harm: "what is settled is called again",
		Killers: []string{"TestRangesAreASet"},
	},
}

// dispatching are mutants of the calls.
var dispatching = []Mutant{
	{
		Name: "redirect-is-a-success", File: "internal/outbox/dispatch/judge.go",
		Old: "if answer.Err == nil && answer.Status >= 200 && answer.Status < 300 {", New: "if answer.Err == nil && answer.Status >= 200 && answer.Status < 400 {",
		Rule: "only 2xx is done", Harm: "a call that was not taken counts as made",
		Killers: []string{"TestJudge"},
	},
	{
		Name: "silent-at-most-once-is-repeated", File: "internal/outbox/dispatch/judge.go",
		Old: "case t.class == message.AtMostOnce && answer.Sent:", New: "case false:",
		Rule: "an at-most-once call that may have been made is unknown", Harm: "a call that must never be made twice is made twice",
		Killers: []string{"TestJudge", "TestAtMostOnceIsNotedFirstAndNeverRepeated"},
	},
	{
		Name: "at-most-once-without-a-note", File: "internal/outbox/dispatch/tenure.go",
		Old: "if e.payload.Class == message.AtMostOnce {", New: "if e.payload.Class == message.AtMostOnce && e.payload.Class == message.AtLeastOnce {",
		Rule: "an at-most-once call is noted before it is sent", Harm: "its next owner does not know that it was begun and makes it again",
		Killers: []string{"TestAtMostOnceIsNotedFirstAndNeverRepeated"},
	},
	{
		Name: "noted-before-what-comes-before", File: "internal/outbox/dispatch/tenure.go",
		Old: "if t.book.owes(e) || e.queue.owed > 0 {", New: "if t.book.owes(e) {",
		Rule: "an at-most-once call is noted after the fates of those before it in its key", Harm: "its next owner tells that its fate is unknown before it calls those again",
		Killers: []string{"TestAtMostOnceIsNotedAfterWhatComesBefore"},
	},
	{
		Name: "known-fates-of-the-stowed-are-forgotten", File: "internal/outbox/dispatch/tenure.go",
		Old: "offset < min(rest, t.window.next)", New: "offset < t.window.next",
		Rule: "what an owner knows and could not write down its next tenure takes over", Harm: "a call is repeated although its answer is known, and told after later ones of its key",
		Killers: []string{"TestWhatIsKnownOfTheStowedIsNotLost"},
	},
	{
		Name: "noted-call-is-made-again", File: "internal/outbox/dispatch/tenure.go",
		Old: "\tcase sent:\n\t\toutcome =", New: "\tcase sent && attempts < 0:\n\t\toutcome =",
		Rule: "what a lost owner had begun at most once is unknown", Harm: "a call that must never be made twice is made twice",
		Killers: []string{"TestAtMostOnceOfALostOwnerIsUnknown"},
	},
	{
		Name: "at-most-once-is-replayed-by-the-transport", File: "internal/outbox/dispatch/httptarget/request.go",
		Old: "return call.Intent.Class == message.AtLeastOnce }", New: "return call.Intent.Class != \"\" || message.AtLeastOnce == \"\" }",
		Rule: "the transport repeats at-least-once calls only", Harm: "a call that must never be made twice is made twice",
		Killers: []string{"TestAtMostOnceCallIsNeverReplayed"},
	},
	{
		Name: "body-differs-on-retry", File: "internal/outbox/dispatch/httptarget/request.go",
		Old: "\treturn request{head: append(b, intent.Body...)}, nil", New: "\tif call.Attempt > 1 && len(intent.Body) > 0 {\n\t\tb = append(b, intent.Body[1:]...)\n\t\treturn request{head: append(b, ' ')}, nil\n\t}\n\treturn request{head: append(b, intent.Body...)}, nil",
		Rule: "every attempt has the same bytes", Harm: "the receiver finds another body under a known key and refuses it",
		Killers: []string{"TestEveryAttemptHasTheSameKeyAndBytes"},
	},
	{
		Name: "private-addresses-are-called", File: "internal/outbox/dispatch/httptarget/guard.go",
		Old: "\t\treturn refuse(where.Addr())\n", New: "\t\t_ = refuse\n\t\t_ = where\n\t\treturn nil\n",
		Rule: "the address is checked at every dial", Harm: "a name that resolves to the metadata service gets our credentials",
		Killers: []string{"TestNameThatResolvesToAPrivateAddressIsNotCalled", "TestNameThatChangesItsMindIsJudgedAgain"},
	},
	{
		Name: "calls-outlast-the-lease", File: "internal/outbox/dispatch/tenure.go",
		Old: "for len(n.line) > 0 && !t.full() && !t.now.Add(n.gate.endpoint.Timeout).After(t.held.Until) {", New: "for len(n.line) > 0 && !t.full() {",
		Rule: "no call begins that could outlast the lease", Harm: "two owners call for one key at once, and an older call comes last",
		Killers: []string{"TestNoCallOutlastsTheLease"},
	},
	{
		Name: "fenced-owner-goes-on", File: "internal/outbox/dispatch/book.go",
		Old: "\t\tcase errors.Is(err, outbox.ErrFenced):\n\t\t\tt.over = fenced\n", New: "\t\tcase errors.Is(err, outbox.ErrFenced):\n",
		Rule: "a tenure that is fenced stops", Harm: "two owners call at once",
		Killers: []string{"TestNoCallOutlastsTheLease"},
	},
	{
		Name: "lease-without-epoch", File: "internal/outbox/ledger/ledgertest/memory.go",
		Old: "\tif l.epoch != tenure.Epoch {\n\t\treturn nil, fmt.Errorf(\"lane %d is at epoch", New: "\tif l.epoch < tenure.Epoch {\n\t\treturn nil, fmt.Errorf(\"lane %d is at epoch",
		Rule: "every write of a tenure checks its epoch", Harm: "a paused owner wakes and writes over its successor",
		Killers: []string{"TestMemoryKeepsTheContract"},
	},
	{
		Name: "lease-is-taken-while-it-lasts", File: "internal/outbox/ledger/ledgertest/memory.go",
		Old: "if l.owner != owner && now.Before(l.until) {", New: "if l.owner != owner && now.Before(l.until) && l.epoch < 0 {",
		Rule: "a lease lasts", Harm: "two owners call at once",
		Killers: []string{"TestLeasesOfMemoryFitTheModel", "TestMemoryKeepsTheContract"},
	},
	{
		Name: "ledger-that-went-back-is-not-noticed", File: "internal/outbox/dispatch/book.go",
		Old: "case r.held.Seq < written:", New: "case false:",
		Rule: "a renewal shows whether the ledger still has our flushes", Harm: "settled effects of an idle lane come again only after the next flush",
		Killers: []string{"TestAnIdleLaneNoticesThatTheLedgerWentBack"},
	},
	{
		Name: "flush-of-unknown-outcome-is-believed", File: "internal/outbox/dispatch/tenure.go",
		Old: "\tt.failed(err)\n\tt.over = lost\n", New: "\tt.failed(err)\n\tt.book.flushing, t.book.unborn, t.book.under = nil, nil, false\n",
		Rule: "a flush without an answer ends the tenure", Harm: "outcomes are neither written nor known",
		Killers: []string{"TestAFlushOfUnknownOutcomeEndsTheTenure"},
	},
	{
		Name: "remains-outlive-another-owner", File: "internal/outbox/dispatch/lane.go",
		Old: "if r == nil || held.After != r.epoch {", New: "if r == nil {",
		Rule: "unwritten outcomes are taken over only if nobody had the lane in between", Harm: "an old answer is written over what the other owner did",
		Killers: []string{"TestRemainsAreForTheNextEpochOnly"},
	},
	{
		Name: "key-is-called-side-by-side", File: "internal/outbox/dispatch/tenure.go",
		Old: "\tcase q.head == e:\n\t\tt.activate(e)\n\tcase q.aside:", New: "\tcase q.head != nil:\n\t\tt.activate(e)\n\tcase q.aside:",
		Rule: "only the head of a key is called", Harm: "a refund overtakes its charge",
		Killers: []string{"TestKeysAreInOrderAndBesideEachOther"},
	},
	{
		Name: "low-mark-passes-the-unsettled", File: "internal/outbox/dispatch/window.go",
		Old: "for n < len(w.places) && w.places[n].noted {", New: "for n < len(w.places) {",
		Rule: "everything below the low mark is settled or parked", Harm: "after a restart nobody looks below it: calls are lost",
		Killers: []string{"TestWindowKnowsTheLowMarkAndTheGaps"},
	},
	{
		Name: "gate-lets-one-more-through", File: "internal/outbox/dispatch/gate.go",
		Old: "if g.inFlight >= g.endpoint.Concurrency {", New: "if g.inFlight > g.endpoint.Concurrency {",
		Rule: "an endpoint has so many calls at once and no more", Harm: "an endpoint gets more than it was promised",
		Killers: []string{"TestGateKeepsItsBounds"},
	},
	{
		Name: "hold-dies-with-its-owner", File: "internal/outbox/dispatch/tenure.go",
		Old: "\tt.holdOn(recovery.Holds)\n", New: "\t_ = t.holdOn\n",
		Rule: "a key that waits for an operator waits through restarts", Harm: "what stands behind a dead call is sent without it",
		Killers: []string{"TestAHoldOutlivesItsOwner"},
	},
	{
		Name: "outage-uses-up-attempts", File: "internal/outbox/dispatch/tenure.go",
		Old: "\t\te.excused++\n", New: "",
		Rule: "trials of a breaker are no attempts", Harm: "an outage of an hour kills the calls at the front of it",
		Killers: []string{"TestAnOpenBreakerUsesUpNoAttempts"},
	},
	{
		Name: "retry-after-without-a-cap", File: "internal/outbox/dispatch/judge.go",
		Old: "return max(pause, min(retryAfter, retryAfterMax))", New: "return max(pause, retryAfter)",
		Rule: "what an endpoint asks for is obeyed up to a cap", Harm: "one absurd header stops a key for a year",
		Killers: []string{"TestBackoffDoublesJittersAndObeys"},
	},
	{
		Name: "backoff-without-jitter", File: "internal/outbox/dispatch/judge.go",
		Old: "pause := max(backoffFloor, time.Duration(random*float64(bound)))", New: "pause := max(backoffFloor, bound-time.Duration(0*random))",
		Rule: "those who failed together do not come back together", Harm: "an endpoint that comes back is knocked down again",
		Killers: []string{"TestBackoffDoublesJittersAndObeys"},
	},
	{
		Name: "much-for-one-endpoint-stops-all", File: "internal/outbox/dispatch/tenure.go",
		Old: "len(t.parked) < t.l.d.parkedMax || t.serves())", New: "len(t.parked) < t.l.d.parkedMax)",
		Rule: "an endpoint that is down stops no other, however much waits for it", Harm: "a receiver's weekend of maintenance stops the calls to all",
		Killers: []string{"TestAnEndpointThatIsDownStopsNoOther"},
	},
	{
		Name: "stowed-key-is-overtaken", File: "internal/outbox/dispatch/stow.go",
		Old: "return t.stow.sieve.has(hash) || ", New: "return ",
		Rule: "of a key, what is in memory comes before what is stowed", Harm: "an order is shipped before it is charged",
		Killers: []string{"TestAStowedKeyIsInOrderAcrossEndpoints"},
	},
	{
		Name: "sweep-brings-back-the-later-one", File: "internal/outbox/dispatch/stow.go",
		Old: "case w.left.has(hash), !t.open(n)", New: "case !t.open(n)",
		Rule: "a sweep leaves what comes behind what it left", Harm: "an order is shipped before it is charged, once the other receiver is back",
		Killers: []string{"TestAStowedKeyIsInOrderAcrossEndpoints"},
	},
	{
		Name: "sweep-waits-for-who-is-down", File: "internal/outbox/dispatch/stow.go",
		Old: "case w.left.has(hash), !t.open(n), full && !t.stow.surveyed, full && t.useful(&w.left, n):", New: "case w.left.has(hash), full && !t.stow.surveyed:",
		Rule: "whoever is called again waits for nobody who is not", Harm: "of two receivers that were down, the second keeps the first one's effects back",
		Killers: []string{"TestWhoComesBackFirstWaitsForNobody"},
	},
	{
		Name: "settled-is-read-as-parked", File: "internal/outbox/dispatch/stow.go",
		Old: " && !t.stow.settled[offset]", New: "",
		Rule: "a row of what has its fate is no parked intent", Harm: "an effect that was just called is called again",
		Killers: []string{"TestAnEndpointThatIsDownStopsNoOther"},
	},
	{
		Name: "takeover-reads-on-without-a-survey", File: "internal/outbox/dispatch/stow.go",
		Old: "surveyed: r.Rest >= r.Low}", New: "surveyed: r.Rest >= 0}",
		Rule: "a new owner knows all parked keys before it reads anything new", Harm: "after a takeover an order is shipped before it is charged",
		Killers: []string{"TestATakeoverFindsMoreThanItKeeps"},
	},
}

// telling are mutants of the relay.
var telling = []Mutant{
	{
		Name: "progress-in-a-transaction-of-its-own", File: "internal/outbox/relay/lane.go",
		Old: "if err := producer.tell(append(records, mark)); err != nil {", New: "if err := errors.Join(producer.tell(records), producer.tell([]*kgo.Record{mark})); err != nil {",
		Rule: "events and progress are one transaction", Harm: "a death between the two tells every event again",
		Killers: []string{"TestOneEventEachThroughDeaths"},
	},
	{
		Name: "failed-event-commits", File: "internal/outbox/relay/producer.go",
		Old: "\tif err := p.produce(records); err != nil {\n\t\tp.abort()\n\t\treturn err\n\t}\n", New: "\t_ = p.produce(records)\n",
		Rule: "a transaction with a failed produce is aborted", Harm: "progress without its event: an outcome that nobody is told",
		Killers: []string{"TestRefusedRecordAbortsTheTransaction"},
	},
	{
		Name: "restored-ledger-is-relayed-on", File: "internal/outbox/relay/lane.go",
		Old: "\t\tif err != nil || l.at.Seq == 0 {\n\t\t\treturn results, err\n", New: "\t\tif err != nil || l.at.Seq >= 0 {\n\t\t\treturn results, err\n",
		Rule: "the ledger is compared on every turn", Harm: "outcomes of a restored ledger are passed over, and nobody is told",
		Killers: []string{"TestRestoredLedgerTellsNothingTwice", "TestRebuiltLedgerTellsNothingTwice"},
	},
	{
		Name: "told-is-told-again", File: "internal/outbox/relay/lane.go",
		Old: "\t\tif l.told.has(r.Outcome) {", New: "\t\tif l.told.has(r.Outcome) && relayed.Skipped < 0 {",
		Rule: "what was told before a restore is not told again", Harm: "an order is confirmed or compensated twice",
		Killers: []string{"TestRestoredLedgerTellsNothingTwice"},
	},
	{
		Name: "done-is-taken-back", File: "internal/outbox/relay/progress.go",
		Old: "\t\tif t[final].Contains(o.Offset) {\n\t\t\treturn true\n\t\t}\n", New: "\t\tif t[final].Contains(o.Offset) && o.Status == final {\n\t\t\treturn true\n\t\t}\n",
		Rule: "what was done stays done", Harm: "a second call that a restored ledger made and that failed cancels a paid order",
		Killers: []string{"TestRestoredLedgerDoesNotTakeDoneBack"},
	},
	{
		Name: "lost-progress-begins-anew", File: "internal/outbox/relay/lane.go",
		Old: "\t\treturn l.diverge(ctx, client, \"there is no progress record\")\n", New: "\t\treturn nil\n",
		Rule: "without a progress record the results topic says what was told", Harm: "every event is told again",
		Killers: []string{"TestLostProgressTellsNothingTwice"},
	},
	{
		Name: "relay-reads-aborted-progress", File: "internal/committed/scan.go",
		Old: "came := filter.Add(answer.records)", New: "came := answer.records",
		Rule: "only committed progress counts", Harm: "events of an aborted transaction are never told",
		Killers: []string{"TestFenceDecidesWhatADeadRelayLeftOpen"}, In: "internal/outbox/relay",
	},
	{
		Name: "older-relay-never-gives-up", File: "internal/outbox/relay/lane.go",
		Old: "if len(l.fences) < fencesMax && !l.beaten {", New: "if len(l.fences) < 1000*fencesMax && !l.beaten {",
		Rule: "of two relays of one lane the older gives up", Harm: "they fence each other for ever",
		Killers: []string{"TestOlderOfTwoRelaysGivesUp"},
	},
}

// repairs are mutants of the rebuild of a ledger and of the dead letters.
var repairs = []Mutant{
	{
		Name: "rebuild-does-not-fence-the-relay", File: "internal/outbox/rebuild/rebuild.go",
		Old: "\t\tif w.Fence != nil {\n", New: "\t\tif w.Fence == nil {\n",
		Rule: "what was told is decided before it is read", Harm: "a result that is told a moment later is called again",
		Killers: []string{"TestWhatWasToldIsNotCalledAgain"},
	},
	{
		Name: "rebuild-repeats-at-most-once", File: "internal/outbox/rebuild/settle.go",
		Old: "case intent.Class == message.AtMostOnce:", New: "case intent.Class == message.AtMostOnce && s.Unknown < 0:",
		Rule: "an at-most-once call of a lost ledger is unknown", Harm: "a call that must never be made twice is made twice",
		Killers: []string{"TestAtMostOnceCallIsNotRepeated"},
	},
	{
		Name: "rebuild-forgets-holds", File: "internal/outbox/rebuild/settle.go",
		Old: "if len(intent.Key) > 0 && outcome.Status == outbox.Dead && t.Holds(intent.Endpoint) {", New: "if false {",
		Rule: "a dead effect still holds its key", Harm: "what stands behind a dead call is sent without it",
		Killers: []string{"TestDeadEffectStillHoldsItsKey"},
	},
	{
		Name: "rebuild-in-any-order", File: "internal/outbox/rebuild/fill.go",
		Old: "until := min(end(s), w.blocked(s))", New: "until := min(end(s), max(end(s), w.blocked(s)))",
		Rule: "the first with a business key is the first again", Harm: "of two with one business key neither is called",
		Killers: []string{"TestFirstWithABusinessKeyStaysFirst"},
	},
	{
		Name: "redrive-without-markers", File: "internal/deadletter/settle.go",
		Old: "\t\trecords = append(records, item.marker)\n", New: "\t\tif item.record == nil {\n\t\t\trecords = append(records, item.marker)\n\t\t}\n",
		Rule: "a letter and its marker are one transaction", Harm: "the next redrive gives every record back again",
		Killers: []string{"TestRedriveCutOffBeforeTheCommitIsDoneByTheNext"},
	},
	{
		Name: "redrive-judges-by-old-markers", File: "internal/deadletter/settle.go",
		Old: "\t\tif next.markers.state(item.letter.Partition, item.letter.Offset) == StateOpen {\n", New: "\t\tif next.markers.state(item.letter.Partition, item.letter.Offset) != \"\" {\n",
		Rule: "after an unknown end the markers say what is open", Harm: "a redrive whose answer was lost is made twice",
		Killers: []string{"TestRedriveSurvivesLostAnswersToTheEnd"},
	},
	{
		Name: "refused-redrive-commits", File: "internal/deadletter/session.go",
		Old: "\tif len(refused.errs) > 0 {\n\t\ts.abort(ctx)\n\t\treturn &refused\n\t}\n", New: "",
		Rule: "a refused record is not marked as redriven", Harm: "the record is lost for good",
		Killers: []string{"TestRedriveLeavesOutWhatTheBrokerRefuses"},
	},
}
