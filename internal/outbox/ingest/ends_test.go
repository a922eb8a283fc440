package ingest

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// outage makes the ledger fail as long as it is set.
func (w *world) outage() *atomic.Bool {
	var down atomic.Bool
	w.ledger.Fail = func(string, bool) error {
		if down.Load() {
			return errStore
		}
		return nil
	}
	return &down
}

// asked counts the questions for ends, and while told lets them fail.
func (w *world) asked(fail *atomic.Bool) *atomic.Int64 {
	var count atomic.Int64
	w.cluster.ControlKey(int16(kmsg.ListOffsets), func(request kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		count.Add(1)
		if !fail.Load() {
			return nil, nil, false
		}
		asked := request.(*kmsg.ListOffsetsRequest)
		response := asked.ResponseKind().(*kmsg.ListOffsetsResponse)
		for _, topic := range asked.Topics {
			told := kmsg.ListOffsetsResponseTopic{Topic: topic.Topic}
			for _, partition := range topic.Partitions {
				told.Partitions = append(told.Partitions, kmsg.ListOffsetsResponseTopicPartition{
					Partition: partition.Partition, ErrorCode: kerr.UnknownServerError.Code, Offset: -1,
				})
			}
			response.Topics = append(response.Topics, told)
		}
		return response, nil, true
	})
	return &count
}

// Postgres is down for an hour. What waits on the topic is in the status, of which
// processor_outbox_ingest_lag_offsets is made.
func TestBacklogIsInViewWhileTheLedgerIsDown(t *testing.T) {
	for _, group := range []string{"", "app.effects"} {
		t.Run("group "+group, func(t *testing.T) {
			inBubble(t, 1, func(w *world) {
				down := w.outage()
				r := w.run(func(c *Config) { c.Group = group })
				w.produce(effects(0, 0, 5)...)
				w.await(0, 5)
				down.Store(true)
				for n := range int64(60) {
					w.produce(effect(0, 5+n))
					time.Sleep(time.Minute) //nolint:forbidigo // virtual time
				}
				if s := r.Status(); s[0].Next != 5 || s[0].End != 65 {
					w.t.Errorf("an hour into the outage the status says that the lane stands at %d and the topic ends at %d, want 5 and 65", s[0].Next, s[0].End)
				}
				w.drain(r)
			})
		})
	}
}

// What a transaction has written that is still open is no backlog.
func TestBacklogIsOfWhatIsCommitted(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		down := w.outage()
		r := w.run()
		w.produce(effects(0, 0, 5)...)
		w.await(0, 5)
		down.Store(true)
		w.produce(effects(0, 5, 9)...)
		_ = next(w.t, w.retrying, "retry")
		producer := w.connect(kgo.TransactionalID("txn"))
		w.must(producer.BeginTransaction())
		w.produce(effect(0, 9))
		w.must(producer.ProduceSync(w.t.Context(), effects(0, 10, 20)...).FirstErr())
		time.Sleep(2 * endsEvery) //nolint:forbidigo // virtual time
		if s := r.Status(); s[0].End != 10 {
			w.t.Errorf("the topic ends at %d, want 10, where the open transaction begins", s[0].End)
		}
		w.must(producer.EndTransaction(w.t.Context(), kgo.TryAbort))
	})
}

// A lane is halted and none mends it for an hour.
func TestBacklogOfAHaltedLaneIsInView(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		r := w.run()
		w.produce(effect(0, 0), effect(0, 1, with("pawl-format", "2")))
		next(w.t, w.halted, "halted lane")
		w.produce(effects(0, 2, 62)...)
		time.Sleep(time.Hour) //nolint:forbidigo // virtual time
		if s := r.Status(); s[0].Next != 1 || s[0].End != 62 {
			w.t.Errorf("the status says that the lane stands at %d and the topic ends at %d, want 1 and 62", s[0].Next, s[0].End)
		}
		if s := r.Status(); s[1].State != Reading || s[1].End != 0 {
			w.t.Errorf("the status of the other lane is %+v", s[1])
		}
	})
}

// A process begins while the ledger is down: nobody knows how much of the topic it has.
func TestLaneStandsNowhereUntilTheLedgerHasSaid(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		down := w.outage()
		down.Store(true)
		w.produce(effects(0, 0, 5)...)
		r := w.run()
		time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		if s := r.Status(); s[0].Next != -1 || s[0].End != 5 {
			w.t.Errorf("the status says that the lane stands at %d and the topic ends at %d, want -1 and 5", s[0].Next, s[0].End)
		}
		down.Store(false)
		w.await(0, 5)
		synctest.Wait()
		if s := r.Status(); s[0].Next != 5 || s[0].End != 5 {
			w.t.Errorf("the status says that the lane stands at %d and the topic ends at %d, want 5 and 5", s[0].Next, s[0].End)
		}
	})
}

// The brokers don't tell either for a while, and are asked again.
func TestEndsAreAskedForAgain(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		var mute atomic.Bool
		down := w.outage()
		r := w.run()
		w.produce(effect(0, 0))
		w.await(0, 1)
		asked := w.asked(&mute)
		mute.Store(true)
		down.Store(true)
		w.produce(effects(0, 1, 9)...)
		_ = next(w.t, w.retrying, "retry")
		w.produce(effects(0, 9, 20)...)
		time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		if s := r.Status(); s[0].End != 9 || asked.Load() == 0 {
			w.t.Errorf("the topic ends at %d after %d questions without an answer, want 9 after some", s[0].End, asked.Load())
		}
		mute.Store(false)
		time.Sleep(2 * endsEvery) //nolint:forbidigo // virtual time
		if s := r.Status(); s[0].End != 20 {
			w.t.Errorf("the topic ends at %d, want 20", s[0].End)
		}
	})
}

// Many lanes are asked for at once, and only while one of them does not read.
func TestEndsAreAskedForOnceForAllLanesThatWait(t *testing.T) {
	inBubble(t, 4, func(w *world) {
		var mute atomic.Bool
		down := w.outage()
		w.run()
		for lane := range int32(4) {
			w.produce(effect(lane, 0))
			w.await(lane, 1)
		}
		synctest.Wait()
		asked := w.asked(&mute)
		time.Sleep(time.Hour) //nolint:forbidigo // virtual time
		if n := asked.Load(); n != 0 {
			w.t.Errorf("%d questions for ends while all lanes read, want none", n)
		}
		down.Store(true)
		for lane := range int32(4) {
			w.produce(effect(lane, 1))
		}
		time.Sleep(time.Hour) //nolint:forbidigo // virtual time
		if n, most := asked.Load(), int64(time.Hour/endsEvery); n < most/2 || n > most {
			w.t.Errorf("%d questions for ends in an hour without a ledger, want up to %d", n, most)
		}
	})
}
