package verify

import (
	"encoding/binary"

	"pawl/internal/message"
)

// key is what facts are brought together by. Its meaning is that of the group it is used in.
type key [16]byte

// A source and a place in a log.
func placeKey(topic uint16, partition int32, offset int64) (k key) {
	binary.BigEndian.PutUint16(k[0:], topic)
	binary.BigEndian.PutUint32(k[2:], uint32(partition)) //nolint:gosec // bits
	binary.BigEndian.PutUint64(k[8:], uint64(offset))    //nolint:gosec // bits
	return k
}

func (k key) place() (topic uint16, partition int32, offset int64) {
	return binary.BigEndian.Uint16(k[0:]), int32(binary.BigEndian.Uint32(k[2:])), int64(binary.BigEndian.Uint64(k[8:])) //nolint:gosec // as above
}

// Two numbers, such as producer and epoch, or lane and the digest of a key.
func pairKey(a, b uint64) (k key) {
	binary.BigEndian.PutUint64(k[0:], a)
	binary.BigEndian.PutUint64(k[8:], b)
	return k
}

func (k key) pair() (a, b uint64) {
	return binary.BigEndian.Uint64(k[0:]), binary.BigEndian.Uint64(k[8:])
}

// kind says what a fact is.
type kind uint8

const (
	// By source.
	factInput    kind = iota + 1 // a committed input; digest is of the whole record
	factExpected                 // what the model makes of it
	factSeen                     // what stands in a log
	factRow                      // what stands in the ledger

	// By place in the effects topic.
	factIntent  // as it stands in the log
	factStored  // as it stands in the ledger
	factOutcome // number is the flush
	factEvent   // number is its place on the results topic
	factCall    // number is its place in the journal

	// By transaction.
	factEnd   // in one partition
	factClaim // of a worker

	// By place in a log.
	factLog
	factRead

	// By order key, or by idempotency key.
	factExecuted // number is the place of the first execution in the journal
	factTold     // number is the place of the first event
)

// flags of facts.
const (
	flagCommitted  = 1 << iota // of factSeen, factIntent, factLog, factEnd
	flagAborted                // else
	flagBusiness               // the id is that of a business key
	flagAtMostOnce             // class
	flagModelled               // factInput: what must come of it is known
	flagExecuted               // factCall
	flagRefused                // factCall
	flagLost                   // factCall
	flagBehind                 // factSeen: what stands before it is of a later input; number is that one's offset
	flagTheirs                 // factEnd: of whoever writes an input topic
	flagRepeat                 // factIntent: an earlier one has its source and index, so that the ledger leaves it out
	flagRetried                // factExecuted, factTold: an operator had it sent again
	flagFresh                  // factSeen: it came after inputs below the range had been judged
)

// fact is one piece of evidence. Which fields mean something, its kind says.
type fact struct {
	kind      kind
	flags     uint16
	topic     uint16 // where it stands; see Checker.topics
	partition int32
	offset    int64
	index     int32 // among what the input asked for, noIndex where the record does not tell
	id        message.ID
	digest    uint64
	number    int64
	producer  int64
	epoch     int16
	time      int64  // Unix ms
	extra     uint64 // see the kinds
	text      string
}

// noIndex stands for the index of outputs: only effects carry theirs.
const noIndex = -2

// deadLetterIndex is the index that the id of a dead letter is made from.
const deadLetterIndex = -1

const factSize = 1 + 2 + 2 + 4 + 8 + 4 + 16 + 8 + 8 + 8 + 2 + 8 + 8 + 2

// appendTo writes the fact; its text must be shorter than 64 KiB.
func (f *fact) appendTo(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, byte(f.kind))
	b = le.AppendUint16(b, f.flags)
	b = le.AppendUint16(b, f.topic)
	b = le.AppendUint32(b, uint32(f.partition)) //nolint:gosec // bits, here and below
	b = le.AppendUint64(b, uint64(f.offset))    //nolint:gosec // bits
	b = le.AppendUint32(b, uint32(f.index))     //nolint:gosec // bits
	b = append(b, f.id[:]...)
	b = le.AppendUint64(b, f.digest)
	b = le.AppendUint64(b, uint64(f.number))   //nolint:gosec // bits
	b = le.AppendUint64(b, uint64(f.producer)) //nolint:gosec // bits
	b = le.AppendUint16(b, uint16(f.epoch))    //nolint:gosec // bits
	b = le.AppendUint64(b, uint64(f.time))     //nolint:gosec // bits
	b = le.AppendUint64(b, f.extra)
	b = le.AppendUint16(b, uint16(len(f.text))) //nolint:gosec // bits
	return append(b, f.text...)
}

// readFrom reads what appendTo wrote and returns its length.
func (f *fact) readFrom(b []byte) int {
	le := binary.LittleEndian
	f.kind = kind(b[0])
	f.flags = le.Uint16(b[1:])
	f.topic = le.Uint16(b[3:])
	f.partition = int32(le.Uint32(b[5:])) //nolint:gosec // bits, here and below
	f.offset = int64(le.Uint64(b[9:]))    //nolint:gosec // bits
	f.index = int32(le.Uint32(b[17:]))    //nolint:gosec // bits
	copy(f.id[:], b[21:])
	f.digest = le.Uint64(b[37:])
	f.number = int64(le.Uint64(b[45:]))   //nolint:gosec // bits
	f.producer = int64(le.Uint64(b[53:])) //nolint:gosec // bits
	f.epoch = int16(le.Uint16(b[61:]))    //nolint:gosec // bits
	f.time = int64(le.Uint64(b[63:]))     //nolint:gosec // bits
	f.extra = le.Uint64(b[71:])
	n := factSize + int(le.Uint16(b[79:]))
	if f.text = ""; n > factSize {
		f.text = string(b[factSize:n])
	}
	return n
}

func (f *fact) has(flag uint16) bool { return f.flags&flag != 0 }
