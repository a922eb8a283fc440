package ingest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger/ledgertest"
)

// Six ingesters take every lane at once while transactions commit and abort, and each question to the
// ledger fails now and then, before or after its change. The position is the only fence.
func TestSixIngestersOfAllLanesAddEachEffectOnce(t *testing.T) {
	inBubble(t, 3, func(w *world) {
		seed := rand.Uint64()
		w.t.Logf("seed %d", seed)
		var calls, before, after atomic.Int64
		w.ledger.Fail = func(method string, is bool) error {
			n := uint64(calls.Add(1))
			if rand.New(rand.NewPCG(seed, n)).IntN(12) != 0 {
				return nil
			}
			if method == "Append" && is {
				after.Add(1)
			} else {
				before.Add(1)
			}
			return errStore
		}
		for range 6 {
			w.run(func(c *Config) { c.BatchMax = 7 })
		}
		producer := w.connect(kgo.TransactionalID("txn"))
		chance := rand.New(rand.NewPCG(seed, 0))
		input := int64(0)
		for range 60 {
			var records []*kgo.Record
			for range 1 + chance.IntN(20) {
				records = append(records, effect(int32(chance.IntN(3)), input))
				input++
			}
			w.transact(producer, kgo.TransactionEndTry(chance.IntN(4) > 0), records...)
		}
		for lane := range int32(3) {
			w.await(lane, w.topicEnd(lane)) // markers included
			w.exact(lane)
		}
		if before.Load() == 0 || after.Load() == 0 || len(w.overtaken) == 0 {
			w.t.Errorf("%d failures before and %d after a change, overtaken %d times: nothing was shown", before.Load(), after.Load(), len(w.overtaken))
		}
	})
}

// A broker that lists nothing of what was aborted, and does not even hold back what is open.
func TestEffectsAreCommittedByTheirMarkersAlone(t *testing.T) {
	inBubble(t, 3, func(w *world) {
		w.cluster.ControlKey(int16(kmsg.Fetch), func(request kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			request.(*kmsg.FetchRequest).IsolationLevel = 0
			return nil, nil, false
		})
		var unlisted atomic.Int64
		w.run(func(c *Config) {
			c.BatchMax = 7
			c.Hooks.Unlisted = func(_ int32, records int64) { unlisted.Add(records) }
		})
		chance := rand.New(rand.NewPCG(1, 0))
		producers := []*kgo.Client{w.connect(kgo.TransactionalID("one")), w.connect(kgo.TransactionalID("other"))}
		open, aborted := [2]int64{}, int64(0)
		var wrote [2]*kgo.Record // last
		input := int64(0)
		for n := range 100 {
			p := n % 2
			if open[p] == 0 {
				w.must(producers[p].BeginTransaction())
			}
			for range 1 + chance.IntN(20) {
				wrote[p] = effect(int32(chance.IntN(3)), input)
				w.must(producers[p].ProduceSync(w.t.Context(), wrote[p]).FirstErr())
				input++
				open[p]++
			}
			if chance.IntN(2) > 0 && n < 98 {
				continue
			}
			end := kgo.TransactionEndTry(chance.IntN(2) > 0)
			w.end(producers[p], end, wrote[p])
			if !end {
				aborted += open[p]
			}
			open[p] = 0
		}
		for lane := range int32(3) {
			w.await(lane, w.topicEnd(lane))
			w.exact(lane)
		}
		if aborted == 0 || unlisted.Load() != aborted {
			w.t.Errorf("%d records were aborted, and the lanes told of %d", aborted, unlisted.Load())
		}
	})
}

// The marker of a transaction is further away than what a lane keeps while it waits for it: the lane reads on for the
// marker alone, and then all again.
func TestTransactionThatIsTooLargeToHoldIsReadTwice(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		const count, bytes = 64, 1 << 19
		large := func(r *kgo.Record) { r.Value = make([]byte, bytes) }
		one, other := w.connect(kgo.TransactionalID("one")), w.connect(kgo.TransactionalID("other"))
		w.must(one.BeginTransaction())
		first := effect(0, 0)
		w.must(one.ProduceSync(w.t.Context(), first).FirstErr())
		for n := range int64(count) {
			w.transact(other, kgo.TransactionEndTry(n%8 > 0), effect(0, 1+n, large))
		}
		w.end(one, kgo.TryCommit, first)
		w.transact(other, kgo.TryCommit, effect(0, 1+count))
		end := w.topicEnd(0)
		var fetched atomic.Int64 // in bytes
		w.config.Client = append(slices.Clone(w.config.Client), kgo.WithHooks(fetchHook(func(b int) { fetched.Add(int64(b)) })))
		w.run()
		w.await(0, end)
		w.exact(0)
		if n := fetched.Load(); n < 3*count*bytes/2 {
			w.t.Errorf("%d bytes were fetched: nothing was read twice", n)
		}

		w.config.Store = &ledgertest.Memory{}
		w.must(w.config.Store.Seed(w.t.Context(), 0, w.topicID(), 0))
		filler, err := OpenFiller(w.t.Context(), w.config, 0)
		w.must(err)
		defer filler.Close()
		_, err = filler.Fill(w.t.Context(), end)
		w.must(err)
		w.ledger = w.config.Store.(*ledgertest.Memory)
		w.exact(0)
	})
}

// fetchHook is told how many bytes of records came with a batch.
type fetchHook func(bytes int)

func (f fetchHook) OnFetchBatchRead(_ kgo.BrokerMetadata, _ string, _ int32, m kgo.FetchBatchMetrics) {
	f(m.UncompressedBytes)
}

// The append fails without a change: it is repeated, and the batch is handed on once.
func TestAppendThatFailedIsRepeated(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		f := &failing{method: "Append"}
		f.left.Store(3)
		w.ledger.Fail = f.fail
		w.run()
		w.produce(effects(0, 0, 5)...)
		w.await(0, 5)
		w.exact(0)
		synctest.Wait()
		if len(w.ingested) != 1 || len(w.landed) != 0 || len(w.retrying) != 3 || f.hits.Load() != 3 {
			w.t.Errorf("%d batches ingested, %d landed, %d retries", len(w.ingested), len(w.landed), len(w.retrying))
		}
	})
}

// The answer to the append is lost. The head of the lane tells that it was made; it isn't handed on,
// because what was the first with its business key is known to the ledger alone.
func TestAppendWithoutAnswerIsLookedUp(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		f := &failing{method: "Append", after: true}
		f.left.Store(1)
		w.ledger.Fail = f.fail
		w.run()
		w.produce(effects(0, 0, 5)...)
		if at := next(w.t, w.landed, "landed batch"); at != 5 {
			w.t.Errorf("landed up to %d, want 5", at)
		}
		w.produce(effects(0, 5, 8)...)
		if b := next(w.t, w.ingested, "batch"); b.Base != 5 || len(b.Intents) != 3 {
			w.t.Errorf("ingested %d from %d, want 3 from 5", len(b.Intents), b.Base)
		}
		w.exact(0)
		if w.ledger.Appends(0) != 2 {
			w.t.Errorf("%d appends, want 2", w.ledger.Appends(0))
		}
	})
}

// A business key that a lost attempt has taken must not make its own intent a duplicate.
func TestRepeatedAppendHasTheTwinsOfTheLastAttempt(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		f := &failing{method: "Append"}
		f.left.Store(1)
		w.ledger.Fail = f.fail
		w.run()
		w.produce(effect(0, 0, with("pawl-business-key", "charge:1")), effect(0, 1, with("pawl-business-key", "charge:1")))
		b := next(w.t, w.ingested, "batch")
		if len(b.Intents) != 2 || b.Intents[0].Twin != nil || b.Intents[1].Twin == nil || b.Intents[1].Twin.Offset != 0 {
			w.t.Errorf("ingested %+v", b.Intents)
		}
	})
}

// Another ingester adds what this one has in hand: it goes on from there.
func TestOvertakenIngesterGoesOnFromTheLedger(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		var other atomic.Bool
		w.ledger.Fail = func(method string, after bool) error {
			if method != "Append" || after || !other.CompareAndSwap(false, true) {
				return nil
			}
			b := outbox.Batch{Lane: 0, TopicID: w.topicID(), Base: 0, Next: 3, Seen: map[outbox.Origin]outbox.Mark{{TopicID: inputTopic}: {Offset: 2}}}
			b.Intents = slices.Clone(w.committed(0)[:3])
			return w.ledger.Append(context.Background(), &b)
		}
		w.produce(effects(0, 0, 10)...)
		w.run()
		b := next(w.t, w.ingested, "batch")
		if b.Base != 3 || b.Next != 10 || len(b.Intents) != 7 || b.Suppressed != 0 {
			w.t.Errorf("ingested %d from %d to %d, %d suppressed", len(b.Intents), b.Base, b.Next, b.Suppressed)
		}
		w.exact(0)
		if len(w.overtaken) != 1 {
			w.t.Errorf("overtaken %d times, want once", len(w.overtaken))
		}
	})
}

// Postgres is restored from a backup while the ingester runs. The next append finds it out; where there
// is none, the question that is asked now and then does. What the backup lacks is read again.
func TestRestoredLedgerIsFilledAgain(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		w.run()
		empty := w.ledger.Clone()
		w.produce(append(effects(0, 0, 10), effects(1, 0, 10)...)...)
		w.await(0, 10)
		w.await(1, 10)
		backup := w.ledger.Clone()
		w.produce(append(effects(0, 10, 30), effects(1, 10, 30)...)...)
		w.await(0, 30)
		w.await(1, 30)
		for i, from := range []*ledgertest.Memory{backup, empty} {
			w.ledger.Restore(from)
			w.produce(effect(0, 30+int64(i))) // and nothing on lane 1
			w.await(0, w.topicEnd(0))
			w.await(1, 30)
			w.exact(0)
			w.exact(1)
		}
		if len(w.halted) != 0 {
			w.t.Errorf("halted: %v", next(w.t, w.halted, "halt").err)
		}
	})
}

// Aborted records and the markers of both kinds of end are passed, and make no rows of their own. A lane
// that sees nothing else writes its position once a minute, one that sees nothing at all never.
func TestIdleLaneWritesNothing(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		producer := w.connect(kgo.TransactionalID("txn"))
		w.run()
		begun := time.Now()
		for n := range int64(50) {
			w.transact(producer, kgo.TryAbort, effect(0, n))
			time.Sleep(time.Second) //nolint:forbidigo // virtual time
		}
		if n := w.ledger.Appends(0); n != 0 {
			w.t.Errorf("%d appends of nothing within %s", n, time.Since(begun))
		}
		w.await(0, w.topicEnd(0))
		if passed := time.Since(begun); passed < foldAfter || passed > foldAfter+5*time.Second {
			w.t.Errorf("the position was written after %s, want %s", passed, foldAfter)
		}
		time.Sleep(10 * time.Minute) //nolint:forbidigo // virtual time
		if a, b := w.ledger.Appends(0), w.ledger.Appends(1); a != 1 || b != 0 {
			w.t.Errorf("%d and %d appends, want 1 and none", a, b)
		}

		// With intents the position comes along, in one row.
		w.transact(producer, kgo.TryAbort, effect(0, 50))
		w.transact(producer, kgo.TryCommit, effect(0, 51))
		w.await(0, w.topicEnd(0)-1)
		if n := w.ledger.Appends(0); n != 2 {
			w.t.Errorf("%d appends, want 2", n)
		}
		w.exact(0)
		if n := len(w.ledger.Intents(0)); n != 1 {
			w.t.Errorf("%d intents, want only the committed one", n)
		}
	})
}

// Where somebody has made the topic compacted, offsets have holes of any size.
func TestCompactionLeavesHolesThatArePassed(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		_, err := w.admin.AlterTopicConfigs(w.t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "cleanup.policy", Value: new("compact")}}, topic)
		w.must(err)
		w.produce(effect(0, 0, func(r *kgo.Record) { r.Key = []byte("of its own") }))
		for n := range int64(39) {
			w.produce(effect(0, 1+n)) // a batch each
		}
		w.cluster.Compact()
		want := w.committed(0)
		if len(want) >= 40 || len(want) == 0 {
			w.t.Fatalf("%d records after compaction: nothing was shown", len(want))
		}
		w.run(func(c *Config) { c.BatchMax = 3 })
		w.await(0, 40)
		w.exact(0)
	})
}

// The input was rewound by an operator: its effects come again, on other offsets. So do the effects of
// a generation that was raised, on purpose.
func TestRewoundInputIsSuppressedUnlessItsGenerationWasRaised(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		second := func(n int64) *kgo.Record { return effect(0, n, with("pawl-index", "1")) }
		r := w.run()
		w.produce(effect(0, 0), second(0), effect(0, 5), second(5))
		w.await(0, 4)
		w.drain(r) // what is known comes from the ledger

		w.run()
		w.produce(effect(0, 0), second(0), effect(0, 5), second(5), effect(0, 6), second(5), effect(0, 6))
		w.await(0, 9)
		raised := with("pawl-generation", "1")
		w.produce(effect(0, 5, raised), effect(0, 6, raised), effect(0, 5, raised), effect(0, 6), effect(0, 7))
		w.await(0, 16)
		// Another partition, another topic: other origins.
		w.produce(effect(0, 0, with("pawl-source", "orders/9/0")), effect(0, 0, with("pawl-topic-id", strings.Repeat("0f", 16))))
		w.await(0, 18)
		if want, got := []int64{0, 1, 2, 3, 8, 11, 12, 15, 16, 17}, w.offsets(0); !slices.Equal(got, want) {
			w.t.Errorf("ingested %v, want %v", got, want)
		}
		suppressed := 0
		for len(w.ingested) > 0 {
			suppressed += (<-w.ingested).Suppressed
		}
		if suppressed == 0 || suppressed > 8 { // the end of the batch at 8 may be folded into the next
			w.t.Errorf("%d suppressed, want up to 8", suppressed)
		}
	})
}

// Suppressed repeats within a batch are counted in the batch that is written next.
func TestSuppressedAreCounted(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		w.run()
		w.produce(effects(0, 0, 10)...)
		w.await(0, 10)
		w.produce(effects(0, 0, 10)...)
		synctest.Wait()
		w.produce(effect(0, 3), effect(0, 10))
		w.await(0, 22)
		next(w.t, w.ingested, "first batch")
		if b := next(w.t, w.ingested, "second batch"); b.Suppressed != 11 || len(b.Intents) != 1 || b.Base != 10 {
			w.t.Errorf("suppressed %d and ingested %d from %d, want 11 and 1 from 10", b.Suppressed, len(b.Intents), b.Base)
		}
	})
}

// A record that this release can't read stops its lane right there. The others go on.
func TestUnreadableRecordHaltsItsLaneOnly(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		r := w.run()
		w.produce(effects(0, 0, 3)...)
		w.produce(effect(0, 3, with("pawl-format", "2")), effect(0, 4))
		w.produce(effects(1, 0, 5)...)
		h := next(w.t, w.halted, "halt")
		if h.lane != 0 || !strings.Contains(h.err.Error(), `offset 3 can't be read: it has format "2"`) || !strings.Contains(h.err.Error(), "run the release that wrote it") {
			w.t.Errorf("lane %d halted: %v", h.lane, h.err)
		}
		w.await(1, 5)
		w.produce(effects(1, 5, 9)...)
		w.await(1, 9)
		if got := w.offsets(0); !slices.Equal(got, []int64{0, 1, 2}) {
			w.t.Errorf("lane 0 has %v, want what stood before the record", got)
		}
		status := r.Status()
		if len(status) != 2 || status[0].State != Halted || status[0].Err == nil || status[1].State != Reading || status[1].Next != 9 || status[1].End != 9 {
			w.t.Errorf("status is %+v", status)
		}
		w.drain(r)
	})
}

// Each of these is a loss that nobody may pass over in silence: the lane halts and says what to do.
func TestLaneHaltsWhereTopicAndLedgerDoNotFit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(w *world)
		want    string
	}{
		"never ingested, and the topic's beginning is gone": {func(w *world) {
			w.produce(effects(0, 0, 10)...)
			w.truncate(0, 4)
		}, "does not know app.effects/0, which begins at 4"},
		"the effects after the position are gone": {func(w *world) {
			w.must(w.ledger.Seed(w.t.Context(), 0, w.topicID(), 3))
			w.produce(effects(0, 0, 10)...)
			w.truncate(0, 4)
		}, "read app.effects/0 up to 3, but it begins at 4"},
		"the position is beyond the end": {func(w *world) {
			w.must(w.ledger.Seed(w.t.Context(), 0, w.topicID(), 11))
			w.produce(effects(0, 0, 10)...)
		}, "up to 11, but it ends at 10"},
		"another topic has the name now": {func(w *world) {
			w.must(w.ledger.Seed(w.t.Context(), 0, [16]byte{1, 2}, 0))
			w.produce(effects(0, 0, 10)...)
		}, "deleted and made again"},
		"never ingested, and its results were told": {func(w *world) {
			w.tellResults(0)
			w.produce(effects(0, 0, 10)...)
		}, "results of effects were told"},
		"no lane was ever ingested, and results of another one were told": {func(w *world) {
			w.tellResults(1)
			w.produce(effects(0, 0, 10)...)
		}, "results of effects were told"},
		"another number of lanes": {func(w *world) {
			w.config.Lanes = 2
			w.produce(effects(0, 0, 10)...)
		}, "has 1 partitions and effects.lanes is 2"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			inBubble(t, 1, func(w *world) {
				c.prepare(w)
				r := w.run()
				h := next(w.t, w.halted, "halt")
				if !strings.Contains(h.err.Error(), c.want) {
					w.t.Errorf("halted: %v, want %q", h.err, c.want)
				}
				time.Sleep(time.Hour) //nolint:forbidigo // virtual time
				if w.ledger.Appends(0) != 0 || len(w.halted) > 1 {
					w.t.Error("a halted lane went on")
				}
				w.drain(r)
			})
		})
	}
}

// A process was faster with another lane, and told of it before this one was begun.
func TestLaneOfWhichNothingWasToldBeginsWhereTheLedgerKnowsAnother(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		w.tellResults(1)
		w.must(w.ledger.Seed(w.t.Context(), 1, w.topicID(), 0))
		w.run()
		w.produce(effects(0, 0, 10)...)
		w.await(0, 10)
	})
}

// Somebody adds a partition to the effects topic while an ingester runs. Keys would change their lane. The lane
// that has come halts and says so, and the process is told no number of lanes but the configured one; those
// that were there go on with what is theirs.
func TestAddedLaneHalts(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		w.run(func(c *Config) {
			c.Group, c.Heartbeat, c.Client = "app", 200*time.Millisecond, append(slices.Clone(c.Client), kgo.MetadataMaxAge(10*time.Second))
		})
		w.produce(effects(0, 0, 10)...)
		w.await(0, 10)
		if _, err := w.admin.CreatePartitions(w.t.Context(), 1, topic); err != nil {
			w.t.Fatal(err)
		}
		h := next(w.t, w.halted, "halt of the lane that was added")
		if h.lane != 2 || !strings.Contains(h.err.Error(), "has 3 partitions and effects.lanes is 2") {
			w.t.Errorf("lane %d halted: %v", h.lane, h.err)
		}
		w.produce(effects(0, 10, 20)...)
		w.await(0, 20)
		w.exact(0)
		if w.ledger.Next(2) != 0 || w.ledger.Appends(2) != 0 {
			w.t.Error("the added lane was ingested")
		}
	})
}

// The topic is deleted and made again under a running ingester, and the new one is as long as the old.
func TestRecreatedTopicHaltsARunningLane(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		w.run()
		w.produce(effects(0, 0, 5)...)
		w.await(0, 5)
		w.must(w.cluster.DeleteTopic(topic))
		w.must(w.cluster.CreateTopic(topic, 1, nil))
		fresh := w.connect()
		w.must(fresh.ProduceSync(w.t.Context(), effects(0, 100, 120)...).FirstErr())
		if h := next(w.t, w.halted, "halt"); !strings.Contains(h.err.Error(), "deleted and made again") {
			w.t.Errorf("halted: %v", h.err)
		}
		if got := w.offsets(0); len(got) != 5 {
			w.t.Errorf("the ledger has %v of the new topic", got)
		}
	})
}

// The topic is made again between the question which one it is and the first fetch, which reads the
// new one from where the old one was to be read.
func TestRecordsOfAnotherTopicAreNotTaken(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		w.ledger.Fail = func(method string, after bool) error {
			if method == "Seed" && after {
				w.must(w.cluster.DeleteTopic(topic))
				w.must(w.cluster.CreateTopic(topic, 1, nil))
				w.produce(effects(0, 100, 120)...)
			}
			return nil
		}
		w.run()
		if h := next(w.t, w.halted, "halt"); !strings.Contains(h.err.Error(), "deleted and made again") {
			w.t.Errorf("halted: %v", h.err)
		}
		if got := w.offsets(0); len(got) != 0 {
			w.t.Errorf("the ledger has %v of the new topic", got)
		}
	})
}

// The ledger holds a lane up until retention has passed what the lane's client has not fetched yet.
func TestRetentionThatPassesARunningLaneHaltsIt(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		release := make(chan struct{})
		w.run(func(c *Config) { c.Store, c.BatchMax = slowStore{c.Store, release}, 1 })
		for n := range int64(20) {
			w.produce(effect(0, n, func(r *kgo.Record) { r.Value = make([]byte, fetchBytesMax/2) }))
			synctest.Wait() // one by one: what is there together is fetched together
		}
		w.truncate(0, 19)
		close(release)
		if h := next(w.t, w.halted, "halt"); !strings.Contains(h.err.Error(), "but it begins at 19: the effects between are gone") {
			w.t.Errorf("halted: %v", h.err)
		}
		got := w.offsets(0)
		if len(got) == 0 || len(got) > 10 || slices.Contains(got, 19) {
			w.t.Errorf("the ledger has %v", got)
		}
	})
}

// Errors of the client that the brokers' answers to the next session would not tell.
func TestLossThatOnlyTheClientSeesHalts(t *testing.T) {
	t.Parallel()
	l := newLane(Config{Topic: topic}, nil, 3, nil)
	for _, c := range []struct {
		err  error
		halt bool
	}{
		{&kgo.ErrDataLoss{Topic: topic, Partition: 3, ConsumedTo: 10, ResetTo: 7}, true},
		{&kgo.ErrDecompressTooLarge{}, true},
		{kerr.OffsetOutOfRange, false},
		{kerr.UnknownTopicID, false},
		{kerr.TopicAuthorizationFailed, false},
	} {
		err := l.failure(c.err)
		if _, halted := errors.AsType[*haltError](err); halted != c.halt || !errors.Is(err, c.err) || !strings.Contains(err.Error(), "app.effects/3") {
			t.Errorf("%v became %v, halting: %t", c.err, err, halted)
		}
	}
}

// Postgres is down for an hour. Nobody hammers at it nor at the brokers, nothing piles up, and the lane
// catches up by itself.
func TestLedgerThatIsDownIsWaitedFor(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		var down atomic.Bool
		var asked, fetched atomic.Int64
		w.ledger.Fail = func(string, bool) error {
			asked.Add(1)
			if down.Load() {
				return errStore
			}
			return nil
		}
		w.cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			fetched.Add(1)
			return nil, nil, false
		})
		r := w.run()
		w.produce(effects(0, 0, 5)...)
		w.await(0, 5)
		down.Store(true)
		askedBefore, fetchedBefore := asked.Load(), fetched.Load()
		for n := range int64(60) {
			w.produce(effect(0, 5+n))
			time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		}
		if n := asked.Load() - askedBefore; n == 0 || n > 2*3600 {
			w.t.Errorf("the ledger was asked %d times within an hour", n)
		}
		if n := fetched.Load() - fetchedBefore; n > 2*3600+2*60 { // two a second, and those that the records end early
			w.t.Errorf("the broker was asked %d times within an hour", n)
		}
		if s := r.Status(); s[0].State != Retrying || !errors.Is(s[0].Err, errStore) || time.Since(s[0].Since) < 59*time.Minute {
			w.t.Errorf("status is %+v", s[0])
		}
		down.Store(false)
		w.await(0, 65)
		w.exact(0)
		synctest.Wait()
		if s := r.Status(); s[0].State != Reading || s[0].Err != nil {
			w.t.Errorf("status is %+v", s[0])
		}
	})
}

// One lane waits for its append; the others must not wait with it.
func TestSlowLaneDelaysNoOther(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		release := make(chan struct{})
		w.run(func(c *Config) { c.Store = slowStore{c.Store, release} })
		w.produce(effects(0, 0, 5)...)
		w.produce(effects(1, 0, 5)...)
		w.await(1, 5)
		if n := w.ledger.Appends(0); n != 0 {
			w.t.Errorf("lane 0 has %d appends", n)
		}
		close(release)
		w.await(0, 5)
	})
}

// slowStore holds the appends of lane 0.
type slowStore struct {
	Store

	release chan struct{}
}

func (s slowStore) Append(ctx context.Context, b *outbox.Batch) error {
	if b.Lane == 0 {
		<-s.release
	}
	return s.Store.Append(ctx, b)
}

// The ledger is down when the order to stop comes: there is nothing to finish.
func TestDrainDoesNotWaitForALedgerThatIsDown(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		var down atomic.Bool
		w.ledger.Fail = func(string, bool) error {
			if down.Load() {
				return errStore
			}
			return nil
		}
		r := w.run()
		w.produce(effect(0, 0))
		w.await(0, 1)
		down.Store(true)
		w.produce(effect(0, 1))
		if err := next(w.t, w.retrying, "retry"); !errors.Is(err, errStore) {
			w.t.Errorf("retried after %v", err)
		}
		asked := time.Now()
		w.drain(r)
		if took := time.Since(asked); took > time.Second {
			w.t.Errorf("the end took %s", took)
		}
	})
}

// The order to stop comes while an append is under way: it is finished, and Run waits for that.
func TestDrainFinishesTheAppendInHand(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		release := make(chan struct{})
		r := w.run(func(c *Config) { c.Store = slowStore{c.Store, release} })
		w.produce(effects(0, 0, 5)...)
		synctest.Wait()
		r.stop()
		synctest.Wait()
		if len(r.done) != 0 {
			w.t.Fatal("Run did not wait for its append")
		}
		close(release)
		w.must(next(w.t, r.done, "end of Run"))
		if w.ledger.Appends(0) != 1 || len(w.ingested) != 1 || len(w.revoked) != 1 {
			w.t.Errorf("%d appends, %d handed on, %d lanes revoked", w.ledger.Appends(0), len(w.ingested), len(w.revoked))
		}
		if s := r.Status(); len(s) != 0 {
			w.t.Errorf("status after the end: %+v", s)
		}
	})
}

// A lane is taken away and comes back while an append of it is under way. It begins again when that has
// ended, so that hooks of one lane never overlap.
func TestLaneThatComesBackWaitsForItsPast(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		release := make(chan struct{})
		r := w.run(func(c *Config) { c.Store = slowStore{c.Store, release} })
		w.produce(effects(0, 0, 5)...)
		synctest.Wait()
		r.end([]int32{0})
		r.begin(w.t.Context(), 0)
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		if len(w.assigned) != 1 || len(w.revoked) != 0 {
			w.t.Errorf("assigned %d times and revoked %d times with an append under way", len(w.assigned), len(w.revoked))
		}
		close(release)
		w.produce(effect(0, 5))
		w.await(0, 6)
		w.exact(0)
		if len(w.assigned) != 2 || len(w.revoked) != 1 || len(w.overtaken) != 0 {
			w.t.Errorf("assigned %d times, revoked %d times, overtaken %d times", len(w.assigned), len(w.revoked), len(w.overtaken))
		}
		r.end([]int32{0})
		next(w.t, w.revoked, "end of the first time")
		next(w.t, w.revoked, "end of the second time")
	})
}

// Who leaves finishes before the lane goes to somebody else, who then need not be overtaken.
func TestLanesAreGivenUpWhenTheyAreFinished(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		release := make(chan struct{})
		join := func(c *Config) { c.Group = "app.effects" }
		first := w.run(join, func(c *Config) { c.Store = slowStore{c.Store, release} })
		next(w.t, w.assigned, "lane")
		second := w.run(join)
		time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		w.produce(effect(0, 0))
		synctest.Wait()
		first.stop()
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		if len(w.assigned) != 0 {
			w.t.Error("the lane was given up before its append had ended")
		}
		close(release)
		next(w.t, w.assigned, "lane of the second")
		w.produce(effect(0, 1))
		w.await(0, 2)
		if len(w.overtaken) != 0 {
			w.t.Errorf("overtaken %d times", len(w.overtaken))
		}
		w.must(next(w.t, first.done, "end of Run"))
		w.drain(second)
	})
}

// A ledger that is never where it says it is has a fault, and the lane must not turn it into a load.
func TestLedgerThatAlwaysRefusesIsNotHammered(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		var refused atomic.Int64
		w.ledger.Fail = func(method string, _ bool) error {
			if method == "Append" {
				if refused.Add(1) > 1000 {
					return errStore
				}
				return outbox.ErrOvertaken
			}
			return nil
		}
		w.run()
		w.produce(effect(0, 0))
		time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		if n := refused.Load(); n < 10 || n > 200 {
			w.t.Errorf("%d appends within a minute", n)
		}
	})
}

func TestBatchesKeepTheirLimits(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		large := func(n int64) *kgo.Record {
			return effect(0, n, func(r *kgo.Record) { r.Value = make([]byte, 1000) })
		}
		w.produce(effects(0, 0, 25)...)
		w.produce(large(25), large(26), large(27), large(28))
		w.run(func(c *Config) { c.BatchMax, c.BytesMax = 10, 2000 })
		w.await(0, 29)
		w.exact(0)
		for len(w.ingested) > 0 {
			b := <-w.ingested
			bytes := 0
			for _, intent := range b.Intents[:len(b.Intents)-1] { // the last one is what crosses the limit
				bytes += len(intent.Key) + len(intent.Body)
			}
			if len(b.Intents) > 10 || bytes >= 2000 {
				w.t.Errorf("a batch of %d intents has %d bytes before the last", len(b.Intents), bytes)
			}
		}
	})
}

// Two processes share the lanes by the group. When one leaves, the other takes all, and goes on where
// the ledger stands.
func TestGroupSharesLanes(t *testing.T) {
	inBubble(t, 4, func(w *world) {
		join := func(c *Config) { c.Group = "app.effects" }
		first := w.run(join)
		for range 4 {
			next(w.t, w.assigned, "lane")
		}
		produced := int64(0)
		produce := func() {
			w.t.Helper()
			for lane := range int32(4) {
				w.produce(effects(lane, produced, produced+10)...)
			}
			produced += 10
			for lane := range int32(4) {
				w.await(lane, produced)
			}
		}
		produce()

		second := w.run(join)
		for range 2 {
			next(w.t, w.revoked, "revoked lane")
			next(w.t, w.assigned, "lane of the second")
		}
		produce()
		if a, b := len(first.Status()), len(second.Status()); a != 2 || b != 2 {
			w.t.Errorf("they have %d and %d lanes, want 2 each", a, b)
		}
		w.drain(first)
		for range 2 {
			next(w.t, w.assigned, "lane of the one that left")
		}
		produce()
		if n := len(second.Status()); n != 4 {
			w.t.Errorf("the one that is left has %d lanes, want 4", n)
		}
		for lane := range int32(4) {
			w.exact(lane)
		}
		w.drain(second)
	})
}

// A process that ends keeps its lanes for its next start, unless it was told to leave for good.
func TestNamedMemberStaysUnlessToldToLeave(t *testing.T) {
	for _, leave := range []bool{false, true} {
		t.Run(fmt.Sprintf("leave=%t", leave), func(t *testing.T) {
			inBubble(t, 1, func(w *world) {
				r := w.run(func(c *Config) { c.Group, c.InstanceID = "app.effects", "app.one" })
				next(w.t, w.assigned, "lane")
				members := func() []kadm.DescribedGroupMember {
					groups, err := kadm.NewClient(w.connect()).DescribeGroups(context.Background(), "app.effects")
					w.must(err)
					return groups["app.effects"].Members
				}
				if have := members(); len(have) != 1 || have[0].InstanceID == nil || *have[0].InstanceID != "app.one" {
					w.t.Fatalf("members are %+v, want app.one", have)
				}
				if leave {
					r.Leave()
				}
				w.drain(r)
				if have := members(); len(have) == 0 != leave {
					w.t.Errorf("after the end the group has members %+v, want left = %t", have, leave)
				}
			})
		})
	}
}

// To leave a group that has no such member, or that cannot be asked, keeps nobody from ending.
func TestLeavingEndsInAnyCase(t *testing.T) {
	for name, code := range map[string]int16{"not a member": kerr.UnknownMemberID.Code, "not allowed": kerr.GroupAuthorizationFailed.Code} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, func(w *world) {
				var asked atomic.Int64
				w.cluster.ControlKey(int16(kmsg.LeaveGroup), func(request kmsg.Request) (kmsg.Response, error, bool) {
					w.cluster.KeepControl()
					asked.Add(1)
					answer := request.ResponseKind().(*kmsg.LeaveGroupResponse)
					answer.ErrorCode = code
					return answer, nil, true
				})
				r := w.run(func(c *Config) { c.Group, c.InstanceID = "app.effects", "app.one" })
				next(w.t, w.assigned, "lane")
				r.Leave()
				w.drain(r)
				if asked.Load() == 0 {
					w.t.Error("nobody asked to leave")
				}
				if told := len(w.retrying) > 0; told != (code == kerr.GroupAuthorizationFailed.Code) {
					w.t.Errorf("a failure was told = %t", told)
				}
			})
		})
	}
}

// What reaches the dispatcher is what is in the ledger, in order and without overlap.
func TestIngestedBatchesTileTheLane(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		producer := w.connect(kgo.TransactionalID("txn"))
		w.run(func(c *Config) { c.BatchMax = 4 })
		for n := range int64(10) {
			w.transact(producer, kgo.TransactionEndTry(n%3 != 0), effects(0, 10*n, 10*n+10)...)
		}
		w.await(0, w.topicEnd(0))
		synctest.Wait()
		at := int64(0)
		var got []outbox.Intent
		for len(w.ingested) > 0 {
			b := <-w.ingested
			if b.Base != at || b.Next <= b.Base {
				w.t.Errorf("a batch goes from %d to %d, want from %d", b.Base, b.Next, at)
			}
			at = b.Next
			got = append(got, b.Intents...)
		}
		if diff := cmp.Diff(w.ledger.Intents(0), got); diff != "" {
			w.t.Errorf("handed on (-ledger +hook):\n%s", diff)
		}
	})
}

func TestConfigurationIsJudgedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := New(Config{InstanceID: "one"})
	for _, want := range []string{"client options", "effects topic", "0 lanes", "instance id", "no ledger", "0 intents", "0 bytes"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New gave %v, want it to name %q", err, want)
		}
	}
	good := Config{Client: []kgo.Opt{kgo.SeedBrokers("localhost:9092")}, Topic: topic, Lanes: 1, Store: slowStore{}, BatchMax: 1, BytesMax: 1}
	if _, err := New(good); err != nil {
		t.Errorf("New gave %v", err)
	}
	bad := good
	bad.Group, bad.Heartbeat, bad.SessionTimeout = "app.effects", time.Minute, time.Second
	if _, err := New(bad); err == nil {
		t.Error("New took a heartbeat longer than the session")
	}
}
