package txn

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// The tests of this file are not parallel: they count what the whole process allocates.

const (
	// promised is what the copy of one record may allocate between poll and end.
	promised = 4
	// ownMax is what of that is left to our own code, which needs none: a single one for each record
	// would be a mistake in the hot path.
	ownMax = 0.5
)

func manyInputs(n int) []*kgo.Record {
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = &kgo.Record{
			Topic: inTopic, Partition: int32(i % 8), Offset: int64(i), Key: fmt.Append(nil, "key-", i%100), Value: make([]byte, 500),
			Headers: []kgo.RecordHeader{{Key: "traceparent", Value: make([]byte, 55)}}, Timestamp: time.UnixMilli(int64(i)),
		}
	}
	return records
}

// The engine's own path, with one worker and with several, with the session replaced by nothing.
func TestCopyAllocatesNothingForEachRecord(t *testing.T) {
	const n = 5000
	records := manyInputs(n)
	for _, workers := range []int{1, 4} {
		tr := newTestTransformer(workers, copyHandler{})
		b := newBuilder(tr.config, tr.sizes)
		made := 0
		each := testing.AllocsPerRun(20, func() {
			b.reset()
			source := message.Source{Application: "app"}
			for part, err := range tr.run(records, testTopicID, nil, dear) {
				if err != nil {
					t.Fatal(err)
				}
				newStory(tr.config).saw(part.records) // nobody wants one
				for i, r := range part.records {
					source.Topic, source.Partition, source.Offset = r.Topic, r.Partition, r.Offset
					if err := b.build(r, source, &part.outcomes[i], "copy", func(*kgo.Record) { made++ }); err != nil {
						t.Fatal(err)
					}
				}
			}
		}) / n
		if made != 21*n {
			t.Fatalf("made %d records, want %d", made, 21*n)
		}
		t.Logf("%d workers: %.3f allocations for each record", workers, each)
		if each > ownMax {
			t.Errorf("%d workers: %.3f allocations for each record, want at most %.1f", workers, each, ownMax)
		}
	}
}

// With tracing off nobody wants a story, and then there is none: no header is looked at, not even that of a sampled
// record, and nothing is allocated.
func TestStoryThatNobodyWantsCostsNothing(t *testing.T) {
	records := manyInputs(100)
	for _, r := range records {
		r.Headers[0].Value = []byte(traceparent)
	}
	ended, made := newBatch(), newBuilder(Config{}, nil)
	tell := func(c Config) (allocs float64, told int) {
		allocs = testing.AllocsPerRun(20, func() {
			s := newStory(c)
			s.begin()
			s.saw(records)
			s.filled()
			if s.tell(ended, made, time.Time{}) != nil {
				told++
			}
		})
		return allocs, told
	}
	if allocs, told := tell(Config{}); allocs != 0 || told != 0 {
		t.Errorf("%g allocations and %d stories, want none", allocs, told)
	}
	if allocs, told := tell(Config{Hooks: Hooks{Stories: true}}); allocs == 0 || told != 21 {
		t.Errorf("where it is wanted: %g allocations and %d stories, want some and 21: the test sees nothing", allocs, told)
	}
}

// What stands around a handler's bytes, an effect's many headers too, is the builder's own memory.
func TestBuildingOutputsAndEffectsAllocatesNothing(t *testing.T) {
	b := newTestBuilder()
	r, asked := orderLike()
	made := 0
	each := testing.AllocsPerRun(100, func() {
		b.reset()
		if err := b.build(r, testSource, asked, "orders", func(*kgo.Record) { made++ }); err != nil {
			t.Fatal(err)
		}
	})
	if made != 101*3 || each != 0 {
		t.Errorf("%d records were made with %g allocations for each input, want %d and none", made, each, 101*3)
	}
}

// The same of the running engine: everything that this process allocates from the first commit to the
// last, client and fake brokers included. It was 0.1 to 3.9 for each record when this was written, of
// which the engine can be blamed for no more than the promise.
func TestEngineAllocatesLittleForEachRecord(t *testing.T) {
	const n, brokers = 40_000, 2
	w := newWorld(t, 4)
	ctx := context.Background()
	for i, r := range manyInputs(n) {
		r.Partition = int32(i % 4)
		w.client.Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := w.client.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	r := w.run(func(c *Config) { c.Lanes, c.RecordsMax, c.BytesMax = 2, 5000, 8<<20 })
	left := n
	for _, e := range until(t, w.hooks.ended, "a commit", committed(1)) { // joining is no work on records
		if e.Outcome == Committed {
			left -= e.Records
		}
	}
	runtime.ReadMemStats(&before)
	until(t, w.hooks.ended, "all of them", committed(left))
	runtime.ReadMemStats(&after)
	if err := r.drain(); err != nil {
		t.Fatal(err)
	}
	each := float64(after.Mallocs-before.Mallocs) / float64(left)
	t.Logf("%.2f allocations and %d bytes for each record", each, (after.TotalAlloc-before.TotalAlloc)/uint64(left))
	if each > promised+brokers {
		t.Errorf("%.2f allocations for each record, want at most %d and %d of the brokers", each, promised, brokers)
	}
}
