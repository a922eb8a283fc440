package handlers

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"pawl/internal/message"
)

// every shipped handler with settings that switch all of its features on.
func every(tb testing.TB) map[string]Handler {
	tb.Helper()
	return map[string]Handler{
		"copy":          mustNew(tb, "copy", map[string]any{"output": "priced"}),
		"orders":        mustNew(tb, "orders", map[string]any{"review": "review", "review_above": map[string]any{"EUR": 100}}),
		"order-results": mustNew(tb, "order-results", map[string]any{"void": "refunds"}),
	}
}

// handleTwice runs a record through a handler, as an attempt that is aborted and the one after it,
// with another record in between, and demands the same bytes.
func handleTwice(tb testing.TB, name string, handler Handler, in message.In) {
	tb.Helper()
	var first, second message.Batch
	value := slices.Clone(in.Value)
	err := handler.Handle(in, &first)
	want, wantReason := render(&first), reason(tb, err)
	handler.Handle(record([]byte(orderWith("o-1", "other"))), new(message.Batch)) //nolint:errcheck // only there to disturb
	in.Value = slices.Clone(value)
	err = handler.Handle(in, &second)
	if got := render(&second); got != want || reason(tb, err) != wantReason {
		tb.Fatalf("%s is not pure: first attempt %q\n%s\nsecond attempt %v\n%s", name, wantReason, want, err, got)
	}
	if !slices.Equal(in.Value, value) {
		tb.Fatalf("%s changed its input", name)
	}
	if render(&first) != want {
		tb.Fatalf("%s changed what it had asked for in the first attempt", name)
	}
	for _, out := range second.Outs() {
		if !slices.Contains(outputs(), out.Output) {
			tb.Fatalf("%s emits to %q", name, out.Output)
		}
	}
	for _, effect := range second.Effects() {
		if !slices.Contains(endpoints(), effect.Endpoint) {
			tb.Fatalf("%s calls %q", name, effect.Endpoint)
		}
	}
	if err != nil && second.Len() != 0 {
		tb.Fatalf("%s rejects and asks for %d entries", name, second.Len())
	}
}

func TestReplayedRecordsGiveTheSameBytes(t *testing.T) {
	t.Parallel()
	handlers := every(t)
	charge := chargeOf(t)
	rapid.Check(t, func(rt *rapid.T) {
		in := message.In{
			Source:    message.Source{Topic: "orders", Partition: rapid.Int32Min(0).Draw(rt, "partition"), Offset: rapid.Int64Min(0).Draw(rt, "offset")},
			Key:       rapid.SliceOf(rapid.Byte()).Draw(rt, "key"),
			Timestamp: time.UnixMilli(rapid.Int64Range(-1e12, 1e13).Draw(rt, "timestamp")),
		}
		switch rapid.IntRange(0, 3).Draw(rt, "sort") {
		case 0:
			in.Value = drawOrder(rt, "o-1")
		case 1:
			status := rapid.SampledFrom([]string{"done", "dead", "unknown", "duplicate", "conflict", "lost"}).Draw(rt, "status")
			in.Value = resultEvent(charge, status, rapid.IntRange(0, 599).Draw(rt, "http status"))
		case 2: // a valid order with a few bytes of damage
			in.Value = drawOrder(rt, "o-1")
			for range rapid.IntRange(1, 4).Draw(rt, "damages") {
				in.Value[rapid.IntRange(0, len(in.Value)-1).Draw(rt, "at")] = rapid.Byte().Draw(rt, "byte")
			}
		default:
			in.Value = rapid.SliceOf(rapid.Byte()).Draw(rt, "value")
		}
		for name, handler := range handlers {
			handleTwice(t, name, handler, in)
		}
	})
}

// Whatever a record holds, no handler panics, an error has a reason from the closed set, entries
// name configured outputs and endpoints, and a second attempt gives the same bytes.
func FuzzHandlers(f *testing.F) {
	for _, test := range append(orderRejects(), resultRejects(f)...) {
		if len(test.value) < 1<<16 {
			f.Add([]byte(test.value))
		}
	}
	for _, file := range []string{"three-lines", "yen", "dinar", "review", "approved"} {
		f.Add(readFile(f, "testdata/orders/"+file+".json"))
	}
	for _, status := range []string{"done", "dead", "unknown", "duplicate", "conflict"} {
		f.Add(resultEvent(chargeOf(f), status, 402))
	}
	handlers := every(f)
	f.Fuzz(func(t *testing.T, value []byte) {
		for name, handler := range handlers {
			handleTwice(t, name, handler, record(value))
		}
	})
}
