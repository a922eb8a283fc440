//go:build integration

package ledger_test

import (
	"syscall"
	"testing"
	"time"

	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger"
	"pawl/internal/postgres"
	"pawl/internal/testkit"
)

// What an effect costs this process, the server's share left out: go test -tags integration -run '^$'
// -bench . -cpuprofile. The yardstick in bench measures both shares beside a peer.
func BenchmarkAppendAndFlush(b *testing.B) {
	const size, bodyBytes = 1000, 200
	ctx := b.Context()
	pool, err := postgres.Open(ctx, postgres.Config{DSN: testkit.Postgres(b)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	if _, err := postgres.Migrate(ctx, pool, ledger.Migrations("")); err != nil {
		b.Fatal(err)
	}
	store := ledger.Open(pool, ledger.Config{})
	if err := store.Seed(ctx, lane, topicID, 0); err != nil {
		b.Fatal(err)
	}
	tenure, err := store.Acquire(ctx, lane, "owner", time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	batch, flush := batchOf(lane, 0, size), doneRange(tenure, 0, 0, size)
	for i := range batch.Intents {
		batch.Intents[i].Body = make([]byte, bodyBytes)
	}
	batch.Seen = map[outbox.Origin]outbox.Mark{{TopicID: inputID, Partition: 4}: {}}
	move := func(round int64) {
		batch.Base, batch.Next = round*size, (round+1)*size
		for i := range batch.Intents {
			batch.Intents[i].Offset = batch.Base + int64(i)
			flush.Settled[i].Offset = batch.Base + int64(i)
		}
		flush.Seq, flush.Low, flush.Covered = round+1, batch.Next, outbox.Ranges{{From: batch.Base, To: batch.Next}}
	}
	var round int64
	b.ReportAllocs()
	before := processTime(b)
	for b.Loop() {
		move(round)
		if err := store.Append(ctx, batch); err != nil {
			b.Fatal(err)
		}
		if err := store.Flush(ctx, flush); err != nil {
			b.Fatal(err)
		}
		round++
	}
	b.ReportMetric(float64((processTime(b)-before).Nanoseconds())/float64(round*size), "own-ns/effect")
}

func processTime(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
