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

	"pawl/internal/control"
)

// Prefix begins the keys of orders in the control topic. A release that does not know them passes over them.
const Prefix = "audit/"

const (
	format       = 1 // the only one that this release writes and reads
	writeTimeout = 5 * time.Second
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
	Reason string `json:"reason"` // in the operator's words
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
type Trail struct{ topic control.Topic }

// Open makes a trail; Close it. Nothing is asked of the brokers yet.
func Open(client []kgo.Opt, topic string) (*Trail, error) {
	opened, err := control.Open(topic, client)
	if err != nil {
		return nil, fmt.Errorf("open the audit: %w", err)
	}
	return &Trail{topic: opened}, nil
}

// Close ends the connections.
func (t *Trail) Close() { t.topic.Client.Close() }

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
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return t.refused(t.topic.Client.ProduceSync(ctx, &kgo.Record{Topic: t.topic.Name, Key: []byte(entry.key), Value: value}).FirstErr())
}

// refused says what writing needs.
func (t *Trail) refused(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("write to control topic %s (needs the right Write on it): %w", t.topic.Name, err)
}

// mark may be in the way of nobody else's.
func (t *Trail) mark(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	mark, err := t.topic.Mark(ctx, fmt.Sprintf("audit-%08x", rand.Uint32())) //nolint:gosec // it tells two readers apart
	return mark, t.refused(err)
}

// Read gives the orders that were given since a moment, newest first, at most most of them where that is above 0. It is an
// error of its own if some can't be read by this release: the others are given all the same.
func (t *Trail) Read(ctx context.Context, since time.Time, most int) ([]Entry, error) {
	mark, err := t.mark(ctx)
	if err != nil {
		return nil, err
	}
	found, unreadable := map[string]Entry{}, map[string]error{}
	if err := t.topic.Read(ctx, mark, func(r *kgo.Record) { take(r, found, unreadable) }); err != nil {
		return nil, err
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
		errs = append(errs, fmt.Errorf("order %s in %s: %w: use the release that wrote it, or a later one", key, t.topic.Name, err))
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
