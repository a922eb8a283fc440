package dev

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"pawl/internal/kafka"
)

// partitionKey names one partition of a topic.
type partitionKey struct {
	topic     string
	partition int32
}

// kill ends the victim with SIGKILL while one of its transactions is open and has outputs in the
// log and, where there is a ledger, some of its calls wait for their answer. It freezes the victim first (SIGSTOP), asks the broker, and lets it run on where the moment is
// a bad one: so it is certain, not likely, that the victim dies in mid-transaction. It returns the
// committed offsets of the partitions that the victim owned.
func (d *demo) kill(ctx context.Context, victim *instance) (map[partitionKey]int64, error) {
	for try := 1; try <= killTries; try++ {
		if d.fed.Load() {
			if _, lag, _, err := d.rig.lag(ctx); err != nil || lag == 0 {
				return nil, errors.Join(err, fmt.Errorf("all orders were through before %s was caught in mid-transaction%s (%d tries): give more --orders", victim.name, d.andCalls(), try-1))
			}
		}
		if err := victim.process.signal(syscall.SIGSTOP); err != nil {
			return nil, err
		}
		open, err := d.openTransaction(ctx, victim)
		calls := d.underWay(victim)
		if err == nil && open != nil && (calls > 0 || d.rig.outside == nil) {
			return d.killFrozen(ctx, victim, open, calls, try)
		}
		if resumeErr := victim.process.signal(syscall.SIGCONT); err != nil || resumeErr != nil {
			return nil, errors.Join(err, resumeErr)
		}
		if err := pause(ctx, killPause+time.Duration(try%5)*time.Millisecond); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s was never in mid-transaction%s in %d tries: give a higher --rate", victim.name, d.andCalls(), killTries)
}

func (d *demo) killFrozen(ctx context.Context, victim *instance, open *openTransaction, calls, try int) (map[partitionKey]int64, error) {
	owned, err := d.owned(ctx, victim)
	if err != nil {
		return nil, err
	}
	d.proof.Kill = Kill{
		Instance: victim.name, Transaction: open.id, State: open.state, Partitions: open.partitions, Calls: calls, Tries: try, at: time.Now(),
	}
	victim.process.kill()
	return owned, nil
}

// underWay counts the calls of an instance that the endpoint has taken and not answered.
func (d *demo) underWay(i *instance) int {
	if d.rig.outside == nil {
		return 0
	}
	return d.rig.outside.endpoint.UnderWay(i.name)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// openTransaction is a transaction with outputs in the log.
type openTransaction struct {
	id, state  string
	partitions []string // of outputs, that hold records of it
}

// openTransaction finds a transaction of a frozen instance that is open, has outputs in the log and
// stays so for a moment; nil where there is none.
func (d *demo) openTransaction(ctx context.Context, victim *instance) (*openTransaction, error) {
	find := func() ([]kafka.Transaction, error) {
		return kafka.OpenTransactions(ctx, d.rig.admin, application+"."+victim.name+".")
	}
	first, err := find()
	if err != nil || len(first) == 0 {
		return nil, err
	}
	if err := pause(ctx, killSettle); err != nil {
		return nil, err
	}
	second, err := find()
	if err != nil {
		return nil, err
	}
	for _, one := range second {
		same := slices.ContainsFunc(first, func(t kafka.Transaction) bool {
			return t.TransactionalID == one.TransactionalID && t.ProducerID == one.ProducerID && t.Epoch == one.Epoch
		})
		if !same || one.State != "Ongoing" {
			continue
		}
		written, err := d.written(ctx, one)
		if err != nil {
			return nil, err
		}
		if len(written) > 0 {
			return &openTransaction{id: one.TransactionalID, state: one.State, partitions: written}, nil
		}
	}
	return nil, nil //nolint:nilnil // none is an answer, and no error
}

// written lists the output partitions that hold records of an open transaction.
func (d *demo) written(ctx context.Context, open kafka.Transaction) ([]string, error) {
	topics := make(kadm.TopicsSet)
	for _, topic := range d.topics() {
		topics.Add(topic)
	}
	described, err := d.rig.admin.DescribeProducers(ctx, topics)
	if err != nil {
		return nil, fmt.Errorf("describe producers: %w", err)
	}
	var written []string
	described.EachProducer(func(producer kadm.DescribedProducer) {
		if producer.ProducerID == open.ProducerID && producer.CurrentTxnStartOffset >= 0 {
			written = append(written, fmt.Sprintf("%s/%d", producer.Topic, producer.Partition))
		}
	})
	slices.Sort(written)
	return written, nil
}

// topics are those that the processors write for a reader.
func (d *demo) topics() []string {
	s := d.rig.settings
	topics := append(sortedTopics(s.OutputTopics()), s.EffectsTopic(), s.DeadLetterTopic())
	if d.rig.outside != nil {
		topics = append(topics, s.ResultsTopic())
	}
	return topics
}

func sortedTopics(outputs map[string]string) []string { return slices.Sorted(maps.Values(outputs)) }

// owned finds the input partitions of an instance and how far they are committed.
func (d *demo) owned(ctx context.Context, victim *instance) (map[partitionKey]int64, error) {
	groups, err := d.rig.admin.DescribeGroups(ctx, d.rig.settings.Group())
	if err != nil {
		return nil, fmt.Errorf("describe group: %w", err)
	}
	_, _, lags, err := d.rig.lag(ctx)
	if err != nil {
		return nil, err
	}
	owned := make(map[partitionKey]int64)
	for _, group := range groups {
		for i := range group.Members {
			member := &group.Members[i]
			if member.InstanceID == nil || !strings.HasPrefix(*member.InstanceID, application+"."+victim.name+".") {
				continue
			}
			assignment, ok := member.Assigned.AsConsumer()
			if !ok {
				continue
			}
			for _, topic := range assignment.Topics {
				for _, lag := range lags {
					if topic.Topic == inputTopic && lag.Topic == inputTopic && slices.Contains(topic.Partitions, lag.Partition) {
						owned[partitionKey{lag.Topic, lag.Partition}] = lag.Committed
					}
				}
			}
		}
	}
	if len(owned) == 0 {
		return nil, fmt.Errorf("%s owns no partition of %s", victim.name, inputTopic)
	}
	return owned, nil
}

// waitRecovered waits until a partition that the victim owned is committed further than at its
// death. Nobody else does that: the group keeps a static member's partitions for it.
func (d *demo) waitRecovered(ctx context.Context, victim *instance, held map[partitionKey]int64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, recoverTimeout, fmt.Errorf("%s committed nothing for %s after its restart", victim.name, recoverTimeout))
	defer cancel()
	return until(ctx, pollEvery, func() (bool, error) {
		_, _, lags, err := d.rig.lag(ctx)
		if err != nil {
			return false, err
		}
		for _, lag := range lags {
			if was, owned := held[partitionKey{lag.Topic, lag.Partition}]; owned && lag.Committed > was {
				d.proof.Kill.Recovered = time.Since(victim.began)
				d.proof.Kill.Outage = time.Since(d.proof.Kill.at)
				return true, nil
			}
		}
		return false, nil
	})
}
