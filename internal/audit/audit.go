// Package audit remembers what operators ordered: who, what, why, and what became of it. Each order is one record of the
// control topic under a key of its own, so that it outlives every process and needs no database.
//
// Orders about effects stand in the ledger instead, beside what they are about, and pauses in notes of their own
// (package pause), because a process obeys those. This is for orders that are carried out by whoever gives them.
//
// An order is written down before it is carried out, and once more, under the same key, when it has ended. What is
// written down once only was cut off in between: it may have been carried out.
package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Prefix begins the keys of orders in the control topic. A release that does not know them passes over them.
const Prefix = "audit/"

const (
	format           = 1 // the only one that this release writes and reads
	controlPartition = 0 // the control topic's only one
	markPrefix       = "mark/audit-"
	writeTimeout     = 5 * time.Second
	metadataMinAge   = 50 * time.Millisecond // the default stalls for seconds after an everyday error
)

// Result is what became of an order.
type Result string

// The results.
const (
	Begun  Result = "begun" // nothing more is known: it goes on, or was cut off
	Done   Result = "done"
	Failed Result = "failed" // in part or whole
)

// Order is what an operator wants.
type Order struct {
	Action string `json:"action"` // the command, such as "offsets set"
	Target string `json:"target"` // what it is about
	Reason string `json:"reason"` // in the operator's words; empty where the action asks for none
	Actor  string `json:"actor"`  // who gave it, as far as a program can know
}

// Entry is an order as it is remembered.
type Entry struct {
	Format int `json:"format"`
	Order

	At     time.Time `json:"at"` // by the clock of whoever gave it
	Ended  time.Time `json:"ended,omitzero"`
	Result Result    `json:"result"`
	Detail string    `json:"detail,omitempty"` // how many, how far, what went wrong

	key string
}

// Trail writes orders down and reads them. Its methods may be called one at a time.
type Trail struct {
	options []kgo.Opt
	client  *kgo.Client
	topic   string // the control topic
}

// Open makes a trail; Close it. Nothing is asked of the brokers yet.
func Open(client []kgo.Opt, topic string) (*Trail, error) {
	options := append(slices.Clone(client), kgo.MetadataMinAge(metadataMinAge))
	opened, err := kgo.NewClient(append(slices.Clone(options), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))...)
	if err != nil {
		return nil, fmt.Errorf("open the audit: %w", err)
	}
	return &Trail{options: options, client: opened, topic: topic}, nil
}

// Close ends the connections.
func (t *Trail) Close() { t.client.Close() }

// Begin writes an order down that is about to be carried out.
func (t *Trail) Begin(ctx context.Context, order Order) (Entry, error) {
	now := time.Now().UTC()
	entry := Entry{Format: format, Order: order, At: now, Result: Begun, key: fmt.Sprintf("%s%019d-%08x", Prefix, now.UnixNano(), rand.Uint32())} //nolint:gosec // it tells two orders of one moment apart
	return entry, t.write(ctx, entry)
}

// End writes down what became of an order; err is what went wrong. It is written although ctx has ended.
func (t *Trail) End(ctx context.Context, entry Entry, detail string, err error) error {
	entry.Ended, entry.Result, entry.Detail = time.Now().UTC(), Done, detail
	if err != nil {
		entry.Result = Failed
		entry.Detail = strings.TrimPrefix(detail+": "+err.Error(), ": ")
	}
	return t.write(context.WithoutCancel(ctx), entry)
}

func (t *Trail) write(ctx context.Context, entry Entry) error {
	value, err := json.Marshal(entry)
	if err != nil {
		return fmt.Errorf("encode an order: %w", err)
	}
	_, err = t.produce(ctx, &kgo.Record{Topic: t.topic, Key: []byte(entry.key), Value: value})
	return err
}

func (t *Trail) produce(ctx context.Context, r *kgo.Record) (offset int64, _ error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := t.client.ProduceSync(ctx, r).FirstErr(); err != nil {
		return 0, fmt.Errorf("write to control topic %s (needs the right Write on it): %w", t.topic, err)
	}
	return r.Offset, nil
}

// Read gives the orders that were given since a moment, newest first, at most most of them where that is above 0. It is an
// error of its own if some can't be read by this release: the others are given all the same.
func (t *Trail) Read(ctx context.Context, since time.Time, most int) ([]Entry, error) {
	// Whoever has read a mark has read all before it. Up to the end of the log would not do: where the last records were
	// compacted away, no record ever shows that the end is reached.
	mark, err := t.produce(ctx, &kgo.Record{Topic: t.topic, Key: fmt.Appendf(nil, "%s%08x", markPrefix, rand.Uint32())}) //nolint:gosec // a tombstone: compaction takes it away
	if err != nil {
		return nil, err
	}
	reader, err := kgo.NewClient(append(slices.Clone(t.options),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{t.topic: {controlPartition: kgo.NewOffset().AtStart()}}))...)
	if err != nil {
		return nil, fmt.Errorf("open a reader of control topic %s: %w", t.topic, err)
	}
	defer reader.Close()
	found, unreadable := map[string]Entry{}, map[string]error{}
	for next := int64(0); next <= mark; {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("read control topic %s: %w", t.topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			take(r, found, unreadable)
		})
	}
	var entries []Entry
	for _, entry := range found {
		if !entry.At.Before(since) {
			entries = append(entries, entry)
		}
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(b.key, a.key) })
	if most > 0 {
		entries = entries[:min(len(entries), most)]
	}
	var errs []error
	for key, err := range unreadable {
		errs = append(errs, fmt.Errorf("order %s in %s: %w: use the release that wrote it, or a later one", key, t.topic, err))
	}
	return entries, errors.Join(errs...)
}

// take notes a record, the newest of each key.
func take(r *kgo.Record, found map[string]Entry, unreadable map[string]error) {
	key := string(r.Key)
	if !strings.HasPrefix(key, Prefix) {
		return
	}
	delete(found, key)
	delete(unreadable, key)
	if r.Value == nil {
		return
	}
	var entry Entry
	err := json.Unmarshal(r.Value, &entry)
	if err == nil && entry.Format != format {
		err = fmt.Errorf("it has format %d, this release knows format %d", entry.Format, format)
	}
	if err != nil {
		unreadable[key] = err
		return
	}
	entry.key = key
	found[key] = entry
}
