package message

import (
	"crypto/sha1" //nolint:gosec // UUIDv5 is defined over SHA-1 (RFC 9562 section 5.5); nothing is secured by it
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Source names one input record for ever: the topic id tells a recreated topic from its
// predecessor, the generation tells a deliberate repetition from an accidental one.
type Source struct {
	Application      string
	ReplayGeneration int
	Topic            string
	TopicID          [16]byte
	Partition        int32
	Offset           int64
}

// String gives topic/partition/offset, the value of the pawl-source header.
func (s Source) String() string { return string(s.AppendText(nil)) }

// AppendText appends what String returns.
func (s Source) AppendText(b []byte) []byte {
	b = append(b, s.Topic...)
	b = append(b, '/')
	b = strconv.AppendInt(b, int64(s.Partition), 10)
	b = append(b, '/')
	return strconv.AppendInt(b, s.Offset, 10)
}

// ParseSource reads topic, partition and offset back from the text of String. Other ways to write the
// same numbers are refused: Pawl did not write them.
func ParseSource(text string) (Source, error) {
	parts := strings.Split(text, "/")
	if len(parts) != 3 || parts[0] == "" {
		return Source{}, fmt.Errorf("parse source %q: want topic/partition/offset", text)
	}
	partition, err := strconv.ParseInt(parts[1], 10, 32)
	if err != nil {
		return Source{}, fmt.Errorf("parse source %q: partition: %w", text, err)
	}
	offset, err := strconv.ParseInt(parts[2], 10, 64)
	if err != nil {
		return Source{}, fmt.Errorf("parse source %q: offset: %w", text, err)
	}
	source := Source{Topic: parts[0], Partition: int32(partition), Offset: offset}
	if partition < 0 || offset < 0 || source.String() != text {
		return Source{}, fmt.Errorf("parse source %q: want topic/partition/offset as plain numbers", text)
	}
	return source, nil
}

// ID is a UUID version 5 (RFC 9562).
type ID [16]byte

// namespace was drawn once at random; changing it changes every id ever made.
var namespace = ID{0x6d, 0x3b, 0x0c, 0x5e, 0x84, 0x1f, 0x4a, 0xd2, 0x9e, 0x27, 0x51, 0xc8, 0xb0, 0x6f, 0x3d, 0x94}

// The kinds keep the two sorts of names apart.
const (
	kindSource   = 's'
	kindBusiness = 'b'
)

// Space is the namespace of what the records of one topic give rise to. To make it costs as much as an
// id does; whoever names much keeps it.
type Space ID

// Space derives the namespace of a source: partition and offset have no part in it. The name hashed in
// Pawl's own namespace is, in this order: 's', application, NUL, generation (8 bytes), topic id (16),
// big endian.
func (s Source) Space() Space {
	var memory [160]byte
	b := append(memory[:0], namespace[:]...)
	b = append(b, kindSource)
	b = append(b, s.Application...)
	b = append(b, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(s.ReplayGeneration)) //nolint:gosec // bits are hashed, not counted
	b = append(b, s.TopicID[:]...)
	return Space(uuid5(b))
}

// ID derives the id of what an input made at index: the same input, generation and index give the
// same id in every attempt, on every replica. The name hashed in the space is partition (4 bytes),
// offset (8), index (8), big endian, which is short enough for one block of SHA-1.
func (s Space) ID(partition int32, offset int64, index int) ID {
	var name [len(s) + 4 + 8 + 8]byte
	copy(name[:], s[:])
	binary.BigEndian.PutUint32(name[len(s):], uint32(partition)) //nolint:gosec // bits are hashed, not counted
	binary.BigEndian.PutUint64(name[len(s)+4:], uint64(offset))  //nolint:gosec // as above
	binary.BigEndian.PutUint64(name[len(s)+12:], uint64(index))  //nolint:gosec // as above
	return uuid5(name[:])
}

// ID derives the id of what this input made at index, see Space.
func (s Source) ID(index int) ID { return s.Space().ID(s.Partition, s.Offset, index) }

// BusinessID derives the idempotency key of an effect that names its own business key, so that an
// order which was produced twice upstream is charged once.
func BusinessID(application, endpoint, key string) ID {
	var memory [160]byte // enough for most
	b := append(memory[:0], namespace[:]...)
	b = append(b, kindBusiness)
	b = append(b, application...)
	b = append(b, 0)
	b = append(b, endpoint...)
	b = append(b, 0)
	b = append(b, key...)
	return uuid5(b)
}

func uuid5(name []byte) ID {
	sum := sha1.Sum(name) //nolint:gosec // see the import
	var id ID
	copy(id[:], sum[:])
	id[6] = id[6]&0x0f | 0x50
	id[8] = id[8]&0x3f | 0x80
	return id
}

// String gives the 36 characters of RFC 9562.
func (id ID) String() string { return string(id.AppendText(nil)) }

// IDTextLen is the length of what String returns.
const IDTextLen = 36

// AppendText appends what String returns.
func (id ID) AppendText(b []byte) []byte {
	b = append(b, "00000000-0000-0000-0000-000000000000"...)
	text := b[len(b)-IDTextLen:]
	hex.Encode(text[0:], id[0:4])
	hex.Encode(text[9:], id[4:6])
	hex.Encode(text[14:], id[6:8])
	hex.Encode(text[19:], id[8:10])
	hex.Encode(text[24:], id[10:16])
	return b
}
