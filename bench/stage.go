package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	pollEvery    = 20 * time.Millisecond // between two looks at offsets: 1% of a run of two seconds
	runTimeout   = 5 * time.Minute       // of one run of one peer
	joinTimeout  = time.Minute           // until all members of a peer have joined
	topicTimeout = 30 * time.Second      // until a topic is seen
)

// stage is the broker and what looks at it from outside.
type stage struct {
	settings settings
	brokers  []string
	folder   string
	progress func(string)
	client   *kgo.Client
	admin    *kadm.Client
	broker   int    // its process id, 0 where it isn't ours
	label    string // of the topics and groups, tells a sweep's points from each other
}

func openStage(ctx context.Context, s settings, kafka broker, folder string, progress func(string)) (*stage, error) {
	brokers := kafka.addresses
	client, err := kgo.NewClient(clientOptions(brokers)...)
	if err != nil {
		return nil, fmt.Errorf("open admin client: %w", err)
	}
	if err := client.Ping(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("reach the broker: %w", err)
	}
	return &stage{settings: s, brokers: brokers, folder: folder, progress: progress, client: client, admin: kadm.NewClient(client), broker: kafka.pid, label: "bench"}, nil
}

func (s *stage) close() { s.client.Close() }

// clientOptions are those of bench's own clients.
func clientOptions(brokers []string) []kgo.Opt {
	return []kgo.Opt{kgo.SeedBrokers(brokers...), kgo.MetadataMinAge(50 * time.Millisecond)}
}

func (s *stage) createTopic(ctx context.Context, name string, partitions int) error {
	response, err := s.admin.CreateTopic(ctx, int32(partitions), 1, nil, name) //nolint:gosec // checked to be small by the broker
	if err == nil {
		err = response.Err
	}
	if err != nil {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	return s.awaitTopic(ctx, name, partitions)
}

// awaitTopic waits until the broker shows a topic that the controller has made.
func (s *stage) awaitTopic(ctx context.Context, name string, partitions int) error {
	ctx, cancel := context.WithTimeout(ctx, topicTimeout)
	defer cancel()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		topics, err := s.admin.ListTopics(ctx, name)
		if err == nil && len(topics[name].Partitions) == partitions {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for topic %s to be seen: %w", name, ctx.Err())
		case <-ticker.C:
		}
	}
}

// deleteTopic makes room; what it cannot delete is gone with the broker.
func (s *stage) deleteTopic(ctx context.Context, name string) error {
	if _, err := s.admin.DeleteTopic(ctx, name); err != nil {
		return fmt.Errorf("delete topic %s: %w", name, err)
	}
	return nil
}

// committed is how many records of in the group has committed, and whether everything that was
// written to out can be read: no transaction is open or about to be marked.
func (s *stage) committed(ctx context.Context, j job) (records int64, settled bool, err error) {
	offsets, err := s.admin.FetchOffsetsForTopics(ctx, j.name, j.in)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return 0, false, fmt.Errorf("fetch offsets of %s: %w", j.name, err)
	}
	offsets.Each(func(offset kadm.OffsetResponse) { records += max(offset.At, 0) })
	stable, err := s.admin.ListCommittedOffsets(ctx, j.out)
	if err == nil {
		err = stable.Error()
	}
	if err != nil {
		return 0, false, fmt.Errorf("list stable offsets of %s: %w", j.out, err)
	}
	ends, err := s.admin.ListEndOffsets(ctx, j.out)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return 0, false, fmt.Errorf("list end offsets of %s: %w", j.out, err)
	}
	settled = true
	ends.Each(func(end kadm.ListedOffset) {
		if offset, found := stable.Lookup(end.Topic, end.Partition); !found || offset.Offset < end.Offset {
			settled = false
		}
	})
	return records, settled, nil
}

// joined waits until all members of the peer are in the group and it is stable.
func (s *stage) joined(ctx context.Context, name string, members int, processes []*process) error {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	last := ""
	err := s.poll(ctx, processes, func() (bool, error) {
		groups, err := s.admin.DescribeGroups(ctx, name)
		if err != nil {
			return false, fmt.Errorf("describe group %s: %w", name, err)
		}
		group := groups[name]
		last = fmt.Sprintf("%d of %d members, state %s", len(group.Members), members, group.State)
		return group.State == "Stable" && len(group.Members) == members, nil
	})
	if err != nil {
		return fmt.Errorf("wait for group %s (%s): %w", name, last, err)
	}
	return nil
}

// poll asks done again and again until it says so, a lasting error comes, a process ends or ctx does.
func (s *stage) poll(ctx context.Context, processes []*process, done func() (bool, error)) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		if err := checkAll(processes); err != nil {
			return err
		}
		// A broker answers with a retriable error while it finds the group's coordinator, for instance.
		if finished, err := done(); !kerr.IsRetriable(err) && (finished || err != nil) {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// brokerTime is the CPU time that the broker has used so far, 0 where it isn't ours.
func (s *stage) brokerTime() (time.Duration, error) {
	if s.broker == 0 {
		return 0, nil
	}
	_, used, err := processTimes(s.broker)
	return used, err
}

// with prepares a peer, starts it, calls measure and stops it, whatever happens in between.
func (s *stage) with(ctx context.Context, p peer, j job, measure func(processes []*process) error) (_ usage, err error) {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	if err := p.prepare(ctx, s, j); err != nil {
		return usage{}, fmt.Errorf("%s: %w", p.name(), err)
	}
	// The processes end by stopAll, in order, and not by ctx in the middle of their work.
	commands := p.commands(context.WithoutCancel(ctx), j)
	for i, command := range commands {
		if err := s.settings.profile(command, fmt.Sprintf("%s-%s-%d", j.name, p.name(), i)); err != nil {
			return usage{}, err
		}
	}
	before, err := s.brokerTime()
	if err != nil {
		return usage{}, err
	}
	processes, err := startAll(commands, s.folder, j.name)
	if err == nil {
		err = measure(processes)
	}
	used, stopErr := stopAll(processes)
	after, timeErr := s.brokerTime()
	if err := errors.Join(err, stopErr, timeErr); err != nil {
		return usage{}, fmt.Errorf("%s: %w", p.name(), err)
	}
	used.Broker = after - before
	return used, nil
}
