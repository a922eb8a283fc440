package relay

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

func TestEveryOutcomeIsToldOnce(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		for lane := range int32(3) {
			w.settle(lane, 200, 7, outbox.Done)
		}
		p := w.run([]int32{0, 1, 2})
		p.told(600)
		for lane := range int32(3) {
			w.settle(lane, 50, 3, outbox.Done)
			p.relay.Wake(lane)
		}
		p.told(150)
		w.wantOnce(outbox.Done, map[int32]int64{0: 250, 1: 250, 2: 250})
		for _, l := range p.relay.Status().Lanes {
			if l.Events != 250 || l.Diverged || l.Error != "" || l.LastCommit.IsZero() {
				w.t.Errorf("status of lane %d is %+v, want 250 events and no trouble", l.Lane, l)
			}
		}
	})
}

// Order, key, headers and body of the events are those of the effects.
func TestEventCarriesItsEffect(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.settle(1, 5, 2, outbox.Dead)
		w.run([]int32{1}).told(5)
		records, events := w.read(resultsTopic), w.events()
		for i, r := range records {
			of := intent(1, int64(i))
			want := []kgo.RecordHeader{
				{Key: message.HeaderID, Value: []byte(of.ID.String())},
				{Key: message.HeaderFormat, Value: []byte("1")},
				{Key: message.HeaderTrace, Value: []byte(of.Trace)},
				{Key: message.HeaderState, Value: []byte(of.TraceState)},
			}
			if string(r.Key) != string(of.Key) || fmt.Sprint(r.Headers) != fmt.Sprint(want) {
				w.t.Errorf("event %d has key %s and headers %v, want %s and %v", i, r.Key, r.Headers, of.Key, want)
			}
			e := events[i]
			if e.Offset != int64(i) || e.EffectID != of.ID.String() || string(e.Request.Body) != string(of.Body) || e.Source != of.Source.String() ||
				e.HTTPStatus != 422 || e.Error == "" || e.Response == nil || string(e.Response.Body) != "ok" {
				w.t.Errorf("event %d is %+v", i, e)
			}
		}
	})
}

// The relay dies in each of the places where a transaction can be cut. Whoever comes next tells exactly what
// is left.
func TestOneEventEachThroughDeaths(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]fault{
		"before produce":      {key: kmsg.Produce},
		"after produce":       {key: kmsg.Produce, after: true},
		"before EndTxn":       {key: kmsg.EndTxn},
		"after EndTxn":        {key: kmsg.EndTxn, after: true},
		"before InitProducer": {key: kmsg.InitProducerID},
		"after InitProducer":  {key: kmsg.InitProducerID, after: true},
		"reading progress":    {key: kmsg.Fetch},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				w.settle(0, 20, 5, outbox.Done)
				first := w.run([]int32{0})
				first.told(20)
				if f.key == kmsg.InitProducerID || f.key == kmsg.Fetch { // these come at the start only
					first.end()
					first = w.run(nil)
				}
				f.kill, f.then = true, first.stop
				first.wire.arm(f)
				w.settle(0, 30, 5, outbox.Done)
				first.relay.Assign(0)
				first.relay.Wake(0)
				<-first.ended
				if first.wire.struck() != 1 {
					w.t.Fatalf("the relay died %d times, want once", first.wire.struck())
				}
				begun := time.Now()
				w.settle(0, 10, 5, outbox.Done)
				second := w.run([]int32{0})
				told := 40
				if name == "after EndTxn" {
					told = 10
				}
				second.told(told)
				if took := time.Since(begun); took > 5*time.Second {
					w.t.Errorf("the successor needed %s, want at most 5s: it must not wait for the transaction's timeout", took)
				}
				w.wantOnce(outbox.Done, map[int32]int64{0: 60})
			})
		})
	}
}

// The same without a death: answers get lost and the relay goes on by itself.
func TestOneEventEachThroughLostAnswers(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]fault{
		"produce not taken":    {key: kmsg.Produce},
		"produce without word": {key: kmsg.Produce, after: true},
		"EndTxn not taken":     {key: kmsg.EndTxn},
		"EndTxn without word":  {key: kmsg.EndTxn, after: true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				p := w.run([]int32{0})
				next(w.t, p.opened, "opening")
				for round := range 5 {
					p.wire.arm(f)
					w.settle(0, 10, 4, outbox.Done)
					p.relay.Wake(0)
					for deadline := time.Now().Add(patience); p.relay.Status().Lanes[0].Seq < w.seqs[0]; {
						if time.Now().After(deadline) {
							w.t.Fatalf("round %d: the lane stands at %+v", round, p.relay.Status().Lanes[0])
						}
						time.Sleep(100 * time.Millisecond) //nolint:forbidigo // virtual time
					}
				}
				if p.wire.struck() != 5 {
					w.t.Errorf("%d answers were lost, want 5", p.wire.struck())
				}
				w.wantOnce(outbox.Done, map[int32]int64{0: 50})
			})
		})
	}
}

// One record of a transaction is refused, the others are taken: nothing is told, and the transaction is not left open
// for the readers of the results topic to wait behind.
func TestRefusedRecordAbortsTheTransaction(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		refused := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: progressTopic, Err: kerr.InvalidRecord, Count: 1})
		w.settle(0, 10, 5, outbox.Done)
		open := make(chan int64, 100)
		p := w.run([]int32{0}, func(c *Config) {
			retrying := c.Hooks.Retrying
			c.Hooks.Retrying = func(lane int32, err error) {
				info := w.cluster.PartitionInfo(resultsTopic, 0)
				open <- info.HighWatermark - info.LastStableOffset
				retrying(lane, err)
			}
		})
		if err := next(w.t, p.retrying, "retry"); !errors.Is(err, kerr.InvalidRecord) {
			w.t.Errorf("the retry is told as %v", err)
		}
		if n := <-open; n != 0 {
			w.t.Errorf("%d records are held back by the transaction", n)
		}
		p.told(10)
		if refused.Hits() != 1 {
			w.t.Errorf("%d records were refused, want 1", refused.Hits())
		}
		w.wantOnce(outbox.Done, map[int32]int64{0: 10})
	})
}

// Two processes believe that a lane is theirs. The older one gives it up, and no event is there twice.
func TestOlderOfTwoRelaysGivesUp(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		older := w.run([]int32{0})
		next(w.t, older.opened, "opening")
		newer := w.run([]int32{0})
		next(w.t, newer.opened, "opening")
		settled := int64(0)
		for len(older.gaveUp) == 0 {
			if settled > 1000 {
				w.t.Fatal("neither gives up")
			}
			w.settle(0, 10, 10, outbox.Done)
			settled += 10
			older.relay.Wake(0)
			newer.relay.Wake(0)
			time.Sleep(time.Second) //nolint:forbidigo // virtual time
		}
		if len(newer.gaveUp) > 0 {
			w.t.Error("the newer relay gave up too")
		}
		if len(older.fenced) != fencesMax {
			w.t.Errorf("the older relay was fenced %d times, want %d", len(older.fenced), fencesMax)
		}
		if phase := older.relay.Status().Lanes[0].Phase; phase != PhaseLost {
			w.t.Errorf("the older relay is %s, want %s", phase, PhaseLost)
		}
		w.settle(0, 10, 10, outbox.Done)
		time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		w.wantOnce(outbox.Done, map[int32]int64{0: settled + 10})

		// Assigned anew it takes the lane back.
		newer.end()
		older.relay.Assign(0)
		w.settle(0, 10, 10, outbox.Done)
		time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		w.wantOnce(outbox.Done, map[int32]int64{0: settled + 20})
	})
}

// The brokers answer that somebody else has the lane, though nobody has: so it is given up, and still
// assigned. Nobody would ever tell its results if it were not tried again.
func TestLaneThatWasGivenUpIsTriedAgain(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		fenced := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, TopLevel: true, Err: kerr.InvalidProducerEpoch, Count: -1})
		w.settle(0, 10, 10, outbox.Done)
		p := w.run([]int32{0})
		next(w.t, p.gaveUp, "giving up")
		fenced.Remove()
		p.told(10)
		w.wantOnce(outbox.Done, map[int32]int64{0: 10})
		if fenced.Hits() < fencesMax {
			w.t.Errorf("it was fenced %d times, want at least %d", fenced.Hits(), fencesMax)
		}
	})
}

func TestUnassignedLaneRestsUntilItIsAssigned(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.settle(0, 10, 10, outbox.Done)
		p := w.run([]int32{0})
		p.told(10)
		p.relay.Unassign(0)
		time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		w.settle(0, 10, 10, outbox.Done)
		p.relay.Wake(0)
		time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		w.wantOnce(outbox.Done, map[int32]int64{0: 10})
		if lanes := p.relay.Status().Lanes; len(lanes) != 0 {
			w.t.Errorf("status has %+v, want no lane", lanes)
		}
		p.relay.Assign(0)
		p.told(10)
		w.wantOnce(outbox.Done, map[int32]int64{0: 20})
	})
}

// An operator retries a dead effect: its second fate is another event.
func TestRetriedEffectHasSecondEvent(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.settle(0, 1, 1, outbox.Dead)
		p := w.run([]int32{0})
		p.told(1)
		w.seqs[0]++
		if err := w.ledger.Flush(w.t.Context(), outbox.Flush{Tenure: w.tenures[0], Seq: w.seqs[0], Parked: []outbox.Parked{{Offset: 0, Role: outbox.Retry}}}); err != nil {
			w.t.Fatal(err)
		}
		w.flush(0, fates(outbox.Done, 0)...)
		p.told(1)
		events := w.events()
		if len(events) != 2 || events[0].Status != outbox.Dead || events[1].Status != outbox.Done || events[0].EffectID != events[1].EffectID {
			w.t.Errorf("events are %+v, want dead and then done, of one id", events)
		}
	})
}

func TestEmptyLaneWritesNothing(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.ask(0, 10) // ingested, but not settled
		p := w.run([]int32{0, 1})
		next(w.t, p.opened, "opening")
		next(w.t, p.opened, "opening")
		time.Sleep(24 * time.Hour) //nolint:forbidigo // virtual time
		for _, topic := range []string{resultsTopic, progressTopic} {
			for lane := range int32(2) {
				if end := w.cluster.PartitionInfo(topic, lane).HighWatermark; end != 0 {
					w.t.Errorf("%s/%d ends at %d, want 0", topic, lane, end)
				}
			}
		}
	})
}

// The progress survives what a group offset would not: more than a week without a word (offsets.retention.minutes), and
// compaction.
func TestProgressOutlastsIdlenessAndCompaction(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		p := w.run([]int32{0})
		for range 20 {
			w.settle(0, 5, 5, outbox.Done)
			p.told(5)
		}
		p.end()
		w.cluster.Compact()
		if left := len(w.read(progressTopic)); left >= 20 {
			w.t.Fatalf("%d progress records are left: nothing was compacted", left)
		}
		time.Sleep(8 * 24 * time.Hour) //nolint:forbidigo // virtual time
		w.cluster.Compact()
		w.tenure(0)
		w.settle(0, 5, 5, outbox.Done)
		w.run([]int32{0}).told(5)
		w.wantOnce(outbox.Done, map[int32]int64{0: 105})
	})
}

// The last progress record lies further from the end of the log than what is read first.
func TestProgressIsFoundFarFromTheEnd(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.settle(0, 5, 5, outbox.Done)
		p := w.run([]int32{0})
		p.told(5)
		p.end()
		other := make([]*kgo.Record, 3*progressTail)
		for i := range other {
			other[i] = &kgo.Record{Topic: progressTopic, Partition: 0, Key: []byte("other"), Value: []byte("x")}
		}
		if err := w.client.ProduceSync(w.t.Context(), other...).FirstErr(); err != nil {
			w.t.Fatal(err)
		}
		w.settle(0, 5, 5, outbox.Done)
		w.run([]int32{0}).told(5)
		w.wantOnce(outbox.Done, map[int32]int64{0: 10})
	})
}

func TestLedgerFailuresAreTriedAgainWithTheSameProducer(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		var failing atomic.Bool
		failing.Store(true)
		w.ledger.Fail = func(method string, _ bool) error {
			if failing.Load() && (method == "Results" || method == "FlushAt") {
				return fmt.Errorf("%s: connection refused", method)
			}
			return nil
		}
		tries := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Observe: true, Count: -1})
		p := w.run([]int32{0})
		w.settle(0, 5, 5, outbox.Done)
		for range 5 {
			if err := next(w.t, p.retrying, "retry"); !strings.Contains(err.Error(), "connection refused") {
				w.t.Errorf("the retry is told as %v", err)
			}
		}
		failing.Store(false)
		p.told(5)
		failing.Store(true)
		w.settle(0, 5, 5, outbox.Done)
		for range 5 {
			next(w.t, p.retrying, "retry") //nolint:errcheck // what it says was seen above
		}
		p.end() // and it ends in the middle of that
		failing.Store(false)
		if n := tries.Hits(); n != 1 {
			w.t.Errorf("the producer was opened %d times, want once", n)
		}
		w.run([]int32{0}).told(5)
		w.wantOnce(outbox.Done, map[int32]int64{0: 10})
	})
}

// Postgres is down for an hour. Nobody hammers at it nor at the brokers, no transaction is open meanwhile, and
// the lane catches up by itself.
func TestLedgerThatIsDownForAnHourIsWaitedFor(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		var down atomic.Bool
		var asked atomic.Int64
		w.ledger.Fail = func(method string, _ bool) error {
			if down.Load() && (method == "Results" || method == "FlushAt") {
				asked.Add(1)
				return errors.New("connection refused")
			}
			return nil
		}
		p := w.run([]int32{0})
		w.settle(0, 5, 5, outbox.Done)
		p.told(5)
		requests := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID, kmsg.Produce, kmsg.EndTxn}, Observe: true, Count: -1})
		down.Store(true)
		for range 60 { // what another process wrote down, say
			w.settle(0, 5, 5, outbox.Done)
			p.relay.Wake(0)
			time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		}
		if n := asked.Load(); n == 0 || n > 3600 {
			w.t.Errorf("the ledger was asked %d times within an hour", n)
		}
		if n := requests.Hits(); n > 0 {
			w.t.Errorf("the brokers were asked %d times to write nothing", n)
		}
		if s := p.relay.Status().Lanes[0]; s.Phase != PhaseBackoff || !strings.Contains(s.Error, "connection refused") {
			w.t.Errorf("status is %+v, want a pause and its reason", s)
		}
		down.Store(false)
		p.told(300)
		w.wantOnce(outbox.Done, map[int32]int64{0: 305})
	})
}

func TestLedgerIsToldHowFarTheLaneIs(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.settle(0, 20, 5, outbox.Done)
		p := w.run([]int32{0}, func(c *Config) {
			c.Tenure = func(lane int32) (outbox.Tenure, bool) { return w.tenures[lane], true }
		})
		p.told(20)
		time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		if seq := w.ledger.Relayed(0); seq != 4 {
			w.t.Errorf("the ledger was told %d, want 4", seq)
		}
	})
}

// A dispatcher that flushes every few milliseconds must not cost the brokers a transaction each time, and a backlog
// must not wait between its transactions.
func TestTransactionsAreFewWhenFlushesAreSmall(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		p := w.run([]int32{0})
		next(w.t, p.opened, "opening")
		begun := time.Now()
		for range 200 {
			w.settle(0, 1, 1, outbox.Done)
			p.relay.Wake(0)
			time.Sleep(5 * time.Millisecond) //nolint:forbidigo // virtual time
		}
		p.told(200)
		if took := time.Since(begun); took > 2*time.Second {
			w.t.Errorf("200 flushes in a second were told after %s", took)
		}
		commits := len(w.read(progressTopic))
		if commits > 45 {
			w.t.Errorf("200 flushes in a second took %d transactions, want about 40", commits)
		}

		p.relay.Unassign(0)
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		w.settle(0, 5000, 1, outbox.Done)
		p.relay.Assign(0)
		p.told(5000)
		if n := len(w.read(progressTopic)) - commits; n > 100 {
			w.t.Errorf("a backlog of 5000 flushes took %d transactions, want about 80", n)
		}
	})
}

// Dispatchers flush many lanes at once. Their transactions come one after the other all the same, and none is left out.
func TestLanesTakeTurns(t *testing.T) {
	const lanes = 12
	inWorld(t, lanes, func(w *world) {
		numbers := make([]int32, lanes)
		for lane := range numbers {
			numbers[lane] = int32(lane)
		}
		var mu sync.Mutex
		var ends []time.Time
		p := w.run(numbers, func(c *Config) {
			relayed := c.Hooks.Relayed
			c.Hooks.Relayed = func(r Relayed) {
				mu.Lock()
				ends = append(ends, time.Now())
				mu.Unlock()
				relayed(r)
			}
		})
		for range numbers {
			next(w.t, p.opened, "opening")
		}
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		begun := time.Now()
		for _, lane := range numbers {
			w.settle(lane, 1, 1, outbox.Done)
		}
		for _, lane := range numbers {
			p.relay.Wake(lane)
		}
		p.told(lanes)
		slices.SortFunc(ends, time.Time.Compare)
		for i, at := range ends[1:] {
			if gap := at.Sub(ends[i]); gap < turnEvery-time.Millisecond {
				w.t.Errorf("transaction %d ended %s after the one before, want %s at least", i+1, gap, turnEvery)
			}
		}
		if took := ends[lanes-1].Sub(begun); took > (lanes+2)*turnEvery {
			w.t.Errorf("%d lanes were told after %s, want about %s", lanes, took, lanes*turnEvery)
		}
	})
}

func TestConfigNamesEverythingThatIsMissing(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{}); err == nil || len(err.Error()) < 100 {
		t.Errorf("New of nothing gives %v, want four problems", err)
	}
}
