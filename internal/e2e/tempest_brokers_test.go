//go:build chaos && linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const inSyncTimeout = 40 * time.Second // for a broker that is back, on a busy machine

// role is why a broker is the victim.
type role string

const (
	roleLeader        role = "leader"            // of a partition of the input
	roleController    role = "controller"        // the active one
	roleGroup         role = "group coordinator" // of the application
	roleTransactional role = "transaction coordinator"
)

// brokerTroubles are those of the brokers' processes; one at a time, so that a majority is left.
func brokerTroubles() []trouble {
	var all []trouble
	for _, role := range []role{roleLeader, roleController, roleGroup, roleTransactional} {
		all = append(
			all,
			trouble{name: string(role) + " killed", seat: onBrokers, least: 3, most: 8, strike: func(ctx context.Context, w *tempest, a act) (string, error) {
				return w.withoutBroker(ctx, role, a, w.kafka.Kill)
			}},
			trouble{name: string(role) + " frozen", seat: onBrokers, least: 5, most: 12, strike: func(ctx context.Context, w *tempest, a act) (string, error) {
				return w.freezeBroker(ctx, role, a)
			}},
		)
	}
	return append(all, trouble{name: "broker stopped in good order", seat: onBrokers, least: 3, most: 8, strike: func(ctx context.Context, w *tempest, a act) (string, error) {
		return w.withoutBroker(ctx, roleLeader, a, w.kafka.Stop)
	}})
}

// withoutBroker ends a broker, starts it again when ctx ends, and waits until it is in sync.
func (w *tempest) withoutBroker(ctx context.Context, role role, a act, end func(node int) error) (string, error) {
	node, err := w.brokerOf(ctx, role, a.random())
	if err != nil {
		return "", err
	}
	if err := end(node); err != nil {
		return "", err
	}
	dead := w.kafka.Pid(node) == 0
	<-ctx.Done()
	if err := w.kafka.Start(w.ctx, node); err != nil {
		return "", err
	}
	if err := w.awaitInSync(); err != nil || !dead {
		return "", err
	}
	return fmt.Sprintf("broker %d died", node), nil
}

// freezeBroker stops a broker (SIGSTOP) for longer than its session with the controller.
func (w *tempest) freezeBroker(ctx context.Context, role role, a act) (string, error) {
	node, err := w.brokerOf(ctx, role, a.random())
	if err != nil {
		return "", err
	}
	if err := w.kafka.Pause(node); err != nil {
		return "", err
	}
	<-ctx.Done()
	stopped := stateOf(w.kafka.Pid(node)) == "T"
	if err := w.kafka.Resume(node); err != nil {
		return "", err
	}
	if err := w.awaitInSync(); err != nil || !stopped {
		return "", err
	}
	return fmt.Sprintf("broker %d stood for %.0f s", node, a.Seconds), nil
}

// brokerOf finds the broker that has a role now.
func (w *tempest) brokerOf(ctx context.Context, role role, random *rand.Rand) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	switch role {
	case roleController:
		request := kmsg.NewPtrDescribeQuorumRequest()
		topic := kmsg.NewDescribeQuorumRequestTopic()
		topic.Topic = "__cluster_metadata"
		topic.Partitions = append(topic.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
		request.Topics = append(request.Topics, topic)
		answer, err := request.RequestWith(ctx, w.client)
		if err != nil {
			return 0, fmt.Errorf("find the controller: %w", err)
		}
		if len(answer.Topics) == 0 || len(answer.Topics[0].Partitions) == 0 || answer.Topics[0].Partitions[0].LeaderID < 0 {
			return 0, errors.New("find the controller: nobody leads")
		}
		return int(answer.Topics[0].Partitions[0].LeaderID), nil
	case roleGroup:
		return coordinatorOf(w.admin.FindGroupCoordinators(ctx, w.application), w.application)
	case roleTransactional:
		id := fmt.Sprintf("%s.%s.0", w.application, w.steady[random.IntN(len(w.steady))].name)
		return coordinatorOf(w.admin.FindTxnCoordinators(ctx, id), id)
	default:
		leader, err := w.leaderOf(ctx, w.input, int32(random.IntN(partitions)))
		return int(leader), err
	}
}

func coordinatorOf(found kadm.FindCoordinatorResponses, name string) (int, error) {
	one := found[name]
	if err := errors.Join(found.Error(), one.Err); err != nil {
		return 0, fmt.Errorf("find the coordinator of %s: %w", name, err)
	}
	return int(one.NodeID), nil
}

func (w *tempest) leaderOf(ctx context.Context, topic string, partition int32) (int32, error) {
	topics, err := w.admin.ListTopicsWithInternal(ctx, topic)
	if err != nil {
		return 0, fmt.Errorf("find the leader of %s/%d: %w", topic, partition, err)
	}
	leader := topics[topic].Partitions[partition].Leader
	if leader < 0 || topics[topic].Err != nil {
		return 0, fmt.Errorf("%s/%d has no leader", topic, partition)
	}
	return leader, nil
}

// awaitInSync waits until every replica of every topic is in sync, so that the next broker may go.
func (w *tempest) awaitInSync() error {
	ctx, cancel := context.WithTimeout(w.ctx, inSyncTimeout)
	defer cancel()
	if !until(ctx, func() bool { return w.inSync(ctx) }) {
		return fmt.Errorf("not all replicas are in sync after %s", inSyncTimeout)
	}
	return nil
}
