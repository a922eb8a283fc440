package txn

import (
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Rule 1. A produce is refused after the flush has given up on it. The client's own end would wait
// for it once more, ask for no reason, and commit the rest and the offsets.
func TestRule1FlushWithoutAnAnswerNeverCommits(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.config.Timeout, w.config.HandlerTimeout = 8*time.Second, 2*time.Second
		late := w.cluster.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.Produce}, Topic: outTopic, Err: kerr.InvalidTxnState, Count: 1,
			When: func(request kmsg.Request) bool { return producesValue(request, outTopic, "value-of-0") },
		})
		var values []string
		for _, n := range numbers(0, 10) {
			values = append(values, "value-of-"+n)
		}
		w.produce(0, values...)
		took := w.config.flushTimeout() + w.config.endTimeout()/2
		first := true
		w.cluster.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			if first && producesValue(request, outTopic, "value-of-0") {
				first = false
				w.cluster.SleepControl(func() { time.Sleep(took) }) //nolint:forbidigo // virtual time
			}
			return nil, nil, false
		})
		r := w.run()
		ends := until(t, w.hooks.ended, "10 committed records", committed(10))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if late.Hits() != 1 || ends[0].Outcome == Committed || ends[0].Reason != ReasonProduce {
			t.Errorf("%d produces failed, first end is %+v; want 1 and no commit, because of produce", late.Hits(), ends[0])
		}
		w.wantOnce(outTopic, values)
	})
}

// A lane is behind, and brokers need longer for what comes of its largest batch than the transaction has
// for its flush. To make the same batch again would make the same of it, for as long as they are slow.
func TestLaneThatIsBehindGetsThroughSlowBrokers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const records = 1000
		w := newVirtualWorld(t, 1)
		w.config.Timeout, w.config.HandlerTimeout = 8*time.Second, 2*time.Second
		w.config.RecordsMax = records
		each := 4 * w.config.flushTimeout() / records // so that a part of them can be taken in time
		slow := 0
		w.cluster.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			if n := strings.Count(producedTo(request, outTopic), "value-of-"); n > 0 {
				took := each * time.Duration(n)
				if took > w.config.flushTimeout() {
					slow++
				}
				w.cluster.SleepControl(func() { time.Sleep(took) }) //nolint:forbidigo // virtual time
			}
			return nil, nil, false
		})
		var values []string
		for _, n := range numbers(0, records) {
			values = append(values, "value-of-"+n)
		}
		w.produce(0, values...)
		r := w.run()
		until(t, w.hooks.ended, "all records committed", committed(records))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if slow == 0 {
			t.Error("no batch was too large for the brokers: nothing is shown")
		}
		w.wantOnce(outTopic, values)
	})
}

// producedTo gives what a produce request writes to a topic.
func producedTo(request kmsg.Request, topic string) string {
	var all strings.Builder
	if produce, ok := request.(*kmsg.ProduceRequest); ok {
		for _, t := range produce.Topics {
			for _, p := range t.Partitions {
				if t.Topic == topic || t.Topic == "" {
					all.Write(p.Records)
				}
			}
		}
	}
	return all.String()
}

// Rule 2. A transaction that could not begin was not ended either: nothing was rewound, and to go on
// with the session would commit what was polled without its outputs.
func TestRule2SessionThatCannotBeginIsDiscarded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		l := newLane(w.config, 0, 1, w.client, newMemory(w), nil)
		session, err := openSession(t.Context(), w.config, 0, w.client, nil, l.begin())
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		if err := session.client.BeginTransaction(); err != nil { // so that the session's own must fail
			t.Fatal(err)
		}
		session.Produce(&kgo.Record{Topic: outTopic})
		e := session.End(true)
		if got := judge(e.end); got != rebuild || reasonOf(e, ReasonNone) != ReasonBegin {
			t.Errorf("the end is %+v, so %s because of %q; want %s because of %q", e, got, reasonOf(e, ReasonNone), rebuild, ReasonBegin)
		}
	})
}

// Rule 10. What was checked is what the brokers are told, and how often they hear of us.
func TestRule10ClientKeepsTheCheckedTimes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.config.Timeout, w.config.RebalanceTimeout = 34*time.Second, 50*time.Second
		w.config.SessionTimeout, w.config.Heartbeat = 7*time.Second, time.Second
		told := map[string]time.Duration{}
		var mu sync.Mutex
		tell := func(what string, millis int32) {
			mu.Lock()
			defer mu.Unlock()
			told[what] = time.Duration(millis) * time.Millisecond
		}
		w.cluster.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.InitProducerID, kmsg.JoinGroup}, TopLevel: true, Observe: true, Count: -1,
			When: func(request kmsg.Request) bool {
				switch request := request.(type) {
				case *kmsg.InitProducerIDRequest:
					if request.TransactionalID != nil { // the last to say is the session
						tell("txn.timeout", request.TransactionTimeoutMillis)
					}
				case *kmsg.JoinGroupRequest:
					tell("kafka.session_timeout", request.SessionTimeoutMillis)
					tell("kafka.rebalance_timeout", request.RebalanceTimeoutMillis)
				}
				return true
			},
		})
		r := w.run()
		next(t, w.hooks.joined, "join")
		beats := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, TopLevel: true, Observe: true, Count: -1})
		time.Sleep(10 * w.config.Heartbeat) //nolint:forbidigo // virtual time
		if n := beats.Hits(); n < 9 || n > 11 {
			t.Errorf("%d heartbeats within 10 times kafka.heartbeat", n)
		}
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		want := map[string]time.Duration{"txn.timeout": 34 * time.Second, "kafka.session_timeout": 7 * time.Second, "kafka.rebalance_timeout": 50 * time.Second}
		if !maps.Equal(told, want) {
			t.Errorf("the brokers were told %v, want %v", told, want)
		}
	})
}
