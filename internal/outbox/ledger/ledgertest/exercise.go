package ledgertest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

// Exercise holds a ledger against the contract. Each subtest opens an empty ledger of its own, and they
// run in parallel.
func Exercise(t *testing.T, open func(t *testing.T) Store) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(*exercise)
	}{
		{"a lane that was never ingested is unknown", unknownLane},
		{"a seed begins a chain and never replaces one", seed},
		{"batches tile a lane without hole or overlap", tiling},
		{"racing ingesters add each offset once", race},
		{"another topic id does not continue a chain", otherTopic},
		{"marks are kept, the highest of each origin", marks},
		{"what was appended is read back as it was", content},
		{"a large batch is read back as it was", largeContent},
		{"pages cover a lane without gap", pages},
		{"an earlier business key makes a twin, across lanes", twins},
		{"a batch has its twins also within itself", twinsWithin},
		{"a lease is held until it is given up or runs out", leases},
		{"a tenure that was taken over writes nothing", fencing},
		{"flushes are numbered without a gap", contiguous},
		{"recovery knows what is settled", recoverSettled},
		{"a renewal knows the last flush", renewalsCount},
		{"recovery knows what is parked and sending", recoverParked},
		{"a recovery brings no more than fits, and the rest can be read", recoverMany},
		{"recovery knows what holds its key until that is freed", recoverHolds},
		{"settled is no longer parked or sending", settledEndsWaiting},
		{"orders come with renewals until they are obeyed", orders},
		{"orders to retry what has ended well are dropped", lateOrders},
		{"what became of an order is remembered", audited},
		{"a dead intent can be tried again and has a second outcome", deadAgain},
		{"results come in order, whole and with their intents", results},
		{"a flush is known by its epoch and last offset", flushAt},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			c.test(&exercise{t: t, store: open(t)})
		})
	}
}

// exercise is one subtest with its ledger.
type exercise struct {
	t     *testing.T
	store Store
}

const (
	someLane  int32 = 3
	otherLane int32 = 5
	ttl             = time.Minute
)

var (
	topicID = [16]byte{1, 2, 3}
	inputID = [16]byte{9, 8, 7}
)

// at makes the intent that stands at an offset; offsets of one remainder by 3 have one key.
func at(lane int32, offset int64) outbox.Intent {
	source := message.Source{ReplayGeneration: 2, Topic: "orders", TopicID: inputID, Partition: 4, Offset: 1000 + offset}
	return outbox.Intent{
		Lane: lane, Offset: offset, ID: source.ID(1), Source: source, Index: 1,
		Endpoint: "payments", Class: message.AtLeastOnce, ContentType: "application/json",
		Key: fmt.Appendf(nil, "key-%d", offset%3), Body: fmt.Appendf(nil, `{"n":%d}`, offset),
		At: time.UnixMilli(1_700_000_000_000 + offset).UTC(),
	}
}

func batch(lane int32, base, next int64, offsets ...int64) *outbox.Batch {
	b := &outbox.Batch{Lane: lane, TopicID: topicID, Base: base, Next: next}
	for _, offset := range offsets {
		b.Intents = append(b.Intents, at(lane, offset))
	}
	return b
}

func (x *exercise) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

func (x *exercise) want(err, want error, what string) {
	x.t.Helper()
	if !errors.Is(err, want) {
		x.t.Errorf("%s gave %v, want %v", what, err, want)
	}
}

func (x *exercise) equal(got, want any, what string) {
	x.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		x.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func (x *exercise) append(b *outbox.Batch) {
	x.t.Helper()
	x.must(x.store.Append(x.t.Context(), b))
}

// filled seeds someLane and gives it intents at every offset below n.
func (x *exercise) filled(n int64) {
	x.t.Helper()
	x.must(x.store.Seed(x.t.Context(), someLane, topicID, 0))
	offsets := make([]int64, n)
	for i := range offsets {
		offsets[i] = int64(i)
	}
	x.append(batch(someLane, 0, n, offsets...))
}

func (x *exercise) head(lane int32) outbox.Head {
	x.t.Helper()
	head, err := x.store.Head(x.t.Context(), lane)
	x.must(err)
	return head
}

// all pages through a lane.
func (x *exercise) all(lane int32) []outbox.Intent {
	x.t.Helper()
	intents, next, err := x.store.Page(x.t.Context(), lane, 0, 1000)
	x.must(err)
	if head := x.head(lane); next != head.Next {
		x.t.Errorf("a page with room to spare ends at %d, the lane at %d", next, head.Next)
	}
	return intents
}

func (x *exercise) acquire(lane int32, owner string) outbox.Tenure {
	x.t.Helper()
	tenure, err := x.store.Acquire(x.t.Context(), lane, owner, ttl)
	x.must(err)
	return tenure
}

func (x *exercise) recover(tenure outbox.Tenure) outbox.Recovery {
	x.t.Helper()
	r, err := x.store.Recover(x.t.Context(), tenure)
	x.must(err)
	return r
}

func (x *exercise) flush(f outbox.Flush) {
	x.t.Helper()
	x.must(x.store.Flush(x.t.Context(), f))
}

func (x *exercise) results(lane int32, after int64, limit int) []outbox.Result {
	x.t.Helper()
	results, err := x.store.Results(x.t.Context(), lane, after, limit)
	x.must(err)
	return results
}

// done makes a flush that settles offsets as done and covers just them.
func done(tenure outbox.Tenure, seq, low int64, offsets ...int64) outbox.Flush {
	f := outbox.Flush{Tenure: tenure, Seq: seq, Low: low}
	for _, offset := range offsets {
		f.Settled = append(f.Settled, outbox.Outcome{Offset: offset, Status: outbox.Done, Attempts: 1, HTTPStatus: 200})
		f.Covered = f.Covered.Add(offset, offset+1)
	}
	return f
}

func offsetsOf(intents []outbox.Intent) []int64 {
	offsets := make([]int64, 0, len(intents))
	for _, intent := range intents {
		offsets = append(offsets, intent.Offset)
	}
	return offsets
}

func unknownLane(x *exercise) {
	x.equal(x.head(someLane), outbox.Head{Lane: someLane}, "head")
	x.want(x.store.Append(x.t.Context(), batch(someLane, 500, 501, 500)), outbox.ErrOvertaken, "append in the middle")
	x.equal(x.head(someLane), outbox.Head{Lane: someLane}, "head")

	tenure := x.acquire(someLane, "a")
	r := x.recover(tenure)
	if r.Low != 0 || r.Seq != 0 || len(r.Settled)+len(r.Parked)+len(r.Sending) != 0 {
		x.t.Errorf("recovered %+v from nothing", r)
	}
	if results := x.results(someLane, 0, 10); len(results) != 0 {
		x.t.Errorf("results of nothing: %+v", results)
	}
}

func seed(x *exercise) {
	ctx := x.t.Context()
	x.must(x.store.Seed(ctx, someLane, topicID, 40))
	head := x.head(someLane)
	if !head.Known || head.Next != 40 || head.TopicID != topicID || len(head.Seen) != 0 {
		x.t.Errorf("head after the seed is %+v", head)
	}
	x.want(x.store.Seed(ctx, someLane, topicID, 0), outbox.ErrOvertaken, "a second seed")
	x.append(batch(someLane, 40, 45, 41, 43))
	x.want(x.store.Seed(ctx, someLane, topicID, 40), outbox.ErrOvertaken, "a late seed")
	if next := x.head(someLane).Next; next != 45 {
		x.t.Errorf("the lane stands at %d, want 45", next)
	}
	if x.head(otherLane).Known {
		x.t.Error("another lane was seeded too")
	}
}

func tiling(x *exercise) {
	ctx := x.t.Context()
	x.must(x.store.Seed(ctx, someLane, topicID, 0))
	x.append(batch(someLane, 0, 10, 0, 3, 9))
	for _, stale := range []*outbox.Batch{
		batch(someLane, 0, 10, 0, 3, 9), // again
		batch(someLane, 0, 20, 0, 15),   // from where it began
		batch(someLane, 5, 12, 5, 11),   // overlapping
		batch(someLane, 11, 12, 11),     // leaving a hole
	} {
		x.want(x.store.Append(ctx, stale), outbox.ErrOvertaken, fmt.Sprintf("append from %d to %d", stale.Base, stale.Next))
	}
	x.append(batch(someLane, 10, 30)) // nothing but gaps
	x.append(batch(someLane, 30, 31, 30))
	if next := x.head(someLane).Next; next != 31 {
		x.t.Errorf("the lane stands at %d, want 31", next)
	}
	x.equal(offsetsOf(x.all(someLane)), []int64{0, 3, 9, 30}, "intents")
}

// Each ingester reads where the lane stands and adds what comes next, in steps of its own. Whoever is
// late changes nothing.
func race(x *exercise) {
	const end = 120
	ctx := x.t.Context()
	x.must(x.store.Seed(ctx, someLane, topicID, 0))
	ingest := func(step int64) error {
		for {
			head, err := x.store.Head(ctx, someLane)
			if err != nil || head.Next >= end {
				return err
			}
			next := min(end, head.Next+step)
			var offsets []int64
			for offset := head.Next; offset < next; offset++ {
				offsets = append(offsets, offset)
			}
			if err := x.store.Append(ctx, batch(someLane, head.Next, next, offsets...)); err != nil && !errors.Is(err, outbox.ErrOvertaken) {
				return err
			}
		}
	}
	var all sync.WaitGroup
	for i := range int64(4) {
		all.Go(func() {
			if err := ingest(3 + i); err != nil {
				x.t.Errorf("ingester %d: %v", i, err)
			}
		})
	}
	all.Wait()
	got := offsetsOf(x.all(someLane))
	for i, offset := range got {
		if offset != int64(i) {
			x.t.Fatalf("intent %d has offset %d", i, offset)
		}
	}
	if len(got) != end {
		x.t.Errorf("%d intents, want %d", len(got), end)
	}
}

func otherTopic(x *exercise) {
	x.filled(5)
	other := batch(someLane, 5, 6, 5)
	other.TopicID = [16]byte{0xff}
	x.want(x.store.Append(x.t.Context(), other), outbox.ErrOvertaken, "append from another topic")
	if head := x.head(someLane); head.Next != 5 || head.TopicID != topicID {
		x.t.Errorf("head is %+v", head)
	}
}

func marks(x *exercise) {
	ctx := x.t.Context()
	x.must(x.store.Seed(ctx, someLane, topicID, 0))
	one, two := outbox.Origin{TopicID: inputID, Partition: 1}, outbox.Origin{TopicID: inputID, Partition: 1, Generation: 7}
	want := map[outbox.Origin]outbox.Mark{}
	// More rows than one full map's distance, so that the head is put together from several.
	for i := range int64(230) {
		b := batch(someLane, i, i+1)
		raised := map[outbox.Origin]outbox.Mark{one: {Offset: i, Index: 2}}
		if i == 3 {
			raised[two] = outbox.Mark{Offset: 77, Index: 0}
		}
		if i%50 == 49 {
			raised[outbox.Origin{TopicID: [16]byte{byte(i)}, Partition: int32(i)}] = outbox.Mark{Offset: i, Index: int(i)}
		}
		b.Seen = raised
		x.append(b)
		maps.Copy(want, raised)
	}
	x.equal(x.head(someLane).Seen, want, "marks")

	stale := batch(someLane, 0, 1)
	stale.Seen = map[outbox.Origin]outbox.Mark{one: {Offset: 1_000_000}}
	x.want(x.store.Append(ctx, stale), outbox.ErrOvertaken, "a late batch")
	x.equal(x.head(someLane).Seen, want, "marks after a late batch")
	if seen := x.head(otherLane).Seen; len(seen) != 0 {
		x.t.Errorf("another lane has marks: %v", seen)
	}
}

func content(x *exercise) {
	ctx := x.t.Context()
	x.must(x.store.Seed(ctx, someLane, topicID, 100))
	b := batch(someLane, 100, 400, 100, 250, 399)
	b.Intents[1].Class, b.Intents[1].BusinessKey, b.Intents[1].Trace = message.AtMostOnce, "charge:ü 7", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	b.Intents[1].TraceState = "congo=t61rcWkgMzE, rojo=00f067aa0ba902b7"
	b.Intents[1].Body = []byte{0, 1, 2, 0xff, 0}
	b.Intents[2].ContentType, b.Intents[2].Key = "text/plain; charset=utf-8", []byte{0xff, 0}
	b.Intents[2].Source.ReplayGeneration, b.Intents[2].Index = 0, 12345
	want := slices.Clone(b.Intents)
	x.append(b)
	x.equal(x.all(someLane), want, "page")
	got, err := x.store.Get(ctx, someLane, []int64{399, 250})
	x.must(err)
	x.equal(got, want[1:], "got by offset")
	x.equal(b.Intents, want, "the batch that was given")
}

// A ledger may write large batches in another way than small ones.
func largeContent(x *exercise) {
	const n, large = 400, 70_000
	x.must(x.store.Seed(x.t.Context(), someLane, topicID, 0))
	b := &outbox.Batch{Lane: someLane, TopicID: topicID, Next: n}
	for offset := range int64(n) {
		intent := at(someLane, offset)
		intent.Body = bytes.Repeat([]byte{byte(offset), 0, 0xff}, int(offset%50))
		switch offset % 9 {
		case 0:
			intent.Key, intent.At = nil, time.UnixMicro(-offset).UTC()
		case 1:
			intent.Key, intent.Index, intent.Source.ReplayGeneration = []byte{}, math.MaxInt32, 0
		case 2:
			intent.Class, intent.Trace = message.AtMostOnce, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		case 3:
			intent.Source.Topic, intent.Endpoint, intent.ContentType = "ü", "a\x00b", `\x41`
			intent.Source.Partition, intent.Source.Offset = math.MaxInt32, math.MaxInt64
		case 4:
			intent.BusinessKey = fmt.Sprint("charge:", offset/27) // of three, two are twins
			intent.Body = []byte{byte(offset / 45)}               // not always with the same body
		}
		b.Intents = append(b.Intents, intent)
	}
	b.Intents[n/2].Body = bytes.Repeat([]byte("body"), large/4)
	x.append(b)
	twins := map[bool]int{}
	for _, intent := range b.Intents {
		if intent.Twin != nil {
			twins[intent.Twin.Same]++
		}
	}
	if twins[true] == 0 || twins[false] == 0 {
		x.t.Errorf("there are %d duplicates and %d conflicts, want some of each", twins[true], twins[false])
	}
	x.equal(x.all(someLane), b.Intents, "page")
}

func pages(x *exercise) {
	ctx := x.t.Context()
	x.must(x.store.Seed(ctx, someLane, topicID, 0))
	x.append(batch(someLane, 0, 10, 1, 2, 8))
	x.append(batch(someLane, 10, 20))
	x.append(batch(someLane, 20, 30, 20, 29))
	x.append(batch(someLane, 30, 40))
	tenure := x.acquire(someLane, "a")
	x.flush(done(tenure, 1, 3, 1, 2)) // what became of an intent is no matter
	for limit := 1; limit <= 6; limit++ {
		var got []int64
		for from := int64(0); from < 40; {
			intents, next, err := x.store.Page(ctx, someLane, from, limit)
			x.must(err)
			if next <= from || next > 40 || len(intents) > limit {
				x.t.Fatalf("page from %d of at most %d has %d intents and ends at %d", from, limit, len(intents), next)
			}
			for _, intent := range intents {
				if intent.Offset < from || intent.Offset >= next {
					x.t.Errorf("page from %d to %d has %d", from, next, intent.Offset)
				}
			}
			got, from = append(got, offsetsOf(intents)...), next
		}
		x.equal(got, []int64{1, 2, 8, 20, 29}, fmt.Sprintf("pages of %d", limit))
	}
	intents, next, err := x.store.Page(ctx, someLane, 40, 10)
	if err != nil || len(intents) != 0 || next != 40 {
		x.t.Errorf("the page at the end has %d intents, ends at %d and gave %v", len(intents), next, err)
	}
}

func twins(x *exercise) {
	ctx := x.t.Context()
	for _, lane := range []int32{someLane, otherLane} {
		x.must(x.store.Seed(ctx, lane, topicID, 0))
	}
	first := batch(someLane, 0, 10, 4)
	first.Intents[0].BusinessKey, first.Intents[0].Body = "charge:1", []byte("a")
	x.append(first)
	if first.Intents[0].Twin != nil {
		x.t.Errorf("the first with a key has the twin %+v", first.Intents[0].Twin)
	}
	second := batch(otherLane, 0, 100, 10, 20, 30, 40, 50)
	for i := range second.Intents {
		second.Intents[i].BusinessKey, second.Intents[i].Body = "charge:1", []byte("a")
	}
	second.Intents[1].Body = []byte("b")
	second.Intents[2].Endpoint = "shipping"
	second.Intents[3].BusinessKey = "charge:2"
	second.Intents[4].ContentType = "text/plain"
	x.append(second)
	want := []*outbox.Twin{{Lane: someLane, Offset: 4, Same: true}, {Lane: someLane, Offset: 4}, nil, nil, {Lane: someLane, Offset: 4}}
	read := x.all(otherLane)
	for i := range want {
		x.equal(second.Intents[i].Twin, want[i], fmt.Sprintf("twin %d of the batch", i))
		x.equal(read[i].Twin, want[i], fmt.Sprintf("twin %d as it is read", i))
	}

	// A batch that is not added takes no key.
	late := batch(otherLane, 0, 100, 60)
	late.Intents[0].BusinessKey = "charge:3"
	x.want(x.store.Append(ctx, late), outbox.ErrOvertaken, "a late batch")
	after := batch(otherLane, 100, 110, 100)
	after.Intents[0].BusinessKey = "charge:3"
	// Nor does it matter what a failed attempt has left in the batch.
	after.Intents[0].Twin = &outbox.Twin{Lane: 1, Offset: 1}
	x.append(after)
	if twin := after.Intents[0].Twin; twin != nil {
		x.t.Errorf("a batch that was refused took the key: %+v", twin)
	}
}

func twinsWithin(x *exercise) {
	x.must(x.store.Seed(x.t.Context(), someLane, topicID, 0))
	b := batch(someLane, 0, 500)
	for offset := range int64(400) {
		intent := at(someLane, offset)
		intent.BusinessKey, intent.Body = fmt.Sprint("charge:", offset%200), []byte("same")
		b.Intents = append(b.Intents, intent)
	}
	x.append(b)
	for i, intent := range x.all(someLane) {
		var want *outbox.Twin
		if i >= 200 {
			want = &outbox.Twin{Lane: someLane, Offset: int64(i - 200), Same: true}
		}
		x.equal(intent.Twin, want, fmt.Sprint("twin of ", i))
		x.equal(b.Intents[i].Twin, want, fmt.Sprint("twin of ", i, " in the batch"))
	}
}
