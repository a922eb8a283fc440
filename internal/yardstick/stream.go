package yardstick

import (
	"context"
	"errors"
	"fmt"
	"time"

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

// Stream produces a stream into the input of a task and takes delivery of each record from its output.
// The schedule waits for nobody, so that what a stall holds up counts in full.
func (s *Stage) Stream(ctx context.Context, task Task, stream Stream, processes []*Process) (load.Delivered, error) {
	// Twice the time that the schedule takes: a peer that is further behind has no latency, it has a
	// backlog.
	limit := 2*time.Duration(float64(stream.Count)/stream.Rate*float64(time.Second)) + JoinTimeout
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	reader, err := load.OpenReader(ctx, load.ReaderConfig{Options: s.options, Topics: []string{task.Out}, Count: stream.Count})
	if err != nil {
		return load.Delivered{}, err
	}
	defer reader.Close()
	producer, err := s.producer(task.In, 1, stream.Bytes, load.ProducerConfig{First: stream.First, Count: stream.Count, Rate: stream.Rate})
	if err != nil {
		return load.Delivered{}, err
	}
	group, groupContext := errgroup.WithContext(ctx)
	group.Go(func() error { return reader.Run(groupContext) })
	group.Go(func() error { return producer.Run(groupContext) })
	if err := group.Wait(); err != nil {
		return load.Delivered{}, errors.Join(err, CheckAll(processes))
	}
	if err := CheckAll(processes); err != nil {
		return load.Delivered{}, err
	}
	delivered := reader.Report()
	if delivered.Records < stream.Count {
		err := errBehind
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.DeadlineExceeded) {
			err = cause // somebody ended it
		}
		return delivered, fmt.Errorf("%d of %d records were delivered within %s: %w", delivered.Records, stream.Count, limit, err)
	}
	return delivered, nil
}
