//go:build synctests

package sim

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"pawl/internal/txn"
	"pawl/internal/verify"
)

// Offsets expire when nobody has been in the group for days (offsets.retention.minutes); here somebody deletes those
// of one partition while all are away. What must come of it is up to input.start:
//
//   - fail: the partition halts, nothing of it is read, the others go on. An operator who knows where it stood says
//     so with `offsets set`, and not a record is lost or done twice.
//   - earliest: the partition is read again from its start. Outputs come twice, which the promise allows; effects do
//     not, because the ledger knows what it was given.
//
// With latest there would be nothing to hold the outcome against: whatever came while everybody was away is skipped.
func (n *nemesis) expireOffsets(f Fault) func() {
	w := n.world
	partition := int32(f.Node % partitions)
	return func() {
		at, ok := n.forget(partition)
		if !ok {
			w.resume()
			return
		}
		w.bit(f.name())
		w.note("offset %d of %s/%d is gone", at, inTopic, partition)
		if w.script.Start != txn.StartFail {
			w.rewound(verify.Range{Topic: inTopic, Partition: partition, To: at})
			w.sleep(f.For)
			w.resume()
			return
		}
		w.expectHalt(partition)
		w.sleep(f.For)
		w.resume()
		if !w.halts(partition) {
			w.problem("NOT-HALTED %s/%d has no committed offset, input.start is fail, and nobody halted within %s", inTopic, partition, haltedWithin)
			return
		}
		w.sleep(operatorTakes)
		if info := w.cluster.GroupInfo(group); info != nil {
			if commit, is := info.Commits[inTopic][partition]; is {
				w.problem("STARTED %s/%d is committed up to %d, though its offset was lost and input.start is fail", inTopic, partition, commit.Offset)
			}
		}
		if !w.standStill() || !w.operator(map[int32]int64{partition: at}, inTopic) {
			w.void("the operator can't set the offset of %s/%d", inTopic, partition)
		}
		w.expectHalt(-1)
		w.resume()
	}
}

const (
	haltedWithin  = 2 * time.Minute
	operatorTakes = 5 * time.Second
	emptyWithin   = time.Minute
)

// forget stops everything and deletes the offset of a partition of the inputs. It gives that offset.
func (n *nemesis) forget(partition int32) (at int64, did bool) {
	w := n.world
	if !w.standStill() {
		return 0, false
	}
	commit, is := w.cluster.GroupInfo(group).Commits[inTopic][partition]
	if !is || commit.Offset == 0 {
		return 0, false
	}
	gone := kadm.TopicsSet{}
	gone.Add(inTopic, partition)
	if !w.insist(func(ctx context.Context) error {
		answer, err := kadm.NewClient(w.client).DeleteOffsets(ctx, group, gone)
		if err == nil {
			err = answer.Error()
		}
		return err
	}) {
		return 0, false
	}
	_, still := w.cluster.GroupInfo(group).Commits[inTopic][partition]
	return commit.Offset, !still
}

// standStill kills every process and keeps it down, until the group has no member. It must be ended by resume.
func (w *world) standStill() bool {
	for _, s := range w.slots {
		s.rest(true)
		s.crash(s.current(), -1)
	}
	begun := time.Now()
	for !w.closing() && time.Since(begun) < emptyWithin {
		w.sleep(time.Second)
		if info := w.cluster.GroupInfo(group); info != nil && info.State == "Empty" {
			return true
		}
		if time.Since(begun) > sessionTimeout+time.Second {
			for _, s := range w.slots {
				w.endSessions(s)
			}
		}
	}
	return false
}

func (w *world) resume() {
	for _, s := range w.slots {
		s.rest(false)
		s.start()
	}
}

// operator sets offsets of a group without members, as `offsets set` does.
func (w *world) operator(to map[int32]int64, topic string) bool {
	info := w.cluster.TopicInfo(topic)
	offsets := kadm.Offsets{}
	for partition, at := range to {
		offsets.Add(kadm.Offset{Topic: topic, TopicID: info.TopicID, Partition: partition, At: at, LeaderEpoch: -1, Metadata: txn.OffsetMetadata(info.TopicID)})
	}
	return w.insist(func(ctx context.Context) error {
		answer, err := kadm.NewClient(w.client).CommitOffsets(ctx, group, offsets)
		if err == nil {
			err = answer.Error()
		}
		return err
	})
}

// insist does what an operator does until it is done: brokers may be in trouble.
func (w *world) insist(deed func(context.Context) error) bool {
	for range 30 {
		err := deed(w.ctx)
		if err == nil {
			return true
		}
		w.note("the operator tries again: %v", err)
		w.sleep(time.Second)
	}
	return false
}

// expectHalt makes the halt of one partition of the inputs lawful; -1: of none.
func (w *world) expectHalt(partition int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mayHalt, w.hasHalted = partition, false
}

// halts waits for the halt that is expected.
func (w *world) halts(partition int32) bool {
	for begun := time.Now(); !w.closing() && time.Since(begun) < haltedWithin; w.sleep(time.Second) {
		w.mu.Lock()
		halted := w.mayHalt == partition && w.hasHalted
		w.mu.Unlock()
		if halted {
			return true
		}
	}
	return false
}

// engineHalted takes a halt of an engine.
func (w *world) engineHalted(p *process, h txn.Halted) {
	w.mu.Lock()
	expected := h.Topic == inTopic && h.Partition == w.mayHalt
	w.hasHalted = w.hasHalted || expected
	w.mu.Unlock()
	if expected {
		w.note("%s: %s/%d halted, as it must: %v", p.name, h.Topic, h.Partition, h.Err)
		return
	}
	w.halted("%s: %s/%d halted: %v", p.name, h.Topic, h.Partition, h.Err)
}

// rewound remembers what may have been done twice.
func (w *world) rewound(what verify.Range) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.repeated = append(w.repeated, what)
}

// void ends a history of which nothing can be said, since the simulation itself failed.
func (w *world) void(format string, args ...any) {
	w.note(format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.jammed = true
}
