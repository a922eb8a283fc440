package main

import (
	"context"
	"fmt"
	"time"

	"pawl/internal/load"
	"pawl/internal/yardstick"
)

// brokerWarmUp is the default number of rounds before those that count. A young broker compiles the code that
// a peer needs while the peer waits for it, and those who need more of it pay longer: by core seconds
// of the machine per million records, transactions with headers took 6.6, 4.8, 4.0, 3.7 in the first
// rounds and 3.2 to 4.0 in those after, a plain loop 3.6, 3.3, 3.0, 3.8 and 2.5 to 3.6.
const brokerWarmUp = 3

// throughput fills a topic once and lets every peer copy it in every round, in turn.
func (s *stage) throughput(ctx context.Context, peers []peer, add func(yardstick.CopyRun)) error {
	in := s.label + "-in"
	if err := s.createTopic(ctx, in, s.settings.parts); err != nil {
		return err
	}
	s.progress(fmt.Sprintf("filling %s with %d records of %d bytes", in, s.settings.count, s.settings.bytes))
	run := uint64(time.Now().UnixNano()) // tells this run's records from others
	if err := s.Fill(ctx, in, load.PlainConfig{Run: run, Bytes: s.settings.bytes}, s.settings.count, func(int64) {}); err != nil {
		return err
	}
	for turn, p := range yardstick.Turns(s.settings.warmRounds, s.settings.rounds, peers) {
		j := job{name: s.label + "-copy-" + turn.Name(), brokers: s.brokers, in: in, out: s.label + "-out-" + turn.Name()}
		result, err := s.copyOnce(ctx, p, j, run, func([]*yardstick.Process, int64) {})
		if err != nil {
			return err
		}
		if turn.Counts() {
			result.Round = turn.Round
			add(result)
		}
		s.progress(fmt.Sprintf("throughput, %s: %s: %.0f records/s, %.2f CPU s per million and %.2f of the broker, %.0f MiB",
			turn, p.name(), result.Rate, result.CPU, result.Broker, result.Peak))
	}
	return s.deleteTopic(ctx, in)
}

// copyOnce lets a peer copy a backlog. progress is told how many records are committed, again and again.
func (s *stage) copyOnce(ctx context.Context, p peer, j job, run uint64, progress func(processes []*yardstick.Process, records int64)) (yardstick.CopyRun, error) {
	result := yardstick.CopyRun{Peer: p.name()}
	used, err := s.with(ctx, p, j, func(processes []*yardstick.Process) error {
		began := time.Now()
		ctx, cancel := context.WithTimeout(ctx, runTimeout)
		defer cancel()
		var err error
		result.Copied, err = s.Copy(ctx, j.task(), s.settings.count, began, processes, func(records int64) { progress(processes, records) })
		return err
	})
	if err != nil {
		return result, err
	}
	result.CPU = yardstick.PerMillion(used.CPU, s.settings.count)
	result.Broker = yardstick.PerMillion(used.Broker, s.settings.count)
	result.Peak = float64(used.PeakKiB) / 1024
	if result.Tally, err = s.Check(ctx, j.out, run, s.settings.count, p.exact()); err != nil {
		return result, fmt.Errorf("%s: %w", p.name(), err)
	}
	return result, s.deleteTopic(ctx, j.out)
}
