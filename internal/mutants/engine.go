package main

// nouns are mutants of the ids and of the business rules.
var nouns = []Mutant{
	{
		Name: "id-without-topic-id", File: "internal/message/source.go",
		Old: "\tb = append(b, s.TopicID[:]...)\n", New: "",
		Rule: "an id names the incarnation of the topic", Harm: "a topic that was deleted and made again repeats the ids of its predecessor: its charges are taken for repeats",
		Killers: []string{"TestEachPartOfASourceMakesAnotherID", "TestIDsAreWhatTheyAlwaysWere"},
	},
	{
		Name: "id-without-index", File: "internal/message/source.go",
		Old: "\tbinary.BigEndian.PutUint64(name[len(s)+12:], uint64(index))  //nolint:gosec // as above\n", New: "",
		Rule: "an id names the place among what an input made", Harm: "two calls of one order have one key, and the receiver drops the second",
		Killers: []string{"TestEachPartOfASourceMakesAnotherID", "TestIDsAreWhatTheyAlwaysWere"},
	},
	{
		Name: "id-without-generation", File: "internal/message/source.go",
		Old: "\tb = binary.BigEndian.AppendUint64(b, uint64(s.ReplayGeneration)) //nolint:gosec // bits are hashed, not counted\n", New: "\t_ = binary.BigEndian\n",
		Rule: "a deliberate repetition has other ids", Harm: "a replay that was asked for calls nobody",
		Killers: []string{"TestEachPartOfASourceMakesAnotherID", "TestIDsAreWhatTheyAlwaysWere"},
	},
}

// engine are mutants of the rules in internal/txn/DESIGN.md.
var engine = []Mutant{
	{
		Name: "failed-produce-commits", File: "internal/txn/session.go",
		Old: "e.wanted = commit && e.produce == nil // rule 1", New: "e.wanted = commit",
		Rule: "1: commit only if every produce succeeded", Harm: "an output is lost, its input is committed",
		Killers: []string{"TestRule1FailedProduceNeverCommits"},
	},
	{
		Name: "silent-flush-commits", File: "internal/txn/session.go",
		Old: "\tif err != nil {\n\t\treturn fmt.Errorf(\"flush: no answer within", New: "\tif false {\n\t\treturn fmt.Errorf(\"flush: no answer within",
		Rule: "1: a flush without an answer is a failure", Harm: "what was not acknowledged is committed around",
		Killers: []string{"TestRule1FlushWithoutAnAnswerNeverCommits"},
	},
	{
		Name: "late-batch-commits", File: "internal/txn/transform.go",
		Old: "if err == nil && (p.took >= left || t.late.Load() == due) {", New: "if false {",
		Rule: "1: no commit after the handlers' deadline", Harm: "the end of the transaction runs into its timeout, with an unknown outcome each time",
		Killers: []string{"TestRule1LatenessIsMeasured"},
	},
	{
		Name: "unknown-outcome-is-an-abort", File: "internal/txn/judge.go",
		Old: "\t\treturn rebuild // nobody knows the outcome: this session must not be used again", New: "\t\treturn redo",
		Rule: "2: after an error of End the outcome is unknown", Harm: "what was committed without an answer is done again: every output twice",
		Killers: []string{"TestJudge", "TestRule2UnknownOutcomeDiscardsSession"},
	},
	{
		Name: "session-is-used-again", File: "internal/txn/lane.go",
		Old: "\t\tcase rebuild, exit:\n\t\t\treturn next, why, err\n\t\t}", New: "\t\tcase exit:\n\t\t\treturn next, why, err\n\t\tcase rebuild:\n\t\t}",
		Rule: "2: a session whose end failed is discarded", Harm: "the client goes on from where it believes to be",
		Killers: []string{"TestRule2UnknownOutcomeDiscardsSession"},
	},
	{
		Name: "records-of-a-lost-session-are-reused", File: "internal/txn/lane.go",
		Old: "\t\tl.builder = newBuilder(l.config, l.transformer.sizes)\n", New: "\t\tl.builder.reset()\n",
		Rule: "2: a discarded session's memory is discarded", Harm: "a produce that is still under way sends the bytes of another record",
		Killers: []string{"TestRule7FiveMinutesWithoutBrokers"},
	},
	{
		Name: "abort-is-believed", File: "internal/txn/judge.go",
		Old: "\tcase end.wanted && !end.offsetsEqual:\n\t\treturn rebuild // it may have committed after all\n", New: "",
		Rule: "3: (false, nil) after a wanted commit is compared with the broker's offsets", Harm: "the broker had committed before it answered with an error: every output twice",
		Killers: []string{"TestJudge", "TestRule3AbortIsBelievedOnlyIfOffsetsAgree"},
	},
	{
		Name: "unstable-offsets-are-compared", File: "internal/txn/offsets.go",
		Old: "req.RequireStable = true", New: "req.RequireStable = false",
		Rule: "3: only stable offsets are compared", Harm: "a commit that is being written looks like an abort",
		Killers: []string{"TestRule3OffsetsHeldByATransactionAreNotCompared"},
	},
	{
		Name: "unanswered-offsets-are-equal", File: "internal/txn/offsets.go",
		Old: "return equal && found == 0, stable, nil", New: "return equal, stable, nil",
		Rule: "3: only a full answer is equal", Harm: "a partition that the broker does not mention counts as aborted",
		Killers: []string{"TestRule3OnlyAFullAnswerIsEqual"},
	},
	{
		Name: "twins-fight-on", File: "internal/txn/judge.go",
		Old: "\tcase end.fences >= fencesMax:\n\t\treturn exit\n", New: "",
		Rule: "4: three fences in a minute end the process", Harm: "two processes with one name take it from each other for ever, and neither gets anything done",
		Killers: []string{"TestJudge", "TestRule4TwinEnds"},
	},
	{
		Name: "join-without-fence", File: "internal/txn/session.go",
		Old: "\tif err := fence(ctx, plain, member, c.Timeout); err != nil {\n\t\treturn nil, err\n\t}\n", New: "\t_ = fence\n",
		Rule: "5: the predecessor's transaction is ended before we join", Harm: "partitions wait for the dead one's transaction timeout",
		Killers: []string{"TestRule5NobodyJoinsBeforeTheFenceIsUp"},
	},
	{
		Name: "fence-does-not-wait", File: "internal/txn/session.go",
		Old: "\t\tif !errors.Is(err, kerr.ConcurrentTransactions) {\n", New: "\t\tif errors.Is(err, kerr.ConcurrentTransactions) {\n\t\t\treturn nil\n\t\t}\n\t\tif err != nil {\n",
		Rule: "5: the fence is up when the predecessor's transaction has ended", Harm: "we join while its end is still being written",
		Killers: []string{"TestRule5NobodyJoinsBeforeTheFenceIsUp"},
	},
	{
		Name: "member-without-a-name", File: "internal/txn/session.go",
		Old: "\t\tkgo.InstanceID(k.member),\n", New: "",
		Rule: "6: a lane is a static member", Harm: "every restart moves every partition twice",
		Killers: []string{"TestRule6StaticMemberStaysUnlessToldToLeave"},
	},
	{
		Name: "outages-convict-records", File: "internal/txn/lane.go",
		Old: "if next == redo && blame {", New: "if next == redo && (blame || err != nil) {",
		Rule: "7: aborts by brokers count for nothing", Harm: "an outage dead-letters innocent records",
		Killers: []string{"TestRule7OutageDeadLettersNothing"},
	},
	{
		Name: "one-failure-shrinks", File: "internal/txn/bisect.go",
		Old: "const countedMax = 3", New: "const countedMax = 1",
		Rule: "7: from the third time on a batch is suspected", Harm: "one hiccup dead-letters a record",
		Killers: []string{"TestRule7TwoTimesAccuseNobody"},
	},
	{
		Name: "one-death-convicts", File: "internal/txn/suspects.go",
		Old: "aloneMax = 2", New: "aloneMax = 1",
		Rule: "7: one death alone convicts nobody", Harm: "a kill -9 by hand dead-letters the record in flight",
		Killers: []string{"TestRule7OneDeathAloneConvictsNobody"},
	},
	{
		Name: "deaths-are-not-written-down", File: "internal/txn/ownership.go",
		Old: "\tif len(marks) == 0 {\n\t\treturn nil\n\t}\n", New: "\tif len(marks) >= 0 {\n\t\treturn nil\n\t}\n",
		Rule: "7: the first batch of an owner is noted before the handlers see it", Harm: "a record that kills its process kills every process, for ever",
		Killers: []string{"TestRule7RecordThatKillsProcessesIsIsolated"},
	},
	{
		Name: "strangers-exonerate", File: "internal/txn/bisect.go",
		Old: "if b.limit > 0 && !b.crashed && len(b.harmed) == 0 {", New: "if b.limit > 0 && !b.crashed {",
		Rule: "7: commits of other partitions exonerate nobody", Harm: "the hunt never ends: the poison always has company",
		Killers: []string{"TestBisectConvictsExactlyTheDeadly"},
	},
	{
		Name: "dead-letter-outside-the-transaction", File: "internal/txn/lane.go",
		Old:  "if err := l.builder.build(r, source, &part.outcomes[i], l.transformer.routes[r.Topic].Name, session.Produce); err != nil {",
		New:  "if err := l.builder.build(r, source, &part.outcomes[i], l.transformer.routes[r.Topic].Name, func(r *kgo.Record) {\n\t\t\t\tif r.Topic == l.config.DeadLetterTopic {\n\t\t\t\t\tletter := *r\n\t\t\t\t\tl.plain.ProduceSync(context.Background(), &letter)\n\t\t\t\t\treturn\n\t\t\t\t}\n\t\t\t\tsession.Produce(r)\n\t\t\t}); err != nil {",
		Rule: "3.3: a dead letter is in the transaction of its batch", Harm: "an abort leaves the letter behind, and the redo writes it again",
		Killers: []string{"TestDeadLetterOfAnAbortedBatchIsWrittenOnce"},
	},
	{
		Name: "poison-is-handled-again", File: "internal/txn/transform.go",
		Old: "\tif len(poison) > 0 {\n", New: "\tif len(poison) < 0 {\n",
		Rule: "7: the convicted record is kept from the handler", Harm: "the batch aborts for ever: a partition stands still",
		Killers: []string{"TestRule7BisectsToThePoisonRecord"},
	},
	{
		Name: "drain-drops-the-batch", File: "internal/txn/lane.go",
		Old: "\t\tif l.batch.empty() {\n\t\t\tif stopping(ctx) {", New: "\t\tif l.batch.empty() || stopping(ctx) {\n\t\t\tif stopping(ctx) {",
		Rule: "8: an open batch is finished", Harm: "every restart does the work in hand twice",
		Killers: []string{"TestRule8DrainFinishesAnOpenBatch"},
	},
	{
		Name: "start-is-not-committed", File: "internal/txn/offsets.go",
		Old: "\t\tif err := commitStart(ctx, cl, c.Group, member, missing, ids); err != nil {\n\t\t\treturn nil, err\n\t\t}\n", New: "\t\t_ = commitStart\n",
		Rule: "9: the start is committed before the first read", Harm: "the first abort rewinds to 0: a replay of history under latest",
		Killers: []string{"TestRule9FirstAbortUnderLatestReplaysNothing", "TestRule9SuccessorBeginsWhereTheFirstBegan"},
	},
	{
		Name: "lost-offsets-are-made-up", File: "internal/txn/offsets.go",
		Old: "if len(missing) > 0 && c.Start == StartFail {", New: "if len(missing) < 0 && c.Start == StartFail {",
		Rule: "9: under input.start: fail a partition without an offset halts", Harm: "offsets that expired are taken for none ever: history is replayed, and nobody was asked",
		Killers: []string{"TestRule9LostOffsetsHaltUnderFail", "TestRule9StartFailHaltsThePartition"},
	},
	{
		Name: "start-committed-by-nobody", File: "internal/txn/offsets.go",
		Old: "\treq.MemberID, req.Generation = cl.GroupMetadata()\n\treq.InstanceID = &instance\n", New: "\t_, req.Generation = instance, -1\n",
		Rule: "9: the start is committed by the member that owns the partition", Harm: "a zombie overwrites the offset of its successor",
		Killers: []string{"TestRule9FirstAbortUnderLatestReplaysNothing"},
	},
	{
		Name: "latest-skips-what-is-held-back", File: "internal/txn/offsets.go",
		Old: "if latest, err = adm.ListCommittedOffsets(ctx, topics...); err != nil {", New: "if latest, err = adm.ListEndOffsets(ctx, topics...); err != nil {",
		Rule: "9: latest is the last stable offset", Harm: "what an open transaction held back at the start is never read",
		Killers: []string{"TestRule9LatestReadsWhatWasHeldBack"},
	},
	{
		Name: "added-partitions-are-skipped", File: "internal/txn/offsets.go",
		Old: "return ok && int(at.partition) >= known", New: "return ok && int(at.partition) < -known",
		Rule: "9: latest is about what was there when the group began", Harm: "what is written to an added partition before it is noticed is never read",
		Killers: []string{"TestAddedPartitionsAreReadFromTheirStart"},
	},
	{
		Name: "unreadable-batch-is-asked-for-ever", File: "internal/txn/unreadable.go",
		Old: "return s.times >= stubbornTimes && now.Sub(s.since) >= stubbornAfter", New: "return s.times < 0 && now.Sub(s.since) >= stubbornAfter",
		Rule: "9: what can't be read halts its partition", Harm: "a damaged partition looks like an outage, and nobody is told what to do",
		Killers: []string{"TestUnreadableBatchHaltsItsPartition"},
	},
	{
		Name: "out-of-range-resets", File: "internal/txn/session.go",
		Old: "kgo.ConsumeResetOffset(kgo.NoResetOffset()),", New: "kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),",
		Rule: "9: out of range halts", Harm: "records that retention took are skipped without a word",
		Killers: []string{"TestRule9OutOfRangeHaltsThePartition"},
	},
	{
		Name: "incarnations-are-not-told-apart", File: "internal/txn/offsets.go",
		Old: "case have.known && have.topicID != ids[topic]:", New: "case false:",
		Rule: "11: an offset of another incarnation of the topic halts", Harm: "the head of the new topic is skipped",
		Killers: []string{"TestRule11OffsetOfAnotherIncarnationHalts"},
	},
	{
		Name: "timeouts-may-contradict", File: "internal/txn/config.go",
		Old: "if c.Heartbeat <= 0 || 3*c.Heartbeat > c.SessionTimeout {", New: "if c.Heartbeat <= 0 {",
		Rule: "10: heartbeat x 3 <= session timeout", Harm: "one late heartbeat and the member is out",
		Killers: []string{"TestValidateNamesTheOperatorsKey"},
	},
	{
		Name: "markers-are-dropped", File: "internal/txn/session.go",
		Old: "\t\tkgo.KeepControlRecords(), // rule 12\n", New: "",
		Rule: "12: committed offsets pass control records", Harm: "lag on transactional input never is 0, and no alert can be set on it",
		Killers: []string{"TestRule12CommittedOffsetsPassControlRecords"},
	},
	{
		Name: "aborted-input-is-read", File: "internal/txn/session.go",
		Old: "kgo.FetchIsolationLevel(kgo.ReadCommitted()),", New: "kgo.FetchIsolationLevel(kgo.ReadUncommitted()),",
		Rule: "1: input is read committed", Harm: "what the producer took back is priced and charged",
		Killers: []string{"TestRule12CommittedOffsetsPassControlRecords"},
	},
	{
		Name: "batch-is-not-emptied", File: "internal/txn/lane.go",
		Old: "\tb := l.batch\n\tb.reset()\n", New: "\tb := l.batch\n",
		Rule: "what was polled before an abort is not handled again from memory", Harm: "the session has rewound, and the records come twice in one batch",
		Killers: []string{"TestEngineCopiesEachRecordOnce"},
	},
	{
		Name: "keys-on-any-worker", File: "internal/txn/transform.go",
		Old: "\tif r.Key == nil {\n\t\treturn n%len(t.workers) == worker\n", New: "\tif r.Key != nil {\n\t\treturn n%len(t.workers) == worker\n",
		Rule: "a key stays on one worker", Harm: "a handler that remembers a key sees its records out of order",
		Killers: []string{"TestKeysStayOnOneWorker"},
	},
	{
		Name: "foreign-ids-are-believed", File: "internal/txn/build.go",
		Old: "if !strings.HasPrefix(h.Key, message.HeaderPrefix) {", New: "if !strings.HasPrefix(h.Key, message.HeaderPrefix) || len(h.Key) > 0 {",
		Rule: "ids in headers of the input are never trusted", Harm: "an output carries two sources, and who reconciles takes the wrong one",
		Killers: []string{"TestOutputCarriesItsSourceAndID"},
	},
}
