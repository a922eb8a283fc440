package main

import (
	"context"
	"errors"
	"fmt"

	"pawl/internal/yardstick"
)

// latency lets every peer copy a steady stream in every round, in turn.
func (s *stage) latency(ctx context.Context, peers []peer, add func(yardstick.WaitRun)) error {
	for turn, p := range yardstick.Turns(s.settings.warmRounds, s.settings.rounds, peers) {
		name := s.label + "-wait-" + turn.Name()
		result, err := s.waitOnce(ctx, p, job{name: name, brokers: s.brokers, in: name + "-in", out: name + "-out", steady: true})
		if err != nil {
			return err
		}
		if turn.Counts() {
			result.Round = turn.Round
			add(result)
		}
		s.progress(fmt.Sprintf("latency, %s: %s: %s", turn, p.name(), result.Latency))
	}
	return nil
}

func (s *stage) waitOnce(ctx context.Context, p peer, j job) (yardstick.WaitRun, error) {
	result := yardstick.WaitRun{Peer: p.name()}
	if err := s.createTopic(ctx, j.in, s.settings.parts); err != nil {
		return result, err
	}
	warm := int64(s.settings.warmUp.Seconds() * s.settings.rate)
	count := int64(s.settings.latencyDuration().Seconds() * s.settings.rate)
	stream := yardstick.Stream{Count: warm, Bytes: s.settings.bytes, Rate: s.settings.rate}
	used, err := s.with(ctx, p, j, func(processes []*yardstick.Process) error {
		if err := s.Joined(ctx, j.name, p.members(), processes); err != nil {
			return err
		}
		if warm > 0 {
			if _, err := s.Stream(ctx, j.task(), stream, processes); err != nil {
				return fmt.Errorf("warm up: %w", err)
			}
		}
		stream.First, stream.Count = warm, count
		delivered, err := s.Stream(ctx, j.task(), stream, processes)
		result.Latency, result.Scheduled = delivered.FromCall, delivered.FromSchedule
		return err
	})
	if err != nil {
		return result, err
	}
	result.CPU = yardstick.PerMillion(used.CPU, warm+count)
	result.Broker = yardstick.PerMillion(used.Broker, warm+count)
	result.Peak = float64(used.PeakKiB) / 1024
	return result, errors.Join(s.deleteTopic(ctx, j.in), s.deleteTopic(ctx, j.out))
}
