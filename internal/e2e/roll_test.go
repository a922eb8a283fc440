//go:build chaos && linux

package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/cluster"
	"pawl/internal/load"
	"pawl/internal/testkit"
)

const (
	rollRate = 5000 // records a second, the whole time
	// stallMax bounds the time for which a partition of the output gets nothing while processes come and go.
	stallMax = 3 * time.Second
	// lull is for how long nothing happens between two steps, so that each is measured by itself.
	lull = 5 * time.Second
)

// TestRollingRestartAndScale restarts three processors one after the other under load, in both group protocols, and
// then has one, four and two of them.
func TestRollingRestartAndScale(t *testing.T) {
	// A member of the consumer protocol learns what it has to give and to take with a heartbeat.
	k := testkit.OpenKafka(t, cluster.KafkaConfig{Nodes: 1, Settings: map[string]string{
		"group.consumer.min.heartbeat.interval.ms": "1000", "group.consumer.heartbeat.interval.ms": "1000",
	}})
	for _, protocol := range []string{"classic", "consumer"} {
		t.Run(protocol, func(t *testing.T) {
			s := openStream(t, k, "kafka.protocol="+protocol)
			all := s.rig.processors("a", "b", "c", "d")
			s.begin(t, all[:3])
			for _, p := range all[:3] {
				s.step(t, "restart of "+p.name, func() { s.replace(t, p, p.program) })
			}
			s.step(t, "3 to 1", func() { s.dismiss(t, all[1], all[2]) })
			s.step(t, "1 to 4", func() { s.hire(t, all[1:]...) })
			s.step(t, "4 to 2", func() { s.dismiss(t, all[2:]...) })
			s.conclude(t)
		})
	}
}

// TestRollFromThePreviousVersionAndBack has processors of the commit before this one replaced by today's, one after the
// other, and back: both work on one group, one control topic and one output at once.
func TestRollFromThePreviousVersionAndBack(t *testing.T) {
	before := previous(t)
	for _, program := range []*program{before, shipped} {
		program.build(t) // here, since no partition waits for it
	}
	s := openStream(t, testkit.OpenKafka(t, cluster.KafkaConfig{Nodes: 1}))
	all := s.rig.processors("a", "b", "c")
	for _, p := range all {
		p.program = before
	}
	s.begin(t, all)
	for _, to := range []*program{shipped, before} {
		for _, p := range all {
			s.step(t, fmt.Sprintf("%s becomes %s", p.name, to), func() { s.replace(t, p, to) })
		}
	}
	s.conclude(t)
}

// processors makes some that are not started.
func (r *rig) processors(names ...string) []*processor {
	var all []*processor
	for _, name := range names {
		all = append(all, r.processor(name))
	}
	return all
}

// stream is a steady load, copied by processors that come and go, and what a reader of the output notices of it.
type stream struct {
	rig  *rig
	load *trickle

	mu      sync.Mutex
	last    map[int32]time.Time // delivery, by partition of the output
	stall   time.Duration       // longest gap between two of them since the step began
	at      int32               // its partition
	latency *load.Histogram     // since the step began
}

func openStream(t *testing.T, k *cluster.Kafka, settings ...string) *stream {
	t.Helper()
	return &stream{rig: newRig(t, k, settings...), last: map[int32]time.Time{}, latency: &load.Histogram{}}
}

// begin starts the processors, then the load, and waits until every partition has been copied from.
func (s *stream) begin(t *testing.T, processors []*processor) {
	t.Helper()
	s.hire(t, processors...)
	reader, err := load.OpenReader(t.Context(), load.ReaderConfig{
		Options: []kgo.Opt{kgo.SeedBrokers(s.rig.kafka.InternalBrokers()...)}, Topics: []string{s.rig.output}, Delivered: s.delivered,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- reader.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		reader.Close()
	})
	s.load = s.rig.trickle(t, rollRate)
	testkit.WaitFor(t, startTimeout, "every partition to be copied from", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.last) == partitions
	})
}

// delivered runs on the reader's goroutine.
func (s *stream) delivered(record *kgo.Record, at time.Time) {
	_, called, ok := load.StampPlain(record)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if before, seen := s.last[record.Partition]; seen && at.Sub(before) > s.stall {
		s.stall, s.at = at.Sub(before), record.Partition
	}
	s.last[record.Partition] = at
	s.latency.Record(at.Sub(called))
}

// step lets something happen and says what the reader noticed of it.
func (s *stream) step(t *testing.T, what string, happen func()) {
	t.Helper()
	s.mu.Lock()
	s.stall, s.latency = 0, &load.Histogram{}
	s.mu.Unlock()
	began := time.Now()
	happen()
	took := time.Since(began)
	moment := time.NewTimer(lull)
	defer moment.Stop()
	<-moment.C
	s.mu.Lock()
	defer s.mu.Unlock()
	t.Logf("%s: %.2fs; longest stall %.2fs; %s", what, took.Seconds(), s.stall.Seconds(), s.latency.Summary())
	if s.stall > stallMax {
		t.Errorf("%s: partition %d got nothing for %s, want no more than %s", what, s.at, s.stall, stallMax)
	}
	for partition, last := range s.last {
		if still := time.Since(last); still > stallMax {
			t.Errorf("%s: partition %d has got nothing for %s", what, partition, still)
		}
	}
}

// hire starts processors and waits until they are in the group.
func (s *stream) hire(t *testing.T, processors ...*processor) {
	t.Helper()
	for _, p := range processors {
		p.start(t)
	}
	for _, p := range processors {
		p.awaitReady(t)
	}
}

// replace restarts a processor as an orchestrator does, with a program.
func (s *stream) replace(t *testing.T, p *processor, with *program) {
	t.Helper()
	p.terminate(t, endTimeout)
	p.program = with
	p.start(t)
	p.awaitReady(t)
	p.awaitCommits(t, startTimeout, 1)
}

// dismiss takes processors out of the group, and then away.
func (s *stream) dismiss(t *testing.T, processors ...*processor) {
	t.Helper()
	for _, p := range processors {
		p.leave(t)
		p.await(t, endTimeout, "drained", func() bool { return p.metric("processor_lanes", `phase="stopped"`) == lanes })
		p.terminate(t, endTimeout)
	}
}

// conclude ends the load and judges everything: each record once, and next to nothing done in vain.
func (s *stream) conclude(t *testing.T) {
	t.Helper()
	records := s.load.halt(t)
	s.rig.awaitCaughtUp(t)
	saw := s.rig.verify(t, nil)
	if saw.Judged != records {
		t.Errorf("the input has %d records, want the %d that the producer knows of", saw.Judged, records)
	}
	t.Logf("%d records once each; %d records in %d aborted transactions, %.2f %%", saw.Judged, saw.Aborted, saw.TransactionsAborted, 100*float64(saw.Aborted)/float64(saw.Judged))
	if saw.Aborted*100 >= saw.Judged {
		t.Errorf("%d records were written in vain beside %d, want below 1 %%", saw.Aborted, saw.Judged)
	}
}
