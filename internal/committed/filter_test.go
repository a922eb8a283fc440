package committed

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// scribe writes a partition.
type scribe struct {
	records []*kgo.Record
}

func (s *scribe) write(producer int64, attrs kgo.RecordAttrsOpts, key []byte) {
	s.records = append(s.records, &kgo.Record{
		Offset: int64(len(s.records)), ProducerID: producer, Attrs: kgo.NewRecordAttrs(attrs), Key: key, Value: make([]byte, 10),
	})
}

func (s *scribe) data(producer int64) {
	s.write(producer, kgo.RecordAttrsOpts{Transactional: true}, []byte("k"))
}

func (s *scribe) plain() { s.write(-1, kgo.RecordAttrsOpts{}, []byte("k")) }

func (s *scribe) end(producer int64, how kmsg.ControlRecordKeyType) {
	key := kmsg.ControlRecordKey{Type: how}
	s.write(producer, kgo.RecordAttrsOpts{Transactional: true, Control: true}, key.AppendTo(nil))
}

func (s *scribe) commit(producer int64) { s.end(producer, kmsg.ControlRecordKeyTypeCommit) }
func (s *scribe) abort(producer int64)  { s.end(producer, kmsg.ControlRecordKeyTypeAbort) }

// positions are the offsets of records that are not control records.
func positions(records []*kgo.Record) []int64 {
	offsets := []int64{}
	for _, r := range records {
		if !r.Attrs.IsControl() {
			offsets = append(offsets, r.Offset)
		}
	}
	return offsets
}

// One record at a time: what comes out with each.
func TestRecordsPassWithTheirMarker(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		write    func(s *scribe)
		want     [][]int64 // by record that is added
		unlisted int64
	}{
		"committed":        {func(s *scribe) { s.data(1); s.data(1); s.commit(1) }, [][]int64{{}, {}, {0, 1}}, 0},
		"aborted":          {func(s *scribe) { s.data(1); s.data(1); s.abort(1) }, [][]int64{{}, {}, {}}, 2},
		"no transaction":   {func(s *scribe) { s.plain(); s.plain() }, [][]int64{{0}, {1}}, 0},
		"behind one":       {func(s *scribe) { s.data(1); s.plain(); s.data(2); s.commit(2); s.abort(1) }, [][]int64{{}, {}, {}, {}, {1, 2}}, 1},
		"aborted and anew": {func(s *scribe) { s.data(1); s.abort(1); s.data(1); s.commit(1) }, [][]int64{{}, {}, {}, {2}}, 1},
		"twice a marker":   {func(s *scribe) { s.data(1); s.abort(1); s.abort(1); s.data(1); s.commit(1) }, [][]int64{{}, {}, {}, {}, {3}}, 1},
		"another's marker": {func(s *scribe) { s.data(1); s.commit(2); s.commit(1) }, [][]int64{{}, {}, {0}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := scribe{}
			test.write(&s)
			var f Filter
			for n, r := range s.records {
				if got := positions(f.Add([]*kgo.Record{r})); !slices.Equal(got, test.want[n]) {
					t.Errorf("with offset %d came %v, want %v", n, got, test.want[n])
				}
			}
			if f.Unlisted() != test.unlisted {
				t.Errorf("%d records were not committed, want %d", f.Unlisted(), test.unlisted)
			}
			if f.WaitsBelow(1 << 40) {
				t.Error("something waits at the end")
			}
		})
	}
}

// random writes a partition to which some producers write at once, and tells which offsets are committed.
func random(t *testing.T, chance *rand.Rand, length int) (records []*kgo.Record, committed []int64) {
	t.Helper()
	s := scribe{}
	open := map[int64][]int64{}
	for len(s.records) < length {
		producer, at := int64(chance.IntN(4)), int64(len(s.records))
		switch {
		case chance.IntN(8) == 0:
			s.plain()
			committed = append(committed, at)
		case chance.IntN(6) > 0:
			s.data(producer)
			open[producer] = append(open[producer], at)
		case chance.IntN(2) == 0:
			s.commit(producer)
			committed = append(committed, open[producer]...)
			delete(open, producer)
		default:
			s.abort(producer)
			delete(open, producer)
		}
	}
	for producer := range int64(4) {
		s.commit(producer)
		committed = append(committed, open[producer]...)
	}
	slices.Sort(committed)
	return s.records, committed
}

// Whatever the sizes of the answers, however little the filter may hold, and where ever the reader begins anew: each
// committed record comes once and in order, and no other.
func TestRandomLogsComeOutAsTheirMarkersSay(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	chance := rand.New(rand.NewPCG(seed, 0))
	lost, restarts := 0, 0
	for range 100 {
		records, want := random(t, chance, 20+chance.IntN(200))
		f := Filter{most: 1 + chance.IntN(40*recordBytes)}
		got, stands := []int64{}, int64(0) // behind the last that came out: what a reader has written down
		for at, left := 0, 3; at < len(records); {
			to := min(len(records), at+1+chance.IntN(20))
			for _, offset := range positions(f.Add(records[at:to])) {
				if offset >= stands { // else the reader began before what it had
					got, stands = append(got, offset), offset+1
				}
			}
			at = to
			if from, again := f.Again(); again {
				at = int(from)
				lost++
			} else if left > 0 && chance.IntN(20) == 0 {
				at = int(stands) - chance.IntN(min(int(stands), 5)+1)
				f.Restart()
				left--
				restarts++
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: came out %v, want %v", seed, got, want)
		}
	}
	if lost == 0 || restarts == 0 {
		t.Errorf("seed %d: %d times too much waited, %d times the reader began anew: nothing was shown", seed, lost, restarts)
	}
}

func TestFilterHoldsNoMoreThanItMay(t *testing.T) {
	t.Parallel()
	const most = 100 * recordBytes
	s := scribe{}
	for range 1000 {
		s.data(1)
	}
	s.commit(1)
	f := Filter{most: most}
	for _, r := range s.records[:1000] {
		if came := f.Add([]*kgo.Record{r}); len(came) > 0 || f.bytes > most {
			t.Fatalf("with offset %d came %v, and %d bytes wait", r.Offset, positions(came), f.bytes)
		}
	}
	if _, again := f.Again(); again {
		t.Error("wants to read again before the marker was seen")
	}
	if !f.WaitsBelow(1) || f.WaitsBelow(0) {
		t.Error("the first record is not said to wait")
	}
	f.Add(s.records[1000:])
	if from, again := f.Again(); !again || from != 0 {
		t.Fatalf("wants to read again from %d: %v", from, again)
	}
	for n, r := range s.records {
		if came := f.Add([]*kgo.Record{r}); len(came) != 1 || came[0].Offset != int64(n) {
			t.Fatalf("with offset %d came %v although its marker is known", n, positions(came))
		}
	}
}

func BenchmarkFilter(b *testing.B) {
	s := scribe{}
	for len(s.records) < 10_000 {
		for range 99 {
			s.data(1)
		}
		s.commit(1)
	}
	var f Filter
	for b.Loop() {
		for chunk := range slices.Chunk(s.records, 1000) {
			f.Add(chunk)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(s.records)), "ns/record")
}
