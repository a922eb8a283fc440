package txn

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/control"
	"pawl/internal/message"
)

// Rule 8. The order to stop comes while handlers work: what was polled is finished and committed, and
// nothing more is polled.
func TestRule8DrainFinishesTheBatchInHand(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		working := make(chan struct{}, 100)
		w.config.RecordsMax = 10
		w.config.Routes[0].Handler = handlerFunc(func(in message.In, out *message.Batch) error {
			working <- struct{}{}
			time.Sleep(100 * time.Millisecond) //nolint:forbidigo // virtual time
			return copyHandler{}.Handle(in, out)
		})
		w.produce(0, numbers(0, 100)...)
		r := w.run()
		next(t, working, "handler call")
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		e := next(t, w.hooks.ended, "end")
		if e.Outcome != Committed || e.Records < 1 || e.Records > 10 || len(w.hooks.ended) != 0 {
			t.Errorf("the batch in hand ended as %+v and %d more followed, want it committed and no more", e, len(w.hooks.ended))
		}
		w.wantOnce(outTopic, numbers(0, e.Records))
		if at := w.committedOffset(0); at != int64(e.Records) {
			t.Errorf("offset %d is committed, want %d", at, e.Records)
		}
	})
}

// Rule 8. The order to stop comes while a batch is still open, waiting for more: what has been polled is
// handled and committed at once.
func TestRule8DrainFinishesAnOpenBatch(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.config.IntervalMin = time.Second
		w.produce(0, numbers(0, 10)...)
		r := w.run()
		until(t, w.hooks.ended, "10 committed records", committed(10))
		w.produce(0, numbers(10, 20)...)
		time.Sleep(w.config.IntervalMin / 2) //nolint:forbidigo // virtual time: polled by now, and not yet due
		if n := len(w.hooks.ended); n != 0 {
			t.Fatalf("%d transactions have ended meanwhile: the batch is not open any more", n)
		}
		ordered := time.Now()
		if err := r.drain(); err != nil || time.Since(ordered) > w.config.IntervalMin/4 {
			t.Errorf("ended with %v after %s, want nil at once", err, time.Since(ordered))
		}
		if e := next(t, w.hooks.ended, "end"); e.Outcome != Committed || e.Records != 10 || w.committedOffset(0) != 20 {
			t.Errorf("the open batch ended as %+v, offset %d is committed; want 10 records committed, up to 20", e, w.committedOffset(0))
		}
		w.wantOnce(outTopic, numbers(0, 20))
	})
}

// Rule 8. One lane has nothing to do and ends at once; the other is ending its transaction. The process
// waits for it.
func TestRule8DrainWaitsForEveryLane(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 2)
		r := w.run(func(c *Config) { c.Lanes = 2 })
		next(t, w.hooks.joined, "join of one lane")
		next(t, w.hooks.joined, "join of the other")
		time.Sleep(5 * time.Second) //nolint:forbidigo // virtual time: each has its partition
		for _, lane := range r.engine.Status().Lanes {
			if len(lane.Partitions[inTopic]) != 1 {
				t.Fatalf("lane %d has %v, want one partition", lane.Lane, lane.Partitions)
			}
		}
		w.produce(0, "a")
		w.produce(1, "b")
		until(t, w.hooks.ended, "2 committed records", committed(2)) // the rebalance is behind both lanes
		ending := make(chan struct{})
		w.cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
			close(ending)
			w.cluster.SleepControl(func() { time.Sleep(time.Second) }) //nolint:forbidigo // a slow coordinator
			return nil, nil, false
		})
		w.produce(0, numbers(0, 10)...)
		next(t, ending, "EndTxn")
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if len(w.hooks.ended) != 1 {
			t.Fatalf("%d transactions had ended when the process did, want 1", len(w.hooks.ended))
		}
		if e := <-w.hooks.ended; e.Outcome != Committed || e.Records != 10 {
			t.Errorf("the transaction in hand ended as %+v, want committed", e)
		}
		w.wantOnce(outTopic, append(numbers(0, 10), "a", "b"))
	})
}

// A lane that can't end its transaction in time is given up, and the error says so. Its transaction is
// not cancelled: it ends by itself, after Run has returned.
func TestDrainThatTakesTooLongSaysSo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.config.DrainTimeout = time.Second
		ending := make(chan struct{})
		var once atomic.Bool
		w.cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			if once.CompareAndSwap(false, true) {
				close(ending)
				w.cluster.SleepControl(func() { time.Sleep(5 * time.Second) }) //nolint:forbidigo // virtual time
			}
			return nil, nil, false
		})
		w.produce(0, numbers(0, 10)...)
		r := w.run()
		next(t, ending, "EndTxn")
		ordered := time.Now()
		if err := r.drain(); !errors.Is(err, ErrDrain) || time.Since(ordered) > 2*time.Second {
			t.Errorf("ended with %v after %s, want ErrDrain after 1s", err, time.Since(ordered))
		}
		if e := next(t, w.hooks.ended, "end, later"); e.Outcome != Committed {
			t.Errorf("the transaction ended as %+v, want committed", e)
		}
		w.wantOnce(outTopic, numbers(0, 10))
	})
}

// An idle engine stops at once, also one that never had anything to do.
func TestIdleEngineStopsAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		r := w.run()
		next(t, w.hooks.joined, "join")
		ordered := time.Now()
		if err := r.drain(); err != nil || time.Since(ordered) > 2*time.Second {
			t.Errorf("ended with %v after %s, want nil at once", err, time.Since(ordered))
		}
		for _, lane := range r.engine.Status().Lanes {
			if lane.Phase != PhaseStopped || lane.Joined || len(lane.Partitions) != 0 {
				t.Errorf("after the end lane %d shows %+v", lane.Lane, lane)
			}
		}
	})
}

// Status says what a lane owns and does; before Run there are none.
func TestStatusShowsTheLanes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 3)
		engine, err := New(w.config)
		if err != nil || len(engine.Status().Lanes) != 0 || engine.Status().Joined() {
			t.Fatalf("before Run: %+v, %v", engine.Status(), err)
		}
		r := w.run()
		next(t, w.hooks.joined, "join")
		w.produce(1, numbers(0, 10)...)
		until(t, w.hooks.ended, "10 committed records", committed(10))
		s := r.engine.Status()
		if !s.Joined() || len(s.Lanes) != 1 || len(s.Lanes[0].Partitions[inTopic]) != 3 || s.Lanes[0].LastCommit.IsZero() || len(s.Lanes[0].Halted) != 0 {
			t.Errorf("status is %+v, want one lane with three partitions and a commit", s)
		}
		s.Lanes[0].Partitions[inTopic][0] = 99 // a snapshot: nobody else sees it
		if got := r.engine.Status().Lanes[0].Partitions[inTopic]; got[0] != 0 {
			t.Errorf("partitions are %v now: the snapshot is shared", got)
		}
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
	})
}

// Rule 7. Processes come and go in the middle of aborts, alive each time: their notes are taken back,
// so that a rolling restart during bad times makes no suspects.
func TestRule7RestartsAreNoDeaths(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.produce(0, numbers(0, 20)...)
		var broken atomic.Bool
		broken.Store(true)
		w.config.Routes[0].Handler = handlerFunc(func(in message.In, out *message.Batch) error {
			if broken.Load() {
				return errors.New("a table is missing")
			}
			return copyHandler{}.Handle(in, out)
		})
		for range 2 * countedMax {
			r := w.run()
			if e := next(t, w.hooks.ended, "abort"); e.Outcome != Aborted {
				t.Fatalf("ended as %+v, want an abort", e)
			}
			if err := r.drain(); err != nil {
				t.Fatal(err)
			}
			for len(w.hooks.ended) > 0 {
				<-w.hooks.ended
			}
		}
		for key, note := range w.suspects() {
			if note.Crashes != 0 {
				t.Errorf("%s shows %d deaths after restarts, want none", key, note.Crashes)
			}
		}
		for len(w.hooks.suspected) > 0 {
			if s := <-w.hooks.suspected; s.Crashes > 0 {
				t.Errorf("suspected after %d deaths that were none", s.Crashes)
			}
		}
		broken.Store(false)
		r := w.run()
		until(t, w.hooks.ended, "20 committed records", committed(20))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		w.wantOnce(outTopic, numbers(0, 20))
	})
}

// suspects reads the notes that the control topic holds now.
func (w *world) suspects() map[string]suspect {
	w.t.Helper()
	client, err := kgo.NewClient(w.config.Client...)
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	found, err := (&memory{topic: control.Topic{Name: controlTopic, Client: client, Options: w.config.Client}, reader: "test"}).read(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}
