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
type digester struct {
	seed maphash.Seed
	text []byte // what is to be digested; its memory is used again
}

func newDigester() *digester { return &digester{seed: maphash.MakeSeed()} }

// write takes a part with its length; nil is another one than empty.
func (d *digester) write(part []byte) {
	length := int64(len(part))
	if part == nil {
		length = -1
	}
	d.number(length)
	d.text = append(d.text, part...)
}

func (d *digester) name(name string) {
	d.number(int64(len(name)))
	d.text = append(d.text, name...)
}

func (d *digester) number(n int64) {
	d.text = binary.LittleEndian.AppendUint64(d.text, uint64(n)) //nolint:gosec // bits
}

func (d *digester) sum() uint64 {
	sum := maphash.Bytes(d.seed, d.text)
	d.text = d.text[:0]
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
			d.name(headers[i].Key)
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
	d.name(string(businessKey)) // nil is the same as empty
	d.write(key)
	d.name(string(body))
	return d.sum()
}

func (d *digester) key(key []byte) uint64 {
	d.write(key)
	return d.sum()
}
