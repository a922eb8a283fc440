// Package committed takes a record for committed when the log says so. A read_committed reader does
// not: it believes the list of aborted transactions that a broker sends along, and Kafka leaves some out.
//
// Where a follower appends several transactions at once, as one does that catches up, Kafka 4.3.1 writes into its
// index that everything was decided up to the next transaction of another producer, though a later one of the same producer
// lies between. When that follower leads, an answer that ends between the two lacks the later one, if that was aborted. So
// two transactions in a row that one producer aborts are enough, and whoever redoes what was aborted writes those.
package committed

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	heldBytesMax = 16 << 20
	recordBytes  = 256 // of a record beside its key and value, about
)

// Filter passes the records of one partition on, in the order of their offsets, once their transaction has ended
// in the log. It wants them as a read_committed reader with kgo.KeepControlRecords gives them: what the broker has
// listed as aborted never comes, so that the wait is for the marker of what is said to be committed, a few records
// on. A record behind one that waits waits too. It is as right about all that a read_uncommitted reader gives, but
// waits for what is open, too.
//
// A marker may be far away, where brokers were slow to write it. What waits is bounded: beyond heldBytesMax the filter
// lets go of it, reads on for the markers alone, and asks to be read to from there again (Again).
//
// The zero value is ready. It is for one goroutine. What is in no transaction and waits for nothing costs a look.
type Filter struct {
	held  []waiting
	open  map[int64]*fate // by producer: transactions without their marker
	bytes int
	most  int // heldBytesMax where it is 0
	out   []*kgo.Record

	ahead  ahead
	losing bool // only markers are kept, until that of the oldest producer comes
	oldest int64

	unlisted int64
}

// Bounded is a filter that holds no more than so many bytes.
func Bounded(bytes int) Filter { return Filter{most: bytes} }

// waiting is a record that waits for itself or for one before it. One without a fate is in no transaction.
type waiting struct {
	record *kgo.Record
	fate   *fate
}

// fate is what became of a transaction. Its records share it.
type fate struct{ decided, aborted bool }

// Add takes what was read next, and returns what is committed by now: control records too, whose offsets are
// positions as good as any. The slice is good until the next Add.
func (f *Filter) Add(records []*kgo.Record) []*kgo.Record {
	if len(f.held) == 0 && !f.losing && !slices.ContainsFunc(records, inTransaction) {
		return records
	}
	for _, r := range records {
		if f.losing {
			f.ahead.note(r)
			continue
		}
		f.held = append(f.held, waiting{r, f.fateOf(r)})
		f.bytes += recordBytes + len(r.Key) + len(r.Value)
	}
	f.release()
	if most := f.limit(); f.bytes > most && !f.losing {
		f.lose()
	}
	return f.out
}

// Again reports that the filter has let go of what it held, and has the marker for which it did. The next record
// that is added must be the first at or after the offset, or one before it of those that did not come out.
func (f *Filter) Again() (from int64, again bool) {
	if !f.losing || !f.ahead.decides(f.oldest, f.ahead.from) {
		return 0, false
	}
	f.losing = false
	return f.ahead.from, true
}

// Restart forgets what waits, because a reader begins elsewhere.
func (f *Filter) Restart() { *f = Filter{most: f.most, unlisted: f.unlisted} }

// WaitsBelow reports that a record below an offset waits.
func (f *Filter) WaitsBelow(offset int64) bool {
	return f.losing && f.ahead.from < offset || len(f.held) > 0 && f.held[0].record.Offset < offset
}

// Unlisted is how many records were given as committed that were not.
func (f *Filter) Unlisted() int64 { return f.unlisted }

func (f *Filter) limit() int {
	if f.most > 0 {
		return f.most
	}
	return heldBytesMax
}

// fateOf finds the transaction of a record. One of a marker ends there.
func (f *Filter) fateOf(r *kgo.Record) *fate {
	if aborts, ends := marker(r); ends {
		if open := f.open[r.ProducerID]; open != nil {
			open.decided, open.aborted = true, aborts
			delete(f.open, r.ProducerID)
		}
		return nil
	}
	if r.Attrs.IsControl() || !r.Attrs.IsTransactional() {
		return nil
	}
	if r.Offset >= f.ahead.to {
		f.ahead = ahead{} // behind us
	} else if known := f.ahead.fateOf(r); known != nil {
		return known
	}
	open := f.open[r.ProducerID]
	if open == nil {
		open = &fate{}
		if f.open == nil {
			f.open = map[int64]*fate{}
		}
		f.open[r.ProducerID] = open
	}
	return open
}

// release moves what need not wait any more to out.
func (f *Filter) release() {
	clear(f.out)
	f.out = f.out[:0]
	n := 0
	for ; n < len(f.held); n++ {
		w := f.held[n]
		if w.fate != nil && !w.fate.decided {
			break
		}
		f.bytes -= recordBytes + len(w.record.Key) + len(w.record.Value)
		if w.fate != nil && w.fate.aborted {
			f.unlisted++
			continue
		}
		f.out = append(f.out, w.record)
	}
	f.held = slices.Delete(f.held, 0, n)
}

// lose lets go of what waits and keeps the markers among it.
func (f *Filter) lose() {
	first := f.held[0].record
	f.losing, f.oldest = true, first.ProducerID
	f.ahead = ahead{from: first.Offset, markers: map[int64][]end{}}
	for _, w := range f.held {
		f.ahead.note(w.record)
	}
	f.held, f.bytes = nil, 0
	clear(f.open)
}

func inTransaction(r *kgo.Record) bool { return r.Attrs.IsTransactional() }

// marker reports whether a record ends its producer's transaction, and how.
func marker(r *kgo.Record) (aborts, ends bool) {
	var key kmsg.ControlRecordKey
	if !r.Attrs.IsControl() || key.ReadFrom(r.Key) != nil {
		return false, false
	}
	aborts = key.Type == kmsg.ControlRecordKeyTypeAbort
	return aborts, aborts || key.Type == kmsg.ControlRecordKeyTypeCommit
}
