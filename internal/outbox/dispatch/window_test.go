package dispatch

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The window is held against a plain list of all intents there ever were.
func TestWindowKnowsTheLowMarkAndTheGaps(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		type intent struct {
			offset, position int64
			noted            bool
		}
		from := rapid.Int64Range(0, 5).Draw(t, "from")
		w := newWindow(from)
		var all []intent
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				offset := w.next + rapid.Int64Range(0, 3).Draw(t, "hole")
				noted := rapid.Bool().Draw(t, "noted already")
				all = append(all, intent{offset, w.add(offset, noted), noted})
			case 2:
				w.next += rapid.Int64Range(0, 3).Draw(t, "nothing")
			default:
				if len(all) > 0 {
					i := rapid.IntRange(0, len(all)-1).Draw(t, "which")
					all[i].noted = true
					w.note(all[i].position)
				}
			}
			want, left := w.next, 0
			for i, one := range slices.Backward(all) {
				if !one.noted {
					want, left = one.offset, len(all)-i
				}
			}
			if got := w.low(); got != want || w.span() != left {
				t.Fatalf("low is %d with %d from there on, want %d and %d: %+v", got, w.span(), want, left, all)
			}
			for i, one := range all {
				gap := w.gap(one.position, one.offset)
				lowest := from
				if i > 0 {
					lowest = all[i-1].offset + 1
				}
				if gap < lowest || gap > one.offset {
					t.Fatalf("the gap below %d begins at %d, want between %d and it: %+v", one.offset, gap, lowest, all)
				}
				if one.position >= w.first && gap != lowest {
					t.Fatalf("the gap below %d begins at %d, want %d: %+v", one.offset, gap, lowest, all)
				}
			}
		}
	})
}
