package rebuild

import (
	"crypto/sha256"
	"net/http"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

// memory is what was told. Of what ended well at once, which is nearly all, it keeps only the offsets.
type memory struct {
	done  outbox.Ranges            // by the first call, with 200
	other map[int64]outbox.Outcome // all else, by offset
	// gone is what was told of effects that the topic has no more, with the hash of each one's content. One with
	// the same id is a repeat of it, or has the same business key.
	gone map[message.ID][sha256.Size]byte
}

func newMemory() *memory { return &memory{gone: map[message.ID][sha256.Size]byte{}} }

// forget makes room for another lane.
func (m *memory) forget() { m.done, m.other = nil, map[int64]outbox.Outcome{} }

func (m *memory) remember(r outbox.Result) {
	if _, known := m.gone[r.Intent.ID]; !known {
		m.gone[r.Intent.ID] = contentHash(&r.Intent)
	}
}

// add takes what was told of an effect. The last fate holds, but what was done stays done, and what is a
// duplicate or a conflict stays that.
func (m *memory) add(o outbox.Outcome) {
	if m.done.Contains(o.Offset) {
		return
	}
	before, known := m.other[o.Offset]
	if known && before.Status != outbox.Dead && before.Status != outbox.Unknown {
		return
	}
	if !known && o.Status == outbox.Done && o.Attempts == 1 && o.HTTPStatus == http.StatusOK {
		m.done = m.done.Add(o.Offset, o.Offset+1)
		return
	}
	if o.Status == outbox.Done {
		o.Response = nil // for operators, who have no question about it
	}
	m.other[o.Offset] = o
}

// find gives the outcome that was told of an effect.
func (m *memory) find(offset int64) (outbox.Outcome, bool) {
	if m.done.Contains(offset) {
		return outbox.Outcome{Offset: offset, Status: outbox.Done, Attempts: 1, HTTPStatus: http.StatusOK}, true
	}
	o, known := m.other[offset]
	return o, known
}

// repeats tells whether an effect has the id of one that is gone, and what it is to that one.
func (m *memory) repeats(intent *outbox.Intent) (outbox.Outcome, bool) {
	hash, gone := m.gone[intent.ID]
	switch {
	case !gone:
		return outbox.Outcome{}, false
	case hash == contentHash(intent):
		return outbox.Outcome{Offset: intent.Offset, Status: outbox.Duplicate, Error: "the same call was told of, and the effects topic has it no more"}, true
	default:
		return outbox.Outcome{Offset: intent.Offset, Status: outbox.Conflict, Error: "one that the effects topic has no more had the same business key and another body"}, true
	}
}

func contentHash(intent *outbox.Intent) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte(intent.ContentType))
	h.Write([]byte{0})
	h.Write(intent.Body)
	return [sha256.Size]byte(h.Sum(nil))
}
