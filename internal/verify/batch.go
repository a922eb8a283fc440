package verify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// The record batch of Kafka, format v2 (KIP-98). It is decoded here from the bytes: what the clients make of
// it is what is to be checked.
const (
	batchBase       = 0 // offset of the first record
	batchLength     = 8 // of what follows
	batchMagic      = 16
	batchCRC        = 17
	batchAttributes = 21 // the CRC is of everything from here on
	batchLastDelta  = 23
	batchBaseTime   = 27
	batchMaxTime    = 35
	batchProducer   = 43
	batchEpoch      = 51
	batchCount      = 57
	batchRecords    = 61

	batchPrefix = 12 // base offset and length
	batchFormat = 2
)

const (
	attributeCompression   = 0x07
	attributeLogAppend     = 0x08
	attributeTransactional = 0x10
	attributeControl       = 0x20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// rawBatch is one batch as it came.
type rawBatch []byte

// cutBatch takes the first batch off what a broker sent. An answer may end within a batch, which comes again.
func cutBatch(b []byte) (batch rawBatch, rest []byte, err error) {
	if len(b) < batchPrefix {
		return nil, nil, nil
	}
	size := batchPrefix + int(int32(binary.BigEndian.Uint32(b[batchLength:]))) //nolint:gosec // as it was sent
	switch {
	case size < batchRecords:
		return nil, nil, fmt.Errorf("a batch of %d bytes is none", size)
	case size > len(b):
		return nil, nil, nil
	}
	batch = rawBatch(b[:size])
	if format := batch[batchMagic]; format != batchFormat {
		return nil, nil, fmt.Errorf("batch at offset %d has format %d, want %d", batch.base(), format, batchFormat)
	}
	if got, want := crc32.Checksum(batch[batchAttributes:], castagnoli), binary.BigEndian.Uint32(batch[batchCRC:]); got != want {
		return nil, nil, fmt.Errorf("batch at offset %d has checksum %08x, its bytes give %08x", batch.base(), want, got)
	}
	return batch, b[size:], nil
}

func (b rawBatch) int64At(at int) int64 { return int64(binary.BigEndian.Uint64(b[at:])) } //nolint:gosec // bits
func (b rawBatch) base() int64          { return b.int64At(batchBase) }
func (b rawBatch) producer() int64      { return b.int64At(batchProducer) }
func (b rawBatch) epoch() int16         { return int16(binary.BigEndian.Uint16(b[batchEpoch:])) } //nolint:gosec // bits
func (b rawBatch) attributes() uint16   { return binary.BigEndian.Uint16(b[batchAttributes:]) }
func (b rawBatch) control() bool        { return b.attributes()&attributeControl != 0 }
func (b rawBatch) transactional() bool  { return b.attributes()&attributeTransactional != 0 }

// next is the offset behind the batch, also where compaction has taken records out of it.
func (b rawBatch) next() int64 {
	return b.base() + int64(int32(binary.BigEndian.Uint32(b[batchLastDelta:]))) + 1 //nolint:gosec // bits
}

// decoder turns batches into entries, whose memory it uses again: they live until visit returns.
type decoder struct {
	decompressor kgo.Decompressor
	record       Record
	marker       Marker
	names        map[string]string // of headers
}

func newDecoder() *decoder {
	return &decoder{decompressor: kgo.DefaultDecompressor(), names: map[string]string{}}
}

// decode visits what stands in a batch from offset from on and below to.
func (d *decoder) decode(topic string, partition int32, b rawBatch, from, to int64, visit func(*Entry) error) error {
	payload := []byte(b[batchRecords:])
	attributes := b.attributes()
	if codec := attributes & attributeCompression; codec != 0 {
		var err error
		if payload, err = d.decompressor.Decompress(payload, kgo.CompressionCodecType(codec)); err != nil {
			return fmt.Errorf("batch at %s/%d/%d: decompress: %w", topic, partition, b.base(), err)
		}
	}
	d.record = Record{
		Topic: topic, Partition: partition, Headers: d.record.Headers,
		Transactional: b.transactional(), Producer: b.producer(), Epoch: b.epoch(),
	}
	r := wire{rest: payload}
	for range binary.BigEndian.Uint32(b[batchCount:]) {
		d.next(b, &r)
		if r.err != nil {
			return fmt.Errorf("batch at %s/%d/%d: %w", topic, partition, b.base(), r.err)
		}
		if d.record.Offset < from || d.record.Offset >= to {
			continue
		}
		entry := Entry{Record: &d.record}
		if attributes&attributeControl != 0 {
			if !d.mark() {
				continue
			}
			entry = Entry{Marker: &d.marker}
		}
		if err := visit(&entry); err != nil {
			return err
		}
	}
	return nil
}

// next reads one record.
func (d *decoder) next(b rawBatch, r *wire) {
	length := r.varint()
	body := wire{rest: r.bytes(length), err: r.err}
	body.bytes(1) // attributes, unused
	at := b.int64At(batchBaseTime) + body.varint()
	if b.attributes()&attributeLogAppend != 0 {
		at = b.int64At(batchMaxTime)
	}
	d.record.Timestamp = time.UnixMilli(at)
	d.record.Offset = b.base() + body.varint()
	d.record.Key = body.nullable()
	d.record.Value = body.nullable()
	d.record.Headers = d.record.Headers[:0]
	for range body.count() {
		name := body.bytes(body.varint())
		value := body.nullable()
		d.record.Headers = append(d.record.Headers, message.Header{Key: d.name(name), Value: value})
	}
	if body.err == nil && len(body.rest) > 0 {
		body.err = errCut
	}
	r.err = body.err
}

// namesMax bounds the names that are kept: they come with records.
const namesMax = 1024

func (d *decoder) name(b []byte) string {
	if name, known := d.names[string(b)]; known {
		return name
	}
	name := string(b)
	if len(d.names) < namesMax {
		d.names[name] = name
	}
	return name
}

// The types of control records that end a transaction.
const (
	controlAbort  = 0
	controlCommit = 1
	controlSize   = 4 // version and type
)

// mark reads a control record. There are others than the ends of transactions.
func (d *decoder) mark() bool {
	r := &d.record
	if len(r.Key) < controlSize {
		return false
	}
	kind := binary.BigEndian.Uint16(r.Key[2:])
	if kind != controlAbort && kind != controlCommit {
		return false
	}
	d.marker = Marker{
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp,
		Producer: r.Producer, Epoch: r.Epoch, Commit: kind == controlCommit,
	}
	return true
}

var errCut = errors.New("it is cut short or not whole")

// wire reads from a slice; after the first error it gives zeros.
type wire struct {
	rest []byte
	err  error
}

func (w *wire) bytes(n int64) []byte {
	if w.err != nil || n < 0 || n > int64(len(w.rest)) {
		w.err = errCut
		return nil
	}
	b := w.rest[:n:n]
	w.rest = w.rest[n:]
	return b
}

func (w *wire) varint() int64 {
	// Most are one byte.
	if w.err == nil && len(w.rest) > 0 && w.rest[0] < 0x80 {
		u := w.rest[0]
		w.rest = w.rest[1:]
		return int64(u>>1) ^ -int64(u&1)
	}
	value, n := binary.Varint(w.rest)
	if w.bytes(int64(max(n, 0))); n <= 0 {
		w.err = errCut
	}
	if w.err != nil {
		return 0
	}
	return value
}

// nullable reads bytes with their length, which is negative for nil.
func (w *wire) nullable() []byte {
	n := w.varint()
	if n < 0 {
		return nil
	}
	return w.bytes(n)
}

// count reads a number of things that take at least two bytes each.
func (w *wire) count() int64 {
	n := w.varint()
	if n < 0 || n > int64(len(w.rest)) {
		w.err = errCut
		return 0
	}
	return n
}
