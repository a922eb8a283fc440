package verify

import (
	"bytes"
	"encoding/hex"
	"strconv"

	"pawl/internal/message"
)

// origin is what a record says of its source.
type origin struct {
	source    []byte
	partition int32
	offset    int64
	topic     []byte
	id        message.ID
	reason    []byte // of dead letters
	story     int    // of dead letters: where the headers of the engine begin
	index     int32  // of effects, like what follows
	topicID   [16]byte
	replay    int

	endpoint, class, contentType, business []byte
}

// readOrigin reads the headers that the engine wrote, see internal/txn/DESIGN.md. Whoever forged one
// did so before: of several the last counts. ok is false where source or id are missing or mangled.
func readOrigin(headers []message.Header) (o origin, ok bool) {
	o.index, o.story = noIndex, len(headers)
	var hasID bool
	for i := range headers {
		value := headers[i].Value
		switch headers[i].Key {
		case message.HeaderSource:
			o.source, o.story = value, i
		case message.HeaderID:
			o.id, hasID = parseID(value)
		case message.HeaderReason:
			o.reason = value
		case message.HeaderIndex:
			o.index = int32(plainNumber(value)) //nolint:gosec // a wrong one matches nothing
		case message.HeaderTopicID:
			if len(value) == hex.EncodedLen(len(o.topicID)) {
				_, _ = hex.Decode(o.topicID[:], value) // a wrong one matches nothing
			}
		case message.HeaderGeneration:
			o.replay = int(plainNumber(value))
		case message.HeaderEndpoint:
			o.endpoint = value
		case message.HeaderClass:
			o.class = value
		case message.HeaderContentType:
			o.contentType = value
		case message.HeaderBusinessKey:
			o.business = value
		}
	}
	return o, hasID && o.split()
}

// split reads topic/partition/offset without a copy.
func (o *origin) split() bool {
	last := bytes.LastIndexByte(o.source, '/')
	if last < 0 {
		return false
	}
	middle := bytes.LastIndexByte(o.source[:last], '/')
	if middle <= 0 {
		return false
	}
	partition, offset := plainNumber(o.source[middle+1:last]), plainNumber(o.source[last+1:])
	o.topic, o.partition, o.offset = o.source[:middle], int32(partition), offset //nolint:gosec // checked below
	return partition >= 0 && int64(o.partition) == partition && offset >= 0
}

// plainNumber gives -1 for what is no plain number.
func plainNumber(text []byte) int64 {
	if len(text) == 0 || len(text) > 18 {
		if n, err := strconv.ParseInt(string(text), 10, 64); err == nil && len(text) == 19 {
			return n
		}
		return -1
	}
	var n int64
	for _, c := range text {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

const uuidSize = 36

var hexDigits = func() (table [256]byte) {
	for i := range table {
		table[i] = 0xff
	}
	for i, c := range []byte("0123456789abcdef") {
		table[c] = byte(i)
	}
	return table
}()

// parseID reads the text of a UUID as message.ID writes it.
func parseID(text []byte) (id message.ID, ok bool) {
	if len(text) != uuidSize || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return id, false
	}
	at := 0
	for i := range id {
		if at == 8 || at == 13 || at == 18 || at == 23 {
			at++
		}
		high, low := hexDigits[text[at]], hexDigits[text[at+1]]
		if high|low > 0xf {
			return message.ID{}, false
		}
		id[i] = high<<4 | low
		at += 2
	}
	return id, true
}
