// Package message holds the nouns that handlers, the transaction engine and the effect ledger
// share. It does no I/O and knows no client library.
//
// # Glossary
//
//   - record: one entry of a Kafka topic.
//   - source: the coordinates of the input record that something was made from.
//   - output: a record a handler wants written to a configured output.
//   - effect: a call to the outside world that a handler wants made once its input is committed.
//   - lane: one transactional id with its session and its goroutine; for the effects topic, one partition.
//   - batch: the input records of one transaction.
//   - commit: Kafka's end of a transaction; nothing else in this project is called a commit.
//   - ingest: the ledger's step from the effects topic into Postgres.
//   - deliver: the dispatcher's call of an endpoint.
//   - relay: the step that takes results from the ledger back to Kafka.
//   - reject: a handler's refusal of a record; it goes to the dead-letter topic inside the transaction.
//   - abort: the end of a transaction that nobody will see; its input is redone.
//   - unknown outcome: an end of a transaction whose result the broker did not tell us.
package message

import "time"

// Header is one record header. Keys may repeat; order is kept.
type Header struct {
	Key   string
	Value []byte
}

// In is one input record as a handler sees it. Its byte slices belong to the engine: a handler may
// emit them again, but must not change them or keep them after Handle returns.
type In struct {
	Source    Source
	Key       []byte // nil when the record has no key
	Value     []byte // nil when the record is a tombstone
	Headers   []Header
	Timestamp time.Time // the record's own time: a handler's only clock
}

// Out is one record to be written.
type Out struct {
	Output    string // name of a configured output, never a topic
	Key       []byte
	Value     []byte
	Headers   []Header  // headers named pawl-* are dropped: the engine writes its own
	Timestamp time.Time // zero means the input's
}

// Class says what a repeated transmission of an effect may do.
type Class string

// The two classes. An at-most-once call is never sent again and may end with an unknown outcome.
const (
	AtLeastOnce Class = "at-least-once"
	AtMostOnce  Class = "at-most-once"
)

// Effect is one call to be made after the input's transaction has committed.
type Effect struct {
	Endpoint    string // name of a configured endpoint, never a URL
	OrderKey    []byte // calls with one order key are delivered in order; nil means the input's key
	BusinessKey string // optional: makes the idempotency key the same for every input that names it
	Class       Class  // empty means AtLeastOnce
	ContentType string // empty means application/json
	Body        []byte // sent as it is, on every attempt
}

// Entry is one thing a handler asked for, with its index among all that this input asked for.
// Exactly one of Out and Effect is set.
type Entry struct {
	Index  int
	Out    *Out
	Effect *Effect
}

// Batch collects what a handler asks for. The zero value is ready for use. It is not safe for
// concurrent use.
type Batch struct {
	outs    []Out
	effects []Effect
	order   []bool // per entry, in the order of the calls: true is an effect
}

// Emit adds an output.
func (b *Batch) Emit(out Out) {
	b.outs = append(b.outs, out)
	b.order = append(b.order, false)
}

// Call adds an effect.
func (b *Batch) Call(effect Effect) {
	b.effects = append(b.effects, effect)
	b.order = append(b.order, true)
}

// Len counts the entries.
func (b *Batch) Len() int { return len(b.order) }

// Outs returns the outputs in the order they were emitted.
func (b *Batch) Outs() []Out { return b.outs }

// Effects returns the effects in the order they were called.
func (b *Batch) Effects() []Effect { return b.effects }

// Truncate drops every entry from index n on. The engine uses it when a handler rejects a record
// half way.
func (b *Batch) Truncate(n int) {
	for _, effect := range b.order[n:] {
		if effect {
			b.effects = b.effects[:len(b.effects)-1]
		} else {
			b.outs = b.outs[:len(b.outs)-1]
		}
	}
	b.order = b.order[:n]
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	clear(b.outs)
	clear(b.effects)
	b.outs, b.effects, b.order = b.outs[:0], b.effects[:0], b.order[:0]
}

// Walk visits entries from index from to index to-1 in order, with indexes counted from 0 at from.
// The caller that handles many inputs with one Batch remembers Len before and after each input.
// outs and effects are the cursors into Outs and Effects at from; Walk returns them at to.
func (b *Batch) Walk(from, to, outs, effects int, visit func(Entry)) (outsEnd, effectsEnd int) {
	for i := from; i < to; i++ {
		if b.order[i] {
			visit(Entry{Index: i - from, Effect: &b.effects[effects]})
			effects++
			continue
		}
		visit(Entry{Index: i - from, Out: &b.outs[outs]})
		outs++
	}
	return outs, effects
}
