package outbox

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A set of ranges is held against a plain set of offsets.
func TestRangesAreASet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const most = 60
		var ranges Ranges
		var plain [most]bool
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			from := rapid.Int64Range(0, most-1).Draw(t, "from")
			to := rapid.Int64Range(0, most).Draw(t, "to")
			ranges = ranges.Add(from, to)
			for i := from; i < to; i++ {
				plain[i] = true
			}
			for i, r := range ranges {
				if r.From >= r.To || i > 0 && ranges[i-1].To >= r.From {
					t.Fatalf("%v is not ascending and apart", ranges)
				}
			}
			for offset := range int64(most) {
				if got := ranges.Contains(offset); got != plain[offset] {
					t.Fatalf("%v contains %d: %t, want %t", ranges, offset, got, plain[offset])
				}
				want := offset
				for want < most && plain[want] {
					want++
				}
				for end := offset; end <= most; end++ {
					overlap := slices.Contains(plain[offset:end], true)
					if got := ranges.Overlaps(offset, end); got != overlap {
						t.Fatalf("%v overlaps [%d, %d): %t, want %t", ranges, offset, end, got, overlap)
					}
				}
				if got := ranges.After(offset); got != want {
					t.Fatalf("after %d in %v comes %d, want %d", offset, ranges, got, want)
				}
			}
		}
	})
}
