package outbox

import "slices"

// Range is the offsets from From up to, not including, To.
type Range struct{ From, To int64 }

// Ranges is a set of offsets: ascending ranges that neither overlap nor touch.
type Ranges []Range

// Add returns the set with the offsets of a range added. It may reuse the memory of r.
func (r Ranges) Add(from, to int64) Ranges {
	if from >= to {
		return r
	}
	// first is the first range that reaches from, after the first that begins beyond to.
	first, _ := slices.BinarySearchFunc(r, from, func(have Range, at int64) int {
		if have.To < at {
			return -1
		}
		return 1
	})
	after := first
	for after < len(r) && r[after].From <= to {
		from, to = min(from, r[after].From), max(to, r[after].To)
		after++
	}
	return slices.Replace(r, first, after, Range{from, to})
}

// Contains reports whether an offset is in the set.
func (r Ranges) Contains(offset int64) bool {
	_, found := r.find(offset)
	return found
}

// Overlaps reports whether an offset of a range is in the set.
func (r Ranges) Overlaps(from, to int64) bool {
	if i, found := r.find(from); !found {
		return i < len(r) && r[i].From < to
	}
	return from < to
}

// After returns the first offset at or above offset that is not in the set.
func (r Ranges) After(offset int64) int64 {
	if i, found := r.find(offset); found {
		return r[i].To
	}
	return offset
}

// find returns the range that holds offset.
func (r Ranges) find(offset int64) (int, bool) {
	return slices.BinarySearchFunc(r, offset, func(have Range, at int64) int {
		switch {
		case have.To <= at:
			return -1
		case have.From > at:
			return 1
		default:
			return 0
		}
	})
}
