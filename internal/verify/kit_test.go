package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"pawl/internal/message"
)

// The made-up application: each input leads to one output and one effect, one that says bad to a dead
// letter, one that says two to a second output on another topic.
const (
	application = "shop"
	inTopic     = "in"
	outTopic    = "out"
	moreTopic   = "more"
	effectTopic = "shop.effects"
	deadTopic   = "shop.dead-letter"
	resultTopic = "shop.effect-results"
	inputs      = 8 // for each of two partitions
	inputParts  = 2
)

var (
	inID = [16]byte{1, 2, 3}
	noon = time.UnixMilli(1_800_000_000_000).UTC()
)

type badInput struct{}

func (badInput) Error() string  { return "it says bad" }
func (badInput) Reason() string { return "bad" }

type toy struct{}

func (toy) Handle(in message.In, out *message.Batch) error {
	switch {
	case bytes.Contains(in.Value, []byte("bad")):
		return badInput{}
	case bytes.Contains(in.Value, []byte("panic")):
		panic("as told")
	}
	out.Emit(message.Out{Output: "first", Key: in.Key, Value: append([]byte("made of "), in.Value...)})
	effect := message.Effect{Endpoint: "pay", Body: append([]byte("pay "), in.Value...)}
	if bytes.Contains(in.Value, []byte("business")) {
		effect.BusinessKey = string(in.Value)
	}
	if bytes.Contains(in.Value, []byte("once")) {
		effect.Class = message.AtMostOnce
	}
	out.Call(effect)
	if bytes.Contains(in.Value, []byte("two")) {
		out.Emit(message.Out{Output: "second", Key: in.Key, Value: in.Value})
	}
	return nil
}

func plan() Plan {
	return Plan{
		Application: application,
		Inputs:      []Input{{Topic: inTopic, TopicID: inID, Handler: toy{}}},
		Outputs:     map[string]string{"first": outTopic, "second": moreTopic},
		Effects:     effectTopic, DeadLetters: deadTopic, Results: resultTopic,
		Drained: true, Ledger: true, Journal: true, Readers: true,
	}
}

// world writes a history as a perfect Pawl would, by its own hand: it shares nothing with the checker
// but the nouns. Tests then break the history.
type world struct {
	History

	plan  Plan
	ends  map[Place]int64 // next offset by partition; Offset is 0
	epoch int16
}

func newWorld() *world {
	w := &world{plan: plan(), ends: map[Place]int64{}}
	for partition := range int32(inputParts) {
		for n := range inputs {
			w.input(partition, fmt.Sprintf("input %d/%d", partition, n))
		}
	}
	return w
}

const producer = 7

// input appends an input, outside any transaction.
func (w *world) input(partition int32, value string) *Record {
	return w.put(&Record{Topic: inTopic, Partition: partition, Key: []byte("key " + strconv.Itoa(len(w.Log)%3)), Value: []byte(value), Timestamp: noon, Producer: -1})
}

// put gives a record its offset and appends it.
func (w *world) put(r *Record) *Record {
	at := Place{Topic: r.Topic, Partition: r.Partition}
	r.Offset = w.ends[at]
	w.ends[at]++
	w.Log = append(w.Log, Entry{Record: r})
	return r
}

// process handles inputs as one transaction and returns what it wrote.
func (w *world) process(from []*Record, generation int, commit bool) (written []*Record) {
	var batch message.Batch
	for _, in := range from {
		source := message.Source{Application: application, ReplayGeneration: generation, Topic: inTopic, TopicID: inID, Partition: in.Partition, Offset: in.Offset}
		batch.Reset()
		err := func() (err error) {
			defer func() {
				if recover() != nil {
					err = panicked{}
				}
			}()
			return toy{}.Handle(message.In{Source: source, Key: in.Key, Value: in.Value, Headers: in.Headers, Timestamp: in.Timestamp}, &batch)
		}()
		if reject, is := err.(interface{ Reason() string }); is {
			written = append(written, w.letter(in, source, reject.Reason()))
			continue
		}
		batch.Walk(0, batch.Len(), 0, 0, func(e message.Entry) {
			if e.Out != nil {
				topic := map[string]string{"first": outTopic, "second": moreTopic}[e.Out.Output]
				written = append(written, w.write(&Record{
					Topic: topic, Partition: in.Partition, Key: e.Out.Key, Value: e.Out.Value, Timestamp: in.Timestamp,
					Headers: []message.Header{header(message.HeaderSource, source.String()), header(message.HeaderID, source.ID(e.Index).String())},
				}))
				return
			}
			written = append(written, w.effect(in, source, e))
		})
	}
	w.end(commit)
	return written
}

type panicked struct{ badInput }

func (panicked) Reason() string { return "panic" }

func (w *world) write(r *Record) *Record {
	r.Transactional, r.Producer, r.Epoch = true, producer, w.epoch
	return w.put(r)
}

func header(key, value string) message.Header { return message.Header{Key: key, Value: []byte(value)} }

func (w *world) letter(in *Record, source message.Source, reason string) *Record {
	return w.write(&Record{
		Topic: deadTopic, Partition: in.Partition, Key: in.Key, Value: in.Value, Timestamp: in.Timestamp,
		Headers: append(slices.Clone(in.Headers), header(message.HeaderSource, source.String()), header(message.HeaderID, source.ID(-1).String()),
			header(message.HeaderHandler, "toy"), header(message.HeaderReason, reason), header(message.HeaderError, "it says so")),
	})
}

func (w *world) effect(in *Record, source message.Source, e message.Entry) *Record {
	id := source.ID(e.Index)
	class := e.Effect.Class
	if class == "" {
		class = message.AtLeastOnce
	}
	headers := []message.Header{
		header(message.HeaderFormat, "1"), header(message.HeaderID, id.String()), header(message.HeaderSource, source.String()),
		header(message.HeaderIndex, strconv.Itoa(e.Index)), header(message.HeaderTopicID, hex.EncodeToString(inID[:])),
		header(message.HeaderGeneration, strconv.Itoa(source.ReplayGeneration)), header(message.HeaderEndpoint, e.Effect.Endpoint),
		header(message.HeaderClass, string(class)), header(message.HeaderContentType, "application/json"),
	}
	if e.Effect.BusinessKey != "" {
		headers[1].Value = []byte(message.BusinessID(application, e.Effect.Endpoint, e.Effect.BusinessKey).String())
		headers = append(headers, header(message.HeaderBusinessKey, e.Effect.BusinessKey))
	}
	return w.write(&Record{Topic: effectTopic, Partition: in.Partition, Key: in.Key, Value: e.Effect.Body, Timestamp: noon, Headers: headers})
}

// end writes the markers of the transaction in every partition that it wrote to.
func (w *world) end(commit bool) {
	var open []Place
	for _, entry := range w.Log {
		switch {
		case entry.Record != nil && entry.Record.Transactional && entry.Record.Epoch == w.epoch:
			at := Place{Topic: entry.Record.Topic, Partition: entry.Record.Partition}
			if !slices.Contains(open, at) {
				open = append(open, at)
			}
		default:
		}
	}
	for _, at := range open {
		w.Log = append(w.Log, Entry{Marker: &Marker{
			Topic: at.Topic, Partition: at.Partition, Offset: w.ends[at], Timestamp: noon.Add(time.Second), Producer: producer, Epoch: w.epoch + 1, Commit: commit,
		}})
		w.ends[at]++
	}
	w.epoch++
}

// all gives the inputs of a partition.
func (w *world) all(partition int32) (found []*Record) {
	for _, entry := range w.Log {
		if r := entry.Record; r != nil && r.Topic == inTopic && r.Partition == partition {
			found = append(found, r)
		}
	}
	return found
}

// run processes all inputs in transactions of some records, with an aborted attempt of each.
func (w *world) run() *world {
	for partition := range int32(inputParts) {
		for batch := range slices.Chunk(w.all(partition), 3) {
			w.process(batch, 0, false)
			w.span(batch, ClaimAborted)
			w.process(batch, 0, true)
			w.span(batch, ClaimCommitted)
		}
	}
	return w
}

func (w *world) span(batch []*Record, claim Claim) {
	first, last := batch[0], batch[len(batch)-1]
	w.Spans = append(w.Spans, Span{Producer: producer, Epoch: w.epoch - 1, Topic: inTopic, Partition: first.Partition, From: first.Offset, To: last.Offset + 1, Claim: claim})
}

// finish records everything that follows: offsets, readers, ledger, calls and results.
func (w *world) finish() *world {
	for partition := range int32(inputParts) {
		end := w.ends[Place{Topic: inTopic, Partition: partition}]
		w.Offsets = append(w.Offsets, Offsets{Topic: inTopic, Partition: partition, Committed: end, End: end})
	}
	for lane := range int32(inputParts) {
		w.Lanes = append(w.Lanes, Lane{Lane: lane, Next: w.ends[Place{Topic: effectTopic, Partition: lane}]})
	}
	seq := map[int32]int64{}
	marks := map[[2]int64]int64{} // by lane, and generation and partition of the input
	first := map[string]bool{}    // ids
	for _, r := range w.committed(effectTopic) {
		o, _ := readOrigin(r.Headers)
		origin := [2]int64{int64(r.Partition), int64(o.replay)<<32 | int64(o.partition)}
		if last, known := marks[origin]; known && o.offset*1000+int64(o.index) <= last {
			continue
		}
		marks[origin] = o.offset*1000 + int64(o.index)
		w.Rows = append(w.Rows, Row{
			Lane: r.Partition, Offset: r.Offset, ID: o.id, Index: int(o.index), Endpoint: string(o.endpoint), Class: message.Class(o.class),
			Source:      message.Source{Topic: string(o.topic), Partition: o.partition, Offset: o.offset, TopicID: o.topicID, ReplayGeneration: o.replay},
			ContentType: string(o.contentType), BusinessKey: string(o.business), Key: r.Key, Body: r.Value,
		})
		status := "done"
		if first[o.id.String()] {
			status = "duplicate"
		} else {
			w.call(r, 1, 100, true)
		}
		first[o.id.String()] = true
		seq[r.Partition]++
		w.Outcomes = append(w.Outcomes, Outcome{Lane: r.Partition, Offset: r.Offset, Seq: seq[r.Partition], Status: status, Attempts: 1})
		w.tell(r, status)
	}
	w.end(true)
	for _, topic := range []string{inTopic, outTopic, effectTopic, resultTopic} {
		for _, r := range w.committed(topic) {
			w.Reads = append(w.Reads, Read{"reader", r})
		}
	}
	return w
}

func (w *world) call(r *Record, attempt int, fence int64, executed bool) *Call {
	o, _ := readOrigin(r.Headers)
	w.Calls = append(w.Calls, Call{
		At: noon.Add(2 * time.Second), ID: o.id.String(), Lane: r.Partition, Offset: r.Offset, Attempt: attempt, Fence: fence, Body: sha256.Sum256(r.Value), Executed: executed,
	})
	return &w.Calls[len(w.Calls)-1]
}

func (w *world) tell(r *Record, status string) *Record {
	o, _ := readOrigin(r.Headers)
	value, err := json.Marshal(map[string]any{
		"format": 1, "effect_id": o.id.String(), "lane": r.Partition, "offset": r.Offset, "source": string(o.source),
		"endpoint": string(o.endpoint), "status": status, "request": map[string]any{"body": r.Value},
	})
	if err != nil {
		panic(err)
	}
	return w.write(&Record{Topic: resultTopic, Partition: r.Partition, Key: r.Key, Value: value, Timestamp: noon})
}

// committed gives the committed records of a topic, partition by partition.
func (w *world) committed(topic string) (found []*Record) {
	commits := map[string]bool{}
	name := func(topic string, partition int32, epoch int16) string { return fmt.Sprint(topic, partition, epoch) }
	for _, entry := range w.Log {
		if m := entry.Marker; m != nil && m.Commit {
			commits[name(m.Topic, m.Partition, m.Epoch-1)] = true
		}
	}
	for _, entry := range w.Log {
		if r := entry.Record; r != nil && r.Topic == topic && (!r.Transactional || commits[name(r.Topic, r.Partition, r.Epoch)]) {
			found = append(found, r)
		}
	}
	slices.SortStableFunc(found, func(a, b *Record) int { return int(a.Partition - b.Partition) })
	return found
}

func (w *world) check(t testing.TB) Report {
	t.Helper()
	report, err := Check(w.plan, w.History)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// drop takes an entry out of the log, as if it had never been written.
func (w *world) drop(which func(Entry) bool) {
	for i, entry := range w.Log {
		if which(entry) {
			w.Log = slices.Delete(w.Log, i, i+1)
			return
		}
	}
	panic("there is nothing to drop")
}

func (w *world) dropRead(which func(Read) bool) {
	w.Reads = slices.DeleteFunc(w.Reads, which)
}
