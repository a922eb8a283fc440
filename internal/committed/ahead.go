package committed

import (
	"sort"

	"github.com/twmb/franz-go/pkg/kgo"
)

// ahead is all markers of a stretch of the log, which was read before its records will be.
type ahead struct {
	from, to int64
	markers  map[int64][]end // by producer, in order of offsets
}

// end is a marker.
type end struct {
	offset int64
	aborts bool
}

// note takes a record of the stretch.
func (a *ahead) note(r *kgo.Record) {
	a.to = r.Offset + 1
	if aborts, ends := marker(r); ends {
		a.markers[r.ProducerID] = append(a.markers[r.ProducerID], end{r.Offset, aborts})
	}
}

// decides reports that the stretch has the marker of what a producer wrote at an offset.
func (a *ahead) decides(producer, offset int64) bool {
	_, found := a.find(producer, offset)
	return found
}

// fateOf knows records of the stretch whose marker is in it too.
func (a *ahead) fateOf(r *kgo.Record) *fate {
	if end, found := a.find(r.ProducerID, r.Offset); found {
		return &fate{decided: true, aborted: end.aborts}
	}
	return nil
}

func (a *ahead) find(producer, offset int64) (end, bool) {
	ends := a.markers[producer]
	n := sort.Search(len(ends), func(n int) bool { return ends[n].offset > offset })
	if n == len(ends) {
		return end{}, false
	}
	return ends[n], true
}
