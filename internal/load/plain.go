package load

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// The head of a plain value, big endian: mark (4 bytes), run, number, sequence (8 each), scheduled
// and called (8 each, nanoseconds since 1970).
const (
	plainMark = "PLN1"
	// PlainBytesMin is the size of a plain value without filler.
	PlainBytesMin = len(plainMark) + 5*8
)

// Filler says what the bytes behind the head of a plain value are like.
type Filler string

// The fillers.
const (
	FillerRandom Filler = "random" // no codec makes it smaller
	FillerWords  Filler = "words"  // a small vocabulary, as in JSON: a codec makes it several times smaller
)

// PlainConfig is what a stream of plain records needs.
type PlainConfig struct {
	Run    uint64 // tells this stream's records from those of another
	Bytes  int    // size of each value, at least PlainBytesMin
	Keys   int64  // how many keys take turns; 0 for records without key
	Filler Filler // empty means FillerRandom
	// SampledEvery, where it is not 0, gives each record a traceparent of its own. Of every so many records, from the
	// first on, one is of a trace that is sampled.
	SampledEvery int64
}

// Plain makes records of one size that carry their run, their number, a sequence per key and the
// times of their stamp. Keys take turns, so that record n has key n mod Keys and sequence n / Keys.
type Plain struct {
	config PlainConfig
	chance *chance
}

// NewPlain checks the configuration.
func NewPlain(config PlainConfig) (*Plain, error) {
	if config.Filler == "" {
		config.Filler = FillerRandom
	}
	var errs []error
	if config.Bytes < PlainBytesMin {
		errs = append(errs, fmt.Errorf("bytes is %d, want at least %d", config.Bytes, PlainBytesMin))
	}
	if config.Keys < 0 {
		errs = append(errs, fmt.Errorf("keys is %d, want at least 0", config.Keys))
	}
	if config.SampledEvery < 0 {
		errs = append(errs, fmt.Errorf("sampled every is %d, want at least 0", config.SampledEvery))
	}
	if config.Filler != FillerRandom && config.Filler != FillerWords {
		errs = append(errs, fmt.Errorf("filler is %q, want %q or %q", config.Filler, FillerRandom, FillerWords))
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("plain records: %w", errors.Join(errs...))
	}
	return &Plain{config: config, chance: newChance(config.Run)}, nil
}

// Fill makes record stamp.N.
func (p *Plain) Fill(record *kgo.Record, stamp Stamp) {
	sequence := stamp.N
	record.Key = record.Key[:0]
	if p.config.Keys > 0 {
		record.Key = appendKey(record.Key, stamp.N%p.config.Keys)
		sequence = stamp.N / p.config.Keys
	} else {
		record.Key = nil
	}
	if cap(record.Value) < p.config.Bytes {
		record.Value = make([]byte, 0, p.config.Bytes)
	}
	value := record.Value[:0]
	value = append(value, plainMark...)
	value = binary.BigEndian.AppendUint64(value, p.config.Run)
	value = binary.BigEndian.AppendUint64(value, uint64(stamp.N))  //nolint:gosec // not negative
	value = binary.BigEndian.AppendUint64(value, uint64(sequence)) //nolint:gosec // not negative
	value = binary.BigEndian.AppendUint64(value, uint64(stamp.Scheduled.UnixNano()))
	value = binary.BigEndian.AppendUint64(value, uint64(stamp.Called.UnixNano()))
	record.Value = p.fill(value, stamp.N)
	record.Headers = p.trace(record.Headers[:0], stamp.N)
}

// trace gives record n its traceparent, if it is to have one, in the memory of the one that headers had.
func (p *Plain) trace(headers []kgo.RecordHeader, n int64) []kgo.RecordHeader {
	if p.config.SampledEvery == 0 {
		return headers
	}
	if cap(headers) == 0 {
		headers = make([]kgo.RecordHeader, 0, 1)
	}
	headers = headers[:1]
	var trace, span [8]byte
	binary.BigEndian.PutUint64(trace[:], p.config.Run)
	binary.BigEndian.PutUint64(span[:], uint64(n)+1) //nolint:gosec // not negative; an id of zeros is none
	value := headers[0].Value[:0]
	value = append(value, "00-"...)
	value = hex.AppendEncode(hex.AppendEncode(value, trace[:]), span[:])
	value = hex.AppendEncode(append(value, '-'), span[:])
	flags := "-00"
	if n%p.config.SampledEvery == 0 {
		flags = "-01"
	}
	headers[0] = kgo.RecordHeader{Key: message.HeaderTrace, Value: append(value, flags...)}
	return headers
}

// appendKey appends "key-" and at least eight hexadecimal digits.
func appendKey(b []byte, key int64) []byte {
	const digits = "0123456789abcdef"
	b = append(b, "key-"...)
	shift := 28
	for key>>shift >= 16 {
		shift += 4
	}
	for ; shift >= 0; shift -= 4 {
		b = append(b, digits[key>>shift&0xf])
	}
	return b
}

// words are of eight bytes each and look like real messages; which one comes next is four bits of
// chance, so that a good codec gets them down to about a sixteenth.
var words = [16]string{
	`"order":`, `"price":`, `"total":`, `"status"`, `:"open",`, `:"paid",`, `"lines":`, `[{"sku":`,
	`"A-1001"`, `"B-2002"`, `},{"sku"`, `"count":`, `1,"unit"`, `:"piece"`, `,"note":`, `null}],"`,
}

// fill appends filler up to the configured size.
func (p *Plain) fill(value []byte, n int64) []byte {
	p.chance.record(n)
	if p.config.Filler == FillerWords {
		for len(value) < p.config.Bytes {
			value = append(value, words[p.chance.Uint64()%uint64(len(words))]...)
		}
		return value[:p.config.Bytes]
	}
	for len(value)+8 <= p.config.Bytes {
		value = binary.LittleEndian.AppendUint64(value, p.chance.Uint64())
	}
	for rest := p.chance.Uint64(); len(value) < p.config.Bytes; rest >>= 8 {
		value = append(value, byte(rest))
	}
	return value
}

// PlainHead is what a plain value says of itself.
type PlainHead struct {
	Run       uint64
	N         int64
	Sequence  int64 // per key, from 0
	Scheduled time.Time
	Called    time.Time
}

// ErrNotPlain is returned for a value that no Plain made.
var ErrNotPlain = errors.New("not a plain record")

// ParsePlain reads the head of a plain value; ErrNotPlain for any other.
func ParsePlain(value []byte) (PlainHead, error) {
	if len(value) < PlainBytesMin || string(value[:len(plainMark)]) != plainMark {
		return PlainHead{}, ErrNotPlain
	}
	at := func(field int) uint64 { return binary.BigEndian.Uint64(value[len(plainMark)+8*field:]) }
	return PlainHead{
		Run:       at(0),
		N:         int64(at(1)),               //nolint:gosec // written from an int64
		Sequence:  int64(at(2)),               //nolint:gosec // as above
		Scheduled: time.Unix(0, int64(at(3))), //nolint:gosec // as above
		Called:    time.Unix(0, int64(at(4))), //nolint:gosec // as above
	}, nil
}
