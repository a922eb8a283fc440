package txn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/message"
)

// The tests in this file carry the number of the rule of DESIGN.md, beside this file, that they keep.

// Rule 1. One partition refuses a produce; franz-go alone would commit the rest and the offsets.
func TestRule1FailedProduceNeverCommits(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 2) // one output partition fails, the other takes its records
		fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: outTopic, Partitions: []int32{0}, Err: kerr.InvalidTxnState, Count: 1})
		w.produce(0, numbers(0, 50)...)
		r := w.run()
		ends := until(t, w.hooks.ended, "50 committed records", committed(50))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if fault.Hits() != 1 || ends[0].Outcome == Committed || ends[0].Reason != ReasonProduce {
			t.Errorf("%d faults hit, first end is %+v; want 1 and an abort because of produce", fault.Hits(), ends[0])
		}
		w.wantOnce(outTopic, numbers(0, 50))
	})
}

// Rule 1. The handlers of a batch return one by one, but together they pass the deadline.
func TestRule1PassedHandlerDeadlineNeverCommits(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.config.HandlerTimeout = 200 * time.Millisecond
		var calls atomic.Int64
		w.config.Routes[0].Handler = handlerFunc(func(in message.In, out *message.Batch) error {
			if calls.Add(1) <= 40 { // the first batch takes 400 ms, unless it is stopped
				time.Sleep(10 * time.Millisecond) //nolint:forbidigo // a slow handler is what is tested
			}
			return copyHandler{}.Handle(in, out)
		})
		w.produce(0, numbers(0, 40)...)
		r := w.run()
		ends := until(t, w.hooks.ended, "40 committed records", committed(40))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if ends[0].Outcome != Aborted || ends[0].Reason != ReasonSlow {
			t.Errorf("first end is %+v, want an abort because of slow handlers", ends[0])
		}
		if most := w.config.HandlerTimeout + w.config.HandlerTimeout/2; ends[0].Duration > most {
			t.Errorf("the first batch went on for %s, want it to be stopped soon after %s", ends[0].Duration, w.config.HandlerTimeout)
		}
		if len(ends) < 2 || ends[1].Records >= ends[0].Records {
			t.Errorf("after a slow batch come %+v, want fewer records", ends)
		}
		w.wantOnce(outTopic, numbers(0, 40))
	})
}

// Rule 1. What a batch rejects is written in its transaction: the batch is aborted and comes again, and
// what was dead-lettered the first time must not stand there twice.
func TestDeadLetterOfAnAbortedBatchIsWrittenOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Topic: inTopic, Err: kerr.UnknownMemberID, Count: 1})
		w.config.Routes[0].Handler = handlerFunc(func(in message.In, out *message.Batch) error {
			if strings.HasSuffix(string(in.Value), "7") {
				return refusal("ends_in_seven")
			}
			return copyHandler{}.Handle(in, out)
		})
		w.produce(0, numbers(0, 30)...)
		r := w.run()
		ends := until(t, w.hooks.ended, "30 committed records", committed(30))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if fault.Hits() != 1 || ends[0].Outcome != Aborted || ends[0].Records < 8 {
			t.Errorf("%d faults hit, the first end is %+v; want 1, and the abort of a batch with a reject", fault.Hits(), ends[0])
		}
		w.wantOnce(deadTopic, []string{"7", "17", "27"})
	})
}

// Rule 2. The broker commits, every answer is lost, End gives an error. Going on with the session
// would write all outputs a second time.
func TestRule2UnknownOutcomeDiscardsSession(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.config.Timeout, w.config.HandlerTimeout = 6*time.Second, 500*time.Millisecond
		g := w.newGate()
		w.config.Client = append(w.config.Client, g.dial())
		g.loseAnswers(kmsg.EndTxn, true)
		w.produce(0, numbers(0, 10)...)
		r := w.run()
		if why := next(t, w.hooks.rebuilt, "rebuilt session"); why != ReasonUnknown {
			t.Errorf("session was rebuilt because of %q, want %q", why, ReasonUnknown)
		}
		g.loseAnswers(kmsg.EndTxn, false)
		w.produce(0, numbers(10, 20)...)
		ends := until(t, w.hooks.ended, "a commit", func(e Ended) bool { return e.Outcome == Committed && e.Records > 0 })
		if ends[0].Outcome != Unknown || ends[0].Reason != ReasonUnknown {
			t.Errorf("the first end is told as %+v, want an unknown outcome", ends[0])
		}
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if g.losses() == 0 {
			t.Error("no answer was lost: nothing was tested")
		}
		w.wantOnce(outTopic, numbers(0, 20))
	})
}

// Rule 3. The broker commits, the answer is lost, the retry is answered UNKNOWN_SERVER_ERROR: End
// says (false, nil), as for a plain abort. Only the offsets tell the difference.
func TestRule3AbortIsBelievedOnlyIfOffsetsAgree(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		g := w.newGate()
		w.config.Client = append(w.config.Client, g.dial())
		g.loseAnswers(kmsg.EndTxn, true)
		g.onCut = func() {
			w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, TopLevel: true, Err: kerr.UnknownServerError, Count: 1})
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
		if g.losses() != 1 {
			t.Errorf("%d answers were lost, want 1", g.losses())
		}
		w.wantOnce(outTopic, numbers(0, 20))
	})
}

// Rule 3, the other side: a plain abort must not cost the session.
func TestRule3PlainAbortKeepsSession(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.produce(0, numbers(0, 10)...)
		r := w.run()
		until(t, w.hooks.ended, "10 committed records", committed(10))
		fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Topic: inTopic, Err: kerr.UnknownMemberID, Count: 1})
		w.produce(0, numbers(10, 20)...)
		ends := until(t, w.hooks.ended, "10 more committed records", committed(10))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if fault.Hits() != 1 || ends[0].Outcome != Aborted || ends[0].Reason != ReasonRebalance {
			t.Errorf("%d faults hit, first end %+v, want 1 and an abort by rebalance", fault.Hits(), ends[0])
		}
		if len(w.hooks.rebuilt) != 0 {
			t.Error("the session was rebuilt after a plain abort")
		}
		w.wantOnce(outTopic, numbers(0, 20))
	})
}

// Rule 5. A process dies between TxnOffsetCommit and EndTxn. Its successor of the same name must not
// wait for the transaction's timeout (60 s here), nor for the client's one-second pause after
// UNSTABLE_OFFSET_COMMIT.
func TestRule5SuccessorEndsOpenTransaction(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		g := w.newGate()
		hanging := make(chan struct{})
		w.cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
			g.kill()
			close(hanging)
			return nil, errDead, true // neither executed nor answered
		})
		w.produce(0, numbers(0, 10)...)
		first := w.run(func(c *Config) { c.Client = append(slices.Clone(c.Client), g.dial()) })
		next(t, hanging, "EndTxn")
		first.stop()

		unstable := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Observe: true, Count: -1})
		begun := time.Now()
		second := w.run()
		until(t, w.hooks.ended, "10 committed records", committed(10))
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("the successor committed after %s, want at most 3s", took)
		}
		if unstable.Hits() > 1 {
			t.Errorf("the successor fetched offsets %d times: it joined before the transaction was ended", unstable.Hits())
		}
		if err := second.drain(); err != nil {
			t.Fatal(err)
		}
		<-first.done
		w.wantOnce(outTopic, numbers(0, 10))
	})
}

// Rule 6. A member that ends stays in the group; only a scale-down leaves it.
func TestRule6StaticMemberStaysUnlessToldToLeave(t *testing.T) {
	t.Parallel()
	for _, leave := range []bool{false, true} {
		t.Run(fmt.Sprintf("leave=%t", leave), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newVirtualWorld(t, 1)
				r := w.run()
				next(t, w.hooks.joined, "join")
				groups, err := kadm.NewClient(w.client).DescribeGroups(context.Background(), "app")
				if err != nil {
					t.Fatal(err)
				}
				members := groups["app"].Members
				if len(members) != 1 || members[0].InstanceID == nil || *members[0].InstanceID != "app.one.0" {
					t.Fatalf("members are %+v, want the static one app.one.0", members)
				}
				if leave {
					r.engine.Leave()
				}
				if err := r.drain(); err != nil {
					t.Fatal(err)
				}
				groups, err = kadm.NewClient(w.client).DescribeGroups(context.Background(), "app")
				if err != nil {
					t.Fatal(err)
				}
				if left := len(groups["app"].Members) == 0; left != leave {
					t.Errorf("after the end the group has members %+v, want left = %t", groups["app"].Members, leave)
				}
			})
		})
	}
}

// Rule 8. The order to stop comes while one of two lanes waits for the group to let it in, which the
// group may not do before another member's session timeout. The end does not wait for that, and to
// leave a group that one lane is not in is no failure.
func TestRule8EndDoesNotWaitForTheGroup(t *testing.T) {
	t.Parallel()
	for _, leave := range []bool{false, true} {
		t.Run(fmt.Sprintf("leave=%t", leave), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newVirtualWorld(t, 2)
				joining := make(chan struct{}, 1000)
				let := make(chan struct{})
				w.cluster.ControlKey(int16(kmsg.JoinGroup), func(request kmsg.Request) (kmsg.Response, error, bool) {
					w.cluster.KeepControl()
					join, ok := request.(*kmsg.JoinGroupRequest)
					if ok && join.InstanceID != nil && *join.InstanceID == "app.one.1" {
						joining <- struct{}{}
						w.cluster.SleepControl(func() { <-let })
					}
					return nil, nil, false
				})
				r := w.run(func(c *Config) { c.Lanes = 2 })
				next(t, w.hooks.joined, "join of one lane")
				next(t, joining, "JoinGroup of the other")
				if leave {
					r.engine.Leave()
				}
				ordered := time.Now()
				if err := r.drain(); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(ordered); took > 2*closeTimeout {
					t.Errorf("the end took %s while the group let nobody in", took)
				}
				close(let)
			})
		})
	}
}

// Rule 7. A handler fails at one record without a reason. The batch is redone, halved, and the one
// record dead-lettered; its neighbours are not.
func TestRule7BisectsToThePoisonRecord(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.config.Routes[0].Handler = handlerFunc(func(in message.In, out *message.Batch) error {
			if string(in.Value) == "37" {
				return errors.New("out of order")
			}
			return copyHandler{}.Handle(in, out)
		})
		w.produce(0, numbers(0, 100)...)
		r := w.run()
		ends := until(t, w.hooks.ended, "100 committed records", committed(100))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		w.wantOnce(deadTopic, []string{"37"})
		w.wantOnce(outTopic, slices.DeleteFunc(numbers(0, 100), func(v string) bool { return v == "37" }))
		aborts := 0
		for _, e := range ends {
			if e.Outcome == Aborted {
				aborts++
			}
		}
		if aborts < countedMax || aborts > 20 {
			t.Errorf("%d aborts, want at least %d and about log2(100) more", aborts, countedMax)
		}
		if letter := next(t, w.hooks.rejected, "reject"); letter.Reason != RejectPoison || letter.Source.Offset != 37 {
			t.Errorf("rejected %+v, want offset 37 as poison", letter)
		}
	})
}

// Rule 7. The broker refuses an output that the engine could not know to be bad: same path.
func TestRule7RefusedOutputIsPoison(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		refused := w.cluster.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.Produce}, Topic: outTopic, Err: kerr.InvalidRecord, Count: -1,
			When: func(req kmsg.Request) bool { return producesValue(req, outTopic, "value-of-17") },
		})
		var values []string
		for _, n := range numbers(0, 40) {
			values = append(values, "value-of-"+n)
		}
		w.produce(0, values...)
		r := w.run()
		until(t, w.hooks.ended, "40 committed records", committed(40))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if refused.Hits() < countedMax {
			t.Errorf("%d refusals, want at least %d", refused.Hits(), countedMax)
		}
		w.wantOnce(deadTopic, []string{"value-of-17"})
		w.wantOnce(outTopic, slices.DeleteFunc(values, func(v string) bool { return v == "value-of-17" }))
	})
}

// producesValue looks for a value in the uncompressed batches of a produce request.
func producesValue(req kmsg.Request, topic, value string) bool {
	produce, ok := req.(*kmsg.ProduceRequest)
	if !ok {
		return false
	}
	for _, t := range produce.Topics {
		for _, p := range t.Partitions {
			if strings.Contains(string(p.Records), value) && (t.Topic == topic || t.Topic == "") {
				return true
			}
		}
	}
	return false
}

// Rule 7. An outage may abort as often as it likes: nobody is found guilty.
func TestRule7OutageDeadLettersNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		faults := map[string]*kfake.FaultHandle{}
		for name, f := range map[string]kfake.Fault{
			"produce": {Keys: []kmsg.Key{kmsg.Produce}, Topic: outTopic, Err: kerr.InvalidTxnState, Count: 8},
			"offsets": {Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Topic: inTopic, Err: kerr.UnknownMemberID, Count: 8},
		} {
			faults[name] = w.cluster.Fault(f)
		}
		w.produce(0, numbers(0, 30)...)
		r := w.run()
		until(t, w.hooks.ended, "30 committed records", committed(30))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		for name, f := range faults {
			if f.Hits() < countedMax+2 {
				t.Errorf("%s failed %d times, want more than %d", name, f.Hits(), countedMax)
			}
		}
		if len(w.hooks.suspected) != 0 || len(w.read(deadTopic, kgo.ReadUncommitted())) != 0 {
			t.Error("an outage found a record guilty")
		}
		w.wantOnce(outTopic, numbers(0, 30))
	})
}

// Rule 7. A handler that does not return ends the process, which names the record.
func TestRule7StuckHandlerEndsTheProcess(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.config.HandlerTimeout = 200 * time.Millisecond
		release := make(chan struct{})
		w.config.Routes[0].Handler = handlerFunc(func(in message.In, _ *message.Batch) error {
			if string(in.Value) == "5" {
				<-release
			}
			return nil
		})
		w.produce(0, numbers(0, 10)...)
		g := w.newGate()
		r := w.run(func(c *Config) { c.Client = append(slices.Clone(c.Client), g.dial()) })
		err := next(t, r.done, "end of the engine")
		var stuck *StuckError
		if !errors.As(err, &stuck) || stuck.Source.String() != "in/0/5" {
			t.Errorf("the engine ended with %v, want a StuckError that names in/0/5", err)
		}
		g.kill()
		close(release)
	})
}

// Rule 7. A record kills each process that handles it: after the third death the batch shrinks to
// one record, and the record found alone in flight is dead-lettered. The count is in the control
// topic, so that it does not matter which replica dies.
func TestRule7RecordThatKillsProcessesIsIsolated(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 2)
		w.config.Timeout, w.config.HandlerTimeout = 8*time.Second, 2*time.Second
		w.produce(0, numbers(0, 20)...)
		w.produce(1, numbers(1000, 3000)...) // a busy neighbour, which must neither be hurt nor stop the hunt
		deaths, smallest := 0, 1000
		for {
			g := w.newGate()
			died := make(chan int, 1)
			release := make(chan struct{})
			replica := w.run(func(c *Config) {
				c.Instance = fmt.Sprintf("replica-%d", deaths)
				c.Client = append(slices.Clone(c.Client), g.dial())
				polled := 0
				c.Hooks.Polled = func(p Polled) { polled = p.Records }
				c.Routes = slices.Clone(c.Routes)
				c.Routes[0].Handler = handlerFunc(func(in message.In, out *message.Batch) error {
					if string(in.Value) == "7" {
						g.kill()
						died <- polled
						<-release
					}
					return copyHandler{}.Handle(in, out)
				})
			})
			alive := false
			select {
			case n := <-died:
				deaths++
				smallest = min(smallest, n)
			case <-w.hooks.rejected:
				alive = true
			case <-time.After(patience):
				t.Fatal("neither a death nor a dead letter")
			}
			if alive {
				until(t, w.hooks.ended, "the rest", func(Ended) bool { return w.committedOffset(0) >= 20 && w.committedOffset(1) >= 2000 })
				if err := replica.drain(); err != nil {
					t.Fatal(err)
				}
				break
			}
			replica.stop()
			close(release)
			defer func() { <-replica.done }()
			w.kick(fmt.Sprintf("replica-%d", deaths-1))
			if deaths > 10 {
				t.Fatal("the record was not isolated after 10 deaths")
			}
		}
		if smallest != 1 || deaths < countedMax || deaths > countedMax+aloneMax {
			t.Errorf("%d deaths, smallest batch in flight %d; want %d to %d and 1", deaths, smallest, countedMax, countedMax+aloneMax)
		}
		w.wantOnce(deadTopic, []string{"7"})
		w.wantOnce(outTopic, slices.DeleteFunc(slices.Concat(numbers(0, 20), numbers(1000, 3000)), func(v string) bool { return v == "7" }))
	})
}

// While deaths are hunted one record is in flight at a time, and only suspects are read: a neighbour
// with always something new would otherwise take every turn. One note serves the whole hunt.
func TestRule7HuntReadsOnlySuspects(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.produce(0, numbers(0, 50)...)
	w.produce(1, numbers(1000, 3000)...)
	control := newMemory(w)
	key := suspectKey(w.topicID(inTopic), 0)
	if err := control.write(context.Background(), map[string]suspect{key: {Offset: 0, Until: 50, Crashes: crashesMax}}); err != nil {
		t.Fatal(err)
	}
	r := w.run()
	hunt := next(t, w.hooks.suspected, "hunt")
	ends := until(t, w.hooks.ended, "2050 committed records", committed(2050))
	if err := r.drain(); err != nil {
		t.Fatal(err)
	}
	if hunt.Records != 1 || hunt.Crashes != crashesMax {
		t.Errorf("hunt is %+v, want one record at a time after %d deaths", hunt, crashesMax)
	}
	for i, e := range ends[:50] {
		if e.Records != 1 {
			t.Errorf("transaction %d of the hunt has %d records", i, e.Records)
		}
	}
	if len(ends) > 50+2000/100+20 {
		t.Errorf("%d transactions, want 50 for the hunt and about 20 for the rest", len(ends))
	}
	notes := 0
	for _, r := range w.read(controlTopic, kgo.ReadUncommitted()) {
		if string(r.Key) == key {
			notes++
		}
	}
	if notes > 3 {
		t.Errorf("%d notes were written, want the one that was there, one for the hunt and no more", notes)
	}
	w.wantOnce(outTopic, slices.Concat(numbers(0, 50), numbers(1000, 3000)))
}

// A death in the middle of a hunt is that of the record at the committed offset, alone.
func TestRule7NoteOfAHuntMovesWithTheOffset(t *testing.T) {
	t.Parallel()
	note := suspect{Format: suspectFormat, Offset: 10, Until: 20, Crashes: 4, Alone: 1, Hunting: true}
	for offset, want := range map[int64]suspect{
		9:  {},
		10: note,
		11: {Format: suspectFormat, Offset: 11, Until: 20, Crashes: 4, Alone: 1},
		20: {},
	} {
		if got := note.at(offset); got != want {
			t.Errorf("at %d the note means %+v, want %+v", offset, got, want)
		}
	}
	note.Hunting = false
	if got := note.at(11); got != (suspect{}) {
		t.Errorf("a note of no hunt means %+v after a commit, want nothing", got)
	}
}

// kick removes a dead static member, as its session timeout would.
func (w *world) kick(instance string) {
	w.t.Helper()
	if _, err := kadm.NewClient(w.client).LeaveGroup(context.Background(), kadm.LeaveGroup("app").InstanceIDs("app."+instance+".0")); err != nil {
		w.t.Fatal(err)
	}
	// The dead one's transaction would end by its timeout.
	if err := fence(context.Background(), w.client, "app."+instance+".0", time.Minute); err != nil {
		w.t.Fatal(err)
	}
}

// Rule 8. The order to stop comes while the transaction is being ended: the end is not cancelled.
func TestRule8ShutdownNeverCancelsTheEnd(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		var r *running
		held := make(chan struct{})
		var once atomic.Bool
		w.cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			if once.CompareAndSwap(false, true) {
				close(held)
				w.cluster.SleepControl(func() { time.Sleep(300 * time.Millisecond) }) //nolint:forbidigo // a slow coordinator
			}
			return nil, nil, false
		})
		w.produce(0, numbers(0, 10)...)
		r = w.run()
		next(t, held, "EndTxn")
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if e := next(t, w.hooks.ended, "end"); e.Outcome != Committed || e.Records != 10 {
			t.Errorf("the transaction in hand ended as %+v, want committed", e)
		}
		w.wantOnce(outTopic, numbers(0, 10))
	})
}

// Rule 9. The log begins at 50, nothing is committed, and the first transaction aborts. Without a
// committed start the rewind would go to 0, which is no more.
func TestRule9FirstAbortOnTrimmedLogRewindsToStart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.produce(0, numbers(0, 100)...)
		if err := w.cluster.DeleteRecords(inTopic, 0, 50); err != nil {
			t.Fatal(err)
		}
		fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Topic: inTopic, Err: kerr.UnknownMemberID, Count: 1})
		r := w.run()
		until(t, w.hooks.ended, "50 committed records", committed(50))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if fault.Hits() != 1 {
			t.Error("no abort before the first commit: nothing was tested")
		}
		w.wantOnce(outTopic, numbers(50, 100))
	})
}

// Rule 9. Start latest, and the first transaction aborts: history must not be replayed.
func TestRule9FirstAbortUnderLatestReplaysNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.config.Start = StartLatest
		w.produce(0, numbers(0, 100)...)
		fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Topic: inTopic, Err: kerr.UnknownMemberID, Count: 1})
		committedStart := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Observe: true, Count: -1})
		r := w.run()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := committedStart.Wait(ctx, 1); err != nil {
			t.Fatal("no start offset was committed")
		}
		w.produce(0, numbers(100, 120)...)
		until(t, w.hooks.ended, "20 committed records", committed(20))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if fault.Hits() != 1 {
			t.Error("no abort before the first commit: nothing was tested")
		}
		w.wantOnce(outTopic, numbers(100, 120))
	})
}

// Rule 9. Under fail nothing is read until somebody says where from.
func TestRule9StartFailHaltsThePartition(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.config.Start = StartFail
		w.produce(0, numbers(0, 10)...)
		r := w.run()
		halted := next(t, w.hooks.haltedAt, "halted partition")
		if !strings.Contains(halted.Err.Error(), "processor offsets set") {
			t.Errorf("halted with %v, want the next step", halted.Err)
		}
		if s := r.engine.Status(); len(s.Lanes[0].Halted) != 1 {
			t.Errorf("status %+v does not show the halted partition", s)
		}
		time.Sleep(time.Second) //nolint:forbidigo // virtual time: nothing is read meanwhile
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if got := w.read(outTopic, kgo.ReadUncommitted()); len(got) != 0 {
			t.Errorf("%d records were written", len(got))
		}
	})
}

// Rule 9. The committed offset is no more in the log: never a silent reset.
func TestRule9OutOfRangeHaltsThePartition(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 2)
		w.produce(0, numbers(0, 10)...)
		w.produce(1, numbers(100, 110)...)
		r := w.run()
		until(t, w.hooks.ended, "20 committed records", committed(20))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		w.produce(0, numbers(10, 30)...)
		end := w.committedOffset(0) + 10
		if err := w.cluster.DeleteRecords(inTopic, 0, end); err != nil {
			t.Fatal(err)
		}
		r = w.run()
		halted := next(t, w.hooks.haltedAt, "halted partition")
		if halted.Partition != 0 || !strings.Contains(halted.Err.Error(), "processor offsets set") {
			t.Errorf("halted %+v, want partition 0 with the next step", halted)
		}
		w.produce(1, numbers(110, 120)...) // the other one goes on
		until(t, w.hooks.ended, "10 committed records", committed(10))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if len(w.hooks.haltedAt) != 0 {
			t.Errorf("the partition was halted %d more times", len(w.hooks.haltedAt))
		}
		w.wantOnce(outTopic, slices.Concat(numbers(0, 10), numbers(100, 120)))
	})
}

// Rule 11. The committed offset was made for another incarnation of the topic: it means nothing now.
func TestRule11OffsetOfAnotherIncarnationHalts(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.produce(0, numbers(0, 10)...)
		offsets := kadm.Offsets{}
		offsets.Add(kadm.Offset{Topic: inTopic, Partition: 0, At: 5, LeaderEpoch: -1, Metadata: OffsetMetadata([16]byte{1, 2, 3})})
		if err := kadm.NewClient(w.client).CommitAllOffsets(context.Background(), "app", offsets); err != nil {
			t.Fatal(err)
		}
		r := w.run()
		halted := next(t, w.hooks.haltedAt, "halted partition")
		if !strings.Contains(halted.Err.Error(), "deleted and made again") {
			t.Errorf("halted with %v", halted.Err)
		}
		time.Sleep(time.Second) //nolint:forbidigo // virtual time: nothing is read meanwhile
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if got := w.read(outTopic, kgo.ReadUncommitted()); len(got) != 0 {
			t.Errorf("%d records were written", len(got))
		}
	})
}

// Rule 12. The input is transactional: its log ends with markers, and lag must still reach 0.
func TestRule12CommittedOffsetsPassControlRecords(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		producer, err := kgo.NewClient(append(slices.Clone(w.config.Client), kgo.TransactionalID("upstream"))...)
		if err != nil {
			t.Fatal(err)
		}
		defer producer.Close()
		ctx := context.Background()
		for i, commit := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
			if err := producer.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := producer.ProduceSync(ctx, &kgo.Record{Topic: inTopic, Value: fmt.Append(nil, i)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			w.end(producer, commit)
		}
		r := w.run()
		until(t, w.hooks.ended, "the end of the log", func(Ended) bool { return w.committedOffset(0) == 4 })
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		w.wantOnce(outTopic, []string{"0"})
	})
}

// Rule 12. The last thing in the log is the marker of a transaction that was aborted: there is nothing
// to handle, and the offset passes it all the same.
func TestRule12MarkersAloneAreCommitted(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.produce(0, "0")
		r := w.run()
		until(t, w.hooks.ended, "1 committed record", committed(1))
		upstream, err := kgo.NewClient(append(slices.Clone(w.config.Client), kgo.TransactionalID("upstream"))...)
		if err != nil {
			t.Fatal(err)
		}
		defer upstream.Close()
		if err := upstream.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := upstream.ProduceSync(t.Context(), &kgo.Record{Topic: inTopic, Value: []byte("aborted")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := upstream.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
			t.Fatal(err)
		}
		if e := next(t, w.hooks.ended, "end"); e.Outcome != Committed || e.Records != 0 || w.committedOffset(0) != 3 {
			t.Errorf("the marker ended as %+v and offset %d is committed, want no record committed, up to 3", e, w.committedOffset(0))
		}
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		w.wantOnce(outTopic, []string{"0"})
	})
}

// An offset-only transaction is one, too: its metadata names the topic's incarnation.
func TestCommittedOffsetsNameTheTopicID(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.produce(0, numbers(0, 3)...)
		r := w.run()
		until(t, w.hooks.ended, "3 committed records", committed(3))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		offsets, err := kadm.NewClient(w.client).FetchOffsets(context.Background(), "app")
		if err != nil {
			t.Fatal(err)
		}
		o, _ := offsets.Lookup(inTopic, 0)
		id, ok := ParseOffsetMetadata(o.Metadata)
		if want := w.cluster.TopicInfo(inTopic).TopicID; !ok || id != want {
			t.Errorf("metadata is %q, want topic id %x", o.Metadata, want)
		}
	})
}

// Members come and go while records flow: nothing is lost, nothing is there twice, order is kept.
func TestLanesComeAndGoExactlyOnce(t *testing.T) {
	t.Parallel()
	for _, protocol := range []Protocol{ProtocolClassic, ProtocolConsumer} {
		t.Run(string(protocol), func(t *testing.T) {
			t.Parallel()
			lanesComeAndGo(t, protocol)
		})
	}
}

func lanesComeAndGo(t *testing.T, protocol Protocol) {
	t.Helper()
	w := newWorld(t, 6, kfake.BrokerConfigs(map[string]string{"group.consumer.heartbeat.interval.ms": "100"}))
	w.config.Protocol = protocol
	w.config.RecordsMax = 50
	const each = 2000
	var want []string
	for p := range int32(6) {
		values := numbers(int(p)*10_000, int(p)*10_000+each)
		w.produce(p, values...)
		want = append(want, values...)
	}
	var total atomic.Int64
	first := w.run(func(c *Config) { c.Lanes = 2; c.Instance = "a" })
	until(t, w.hooks.ended, "some records", countTo(&total, 2000))
	second := w.run(func(c *Config) { c.Lanes = 2; c.Instance = "b" })
	until(t, w.hooks.ended, "more records", countTo(&total, 5000))
	first.engine.Leave()
	if err := first.drain(); err != nil {
		t.Fatal(err)
	}
	until(t, w.hooks.ended, "all records", countTo(&total, 6*each))
	if err := second.drain(); err != nil {
		t.Fatal(err)
	}
	w.wantOnce(outTopic, want)
	last := map[string]int64{}
	for _, r := range w.read(outTopic, kgo.ReadCommitted()) {
		source, err := message.ParseSource(string(r.Headers[0].Value))
		if err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprint(source.Partition, "->", r.Partition)
		if before, seen := last[key]; seen && before >= source.Offset {
			t.Fatalf("order broken from partition %s: offset %d after %d", key, source.Offset, before)
		}
		last[key] = source.Offset
	}
	if len(slices.Collect(maps.Keys(last))) == 0 {
		t.Error("nothing was compared")
	}
}

func countTo(total *atomic.Int64, n int64) func(Ended) bool {
	return func(e Ended) bool {
		if e.Outcome == Committed {
			total.Add(int64(e.Records))
		}
		return total.Load() >= n
	}
}
