package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"math/bits"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/outbox"
)

const progressFormat = 1

// progress is the value of a lane's record on the progress topic; its key is the lane as decimal text and
// its partition is the lane.
type progress struct {
	Format int   `json:"format"`
	Seq    int64 `json:"seq"`    // everything up to this flush has been told
	Epoch  int64 `json:"epoch"`  // of that flush
	Offset int64 `json:"offset"` // of its last outcome, on the effects topic
	// Until is set once the lane has diverged: on the results topic, from the offset From up to Until, stand events
	// of an earlier ledger, and what they tell is not told again. That is kept until retention has dropped
	// them, because an effect may be settled a second time long after the restore.
	From  int64 `json:"from,omitempty"`
	Until int64 `json:"until,omitempty"`
	// Trail is flushes that were the last ones told, newest first, fewer the older they are. After a restore they
	// say how far back the ledger is still the one that was relayed.
	Trail []anchor `json:"trail,omitempty"`
}

// anchor is a flush as a progress record named it, and an offset of the results topic at or before which the events
// of later flushes begin: seq, epoch, last offset, results offset. An array, because there are dozens in each record.
type anchor [4]int64

func (a anchor) seq() int64     { return a[0] }
func (a anchor) epoch() int64   { return a[1] }
func (a anchor) offset() int64  { return a[2] }
func (a anchor) results() int64 { return a[3] }

// A trail has two anchors for each power of four that they are old, in flushes.
const (
	trailBits  = 2
	trailTwins = 2
)

// extend puts an anchor before a trail and thins the rest. Of several that are about equally old, the newest and
// the oldest stay: the former will be the old one of the next, and the latter has been that.
func extend(trail []anchor, newest anchor, seq int64) []anchor {
	all := append([]anchor{newest}, trail...)
	kept := all[:0]
	bucket := func(a anchor) int { return bits.Len64(uint64(seq-a.seq())) / trailBits } //nolint:gosec // seq is larger than all before
	for i, a := range all {
		n := len(kept)
		if n >= trailTwins && bucket(kept[n-1]) == bucket(a) && bucket(kept[n-trailTwins]) == bucket(a) {
			kept[n-1] = all[i]
			continue
		}
		kept = append(kept, a)
	}
	return kept
}

func progressKey(lane int32) string { return strconv.Itoa(int(lane)) }

func (p progress) record(topic string, lane int32) (*kgo.Record, error) {
	p.Format = progressFormat
	value, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode progress of lane %d: %w", lane, err)
	}
	return &kgo.Record{Topic: topic, Partition: lane, Key: []byte(progressKey(lane)), Value: value}, nil
}

// progressTail is how many offsets of the end of the log are read first. A compacted topic holds days of
// superseded records, of which only the last counts.
const progressTail = 1000

// readProgress returns a lane's progress, zero where there is none. It must run after the lane's producer has
// its id and before it writes.
func readProgress(ctx context.Context, client *kgo.Client, topic string, lane int32) (progress, error) {
	start, end, err := bounds(ctx, client, topic, lane)
	if err != nil {
		return progress{}, err
	}
	for tail := int64(progressTail); ; tail *= 10 {
		from := max(start, end-tail)
		last, err := lastProgress(ctx, client, topic, lane, from, end)
		if err != nil {
			return progress{}, err
		}
		if last != nil {
			return decodeProgress(last, lane)
		}
		if from == start {
			return progress{}, nil
		}
	}
}

// lastProgress returns the last record under a lane's key, nil where there is none.
func lastProgress(ctx context.Context, client *kgo.Client, topic string, lane int32, from, end int64) (*kgo.Record, error) {
	var last *kgo.Record
	key := progressKey(lane)
	err := readPartition(ctx, client, topic, lane, from, end, func(r *kgo.Record) error {
		if string(r.Key) == key {
			last = r
		}
		return nil
	})
	return last, err
}

func decodeProgress(r *kgo.Record, lane int32) (progress, error) {
	if r.Value == nil { // a tombstone: somebody has taken it away on purpose
		return progress{}, nil
	}
	var found progress
	if err := json.Unmarshal(r.Value, &found); err != nil {
		return progress{}, &haltError{fmt.Errorf("decode progress at %s/%d/%d: %w; only Pawl writes there: find the writer, then write a tombstone under the key %s, and the relay finds out from the results topic how far it was", r.Topic, r.Partition, r.Offset, err, progressKey(lane))}
	}
	if found.Format != progressFormat {
		return progress{}, &haltError{fmt.Errorf("progress at %s/%d/%d has format %d, this release knows %d: upgrade this instance", r.Topic, r.Partition, r.Offset, found.Format, progressFormat)}
	}
	return found, nil
}

// told is the fates that events on the results topic tell, as sets of offsets, which lie close together.
type told map[outbox.Status]outbox.Ranges

func (t told) add(offset int64, status outbox.Status) { t[status] = t[status].Add(offset, offset+1) }

// has reports whether the fate of an effect needs no event any more: because it was told with the same
// status, or because what was told is final for good. An effect that was done stays done: its second call,
// made by a ledger that had forgotten the first, says nothing new, even if it failed. One that was dead or
// unknown may get another status, as after an operator's retry.
func (t told) has(o outbox.Outcome) bool {
	for _, final := range []outbox.Status{outbox.Done, outbox.Duplicate, outbox.Conflict} {
		if t[final].Contains(o.Offset) {
			return true
		}
	}
	return t[o.Status].Contains(o.Offset)
}

// readTold reads back which fates the results topic tells of a lane from an offset up to until; 0 means up to what
// is the end now. It returns that offset too, or 0 where nothing is left that could be told twice.
func readTold(ctx context.Context, client *kgo.Client, topic string, lane int32, from, until int64) (told, int, int64, error) {
	found, events := told{}, 0
	start, end, err := bounds(ctx, client, topic, lane)
	if err != nil {
		return nil, 0, 0, err
	}
	if until == 0 {
		until = end
	}
	if until <= max(start, from) {
		return found, 0, 0, nil
	}
	err = readPartition(ctx, client, topic, lane, max(start, from), min(end, until), func(r *kgo.Record) error {
		var e struct {
			Format int           `json:"format"`
			Lane   int32         `json:"lane"`
			Offset int64         `json:"offset"`
			Status outbox.Status `json:"status"`
		}
		if err := json.Unmarshal(r.Value, &e); err != nil {
			return &haltError{fmt.Errorf("decode result event at %s/%d/%d: %w; only Pawl writes there: find the writer", topic, lane, r.Offset, err)}
		}
		if e.Format != eventFormat || e.Lane != lane {
			return &haltError{fmt.Errorf("result event at %s/%d/%d has format %d and lane %d, this release knows format %d and wants this lane: upgrade this instance, or find the writer", topic, lane, r.Offset, e.Format, e.Lane, eventFormat)}
		}
		found.add(e.Offset, e.Status)
		events++
		return nil
	})
	return found, events, until, err
}
