package yardstick

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/kafka"
	"pawl/internal/load"
)

const (
	// PollEvery is the time between two looks at offsets: 1% of a run of two seconds.
	PollEvery = 20 * time.Millisecond
	// JoinTimeout is how long the members of a peer may take to join.
	JoinTimeout = time.Minute

	keyCount = 10_000 // that records are spread over
)

// Task is one run of one peer: copy every record of one topic to another.
type Task struct {
	Group string // that its members join
	In    string
	Out   string

	Beside []string // other topics that its transactions write to
}

func (t Task) outs() []string { return append([]string{t.Out}, t.Beside...) }

// Stage is a cluster and what looks at it from outside while others work there.
type Stage struct {
	Admin   *kadm.Client
	options []kgo.Opt
	client  *kgo.Client
}

// Open connects. options say how, for every client of the stage.
func Open(ctx context.Context, options []kgo.Opt) (*Stage, error) {
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("open admin client: %w", err)
	}
	if err := client.Ping(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("reach the broker: %w", err)
	}
	return &Stage{Admin: kadm.NewClient(client), options: options, client: client}, nil
}

// Close ends the stage's connections.
func (s *Stage) Close() { s.client.Close() }

// committed is how many records of the input the group has committed, and whether everything that was
// written to the outputs can be read: no transaction is open or about to be marked.
func (s *Stage) committed(ctx context.Context, task Task) (records int64, settled bool, err error) {
	offsets, err := s.Admin.FetchOffsetsForTopics(ctx, task.Group, task.In)
	if err == nil {
		err = offsets.Error()
	}
	if errors.Is(err, kerr.GroupIDNotFound) {
		return 0, false, nil // nobody has joined yet
	}
	if err != nil {
		return 0, false, fmt.Errorf("fetch offsets of %s: %w", task.Group, err)
	}
	offsets.Each(func(offset kadm.OffsetResponse) { records += max(offset.At, 0) })
	stable, err := s.Admin.ListCommittedOffsets(ctx, task.outs()...)
	if err == nil {
		err = stable.Error()
	}
	if err != nil {
		return 0, false, fmt.Errorf("list stable offsets of %v: %w", task.outs(), err)
	}
	ends, err := s.ends(ctx, task.outs()...)
	if err != nil {
		return 0, false, err
	}
	settled = true
	ends.Each(func(end kadm.ListedOffset) {
		if offset, found := stable.Lookup(end.Topic, end.Partition); !found || offset.Offset < end.Offset {
			settled = false
		}
	})
	return records, settled, nil
}

func (s *Stage) ends(ctx context.Context, topics ...string) (kadm.ListedOffsets, error) {
	ends, err := s.Admin.ListEndOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list end offsets of %v: %w", topics, err)
	}
	return ends, nil
}

// Joined waits until all members of a peer are in the group and it is stable.
func (s *Stage) Joined(ctx context.Context, group string, members int, processes []*Process) error {
	ctx, cancel := context.WithTimeout(ctx, JoinTimeout)
	defer cancel()
	last := ""
	err := s.Poll(ctx, processes, func() (bool, error) {
		state, joined, err := kafka.Members(ctx, s.Admin, group)
		if err != nil {
			return false, err
		}
		last = fmt.Sprintf("%d of %d members, state %s", len(joined), members, state)
		return state == "Stable" && len(joined) == members, nil
	})
	if err != nil {
		return fmt.Errorf("wait for group %s (%s): %w", group, last, err)
	}
	return nil
}

// Poll asks done again and again until it says so, a lasting error comes, a process ends or ctx does.
func (s *Stage) Poll(ctx context.Context, processes []*Process, done func() (bool, error)) error {
	ticker := time.NewTicker(PollEvery)
	defer ticker.Stop()
	for {
		if err := CheckAll(processes); err != nil {
			return err
		}
		// A broker answers with a retriable error while it finds the group's coordinator, for instance.
		if finished, err := done(); !kerr.IsRetriable(err) && (finished || err != nil) {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Fill writes the backlog that is to be copied: the first count of some plain records, with the keys of the
// stage. progress is told how far it is.
func (s *Stage) Fill(ctx context.Context, topic string, plain load.PlainConfig, count int64, progress func(records int64)) error {
	generator, err := newPlain(plain)
	if err != nil {
		return err
	}
	return s.FillWith(ctx, topic, generator, count, progress)
}

// FillWith does as Fill with the first count records of a generator.
func (s *Stage) FillWith(ctx context.Context, topic string, generator load.Generator, count int64, progress func(records int64)) error {
	producer, err := s.producer(topic, generator, load.ProducerConfig{
		Count: count,
		Acked: func(n int64, _ *kgo.Record) {
			if n%fillReport == 0 {
				progress(n)
			}
		},
	})
	if err != nil {
		return err
	}
	if err := producer.Run(ctx); err != nil {
		return err
	}
	if done := producer.Acked(); done < count {
		return fmt.Errorf("fill %s: %d of %d records written: %w", topic, done, count, context.Cause(ctx))
	}
	return nil
}

// fillReport is how many records Fill writes between two reports.
const fillReport = 1000

// newPlain makes plain records with the keys of the stage.
func newPlain(plain load.PlainConfig) (*load.Plain, error) {
	plain.Keys = keyCount
	return load.NewPlain(plain)
}

// producer writes without compression or linger, so that the settings of who copies decide.
func (s *Stage) producer(topic string, generator load.Generator, config load.ProducerConfig) (*load.Producer, error) {
	config.Options = append(append([]kgo.Opt(nil), s.options...), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(0))
	config.Topic, config.Generator = topic, generator
	return load.NewProducer(config)
}

// Check reads an output as a read_committed reader and counts what is missing, and of an exact copy what
// is twice or out of order too.
func (s *Stage) Check(ctx context.Context, topic string, run uint64, count int64, exact bool) (load.Tallied, error) {
	tally := load.NewTally(run, count)
	err := load.Scan(ctx, s.options, []string{topic}, func(record *kgo.Record) { tally.Add(record.Key, record.Value) })
	if err != nil {
		return load.Tallied{}, fmt.Errorf("read back %s: %w", topic, err)
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

// PerMillion is the CPU seconds that a million records would take.
func PerMillion(used time.Duration, records int64) float64 {
	return used.Seconds() * 1e6 / float64(records)
}
