package dev

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// handler is a business rule, as the model applies it.
type handler interface {
	Handle(in message.In, out *message.Batch) error
}

// place is a record that must exist: which topic, made from which input, under which id. A dead
// letter and an output never share one, because their topics differ.
type place struct {
	topic  string
	source string
	id     string
	index  int // among all that the input asked for; notRead for records that do not carry it
}

// notRead stands for the index of outputs and dead letters: only effects carry theirs.
const notRead = -1

// fact is what the model says of one place, and whether a reader has seen it.
type fact struct {
	position position
	digest   [sha256.Size]byte
	seen     bool
}

// position orders what was made of one input partition.
type position struct {
	topic     string
	partition int32
	offset    int64
	index     int
}

func (p position) before(q position) bool {
	return p.offset < q.offset || p.offset == q.offset && p.index < q.index
}

// The roles of topics.
const (
	roleOutput     = "output"
	roleEffects    = "effects"
	roleResults    = "results"
	roleDeadLetter = "dead-letter"
)

// TopicProof compares what a topic should hold with what a read_committed reader finds in it.
type TopicProof struct {
	Role       string `json:"role"` // output, effects, results or dead-letter
	Topic      string `json:"topic"`
	Expected   int64  `json:"expected"`
	Seen       int64  `json:"seen"`
	Missing    int64  `json:"missing"`    // expected and not there
	Duplicates int64  `json:"duplicates"` // there more than once
	Altered    int64  `json:"altered"`    // there, with other bytes than expected
	Unexpected int64  `json:"unexpected"` // there, and made from no input we know
	Disordered int64  `json:"disordered"` // behind a record of the same key that came later
	Aborted    int64  `json:"aborted"`    // in the log, in transactions that were aborted: no reader saw them
}

// route says who handles the records of an input topic.
type route struct {
	handler handler
	topicID [16]byte
}

// model knows what the topics must hold: it runs the same pure handlers over the same inputs, with
// no engine, no transaction and no crash. The engine's part in the result is what is proven.
type model struct {
	routes      map[string]route  // by input topic
	outputs     map[string]string // output name to topic
	effects     string            // topic
	deadLetters string            // topic

	facts   map[place]*fact
	topics  map[string]*TopicProof
	last    map[string]position // per topic, partition and key: the last record seen
	reasons map[string]int64    // of expected dead letters
	inputs  map[string]int64    // by topic
	batch   message.Batch
}

func newModel(routes map[string]route, outputs map[string]string, effects, deadLetters string) *model {
	m := &model{
		routes: routes, outputs: outputs, effects: effects, deadLetters: deadLetters,
		facts: make(map[place]*fact), topics: make(map[string]*TopicProof), last: make(map[string]position),
		reasons: make(map[string]int64), inputs: make(map[string]int64),
	}
	for _, topic := range outputs {
		m.topics[topic] = &TopicProof{Role: roleOutput, Topic: topic}
	}
	m.topics[effects] = &TopicProof{Role: roleEffects, Topic: effects}
	m.topics[deadLetters] = &TopicProof{Role: roleDeadLetter, Topic: deadLetters}
	return m
}

// expect takes one input record and notes what must come of it. An error is the handler's own: not a
// reject, which is a dead letter, but a fault.
func (m *model) expect(record *kgo.Record) error {
	m.inputs[record.Topic]++
	route := m.routes[record.Topic]
	source := message.Source{
		Application: application, Topic: record.Topic, TopicID: route.topicID,
		Partition: record.Partition, Offset: record.Offset,
	}
	in := message.In{Source: source, Key: record.Key, Value: record.Value, Timestamp: record.Timestamp}
	for _, header := range record.Headers {
		in.Headers = append(in.Headers, message.Header(header))
	}
	m.batch.Reset()
	if err := route.handler.Handle(in, &m.batch); err != nil {
		var reject interface{ Reason() string }
		if !errors.As(err, &reject) {
			return fmt.Errorf("model: %s: %w", source, err)
		}
		m.reasons[reject.Reason()]++
		m.add(place{m.deadLetters, source.String(), source.ID(deadLetterIndex).String(), notRead}, source, deadLetterIndex,
			digest(record.Timestamp, record.Key, record.Value, append(slices.Clone(record.Headers), text(message.HeaderReason, reject.Reason()))))
		return nil
	}
	m.batch.Walk(0, m.batch.Len(), 0, 0, func(entry message.Entry) {
		if out := entry.Out; out != nil {
			var headers []kgo.RecordHeader
			for _, header := range out.Headers {
				if !strings.HasPrefix(header.Key, message.HeaderPrefix) {
					headers = append(headers, kgo.RecordHeader(header))
				}
			}
			m.add(place{m.outputs[out.Output], source.String(), source.ID(entry.Index).String(), notRead}, source, entry.Index,
				digest(timeOf(out.Timestamp, in.Timestamp), out.Key, out.Value, headers))
			return
		}
		m.expectEffect(source, &in, entry.Index, entry.Effect)
	})
	return nil
}

// deadLetterIndex is the index that the id of a dead letter is made from.
const deadLetterIndex = -1

func (m *model) expectEffect(source message.Source, in *message.In, index int, effect *message.Effect) {
	id, key := source.ID(index), effect.OrderKey
	headers := []kgo.RecordHeader{text(message.HeaderEndpoint, effect.Endpoint)}
	if effect.BusinessKey != "" {
		id = message.BusinessID(application, effect.Endpoint, effect.BusinessKey)
		headers = append(headers, text(message.HeaderBusinessKey, effect.BusinessKey))
	}
	if key == nil {
		key = in.Key
	}
	// The effects topic stamps records itself (LogAppendTime): their time is not ours to expect.
	m.add(place{m.effects, source.String(), id.String(), index}, source, index, digest(time.Time{}, key, effect.Body, headers))
}

func (m *model) add(at place, source message.Source, index int, sum [sha256.Size]byte) {
	m.facts[at] = &fact{position: position{source.Topic, source.Partition, source.Offset, index}, digest: sum}
	m.topics[at.topic].Expected++
}

// see takes one record as a read_committed reader found it. Records of one partition come in order.
func (m *model) see(record *kgo.Record) {
	proof := m.topics[record.Topic]
	proof.Seen++
	at := place{topic: record.Topic, index: notRead}
	var headers []kgo.RecordHeader // those that the digest covers
	for _, header := range record.Headers {
		switch header.Key {
		case message.HeaderSource:
			at.source = string(header.Value)
		case message.HeaderID:
			at.id = string(header.Value)
		case message.HeaderIndex:
			if index, err := strconv.Atoi(string(header.Value)); err == nil {
				at.index = index
			}
		case message.HeaderReason, message.HeaderEndpoint, message.HeaderBusinessKey:
			headers = append(headers, header)
		default:
			if !strings.HasPrefix(header.Key, message.HeaderPrefix) && record.Topic != m.effects {
				headers = append(headers, header)
			}
		}
	}
	when := record.Timestamp
	if record.Topic == m.effects {
		when = time.Time{}
	}
	known := m.facts[at]
	switch {
	case known == nil:
		proof.Unexpected++
		return
	case known.seen:
		proof.Duplicates++
		return
	}
	known.seen = true
	if known.digest != digest(when, record.Key, record.Value, headers) {
		proof.Altered++
	}
	m.inOrder(proof, record, known.position)
}

// inOrder holds records of one key to the order of their inputs. Inputs of two partitions have no
// order among each other.
func (m *model) inOrder(proof *TopicProof, record *kgo.Record, now position) {
	if record.Key == nil {
		return
	}
	line := strings.Join([]string{
		record.Topic, strconv.Itoa(int(record.Partition)), now.topic, strconv.Itoa(int(now.partition)), string(record.Key),
	}, "\x00")
	last, seen := m.last[line]
	if seen && now.before(last) {
		proof.Disordered++
		return
	}
	m.last[line] = now
}

// proofs compares. It is in no order.
func (m *model) proofs() []TopicProof {
	missing := make(map[string]int64)
	for at, known := range m.facts {
		if !known.seen {
			missing[at.topic]++
		}
	}
	proofs := make([]TopicProof, 0, len(m.topics))
	for topic, proof := range m.topics {
		proof.Missing = missing[topic]
		proofs = append(proofs, *proof)
	}
	return proofs
}

// sortTopics brings them in the order output, effects, results, dead-letter, then by name.
func sortTopics(proofs []TopicProof) {
	rank := map[string]int{roleOutput: 0, roleEffects: 1, roleResults: 2, roleDeadLetter: 3}
	slices.SortFunc(proofs, func(a, b TopicProof) int {
		if a.Role != b.Role {
			return rank[a.Role] - rank[b.Role]
		}
		return strings.Compare(a.Topic, b.Topic)
	})
}

func text(key, value string) kgo.RecordHeader {
	return kgo.RecordHeader{Key: key, Value: []byte(value)}
}

// timeOf is the time a handler gave an output or, without one, that of the input.
func timeOf(given, input time.Time) time.Time {
	if given.IsZero() {
		return input
	}
	return given
}

// digest covers time (brokers keep milliseconds), key, value and headers with their lengths, and
// tells nil from empty.
func digest(at time.Time, key, value []byte, headers []kgo.RecordHeader) (sum [sha256.Size]byte) {
	h := sha256.New()
	write(h, strconv.AppendInt(nil, at.UnixMilli(), 10))
	write(h, key)
	write(h, value)
	for _, header := range headers {
		write(h, []byte(header.Key))
		write(h, header.Value)
	}
	h.Sum(sum[:0])
	return sum
}

func write(h hash.Hash, part []byte) {
	length := int64(len(part))
	if part == nil {
		length = -1
	}
	var prefix [8]byte
	binary.BigEndian.PutUint64(prefix[:], uint64(length))
	h.Write(prefix[:])
	h.Write(part)
}
