package verify

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"pawl/internal/message"
)

// pieceOf holds batches of the given sizes, of records whose values and headers are their offsets.
func pieceOf(sizes ...int) piece {
	p := piece{progress: &progress{Range: Range{Topic: "t", To: 1 << 40}, open: map[int64]bool{}}}
	var offset int64
	for _, size := range sizes {
		var records []*Record
		for range size {
			text := fmt.Append(nil, offset)
			records = append(records, &Record{Offset: offset, Timestamp: noon, Value: text, Headers: []message.Header{header("n", string(text))}, Producer: -1})
			offset++
		}
		p.batches = append(p.batches, encodeBatch(records, 0))
	}
	return p
}

// sendPieces sends them one after the other.
func sendPieces(pieces ...piece) <-chan piece {
	sent := make(chan piece)
	go func() {
		defer close(sent)
		for _, p := range pieces {
			sent <- p
		}
	}()
	return sent
}

// Pages change hands while they are visited, and their memory is used again: nothing of one may be seen in another.
func TestPagesAreVisitedInOrderAndWhole(t *testing.T) {
	t.Parallel()
	sizes := []int{1, pageRecords - 1, 1, pageRecords + 1, 3, 2 * pageRecords, 7}
	var want int64
	for _, size := range sizes {
		want += int64(size)
	}
	var next int64
	err := unpack(sendPieces(pieceOf(sizes...)), Uncommitted, func() { t.Error("stopped") }, func(e *Entry) error {
		r := e.Record
		if text := strconv.FormatInt(next, 10); r.Offset != next || string(r.Value) != text || len(r.Headers) != 1 || string(r.Headers[0].Value) != text {
			return fmt.Errorf("got %+v, want that of offset %d", r, next)
		}
		next++
		return nil
	})
	if err != nil || next != want {
		t.Errorf("visited %d records, %v; want %d", next, err, want)
	}
}

// After its first error nothing is visited any more, and whoever sends is told to stop and can end.
func TestVisitorsErrorEndsTheReading(t *testing.T) {
	t.Parallel()
	enough, stops := errors.New("enough"), 0
	visited := 0
	err := unpack(sendPieces(pieceOf(5, pageRecords), pieceOf(pageRecords), pieceOf(pageRecords), pieceOf(pageRecords), pieceOf(9)), Uncommitted,
		func() { stops++ }, func(*Entry) error {
			if visited++; visited == 3 {
				return enough
			}
			return nil
		})
	if !errors.Is(err, enough) || stops != 1 || visited != 3 {
		t.Errorf("got %v after %d records and %d stops, want the visitor's error after 3 and one stop", err, visited, stops)
	}
}

// What stands before a batch that can't be unpacked is visited, nothing behind it is.
func TestBatchThatCannotBeUnpackedEndsTheReading(t *testing.T) {
	t.Parallel()
	p := pieceOf(2, 3, 4)
	p.batches[1] = p.batches[1][:len(p.batches[1])-1]
	var offsets []int64
	err := unpack(sendPieces(p, pieceOf(1)), Uncommitted, func() {}, func(e *Entry) error {
		offsets = append(offsets, e.Record.Offset)
		return nil
	})
	if !errors.Is(err, errCut) || !slices.Equal(offsets, []int64{0, 1, 2, 3}) {
		t.Errorf("got %v after offsets %v, want that the batch is cut, after 0 to 3", err, offsets)
	}
}
