package deadletter

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Purged is what Purge has removed, or would remove.
type Purged struct {
	Letters int
	Markers int
}

// Purge deletes the settled dead letters that have no open one before them in their partition, and
// then the markers that are no longer needed. Kafka deletes from the front of a partition only, so
// one open letter keeps what stands behind it.
func (q *Queue) Purge(ctx context.Context, dryRun bool) (Purged, error) {
	var purged Purged
	session, err := q.openPurge(ctx, dryRun)
	if err != nil {
		return purged, fmt.Errorf("purge: %w", err)
	}
	if session.client != nil {
		defer session.close()
	}
	topic, err := q.describe(ctx, q.config.Topic)
	if err != nil {
		return purged, fmt.Errorf("purge: %w", err)
	}
	upTo, letters, err := q.firstOpen(ctx, topic, session.markers)
	if err != nil {
		return purged, fmt.Errorf("purge: %w", err)
	}
	for partition, offset := range upTo {
		purged.Letters += letters[partition]
		if !dryRun && offset > session.markers.start[partition] {
			if err := q.deleteBelow(ctx, topic.Topic, partition, offset); err != nil {
				return purged, fmt.Errorf("purge: %w", err)
			}
		}
		session.markers.start[partition] = offset
	}
	purged.Markers, err = q.sweep(ctx, session, dryRun)
	if err != nil {
		return purged, fmt.Errorf("purge: remove markers: %w", err)
	}
	return purged, nil
}

// openPurge makes the session a purge works with; under dryRun it has markers, but no client.
func (q *Queue) openPurge(ctx context.Context, dryRun bool) (*session, error) {
	if !dryRun {
		return q.openSession(ctx, &origins{known: make(map[string]*origin)})
	}
	topic, err := q.describe(ctx, q.config.Topic)
	if err != nil {
		return nil, err
	}
	markers, err := q.readMarkers(ctx, topic, q.admin.ListCommittedOffsets, 0)
	return &session{markers: markers}, err
}

// firstOpen gives, per partition, the offset of the first open letter, or the end where there is none, and
// how many letters stand before it. Offsets do not tell: markers of transactions have some, and aborted records.
func (q *Queue) firstOpen(ctx context.Context, topic kadm.TopicDetail, markers *markers) (first map[int32]int64, letters map[int32]int, _ error) {
	all, err := q.bounds(ctx, topic.Topic, q.admin.ListCommittedOffsets)
	if err != nil {
		return nil, nil, err
	}
	found := errors.New("found")
	first, letters = make(map[int32]int64), make(map[int32]int)
	for _, b := range all {
		first[b.partition] = b.end
		err := q.scan(ctx, topic, b.partition, b.start, b.end, func(r *kgo.Record) error {
			if markers.state(r.Partition, r.Offset) != StateOpen {
				letters[b.partition]++
				return nil
			}
			first[b.partition] = r.Offset
			return found
		})
		if err != nil && !errors.Is(err, found) {
			return nil, nil, err
		}
	}
	return first, letters, nil
}

func (q *Queue) deleteBelow(ctx context.Context, topic string, partition int32, offset int64) error {
	var upTo kadm.Offsets
	upTo.AddOffset(topic, partition, offset, -1)
	deleted, err := q.admin.DeleteRecords(ctx, upTo)
	if err == nil {
		err = deleted.Error()
	}
	if err != nil {
		return fmt.Errorf("delete %s/%d below offset %d (needs the right Delete on the topic): %w", topic, partition, offset, err)
	}
	return nil
}

// sweep writes tombstones over the markers of letters that are gone.
func (q *Queue) sweep(ctx context.Context, s *session, dryRun bool) (int, error) {
	keys := s.markers.strange
	for _, p := range s.markers.below() {
		keys = append(keys, s.markers.key(p))
	}
	for from := 0; from < len(keys) && !dryRun; from += q.recordsMax {
		part := keys[from:min(from+q.recordsMax, len(keys))]
		records := make([]*kgo.Record, 0, len(part))
		for _, key := range part {
			records = append(records, &kgo.Record{Topic: q.config.ControlTopic, Partition: markerPartition, Key: key})
		}
		if err := s.commit(ctx, records); err != nil {
			if fenced(err) {
				err = fmt.Errorf("%w: %w", ErrFenced, err)
			}
			return from, err
		}
	}
	return len(keys), nil
}
