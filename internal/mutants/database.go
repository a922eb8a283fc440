package main

// database are mutants of the ledger's SQL. Their killers need a real Postgres.
var database = []Mutant{
	{
		Name: "sql-append-without-compare-and-set", File: "internal/outbox/ledger/chain.go",
		Old: "  ) head WHERE head.next_off = i.base_off AND head.number = i.number - 1 AND head.topic_id = i.topic_id)\n", New: "  ) head)\n",
		Rule: "a batch is added only where the ledger stands at its base", Harm: "after a restore, an ingester goes on beyond a hole: effects are lost",
		Killers: []string{"TestAnAppendAfterARestoreIsOvertaken"}, Tags: "integration",
	},
	{
		Name: "sql-effects-without-their-link", File: "internal/outbox/ledger/chain.go",
		Old: "WHERE u.lane IN (SELECT link.lane FROM link)", New: "WHERE u.lane >= 0",
		Rule: "effects and the position of their lane are added together or not at all", Harm: "an ingester that was overtaken adds its effects all the same",
		Killers: []string{"TestAnAppendAfterARestoreIsOvertaken"}, Tags: "integration",
	},
	{
		Name: "sql-flush-without-epoch", File: "internal/outbox/ledger/flush.go",
		Old: "WHERE l.lane = i.lane AND l.epoch = i.epoch FOR SHARE OF l", New: "WHERE l.lane = i.lane AND i.epoch > 0 FOR SHARE OF l",
		Rule: "every write of a tenure checks its epoch", Harm: "a paused owner wakes and writes over its successor",
		Killers: []string{"TestAFlushThatWaitsForATakeoverIsFenced"}, Tags: "integration",
	},
	{
		Name: "sql-flush-after-a-restore", File: "internal/outbox/ledger/flush.go",
		Old: "AND (i.first OR i.seq - 1 = (", New: "AND (i.first OR i.seq > 0 OR i.seq - 1 = (",
		Rule: "the flush before this one must be there", Harm: "outcomes between the backup and now are lost without a word",
		Killers: []string{"TestAFlushAfterARestoreIsFenced"}, Tags: "integration",
	},
	{
		Name: "sql-lease-is-taken-while-it-lasts", File: "internal/outbox/ledger/lease.go",
		Old: "WHERE l.owner = $2 OR l.lease_until <= clock_timestamp()\nRETURNING", New: "WHERE l.owner = $2 OR l.lease_until IS NOT NULL\nRETURNING",
		Rule: "a lease lasts", Harm: "two owners call at once",
		Killers: []string{"TestPostgresKeepsTheContract"}, Tags: "integration",
	},
	{
		Name: "sql-dropped-before-it-was-told", File: "internal/outbox/ledger/maintain.go",
		Old: "\t\t\tif held {\n\t\t\t\treturn errHeldBack\n\t\t\t}\n", New: "",
		Rule: "what the relay has not told is kept", Harm: "an outcome that nobody is told",
		Killers: []string{"TestWhatIsStillNeededOutlivesItsGeneration"}, Tags: "integration",
	},
	{
		Name: "commit-without-its-standby-is-believed", File: "internal/outbox/ledger/ledger.go",
		Old: "if err == nil && ctx.Err() != nil {", New: "if err == nil && ctx == nil {",
		Rule: "a commit that was not confirmed in time is no answer", Harm: "a failover takes back what was acted on: an at-most-once call is made twice",
		Killers: []string{"TestACommitWithoutItsStandbyIsNoAnswer"}, Tags: "integration",
	},
}
