package dispatch

// window knows, of every intent of a lane from the low mark up to where the lane has read, whether
// its fate is written down. It holds offsets only, no intents.
//
// A position counts the intents that were ever added; it stays valid when the front moves.
type window struct {
	places []place
	first  int64 // position of places[0]
	edge   int64 // one above the last intent that left at the front; there is no intent in between
	next   int64 // everything below has been added
}

type place struct {
	offset int64
	noted  bool // settled or parked by a flush, at the latest by the one that is being made
}

func newWindow(from int64) window { return window{edge: from, next: from} }

// add takes the next intent in; its offset is at or above next.
func (w *window) add(offset int64, noted bool) (position int64) {
	w.places = append(w.places, place{offset, noted})
	w.next = offset + 1
	return w.first + int64(len(w.places)) - 1
}

// span counts the intents from the low mark on.
func (w *window) span() int { return len(w.places) }

// note marks an intent as written down. One that has left already is none of its business.
func (w *window) note(position int64) {
	if position >= w.first {
		w.places[position-w.first].noted = true
	}
}

// gap is where the hole below an intent begins: between gap and its offset there is no intent. For an
// intent that has left it is its own offset.
func (w *window) gap(position, offset int64) int64 {
	switch {
	case position < w.first:
		return offset
	case position == w.first:
		return min(w.edge, offset)
	default:
		return w.places[position-w.first-1].offset + 1
	}
}

// low moves the front past what is written down and returns the low mark.
func (w *window) low() int64 {
	n := 0
	for n < len(w.places) && w.places[n].noted {
		n++
	}
	if n > 0 {
		w.edge = w.places[n-1].offset + 1
		w.first += int64(n)
		w.places = w.places[n:]
	}
	if len(w.places) > 0 {
		return w.places[0].offset
	}
	return w.next
}
