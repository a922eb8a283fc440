package txn

import (
	"testing"

	"pgregory.net/rapid"
)

// No two parts share memory, none can grow into the next, and all is zero again after a reset.
func TestSlabPartsAreApart(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := slab[int]{size: rapid.IntRange(1, 64).Draw(t, "size")}
		mark := 0
		for range rapid.IntRange(1, 5).Draw(t, "rounds") {
			var parts [][]int
			var marks []int
			for range rapid.IntRange(0, 40).Draw(t, "parts") {
				n := rapid.IntRange(0, 100).Draw(t, "n")
				part := s.take(n)
				if len(part) != n || cap(part) != n {
					t.Fatalf("took %d, got length %d and capacity %d", n, len(part), cap(part))
				}
				for i, v := range part {
					if v != 0 {
						t.Fatalf("element %d of a new part is %d, want 0", i, v)
					}
				}
				mark++
				for i := range part {
					part[i] = mark
				}
				_ = append(part, -1) // must go elsewhere
				parts, marks = append(parts, part), append(marks, mark)
			}
			for i, part := range parts {
				for _, v := range part {
					if v != marks[i] {
						t.Fatalf("part %d holds %d, want its own mark %d", i, v, marks[i])
					}
				}
			}
			s.reset()
		}
	})
}

// The same work in every round needs the same memory, whatever large part came in between: a lane
// that sees a record with thousands of headers in every batch must not grow by it.
func TestSlabDoesNotGrowOverTime(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := slab[byte]{size: rapid.IntRange(1, 256).Draw(t, "size")}
		sizes := rapid.SliceOfN(rapid.IntRange(0, 300), 1, 50).Draw(t, "sizes")
		held := func() (n int) {
			for _, chunk := range s.chunks {
				n += len(chunk)
			}
			return n
		}
		var first int
		for round := range 20 {
			if rapid.IntRange(0, 3).Draw(t, "large") == 0 {
				s.take(10_000)
			}
			for _, n := range sizes {
				s.take(n)
			}
			s.reset()
			if round == 0 {
				first = held()
			}
			if got := held(); got != first {
				t.Fatalf("after round %d %d bytes are held, after the first it were %d", round, got, first)
			}
		}
	})
}

// What is no longer used must not keep payloads from the collector.
func TestSlabForgetsWhatItHeld(t *testing.T) {
	t.Parallel()
	s := slab[*int]{size: 4}
	var parts [][]*int
	for i := range 10 {
		part := s.take(1 + i%4)
		for i := range part {
			part[i] = new(int)
		}
		parts = append(parts, part)
	}
	s.reset()
	for _, part := range parts {
		for i, p := range part {
			if p != nil {
				t.Fatalf("element %d is still referenced", i)
			}
		}
	}
	if s.take(1); s.chunk != 0 {
		t.Error("the first chunk is not used again")
	}
}
