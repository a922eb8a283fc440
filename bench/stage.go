package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/yardstick"
)

const (
	runTimeout   = 5 * time.Minute  // of one run of one peer
	topicTimeout = 30 * time.Second // until a topic is seen
)

// stage is the broker, what looks at it from outside, and what is to be measured there.
type stage struct {
	*yardstick.Stage
	settings settings
	brokers  []string
	folder   string
	progress func(string)
	broker   int    // its process id, 0 where it isn't ours
	label    string // of the topics and groups, tells a sweep's points from each other
}

func openStage(ctx context.Context, s settings, kafka broker, folder string, progress func(string)) (*stage, error) {
	inner, err := yardstick.Open(ctx, clientOptions(kafka.addresses))
	if err != nil {
		return nil, err
	}
	return &stage{Stage: inner, settings: s, brokers: kafka.addresses, folder: folder, progress: progress, broker: kafka.pid, label: "bench"}, nil
}

// clientOptions are those of bench's own clients.
func clientOptions(brokers []string) []kgo.Opt {
	return []kgo.Opt{kgo.SeedBrokers(brokers...), kgo.MetadataMinAge(50 * time.Millisecond)}
}

func (s *stage) createTopic(ctx context.Context, name string, partitions int) error {
	response, err := s.Admin.CreateTopic(ctx, int32(partitions), 1, nil, name) //nolint:gosec // checked to be small by the broker
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
	ticker := time.NewTicker(yardstick.PollEvery)
	defer ticker.Stop()
	for {
		topics, err := s.Admin.ListTopics(ctx, name)
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
	if _, err := s.Admin.DeleteTopic(ctx, name); err != nil {
		return fmt.Errorf("delete topic %s: %w", name, err)
	}
	return nil
}

// brokerTime is the CPU time that the broker has used so far, 0 where it isn't ours.
func (s *stage) brokerTime() (time.Duration, error) {
	if s.broker == 0 {
		return 0, nil
	}
	_, used, err := processTimes(s.broker)
	return used, err
}

// usage is what a peer took, and the broker meanwhile.
type usage struct {
	yardstick.Usage

	Broker time.Duration // 0 where it isn't ours
}

// with prepares a peer, starts it, calls measure and stops it, whatever happens in between.
func (s *stage) with(ctx context.Context, p peer, j job, measure func(processes []*yardstick.Process) error) (usage, error) {
	ctx, cancel := context.WithTimeout(ctx, runTimeout+j.lasts)
	defer cancel()
	if err := p.prepare(ctx, s, j); err != nil {
		return usage{}, fmt.Errorf("%s: %w", p.name(), err)
	}
	// The processes end by Run, in order, and not by ctx in the middle of their work.
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
	used, err := yardstick.Run(commands, s.folder, j.name, measure)
	after, timeErr := s.brokerTime()
	if err := errors.Join(err, timeErr); err != nil {
		return usage{}, fmt.Errorf("%s: %w", p.name(), err)
	}
	return usage{used, after - before}, nil
}
