package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
	"pawl/internal/transact"
)

const (
	wireEvery    = 20 * time.Millisecond // between the beginnings of two transactions
	wireBackoff  = 2 * time.Millisecond  // while the markers of the last transaction are written
	wireEndpoint = "bench"               // the endpoint's name in the configuration of the processor
)

// commits are the transactions of a run, times since arrivals.began.
type commits struct {
	each int64           // effects of a transaction
	at   []time.Duration // when it was committed
	late []time.Duration // behind the schedule when it began
}

// of is the time of the transaction that holds effect n.
func (c commits) of(n int64) time.Duration { return c.at[n/c.each] }

// latest is the longest that a transaction was late, from the one that holds effect n on.
func (c commits) latest(n int64) time.Duration { return slices.Max(c.late[n/c.each:]) }

// commitEffects writes effects as the transactions of a processor do, each record in the format of
// internal/txn/DESIGN.md. The schedule is fixed: it waits for nobody who reads, and a transaction that
// begins late is followed at once by the next. A transaction counts as committed when the client has
// heard so, which is the first anybody knows of it.
func (s *stage) commitEffects(ctx context.Context, application, input string, count int64, began time.Time) (commits, error) {
	topics, err := s.Admin.ListTopics(ctx, input)
	if err != nil {
		return commits{}, fmt.Errorf("ask for the id of %s: %w", input, err)
	}
	source := message.Source{Application: application, Topic: input, TopicID: topics[input].ID}
	c := commits{each: max(1, int64(s.settings.wireRate*wireEvery.Seconds()))}
	every := time.Duration(float64(c.each) / s.settings.wireRate * float64(time.Second))
	client, err := kgo.NewClient(append(clientOptions(s.brokers),
		kgo.TransactionalID(application+".bench"), kgo.DefaultProduceTopic(application+".effects"),
		kgo.ConcurrentTransactionsBackoff(wireBackoff),
		kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()),
	)...)
	if err != nil {
		return c, fmt.Errorf("open a producer of effects: %w", err)
	}
	defer client.Close()
	if _, _, err := client.ProducerID(ctx); err != nil {
		return c, fmt.Errorf("get a producer id: %w", err)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	start := time.Now()
	for next := int64(0); next < count; next += c.each {
		due := start.Add(time.Duration(len(c.at)) * every)
		timer.Reset(time.Until(due))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return c, ctx.Err()
		}
		c.late = append(c.late, time.Since(due))
		if err := commit(ctx, client, effectRecords(source, next, min(next+c.each, count), s.settings.effectBytes)); err != nil {
			return c, fmt.Errorf("commit effects: %w", err)
		}
		c.at = append(c.at, time.Since(began))
	}
	return c, nil
}

// commit writes records in one transaction.
func commit(ctx context.Context, client *kgo.Client, records []*kgo.Record) error {
	if err := client.BeginTransaction(); err != nil {
		return err
	}
	taken, err := client.ProduceSync(ctx, records...).First()
	if err != nil {
		return errors.Join(err, client.EndTransaction(context.WithoutCancel(ctx), kgo.TryAbort))
	}
	return transact.Commit(ctx, client, taken.Topic, taken.Partition)
}

// effectRecords are the effects with the numbers from first up to end, as if each were the only one of
// the input record with its number. The lane follows from the key, as everywhere.
func effectRecords(source message.Source, first, end int64, size int) []*kgo.Record {
	space := source.Space()
	topicID := []byte(hex.EncodeToString(source.TopicID[:]))
	records := make([]*kgo.Record, 0, end-first)
	for n := first; n < end; n++ {
		source.Offset = n
		key := wireKey(n)
		records = append(records, &kgo.Record{
			Key:   strconv.AppendInt(nil, int64(key), 10),
			Value: bodyOf(key, n, size),
			Headers: []kgo.RecordHeader{
				{Key: message.HeaderFormat, Value: []byte(message.EffectFormat)},
				{Key: message.HeaderID, Value: space.ID(source.Partition, n, 0).AppendText(nil)},
				{Key: message.HeaderSource, Value: source.AppendText(nil)},
				{Key: message.HeaderIndex, Value: []byte("0")},
				{Key: message.HeaderTopicID, Value: topicID},
				{Key: message.HeaderGeneration, Value: []byte("0")},
				{Key: message.HeaderEndpoint, Value: []byte(wireEndpoint)},
				{Key: message.HeaderClass, Value: []byte(message.AtLeastOnce)},
				{Key: message.HeaderContentType, Value: []byte("text/plain")},
			},
		})
	}
	return records
}
