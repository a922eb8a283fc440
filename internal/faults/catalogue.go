package faults

import "slices"

var clients = []Fault{
	{
		ID: "F01", Name: "a process is killed after its outputs were written, before its offsets", Expected: "the outputs are aborted, the successor does the batch again",
		Tests: slices.Concat(in("txn", "DeathInEachPlaceOfATransaction"), in("e2e", "CopyIsExactlyOnceThroughFaults")),
	},
	{
		ID: "F02", Name: "… after the offsets, before the end", Expected: "the successor takes the transaction over, waits for its end and does the batch again",
		Tests: slices.Concat(in("txn", "DeathInEachPlaceOfATransaction", "Rule5SuccessorEndsOpenTransaction"), in("e2e", "RestartAfterKillCommitsWithinThreeSeconds")),
	},
	{ID: "F03", Name: "… after the end was written, before its answer", Expected: "the commit stands; the successor begins after it", Tests: in("txn", "DeathInEachPlaceOfATransaction")},
	{
		ID: "F04", Name: "the answer to EndTxn is lost for longer than the client asks again; the process lives", Expected: "the outcome is unknown, the session is discarded, nothing is there twice",
		Tests: slices.Concat(in("txn", "Rule2UnknownOutcomeDiscardsSession"), in("e2e", "LostEndTxnAnswersDoubleNothing")),
	},
	{
		ID: "F05", Name: "EndTxn is answered with errors although the broker committed", Expected: "the offsets tell; a plain abort does not cost the session",
		Tests: slices.Concat(in("txn", "Rule3AbortIsBelievedOnlyIfOffsetsAgree", "Rule3WhatCannotBeComparedIsNotEqual", "Rule3PlainAbortKeepsSession"), in("e2e", "WrongEndTxnAnswersDoubleNothing")),
	},
	{
		ID: "F06", Name: "one output partition refuses a produce", Expected: "the transaction is aborted; where the record is to blame it is found and dead-lettered",
		Tests: in("txn", "Rule1FailedProduceNeverCommits", "Rule7RefusedOutputIsPoison"),
	},
	{
		ID: "F07", Name: "a process is frozen for longer than its session and goes on", Expected: "its commit is refused, its partitions are somebody else's",
		Tests: in("e2e", "CopyIsExactlyOnceThroughFaults"),
	},
	{ID: "F08", Name: "… between its offsets and the end, for longer than the transaction's timeout", Expected: "the broker aborts, another one does the batch, what arrives late ends nothing", Tests: in("txn", "ProcessThatSleepsThroughItsTransaction")},
	{
		ID: "F09", Name: "a handler is slower than its deadline", Expected: "a slow batch is aborted and made smaller; a call that does not return ends the process, which names the record",
		Tests: in("txn", "Rule1PassedHandlerDeadlineNeverCommits", "Rule7StuckHandlerEndsTheProcess", "Rule7SlowBatchesAccuseNobody"),
	},
	{ID: "F10", Name: "a handler is at work while the group goes on without it", Expected: "what it made is not committed", Tests: in("txn", "BatchInHandWhilePartitionsMove")},
	{
		ID: "F11", Name: "members come and go in mid-transaction, both group protocols", Expected: "commit or abort, never two owners; order is kept",
		Tests: slices.Concat(in("txn", "LanesComeAndGoExactlyOnce", "Rule8EndDoesNotWaitForTheGroup"), in("e2e", "CopyIsExactlyOnceThroughFaults")),
	},
	{ID: "F12", Name: "two living processes with one name", Expected: "they fence each other three times, then one ends and says why", Tests: in("txn", "Rule4TwinEnds", "Rule4FencesCountWhereverTheyAreMet")},
	{
		ID: "F13", Name: "a process dies and none of its name comes back", Expected: "readers are held back until the transaction's timeout; the lag and `processor txn ls` show by whom",
		Tests: slices.Concat(in("kafka", "LagCountsMarkersAndOpenTransactions", "OpenTransactionsAreListedWithWhatTheyHold", "HeldPartitionsAreFoundWithoutTheRightToRead")),
		Lacks: "how long readers are held back on a real broker",
	},
	{ID: "F14", Name: "the transactional id of an idle lane expires", Expected: "a new session, no suspicion, nothing twice", Tests: in("txn", "RealBrokerForgetsAnIdleLane"), Lacks: "a second process that takes the forgotten id at the same moment (KAFKA-18019)"},
	{ID: "F15", Name: "the producer id of an idle lane expires", Expected: "as above", Tests: in("txn", "RealBrokerForgetsAnIdleLane")},
	{ID: "F16", Name: "the group's offsets are gone", Expected: "under `fail` the partition halts and says what to run; otherwise the start policy holds", Tests: slices.Concat(in("txn", "Rule9LostOffsetsHaltUnderFail", "Rule9StartFailHaltsThePartition"), in("sim", "HistoriesKeepThePromise"))},
	{
		ID: "F17", Name: "an EndTxn that was held up hits the next transaction (KAFKA-17754)", Expected: "transactions v2 refuse it; without them the service is not ready",
		Tests: slices.Concat(in("txn", "RealBrokerRefusesALateEnd"), in("kafka", "RealClusterWithoutTransactionsV2IsRefused")),
	},
	{ID: "F18", Name: "a transaction hangs: no coordinator knows it", Expected: "`processor txn ls` finds it, `processor txn abort` ends it", Tests: in("kafka", "HangingTransactionIsFoundAndAborted", "AbortOfADecidedTransactionIsRefused")},
	{
		ID: "F19", Name: "the coordinator dies while a commit is being written", Expected: "it is ended after the reload; until then we ask, slowly", Tests: slices.Concat(in("txn", "NoFaultMakesAHotLoop"), in("e2e", "CopyIsExactlyOnceThroughFaults")),
		Lacks: "the very moment between decision and markers; coordinators are killed at moments of chance",
	},
	{ID: "F20", Name: "the epochs of a transactional id are used up", Expected: "another producer id in the middle of the work", Tests: in("txn", "EpochsRollOver")},
	{
		ID: "F21", Name: "transactions v2 are turned off", Expected: "the service is not ready and says what to run", Tests: slices.Concat(in("kafka", "RealClusterWithoutTransactionsV2IsRefused"), in("app", "UnfitClusterKeepsTheServiceUnready")),
		Lacks: "turning them off under a running process, which is not looked at after the start",
	},
	{ID: "F22", Name: "offsets are pending when somebody joins or compares", Expected: "they are waited for, within bounds", Tests: in("txn", "Rule3OffsetsHeldByATransactionAreNotCompared", "Rule3UnstableOffsetsAreAskedForAgain", "Rule5NobodyJoinsBeforeTheFenceIsUp")},
	{ID: "F23", Name: "leaders and coordinators move while transactions abort", Expected: "after each abort the lane begins where it had committed", Tests: in("txn", "LeadersMoveWhileTransactionsAbort")},
	{ID: "F24", Name: "CONCURRENT_TRANSACTIONS, COORDINATOR_LOAD_IN_PROGRESS and their like, in a row", Expected: "asked again with pauses; no record is found guilty", Tests: in("txn", "NoFaultMakesAHotLoop", "Rule7OutageDeadLettersNothing")},
	{ID: "F25", Name: "the order to stop comes while a transaction is being ended", Expected: "the end is not cancelled", Tests: in("txn", "Rule8ShutdownNeverCancelsTheEnd", "Rule8DrainWaitsForEveryLane")},
}

var brokers = []Fault{
	{ID: "F26", Name: "brokers are killed one after the other: leader, coordinator, controller", Expected: "records flow again within a minute", Tests: in("e2e", "CopyIsExactlyOnceThroughFaults")},
	{ID: "F27", Name: "a broker is frozen", Expected: "as above; what it says late ends nothing", Tests: in("txn", "Rule7FiveMinutesWithoutBrokers"), Lacks: "one of several: here the only one falls silent for minutes and its network delivers late"},
	{ID: "F28", Name: "all brokers are away", Expected: "no hot loop, bounded memory, no suspicion, work goes on within seconds", Tests: slices.Concat(in("txn", "Rule7FiveMinutesWithoutBrokers"), in("e2e", "OutageOfAllBrokersCostsNothingButTime"))},
	{ID: "F29", Name: "too few replicas in sync", Expected: "it costs time and no record", Tests: in("txn", "BrokersThatCannotWriteCostTimeOnly")},
	{
		ID: "F30", Name: "a log is truncated by an unclean election", Expected: "what is lost halts its partition or lane", Tests: slices.Concat(in("outbox/ingest", "LossThatOnlyTheClientSeesHalts", "LaneHaltsWhereTopicAndLedgerDoNotFit"), in("txn", "Rule9OutOfRangeHaltsThePartition")),
		Lacks: "an unclean election itself: its results are, a log that ends before the position and the client's report of lost data",
	},
	{ID: "F31", Name: "the disk of a broker is full or broken", Expected: "abort, try again, recover", Tests: in("txn", "BrokersThatCannotWriteCostTimeOnly"), Lacks: "a real full disk; the fake broker answers as one with such a disk does"},
	{ID: "F32", Name: "traffic passes in one direction only", Expected: "the deadline aborts; nothing commits late", Tests: slices.Concat(in("txn", "Rule2UnknownOutcomeDiscardsSession", "ProcessThatSleepsThroughItsTransaction"), in("e2e", "LostEndTxnAnswersDoubleNothing"))},
	{ID: "F33", Name: "a slow network of a few bytes at a time, connections that break in mid-frame", Expected: "slower, and exact", Tests: in("txn", "CrumblingNetworkIsSlowerAndExact")},
	{ID: "F34", Name: "an input topic is deleted", Expected: "its partitions halt", Tests: in("txn", "DeletedInputHaltsItsPartition")},
	{ID: "F35", Name: "a topic is made again under its name: input, effects", Expected: "its partitions or lanes halt; nothing of the new one is taken for the old one", Tests: slices.Concat(in("txn", "DeletedInputHaltsItsPartition", "Rule11OffsetOfAnotherIncarnationHalts"), in("outbox/ingest", "RecreatedTopicHaltsARunningLane", "RecordsOfAnotherTopicAreNotTaken"), in("kafka", "RealRecreatedInputIsNoticed"))},
	{ID: "F36", Name: "partitions are added to an input", Expected: "they are read from their start, whatever `input.start` says", Tests: in("txn", "AddedPartitionsAreReadFromTheirStart"), Lacks: "under `latest`, partitions added while no process runs: they begin at their end, as at the first start"},
	{ID: "F37", Name: "partitions are added to the effects topic", Expected: "the lanes that have come halt, and a restart refuses", Tests: in("outbox/ingest", "AddedLaneHalts", "LaneHaltsWhereTopicAndLedgerDoNotFit")},
	{ID: "F38", Name: "retention passes what was not read yet", Expected: "halt, with what is lost", Tests: slices.Concat(in("txn", "Rule9OutOfRangeHaltsThePartition"), in("outbox/ingest", "RetentionThatPassesARunningLaneHaltsIt"))},
	{ID: "F39", Name: "a compacted log: holes, tombstones, markers, aborted records, and those that a broker does not list", Expected: "all of it is passed; a null value is a record; the engine still believes the list", Tests: slices.Concat(in("txn", "Rule12CommittedOffsetsPassControlRecords", "SuspectsAreReadBeforeAHole", "OddRecordsGoThroughAsTheyAre"), in("outbox/ingest", "CompactionLeavesHolesThatArePassed", "AbortedEffectsThatTheBrokerDoesNotListAreNotIngested"), in("deadletter", "ScanEndsInAHole"))},
	{ID: "F40", Name: "an operator moves the group's offsets back", Expected: "outputs repeat with the same ids, effects are suppressed", Tests: slices.Concat(in("e2e", "RewoundInputChargesNothingAgain"), in("kafka", "OffsetsAreMovedWhereTheOperatorSays"))},
	{ID: "F41", Name: "rights are taken away", Expected: "it says which, no hot loop, goes on when they are back", Tests: slices.Concat(in("txn", "NoFaultMakesAHotLoop"), in("kafka", "RealPasswordsAndRights", "ReadOnlyPrincipalIsToldEachMissingRight"), in("e2e", "BadInput"))},
	{ID: "F42", Name: "passwords and certificates are replaced", Expected: "the next connection uses the new ones", Tests: in("kafka", "WrongPasswordIsNoHotLoopAndRotates", "RenewedCertificatesAreUsed", "RealMutualTLS")},
	{ID: "F43", Name: "a quota throttles us", Expected: "it costs time, and neither a record nor a session", Tests: in("txn", "RealBrokerQuotaCostsTimeOnly")},
	{
		ID: "F44", Name: "the clock of a machine is wrong or jumps", Expected: "no lease and no deadline is judged by it", Tests: in("txn", "Rule7SleepOfTheMachineBlamesNoRecord"),
		Lacks: "steps of the wall clock: a Go program reads the monotonic clock past every library that fakes one, and leases are kept by the database's clock",
	},
	{ID: "F45", Name: "brokers of two versions", Expected: "exact", Lacks: "it takes two releases of Kafka from 4.0 on in one cluster, and a second download of 120 MB on every machine"},
}

var input = []Fault{
	{ID: "F46", Name: "a handler panics, never returns, or takes its process along", Expected: "a panic is a reject; the record that kills is found alone and dead-lettered", Tests: in("txn", "HandlersThatGoWrongCostTheirRecordOnly", "Rule7StuckHandlerEndsTheProcess", "Rule7RecordThatKillsProcessesIsIsolated")},
	{ID: "F47", Name: "a record cannot be decoded, or is of an unknown version", Expected: "dead letter with the reason", Tests: slices.Concat(in("e2e", "BadInput"), in("handlers", "OrdersRejectWithNamedReason")), Lacks: "a schema registry that is down: Pawl has none"},
	{ID: "F48", Name: "an output or effect is too large", Expected: "dead letter with the reason; no abort where the limit is known", Tests: slices.Concat(in("txn", "LargestRecordsThatAreNotRejectedFit", "Rule7RefusedOutputIsPoison", "DeadLetterThatDoesNotFitHaltsItsPartition"), in("e2e", "BadInput"))},
	{ID: "F49", Name: "a batch that unpacks to more than memory, or not at all", Expected: "the partition halts; nothing is skipped but by an operator; the others go on", Tests: in("txn", "UnreadableBatchHaltsItsPartition", "RealBrokerRefusesBatchesThatLie")},
	{ID: "F50", Name: "null keys and values, 10,000 headers, NUL, invalid UTF-8, times before 1970, large keys", Expected: "through as they are, also through the ledger", Tests: slices.Concat(in("txn", "OddRecordsGoThroughAsTheyAre"), in("e2e", "BadInput"), in("outbox/ledger", "AnyNameCanBeIngested", "AnyTextCanBeStored"))},
	{ID: "F51", Name: "nine of ten records have one key", Expected: "the others do not wait for it", Tests: in("outbox/dispatch", "AHotKeyHoldsUpNobodyElse")},
	{ID: "F52", Name: "an effect for an unknown endpoint, a private address, or with line breaks in its headers", Expected: "refused before a byte is sent", Tests: slices.Concat(in("e2e", "BadEffectsEndToEnd"), in("outbox/dispatch/httptarget", "ContentTypeThatInjectsAHeaderIsNotSent", "OnlyAddressesOfTheInternetAreCalled"))},
}

var database = []Fault{
	{ID: "F53", Name: "the server, or one connection, is killed in the midst of append, flush or takeover", Expected: "exact", Tests: slices.Concat(in("e2e", "EffectsSurviveACrashOfPostgresAtEveryPlace"), in("outbox/ledger", "NothingIsLostOrDoubledWhileConnectionsDie"))},
	{ID: "F54", Name: "the answer to a commit is lost", Expected: "the head of the chain decides", Tests: slices.Concat(in("outbox/ledger", "AnAppendWithoutAnAnswerIsDecidedByTheHead"), in("outbox/ingest", "AppendWithoutAnswerIsLookedUp"), in("outbox/dispatch", "AFlushOfUnknownOutcomeEndsTheTenure"))},
	{ID: "F55", Name: "a standby that is behind takes over", Expected: "effects are read again; repeated calls keep their key; nothing is told twice", Tests: in("e2e", "EffectsSurviveAFailoverThatLosesCommits", "EffectsSurviveAFailoverToASynchronousStandby")},
	{ID: "F56", Name: "the ledger is restored from an older backup", Expected: "as above", Tests: slices.Concat(in("e2e", "RestoredLedgerRepeatsOnlyWhatTheBackupDidNotKnow"), in("outbox/ledger", "AnAppendAfterARestoreIsOvertaken", "AFlushAfterARestoreIsFenced"))},
	{ID: "F57", Name: "the synchronous standby is gone", Expected: "commits wait; what was not confirmed in time is no answer", Tests: in("outbox/ledger", "ACommitWithoutItsStandbyIsNoAnswer")},
	{
		ID: "F58", Name: "the old primary still takes writes after a failover", Expected: "of two relays the older gives up; calls repeat with the same key; the ledger that is behind is noticed", Tests: in("outbox/relay", "OlderOfTwoRelaysGivesUp", "RestoredLedgerIsNoticedUnderTheSameEpoch"),
		Lacks: "two servers that both take writes: what each process sees of it is injected, a ledger that lacks what was told and a relay of the same lane elsewhere",
	},
	{ID: "F59", Name: "no connection is left", Expected: "effects wait, records do not", Tests: in("e2e", "StreamRunsOnWithoutPostgres", "EffectsSurviveAPoolOfTwoConnections")},
	{ID: "F60", Name: "a pooler in transaction mode", Expected: "the whole contract holds, migrations included", Tests: slices.Concat(in("outbox/ledger", "PostgresKeepsTheContractThroughAPooler"), in("postgres", "MigrationsRunOnceThroughAPooler", "NoNamedStatementStaysOnAConnection"))},
	{ID: "F61", Name: "locks that others hold", Expected: "waits are bounded, nothing is half done", Tests: in("outbox/ledger", "ALockedTableCostsTimeOnly", "ATakeoverWaitsForTheFlushThatIsUnderWay", "OfTwoAppendsAtOnceOneIsOvertaken")},
	{ID: "F62", Name: "a transaction stays open and keeps the server from cleaning up", Expected: "the ledger stays flat", Tests: in("outbox/ledger", "TheLedgerStaysFlatUnderAHeldTransaction", "SuccessOnlyInserts")},
	{ID: "F63", Name: "the database is read-only", Expected: "ingest stops and goes on, nothing is lost", Tests: in("e2e", "StreamRunsOnWithoutPostgres"), Lacks: "a full disk, which takes a file system of its own"},
	{ID: "F64", Name: "many ingesters of one lane", Expected: "one of them adds each batch", Tests: slices.Concat(in("outbox/ingest", "SixIngestersOfAllLanesAddEachEffectOnce"), in("outbox/ledger", "RacingWritersAddEachOffsetOnce"))},
	{ID: "F65", Name: "the schema is migrated while processes of two releases run", Expected: "both are right", Tests: in("outbox/ledger", "TheContractIsKeptOnTheSchemaOfTheNextRelease", "AProcessWorksOnWhileTheNextReleaseMigrates", "ASchemaThatIsAheadIsLeftAlone")},
	{ID: "F66", Name: "millions of finished effects", Expected: "what an operation touches stays the same; whole generations are dropped", Tests: in("outbox/ledger", "TheLedgerStaysFlatUnderAHeldTransaction", "LoadGoesOnWhileGenerationsComeAndGo", "HotStatementsGoByOneIndex")},
}

var calls = []Fault{
	{ID: "F67", Name: "the endpoint does it, and the answer is lost", Expected: "again with the same key and bytes; at most once is `unknown`", Tests: slices.Concat(in("e2e", "EffectsHappenOnceThroughFaults", "BadEffectsEndToEnd"), in("outbox/dispatch/httptarget", "EveryAttemptHasTheSameKeyAndBytes", "ResetIsAnErrorAfterWhichNobodyKnows"))},
	{ID: "F68", Name: "a kept connection breaks under a call", Expected: "made once more and counted; never at most once", Tests: in("outbox/dispatch/httptarget", "ReplayIsCountedAndCarriesTheSameBytes", "AtMostOnceCallIsNeverReplayed", "ReplayIsForSilenceOnUsedConnectionsOnly")},
	{ID: "F69", Name: "an owner of a lane is frozen for longer than its lease", Expected: "the next one goes on with a higher fence; what the frozen one writes is refused", Tests: slices.Concat(in("outbox/dispatch", "AFencedOwnerStops", "AnotherProcessTakesOver", "NoCallOutlastsTheLease"), in("outbox/ledger", "AFlushThatWaitsForATakeoverIsFenced"))},
	{ID: "F70", Name: "slow headers, a body that drips, an answer of 1 GB", Expected: "the call's time and what is kept are bounded", Tests: slices.Concat(in("outbox/dispatch/httptarget", "BodyThatDripsEndsWithTheCall", "AnswerWithoutEndIsCutShort", "CallEndsWithItsContextInEveryPhase"), in("e2e", "BadEffectsEndToEnd"))},
	{ID: "F71", Name: "429 and 503 with Retry-After: seconds, a date, nonsense", Expected: "obeyed up to a cap", Tests: slices.Concat(in("outbox/dispatch/httptarget", "RetryAfterIsSecondsOrADate"), in("outbox/dispatch", "RetryAfterIsObeyed", "BackoffDoublesJittersAndObeys"))},
	{ID: "F72", Name: "an endpoint is down for an hour", Expected: "the breaker opens, no attempts are used up, order is kept, others go on", Tests: slices.Concat(in("outbox/dispatch", "AnOpenBreakerUsesUpNoAttempts", "AnOpenBreakerMakesRoomForOtherEndpoints"), in("e2e", "StreamRunsOnWithoutItsEndpoint"))},
	{ID: "F73", Name: "409, 422, 400, 401, 410 and every other status", Expected: "tried again or dead, by a table", Tests: slices.Concat(in("outbox/dispatch", "Judge"), in("e2e", "BadEffectsEndToEnd"))},
	{ID: "F74", Name: "redirects, names that resolve to private addresses or change their mind, a proxy in the environment", Expected: "nothing is followed; refused before the connection", Tests: in("outbox/dispatch/httptarget", "RedirectsAreNotFollowed", "NameThatResolvesToAPrivateAddressIsNotCalled", "NameThatChangesItsMindIsJudgedAgain", "NoProxyOfTheEnvironmentIsUsed")},
	{ID: "F75", Name: "a receiver forgets keys while we still try", Expected: "`age_max` ends the tries before", Tests: in("outbox/dispatch", "AttemptsAndAgeAreLimited"), Lacks: "a receiver that forgets: what it remembers is its own promise, and `age_max` must be set below it"},
	{ID: "F76", Name: "an effect that always fails stands before others of its key", Expected: "others go on; the key waits or goes on as configured; one result event", Tests: in("outbox/dispatch", "OnDeadHold", "FailuresAreParkedAndRepeated", "AHoldOutlivesItsOwner")},
	{ID: "F77", Name: "dead letters and dead effects are retried twice, and at once", Expected: "one retry", Tests: slices.Concat(in("deadletter", "ConcurrentRunsRedriveEachLetterOnce", "SecondRunFencesTheFirst"), in("outbox/dispatch", "WhatIsNotDeadIsNotRetried", "ADeadIntentIsRetried"))},
	{ID: "F78", Name: "the relay dies before or after its events, before or after their end", Expected: "one event each", Tests: slices.Concat(in("outbox/relay", "OneEventEachThroughDeaths", "OneEventEachThroughLostAnswers", "RealBrokerOneEventEachThroughDeaths"), in("e2e", "EffectsSurviveAKillAtEveryPlace"))},
	{ID: "F79", Name: "the relay is idle for longer than offsets are kept; its progress is compacted", Expected: "nothing is told again", Tests: in("outbox/relay", "ProgressOutlastsIdlenessAndCompaction", "LostProgressTellsNothingTwice")},
	{ID: "F80", Name: "the ledger loses results that were told", Expected: "noticed; one event per effect in the end", Tests: slices.Concat(in("outbox/relay", "RestoredLedgerTellsNothingTwice", "RealBrokerRestoredLedgerTellsNothingTwice", "DivergedLaneGoesOnAfterDeath"), in("e2e", "LostLedgerIsRebuiltFromItsTopics"))},
	{ID: "F81", Name: "results make effects whose results make effects", Expected: "an order ends once, and nothing goes round", Tests: in("handlers", "EveryOrderEndsOnceAndTheBooksClose", "ResultsLeaveOtherHandlersEffectsAlone")},
	{ID: "F82", Name: "SIGTERM with calls under way, and SIGKILL on top", Expected: "bounded drain, leases given up, exact either way", Tests: slices.Concat(in("outbox/dispatch", "LeavingDrains", "DrainingIsBounded"), in("e2e", "EffectsSurviveAKillAtEveryPlace"), in("txn", "Rule8DrainFinishesTheBatchInHand", "DrainThatTakesTooLongSaysSo"))},
	{ID: "F83", Name: "a signing secret is replaced between two attempts", Expected: "a new signature, the same body and key", Tests: in("outbox/dispatch/httptarget", "SecretRotatedBetweenAttemptsSignsAnew", "LastGoodSecretStaysInUse")},
}
