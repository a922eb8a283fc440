package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/committed"
	"pawl/internal/outbox"
)

// fetchBytesMax is what a Filler reads ahead of the ledger, as it is compressed.
const fetchBytesMax = 1 << 20

// Filler brings one lane of the effects topic into the ledger as far as it is told to, for who makes a ledger
// anew. Unlike an Ingester it tries nothing twice: after an error open another one, which goes on from where the
// ledger stands. It is for one goroutine.
type Filler struct {
	config   Config
	lane     int32
	client   *kgo.Client
	position position
	filter   committed.Filter
	records  []*kgo.Record // that were read and not taken
}

// OpenFiller begins where the ledger stands; the lane must have a chain. Of the configuration, group, hooks and
// number of lanes do not matter.
func OpenFiller(ctx context.Context, c Config, lane int32) (*Filler, error) {
	head, err := c.Store.Head(ctx, lane)
	if err != nil {
		return nil, fmt.Errorf("ask the ledger where lane %d stands: %w", lane, err)
	}
	client, err := kgo.NewClient(c.reader(fetchBytesMax, fetchBytesMax)...)
	if err != nil {
		return nil, fmt.Errorf("open a reader: %w", err)
	}
	f := &Filler{config: c, lane: lane, client: client}
	f.position.at(head)
	f.readFrom(head.Next)
	return f, nil
}

// Close ends the reader.
func (f *Filler) Close() { f.client.Close() }

// Fill returns when all effects below an offset are in the ledger; the topic must reach that far. It waits for
// transactions that are still open. next is where it has got to.
func (f *Filler) Fill(ctx context.Context, until int64) (next int64, err error) {
	for f.position.read < until {
		if len(f.records) == 0 {
			if f.records, err = f.poll(ctx); err != nil {
				return f.position.read, err
			}
		}
		below := slices.IndexFunc(f.records, func(r *kgo.Record) bool { return r.Offset >= until })
		switch below {
		case 0:
			return until, nil // a gap
		case -1:
			below = len(f.records)
		}
		left, err := f.take(ctx, f.records[:below])
		f.records = f.records[below-left:]
		if err != nil {
			return f.position.read, err
		}
	}
	return f.position.read, nil
}

// readFrom reads the lane from an offset, and forgets what was read of it ahead.
func (f *Filler) readFrom(offset int64) {
	f.client.RemoveConsumePartitions(map[string][]int32{f.config.Topic: {f.lane}})
	f.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{f.config.Topic: {f.lane: kgo.NewOffset().At(offset)}})
}

func (f *Filler) poll(ctx context.Context) ([]*kgo.Record, error) {
	if from, again := f.filter.Again(); again {
		f.readFrom(from)
	}
	fetches := f.client.PollRecords(ctx, f.config.BatchMax)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var failed error
	fetches.EachError(func(_ string, _ int32, err error) { failed = err })
	if failed != nil {
		return nil, fmt.Errorf("read %s/%d: %w", f.config.Topic, f.lane, failed)
	}
	return f.filter.Add(fetches.Records()), nil
}

// take appends a batch of the records and gives how many are left over.
func (f *Filler) take(ctx context.Context, records []*kgo.Record) (left int, err error) {
	b, rest, broken := f.position.build(f.lane, records, f.config.BatchMax, f.config.BytesMax)
	if len(b.Intents) == 0 {
		f.position.pass(b, time.Now())
		if broken != nil {
			return len(rest), fmt.Errorf("lane %d of %s: %w; it was not skipped", f.lane, f.config.Topic, broken)
		}
		return len(rest), nil
	}
	err = f.config.Store.Append(ctx, &b)
	switch {
	case err == nil:
		f.position.added(b)
		return len(rest), nil
	case errors.Is(err, outbox.ErrOvertaken): // a process ingests too
		head, err := f.config.Store.Head(ctx, f.lane)
		if err == nil && head.Next <= f.position.base {
			err = outbox.ErrOvertaken
		}
		if err != nil {
			return len(records), fmt.Errorf("ingest %s/%d from %d: %w", f.config.Topic, f.lane, b.Base, err)
		}
		f.position.at(head)
		return len(records), nil
	default:
		return len(records), fmt.Errorf("ingest %s/%d from %d to %d: %w", f.config.Topic, f.lane, b.Base, b.Next, err)
	}
}
