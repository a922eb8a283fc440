// Package deadletter reads the dead-letter topic back and settles what is in it: a dead letter is
// redriven to its topic of origin or discarded, once.
//
// # Settling
//
// A settled dead letter has a marker in the control topic, under the key
//
//	redrive/<id of the dead-letter topic>/<partition>/<offset>
//
// A redriven record and its marker are written in one Kafka transaction, so they exist both or not
// at all. All settling of an application goes through one transactional id, <application>.redrive:
// who opens it fences whoever had it before and waits until that one's open transaction has ended,
// and only then reads the markers. Hence nobody settles by stale markers: a command that was cut
// off, repeated or run twice at once redrives each dead letter once. When the answer to the end of
// a transaction is lost, the client is thrown away and the same is done again from the markers.
//
// The markers are all in partition 0 of the control topic, whatever its partition count, so that
// compaction meets equal keys. Purge removes dead letters that are settled and then their markers,
// in this order; a marker that is missing therefore means open only at offsets that still exist.
//
// # Format of a dead letter
//
// Key, value and timestamp are those of the refused record. Its headers come first, as they were and
// whatever their names; after them the engine's story: pawl-source, pawl-id, pawl-handler,
// pawl-reason, pawl-error. The story begins at the last header named pawl-source.
package deadletter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ErrFenced says that another redrive or discard of the same application took over. What this one
// had ended stays; the transaction in hand was aborted, or ended just before. Nothing is lost or
// doubled: run the command again.
var ErrFenced = errors.New("another redrive, discard or purge of this application took over, or this one stood still for a minute: nothing is lost or doubled, wait for the other to end and run the command again")

// Config says where the dead letters of one application are.
type Config struct {
	Client           []kgo.Opt // how to reach the brokers; no consumer, producer or group options
	Application      string
	ReplayGeneration int
	Topic            string // of the dead letters
	ControlTopic     string
}

// The limits of one transaction.
const (
	batchRecordsMax = 500
	batchBytesMax   = 8 << 20
)

// Queue is the dead-letter topic of one application. Its methods may be called one at a time.
type Queue struct {
	config Config
	client *kgo.Client
	admin  *kadm.Client

	recordsMax  int
	bytesMax    int
	attemptWait time.Duration
	tail        tail
	notesMax    int
	hooks       hooks
}

// hooks let tests of this package stand in where a process can die.
type hooks struct {
	produced func() // all records of a transaction are with the brokers, its end is not asked for
}

// Open makes a Queue. It does not ask the brokers anything yet.
func Open(config Config) (*Queue, error) {
	client, err := kgo.NewClient(config.Client...)
	if err != nil {
		return nil, fmt.Errorf("open dead letters: make client: %w", err)
	}
	return &Queue{
		config: config, client: client, admin: kadm.NewClient(client),
		recordsMax: batchRecordsMax, bytesMax: batchBytesMax, attemptWait: attemptWait,
		tail: tail{offsets: tailOffsetsMax, bytes: tailBytesMax}, notesMax: notesMax,
	}, nil
}

// Close ends the connections.
func (q *Queue) Close() { q.client.Close() }

// Each visits the dead letters that filter selects, partition by partition in the order of their
// offsets, up to the end that read_committed readers saw when it was called. A letter's bytes may be
// kept. The first error of visit ends the reading and is returned as it is.
func (q *Queue) Each(ctx context.Context, filter Filter, visit func(Letter) error) error {
	topic, err := q.describe(ctx, q.config.Topic)
	if err != nil {
		return err
	}
	markers, err := q.readMarkers(ctx, topic, q.admin.ListCommittedOffsets, 0)
	if err != nil {
		return err
	}
	return q.each(ctx, topic, filter, markers.state, visit)
}

// each asks state about each letter just before it is visited, not earlier.
func (q *Queue) each(ctx context.Context, topic kadm.TopicDetail, filter Filter, state func(partition int32, offset int64) State, visit func(Letter) error) error {
	bounds, err := q.bounds(ctx, topic.Topic, q.admin.ListCommittedOffsets)
	if err != nil {
		return err
	}
	for _, b := range bounds {
		from, to := filter.narrow(b)
		err := q.scan(ctx, topic, b.partition, from, to, func(r *kgo.Record) error {
			letter := parse(r)
			letter.State = state(r.Partition, r.Offset)
			if !filter.match(&letter) {
				return nil
			}
			return visit(letter)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// describe finds an internal topic.
func (q *Queue) describe(ctx context.Context, name string) (kadm.TopicDetail, error) {
	topics, err := q.admin.ListTopics(ctx, name)
	if err != nil {
		return kadm.TopicDetail{}, fmt.Errorf("describe topic %s: %w", name, err)
	}
	topic := topics[name]
	switch {
	case errors.Is(topic.Err, kerr.UnknownTopicOrPartition):
		return topic, fmt.Errorf("topic %s does not exist: check the application's name and kafka.brokers, or create it with `processor topics apply`: %w", name, topic.Err)
	case errors.Is(topic.Err, kerr.TopicAuthorizationFailed):
		return topic, fmt.Errorf("topic %s: this user lacks the rights Describe and Read on it: %w", name, topic.Err)
	case topic.Err != nil:
		return topic, fmt.Errorf("describe topic %s: %w", name, topic.Err)
	}
	return topic, nil
}
