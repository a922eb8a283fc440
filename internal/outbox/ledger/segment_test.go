package ledger

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

// someIntents makes n intents of a lane that differ in all that a record can hold.
func someIntents(random *rand.Rand, lane int32, n int) []outbox.Intent {
	pick := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	intents := make([]outbox.Intent, n)
	offset := random.Int64N(1 << 40)
	for i := range intents {
		offset += 1 + random.Int64N(3)
		intent := outbox.Intent{
			Lane: lane, Offset: offset, Index: random.IntN(3), Class: message.AtLeastOnce,
			Source: message.Source{
				Topic: pick("orders", "", "a\x00b"), TopicID: [16]byte{byte(random.IntN(2))}, Partition: random.Int32N(3),
				Offset: random.Int64N(1 << 60), ReplayGeneration: random.IntN(2),
			},
			Endpoint: pick("payments", "mail", `\x41`, "\xff"), ContentType: pick("application/json", ""),
			BusinessKey: pick("", "", "charge:1", "\x00"), Trace: pick("", "00-trace-01"),
			At:   time.UnixMicro(random.Int64N(1<<50) - 1<<49).UTC(),
			Body: make([]byte, random.IntN(300)),
		}
		if intent.Trace != "" {
			intent.TraceState = pick("", "a=1,b=2", "a=1, b=2")
		}
		for k := range intent.ID {
			intent.ID[k] = byte(random.Uint32())
		}
		if random.IntN(4) > 0 {
			intent.Key = make([]byte, random.IntN(3))
		}
		if random.IntN(4) == 0 {
			intent.Class = message.AtMostOnce
		}
		if random.IntN(4) == 0 {
			intent.Twin = &outbox.Twin{Lane: random.Int32N(9), Offset: random.Int64N(99), Same: random.IntN(2) == 0}
		}
		if random.IntN(50) == 0 {
			intent.Body = make([]byte, segmentMax+random.IntN(100_000))
		}
		intents[i] = intent
	}
	return intents
}

func unpack(t *testing.T, segments []segment, lane int32, from int64) (intents []outbox.Intent) {
	t.Helper()
	var err error
	for i := range segments {
		if intents, err = segments[i].appendIntents(intents, lane, from); err != nil {
			t.Fatal(err)
		}
	}
	return intents
}

func TestSegmentsHoldWhatWasPutIntoThem(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, n := range []int{0, 1, 2, 100, 1000} {
		intents := someIntents(random, 3, n)
		segments := pack(intents)
		if diff := cmp.Diff(intents, append([]outbox.Intent{}, unpack(t, segments, 3, 0)...)); diff != "" {
			t.Fatalf("%d effects: %s", n, diff)
		}
		if n > 0 {
			from := intents[n/2].Offset
			if got := unpack(t, segments, 3, from); len(got) != n-n/2 || got[0].Offset != from {
				t.Errorf("%d of %d effects from %d on", len(got), n, from)
			}
		}
		last := int64(-1)
		for _, s := range segments {
			if s.first <= last || s.last < s.first {
				t.Errorf("a segment from %d to %d follows one to %d", s.first, s.last, last)
			}
			if len(s.effects) > segmentMax && s.n > 1 {
				t.Errorf("a segment of %d effects has %d bytes", s.n, len(s.effects))
			}
			last = s.last
		}
	}
}

func TestTotalsCountByEndpoint(t *testing.T) {
	t.Parallel()
	at := time.UnixMicro(1_700_000_000_000_000).UTC()
	intents := []outbox.Intent{
		{Offset: 1, Endpoint: "payments", At: at.Add(time.Second)},
		{Offset: 2, Endpoint: "mail", At: at.Add(time.Minute)},
		{Offset: 4, Endpoint: "payments", At: at},
		{Offset: 5, Endpoint: "payments", ContentType: "text/plain", At: at.Add(time.Hour)},
	}
	segments := pack(intents)
	if len(segments) != 1 || segments[0].n != 4 || segments[0].first != 1 || segments[0].last != 5 {
		t.Fatalf("segments are %+v", segments)
	}
	type total struct {
		N     int64
		Since time.Time
	}
	got := map[string]total{}
	if err := readTotals(segments[0].totals, func(endpoint string, n int64, since time.Time) {
		have, is := got[endpoint]
		if is && have.Since.Before(since) {
			since = have.Since
		}
		got[endpoint] = total{have.N + n, since}
	}); err != nil {
		t.Fatal(err)
	}
	want := map[string]total{"payments": {3, at}, "mail": {1, at.Add(time.Minute)}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A segment that is not whole, or of a newer release, must never be read as something else.
func TestSegmentsThatAreDamagedAreRefused(t *testing.T) {
	t.Parallel()
	whole := pack(someIntents(rand.New(rand.NewPCG(1, 2)), 3, 5))[0]
	damaged := map[string]func(*segment){
		"cut":           func(s *segment) { s.effects = s.effects[:len(s.effects)-1] },
		"longer":        func(s *segment) { s.effects = append(slices.Clip(s.effects), 0) },
		"another count": func(s *segment) { s.n-- },
		"another end":   func(s *segment) { s.last++ },
		"newer":         func(s *segment) { s.effects = append([]byte{segmentFormat + 1}, s.effects[1:]...) },
		"empty":         func(s *segment) { s.effects = nil },
	}
	for name, damage := range damaged {
		s := whole
		damage(&s)
		if got, err := s.appendIntents(nil, 3, 0); err == nil {
			t.Errorf("%s: read %d effects", name, len(got))
		}
	}
	for name, totals := range map[string][]byte{"cut": whole.totals[:len(whole.totals)-1], "newer": append([]byte{segmentFormat + 1}, whole.totals[1:]...)} {
		if err := readTotals(totals, func(string, int64, time.Time) {}); err == nil {
			t.Errorf("%s totals were read", name)
		}
	}
}

func FuzzReadSegment(f *testing.F) {
	for n := range 4 {
		for _, s := range pack(someIntents(rand.New(rand.NewPCG(uint64(n), 0)), 3, n)) {
			f.Add(s.first, s.last, s.n, s.effects, s.totals)
		}
	}
	f.Fuzz(func(t *testing.T, first, last int64, n int, effects, totals []byte) {
		s := segment{first: first, last: last, n: n % 1000, effects: effects}
		intents, err := s.appendIntents(nil, 3, math.MinInt64)
		if err == nil && len(intents) != max(0, s.n) {
			t.Errorf("%d effects, want %d", len(intents), s.n)
		}
		_ = readTotals(totals, func(string, int64, time.Time) {})
	})
}

// A number that is cut to the size of a column of the view would be another one, silently.
func TestNumbersTooLargeForTheirColumnsAreRefused(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*outbox.Intent){
		func(i *outbox.Intent) { i.Index = math.MaxInt32 + 1 },
		func(i *outbox.Intent) { i.Source.ReplayGeneration = math.MaxInt32 + 1 },
		func(i *outbox.Intent) { i.Index = math.MinInt32 - 1 },
	} {
		batch := &outbox.Batch{Next: 1, Intents: make([]outbox.Intent, 1)}
		if err := checkBatch(batch); err != nil {
			t.Fatal(err)
		}
		change(&batch.Intents[0])
		if err := checkBatch(batch); err == nil {
			t.Errorf("%+v was taken", batch.Intents[0])
		}
	}
}

func BenchmarkPack(b *testing.B) {
	intents := make([]outbox.Intent, 1000)
	for i := range intents {
		intents[i] = outbox.Intent{
			Offset: int64(i), Source: message.Source{Topic: "orders", Offset: int64(i)}, Endpoint: "payments", ContentType: "text/plain",
			Key: fmt.Appendf(nil, "key-%d", i), Body: make([]byte, 200), At: time.UnixMicro(1_700_000_000_000_000 + int64(i)),
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		pack(intents)
	}
}
