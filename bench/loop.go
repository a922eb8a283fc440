package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	loopCommand    = "loop" // first argument with which this program is the loop
	loopRecordsMax = 10_000
)

// runLoop copies at least once until ctx ends: poll up to 10,000 records, produce them, flush, commit.
// The client has its defaults but for the least age of metadata, without which any retriable error
// costs seconds, and no compression. Arguments: brokers, group, topic in, topic out.
func runLoop(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("%s: want brokers, group, topic in, topic out", loopCommand)
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(args[0], ",")...),
		kgo.ConsumerGroup(args[1]),
		kgo.ConsumeTopics(args[2]),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.DefaultProduceTopic(args[3]),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MetadataMinAge(50*time.Millisecond),
	)
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
