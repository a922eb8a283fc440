//go:build chaos && linux

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// topicTroubles move leaders, coordinators and replicas while all brokers are well.
func topicTroubles() []trouble {
	move := func(name string, topic func(*tempest) string) trouble {
		return trouble{name: name, seat: onTopics, least: 3, most: 8, strike: func(ctx context.Context, w *tempest, a act) (string, error) {
			return w.moveLeaders(ctx, topic(w), a.random())
		}}
	}
	shrink := func(name string, topic func(*tempest) string) trouble {
		return trouble{name: name, seat: onTopics, least: 4, most: 9, strike: func(ctx context.Context, w *tempest, a act) (string, error) {
			return w.moveReplicas(ctx, topic(w), a.random())
		}}
	}
	suffix := func(suffix string) func(*tempest) string {
		return func(w *tempest) string { return w.application + suffix }
	}
	internal := func(name string) func(*tempest) string { return func(*tempest) string { return name } }
	return []trouble{
		move("leaders of the input moved", suffix(".in")),
		move("leaders of an output moved", suffix(".out")),
		move("leaders of the effects moved", suffix(".effects")),
		move("group coordinators moved", internal("__consumer_offsets")),
		move("transaction coordinators moved", internal("__transaction_state")),
		shrink("replicas of the input moved", suffix(".in")),
		shrink("replicas of an output moved", suffix(".out")),
	}
}

// replicas of the partitions of a topic, with their leaders.
type replicas map[int32]kadm.PartitionDetail

func (w *tempest) replicas(ctx context.Context, topic string) (replicas, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	topics, err := w.admin.ListTopicsWithInternal(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", topic, err)
	}
	if err := topics[topic].Err; err != nil {
		return nil, fmt.Errorf("look at %s: %w", topic, err)
	}
	return replicas(topics[topic].Partitions), nil
}

func (w *tempest) reassign(ctx context.Context, topic string, wanted map[int32][]int32) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	request := kadm.AlterPartitionAssignmentsReq{}
	for partition, brokers := range wanted {
		request.Assign(topic, partition, brokers)
	}
	answers, err := w.admin.AlterPartitionAssignments(ctx, request)
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		return fmt.Errorf("reassign %s: %w", topic, err)
	}
	return nil
}

// moveLeaders makes another replica the preferred one of every partition and elects it, every few seconds.
func (w *tempest) moveLeaders(ctx context.Context, topic string, random *rand.Rand) (string, error) {
	moved := 0
	for ctx.Err() == nil {
		before, err := w.replicas(w.ctx, topic)
		if err != nil {
			return "", err
		}
		wanted := map[int32][]int32{}
		for partition, detail := range before {
			brokers := slices.Clone(detail.Replicas)
			slices.Sort(brokers)
			random.Shuffle(len(brokers), func(i, j int) { brokers[i], brokers[j] = brokers[j], brokers[i] })
			wanted[partition] = brokers
		}
		if err := w.reassign(ctx, topic, wanted); err != nil && ctx.Err() == nil {
			return "", err
		}
		elect := kadm.TopicsSet{}
		for partition := range wanted {
			elect.Add(topic, partition)
		}
		// What is led by the preferred replica already says so as an error.
		_, _ = w.admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, elect)
		waitOr(ctx.Done(), electEvery)
		after, err := w.replicas(w.ctx, topic)
		if err != nil {
			return "", err
		}
		for partition, detail := range after {
			if detail.Leader >= 0 && detail.Leader != before[partition].Leader {
				moved++
			}
		}
	}
	return proofOf(int64(moved), "leaders of "+topic+" moved"), nil
}

const electEvery = 2 * time.Second

// moveReplicas takes one broker out of the replicas of every partition, the leader where chance wants it,
// and gives it back in the end, so that it copies everything anew.
func (w *tempest) moveReplicas(ctx context.Context, topic string, random *rand.Rand) (string, error) {
	before, err := w.replicas(ctx, topic)
	if err != nil {
		return "", err
	}
	out := int32(random.IntN(w.kafka.Nodes()))
	less, all := map[int32][]int32{}, map[int32][]int32{}
	for partition, detail := range before {
		all[partition] = detail.Replicas
		less[partition] = slices.DeleteFunc(slices.Clone(detail.Replicas), func(broker int32) bool { return broker == out })
	}
	if err := w.reassign(ctx, topic, less); err != nil {
		return "", err
	}
	left := until(ctx, func() bool {
		now, err := w.replicas(ctx, topic)
		if err != nil {
			return false
		}
		for _, detail := range now {
			if slices.Contains(detail.Replicas, out) {
				return false
			}
		}
		return true
	})
	<-ctx.Done()
	var last error
	heal, cancel := context.WithTimeout(w.ctx, inSyncTimeout)
	defer cancel()
	if !until(heal, func() bool { last = w.reassign(heal, topic, all); return last == nil }) {
		return "", last
	}
	if err := w.awaitInSync(); err != nil || !left {
		return "", err
	}
	return fmt.Sprintf("broker %d gave up its %d replicas of %s and got them back", out, len(all), topic), nil
}
