//go:build synctests

package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger/ledgertest"
	"pawl/internal/txn"
	"pawl/internal/verify"
)

// world is everything of one history: brokers, ledger, endpoint, replicas.
type world struct {
	script  Script
	begun   time.Time
	network *kfake.VirtualNetwork
	cluster *kfake.Cluster
	wire    *wire // of what is no replica: the writer of the inputs and the check
	client  *kgo.Client
	ledger  *ledgertest.Memory
	skies   *skies
	journal *journal
	markers *markers
	slots   []*slot
	running sync.WaitGroup

	ctx context.Context
	end context.CancelFunc

	mu       sync.Mutex
	log      []string
	wires    []*wire
	bits     map[string]int
	problems []string
	outcomes map[string]int
	records  int
	accused  bool // something has happened that may convict a record
	twins    bool
	restores []restore
	saw      verify.Saw
	jammed   bool
	repeated []verify.Range // of the inputs, which may have been processed twice

	mayHalt   int32 // the partition of the inputs of which a halt is expected, -1 for none
	hasHalted bool
}

const (
	brokers   = 3
	firstPort = 9092
	// historyMax is in virtual time, so that a history which can't end fails instead of running for ever.
	historyMax = 15 * time.Minute
)

// recoveredMax is how many parked effects a new owner of a lane is given at once: few, so that it has to read the others.
const recoveredMax = 3

func open(script Script) (*world, error) {
	w := &world{script: script, begun: time.Now(), network: new(kfake.VirtualNetwork), ledger: &ledgertest.Memory{RecoveredMax: recoveredMax}, bits: map[string]int{}, outcomes: map[string]int{}, mayHalt: -1}
	w.ctx, w.end = context.WithTimeout(context.Background(), historyMax)
	var err error
	w.cluster, err = kfake.NewCluster(kfake.NumBrokers(brokers), kfake.ListenFn(w.network.Listen), kfake.Ports(firstPort, firstPort+1, firstPort+2),
		kfake.SeedTopics(partitions, inTopic, outA, outB, outSettled), kfake.SeedTopics(lanes, effectsTopic, resultsTopic), kfake.SeedTopics(1, deadTopic, controlTopic),
		kfake.BrokerConfigs(map[string]string{"log.cleaner.backoff.ms": "86400000", "group.consumer.heartbeat.interval.ms": "1000", "group.consumer.session.timeout.ms": "6000"}))
	if err != nil {
		return nil, err
	}
	if err := w.cluster.CreateTopic(progressTopic, lanes, map[string]string{"cleanup.policy": "compact"}); err != nil {
		return nil, err
	}
	w.markers = &markers{world: w}
	w.markers.watch()
	w.wire = w.newWire(newPower())
	w.client, err = kgo.NewClient(kgo.SeedBrokers(w.cluster.ListenAddrs()...), kgo.Dialer(w.wire.dial), kgo.DisableClientMetrics(), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		return nil, err
	}
	if script.Start == txn.StartFail {
		for _, topic := range []string{inTopic, resultsTopic} {
			start := map[int32]int64{}
			for _, p := range w.cluster.PartitionInfos(topic) {
				start[p.Partition] = 0
			}
			if !w.operator(start, topic) {
				return nil, errors.New("the operator can't set the first offsets")
			}
		}
	}
	w.skies = &skies{seed: script.Seed, bit: w.bit}
	w.journal = &journal{seed: script.Seed, bit: w.bit, epochs: map[int32]int64{}}
	for i := range script.Replicas {
		w.slots = append(w.slots, &slot{world: w, name: fmt.Sprintf("r%d", i)})
	}
	return w, nil
}

// close ends what is left and waits for it.
func (w *world) close() {
	w.end()
	for _, s := range w.slots {
		if p := s.current(); p != nil {
			s.take(p)
			p.die()
		}
	}
	w.running.Wait()
	w.client.Close()
	w.cluster.Close()
	time.Sleep(2 * time.Minute) //nolint:forbidigo // virtual time: what a drain timeout has left behind ends by itself, but not after the bubble
}

func (w *world) newWire(power *power) *wire {
	wire := newWire(w.cluster, w.network.DialContext, power, w.bit)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wires = append(w.wires, wire)
	return wire
}

func (w *world) allWires() []*wire {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.wires)
}

func (w *world) closing() bool { return w.ctx.Err() != nil }

// sleep waits in virtual time, until the history ends.
func (w *world) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.ctx.Done():
	}
}

// note keeps a line of the story.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf("%9.3fs ", time.Since(w.begun).Seconds())+fmt.Sprintf(format, args...))
}

// bit counts a fault that did something.
func (w *world) bit(kind string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bits[kind]++
}

// problem is a violation.
func (w *world) problem(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, fmt.Sprintf(format, args...))
}

// halted is a violation too: no script has a fault that an operator must decide about.
func (w *world) halted(format string, args ...any) {
	w.note(format, args...)
	w.problem("HALTED "+format, args...)
}

func (w *world) ended(p *process, e txn.Ended) {
	w.note("%s: lane %d %s %d records, %s, %s %v", p.name, e.Lane, e.Outcome, e.Records, e.Duration, e.Reason, e.Err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.outcomes[string(e.Outcome)]++
	if e.Outcome == txn.Committed {
		w.records += e.Records
	}
	if e.Reason == txn.ReasonHandler || e.Reason == txn.ReasonRefused {
		w.accused = true
	}
}

// refused looks at what the ledger answered: it refuses what no sound process asks for, and says so.
func (w *world) refused(p *process, method string, err error) {
	if (method == "Get" || method == "Results") && w.hasRestores() {
		return // what it asks for is not there any more, or not yet again
	}
	for _, lawful := range []error{nil, context.DeadlineExceeded, context.Canceled, outbox.ErrFenced, outbox.ErrHeld, outbox.ErrOvertaken} {
		if errors.Is(err, lawful) {
			return
		}
	}
	w.problem("UNSOUND the ledger refused %s of %s: %v", method, p.name, err)
}

// feed writes the inputs in waves, each once: the generator's own answers are not lost.
func (w *world) feed() error {
	next := map[string]int{}
	for id := range w.script.Inputs {
		key := keyOf(id)
		next[key]++
		value, err := json.Marshal(input{ID: id, Key: key, N: next[key]})
		if err != nil {
			return err
		}
		partition := int32(dice(len(key)*31+int(key[len(key)-1]), "partition") % partitions)
		w.client.Produce(w.ctx, &kgo.Record{Topic: inTopic, Partition: partition, Key: []byte(key), Value: value}, func(_ *kgo.Record, err error) {
			if err != nil && !w.closing() {
				w.problem("SETUP produce an input: %v", err)
			}
		})
		if id%w.script.Wave == w.script.Wave-1 {
			w.sleep(w.script.Spread * time.Duration(w.script.Wave) / time.Duration(w.script.Inputs))
		}
	}
	return w.client.Flush(w.ctx)
}

// drainMax is how long a healed system may take to come to rest, in virtual time.
const drainMax = 4 * time.Minute

// jammedAfter is much longer than a rebalance may last: a broker ends it after rebalanceTimeout, with whoever
// has joined. kfake now and then miscounts who is still to join, when static members die while they do, and
// then waits for ever. Nothing can be said of such a history; it is counted.
const jammedAfter = 2*time.Minute + 30*time.Second

var errJammed = errors.New("a group of the fake does not end its rebalance")

// drained waits until nothing is left to do and reports what is, if that takes too long.
func (w *world) drained() error {
	var why string
	settled := map[string]time.Time{} // when a group was last not in a rebalance
	rested := 0
	for deadline := time.Now().Add(drainMax); time.Now().Before(deadline) && !w.closing(); w.sleep(time.Second) {
		if why = w.unfinished(); why == "" {
			if rested++; rested > w.restFor() {
				return nil
			}
			continue
		}
		rested = 0
		for _, one := range []string{group, ledgerGroup} {
			info := w.cluster.GroupInfo(one)
			if since, known := settled[one]; !known || info == nil || info.State != "PreparingRebalance" {
				settled[one] = time.Now()
			} else if time.Since(since) > jammedAfter {
				return errJammed
			}
		}
	}
	if w.closing() {
		return fmt.Errorf("the history has not ended within %s: %s", historyMax, why)
	}
	return fmt.Errorf("not at rest %s after the last fault: %s\n%s%s", drainMax, why, w.groupStory(group), w.groupStory(ledgerGroup))
}

// groupStory tells who is in a group and what each has, a line each.
func (w *world) groupStory(name string) string {
	info := w.cluster.GroupInfo(name)
	if info == nil {
		return name + " is not there\n"
	}
	var told strings.Builder
	fmt.Fprintf(&told, "%s is %s at generation %d\n", name, info.State, info.Epoch)
	for _, m := range info.Members {
		fmt.Fprintf(&told, "  %s of %s has %v\n", m.MemberID, m.ClientID, m.Assignment)
	}
	return told.String()
}

// unfinished names the first thing that is still to do.
func (w *world) unfinished() string {
	info := w.cluster.GroupInfo(group)
	if info == nil {
		return "the group is not there"
	}
	for _, topic := range []string{inTopic, resultsTopic} {
		for _, p := range w.cluster.PartitionInfos(topic) {
			if commit, ok := info.Commits[topic][p.Partition]; p.HighWatermark > 0 && (!ok || commit.Offset != p.HighWatermark) {
				return fmt.Sprintf("%s/%d is committed up to %d of %d (stable %d)", topic, p.Partition, commit.Offset, p.HighWatermark, p.LastStableOffset)
			}
		}
	}
	// What a process that is gone for good has left open ends with its timeout.
	for _, topic := range []string{outA, outB, outSettled, deadTopic} {
		for _, p := range w.cluster.PartitionInfos(topic) {
			if p.LastStableOffset < p.HighWatermark {
				return fmt.Sprintf("%s/%d is stable up to %d of %d", topic, p.Partition, p.LastStableOffset, p.HighWatermark)
			}
		}
	}
	for _, p := range w.cluster.PartitionInfos(effectsTopic) {
		next, seq := int64(-1), int64(-1)
		var why []string
		for _, s := range w.slots {
			process := s.current()
			if process == nil {
				continue
			}
			for _, l := range process.ingester.Status() {
				if l.Lane == p.Partition {
					next = max(next, l.Next)
					why = append(why, fmt.Sprintf("ingest %s %s %d %v", process.name, l.State, l.Next, l.Err))
				}
			}
			for _, l := range process.relay.Status().Lanes {
				if l.Lane == p.Partition {
					seq = max(seq, l.Seq)
					why = append(why, fmt.Sprintf("relay %s %s %d %s", process.name, l.Phase, l.Seq, l.Error))
				}
			}
		}
		if next < p.HighWatermark || w.ledger.Next(p.Partition) < p.HighWatermark {
			return fmt.Sprintf("lane %d is ingested up to %d of %d (stable %d): %q", p.Partition, next, p.HighWatermark, p.LastStableOffset, why)
		}
		outcomes, last := w.outcomesOf(p.Partition)
		if intents := len(w.ledger.Intents(p.Partition)); len(outcomes) < intents {
			return fmt.Sprintf("lane %d has %d outcomes of %d intents", p.Partition, len(outcomes), intents)
		}
		if seq < last {
			return fmt.Sprintf("lane %d is relayed up to flush %d of %d: %q", p.Partition, seq, last, why)
		}
	}
	return ""
}

// outcomesOf gives the outcomes of a lane by offset, and the last flush that had one.
func (w *world) outcomesOf(lane int32) (outcomes map[int64][]outbox.Outcome, last int64) {
	outcomes = map[int64][]outbox.Outcome{}
	results, err := w.ledger.Results(context.Background(), lane, 0, 1<<30)
	if err != nil {
		panic(err)
	}
	for _, r := range results {
		outcomes[r.Outcome.Offset] = append(outcomes[r.Outcome.Offset], r.Outcome)
		last = r.Seq
	}
	return outcomes, last
}

// report is what is printed of a history that failed.
func (w *world) report() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := append([]string(nil), w.problems[:min(len(w.problems), 20)]...)
	if more := len(w.problems) - len(lines); more > 0 {
		lines = append(lines, fmt.Sprintf("... and %d more", more))
	}
	return strings.Join(lines, "\n")
}

// story is all that was noted, for a file.
func (w *world) story() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.log, "\n") + "\n"
}
