package txn

import (
	"context"
	"errors"
	"fmt"
	"testing"
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
	for _, protocol := range []Protocol{ProtocolClassic, ProtocolConsumer} {
		for fight := range 4 { // each goes its own way
			t.Run(fmt.Sprintf("%s %d", protocol, fight), func(t *testing.T) {
				inBubble(t, func(t *testing.T) { fightTwins(t, protocol) })
			})
		}
	}
}

func fightTwins(t *testing.T, protocol Protocol) {
	t.Helper()
	w := newVirtualWorld(t, 2)
	w.config.Protocol, w.config.Lanes = protocol, 2
	stopFeed := w.feed()
	defer stopFeed()
	a := w.run()
	next(t, w.hooks.joined, "join of the first")
	b := w.run()
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

// Rule 4. Of two processes that were fenced three times at once the one whose name the group knows works on.
func TestRule4WhoHoldsTheNameStays(t *testing.T) {
	t.Parallel()
	twin := &TwinError{"app.one.1", kerr.ProducerFenced}
	for name, c := range map[string]struct {
		err   error
		held  bool // somebody has the name
		ours  bool // we do
		blind bool // the group can't be asked
		stays bool
	}{
		"another has the name":      {err: twin, held: true},
		"we have it":                {err: twin, held: true, ours: true, stays: true},
		"nobody has it":             {err: twin, stays: true},
		"nobody knows":              {err: twin, held: true, ours: true, blind: true},
		"lanes are left behind":     {err: errors.Join(twin, ErrDrain), held: true, ours: true},
		"it ends for other reasons": {err: kerr.ClusterAuthorizationFailed, held: true, ours: true},
		"it ends as it was told":    {held: true, ours: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newVirtualWorld(t, 1)
				first := newLane(w.config, 0, 1, w.client, nil, nil)
				first.joined = "old"
				if c.held {
					id, _ := w.member("app.one.0").GroupMetadata()
					if c.ours {
						first.joined = id
					}
				}
				if c.blind {
					w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeGroups}, Err: kerr.GroupAuthorizationFailed, Count: -1})
				}
				e := &Engine{config: w.config, lanes: []*lane{first, newLane(w.config, 1, 1, w.client, nil, nil)}}
				for range fencesMax {
					e.lanes[1].fences.add(time.Now())
				}
				if got := e.stays(t.Context(), w.client, c.err); got != c.stays {
					t.Errorf("it stays: %t, want %t", got, c.stays)
				}
				if n := e.lanes[1].fences.count(time.Now()); (n == 0) != c.stays {
					t.Errorf("%d fences are remembered where it stays: %t", n, c.stays)
				}
			})
		})
	}
}

// Rule 4. A fence counts wherever it is met: an idle lane, too, ends where a twin takes its name.
func TestRule4FencesCountWhereverTheyAreMet(t *testing.T) {
	t.Parallel()
	for name, takeOver := range map[string]func(w *world) *running{
		"in polls": func(w *world) *running {
			r := w.run()
			for range fencesMax {
				next(w.t, w.hooks.joined, "join")
				w.member("app.one.0")
				_ = next(w.t, w.hooks.fenced, "fence")
			}
			return r
		},
		"at open": func(w *world) *running {
			w.member("app.one.0")
			w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TopLevel: true, When: transactional, Err: kerr.ProducerFenced, Count: -1})
			r := w.run()
			for range fencesMax {
				_ = next(w.t, w.hooks.fenced, "fence")
			}
			return r
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newVirtualWorld(t, 1)
				r := takeOver(w)
				err := next(t, r.done, "end of the engine")
				if twin, ok := errors.AsType[*TwinError](err); !ok || twin.Member != "app.one.0" {
					t.Errorf("ended with %v, want a TwinError of app.one.0", err)
				}
				if len(w.hooks.fenced) != 0 {
					t.Errorf("%d more fences were told than %d", len(w.hooks.fenced), fencesMax)
				}
			})
		})
	}
}
