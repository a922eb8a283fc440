package ledger

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

// segmentFormat is the first byte of both binary columns of a segment.
const segmentFormat = 1

// segmentMax is how many bytes of effects make a segment: with its other columns a row then just fits into a
// page of Postgres (8 KiB), so that it is written by one record of the log and read by one look at one page. An effect
// that is larger is a segment alone, and Postgres stores it in pieces.
const segmentMax = 8000

// segment is a row: effects of one lane with neighbouring offsets, at least one.
type segment struct {
	first, last int64  // offsets
	n           int    // effects
	totals      []byte // how many there are of each endpoint, and since when; see readTotals
	effects     []byte // see appendEffect
}

// packer writes effects into segments.
//
// Whatever a segment has once and its effects often is written where it is first needed, and is a number from then on:
// the origin of an effect (input topic, partition, replay generation), and its route (endpoint, content type).
type packer struct {
	done []segment
	buf  []byte // of all segments

	// Of the segment that is being written.
	begin   int // in buf
	first   int64
	last    int64 // offset of the effect before
	n       int
	source  int64 // source offset of the effect before
	at      int64 // its time, in Unix microseconds
	origins []message.Source
	routes  []route
}

// route is where effects go to, with what the totals tell of it.
type route struct {
	endpoint, contentType string
	n                     int
	since                 int64 // Unix microseconds of the oldest
}

// pack gives the segments of effects of one lane in the order of their offsets.
func pack(intents []outbox.Intent) []segment {
	if len(intents) == 0 {
		return nil
	}
	const around = 80 // bytes of an effect beside key and body, about
	size := 0
	for i := range intents {
		size += around + len(intents[i].Key) + len(intents[i].Body)
	}
	p := packer{buf: make([]byte, 0, size)}
	p.open(intents[0].Offset)
	for i := range intents {
		p.add(&intents[i])
	}
	p.close()
	return p.done
}

// packOne gives an effect alone, as the effects of a segment.
func packOne(intent *outbox.Intent) []byte {
	var p packer
	p.open(intent.Offset)
	p.add(intent)
	return p.buf
}

func (p *packer) open(first int64) {
	p.begin, p.first, p.last, p.n, p.source, p.at = len(p.buf), first, first, 0, 0, 0
	p.origins, p.routes = p.origins[:0], p.routes[:0]
	p.buf = append(p.buf, segmentFormat)
}

func (p *packer) close() {
	totals := []byte{segmentFormat}
	totals = binary.AppendUvarint(totals, uint64(len(p.routes)))
	for _, r := range p.routes {
		totals = appendText(totals, storable(r.endpoint))
		totals = binary.AppendUvarint(totals, uint64(r.n)) //nolint:gosec // a count
		totals = binary.AppendVarint(totals, r.since)
	}
	// What was written before buf grew stays where it was: nobody writes there any more.
	p.done = append(p.done, segment{p.first, p.last, p.n, totals, p.buf[p.begin:len(p.buf):len(p.buf)]})
}

func (p *packer) add(i *outbox.Intent) {
	end, origins, routes := len(p.buf), len(p.origins), len(p.routes)
	source, at := p.source, p.at
	p.appendEffect(i)
	if p.n > 0 && len(p.buf)-p.begin > segmentMax {
		p.buf, p.origins, p.routes = p.buf[:end], p.origins[:origins], p.routes[:routes]
		p.source, p.at = source, at
		p.close()
		p.open(i.Offset)
		p.appendEffect(i)
	}
	p.last = i.Offset
	p.n++
	r := &p.routes[p.route(i.Endpoint, i.ContentType)]
	if r.n == 0 || p.at < r.since {
		r.since = p.at
	}
	r.n++
}

// The byte before each effect: which fields follow.
const (
	isAtMostOnce = 1 << iota
	hasKey       // otherwise it is null
	hasBusinessKey
	hasTrace
	hasTwin
	isTwinSame
)

// appendEffect writes: step from the offset before, from first at the beginning; the byte above; origin; route; steps from the
// source offset and time (Unix microseconds) before, from 0; index; id; key; business key; trace; lane and offset of the twin; body.
// Numbers are varints (signed ones zigzag, as in Protocol Buffers), texts and bytes have their length before them.
func (p *packer) appendEffect(i *outbox.Intent) {
	b := binary.AppendUvarint(p.buf, uint64(i.Offset-p.last)) //nolint:gosec // ascending, see checkBatch
	b = append(b, flagsOf(i))
	b = p.appendOrigin(b, &i.Source)
	b = p.appendRoute(b, i.Endpoint, i.ContentType)
	at := i.At.UnixMicro()
	b = binary.AppendVarint(b, i.Source.Offset-p.source)
	b = binary.AppendVarint(b, at-p.at)
	p.source, p.at = i.Source.Offset, at
	b = binary.AppendVarint(b, int64(i.Index))
	b = append(b, i.ID[:]...)
	if i.Key != nil {
		b = appendText(b, i.Key)
	}
	if i.BusinessKey != "" {
		b = appendText(b, storable(i.BusinessKey))
	}
	if i.Trace != "" {
		b = appendText(b, storable(joinTrace(i)))
	}
	if i.Twin != nil {
		b = binary.AppendVarint(b, int64(i.Twin.Lane))
		b = binary.AppendVarint(b, i.Twin.Offset)
	}
	p.buf = appendText(b, i.Body)
}

// traceBreak stands between traceparent and tracestate, which are one field: a traceparent has none in it. A release
// that does not know this takes the whole for a traceparent that is none, and sends calls without it.
const traceBreak = " "

func joinTrace(i *outbox.Intent) string {
	if i.TraceState == "" {
		return i.Trace
	}
	return i.Trace + traceBreak + i.TraceState
}

func flagsOf(i *outbox.Intent) (flags byte) {
	set := func(bit byte, is bool) {
		if is {
			flags |= bit
		}
	}
	set(isAtMostOnce, i.Class == message.AtMostOnce)
	set(hasKey, i.Key != nil)
	set(hasBusinessKey, i.BusinessKey != "")
	set(hasTrace, i.Trace != "")
	set(hasTwin, i.Twin != nil)
	set(isTwinSame, i.Twin != nil && i.Twin.Same)
	return flags
}

// appendOrigin writes the number of an origin, and the first time the origin behind it.
func (p *packer) appendOrigin(b []byte, s *message.Source) []byte {
	for number := range p.origins {
		o := &p.origins[number]
		if o.Partition == s.Partition && o.TopicID == s.TopicID && o.ReplayGeneration == s.ReplayGeneration && o.Topic == s.Topic {
			return binary.AppendUvarint(b, uint64(number))
		}
	}
	b = binary.AppendUvarint(b, uint64(len(p.origins)))
	p.origins = append(p.origins, *s)
	b = append(b, s.TopicID[:]...)
	b = appendText(b, storable(s.Topic))
	b = binary.AppendVarint(b, int64(s.Partition))
	return binary.AppendVarint(b, int64(s.ReplayGeneration))
}

func (p *packer) route(endpoint, contentType string) int {
	for number := range p.routes {
		if p.routes[number].endpoint == endpoint && p.routes[number].contentType == contentType {
			return number
		}
	}
	return -1
}

// appendRoute is appendOrigin for routes.
func (p *packer) appendRoute(b []byte, endpoint, contentType string) []byte {
	if number := p.route(endpoint, contentType); number >= 0 {
		return binary.AppendUvarint(b, uint64(number))
	}
	b = binary.AppendUvarint(b, uint64(len(p.routes)))
	p.routes = append(p.routes, route{endpoint: endpoint, contentType: contentType})
	return appendText(appendText(b, storable(endpoint)), storable(contentType))
}

// appendIntents reads the effects of a segment and appends those from an offset on. Keys and bodies are parts of the
// segment's memory.
func (s *segment) appendIntents(intents []outbox.Intent, lane int32, from int64) ([]outbox.Intent, error) {
	r := effectReader{reader: reader{rest: s.effects}, offset: s.first}
	if format := r.byte(); r.err == nil && format != segmentFormat {
		return nil, fmt.Errorf("effects from %d:%d have format %d, this release knows %d: run a newer one", lane, s.first, format, segmentFormat)
	}
	for range s.n {
		intent := r.intent(lane)
		if r.err != nil {
			break
		}
		if intent.Offset >= from {
			intents = append(intents, intent)
		}
	}
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("read effects from %d:%d: %w", lane, s.first, err)
	}
	if r.offset != s.last {
		return nil, fmt.Errorf("read effects from %d:%d: they end at %d, want %d", lane, s.first, r.offset, s.last)
	}
	return intents, nil
}

// effectReader reads what a packer wrote.
type effectReader struct {
	reader
	offset, source, at int64 // of the effect before
	origins            []message.Source
	routes             []route
}

func (r *effectReader) intent(lane int32) (i outbox.Intent) {
	r.offset += int64(r.uvarint()) //nolint:gosec // as it was written
	flags := r.byte()
	i.Lane, i.Offset, i.Class = lane, r.offset, message.AtLeastOnce
	if flags&isAtMostOnce != 0 {
		i.Class = message.AtMostOnce
	}
	i.Source = r.origin()
	to := r.route()
	i.Endpoint, i.ContentType = to.endpoint, to.contentType
	r.source += r.varint()
	r.at += r.varint()
	i.Source.Offset, i.At = r.source, time.UnixMicro(r.at).UTC()
	i.Index = int(r.varint())
	copy(i.ID[:], r.bytes(len(i.ID)))
	if flags&hasKey != 0 {
		i.Key = r.text()
	}
	if flags&hasBusinessKey != 0 {
		i.BusinessKey = original(string(r.text()))
	}
	if flags&hasTrace != 0 {
		// Releases that did not know a tracestate wrote the traceparent alone.
		i.Trace, i.TraceState, _ = strings.Cut(original(string(r.text())), traceBreak)
	}
	if flags&hasTwin != 0 {
		i.Twin = &outbox.Twin{Lane: int32(r.varint()), Offset: r.varint(), Same: flags&isTwinSame != 0} //nolint:gosec // as it was written
	}
	i.Body = r.text()
	return i
}

func (r *effectReader) origin() message.Source {
	number := r.uvarint()
	switch {
	case number < uint64(len(r.origins)):
		return r.origins[number]
	case number > uint64(len(r.origins)):
		r.err = errCut
		return message.Source{}
	}
	var s message.Source
	copy(s.TopicID[:], r.bytes(len(s.TopicID)))
	s.Topic = original(string(r.text()))
	s.Partition, s.ReplayGeneration = int32(r.varint()), int(r.varint()) //nolint:gosec // as it was written
	r.origins = append(r.origins, s)
	return s
}

func (r *effectReader) route() route {
	number := r.uvarint()
	switch {
	case number < uint64(len(r.routes)):
		return r.routes[number]
	case number > uint64(len(r.routes)):
		r.err = errCut
		return route{}
	}
	to := route{endpoint: original(string(r.text())), contentType: original(string(r.text()))}
	r.routes = append(r.routes, to)
	return to
}

// readTotals calls visit for each route of a segment: its endpoint, its number of effects, and the time of the oldest.
// An endpoint may have several routes. It is written as format, count, and for each endpoint, number and time in
// Unix microseconds.
func readTotals(b []byte, visit func(endpoint string, n int64, since time.Time)) error {
	r := reader{rest: b}
	if format := r.byte(); r.err == nil && format != segmentFormat {
		return fmt.Errorf("totals have format %d, this release knows %d: run a newer one", format, segmentFormat)
	}
	for range r.count() {
		endpoint, n, since := original(string(r.text())), r.uvarint(), r.varint()
		if r.err != nil {
			break
		}
		visit(endpoint, int64(n), time.UnixMicro(since).UTC()) //nolint:gosec // a count
	}
	if err := r.end(); err != nil {
		return fmt.Errorf("read totals: %w", err)
	}
	return nil
}
