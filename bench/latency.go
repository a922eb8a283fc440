package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"pawl/internal/load"
)

// waitRun is one latency run of one peer: from the produce call of a record to its delivery to a
// read_committed reader of the output.
type waitRun struct {
	Peer      string       `json:"peer"`
	Round     int          `json:"round"`
	Latency   load.Summary `json:"latency"`
	Scheduled load.Summary `json:"latency_from_schedule"` // from when the call was due
	CPU       float64      `json:"cpu_s_per_million"`
	Broker    float64      `json:"broker_cpu_s_per_million,omitempty"` // serves producer and reader too, the same for all
	Peak      float64      `json:"peak_rss_mib"`
}

// latency lets every peer copy a steady stream in every round, in turn.
func (s *stage) latency(ctx context.Context, peers []peer, add func(waitRun)) error {
	for turn, p := range inTurn(s.settings.warmRounds, s.settings.rounds, peers) {
		name := s.label + "-wait-" + turn.name()
		result, err := s.waitOnce(ctx, p, job{name: name, brokers: s.brokers, in: name + "-in", out: name + "-out", steady: true})
		if err != nil {
			return err
		}
		if turn.counts() {
			result.Round = turn.round
			add(result)
		}
		s.progress(fmt.Sprintf("latency, %s: %s: %s", turn, p.name(), result.Latency))
	}
	return nil
}

func (s *stage) waitOnce(ctx context.Context, p peer, j job) (waitRun, error) {
	result := waitRun{Peer: p.name()}
	if err := s.createTopic(ctx, j.in, s.settings.parts); err != nil {
		return result, err
	}
	warm := int64(s.settings.warmUp.Seconds() * s.settings.rate)
	count := int64(s.settings.latencyDuration().Seconds() * s.settings.rate)
	used, err := s.with(ctx, p, j, func(processes []*process) error {
		if err := s.joined(ctx, j.name, p.members(), processes); err != nil {
			return err
		}
		if warm > 0 {
			if _, err := s.stream(ctx, j, 0, warm, processes); err != nil {
				return fmt.Errorf("warm up: %w", err)
			}
		}
		delivered, err := s.stream(ctx, j, warm, count, processes)
		result.Latency, result.Scheduled = delivered.FromCall, delivered.FromSchedule
		return err
	})
	if err != nil {
		return result, err
	}
	result.CPU = perMillion(used.CPU, warm+count)
	result.Broker = perMillion(used.Broker, warm+count)
	result.Peak = float64(used.PeakKiB) / 1024
	return result, errors.Join(s.deleteTopic(ctx, j.in), s.deleteTopic(ctx, j.out))
}

// stream produces count records at the configured rate and takes delivery of each.
func (s *stage) stream(ctx context.Context, j job, first, count int64, processes []*process) (load.Delivered, error) {
	// Twice the time that the schedule takes: a peer that is further behind has no latency, it has a
	// backlog.
	limit := 2*time.Duration(float64(count)/s.settings.rate*float64(time.Second)) + joinTimeout
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	reader, err := load.OpenReader(ctx, load.ReaderConfig{Options: clientOptions(s.brokers), Topics: []string{j.out}, Count: count})
	if err != nil {
		return load.Delivered{}, err
	}
	defer reader.Close()
	group, groupContext := errgroup.WithContext(ctx)
	group.Go(func() error { return reader.Run(groupContext) })
	group.Go(func() error {
		return s.produce(groupContext, j.in, 1, load.ProducerConfig{First: first, Count: count, Rate: s.settings.rate})
	})
	if err := group.Wait(); err != nil {
		return load.Delivered{}, errors.Join(err, checkAll(processes))
	}
	if err := checkAll(processes); err != nil {
		return load.Delivered{}, err
	}
	delivered := reader.Report()
	if delivered.Records < count {
		return delivered, fmt.Errorf("%d of %d records were delivered within %s", delivered.Records, count, limit)
	}
	return delivered, nil
}
