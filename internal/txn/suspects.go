package txn

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/control"
)

// suspect is what the control topic remembers of the first batch that an owner takes from a
// partition. It is written before the batch is handled, so that it survives the process. It counts
// only while the partition's committed offset is still Offset: with the first commit it is history.
type suspect struct {
	Format  int   `json:"format"`
	Offset  int64 `json:"offset"`  // committed offset when the batch began
	Until   int64 `json:"until"`   // end of the batch
	Crashes int   `json:"crashes"` // processes that died with it in flight, this one included until it returns
	Alone   int   `json:"alone"`   // those of them that had only the first record in flight
	// Hunting says that from Offset to Until one record is in flight at a time, so that the note holds
	// while the committed offset moves on: a death then was that of the record at that offset, alone.
	Hunting bool `json:"hunting,omitempty"`
}

// at gives the note's meaning where the committed offset is now offset.
func (s suspect) at(offset int64) suspect {
	switch {
	case s.Offset == offset:
		return s
	case s.Hunting && s.Offset < offset && offset < s.Until:
		return suspect{Format: s.Format, Offset: offset, Until: s.Until, Crashes: s.Crashes, Alone: 1}
	default:
		return suspect{} // it is about what has been committed since
	}
}

const (
	suspectFormat = 1
	suspectPrefix = "suspect/"
	// crashesMax is the number of deaths that are written down before the hunt begins. The death of an
	// owner in its steady state is not among them: nothing was suspected then.
	crashesMax = countedMax
	// aloneMax is the number of deaths with one record alone in flight that convict it. One might
	// be chance, somebody's kill -9; two are not.
	aloneMax = 2
	// controlReadMax bounds one reading of the control topic.
	controlReadMax = 30 * time.Second
)

// memory keeps suspects in the control topic. It has clients of its own: what it writes must stay
// when the lane's transaction is aborted.
type memory struct {
	topic  control.Topic // its client is shared by the lanes
	reader string        // names this process among the readers
}

func suspectKey(topicID [16]byte, partition int32) string {
	return suspectPrefix + hex.EncodeToString(topicID[:]) + "/" + strconv.Itoa(int(partition))
}

// read returns all suspects by key. Unknown formats are an error: a newer release wrote them, and
// guessing could run a deadly record again.
func (m *memory) read(ctx context.Context) (map[string]suspect, error) {
	ctx, cancel := context.WithTimeout(ctx, controlReadMax)
	defer cancel()
	mark, err := m.topic.Mark(ctx, m.reader)
	if err != nil {
		return nil, fmt.Errorf("read control topic %s: write a mark: %w", m.topic.Name, err)
	}
	found := map[string]suspect{}
	var bad error
	err = m.topic.Read(ctx, mark, func(r *kgo.Record) {
		if !strings.HasPrefix(string(r.Key), suspectPrefix) {
			return
		}
		if r.Value == nil {
			delete(found, string(r.Key))
			return
		}
		s, err := readSuspect(r.Value)
		if err != nil {
			bad = errors.Join(bad, fmt.Errorf("offset %d: %w", r.Offset, err))
			return
		}
		found[string(r.Key)] = s
	})
	switch {
	case err != nil:
		return nil, err
	case bad != nil:
		return nil, fmt.Errorf("read control topic %s: %w", m.topic.Name, bad)
	}
	return found, nil
}

func readSuspect(value []byte) (suspect, error) {
	var s suspect
	if err := json.Unmarshal(value, &s); err != nil {
		return s, err
	}
	if s.Format != suspectFormat {
		return s, fmt.Errorf("it has format %d, this release knows %d: upgrade this instance", s.Format, suspectFormat)
	}
	return s, nil
}

// write stores suspects and returns when they are on the brokers.
func (m *memory) write(ctx context.Context, suspects map[string]suspect) error {
	records := make([]*kgo.Record, 0, len(suspects))
	for key, s := range suspects {
		s.Format = suspectFormat
		value, err := json.Marshal(s)
		if err != nil {
			return fmt.Errorf("encode suspect: %w", err)
		}
		records = append(records, &kgo.Record{Topic: m.topic.Name, Key: []byte(key), Value: value})
	}
	if err := m.topic.Client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("write control topic %s: %w", m.topic.Name, err)
	}
	return nil
}
