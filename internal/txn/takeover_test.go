package txn

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/message"
)

// The tests of this file are about sessions that take over and are taken over.

// Rule 3. The answer of EndTxn is lost, its retry is refused, and then the offsets can't be had either.
// What can't be compared is not believed to be equal: the transaction did commit.
func TestRule3WhatCannotBeComparedIsNotEqual(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		g := w.newGate()
		w.config.Client = append(w.config.Client, g.dial())
		g.loseAnswers(kmsg.EndTxn, true)
		var blind *kfake.FaultHandle
		g.onCut = func() {
			w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, TopLevel: true, Err: kerr.UnknownServerError, Count: 1})
			blind = w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Topic: inTopic, Err: kerr.TopicAuthorizationFailed, Count: 1})
			g.loseAnswers(kmsg.EndTxn, false)
		}
		w.produce(0, numbers(0, 10)...)
		r := w.run()
		if why := next(t, w.hooks.rebuilt, "rebuilt session"); why != ReasonOffsets {
			t.Errorf("session was rebuilt because of %q, want %q", why, ReasonOffsets)
		}
		w.produce(0, numbers(10, 20)...)
		until(t, w.hooks.ended, "a commit", func(e Ended) bool { return e.Outcome == Committed && e.Records > 0 })
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if g.losses() != 1 || blind.Hits() != 1 {
			t.Errorf("%d answers were lost and %d refused, want 1 and 1", g.losses(), blind.Hits())
		}
		w.wantOnce(outTopic, numbers(0, 20))
	})
}

// Rule 4. Now and then somebody takes the transactional id over: a restart that overlapped, a
// transaction that ran into its timeout. The lane takes it back and works on; less than three within a
// minute are no twin, however many there are in an hour.
func TestRule4TakeoversNowAndThenAreNoTwin(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		r := w.run()
		for i := range 10 {
			w.produce(0, numbers(100*i, 100*i+10)...)
			until(t, w.hooks.ended, "10 committed records", committed(10))
			if err := fence(context.Background(), w.client, "app.one.0", time.Minute); err != nil {
				t.Fatal(err)
			}
			w.produce(0, numbers(100*i+10, 100*i+20)...) // fails: this is how it is noticed
			_ = next(t, w.hooks.fenced, "fencing")
			until(t, w.hooks.ended, "10 more", committed(10))
			if i%2 == 1 {
				time.Sleep(2 * fencesWithin) //nolint:forbidigo // virtual time
			}
		}
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		var want []string
		for i := range 10 {
			want = append(want, numbers(100*i, 100*i+20)...)
		}
		w.wantOnce(outTopic, want)
	})
}

// Rule 5. The predecessor's transaction takes its time to end. Until it has ended nobody joins: the
// join's OffsetFetch would meet unstable offsets and wait a second for each look.
func TestRule5NobodyJoinsBeforeTheFenceIsUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		const took = 3 * time.Second
		ending := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TopLevel: true, When: transactional, Err: kerr.ConcurrentTransactions, Count: -1})
		joins := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Observe: true, Count: -1})
		r := w.run()
		time.Sleep(took) //nolint:forbidigo // virtual time
		if ending.Hits() == 0 || joins.Hits() != 0 {
			t.Errorf("%d refused takeovers and %d joins, want some and none", ending.Hits(), joins.Hits())
		}
		ending.Remove()
		next(t, w.hooks.joined, "join")
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
	})
}

// Rule 5. The session's own producer id is loaded when it is made: a missing right shows before there
// is work, and not in the middle of the first batch.
func TestRule5ProducerIDIsLoadedBeforeThereIsWork(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		loads := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TopLevel: true, When: transactional, Observe: true, Count: -1})
		r := w.run()
		next(t, w.hooks.joined, "join")
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		if loads.Hits() != 2 {
			t.Errorf("the id was initialised %d times before there was work, want twice: by the fence and by the session", loads.Hits())
		}
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
	})
}

// Rule 6. A restart under the same name is the same member: nothing moves, and it works again at once,
// though the session timeout is far.
func TestRule6RestartIsTheSameMember(t *testing.T) {
	for _, protocol := range []Protocol{ProtocolClassic, ProtocolConsumer} {
		t.Run(string(protocol), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newVirtualWorld(t, 1)
				w.config.Protocol = protocol
				w.config.SessionTimeout, w.config.Heartbeat = 4*time.Minute, time.Minute
				forGood := w.cluster.Fault(kfake.Fault{
					Keys: []kmsg.Key{kmsg.ConsumerGroupHeartbeat}, TopLevel: true, Observe: true, Count: -1,
					When: func(request kmsg.Request) bool {
						beat, ok := request.(*kmsg.ConsumerGroupHeartbeatRequest)
						return ok && beat.MemberEpoch == leaveForGood
					},
				})
				for i := range 3 {
					g := w.newGate()
					w.produce(0, numbers(10*i, 10*i+10)...)
					begun := time.Now()
					r := w.run(func(c *Config) { c.Client = append(slices.Clone(c.Client), g.dial()) })
					until(t, w.hooks.ended, "10 committed records", committed(10))
					if took := time.Since(begun); took > 3*time.Second {
						t.Errorf("run %d committed after %s, want at most 3s", i, took)
					}
					g.kill() // it has no chance to say goodbye
					r.stop()
				}
				if n := forGood.Hits(); n != 0 {
					t.Errorf("members have left for good %d times, which moves their partitions", n)
				}
				w.wantOnce(outTopic, numbers(0, 30))
			})
		})
	}
}

// Rule 7. A batch that as a whole is too slow is tried with fewer records, as often as it takes. That is
// no accusation of any of them.
func TestRule7SlowBatchesAccuseNobody(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.config.HandlerTimeout = time.Second
		var size atomic.Int64
		w.config.Hooks.Polled = func(p Polled) { size.Store(int64(p.Records)) }
		w.config.Routes[0].Handler = handlerFunc(func(in message.In, out *message.Batch) error {
			if n := size.Load(); n > 1 {
				time.Sleep(1500 * time.Millisecond / time.Duration(n)) //nolint:forbidigo // virtual time
			}
			return copyHandler{}.Handle(in, out)
		})
		for _, v := range numbers(0, 100) { // with one key, or the workers would sleep at the same time
			if err := w.client.ProduceSync(t.Context(), &kgo.Record{Topic: inTopic, Key: []byte("k"), Value: []byte(v)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		r := w.run()
		slow := 0
		for _, e := range until(t, w.hooks.ended, "100 committed records", committed(100)) {
			if e.Reason == ReasonSlow {
				slow++
			}
		}
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if slow < countedMax || len(w.hooks.suspected) != 0 {
			t.Errorf("%d slow batches and %d suspicions, want at least %d and none", slow, len(w.hooks.suspected), countedMax)
		}
		w.wantOnce(outTopic, numbers(0, 100))
	})
}

// Rule 7. Two aborts, or two deaths, are not three: nothing is suspected, no batch shrinks.
func TestRule7TwoTimesAccuseNobody(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		note := suspect{Offset: 0, Until: 10, Crashes: 2}
		if err := newMemory(w).write(t.Context(), map[string]suspect{suspectKey(w.topicID(inTopic), 0): note}); err != nil {
			t.Fatal(err)
		}
		var failed atomic.Int64
		w.config.Routes[0].Handler = handlerFunc(func(in message.In, out *message.Batch) error {
			if string(in.Value) == "5" && failed.Add(1) <= 2 {
				return errors.New("a table is missing")
			}
			return copyHandler{}.Handle(in, out)
		})
		w.produce(0, numbers(0, 10)...)
		r := w.run()
		ends := until(t, w.hooks.ended, "10 committed records", committed(10))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if len(ends) != 3 || ends[2].Records != 10 || len(w.hooks.suspected) != 0 {
			t.Errorf("ends are %+v and %d suspicions; want two aborts, a commit of all 10 and none", ends, len(w.hooks.suspected))
		}
		w.wantOnce(outTopic, numbers(0, 10))
	})
}

// Rule 7. A machine sleeps for hours while a handler is at work: nobody has looked, so no record is to
// blame. A call that is the same at one look too many is.
func TestRule7SleepOfTheMachineBlamesNoRecord(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := validConfig()
		l := newLane(c, 0, 1, nil, nil, nil)
		atWork := &l.transformer.workers[0].watch
		atWork.record.Store(&kgo.Record{Topic: inTopic, Offset: 5})
		atWork.call.Store(1)
		ticks, stuck := make(chan time.Time, 3*watchTicks), make(chan error, 1)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go (&Engine{config: c, lanes: []*lane{l}}).watchdog(ctx, ticks, stuck)
		look := func() {
			time.Sleep(time.Hour) //nolint:forbidigo // virtual time
			ticks <- time.Now()
			synctest.Wait()
		}
		for range watchTicks {
			look()
		}
		atWork.call.Store(2)
		for range watchTicks { // the first look at a call is when it is met
			look()
		}
		if len(stuck) != 0 {
			t.Fatalf("%v, after %d looks at each of two calls", <-stuck, watchTicks)
		}
		look()
		if found, ok := errors.AsType[*StuckError](next(t, stuck, "stuck call")); !ok || found.Source.Offset != 5 {
			t.Errorf("found %v, want a StuckError of in/0/5", found)
		}
	})
}

// Rule 7. A process ends alive in the middle of a hunt. Its successor goes on with the hunt, and does not
// take the end for one more death, least of all for that of the record which is next.
func TestRule7HuntGoesOnAfterARestart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		key := suspectKey(w.topicID(inTopic), 0)
		if err := newMemory(w).write(t.Context(), map[string]suspect{key: {Offset: 0, Until: 10, Crashes: crashesMax}}); err != nil {
			t.Fatal(err)
		}
		working := make(chan struct{})
		w.config.Routes[0].Handler = handlerFunc(func(in message.In, out *message.Batch) error {
			if string(in.Value) == "5" {
				close(working)
				time.Sleep(time.Second) //nolint:forbidigo // virtual time
			}
			return copyHandler{}.Handle(in, out)
		})
		w.produce(0, numbers(0, 10)...)
		first := w.run()
		next(t, working, "call with 5")
		if err := first.drain(); err != nil {
			t.Fatal(err)
		}
		want := suspect{Format: suspectFormat, Offset: 6, Until: 10, Crashes: crashesMax}
		if note := w.suspects()[key].at(w.committedOffset(0)); note != want {
			t.Errorf("at offset %d the note means %+v, want %+v", w.committedOffset(0), note, want)
		}
		second := w.run()
		for _, e := range until(t, w.hooks.ended, "10 committed records", committed(10)) {
			if e.Records != 1 {
				t.Errorf("%+v has ended, want one record at a time", e)
			}
		}
		if err := second.drain(); err != nil {
			t.Fatal(err)
		}
		w.wantOnce(outTopic, numbers(0, 10))
	})
}

// storeFunc is a suspectStore that knows nothing and is told what is written.
type storeFunc func(suspects map[string]suspect)

func (storeFunc) read(context.Context) (map[string]suspect, error) { return map[string]suspect{}, nil }

func (f storeFunc) write(_ context.Context, suspects map[string]suspect) error {
	f(suspects)
	return nil
}

// Rule 7. Partitions that go to another member take the suspicion along: their note is as it was before,
// for the other one to count on, and this lane does not wait for them, nor keep the rest from being read.
func TestRule7SuspicionGoesWithThePartition(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		written := map[string]suspect{}
		store := storeFunc(func(suspects map[string]suspect) { maps.Copy(written, suspects) })
		l := newLane(validConfig(), 0, 1, nil, store, nil)
		session := l.begin()
		both := map[string][]int32{inTopic: {0, 1}}
		session.assigned(both)
		ids := map[string][16]byte{inTopic: {7}}
		past := suspect{Format: suspectFormat, Offset: 0, Until: 50, Crashes: crashesMax}
		if err := session.settled(t.Context(), map[place]int64{{inTopic, 0}: 0, {inTopic, 1}: 0}, ids, nil); err != nil {
			t.Fatal(err)
		}
		l.fresh[place{inTopic, 0}] = fresh{offset: 0, past: past}
		l.batch.ends[place{inTopic, 0}] = 1
		if !l.hunt() || !l.bisect.crashed {
			t.Fatal("there is no hunt")
		}
		key := suspectKey(ids[inTopic], 0)
		if err := l.mark(); err != nil || written[key].Crashes != crashesMax+1 {
			t.Fatalf("the note is %+v, %v; want one death more", written[key], err)
		}
		session.gone(map[string][]int32{inTopic: {0}}, lost)
		l.handleLost()
		if written[key].Crashes != crashesMax {
			t.Errorf("lost = %t: the note stays %+v, want it as it was", lost, written[key])
		}
		if l.bisect.crashed || l.bisect.limit != 0 || len(l.marks) != 0 {
			t.Errorf("lost = %t: the lane still suspects %+v and has notes %v", lost, l.bisect, l.marks)
		}
	}
}

// Rule 7. One death with a record alone in flight may be somebody's kill -9: it convicts nobody.
func TestRule7OneDeathAloneConvictsNobody(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.produce(0, numbers(0, 10)...)
		note := suspect{Offset: 0, Until: 10, Crashes: crashesMax + 1, Alone: 1}
		if err := newMemory(w).write(t.Context(), map[string]suspect{suspectKey(w.topicID(inTopic), 0): note}); err != nil {
			t.Fatal(err)
		}
		r := w.run()
		next(t, w.hooks.suspected, "hunt")
		until(t, w.hooks.ended, "10 committed records", committed(10))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		w.wantOnce(outTopic, numbers(0, 10))
	})
}

// Rule 9. Under latest a process dies before its first commit. Its successor begins where it began, not
// at what is latest by then.
func TestRule9SuccessorBeginsWhereTheFirstBegan(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.config.Start = StartLatest
		w.produce(0, numbers(0, 10)...)
		g := w.newGate()
		dying := make(chan struct{})
		first := w.run(func(c *Config) {
			c.Client = append(slices.Clip(c.Client), g.dial())
			c.Routes = []Route{{Topics: []string{inTopic}, Name: "copy", Handler: handlerFunc(func(message.In, *message.Batch) error {
				g.kill()
				close(dying)
				return nil
			})}}
		})
		next(t, w.hooks.joined, "join")
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		w.produce(0, "10")
		next(t, dying, "death")
		first.stop()
		w.produce(0, numbers(11, 20)...)
		second := w.run()
		until(t, w.hooks.ended, "10 committed records", committed(10))
		if err := second.drain(); err != nil {
			t.Fatal(err)
		}
		w.wantOnce(outTopic, numbers(10, 20))
	})
}

// Rule 9. Latest means what readers could see: what an open transaction holds back is still to come.
func TestRule9LatestReadsWhatWasHeldBack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.config.Start = StartLatest
		w.produce(0, numbers(0, 10)...)
		upstream, err := kgo.NewClient(append(slices.Clip(w.config.Client), kgo.TransactionalID("upstream"))...)
		if err != nil {
			t.Fatal(err)
		}
		defer upstream.Close()
		if err := upstream.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := upstream.ProduceSync(t.Context(), &kgo.Record{Topic: inTopic, Value: []byte("held back")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		r := w.run()
		next(t, w.hooks.joined, "join")
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		w.end(upstream, kgo.TryCommit)
		until(t, w.hooks.ended, "1 committed record", committed(1))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		w.wantOnce(outTopic, []string{"held back"})
	})
}

// Rule 11. The start, too, says of which incarnation of the topic it is.
func TestRule11StartNamesTheTopicID(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		r := w.run()
		next(t, w.hooks.joined, "join")
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		offset, ok := w.committedOffsets().Lookup(inTopic, 0)
		id, known := ParseOffsetMetadata(offset.Metadata)
		if !ok || offset.At != 0 || !known || id != w.topicID(inTopic) {
			t.Errorf("committed is %+v, want offset 0 of %x", offset, w.topicID(inTopic))
		}
	})
}
