package yardstick

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// loopRecordsMax bounds what the loop has in hand.
const loopRecordsMax = 10_000

// Loop copies at least once until ctx ends: poll up to 10,000 records, produce them, flush, commit. It is
// what one writes without a framework. options say how to connect and what else the client is to have;
// everything else is the client's default. There are as many loops, each with a client, as the group is to
// have members in this process.
func Loop(ctx context.Context, options []kgo.Opt, task Task, members int) error {
	group, ctx := errgroup.WithContext(ctx)
	for range members {
		group.Go(func() error { return loop(ctx, options, task) })
	}
	return group.Wait()
}

func loop(ctx context.Context, options []kgo.Opt, task Task) error {
	client, err := kgo.NewClient(append(slices.Clip(options),
		kgo.ConsumerGroup(task.Group),
		kgo.ConsumeTopics(task.In),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.DefaultProduceTopic(task.Out),
	)...)
	if err != nil {
		return fmt.Errorf("open client: %w", err)
	}
	defer client.Close()
	for {
		fetches := client.PollRecords(ctx, loopRecordsMax)
		if ctx.Err() != nil {
			return nil // asked to end; what was not committed is read again
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("poll: %w", err)
		}
		if err := copyRecords(ctx, client, fetches); err != nil {
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
	}
}

func copyRecords(ctx context.Context, client *kgo.Client, fetches kgo.Fetches) error {
	var (
		mutex  sync.Mutex
		failed error
	)
	produced := func(_ *kgo.Record, err error) {
		if err != nil {
			mutex.Lock()
			defer mutex.Unlock()
			failed = err
		}
	}
	fetches.EachRecord(func(record *kgo.Record) {
		client.Produce(ctx, &kgo.Record{Key: record.Key, Value: record.Value, Headers: record.Headers, Timestamp: record.Timestamp}, produced)
	})
	if err := client.Flush(ctx); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	mutex.Lock()
	defer mutex.Unlock()
	if failed != nil {
		return fmt.Errorf("produce: %w", failed)
	}
	if err := client.CommitUncommittedOffsets(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}
