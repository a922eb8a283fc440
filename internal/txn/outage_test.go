package txn

import (
	"context"
	"errors"
	"slices"
	"strconv"
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

// The tests of this file say what the engine does while it can do nothing: it waits, and it does not
// wait in a hot loop. Minutes of theirs are virtual.

// tally counts what an engine does.
type tally struct{ retries, ends, commits atomic.Int64 }

func (n *tally) count(c *Config) {
	ended, retrying := c.Hooks.Ended, c.Hooks.Retrying
	c.Hooks.Ended = func(e Ended) {
		n.ends.Add(1)
		if e.Outcome == Committed {
			n.commits.Add(1)
		}
		ended(e)
	}
	c.Hooks.Retrying = func(lane int, err error) {
		if n.retries.Add(1) < 5 {
			retrying(lane, err)
		}
	}
}

// Rule 7. All brokers are away for five minutes, in the middle of the work: refused connections or a
// silent network. Nothing is found guilty, nobody is asked more than now and then, and when they are
// back the work goes on within seconds, each record once.
func TestRule7FiveMinutesWithoutBrokers(t *testing.T) {
	for name, cut := range map[string]func(*gate){"refused": (*gate).kill, "silent": (*gate).freeze} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				const outage = 5 * time.Minute
				w := newVirtualWorld(t, 4)
				w.config.Timeout, w.config.HandlerTimeout, w.config.SessionTimeout = 30*time.Second, 10*time.Second, 20*time.Second
				for p := range int32(4) {
					w.produce(p, numbers(int(p)*1000, int(p)*1000+1000)...)
				}
				g := w.newGate()
				var n tally
				var once atomic.Bool
				broken := make(chan struct{})
				w.config.Routes[0].Handler = handlerFunc(func(in message.In, out *message.Batch) error {
					if string(in.Value) == "300" && once.CompareAndSwap(false, true) {
						cut(g)
						close(broken)
					}
					return copyHandler{}.Handle(in, out)
				})
				r := w.run(func(c *Config) {
					c.Client = append(slices.Clone(c.Client), g.dial())
					c.RecordsMax = 50
					n.count(c)
				})
				next(t, broken, "cut in the middle of a batch")
				dials, ends, commits := g.dialled(), n.ends.Load(), n.commits.Load()
				time.Sleep(outage)                //nolint:forbidigo // virtual time
				if n.commits.Load() > commits+1 { // an answer that was under way may have come
					t.Error("there were commits without brokers")
				}
				minutes := int64(outage / time.Minute)
				if got := int64(g.dialled() - dials); got == 0 || got > 300*minutes {
					t.Errorf("%d connections were tried in %s, want some, and less than five a second", got, outage)
				}
				if got := n.ends.Load() - ends; got > 2*minutes {
					t.Errorf("%d transactions ended in %s, want few", got, outage)
				}
				if got := n.retries.Load(); got > 120*minutes {
					t.Errorf("%d retries were told in %s, want less than two a second", got, outage)
				}
				t.Logf("%d connections, %d ends, %d retries", g.dialled()-dials, n.ends.Load()-ends, n.retries.Load())
				g.mend()
				back := time.Now()
				until(t, w.hooks.ended, "all records within seconds", func(Ended) bool { return w.committedTotal() == 4000 })
				t.Logf("done %s after the outage", time.Since(back))
				if err := r.drain(); err != nil {
					t.Fatal(err)
				}
				if len(w.hooks.suspected) != 0 || len(w.read(deadTopic, kgo.ReadUncommitted())) != 0 {
					t.Error("an outage found a record guilty")
				}
				w.wantOnce(outTopic, numbers(0, 4000))
			})
		})
	}
}

// forAMinute runs an engine under a fault for a minute of virtual time and returns what it did.
func forAMinute(t *testing.T, fault kfake.Fault, mutate ...func(*Config)) (w *world, n *tally, h *kfake.FaultHandle, r *running) {
	t.Helper()
	w, n = newVirtualWorld(t, 1), new(tally)
	fault.Count = -1
	h = w.cluster.Fault(fault)
	w.produce(0, numbers(0, 50)...)
	r = w.run(append(mutate, n.count)...)
	time.Sleep(time.Minute) //nolint:forbidigo // virtual time
	t.Logf("%d requests refused, %d ends, %d retries told", h.Hits(), n.ends.Load(), n.retries.Load())
	return w, n, h, r
}

// transactional tells a lane's InitProducerID from that of a plain producer.
func transactional(req kmsg.Request) bool {
	init, ok := req.(*kmsg.InitProducerIDRequest)
	return ok && init.TransactionalID != nil
}

// A right that is missing, a topic that is away, a coordinator that is not ready: each of them may
// last. The engine asks again, but never as fast as it can, and goes on once it is mended.
func TestNoFaultMakesAHotLoop(t *testing.T) {
	for name, c := range map[string]struct {
		fault    kfake.Fault
		requests int   // that may fail in a minute
		retries  int64 // that may be told in a minute
	}{
		"no right to write outputs": {kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: outTopic, Err: kerr.TopicAuthorizationFailed}, 120, 0},
		"no right to commit":        {kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Topic: inTopic, Err: kerr.TopicAuthorizationFailed}, 120, 0},
		"no right to read":          {kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: inTopic, Err: kerr.TopicAuthorizationFailed}, 1200, 1200},
		"no right to notes":         {kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: controlTopic, Err: kerr.TopicAuthorizationFailed}, 1200, 1200},
		"no right to the group":     {kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, TopLevel: true, Err: kerr.GroupAuthorizationFailed}, 1200, 1200},
		"no right to the id":        {kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TopLevel: true, When: transactional, Err: kerr.TransactionalIDAuthorizationFailed}, 120, 120},
		"markers are not written":   {kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TopLevel: true, When: transactional, Err: kerr.ConcurrentTransactions}, 1200, 120},
		"coordinator is loading":    {kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, TopLevel: true, Err: kerr.CoordinatorLoadInProgress}, 1200, 120},
		"offsets stay unstable":     {kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Topic: inTopic, Err: kerr.UnstableOffsetCommit}, 1200, 1200},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w, n, fault, r := forAMinute(t, c.fault)
				if got := fault.Hits(); got == 0 || got > c.requests {
					t.Errorf("%d requests failed in a minute, want some, and at most %d", got, c.requests)
				}
				if got := n.retries.Load(); got > c.retries {
					t.Errorf("%d retries were told in a minute, want at most %d", got, c.retries)
				}
				if got := n.ends.Load(); got > 120 || n.commits.Load() > 0 {
					t.Errorf("%d transactions ended and %d committed, want at most two a second and none", got, n.commits.Load())
				}
				fault.Remove()
				until(t, w.hooks.ended, "50 committed records", committed(50))
				if err := r.drain(); err != nil {
					t.Fatal(err)
				}
				if len(w.hooks.suspected) != 0 || len(w.read(deadTopic, kgo.ReadUncommitted())) != 0 {
					t.Error("a fault of the brokers found a record guilty")
				}
				w.wantOnce(outTopic, numbers(0, 50))
			})
		})
	}
}

// A record is rejected, but too large for the dead-letter topic. Its partition stops, the error says
// what to run, the others go on, and no transaction is tried for it again and again.
func TestDeadLetterThatDoesNotFitHaltsItsPartition(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 2)
		w.recreate(deadTopic, map[string]string{"max.message.bytes": "2000"})
		w.config.Routes[0].Handler = handlerFunc(func(in message.In, out *message.Batch) error {
			if len(in.Value) > 1000 {
				return refusal("long")
			}
			return copyHandler{}.Handle(in, out)
		})
		w.produce(0, numbers(0, 10)...)
		w.produce(0, string(make([]byte, 5000)))
		w.produce(0, numbers(10, 20)...)
		w.produce(1, numbers(100, 200)...)
		n := new(tally)
		r := w.run(n.count)
		halted := next(t, w.hooks.haltedAt, "halted partition")
		if halted.Partition != 0 || !contains(halted.Err, "in/0/10", "long", "max.message.bytes", deadTopic) {
			t.Errorf("halted %+v, want partition 0 at offset 10 with the next step", halted)
		}
		until(t, w.hooks.ended, "the other partition", func(Ended) bool { return w.committedOffset(1) == 100 })
		w.produce(1, numbers(200, 300)...)
		time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		if got := n.ends.Load(); got > 10 {
			t.Errorf("%d transactions for 300 records and one that does not fit, want few", got)
		}
		if s := r.engine.Status().Lanes[0].Halted; len(s) != 1 || s[0].Partition != 0 || len(w.hooks.haltedAt) != 0 {
			t.Errorf("status shows %+v, and it was told %d more times", s, len(w.hooks.haltedAt))
		}
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if at := w.committedOffset(0); at > 10 {
			t.Errorf("offset %d is committed beyond the record that was not written", at)
		}
		if len(w.read(deadTopic, kgo.ReadUncommitted())) != 0 {
			t.Error("something is in the dead-letter topic")
		}
		w.wantOnce(outTopic, numbers(100, 300))
	})
}

// The broker refuses the poison record's dead letter, too. Same end: the partition stops.
func TestRule7RefusedDeadLetterHaltsItsPartition(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 2)
		var faults []kfake.Fault
		for _, topic := range []string{outTopic, deadTopic} {
			faults = append(faults, kfake.Fault{
				Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.InvalidRecord, Count: -1,
				When: func(req kmsg.Request) bool { return producesValue(req, topic, "value-of-17") },
			})
		}
		refused := w.cluster.Fault(faults...)
		for i := range 40 {
			w.produce(0, "value-of-"+strconv.Itoa(i))
		}
		w.produce(1, numbers(0, 100)...)
		n := new(tally)
		r := w.run(n.count)
		halted := next(t, w.hooks.haltedAt, "halted partition")
		if halted.Partition != 0 || !contains(halted.Err, "offset 17", "dead letter") {
			t.Errorf("halted %+v, want partition 0 at offset 17", halted)
		}
		until(t, w.hooks.ended, "the other partition", func(Ended) bool { return w.committedOffset(1) == 100 })
		before := n.ends.Load()
		time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		if got := n.ends.Load() - before; got > 10 || refused.Hits() > 20 {
			t.Errorf("%d transactions while nothing moves, %d refusals; want few", got, refused.Hits())
		}
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if at := w.committedOffset(0); at != 17 {
			t.Errorf("offset %d is committed, want 17: what came before is done, the record is not", at)
		}
	})
}

func (w *world) committedOffsets() kadm.OffsetResponses {
	w.t.Helper()
	offsets, err := kadm.NewClient(w.client).FetchOffsets(context.Background(), w.config.Group)
	if err != nil {
		w.t.Fatal(err)
	}
	return offsets
}

// committedTotal adds the group's offsets up over the input's partitions.
func (w *world) committedTotal() (total int64) {
	w.t.Helper()
	w.committedOffsets().Each(func(o kadm.OffsetResponse) { total += o.At })
	return total
}

// recreate makes a topic again with other settings.
func (w *world) recreate(topic string, settings map[string]string) {
	w.t.Helper()
	if err := errors.Join(w.cluster.DeleteTopic(topic), w.cluster.CreateTopic(topic, 1, settings)); err != nil {
		w.t.Fatal(err)
	}
}

func contains(err error, parts ...string) bool {
	return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(err.Error(), part) })
}

// Rule 7. The record that processes died with can't be dead-lettered. Its partition stops, and the hunt
// ends with it: the others are read again, in batches of every size.
func TestRule7HuntEndsWithAHaltedPartition(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 2)
		w.recreate(deadTopic, map[string]string{"max.message.bytes": "2000"})
		w.produce(0, string(make([]byte, 5000)))
		w.produce(0, numbers(0, 20)...)
		w.produce(1, numbers(1000, 2000)...)
		notes := map[string]suspect{suspectKey(w.topicID(inTopic), 0): {Offset: 0, Until: 21, Crashes: crashesMax + aloneMax, Alone: aloneMax}}
		if err := newMemory(w).write(t.Context(), notes); err != nil {
			t.Fatal(err)
		}
		r := w.run()
		if halted := next(t, w.hooks.haltedAt, "halted partition"); halted.Partition != 0 || !contains(halted.Err, RejectPoison) {
			t.Errorf("halted %+v, want partition 0 with its poison", halted)
		}
		ends := until(t, w.hooks.ended, "the other partition", committed(1000))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if len(ends) > 30 {
			t.Errorf("%d transactions for 1000 records, want about 10: the hunt has not ended", len(ends))
		}
		w.wantOnce(outTopic, numbers(1000, 2000))
	})
}

// An output topic is deleted, missed for a while, and made anew: under its old name it has another id, which the
// client of a session never adopts. Nothing is lost by then but what was in the topic, and no operator is needed.
func TestOutputTopicThatWasMadeAnewIsWrittenTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.run()
	w.produce(0, numbers(0, 10)...)
	until(t, w.hooks.ended, "commit into the old topic", committed(10))
	if err := w.cluster.DeleteTopic(outTopic); err != nil {
		t.Fatal(err)
	}
	w.produce(0, numbers(10, 20)...)
	until(t, w.hooks.ended, "abort without the topic", func(e Ended) bool { return e.Outcome == Aborted && e.Reason == ReasonProduce })
	if err := w.cluster.CreateTopic(outTopic, 1, nil); err != nil {
		t.Fatal(err)
	}
	for _, e := range until(t, w.hooks.ended, "commit into the new topic", committed(10)) {
		if e.Outcome == Unknown {
			t.Errorf("an abort that was told has an unknown outcome: %+v", e)
		}
	}
	w.wantOnce(outTopic, numbers(10, 20))
	if err := r.drain(); err != nil {
		t.Error(err)
	}
}
