package txn

import (
	"errors"
	"maps"
	"math/bits"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// bisectModel is a lane that runs over logs of which some records are deadly. It has no client and no
// time: only what bisect decides.
type bisectModel struct {
	t       *rapid.T
	b       bisect
	max     int             // records per batch
	next    map[place]int64 // committed
	ends    map[place]int64 // of the logs
	deadly  map[spot]bool   // by the generator
	letters map[spot]int    // dead letters written
	aborts  int             // told
	commits int
}

// poll takes up to the limit from the partitions, in an order that chance decides.
func (m *bisectModel) poll() []spot {
	limit := m.max
	if m.b.limit > 0 {
		limit = min(limit, m.b.limit)
	}
	var batch []spot
	places := slices.SortedFunc(maps.Keys(m.ends), func(a, b place) int { return int(a.partition) - int(b.partition) })
	for _, i := range rapid.Permutation(numbersTo(len(places))).Draw(m.t, "order") {
		at := places[i]
		for offset := m.next[at]; offset < m.ends[at] && len(batch) < limit; offset++ {
			batch = append(batch, spot{at, offset})
		}
	}
	return batch
}

func numbersTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// run is one transaction.
func (m *bisectModel) run(batch []spot) {
	ends := map[place]int64{}
	harm := false
	for _, s := range batch {
		ends[s.place] = s.offset + 1
		_, known := m.b.poison[s]
		harm = harm || m.deadly[s] && !known
	}
	if harm {
		m.aborts++
		var only spot
		if len(batch) == 1 {
			only = batch[0]
		}
		if m.b.aborted(len(batch), only, ends, errors.New("harm")) {
			m.t.Fatalf("hopeless at %v, although its dead letter can be written", only)
		}
		return
	}
	m.commits++
	for _, s := range batch {
		if _, known := m.b.poison[s]; known {
			m.letters[s]++
		}
	}
	maps.Copy(m.next, ends)
	m.b.committed(ends)
}

func (m *bisectModel) left() (n int64) {
	for at, end := range m.ends {
		n += end - m.next[at]
	}
	return n
}

func newBisectModel(t *rapid.T, partitions int) *bisectModel {
	m := &bisectModel{
		t: t, max: rapid.IntRange(1, 300).Draw(t, "max"),
		next: map[place]int64{}, ends: map[place]int64{}, deadly: map[spot]bool{}, letters: map[spot]int{},
	}
	for p := range int32(partitions) {
		at := place{"in", p}
		m.ends[at] = rapid.Int64Range(0, 1000).Draw(t, "records")
		if m.ends[at] == 0 {
			continue
		}
		for range rapid.IntRange(0, 4).Draw(t, "deadly") {
			m.deadly[spot{at, rapid.Int64Range(0, m.ends[at]-1).Draw(t, "offset")}] = true
		}
	}
	return m
}

// Whatever harms a batch is found, nothing else is, each in O(log n) aborts. In between an outage
// aborts as it likes, untold, and convicts nobody.
func TestBisectConvictsExactlyTheDeadly(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newBisectModel(t, rapid.IntRange(1, 4).Draw(t, "partitions"))
		log := bits.Len(uint(m.max))
		for m.left() > 0 {
			batch := m.poll()
			if len(batch) == 0 {
				t.Fatalf("nothing is polled, %d records are left, limit %d", m.left(), m.b.limit)
			}
			if rapid.IntRange(0, 9).Draw(t, "outage") == 0 {
				continue // the same input comes again
			}
			m.run(batch)
			if most := len(m.deadly) * (countedMax + log); m.aborts > most {
				t.Fatalf("%d aborts for %d deadly records in batches of %d, want at most %d", m.aborts, len(m.deadly), m.max, most)
			}
		}
		for s, n := range m.letters {
			if !m.deadly[s] || n != 1 {
				t.Errorf("%v, deadly %t, has %d dead letters", s, m.deadly[s], n)
			}
		}
		if len(m.letters) != len(m.deadly) {
			t.Errorf("%d of %d deadly records were found", len(m.letters), len(m.deadly))
		}
		if len(m.deadly) == 0 && (m.aborts > 0 || m.b.counted > 0) {
			t.Error("suspicion without a counted abort")
		}
	})
}

// While partitions come and go the hunt may begin again, but it convicts nobody else.
func TestBisectOfMovingPartitionsConvictsNoInnocent(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newBisectModel(t, 3)
		for moves := 20; m.left() > 0; {
			m.run(m.poll())
			if moves > 0 && rapid.IntRange(0, 4).Draw(t, "move") == 0 {
				moves--
				m.b.drop(map[string][]int32{"in": {rapid.Int32Range(0, 2).Draw(t, "gone")}})
			}
		}
		for s := range m.letters {
			if !m.deadly[s] {
				t.Errorf("%v is innocent", s)
			}
		}
		if len(m.letters) != len(m.deadly) {
			t.Errorf("%d of %d deadly records were found", len(m.letters), len(m.deadly))
		}
	})
}

// When the suspects are behind us, all is as before.
func TestBisectForgetsOnceTheSuspectsAreCommitted(t *testing.T) {
	t.Parallel()
	at, other := place{"in", 0}, place{"in", 1}
	var b bisect
	for range countedMax {
		b.aborted(64, spot{}, map[place]int64{at: 50, other: 14}, errors.New("harm"))
	}
	if b.limit != 32 {
		t.Fatalf("after %d aborts of 64 records the limit is %d, want 32", countedMax, b.limit)
	}
	b.committed(map[place]int64{at: 32, {"in", 2}: 1000})
	if b.limit != 32 {
		t.Errorf("after a commit of innocents the limit is %d, want 32 until the aborted batch is behind us", b.limit)
	}
	b.aborted(32, spot{}, map[place]int64{at: 50, other: 14}, errors.New("harm"))
	b.aborted(16, spot{}, map[place]int64{at: 48}, errors.New("harm"))
	b.committed(map[place]int64{at: 48})
	if b.limit != 16 || b.counted == 0 {
		t.Errorf("with the aborted batch behind us the limit is %d and the count %d, want 16 and the suspicion kept", b.limit, b.counted)
	}
	b.committed(map[place]int64{at: 60})
	if b.counted == 0 {
		t.Error("the suspects of the other partition are forgotten before they are committed")
	}
	for range 100 {
		b.committed(map[place]int64{at: 1000})
	}
	if b.limit != 64 {
		t.Errorf("the limit grew to %d, want no more than the 64 it began with", b.limit)
	}
	b.committed(map[place]int64{other: 14})
	if b.counted != 0 || b.limit != 0 || b.poison != nil {
		t.Errorf("left behind: %+v", b)
	}
}

func TestBisectCountsBeforeItShrinks(t *testing.T) {
	t.Parallel()
	var b bisect
	ends := map[place]int64{{"in", 0}: 100}
	for i := 1; i < countedMax; i++ {
		if b.aborted(100, spot{}, ends, errors.New("harm")); b.limit != 0 {
			t.Fatalf("the batch is shrunk after abort %d, want %d aborts first", i, countedMax)
		}
	}
	// A record alone in its batch is not convicted sooner.
	var lone bisect
	only := spot{place{"in", 0}, 7}
	for range countedMax - 1 {
		lone.aborted(1, only, ends, errors.New("harm"))
	}
	if len(lone.poison) != 0 {
		t.Errorf("convicted after %d aborts, want %d", countedMax-1, countedMax)
	}
	lone.aborted(1, only, ends, errors.New("harm"))
	if _, guilty := lone.poison[only]; !guilty {
		t.Errorf("not convicted after %d aborts alone", countedMax)
	}
	if !lone.aborted(1, only, ends, errors.New("its dead letter is refused")) {
		t.Error("a record whose dead letter is refused too is not given up: an endless redo")
	}
}

// After process deaths each further try costs a process: one record at a time, and no doubling
// until the suspects are behind us.
func TestBisectAfterDeathsRunsOneByOne(t *testing.T) {
	t.Parallel()
	at := place{"in", 0}
	var b bisect
	b.died(at, 10)
	for next := int64(1); next < 10; next++ {
		if b.limit != 1 {
			t.Fatalf("at offset %d the limit is %d, want 1", next, b.limit)
		}
		b.committed(map[place]int64{at: next})
	}
	b.committed(map[place]int64{at: 10})
	if b.limit != 0 || b.counted != 0 {
		t.Errorf("left behind: %+v", b)
	}
}
