package txn

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// builder turns outcomes into records to produce. What it makes lives until reset, which must not
// come before every produce promise has been called.
type builder struct {
	config  Config
	sizes   map[string]int
	records slab[kgo.Record]
	headers slab[kgo.RecordHeader]
	text    slab[byte]

	topicID [16]byte // of space
	space   message.Space

	produced map[string]*Produced
	rejects  []Rejected
}

func newBuilder(c Config, sizes map[string]int) *builder {
	return &builder{
		config: c, sizes: sizes, produced: map[string]*Produced{},
		records: slab[kgo.Record]{size: slabChunk}, headers: slab[kgo.RecordHeader]{size: 4 * slabChunk}, text: slab[byte]{size: bytesChunk},
	}
}

func (b *builder) reset() {
	b.records.reset()
	b.headers.reset()
	b.text.reset()
	for _, p := range b.produced {
		p.Records, p.Bytes = 0, 0
	}
	b.rejects = b.rejects[:0]
}

// made is what was made so far: records, and the bytes of their keys and values.
func (b *builder) made() (records int, bytes int64) {
	for _, p := range b.produced {
		records += p.Records
		bytes += p.Bytes
	}
	return records, bytes
}

// tooLarge says that a record can't even be dead-lettered.
type tooLarge struct {
	at  place
	err error
}

func (e *tooLarge) Error() string { return e.err.Error() }
func (e *tooLarge) Unwrap() error { return e.err }

// build produces what became of the input record r, in the order in which the handler asked.
func (b *builder) build(r *kgo.Record, source message.Source, o *outcome, handler string, produce func(*kgo.Record)) error {
	if o.reject != nil {
		letter, err := b.deadLetter(r, source, o.reject, handler)
		if err != nil {
			return err
		}
		b.rejects = append(b.rejects, Rejected{Source: source, Handler: handler, Reason: o.reject.reason, Err: o.reject.err})
		b.send(letter, produce)
		return nil
	}
	if o.from == o.to {
		return nil
	}
	from := b.sourceText(source)
	o.worker.asked.Walk(o.from, o.to, o.outs, o.effects, func(e message.Entry) {
		if e.Out != nil {
			b.send(b.output(r, source, e.Index, e.Out, from), produce)
			return
		}
		b.send(b.effect(r, source, e.Index, e.Effect, from), produce)
	})
	return nil
}

// numbersMax is the most that a partition, an offset and the slashes before them take.
const numbersMax = 2 + 10 + 20

func (b *builder) sourceText(source message.Source) []byte {
	space := b.text.take(len(source.Topic) + numbersMax)
	text := source.AppendText(space[:0])
	b.text.giveBack(len(space) - len(text))
	return slices.Clip(text)
}

func (b *builder) send(record *kgo.Record, produce func(*kgo.Record)) {
	p := b.produced[record.Topic]
	if p == nil {
		p = &Produced{Topic: record.Topic}
		b.produced[record.Topic] = p
	}
	p.Records++
	p.Bytes += int64(len(record.Key) + len(record.Value))
	produce(record)
}

// kept copies text into memory of the builder, which lives as long as the records do.
func kept[T string | []byte](b *builder, text T) []byte {
	space := b.text.take(len(text))
	copy(space, text)
	return space
}

// number keeps the digits of one.
func (b *builder) number(n int) []byte {
	var digits [20]byte
	return kept(b, strconv.AppendInt(digits[:0], int64(n), 10))
}

func (b *builder) id(source message.Source, index int) []byte {
	if source.TopicID != b.topicID || b.space == (message.Space{}) {
		b.topicID, b.space = source.TopicID, source.Space()
	}
	return b.idText(b.space.ID(source.Partition, source.Offset, index))
}

func (b *builder) idText(id message.ID) []byte {
	return id.AppendText(b.text.take(message.IDTextLen)[:0])
}

func (b *builder) output(r *kgo.Record, source message.Source, index int, out *message.Out, from []byte) *kgo.Record {
	var trace message.Trace
	if len(r.Headers) > 0 && !slices.ContainsFunc(out.Headers, func(h message.Header) bool { return message.IsTrace(h.Key) }) {
		trace = message.TraceOf(r.Headers)
	}
	headers := b.headers.take(len(out.Headers) + trace.Len() + 2)
	n := 0
	for _, h := range out.Headers {
		if !strings.HasPrefix(h.Key, message.HeaderPrefix) {
			headers[n] = kgo.RecordHeader(h)
			n++
		}
	}
	n += putTrace(headers[n:], trace)
	headers[n] = kgo.RecordHeader{Key: message.HeaderSource, Value: from}
	headers[n+1] = kgo.RecordHeader{Key: message.HeaderID, Value: b.id(source, index)}

	record := &b.records.take(1)[0]
	record.Topic = b.config.Outputs[out.Output]
	record.Key, record.Value, record.Headers = out.Key, out.Value, headers[:n+2]
	record.Timestamp = out.Timestamp
	if record.Timestamp.IsZero() {
		record.Timestamp = r.Timestamp
	}
	return record
}

const (
	effectHeadersMax = 10 + traceHeadersMax
	traceHeadersMax  = 2
)

// putTrace writes the input's trace context and returns how many headers that took.
func putTrace(headers []kgo.RecordHeader, trace message.Trace) int {
	n := 0
	if trace.Parent != nil {
		headers[n] = kgo.RecordHeader{Key: message.HeaderTrace, Value: trace.Parent}
		n++
	}
	if trace.State != nil {
		headers[n] = kgo.RecordHeader{Key: message.HeaderState, Value: trace.State}
		n++
	}
	return n
}

// effect writes the format that DESIGN.md beside this file lays down. The lane follows from the key
// by the default partitioner: murmur2 of the order key, as for every other keyed record.
func (b *builder) effect(r *kgo.Record, source message.Source, index int, effect *message.Effect, from []byte) *kgo.Record {
	var id []byte
	if effect.BusinessKey == "" {
		id = b.id(source, index)
	} else {
		id = b.idText(message.BusinessID(b.config.Application, effect.Endpoint, effect.BusinessKey))
	}
	class := effect.Class
	if class == "" {
		class = message.AtLeastOnce
	}
	content := effect.ContentType
	if content == "" {
		content = "application/json"
	}
	headers := b.headers.take(effectHeadersMax)
	n := 0
	add := func(key string, value []byte) {
		headers[n] = kgo.RecordHeader{Key: key, Value: value}
		n++
	}
	add(message.HeaderFormat, kept(b, message.EffectFormat))
	add(message.HeaderID, id)
	add(message.HeaderSource, from)
	add(message.HeaderIndex, b.number(index))
	add(message.HeaderTopicID, kept(b, hex.AppendEncode(make([]byte, 0, 32), source.TopicID[:])))
	add(message.HeaderGeneration, b.number(source.ReplayGeneration))
	add(message.HeaderEndpoint, kept(b, effect.Endpoint))
	add(message.HeaderClass, kept(b, string(class)))
	add(message.HeaderContentType, kept(b, content))
	if effect.BusinessKey != "" {
		add(message.HeaderBusinessKey, kept(b, effect.BusinessKey))
	}
	n += putTrace(headers[n:], message.TraceOf(r.Headers))

	record := &b.records.take(1)[0]
	record.Topic, record.Value, record.Headers, record.Timestamp = b.config.EffectsTopic, effect.Body, headers[:n], r.Timestamp
	switch {
	case effect.OrderKey != nil:
		record.Key = effect.OrderKey
	case r.Key != nil:
		record.Key = r.Key
	default:
		record.Key = from // no order was asked for; the source spreads them
	}
	return record
}

const (
	errorBytesMax   = 4 << 10
	deadLetterIndex = -1
	// DeadLetterHeaders is the number of headers that follow the original ones on a dead letter.
	DeadLetterHeaders = 5
)

// deadLetter is the record as it came, with its story in the last DeadLetterHeaders headers, in this
// order: pawl-source, pawl-id, pawl-handler, pawl-reason, pawl-error. Headers before them are the
// original ones, whatever their names.
func (b *builder) deadLetter(r *kgo.Record, source message.Source, why *reject, handler string) (*kgo.Record, error) {
	story := why.err.Error()
	if len(story) > errorBytesMax {
		story = story[:errorBytesMax]
	}
	headers := b.headers.take(len(r.Headers) + DeadLetterHeaders)
	n := copy(headers, r.Headers)
	for _, h := range []kgo.RecordHeader{
		{Key: message.HeaderSource, Value: []byte(source.String())},
		{Key: message.HeaderID, Value: b.id(source, deadLetterIndex)},
		{Key: message.HeaderHandler, Value: []byte(handler)},
		{Key: message.HeaderReason, Value: []byte(why.reason)},
		{Key: message.HeaderError, Value: []byte(strings.ToValidUTF8(story, "\ufffd"))},
	} {
		headers[n] = h
		n++
	}
	record := &b.records.take(1)[0]
	record.Topic = b.config.DeadLetterTopic
	record.Key, record.Value, record.Headers, record.Timestamp = r.Key, r.Value, headers, r.Timestamp

	size := recordOverhead + len(r.Key) + len(r.Value)
	for _, h := range headers {
		size += headerOverhead + len(h.Key) + len(h.Value)
	}
	if limit := b.sizes[record.Topic]; size > limit {
		at := place{source.Topic, source.Partition}
		return nil, &tooLarge{at, fmt.Errorf(
			"%s is rejected (%s) and too large for the dead-letter topic: %d bytes, max.message.bytes of %s allows %d; raise it (kafka-configs --alter --entity-type topics --entity-name %s --add-config max.message.bytes=%d) and restart",
			source, why.reason, size, record.Topic, limit, record.Topic, size)}
	}
	return record, nil
}
