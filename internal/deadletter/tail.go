package deadletter

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The limits of a look at the newest dead letters, for whoever looks from beside the work.
const (
	tailPart       = 4 // offsets of each partition that are read first; each further part is twice as long
	tailOffsetsMax = 2000
	tailBytesMax   = 32 << 20
	notesMax       = 200_000 // records of the control topic, beyond which the state of a letter is left open
)

// tail is what may be read yet.
type tail struct {
	offsets int64
	bytes   int
}

var (
	errTailFull  = errors.New("as much was read as a look may read")
	errManyNotes = errors.New("the control topic has more records than a look may read")
)

// Newest visits the newest dead letters, settled ones too: the end of each partition first, then what stands before it, in
// growing parts that are each visited in the order of offsets, until all is read or the limits of a look are reached. Then
// more is true. behind is the number of offsets that follow in the letter's partition; the timestamp tells nothing of when a
// record was refused. A letter's bytes may be kept, but they keep what was read with them.
func (q *Queue) Newest(ctx context.Context, visit func(l Letter, behind int64)) (more bool, _ error) {
	topic, state, err := q.glance(ctx)
	if err != nil {
		return false, err
	}
	all, err := q.bounds(ctx, topic.Topic, q.admin.ListCommittedOffsets)
	if err != nil {
		return false, err
	}
	rest := q.tail
	left := append([]bounds(nil), all...) // what is not read yet
	for part := int64(tailPart); ; part *= 2 {
		more = false
		for i := range left {
			b := &left[i]
			from := max(b.start, b.end-min(part, rest.offsets))
			err := q.scan(ctx, topic, b.partition, from, b.end, func(r *kgo.Record) error {
				letter := parse(r)
				letter.State = state(r.Partition, r.Offset)
				visit(letter, all[i].end-1-r.Offset)
				if rest.bytes -= size(r); rest.bytes < 0 {
					return errTailFull
				}
				return nil
			})
			if errors.Is(err, errTailFull) {
				return true, nil
			}
			if err != nil {
				return false, err
			}
			rest.offsets -= max(0, b.end-from)
			b.end = min(b.end, from)
			more = more || b.end > b.start
		}
		if !more || rest.offsets == 0 {
			return more, nil
		}
	}
}

// Find gives the dead letter at a position, settled or not; false where there is none.
func (q *Queue) Find(ctx context.Context, at Position) (letter Letter, found bool, _ error) {
	topic, state, err := q.glance(ctx)
	if err != nil {
		return letter, false, err
	}
	err = q.each(ctx, topic, Filter{At: []Position{at}, Settled: true}, state, func(l Letter) error {
		letter, found = l, true
		return nil
	})
	return letter, found, err
}

// glance finds the topic, and what became of its letters unless that would take too much reading.
func (q *Queue) glance(ctx context.Context) (kadm.TopicDetail, func(partition int32, offset int64) State, error) {
	topic, err := q.describe(ctx, q.config.Topic)
	if err != nil {
		return topic, nil, err
	}
	markers, err := q.readMarkers(ctx, topic, q.admin.ListCommittedOffsets, q.notesMax)
	if errors.Is(err, errManyNotes) {
		return topic, func(int32, int64) State { return StateUnknown }, nil
	}
	if err != nil {
		return topic, nil, err
	}
	return topic, markers.state, nil
}
