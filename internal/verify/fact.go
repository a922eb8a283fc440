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
	factExpected                 // what the model makes of it; extra is another digest that it may have, or 0
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
	flagLate                   // factCall
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

// A fact is written as its length, its kind, which fields it has, and those: of most kinds it has few.
const (
	factLength = 4 // of the length, which counts itself
	factHead   = factLength + 1 + 2
)

// The fields that may be missing, because they are zero.
const (
	hasFlags = 1 << iota
	hasTopic
	hasPartition
	hasOffset
	hasIndex
	hasID
	hasDigest
	hasNumber
	hasProducer
	hasEpoch
	hasTime
	hasExtra
	hasText // last, up to the end
)

// appendTo writes the fact.
func (f *fact) appendTo(b []byte) []byte {
	le := binary.LittleEndian
	from := len(b)
	b = append(b, 0, 0, 0, 0, byte(f.kind), 0, 0)
	var has uint16
	small := func(field, value uint16) {
		if value != 0 {
			has |= field
			b = le.AppendUint16(b, value)
		}
	}
	middle := func(field uint16, value int32) {
		if value != 0 {
			has |= field
			b = le.AppendUint32(b, uint32(value)) //nolint:gosec // bits
		}
	}
	large := func(field uint16, value uint64) {
		if value != 0 {
			has |= field
			b = le.AppendUint64(b, value)
		}
	}
	small(hasFlags, f.flags)
	small(hasTopic, f.topic)
	middle(hasPartition, f.partition)
	large(hasOffset, uint64(f.offset)) //nolint:gosec // bits, here and below
	middle(hasIndex, f.index)
	if f.id != (message.ID{}) {
		has |= hasID
		b = append(b, f.id[:]...)
	}
	large(hasDigest, f.digest)
	large(hasNumber, uint64(f.number))     //nolint:gosec // bits
	large(hasProducer, uint64(f.producer)) //nolint:gosec // bits
	small(hasEpoch, uint16(f.epoch))       //nolint:gosec // bits
	large(hasTime, uint64(f.time))         //nolint:gosec // bits
	large(hasExtra, f.extra)
	if f.text != "" {
		has |= hasText
		b = append(b, f.text...)
	}
	le.PutUint32(b[from:], uint32(len(b)-from)) //nolint:gosec // a fact is small
	le.PutUint16(b[from+factLength+1:], has)
	return b
}

// factSize reads how long the fact at the beginning of b is.
func factSize(b []byte) int { return int(binary.LittleEndian.Uint32(b)) }

// readFrom reads what appendTo wrote and returns its length. The fact must be zero.
func (f *fact) readFrom(b []byte) int {
	le := binary.LittleEndian
	b = b[:factSize(b)]
	f.kind = kind(b[factLength])
	has, at := le.Uint16(b[factLength+1:]), factHead
	small := func(field uint16) (value uint16) {
		if has&field != 0 {
			value = le.Uint16(b[at:])
			at += 2
		}
		return value
	}
	middle := func(field uint16) (value int32) {
		if has&field != 0 {
			value = int32(le.Uint32(b[at:])) //nolint:gosec // bits
			at += 4
		}
		return value
	}
	large := func(field uint16) (value uint64) {
		if has&field != 0 {
			value = le.Uint64(b[at:])
			at += 8
		}
		return value
	}
	f.flags = small(hasFlags)
	f.topic = small(hasTopic)
	f.partition = middle(hasPartition)
	f.offset = int64(large(hasOffset)) //nolint:gosec // bits, here and below
	f.index = middle(hasIndex)
	if has&hasID != 0 {
		at += copy(f.id[:], b[at:])
	}
	f.digest = large(hasDigest)
	f.number = int64(large(hasNumber))     //nolint:gosec // bits
	f.producer = int64(large(hasProducer)) //nolint:gosec // bits
	f.epoch = int16(small(hasEpoch))       //nolint:gosec // bits
	f.time = int64(large(hasTime))         //nolint:gosec // bits
	f.extra = large(hasExtra)
	if has&hasText != 0 {
		f.text = string(b[at:])
	}
	return len(b)
}

func (f *fact) has(flag uint16) bool { return f.flags&flag != 0 }
