package txn

import (
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/message"
)

// A member in good standing is refused while a rebalance is under way, or the transaction before is being ended. Neither
// costs it the batch.
func TestPassingRefusalsOfOffsetsAbortNothing(t *testing.T) {
	for _, refusal := range []*kerr.Error{kerr.RebalanceInProgress, kerr.IllegalGeneration, kerr.StaleMemberEpoch, kerr.ConcurrentTransactions} {
		t.Run(refusal.Message, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newVirtualWorld(t, 1)
				fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Topic: inTopic, Err: refusal, Count: 3})
				w.produce(0, numbers(0, 10)...)
				r := w.run()
				first := next(t, w.hooks.ended, "end")
				w.must(r.drain())
				if fault.Hits() != 3 || first.Outcome != Committed || first.Records != 10 {
					t.Errorf("%d refusals, the first end is %+v; want 3 and a commit of 10 records", fault.Hits(), first)
				}
				w.wantOnce(outTopic, numbers(0, 10))
			})
		})
	}
}

// Rule 3. Partitions are given away while offsets are refused for the rebalance: what was polled of them is another's now.
func TestRule3RefusalIsFinalOnceSomethingIsGivenAway(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 2)
		refusals := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Topic: inTopic, Err: kerr.RebalanceInProgress, Count: -1})
		w.produce(0, numbers(0, 10)...)
		w.produce(1, numbers(10, 20)...)
		r := w.run()
		w.must(refusals.Wait(t.Context(), 1))
		other := w.run(func(c *Config) { c.Instance = "two" }) // takes one of the two partitions
		until(t, w.hooks.ended, "an abort", func(e Ended) bool { return e.Outcome == Aborted && e.Reason == ReasonRebalance })
		refusals.Remove()
		until(t, w.hooks.ended, "20 committed records", committed(20))
		w.must(r.drain())
		w.must(other.drain())
		w.wantOnce(outTopic, numbers(0, 20))
	})
}

// A partition is given away while its records are with the handlers. Its offset is not ours to commit any more, so their
// outputs are not either.
func TestNothingIsCommittedForWhatWasGivenAway(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 2)
		w.produce(0, numbers(0, 10)...)
		w.produce(1, numbers(10, 20)...)
		working, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		r := w.run(func(c *Config) {
			c.Routes[0].Handler = handlerFunc(func(in message.In, out *message.Batch) error {
				once.Do(func() { close(working) })
				<-release
				return copyHandler{}.Handle(in, out)
			})
		})
		next(t, working, "handler call")
		other := w.run(func(c *Config) {
			c.Instance = "two"
			c.Routes = []Route{{Topics: []string{inTopic}, Name: "copy", Handler: copyHandler{}}}
		})
		until(t, w.hooks.ended, "a commit of the other", func(e Ended) bool { return e.Outcome == Committed })
		close(release)
		until(t, w.hooks.ended, "an abort", func(e Ended) bool { return e.Outcome == Aborted && e.Reason == ReasonRebalance })
		until(t, w.hooks.ended, "the rest", func(Ended) bool { return w.committedTotal() == 20 })
		w.must(r.drain())
		w.must(other.drain())
		w.wantOnce(outTopic, numbers(0, 20))
	})
}

// Rule 1. The client got another epoch in mid-transaction. Brokers aborted what it had written before.
func TestRule1RecordsOfTwoEpochsAreNotCommitted(t *testing.T) {
	for name, rewrite := range map[string]func(s *kgoSession, id int64, epoch int16){
		"a record": func(s *kgoSession, id int64, epoch int16) {
			s.promise(&kgo.Record{Topic: outTopic, ProducerID: id, ProducerEpoch: epoch - 1}, nil)
		},
		"the offsets": func(s *kgoSession, id int64, epoch int16) { s.wrote.id, s.wrote.epoch = id, epoch-1 },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newVirtualWorld(t, 1)
				l := newLane(w.config, 0, 1, w.client, newMemory(w), nil)
				session, err := openSession(t.Context(), w.config, 0, w.client, nil, l.begin())
				w.must(err)
				defer session.Close()
				w.produce(0, "first")
				for session.Poll(t.Context(), 1).NumRecords() == 0 { //nolint:revive // until it is there
				}
				session.Produce(&kgo.Record{Topic: outTopic, Value: []byte("of this epoch")})
				w.must(session.flush())
				id, epoch, err := session.client.ProducerID(t.Context())
				w.must(err)
				rewrite(session, id, epoch)
				if e := session.End(true); e.committed || e.err != nil {
					t.Errorf("the end is %+v, want an abort", e)
				}
				w.wantOnce(outTopic, nil)
				if at := w.committedOffset(0); at != 0 {
					t.Errorf("offset %d is committed", at)
				}
			})
		})
	}
}

// Where nothing was produced there is nothing that must be visible together: offsets need no transaction. A refusal
// brings the records again, and so does a lost answer with a new session (rule 2).
func TestOffsetsAloneAreCommittedWithoutATransaction(t *testing.T) {
	drop := handlerFunc(func(message.In, *message.Batch) error { return nil })
	for name, test := range map[string]struct {
		fault   *kerr.Error
		first   Outcome
		rebuilt int
	}{
		"taken":           {nil, Committed, 0},
		"refused":         {kerr.UnknownMemberID, Aborted, 0},
		"in a rebalance":  {kerr.RebalanceInProgress, Aborted, 0},
		"nobody's answer": {kerr.RequestTimedOut, Unknown, 1},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newVirtualWorld(t, 1)
				w.config.Routes[0].Handler = drop
				ends := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn, kmsg.TxnOffsetCommit}, Observe: true, Count: -1})
				commits := w.cluster.Fault(kfake.Fault{
					Keys: []kmsg.Key{kmsg.OffsetCommit}, Topic: inTopic, When: isNoStart, Err: test.fault, Observe: test.fault == nil, Count: 1,
				})
				w.produce(0, numbers(0, 10)...)
				r := w.run()
				first := next(t, w.hooks.ended, "end")
				w.produce(0, "last")
				until(t, w.hooks.ended, "the end of the log", func(Ended) bool { return w.committedOffset(0) == 11 })
				w.must(r.drain())
				if first.Outcome != test.first || len(w.hooks.rebuilt) != test.rebuilt || commits.Hits() != 1 || ends.Hits() != 0 {
					t.Errorf("the first end is %+v, with %d rebuilt sessions, %d commits at fault, %d requests of a transaction; want %s, %d, 1 and none",
						first, len(w.hooks.rebuilt), commits.Hits(), ends.Hits(), test.first, test.rebuilt)
				}
			})
		})
	}
}

// isNoStart tells offsets of records from those that a start policy gives.
func isNoStart(request kmsg.Request) bool {
	commit, ok := request.(*kmsg.OffsetCommitRequest)
	return ok && commit.Topics[0].Partitions[0].Offset > 0
}

// A transaction costs three answers of brokers one after the other: the produces', that of the offsets and that of the
// end. No heartbeat is sent for it.
func TestEndsSendNoHeartbeats(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.config.Heartbeat = time.Second
		w.config.RecordsMax = 1
		w.produce(0, numbers(0, 50)...)
		beats := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, TopLevel: true, Observe: true, Count: -1})
		r := w.run()
		until(t, w.hooks.ended, "50 committed records", committed(50))
		w.must(r.drain())
		if n := beats.Hits(); n > 10 {
			t.Errorf("%d heartbeats beside 50 transactions", n)
		}
	})
}

// What is given away twice before the next end is told twice: another owner may have taken a partition in between.
func TestEverythingGivenAwayIsTold(t *testing.T) {
	t.Parallel()
	told := map[string][]int32{}
	k := &kgoSession{deciding: make(chan struct{}, 1), believed: map[place]kgo.EpochOffset{{inTopic, 0}: {}, {inTopic, 1}: {}}}
	for n := range int32(2) {
		k.gone(listener{gives: told}, false)(t.Context(), nil, map[string][]int32{inTopic: {n}})
	}
	if want := map[string][]int32{inTopic: {0, 1}}; !maps.EqualFunc(told, want, slices.Equal) || len(k.believed) != 0 || !k.gaveAway() {
		t.Errorf("%v was told, %v is believed, given away: %t", told, k.believed, k.gaveAway())
	}
}

// listener is a watcher that notes what is given away.
type listener struct {
	watcher
	gives map[string][]int32
}

func (l listener) gone(partitions map[string][]int32, _ bool) {
	for topic, numbers := range partitions {
		l.gives[topic] = append(l.gives[topic], numbers...)
	}
}
