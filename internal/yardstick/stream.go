package yardstick

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"pawl/internal/load"
)

// Stream is a steady stream of records and its latency.
type Stream struct {
	First int64   // number of its first record
	Count int64   // of records
	Bytes int     // of a record's value
	Rate  float64 // records per second, kept whoever is late
}

// errBehind says that a peer had a backlog where its latency was to be measured.
var errBehind = errors.New("it does not keep up with this rate")

// Watch is told what happens while streams run. Both may be nil.
type Watch struct {
	// Delivered is told of each record and when it was delivered, on the goroutine of the reader: be brief.
	Delivered func(record *kgo.Record, at time.Time)
	// Produced is told after the last record of a stream was taken by the brokers, and before the next stream
	// begins, how many records of all streams were delivered so far.
	Produced func(stream int, delivered int64) error
}

// Stream produces a stream into the input of a task and takes delivery of each record from its output.
// The schedule waits for nobody, so that what a stall holds up counts in full.
func (s *Stage) Stream(ctx context.Context, task Task, stream Stream, processes []*Process) (load.Delivered, error) {
	return s.Streams(ctx, task, []Stream{stream}, Watch{}, processes)
}

// Streams does as Stream with several streams, one right after the other: none waits until all records of the one
// before were delivered.
func (s *Stage) Streams(ctx context.Context, task Task, streams []Stream, watch Watch, processes []*Process) (load.Delivered, error) {
	// Twice the time that the schedule takes: a peer that is further behind has no latency, it has a
	// backlog.
	limit, count := JoinTimeout, int64(0)
	for _, stream := range streams {
		limit += 2 * time.Duration(float64(stream.Count)/stream.Rate*float64(time.Second))
		count += stream.Count
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	reader, err := load.OpenReader(ctx, load.ReaderConfig{Options: s.options, Topics: []string{task.Out}, Count: count, Delivered: watch.Delivered})
	if err != nil {
		return load.Delivered{}, err
	}
	defer reader.Close()
	group, groupContext := errgroup.WithContext(ctx)
	group.Go(func() error { return reader.Run(groupContext) })
	group.Go(func() error { return s.produce(groupContext, task.In, streams, watch, reader.Records) })
	if err := group.Wait(); err != nil {
		return load.Delivered{}, errors.Join(err, CheckAll(processes))
	}
	if err := CheckAll(processes); err != nil {
		return load.Delivered{}, err
	}
	delivered := reader.Report()
	if delivered.Records < count {
		err := errBehind
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.DeadlineExceeded) {
			err = cause // somebody ended it
		}
		return delivered, fmt.Errorf("%d of %d records were delivered within %s: %w", delivered.Records, count, limit, err)
	}
	return delivered, nil
}

// produce writes streams into a topic. delivered tells how many of their records have come out.
func (s *Stage) produce(ctx context.Context, topic string, streams []Stream, watch Watch, delivered func() int64) error {
	for i, stream := range streams {
		plain, err := newPlain(load.PlainConfig{Run: 1, Bytes: stream.Bytes})
		if err != nil {
			return err
		}
		producer, err := s.producer(topic, plain, load.ProducerConfig{First: stream.First, Count: stream.Count, Rate: stream.Rate})
		if err != nil {
			return err
		}
		if err := producer.Run(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // what the reader has tells how far it came
		}
		if watch.Produced == nil {
			continue
		}
		if err := watch.Produced(i, delivered()); err != nil {
			return err
		}
	}
	return nil
}
