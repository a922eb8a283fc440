package deadletter

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// glanced is a letter as Newest gave it.
type glanced struct {
	Letter

	behind int64
}

func (w *world) newest(q *Queue) (all []glanced, more bool) {
	w.t.Helper()
	more, err := q.Newest(w.ctx(), func(l Letter, behind int64) { all = append(all, glanced{l, behind}) })
	if err != nil {
		w.t.Fatal(err)
	}
	return all, more
}

// The end of each partition comes first, then all that stands before it, each letter once.
func TestNewestBeginsAtTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	q := w.open()
	if all, more := w.newest(q); len(all) != 0 || more {
		t.Errorf("of no letters: %v, more %v", all, more)
	}
	w.fill(60)
	w.redrive(q, func(o *RedriveOptions) { o.Filter.At = []Position{{0, 29}} })
	all, more := w.newest(q)
	if len(all) != 60 || more {
		t.Fatalf("%d letters, more %v, want 60 and no more", len(all), more)
	}
	seen := map[Position]bool{}
	for i, l := range all {
		if seen[l.Position()] || l.behind != 29-l.Offset {
			t.Errorf("%s has %d offsets behind it, seen before: %v", l.Position(), l.behind, seen[l.Position()])
		}
		seen[l.Position()] = true
		if i < 2*tailPart && l.behind >= tailPart {
			t.Errorf("%s comes at place %d", l.Position(), i)
		}
		want := StateOpen
		if l.Position() == (Position{0, 29}) {
			want = StateRedriven
		}
		if l.State != want {
			t.Errorf("%s is %s, want %s", l.Position(), l.State, want)
		}
	}
}

// A look costs no more on a topic of a million letters than on one of a few thousand.
func TestNewestReadsNoMoreThanItsLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(200)
	var fetches, below atomic.Int32
	w.cluster.ControlKey(int16(kmsg.Fetch), func(request kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		for _, topic := range request.(*kmsg.FetchRequest).Topics {
			if topic.TopicID != w.ids[letters] {
				continue
			}
			fetches.Add(1)
			if topic.Partitions[0].FetchOffset < 82 { // 4, 8 and 6 of the 100 offsets of the partition
				below.Add(1)
			}
		}
		return nil, nil, false
	})
	q := w.open()
	q.tail.offsets = 30
	all, more := w.newest(q)
	if len(all) != 30 || !more {
		t.Errorf("%d letters, more %v, want 30 and more", len(all), more)
	}
	if fetches.Load() == 0 || below.Load() != 0 {
		t.Errorf("%d of %d fetches are below what a look reads", below.Load(), fetches.Load())
	}
	q = w.open()
	q.tail.bytes = 2000
	all, more = w.newest(q)
	read := 0
	for _, l := range all[:len(all)-1] {
		read += size(w.letter(refused{source: l.Source}))
	}
	if len(all) < 2 || len(all) > 20 || read > 2000 || !more {
		t.Errorf("%d letters of %d bytes, more %v, want more, and what 2000 bytes hold", len(all), read, more)
	}
}

// What became of letters is read up to a limit; beyond it nothing is said of it, and nothing wrong.
func TestLookLeavesStatesOpenWhereTheControlTopicIsLong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(6)
	q := w.open()
	w.redrive(q)
	for limit, want := range map[int]State{6: StateRedriven, 5: StateUnknown} {
		q.notesMax = limit
		all, _ := w.newest(q)
		for _, l := range all {
			if l.State != want {
				t.Errorf("with %d notes at most, %s is %s, want %s", limit, l.Position(), l.State, want)
			}
		}
		if l, found, err := q.Find(w.ctx(), Position{1, 2}); err != nil || !found || l.State != want || string(l.Value) != "5" {
			t.Errorf("with %d notes at most, 1/2 is %s with value %q, found %v, %v", limit, l.State, l.Value, found, err)
		}
		if len(all) != 6 {
			t.Errorf("%d letters, want 6", len(all))
		}
	}
	for _, at := range []Position{{0, 3}, {7, 0}} {
		if _, found, err := q.Find(w.ctx(), at); found || err != nil {
			t.Errorf("at %s: found %v, %v", at, found, err)
		}
	}
}

func TestLookWithoutTheRightSaysWhichIsMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(2)
	fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: letters, Err: kerr.TopicAuthorizationFailed, Count: -1})
	_, err := w.open().Newest(w.ctx(), func(Letter, int64) {})
	if err == nil || !strings.Contains(err.Error(), "lacks the right Read") || fault.Hits() == 0 {
		t.Errorf("%d faults, error %v", fault.Hits(), err)
	}
}
