package deadletter

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// marker is the value of a marker record. A tombstone takes a marker back when its letter is gone.
type marker struct {
	Format int    `json:"format"`
	State  State  `json:"state"`
	Reason string `json:"reason,omitempty"` // why it was discarded, in the operator's words
}

const (
	markerFormat    = 1
	markerPrefix    = "redrive/"
	markerPartition = 0
)

// markers is what is known to be settled: per partition and word of 64 offsets two bits an offset,
// so that a million settled letters take about a megabyte. Offsets below start are gone, which only
// settled letters can be.
type markers struct {
	topicID kadm.TopicID
	start   map[int32]int64
	words   map[int32]map[int64]*word
	strange [][]byte // keys of markers of an earlier dead-letter topic of this name
}

type word struct {
	redriven, discarded uint64
}

func (m *markers) state(partition int32, offset int64) State {
	bit := uint64(1) << (offset & 63)
	w := m.words[partition][offset>>6]
	switch {
	case w != nil && w.redriven&bit != 0:
		return StateRedriven
	case w != nil && w.discarded&bit != 0, offset < m.start[partition]:
		return StateDiscarded
	default:
		return StateOpen
	}
}

func (m *markers) set(partition int32, offset int64, state State) {
	words := m.words[partition]
	if words == nil {
		words = make(map[int64]*word)
		m.words[partition] = words
	}
	w := words[offset>>6]
	if w == nil {
		w = new(word)
		words[offset>>6] = w
	}
	bit := uint64(1) << (offset & 63)
	w.redriven &^= bit
	w.discarded &^= bit
	switch state {
	case StateRedriven:
		w.redriven |= bit
	case StateDiscarded:
		w.discarded |= bit
	case StateOpen, StateUnknown:
	}
}

// below lists the positions of markers of letters that are gone.
func (m *markers) below() []Position {
	var gone []Position
	for partition, words := range m.words {
		for index, w := range words {
			for bit := range int64(64) {
				if offset := index<<6 | bit; offset < m.start[partition] && (w.redriven|w.discarded)&(1<<bit) != 0 {
					gone = append(gone, Position{Partition: partition, Offset: offset})
				}
			}
		}
	}
	return gone
}

func (m *markers) key(p Position) []byte {
	key := append([]byte(markerPrefix), hex.EncodeToString(m.topicID[:])...)
	key = strconv.AppendInt(append(key, '/'), int64(p.Partition), 10)
	return strconv.AppendInt(append(key, '/'), p.Offset, 10)
}

// record makes the record that marks a letter.
func (m *markers) record(control string, p Position, state State, reason string) (*kgo.Record, error) {
	value, err := json.Marshal(marker{Format: markerFormat, State: state, Reason: reason})
	if err != nil {
		return nil, fmt.Errorf("encode marker: %w", err)
	}
	return &kgo.Record{Topic: control, Partition: markerPartition, Key: m.key(p), Value: value}, nil
}

// readMarkers reads the control topic up to the end that list gives: a reader is content with
// ListCommittedOffsets, who settles needs ListEndOffsets. Beyond most records it gives up; 0 is no limit.
func (q *Queue) readMarkers(ctx context.Context, letters kadm.TopicDetail, list listOffsets, most int) (*markers, error) {
	control, err := q.describe(ctx, q.config.ControlTopic)
	if err != nil {
		return nil, err
	}
	m := &markers{topicID: letters.ID, start: make(map[int32]int64), words: make(map[int32]map[int64]*word)}
	strange := make(map[string]bool)
	ends, err := q.bounds(ctx, control.Topic, list)
	if err != nil {
		return nil, err
	}
	read := 0
	for _, b := range ends {
		if b.partition != markerPartition {
			continue
		}
		err := q.scan(ctx, control, b.partition, b.start, b.end, func(r *kgo.Record) error {
			if read++; most > 0 && read > most {
				return errManyNotes
			}
			if err := m.apply(r, strange); err != nil {
				return fmt.Errorf("control topic %s, offset %d: %w", control.Topic, r.Offset, err)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for key := range strange {
		m.strange = append(m.strange, []byte(key))
	}
	// After the markers, never before: a letter that is purged in between has lost its marker, but
	// is seen to be gone here.
	first, err := q.bounds(ctx, letters.Topic, q.admin.ListEndOffsets)
	if err != nil {
		return nil, err
	}
	for _, b := range first {
		m.start[b.partition] = b.start
	}
	return m, nil
}

func (m *markers) apply(r *kgo.Record, strange map[string]bool) error {
	key := string(r.Key)
	rest, ours := strings.CutPrefix(key, markerPrefix)
	if !ours {
		return nil
	}
	topicID, place, _ := strings.Cut(rest, "/")
	if topicID != hex.EncodeToString(m.topicID[:]) {
		strange[key] = r.Value != nil
		if r.Value == nil {
			delete(strange, key)
		}
		return nil
	}
	p, err := ParsePosition(place)
	if err != nil {
		return fmt.Errorf("key %q: %w", key, err)
	}
	if r.Value == nil {
		m.set(p.Partition, p.Offset, StateOpen)
		return nil
	}
	var value marker
	if err := json.Unmarshal(r.Value, &value); err != nil {
		return fmt.Errorf("marker %q: %w", key, err)
	}
	if value.Format != markerFormat || value.State != StateRedriven && value.State != StateDiscarded {
		return fmt.Errorf("marker %q has format %d and state %q, this release knows format %d: use the release that wrote it, or a later one", key, value.Format, value.State, markerFormat)
	}
	m.set(p.Partition, p.Offset, value.State)
	return nil
}
