package message_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"pawl/internal/message"
)

// entries lists what a span of a batch holds, as text.
func entries(b *message.Batch, from, to, outs, effects int) (got []string, outsEnd, effectsEnd int) {
	outsEnd, effectsEnd = b.Walk(from, to, outs, effects, func(e message.Entry) {
		switch {
		case e.Out != nil && e.Effect == nil:
			got = append(got, fmt.Sprintf("%d out %s", e.Index, e.Out.Value))
		case e.Effect != nil && e.Out == nil:
			got = append(got, fmt.Sprintf("%d effect %s", e.Index, e.Effect.Body))
		default:
			got = append(got, "neither or both")
		}
	})
	return got, outsEnd, effectsEnd
}

func TestBatchKeepsTheOrderOfTheCalls(t *testing.T) {
	t.Parallel()
	var b message.Batch
	b.Emit(message.Out{Value: []byte("a")})
	b.Call(message.Effect{Body: []byte("b")})
	b.Emit(message.Out{Value: []byte("c")})
	got, outs, effects := entries(&b, 0, b.Len(), 0, 0)
	if want := []string{"0 out a", "1 effect b", "2 out c"}; !slices.Equal(got, want) || outs != 2 || effects != 1 {
		t.Errorf("walked %q to %d and %d, want %q to 2 and 1", got, outs, effects, want)
	}
	if len(b.Outs()) != 2 || len(b.Effects()) != 1 {
		t.Errorf("%d outputs and %d effects, want 2 and 1", len(b.Outs()), len(b.Effects()))
	}
}

// Many inputs share one batch. Some of them are taken back half way; what the others asked for must
// be theirs, at their own indexes, whatever came before. The model keeps one list for each input.
func TestBatchGivesEachInputWhatItAskedFor(t *testing.T) {
	t.Parallel()
	type span struct{ from, to, outs, effects int }
	rapid.Check(t, func(t *rapid.T) {
		var b message.Batch
		for range rapid.IntRange(1, 3).Draw(t, "rounds") {
			b.Reset()
			if b.Len() != 0 || len(b.Outs()) != 0 || len(b.Effects()) != 0 {
				t.Fatal("something is left after Reset")
			}
			var spans []span
			var want [][]string
			for input := range rapid.IntRange(0, 10).Draw(t, "inputs") {
				s := span{from: b.Len(), outs: len(b.Outs()), effects: len(b.Effects())}
				var asked []string
				for i := range rapid.IntRange(0, 6).Draw(t, "entries") {
					text := fmt.Appendf(nil, "%d.%d", input, i)
					if rapid.Bool().Draw(t, "effect") {
						b.Call(message.Effect{Body: text})
						asked = append(asked, fmt.Sprintf("%d effect %s", i, text))
					} else {
						b.Emit(message.Out{Value: text})
						asked = append(asked, fmt.Sprintf("%d out %s", i, text))
					}
				}
				if rapid.Bool().Draw(t, "rejected") {
					keep := rapid.IntRange(0, len(asked)).Draw(t, "kept")
					b.Truncate(s.from + keep)
					asked = asked[:keep]
				}
				s.to = b.Len()
				spans, want = append(spans, s), append(want, asked)
			}
			for i, s := range spans {
				got, outs, effects := entries(&b, s.from, s.to, s.outs, s.effects)
				if !slices.Equal(got, want[i]) {
					t.Fatalf("input %d asked for %q, got %q", i, want[i], got)
				}
				if i+1 < len(spans) && (outs != spans[i+1].outs || effects != spans[i+1].effects) {
					t.Fatalf("after input %d the cursors are %d and %d, want %d and %d", i, outs, effects, spans[i+1].outs, spans[i+1].effects)
				}
			}
		}
	})
}

// A batch lives as long as its lane: what it held must not be kept from the collector.
func TestResetForgetsWhatWasAsked(t *testing.T) {
	t.Parallel()
	var b message.Batch
	b.Emit(message.Out{Value: []byte("payload")})
	b.Call(message.Effect{Body: []byte("payload")})
	outs, effects := b.Outs(), b.Effects()
	b.Reset()
	if outs[0].Value != nil || effects[0].Body != nil {
		t.Error("a payload is still referenced after Reset")
	}
}
