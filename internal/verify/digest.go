package verify

import (
	"encoding/binary"
	"hash/maphash"
	"strings"
	"time"

	"pawl/internal/message"
)

// digester stands for contents with 64 bits. Its seed is drawn for each check, so that nobody can make
// two contents that it takes for one.
type digester struct{ hash maphash.Hash }

func newDigester() *digester {
	d := new(digester)
	d.hash.SetSeed(maphash.MakeSeed())
	return d
}

// write takes a part with its length; nil is another one than empty.
func (d *digester) write(part []byte) {
	length := int64(len(part))
	if part == nil {
		length = -1
	}
	d.number(length)
	_, _ = d.hash.Write(part) // it cannot fail
}

func (d *digester) text(part string) {
	d.number(int64(len(part)))
	_, _ = d.hash.WriteString(part)
}

func (d *digester) number(n int64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n)) //nolint:gosec // bits
	_, _ = d.hash.Write(b[:])
}

func (d *digester) sum() uint64 {
	sum := d.hash.Sum64()
	d.hash.Reset()
	return sum
}

// record covers time (brokers keep milliseconds), key, value and headers. Pawl's own headers are left
// out of outputs, which have them from the engine, and belong to inputs and dead letters, which came
// with them.
func (d *digester) record(at time.Time, key, value []byte, headers []message.Header, withOurs bool) uint64 {
	d.number(at.UnixMilli())
	d.write(key)
	d.write(value)
	for i := range headers {
		if withOurs || !strings.HasPrefix(headers[i].Key, message.HeaderPrefix) {
			d.text(headers[i].Key)
			d.write(headers[i].Value)
		}
	}
	return d.sum()
}

// effect covers what an endpoint gets and what is kept apart by. Time is not among it: the effects
// topic stamps records itself. Nor is the trace, which no outcome depends on.
func (d *digester) effect(endpoint, class, contentType, businessKey, key, body []byte) uint64 {
	d.write(endpoint)
	d.write(class)
	d.write(contentType)
	d.number(int64(len(businessKey)))
	_, _ = d.hash.Write(businessKey)
	d.write(key)
	d.number(int64(len(body)))
	_, _ = d.hash.Write(body)
	return d.sum()
}

func (d *digester) key(key []byte) uint64 {
	d.write(key)
	return d.sum()
}
