package ingest

import (
	"fmt"
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/outbox"
)

// position is where a lane stands: in the ledger, and in the topic beyond it.
type position struct {
	topicID [16]byte
	base    int64                         // of the ledger
	seen    map[outbox.Origin]outbox.Mark // as of base

	// Everything in [base, read) is known to hold no intent: markers, aborted records, repeats. It goes
	// into the ledger with the next intents, or after foldAfter.
	read       int64
	suppressed int
	since      time.Time // when read left base
}

// foldAfter bounds how often a lane without intents writes its position. Transactions that abort or
// that put effects on other lanes leave markers on this one, and no row is worth one of them.
const foldAfter = time.Minute

// at puts the position where the ledger stands, unless the topic has been read further.
func (p *position) at(head outbox.Head) {
	p.topicID, p.base, p.seen, p.suppressed = head.TopicID, head.Next, head.Seen, 0
	if p.seen == nil {
		p.seen = map[outbox.Origin]outbox.Mark{}
	}
	p.read = max(p.read, p.base)
	if p.read == p.base {
		p.since = time.Time{}
	}
}

// due reports that what was read without intents is to be written down.
func (p *position) due(now time.Time) bool {
	return p.read > p.base && now.Sub(p.since) >= foldAfter
}

// build makes the batch that begins at the position out of records, and returns those left over. The
// position is not changed. An error concerns the first record that is left over.
func (p *position) build(lane int32, records []*kgo.Record, limit, bytesLimit int) (outbox.Batch, []*kgo.Record, error) {
	b := outbox.Batch{
		Lane: lane, TopicID: p.topicID, Base: p.base, Next: p.read,
		Seen: map[outbox.Origin]outbox.Mark{}, Suppressed: p.suppressed,
	}
	bytes := 0
	for n, r := range records {
		if r.Offset < b.Next {
			continue // somebody else was faster
		}
		if r.Attrs.IsControl() {
			b.Next = r.Offset + 1
			continue
		}
		if len(b.Intents) >= limit || bytes >= bytesLimit {
			return b, records[n:], nil
		}
		intent, err := Decode(r)
		if err != nil {
			return b, records[n:], fmt.Errorf("the record at offset %d can't be read: %w", r.Offset, err)
		}
		b.Next = r.Offset + 1
		if !p.raise(b.Seen, &intent) {
			b.Suppressed++
			continue
		}
		b.Intents = append(b.Intents, intent)
		bytes += len(intent.Key) + len(intent.Body)
	}
	return b, nil, nil
}

// raise reports whether an intent is above the mark of its origin, and makes it the mark then.
func (p *position) raise(raised map[outbox.Origin]outbox.Mark, intent *outbox.Intent) bool {
	origin := outbox.Origin{
		TopicID: intent.Source.TopicID, Partition: intent.Source.Partition, Generation: intent.Source.ReplayGeneration,
	}
	mark := outbox.Mark{Offset: intent.Source.Offset, Index: intent.Index}
	highest, known := raised[origin]
	if !known {
		highest, known = p.seen[origin]
	}
	if known && !mark.Above(highest) {
		return false
	}
	raised[origin] = mark
	return true
}

// pass takes over what a batch without intents has read.
func (p *position) pass(b outbox.Batch, now time.Time) {
	if b.Next > p.read && p.read == p.base {
		p.since = now
	}
	p.read, p.suppressed = b.Next, b.Suppressed
}

// added takes over a batch that the ledger has.
func (p *position) added(b outbox.Batch) {
	p.base, p.read, p.suppressed, p.since = b.Next, b.Next, 0, time.Time{}
	maps.Copy(p.seen, b.Seen)
}
