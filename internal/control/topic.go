// Package control reads the control topic of an application, whose notes must outlive every process: what is suspected,
// what is paused, what was ordered. Whose a note is its key says; what it means only its owner knows.
//
// A reader has to know when it has read all that was there, so that nobody acts on half of the notes. It writes a mark
// and reads until that comes back: what was acknowledged before the mark stands before it, whoever wrote it. To ask for
// the end of the log would not do. Right after an election a leader does not know yet how far its predecessor had
// acknowledged, so that an answer may lag and a note be missed; what a read_committed reader takes for the end lies before
// the first open transaction; and where the last records were compacted away, no record ever shows the end to be reached.
package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	markPrefix     = "mark/"
	partition      = 0                     // the only one; a record's zero value names it
	metadataMinAge = 50 * time.Millisecond // the default stalls for seconds after an everyday error
)

// Topic is the control topic. Its methods may be called from any goroutine.
type Topic struct {
	Name    string
	Client  *kgo.Client // writes, each record to the partition that it names; in no transaction
	Options []kgo.Opt   // to make readers with
}

// Open makes a client for the topic; close that. Nothing is asked of the brokers yet.
func Open(name string, options []kgo.Opt) (Topic, error) {
	options = append(slices.Clone(options), kgo.MetadataMinAge(metadataMinAge),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0)) // notes wait for their answer one by one
	client, err := kgo.NewClient(options...)
	return Topic{Name: name, Client: client, Options: options}, err
}

// Mark writes a mark in the name of a reader and returns its offset: whoever has read so far has read all that was written
// before the call. The error is that of the brokers. Of one reader's marks compaction leaves the last.
func (t Topic) Mark(ctx context.Context, reader string) (offset int64, err error) {
	mark := &kgo.Record{Topic: t.Name, Key: []byte(markPrefix + reader)} // a tombstone: compaction takes it away
	err = t.Client.ProduceSync(ctx, mark).FirstErr()
	return mark.Offset, err
}

// Read visits the records from the first one up to a mark, and perhaps a few behind it.
func (t Topic) Read(ctx context.Context, mark int64, visit func(*kgo.Record)) error {
	reader, err := t.Follow()
	if err != nil {
		return err
	}
	defer reader.Close()
	for reader.Next() <= mark {
		if err := reader.Poll(ctx, visit); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read control topic %s: %w", t.Name, err)
		}
	}
	return nil
}

// Follow makes a reader that begins with the first record; Close it.
func (t Topic) Follow() (*Reader, error) {
	client, err := kgo.NewClient(append(slices.Clone(t.Options),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{t.Name: {partition: kgo.NewOffset().AtStart()}}))...)
	if err != nil {
		return nil, fmt.Errorf("open a reader of control topic %s: %w", t.Name, err)
	}
	return &Reader{topic: t.Name, client: client}, nil
}

// Reader goes through the records in their order. It is for one goroutine.
type Reader struct {
	topic  string
	client *kgo.Client
	next   int64
}

// Poll waits for records and visits them. It returns nil without any where ctx ends first.
func (r *Reader) Poll(ctx context.Context, visit func(*kgo.Record)) error {
	fetches := r.client.PollFetches(ctx)
	for _, failed := range fetches.Errors() {
		if ctx.Err() == nil || !errors.Is(failed.Err, context.DeadlineExceeded) && !errors.Is(failed.Err, context.Canceled) {
			return fmt.Errorf("read control topic %s: %w", r.topic, failed.Err)
		}
	}
	fetches.EachRecord(func(record *kgo.Record) {
		r.next = record.Offset + 1
		visit(record)
	})
	return nil
}

// Next is the offset before which all has been visited.
func (r *Reader) Next() int64 { return r.next }

// Close ends the reader's connections.
func (r *Reader) Close() { r.client.Close() }
