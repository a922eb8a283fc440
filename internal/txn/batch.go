package txn

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// batch is the input of one transaction: everything that was polled since the last end, in the
// order in which it was polled, which per partition is the order of the log. It has as many records
// as will be committed: none may be left out.
type batch struct {
	records []*kgo.Record // without control records
	bytes   int64
	begins  map[place]int64 // first offset per partition, control records included
	ends    map[place]int64 // next offset per partition, likewise
	stable  map[place]int64 // last stable offset per partition, as of its newest fetch
	first   time.Time       // when its first record was polled
	oldest  *kgo.Record     // the one with the smallest timestamp
}

func newBatch() *batch {
	return &batch{begins: map[place]int64{}, ends: map[place]int64{}, stable: map[place]int64{}}
}

// add takes what one poll returned.
func (b *batch) add(fetches kgo.Fetches, now time.Time) {
	for _, fetch := range fetches {
		for _, topic := range fetch.Topics {
			for i := range topic.Partitions {
				b.addPartition(topic.Topic, &topic.Partitions[i])
			}
		}
	}
	if b.first.IsZero() && len(b.ends) > 0 {
		b.first = now
	}
}

func (b *batch) addPartition(topic string, p *kgo.FetchPartition) {
	if len(p.Records) == 0 {
		return
	}
	at := place{topic, p.Partition}
	for _, r := range p.Records {
		if r.Attrs.IsControl() {
			continue
		}
		b.records = append(b.records, r)
		b.bytes += int64(len(r.Key) + len(r.Value))
		if b.oldest == nil || r.Timestamp.Before(b.oldest.Timestamp) {
			b.oldest = r
		}
	}
	if _, known := b.ends[at]; !known {
		b.begins[at] = p.Records[0].Offset
	}
	b.ends[at] = p.Records[len(p.Records)-1].Offset + 1
	b.stable[at] = p.LastStableOffset
}

// empty reports that nothing at all was polled, not even a control record.
func (b *batch) empty() bool { return len(b.ends) == 0 }

// behind reports that committed input is known to wait beyond the batch.
func (b *batch) behind() bool {
	for at, end := range b.ends {
		if end < b.stable[at] {
			return true
		}
	}
	return false
}

func (b *batch) reset() {
	clear(b.records)
	b.records, b.bytes, b.first, b.oldest = b.records[:0], 0, time.Time{}, nil
	clear(b.begins)
	clear(b.ends)
	clear(b.stable)
}
