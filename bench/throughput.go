package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/load"
)

// copyRun is one throughput run of one peer.
type copyRun struct {
	Peer    string        `json:"peer"`
	Round   int           `json:"round"`
	Rate    float64       `json:"records_per_second"`                 // between the first and the last commit
	StartUp time.Duration `json:"start_up_ns"`                        // from the start of the processes to the first commit
	Took    time.Duration `json:"took_ns"`                            // from the first to the last commit
	CPU     float64       `json:"cpu_s_per_million"`                  // of the processes, from their start to their end
	Broker  float64       `json:"broker_cpu_s_per_million,omitempty"` // in the same time
	Peak    float64       `json:"peak_rss_mib"`                       // of the process that had most
	Tally   load.Tallied  `json:"tally"`
}

// brokerWarmUp is the default number of rounds before those that count. A young broker compiles the code that
// a peer needs while the peer waits for it, and those who need more of it pay longer: by core seconds
// of the machine per million records, transactions with headers took 6.6, 4.8, 4.0, 3.7 in the first
// rounds and 3.2 to 4.0 in those after, a plain loop 3.6, 3.3, 3.0, 3.8 and 2.5 to 3.6.
const brokerWarmUp = 3

// throughput fills a topic once and lets every peer copy it in every round, in turn.
func (s *stage) throughput(ctx context.Context, peers []peer, add func(copyRun)) error {
	in := s.label + "-in"
	if err := s.createTopic(ctx, in, s.settings.parts); err != nil {
		return err
	}
	s.progress(fmt.Sprintf("filling %s with %d records of %d bytes", in, s.settings.count, s.settings.bytes))
	run := uint64(time.Now().UnixNano()) // tells this run's records from others
	if err := s.produce(ctx, in, run, load.ProducerConfig{Count: s.settings.count}); err != nil {
		return err
	}
	for turn, p := range inTurn(s.settings.warmRounds, s.settings.rounds, peers) {
		j := job{name: s.label + "-copy-" + turn.name(), brokers: s.brokers, in: in, out: s.label + "-out-" + turn.name()}
		result, err := s.copyOnce(ctx, p, j, run)
		if err != nil {
			return err
		}
		if turn.counts() {
			result.Round = turn.round
			add(result)
		}
		s.progress(fmt.Sprintf("throughput, %s: %s: %.0f records/s, %.2f CPU s per million and %.2f of the broker, %.0f MiB",
			turn, p.name(), result.Rate, result.CPU, result.Broker, result.Peak))
	}
	return s.deleteTopic(ctx, in)
}

func (s *stage) copyOnce(ctx context.Context, p peer, j job, run uint64) (copyRun, error) {
	result := copyRun{Peer: p.name()}
	var first, last time.Time
	var atFirst int64
	began := time.Now()
	used, err := s.with(ctx, p, j, func(processes []*process) error {
		began = time.Now()
		ctx, cancel := context.WithTimeout(ctx, runTimeout)
		defer cancel()
		return s.poll(ctx, processes, func() (bool, error) {
			records, settled, err := s.committed(ctx, j)
			now := time.Now()
			if err == nil && records > 0 && first.IsZero() {
				first, atFirst = now, records
			}
			last = now
			return records >= s.settings.count && settled, err
		})
	})
	if err != nil {
		return result, err
	}
	result.StartUp, result.Took = first.Sub(began), last.Sub(first)
	if result.Took > 0 {
		result.Rate = float64(s.settings.count-atFirst) / result.Took.Seconds()
	}
	result.CPU = perMillion(used.CPU, s.settings.count)
	result.Broker = perMillion(used.Broker, s.settings.count)
	result.Peak = float64(used.PeakKiB) / 1024
	if result.Tally, err = s.checkCopies(ctx, j, p.exact(), run); err != nil {
		return result, fmt.Errorf("%s: %w", p.name(), err)
	}
	return result, s.deleteTopic(ctx, j.out)
}

// perMillion is the CPU seconds that a million records would take.
func perMillion(used time.Duration, records int64) float64 {
	return used.Seconds() * 1e6 / float64(records)
}

// checkCopies reads the output as a read_committed reader and counts what is missing or twice.
func (s *stage) checkCopies(ctx context.Context, j job, exact bool, run uint64) (load.Tallied, error) {
	tally := load.NewTally(run, s.settings.count)
	err := load.Scan(ctx, clientOptions(s.brokers), []string{j.out}, func(record *kgo.Record) { tally.Add(record.Key, record.Value) })
	if err != nil {
		return load.Tallied{}, fmt.Errorf("read back %s: %w", j.out, err)
	}
	result := tally.Result()
	if !exact {
		result.Duplicates, result.Disordered = 0, 0 // it promises neither
	}
	if !result.Clean() {
		return result, fmt.Errorf("the copy is wrong: %+v", result)
	}
	return result, nil
}

// produce writes plain records: no compression, no linger, so that the peers' own settings decide.
func (s *stage) produce(ctx context.Context, topic string, run uint64, config load.ProducerConfig) error {
	plain, err := load.NewPlain(load.PlainConfig{Run: run, Bytes: s.settings.bytes, Keys: 10_000})
	if err != nil {
		return err
	}
	config.Options = append(clientOptions(s.brokers), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(0))
	config.Topic, config.Generator = topic, plain
	producer, err := load.NewProducer(config)
	if err != nil {
		return err
	}
	return producer.Run(ctx)
}
