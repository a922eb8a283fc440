package dev

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/handlers"
	"pawl/internal/load"
	"pawl/internal/message"
)

const (
	testEffects     = "orders.effects"
	testDeadLetters = "orders.dead-letter"
	testOrders      = 600
	testBadShare    = 0.1
)

var testTopicID = [16]byte{1, 2, 3}

func newHandler(t *testing.T) handler {
	t.Helper()
	h, err := handlers.New("orders", handlers.Settings{Outputs: []string{"priced", "ledger"}, Endpoints: []string{"payments"}})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func testRoutes(t *testing.T) map[string]route {
	t.Helper()
	return map[string]route{"orders": {newHandler(t), testTopicID}}
}

func testOutputs() map[string]string {
	return map[string]string{"priced": "orders.priced", "ledger": "orders.ledger"}
}

// testInputs are orders on two partitions, as they would be read from the input topic.
func testInputs(t *testing.T) []*kgo.Record {
	t.Helper()
	orders, err := load.NewOrders(load.OrdersConfig{Seed: 7, Customers: 20, BadShare: testBadShare})
	if err != nil {
		t.Fatal(err)
	}
	var inputs []*kgo.Record
	for n := range int64(testOrders) {
		record := &kgo.Record{Topic: "orders", Timestamp: time.UnixMilli(1_000_000 + n)}
		orders.Fill(record, load.Stamp{N: n})
		record.Partition = int32(record.Key[len(record.Key)-1] % 2)
		record.Offset = n
		inputs = append(inputs, record)
	}
	return inputs
}

// process is what a processor writes for inputs, in order, written down a second time on purpose:
// the model is to agree with the format and not with the engine's code.
func processAll(t *testing.T, h handler, inputs []*kgo.Record) []*kgo.Record {
	t.Helper()
	var written []*kgo.Record
	for _, in := range inputs {
		source := message.Source{Application: "orders", Topic: in.Topic, TopicID: testTopicID, Partition: in.Partition, Offset: in.Offset}
		from := fmt.Sprintf("%s/%d/%d", in.Topic, in.Partition, in.Offset)
		var batch message.Batch
		err := h.Handle(message.In{Source: source, Key: in.Key, Value: in.Value, Timestamp: in.Timestamp}, &batch)
		var reject interface{ Reason() string }
		if errors.As(err, &reject) {
			written = append(written, &kgo.Record{Topic: testDeadLetters, Key: in.Key, Value: in.Value, Timestamp: in.Timestamp, Headers: []kgo.RecordHeader{
				text("pawl-source", from), text("pawl-id", source.ID(-1).String()), text("pawl-handler", "orders"),
				text("pawl-reason", reject.Reason()), text("pawl-error", err.Error()),
			}})
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		batch.Walk(0, batch.Len(), 0, 0, func(entry message.Entry) {
			if out := entry.Out; out != nil {
				record := &kgo.Record{Topic: testOutputs()[out.Output], Key: out.Key, Value: out.Value, Timestamp: in.Timestamp}
				for _, header := range out.Headers {
					record.Headers = append(record.Headers, kgo.RecordHeader(header))
				}
				record.Headers = append(record.Headers, text("pawl-source", from), text("pawl-id", source.ID(entry.Index).String()))
				written = append(written, record)
				return
			}
			effect := entry.Effect
			written = append(written, &kgo.Record{Topic: testEffects, Key: effect.OrderKey, Value: effect.Body, Timestamp: time.Now(), Headers: []kgo.RecordHeader{
				text("pawl-format", "1"), text("pawl-id", message.BusinessID("orders", effect.Endpoint, effect.BusinessKey).String()),
				text("pawl-source", from), text("pawl-index", strconv.Itoa(entry.Index)), text("pawl-endpoint", effect.Endpoint),
				text("pawl-class", "at-least-once"), text("content-type", "application/json"), text("pawl-business-key", effect.BusinessKey),
			}})
		})
	}
	return written
}

// concluded is the proof over what was written, with outcomes that agree with what a reader sees.
func concluded(t *testing.T, inputs, written []*kgo.Record, aborted int64, adapt func(*load.Outcomes)) *Proof {
	t.Helper()
	m := newModel(testRoutes(t), testOutputs(), testEffects, testDeadLetters)
	for _, record := range inputs {
		if err := m.expect(record); err != nil {
			t.Fatal(err)
		}
	}
	outcomes := load.Outcomes{Topics: make(map[string]load.Outcome), Aborted: aborted}
	for _, record := range written {
		m.see(record)
		outcome := outcomes.Topics[record.Topic]
		outcome.Committed++
		outcomes.Topics[record.Topic] = outcome
	}
	if adapt != nil {
		adapt(&outcomes)
	}
	wrong, err := DemoConfig{Orders: testOrders, BadShare: testBadShare, Seed: 7}.wrong()
	if err != nil {
		t.Fatal(err)
	}
	var proof Proof
	proof.conclude(m, nil, outcomes, testOrders, wrong)
	return &proof
}

// first finds a record of a topic.
func first(t *testing.T, records []*kgo.Record, topic string) int {
	t.Helper()
	at := slices.IndexFunc(records, func(r *kgo.Record) bool { return r.Topic == topic })
	if at < 0 {
		t.Fatalf("no record of %s", topic)
	}
	return at
}

// altered is a copy of records with one of a topic changed.
func altered(t *testing.T, records []*kgo.Record, topic string, change func(*kgo.Record)) []*kgo.Record {
	t.Helper()
	records = slices.Clone(records)
	at := first(t, records, topic)
	record := *records[at]
	record.Headers = slices.Clone(record.Headers)
	change(&record)
	records[at] = &record
	return records
}

func header(record *kgo.Record, key string) *kgo.RecordHeader {
	for i := range record.Headers {
		if record.Headers[i].Key == key {
			return &record.Headers[i]
		}
	}
	return nil
}

// What a correct processor writes is proven, whatever the partitions it lands in.
func TestProofHoldsForWhatTheHandlerMakes(t *testing.T) {
	t.Parallel()
	inputs := testInputs(t)
	proof := concluded(t, inputs, processAll(t, newHandler(t), inputs), 1, nil)
	if !proof.Proven() {
		t.Fatalf("faults: %v", proof.Faults)
	}
	if proof.Inputs != testOrders || proof.Wrong < 30 || proof.Aborted != 1 {
		t.Errorf("proof = %+v", proof)
	}
	var letters int64
	for _, count := range proof.Reasons {
		letters += count
	}
	good := testOrders - letters
	want := []TopicProof{
		{Role: "output", Topic: "orders.ledger", Expected: good, Seen: good},
		{Role: "output", Topic: "orders.priced", Expected: good, Seen: good},
		{Role: "effects", Topic: testEffects, Expected: good, Seen: good},
		{Role: "dead-letter", Topic: testDeadLetters, Expected: letters, Seen: letters},
	}
	if diff := cmp.Diff(want, proof.Topics); diff != "" {
		t.Errorf("topics (-want +got):\n%s", diff)
	}
}

// Each way in which a processor can break its promise is found, as that way, in that topic.
func TestProofFindsEveryFault(t *testing.T) {
	t.Parallel()
	inputs := testInputs(t)
	written := processAll(t, newHandler(t), inputs)
	for _, topic := range []string{"orders.priced", "orders.ledger", testEffects, testDeadLetters} {
		tests := map[string]struct {
			records []*kgo.Record
			fault   string
		}{
			"lost":       {slices.Delete(slices.Clone(written), first(t, written, topic), first(t, written, topic)+1), "1 missing"},
			"twice":      {append(slices.Clone(written), written[first(t, written, topic)]), "1 there more than once"},
			"value":      {altered(t, written, topic, func(r *kgo.Record) { r.Value = append(slices.Clone(r.Value), ' ') }), "1 altered"},
			"key":        {altered(t, written, topic, func(r *kgo.Record) { r.Key = []byte("nobody") }), "1 altered"},
			"no key":     {altered(t, written, topic, func(r *kgo.Record) { r.Key = nil }), "1 altered"},
			"header":     {altered(t, written, topic, func(r *kgo.Record) { header(r, fixedHeader(topic)).Value = []byte("?") }), "1 altered"},
			"other id":   {altered(t, written, topic, func(r *kgo.Record) { header(r, "pawl-id").Value = []byte("4711") }), "1 missing, 1 made from no input"},
			"no source":  {altered(t, written, topic, func(r *kgo.Record) { header(r, "pawl-source").Key = "source" }), "1 missing, 1 made from no input"},
			"from where": {altered(t, written, topic, func(r *kgo.Record) { header(r, "pawl-source").Value = []byte("orders/0/999999") }), "1 missing, 1 made from no input"},
		}
		for name, test := range tests {
			t.Run(topic+"/"+name, func(t *testing.T) {
				t.Parallel()
				proof := concluded(t, inputs, test.records, 1, nil)
				want := []string{topic + ": " + test.fault}
				if diff := cmp.Diff(want, proof.Faults); diff != "" {
					t.Errorf("faults (-want +got):\n%s", diff)
				}
				if proof.Proven() || !strings.Contains(proof.Report(), "NOT PROVEN") {
					t.Error("the report does not say that this is no proof")
				}
			})
		}
	}
}

// fixedHeader is one that each record of a topic has and the model expects.
func fixedHeader(topic string) string {
	switch topic {
	case testEffects:
		return "pawl-business-key"
	case testDeadLetters:
		return "pawl-reason"
	default:
		return "content-type"
	}
}

// The timestamp of an output is that of its input; an effect has its own.
func TestProofChecksTimestamps(t *testing.T) {
	t.Parallel()
	inputs := testInputs(t)
	written := processAll(t, newHandler(t), inputs)
	later := func(r *kgo.Record) { r.Timestamp = r.Timestamp.Add(time.Millisecond) }
	if proof := concluded(t, inputs, altered(t, written, "orders.priced", later), 1, nil); len(proof.Faults) != 1 {
		t.Errorf("faults = %v, want one", proof.Faults)
	}
	if proof := concluded(t, inputs, altered(t, written, testEffects, later), 1, nil); !proof.Proven() {
		t.Errorf("faults = %v, want none", proof.Faults)
	}
}

// Two records of one key that changed places are out of order; of two keys they are not.
func TestProofHoldsKeysToTheirOrder(t *testing.T) {
	t.Parallel()
	inputs := testInputs(t)
	written := processAll(t, newHandler(t), inputs)
	at := first(t, written, "orders.ledger")
	next := func(same bool) int {
		for i := at + 1; i < len(written); i++ {
			if written[i].Topic == "orders.ledger" && (string(written[i].Key) == string(written[at].Key)) == same {
				return i
			}
		}
		t.Fatal("no such record")
		return 0
	}
	swapped := func(other int) []*kgo.Record {
		records := slices.Clone(written)
		records[at], records[other] = records[other], records[at]
		return records
	}
	if proof := concluded(t, inputs, swapped(next(true)), 1, nil); !slices.Equal(proof.Faults, []string{"orders.ledger: 1 out of order"}) {
		t.Errorf("one key: faults = %v, want one out of order", proof.Faults)
	}
	if proof := concluded(t, inputs, swapped(next(false)), 1, nil); !proof.Proven() {
		t.Errorf("two keys: faults = %v, want none", proof.Faults)
	}
}

// What the reader sees is checked against the log, the inputs against the generator, and a kill
// that aborted nothing proves nothing.
func TestProofChecksItsOwnWitnesses(t *testing.T) {
	t.Parallel()
	inputs := testInputs(t)
	written := processAll(t, newHandler(t), inputs)
	tests := map[string]struct {
		proof *Proof
		want  string
	}{
		"no abort": {concluded(t, inputs, written, 0, nil), "no transaction was aborted"},
		"log": {concluded(t, inputs, written, 1, func(o *load.Outcomes) {
			o.Topics["orders.priced"] = load.Outcome{Committed: 1}
		}), "orders.priced: readers see"},
		"input lost before": {concluded(t, inputs[1:], processAll(t, newHandler(t), inputs[1:]), 1, nil), "600 orders were produced, the input topic holds 599"},
	}
	for name, test := range tests {
		if len(test.proof.Faults) != 1 || !strings.Contains(test.proof.Faults[0], test.want) {
			t.Errorf("%s: faults = %q, want %q", name, test.proof.Faults, test.want)
		}
	}
}

// A handler that fails without a reason is a fault of the demo, not a dead letter.
func TestModelReportsAHandlersOwnFault(t *testing.T) {
	t.Parallel()
	m := newModel(map[string]route{"orders": {broken{}, testTopicID}}, testOutputs(), testEffects, testDeadLetters)
	if err := m.expect(&kgo.Record{Topic: "orders", Offset: 5}); err == nil || !strings.Contains(err.Error(), "orders/0/5: out of luck") {
		t.Errorf("error = %v", err)
	}
}

type broken struct{}

func (broken) Handle(message.In, *message.Batch) error { return errors.New("out of luck") }
