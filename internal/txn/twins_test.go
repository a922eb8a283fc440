package txn

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/faults"
)

// Rule 4. Two living processes with one name, each with two lanes, take all their names from each other: one of them must give
// up and say why, and the other works on.
func TestRule4TwinEnds(t *testing.T) {
	t.Parallel()
	for fight := range 5 { // each goes its own way
		t.Run(strconv.Itoa(fight), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newVirtualWorld(t, 2)
				stopFeed := w.feed()
				defer stopFeed()
				twoLanes := func(c *Config) { c.Lanes = 2 }
				a := w.run(twoLanes)
				next(t, w.hooks.joined, "join of the first")
				b := w.run(twoLanes)
				var err error
				left := b
				select {
				case err = <-a.done:
				case err = <-b.done:
					left = a
				case <-time.After(time.Minute):
					t.Fatal("both twins live")
				}
				if _, is := errors.AsType[*TwinError](err); !is {
					t.Fatalf("the twin ended with %v, want a TwinError that says what to do", err)
				}
				faults.Shows(t, "two-of-one-name", err.Error())
				if len(w.hooks.fenced) < fencesMax {
					t.Errorf("%d fences were told, want at least %d", len(w.hooks.fenced), fencesMax)
				}
				time.Sleep(2 * rosterTimeout) //nolint:forbidigo // virtual time: whoever doubts has made up its mind
				if len(left.done) > 0 {
					t.Fatalf("the other ends as well, with %v, after the first with %v", <-left.done, err)
				}
				for len(w.hooks.ended) > 0 {
					<-w.hooks.ended
				}
				within(t, 2*w.config.RebalanceTimeout, w.hooks.ended, "a commit of the one that is left", committed(1))
				stopFeed()
				if err := left.drain(); err != nil {
					t.Errorf("the one that is left ends with %v", err)
				}
			})
		})
	}
}

// feed produces to both partitions until it is told to stop: without input nobody would notice a fence.
func (w *world) feed() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		for i := 0; pause(ctx, 5*time.Millisecond); i++ {
			_ = w.client.ProduceSync(ctx, &kgo.Record{Topic: inTopic, Partition: int32(i % 2), Value: fmt.Append(nil, i)})
		}
	}()
	return func() {
		cancel()
		<-fed
	}
}

// Rule 4. Whoever was fenced three times ends only where the group has given its name to another: of two processes that are
// fenced at once one stays.
func TestRule4WhoHoldsTheNameStays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lane   int
		fences int // before this one
		err    error
		other  bool          // the name is another's
		comes  time.Duration // after which another joins under it; 0: never
		own    string        // what the session knows of itself, where it is no member
		twin   bool
	}{
		"another has the name":           {fences: 2, err: kerr.ProducerFenced, other: true, own: "old", twin: true},
		"another had an epoch":           {fences: 2, err: kerr.InvalidProducerEpoch, other: true, own: "old", twin: true},
		"the group has said so":          {fences: 2, err: kerr.FencedInstanceID, own: "old", twin: true},
		"another is about to join":       {fences: 2, err: kerr.ProducerFenced, comes: time.Second, twin: true},
		"nobody joins":                   {fences: 2, err: kerr.ProducerFenced},
		"it is no member for the moment": {fences: 2, err: kerr.ProducerFenced, other: true},
		"nobody has the name":            {fences: 2, err: kerr.ProducerFenced, own: "old"},
		"the second time":                {fences: 1, err: kerr.FencedInstanceID, other: true, own: "old"},
		"no fence":                       {fences: 3, err: kerr.UnknownServerError, other: true, own: "old"},
		"another lane than the first":    {lane: 1, fences: 2, err: kerr.FencedInstanceID, other: true, own: "old"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newVirtualWorld(t, 1)
				id := fmt.Sprintf("app.one.%d", c.lane)
				session := &memberSession{id: c.own}
				if c.other {
					w.member(id)
				} else if c.own == "" {
					session.id, _ = w.member(id).GroupMetadata()
				}
				l := newLane(w.config, c.lane, 1, w.client, nil, nil)
				for range c.fences {
					l.fences.add(time.Now())
				}
				l.noteFence(session, c.err)
				joined := make(chan struct{})
				go func() {
					defer close(joined)
					if c.comes > 0 {
						time.Sleep(c.comes) //nolint:forbidigo // virtual time
						w.member(id)
					}
				}()
				if twin := l.twin(t.Context(), session, c.err); twin != c.twin {
					t.Errorf("it ends: %t, want %t", twin, c.twin)
				}
				<-joined
			})
		})
	}
}

// Rule 4. A fence counts wherever it is met. An idle lane, too, ends where a twin takes its name; at open nobody has taken
// anything from it yet.
func TestRule4FencesCountWhereverTheyAreMet(t *testing.T) {
	t.Parallel()
	t.Run("in polls", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			w := newVirtualWorld(t, 1)
			w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, TopLevel: true, Err: kerr.FencedInstanceID, Count: -1})
			r := w.run()
			err := next(t, r.done, "end of the engine")
			if twin, ok := errors.AsType[*TwinError](err); !ok || twin.Member != "app.one.0" {
				t.Errorf("ended with %v, want a TwinError of app.one.0", err)
			}
			if len(w.hooks.fenced) != fencesMax {
				t.Errorf("%d fences were told, want %d", len(w.hooks.fenced), fencesMax)
			}
		})
	})
	t.Run("at open", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			w := newVirtualWorld(t, 1)
			const refused = fencesMax + 1
			w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TopLevel: true, When: transactional, Err: kerr.ProducerFenced, Count: refused})
			r := w.run()
			next(t, w.hooks.joined, "join")
			if err := r.drain(); err != nil {
				t.Error(err)
			}
			if len(w.hooks.fenced) != refused {
				t.Errorf("%d fences were told, want %d", len(w.hooks.fenced), refused)
			}
		})
	})
}
