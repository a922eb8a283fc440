package txn

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// orders are what operators have paused, for tests.
type orders struct {
	mu        sync.Mutex
	paused    map[place]bool
	late      map[place]bool // paused too, but known only after a refresh
	changed   chan struct{}
	refreshed int
}

func newOrders(paused ...place) *orders {
	o := &orders{paused: map[place]bool{}, late: map[place]bool{}, changed: make(chan struct{})}
	for _, at := range paused {
		o.paused[at] = true
	}
	return o
}

func (o *orders) set(at place, paused bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.paused[at] = paused
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *orders) Refresh(context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refreshed++
	for at := range o.late {
		o.paused[at] = true
	}
	return nil
}

func (o *orders) Changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed
}

func (o *orders) Paused(topic string, partition int32) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.paused[place{topic, partition}]
}

// copied counts committed outputs by the partition that they were made of.
func (w *world) copied() map[int32]int {
	counts := map[int32]int{}
	for _, r := range w.read(outTopic, kgo.ReadCommitted()) {
		counts[w.sourceOf(r).Partition]++
	}
	return counts
}

// wantCopied waits, in virtual time, until nothing happens any more, and counts then.
func (w *world) wantCopied(what string, zero, one int) {
	w.t.Helper()
	time.Sleep(time.Minute) //nolint:forbidigo // virtual time
	if got := w.copied(); got[0] != zero || got[1] != one {
		w.t.Errorf("%s: %d copied from partition 0, %d from 1; want %d, %d", what, got[0], got[1], zero, one)
	}
}

func (w *world) sourceOf(r *kgo.Record) message.Source {
	w.t.Helper()
	for _, h := range r.Headers {
		if h.Key == message.HeaderSource {
			source, err := message.ParseSource(string(h.Value))
			if err != nil {
				w.t.Fatal(err)
			}
			return source
		}
	}
	w.t.Fatal("an output without a source")
	return message.Source{}
}

// A lane that waits for records hears of a pause before the next record comes, and of its end without any record.
func TestPauseIsObeyedByALaneThatWaits(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 2)
		paused := newOrders()
		w.config.Pauses = paused
		w.produce(0, numbers(0, 10)...)
		w.produce(1, numbers(10, 20)...)
		r := w.run()
		w.wantCopied("before", 10, 10)
		at := place{inTopic, 0}
		paused.set(at, true)
		w.produce(0, numbers(20, 30)...)
		w.produce(1, numbers(30, 40)...)
		w.wantCopied("paused", 10, 20)
		if got := w.committedOffset(0); got != 10 {
			t.Errorf("the paused partition's offset is %d, want 10", got)
		}
		if status := r.engine.Status().Lanes[0]; !slices.Equal(status.Paused[inTopic], []int32{0}) || len(status.Partitions[inTopic]) != 2 {
			t.Errorf("status %+v, want both partitions owned and 0 paused", status)
		}
		paused.set(at, false)
		w.wantCopied("resumed", 20, 20)
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		w.wantOnce(outTopic, numbers(0, 40))
	})
}

// A pause that was ordered while nobody ran, or while the partition moved, is obeyed from the first record on: it is looked
// up before that one is read. Its end is obeyed too.
func TestPauseIsKnownBeforeTheFirstRecord(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 2)
		paused := newOrders()
		at := place{inTopic, 0}
		paused.late[at] = true
		w.config.Pauses = paused
		w.produce(0, numbers(0, 10)...)
		w.produce(1, numbers(10, 20)...)
		r := w.run()
		w.wantCopied("paused", 0, 10)
		second := w.run(func(c *Config) { c.Instance = "two" })
		w.wantCopied("with a second member", 0, 10)
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		w.kick("one")
		w.produce(1, numbers(20, 30)...)
		w.wantCopied("at its next owner", 0, 20)
		if paused.refreshed < 2 {
			t.Errorf("the orders were looked up %d times, want once for each assignment", paused.refreshed)
		}
		delete(paused.late, at)
		paused.set(at, false)
		w.wantCopied("resumed", 10, 20)
		if err := second.drain(); err != nil {
			t.Fatal(err)
		}
		w.wantOnce(outTopic, numbers(0, 30))
	})
}

// The pause comes while a batch is being handled: that one is committed, and nothing after it is read.
func TestPauseLetsTheBatchInHandEnd(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 2)
		paused := newOrders()
		w.config.Pauses = paused
		w.config.RecordsMax = firstShare * 10 // for the first batch
		busy, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		w.config.Routes[0].Handler = handlerFunc(func(in message.In, out *message.Batch) error {
			once.Do(func() {
				close(busy)
				<-release
			})
			return copyHandler{}.Handle(in, out)
		})
		w.produce(0, numbers(0, 100)...)
		r := w.run()
		next(t, busy, "batch")
		paused.set(place{inTopic, 0}, true)
		close(release)
		w.wantCopied("paused", 10, 0)
		if got := w.committedOffset(0); got != 10 {
			t.Errorf("offset %d is committed, want that of the batch in hand, 10", got)
		}
		w.produce(1, numbers(100, 110)...)
		w.wantCopied("the other partition goes on", 10, 10)
		paused.set(place{inTopic, 0}, false)
		w.wantCopied("resumed", 100, 10)
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		w.wantOnce(outTopic, numbers(0, 110))
	})
}

// Rule 7. A partition whose records have killed processes is paused: the others do not wait for the end of the hunt, which
// is only put off.
func TestRule7HuntDoesNotWaitForAPausedPartition(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 2)
		paused := newOrders(place{inTopic, 0})
		w.config.Pauses = paused
		w.produce(0, numbers(0, 20)...)
		w.produce(1, numbers(20, 220)...)
		key := suspectKey(w.topicID(inTopic), 0)
		control := newMemory(w)
		if err := control.write(context.Background(), map[string]suspect{key: {Offset: 0, Until: 20, Crashes: crashesMax}}); err != nil {
			t.Fatal(err)
		}
		r := w.run()
		w.wantCopied("paused", 0, 200)
		if len(w.hooks.suspected) != 0 {
			t.Errorf("a hunt has begun: %+v", <-w.hooks.suspected)
		}
		paused.set(place{inTopic, 0}, false)
		hunt := next(t, w.hooks.suspected, "hunt")
		if hunt.Records != 1 {
			t.Errorf("hunt is %+v, want one record at a time", hunt)
		}
		paused.set(place{inTopic, 0}, true) // in the midst of it
		w.produce(1, numbers(220, 420)...)
		time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		if got := w.copied(); got[1] != 400 {
			t.Errorf("%d of the other partition were copied, want 400", got[1])
		}
		paused.set(place{inTopic, 0}, false)
		w.wantCopied("resumed", 20, 400)
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		w.wantOnce(outTopic, numbers(0, 420))
	})
}

// A lane that owns nothing but what is paused has nothing to hear of between its assignment and the end of the pause: it must
// not take its client for one that reads everything.
func TestPauseIsResumedThoughTheLaneNeverSawIt(t *testing.T) {
	t.Parallel()
	at := place{inTopic, 0}
	paused := newOrders(at)
	c := validConfig()
	c.Pauses = paused
	l := newLane(c, 0, 1, nil, storeFunc(func(map[string]suspect) {}), nil)
	watch := l.begin()
	watch.assigned(map[string][]int32{inTopic: {0}})
	var told map[string][]int32
	watch.found(map[place]int64{at: 0, {inTopic, 1}: 0}, func(held map[string][]int32) { told = held })
	if len(told) != 1 || !slices.Equal(told[inTopic], []int32{0}) {
		t.Fatalf("the client is told to pause %v, want partition 0", told)
	}
	paused.set(at, false)
	session := &pausedSession{}
	l.holdBack(session)
	if session.told != 1 || len(session.places) != 0 {
		t.Errorf("the client was told %d times, last %v; want once that nothing is paused", session.told, session.places)
	}
	l.holdBack(session)
	if session.told != 1 {
		t.Error("the client is told what it knows")
	}
}

// pausedSession notes what it is told to pause.
type pausedSession struct {
	Session

	told   int
	places map[place]bool
}

func (s *pausedSession) Pause(places map[place]bool) { s.told, s.places = s.told+1, places }
