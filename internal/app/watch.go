package app

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/kafka"
	"pawl/internal/outbox/ingest"
	"pawl/internal/telemetry"
	"pawl/internal/txn"
)

// watch asks the brokers what telemetry shows and the engine does not know: how far this process is behind,
// and who is held back. Each question remembers its last answers, so it must be asked by one goroutine.
type watch struct {
	conf   Config
	admin  *kadm.Client
	status func() txn.Status
	inputs *kafka.Waits
	holds  *kafka.Holds
}

func newWatch(conf Config, dial kafka.Config, client *kgo.Client, status func() txn.Status) *watch {
	admin := kadm.NewClient(client)
	return &watch{conf: conf, admin: admin, status: status, inputs: kafka.NewWaits(dial), holds: kafka.NewHolds(admin)}
}

// lag tells of the partitions that this process owns.
func (w *watch) lag(ctx context.Context) ([]telemetry.LagSample, error) {
	owned := map[string][]int32{}
	for _, lane := range w.status().Lanes {
		for topic, partitions := range lane.Partitions {
			owned[topic] = append(owned[topic], partitions...)
		}
	}
	lags, err := kafka.Lag(ctx, w.admin, w.conf.Group(), w.conf.inputTopics())
	if err != nil {
		return nil, fmt.Errorf("look up lag: %w", err)
	}
	lags = slices.DeleteFunc(lags, func(lag kafka.PartitionLag) bool { return !slices.Contains(owned[lag.Topic], lag.Partition) })
	waits, err := w.inputs.Measure(ctx, time.Now(), lags)
	if err != nil {
		return nil, fmt.Errorf("look up how long input has been waiting: %w", err)
	}
	samples := make([]telemetry.LagSample, 0, len(lags))
	for i, lag := range lags {
		if lag.Err == nil {
			samples = append(samples, telemetry.LagSample{
				Topic: lag.Topic, Partition: lag.Partition, Records: lag.Readable(), Held: lag.Held, Waiting: waits[i],
			})
		}
	}
	return samples, nil
}

// held tells of every topic that a transaction of ours, or of our producers, may hold back.
func (w *watch) held(ctx context.Context) (map[string]time.Duration, error) {
	held, err := w.holds.Look(ctx, time.Now(), w.conf.watchedTopics())
	if err != nil {
		return nil, fmt.Errorf("look up held readers: %w", err)
	}
	return held, nil
}

// watchedTopics are those with readers of committed records.
func (c Config) watchedTopics() []string {
	topics := append(c.inputTopics(), c.DeadLetterTopic())
	for _, topic := range c.OutputTopics() {
		topics = append(topics, topic)
	}
	if c.Effects.Enabled {
		topics = append(topics, c.EffectsTopic())
	}
	slices.Sort(topics)
	return slices.Compact(topics)
}

// ingestWatch asks how long effects have been waiting on their topic.
type ingestWatch struct {
	topic  string
	admin  *kadm.Client
	waits  *kafka.Waits
	status func() []ingest.Status
}

func newIngestWatch(topic string, dial kafka.Config, client *kgo.Client, status func() []ingest.Status) *ingestWatch {
	return &ingestWatch{topic: topic, admin: kadm.NewClient(client), waits: kafka.NewWaits(dial), status: status}
}

// waiting tells of the lanes of which the ledger has said where they stand.
func (w *ingestWatch) waiting(ctx context.Context) (map[int32]time.Duration, error) {
	next := map[int32]int64{}
	for _, lane := range w.status() {
		if lane.Next >= 0 {
			next[lane.Lane] = lane.Next
		}
	}
	if len(next) == 0 {
		return map[int32]time.Duration{}, nil
	}
	lags, err := kafka.Behind(ctx, w.admin, kafka.Positions{w.topic: next}, []string{w.topic})
	if err != nil {
		return nil, err
	}
	lags = slices.DeleteFunc(lags, func(lag kafka.PartitionLag) bool {
		_, known := next[lag.Partition]
		return !known
	})
	waits, err := w.waits.Measure(ctx, time.Now(), lags)
	if err != nil {
		return nil, err
	}
	waiting := make(map[int32]time.Duration, len(lags))
	for i, lag := range lags {
		if lag.Err == nil {
			waiting[lag.Partition] = waits[i]
		}
	}
	return waiting, nil
}
