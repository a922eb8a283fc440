package main

// database are mutants of the ledger's SQL. Their killers need a real Postgres.
var database = []Mutant{
	{
		Name: "sql-append-without-compare-and-set", File: "internal/outbox/ledger/chain.go",
		Old: ") head WHERE head.next_off = $2 AND head.number = $4 - 1 AND head.topic_id = $7)`", New: ") head)`",
		Rule: "a batch is added only where the ledger stands at its base", Harm: "after a restore, an ingester goes on beyond a hole: effects are lost",
		Killers: []string{"TestAnAppendAfterARestoreIsOvertaken"}, Tags: "integration",
	},
	{
		Name: "sql-cursor-in-a-transaction-of-its-own", File: "internal/outbox/ledger/chain.go",
		Old: "\t\ttag, err := tx.Exec(ctx, l.sql(linkSQL, 0), linkArguments(batch, k)...)\n", New: "\t\ttag, err := l.pool.Exec(ctx, l.sql(linkSQL, 0), linkArguments(batch, k)...)\n",
		Rule: "effects and the position of their lane are one transaction", Harm: "a crash between the two loses the effects",
		Killers: []string{"TestNothingIsLostOrDoubledWhileConnectionsDie"}, Tags: "integration",
	},
	{
		Name: "sql-flush-without-epoch", File: "internal/outbox/ledger/flush.go",
		Old: "WITH own AS (SELECT FROM @schema.lane l WHERE l.lane = $1 AND l.epoch = $2 FOR SHARE)\nINSERT INTO @schema.flush_g@gen", New: "WITH own AS (SELECT FROM @schema.lane l WHERE l.lane = $1 AND $2::bigint > 0 FOR SHARE)\nINSERT INTO @schema.flush_g@gen",
		Rule: "every write of a tenure checks its epoch", Harm: "a paused owner wakes and writes over its successor",
		Killers: []string{"TestAFlushThatWaitsForATakeoverIsFenced"}, Tags: "integration",
	},
	{
		Name: "sql-flush-after-a-restore", File: "internal/outbox/ledger/flush.go",
		Old: "WHERE EXISTS (SELECT FROM own) AND ($10::boolean OR $3 - 1 = (", New: "WHERE EXISTS (SELECT FROM own) AND ($10::boolean OR $3 > 0 OR $3 - 1 = (",
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
