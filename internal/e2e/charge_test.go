//go:build chaos && linux

package e2e

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/load"
	"pawl/internal/message"
	"pawl/internal/testkit"
)

// told is what a result event says.
type told struct {
	ID     string `json:"effect_id"`
	Lane   int32  `json:"lane"`
	Offset int64  `json:"offset"`
	Status string `json:"status"`
	First  *struct {
		Lane   int32 `json:"lane"`
		Offset int64 `json:"offset"`
	} `json:"first"`
}

func (e told) at() string { return fmt.Sprintf("%d:%d", e.Lane, e.Offset) }

// tellings reads the result events as an ordinary reader, in the order of each lane.
func (r *rig) tellings(t *testing.T) []told {
	t.Helper()
	var all []told
	var broken error
	err := load.Scan(t.Context(), []kgo.Opt{kgo.SeedBrokers(r.kafka.InternalBrokers()...)}, []string{r.application + ".effect-results"}, func(record *kgo.Record) {
		var event told
		if err := json.Unmarshal(record.Value, &event); err != nil {
			broken = fmt.Errorf("decode result %s: %w", record.Value, err)
		}
		all = append(all, event)
	})
	if err == nil {
		err = broken
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// awaitTold waits for so many result events and fails the test if there are more.
func (r *rig) awaitTold(t *testing.T, count int) []told {
	t.Helper()
	var events []told
	testkit.WaitFor(t, 2*time.Minute, fmt.Sprintf("%d result events", count), func() bool {
		events = r.tellings(t)
		return len(events) >= count
	})
	if len(events) > count {
		t.Fatalf("there are %d result events, want %d", len(events), count)
	}
	return events
}

// countTold counts result events by status.
func countTold(events []told) map[string]int {
	counts := map[string]int{}
	for _, e := range events {
		counts[e.Status]++
	}
	return counts
}

// called gives the effects that were called, by lane:offset, with the number of calls.
func (r *receiver) called() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := map[string]int{}
	for _, call := range r.calls {
		counts[call.order]++
	}
	return counts
}

// again makes orders that were fed before once more, as they were or changed.
func (s *siege) again(t *testing.T, from, to int64, change func(order string) string) []*kgo.Record {
	t.Helper()
	var records []*kgo.Record
	for n := from; n < to; n++ {
		record := &kgo.Record{Topic: s.input}
		s.generator.Fill(record, load.Stamp{N: n})
		if change != nil {
			changed := change(string(record.Value))
			if changed == string(record.Value) {
				t.Fatalf("order %d is as it was: %s", n, changed)
			}
			record.Value = []byte(changed)
		}
		records = append(records, record)
	}
	return records
}

// request writes effects for parcels as the engine would, for inputs from 0 on: no handler of ours asks for
// any without a business key.
func (s *siege) request(t *testing.T, count, generation int) {
	t.Helper()
	var records []*kgo.Record
	for i := range count {
		source := message.Source{Application: s.application, Topic: "parcels", TopicID: [16]byte{1}, Offset: int64(i), ReplayGeneration: generation}
		record := &kgo.Record{Topic: s.application + ".effects", Partition: 1, Key: fmt.Appendf(nil, "parcel-%d", i), Value: fmt.Appendf(nil, `{"parcel":%d}`, i)}
		for _, header := range [][2]string{
			{message.HeaderFormat, message.EffectFormat},
			{message.HeaderID, source.ID(0).String()},
			{message.HeaderSource, source.String()},
			{message.HeaderIndex, "0"},
			{message.HeaderTopicID, fmt.Sprintf("%x", source.TopicID)},
			{message.HeaderGeneration, strconv.Itoa(generation)},
			{message.HeaderEndpoint, "parcels"},
			{message.HeaderClass, string(message.AtLeastOnce)},
			{message.HeaderContentType, "application/json"},
		} {
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: header[0], Value: []byte(header[1])})
		}
		records = append(records, record)
	}
	client := testkit.Client(t, s.kafka.InternalBrokers(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// stop ends the processor so that its group has no member.
func (s *siege) stop(t *testing.T) {
	t.Helper()
	s.processor.leave(t)
	s.processor.terminate(t, endTimeout)
}

// Orders are produced twice upstream, some while the first is still on its way, some long after, some with
// another content and some of those for another customer, whose effects are in another lane. Each order id is
// charged once, and whoever reads the results learns of every other attempt and of the effect that was first.
func TestOrderProducedTwiceIsChargedOnce(t *testing.T) {
	const (
		orders    = 200
		near      = 50 // come twice at once
		late      = 100
		changed   = 20
		elsewhere = 20
	)
	s := newSiege(t)
	s.processor.start(t)
	s.processor.awaitReady(t)
	var atOnce []*kgo.Record
	for n := range int64(near) {
		atOnce = append(append(atOnce, s.again(t, n, n+1, nil)...), s.again(t, n, n+1, nil)...)
	}
	testkit.Produce(t, s.kafka.InternalBrokers(), atOnce...)
	s.orders = near
	s.feed(t, orders-near, placeRate)
	s.awaitTold(t, orders+near)

	var more []*kgo.Record
	more = append(more, s.again(t, 0, late, nil)...)
	more = append(more, s.again(t, 0, changed, func(order string) string {
		return strings.Replace(order, `"unit_price":"`, `"unit_price":"1`, 1)
	})...)
	more = append(more, s.again(t, changed, changed+elsewhere, func(order string) string {
		return strings.Replace(order, `"customer":{"id":"customer-`, `"customer":{"id":"stranger-`, 1)
	})...)
	testkit.Produce(t, s.kafka.InternalBrokers(), more...)
	events := s.awaitTold(t, orders+near+late+changed+elsewhere)

	counts := countTold(events)
	if counts["done"] != orders || counts["duplicate"] != near+late || counts["conflict"] != changed+elsewhere {
		t.Errorf("result events are %v, want %d done, %d duplicate, %d conflict", counts, orders, near+late, changed+elsewhere)
	}
	effects, called := s.readEffects(t), s.receiver.called()
	first := map[string]told{} // by id
	for _, e := range events {
		if e.Status == "done" {
			first[e.ID] = e
		}
	}
	crossed := 0
	var conflict told
	for _, e := range events {
		switch {
		case e.Status == "done":
			continue
		case called[e.at()] > 0:
			t.Errorf("effect %s is a %s and was called", e.at(), e.Status)
		case e.First == nil || e.First.Lane != first[e.ID].Lane || e.First.Offset != first[e.ID].Offset:
			t.Errorf("the %s %s points to %v, want %s", e.Status, e.at(), e.First, first[e.ID].at())
		case effects[e.at()].body == effects[first[e.ID].at()].body != (e.Status == "duplicate"):
			t.Errorf("effect %s is a %s of %s", e.at(), e.Status, first[e.ID].at())
		case e.First.Lane != e.Lane:
			crossed++
		}
		if e.Status == "conflict" {
			conflict = e
		}
	}
	if crossed == 0 {
		t.Error("no second effect was in another lane than the first")
	}
	if repeated := s.repeated(t); len(repeated) > 0 {
		t.Errorf("calls were repeated: %v", repeated)
	}
	for status, want := range map[string]float64{"done": orders, "duplicate": near + late, "conflict": changed + elsewhere} {
		if got := s.processor.metric("processor_outbox_settled_effects_total", `sink="payments"`, `status="`+status+`"`); got != want {
			t.Errorf("the metrics count %v effects that are %s, want %v", got, status, want)
		}
	}
	s.wantConflicts(t, conflict, changed+elsewhere)
	t.Logf("%d orders, %d effects, %d calls; %v; %d in another lane than the first", orders, len(effects), s.receiver.count(), counts, crossed)
}

// wantConflicts asks the program for the conflicts, of which it must still have the payload.
func (s *siege) wantConflicts(t *testing.T, one told, count int) {
	t.Helper()
	program := &shop{rig: s.rig}
	stdout, stderr, code := program.command(t, "effects", "ls", "--state", "conflict", "-o", "json")
	var listed []struct{ Effect string }
	if err := json.Unmarshal([]byte(stdout), &listed); err != nil || code != 0 || len(listed) != count {
		t.Errorf("effects ls lists %d conflicts, want %d; exit code %d, %v\n%s", len(listed), count, code, err, stderr)
	}
	stdout, stderr, code = program.command(t, "effects", "show", one.at())
	if code != 0 {
		t.Fatalf("effects show %s: exit code %d\n%s", one.at(), code, stderr)
	}
	tells(t, "effects show", stdout, "conflict", fmt.Sprintf("%d:%d", one.First.Lane, one.First.Offset), `"operation":"charge"`)
}

// The group's offsets go back by 10,000 records: the handlers run again and their outputs are written again, but
// nothing is called again and no result is told again. Then they go back once more under another replay generation:
// what has a business key is a duplicate of what was called, what has none is called anew, under a new key.
func TestRewoundInputChargesNothingAgain(t *testing.T) {
	const (
		orders   = 12_000
		back     = 2_500 // records of each of 4 partitions
		parts    = 4     // of effectsConfiguration
		more     = 400
		onceMore = 500
		parcel   = 40
	)
	s := newSiege(t)
	var err error
	if s.generator, err = load.NewOrders(load.OrdersConfig{Seed: 1, Customers: 4000}); err != nil {
		t.Fatal(err)
	}
	s.processor.start(t)
	s.processor.awaitReady(t)
	s.request(t, parcel, 0)
	s.feed(t, orders, 0)
	s.awaitTold(t, orders+parcel)
	before := s.receiver.called()
	if len(before) != orders+parcel {
		t.Fatalf("%d effects were called, want %d", len(before), orders+parcel)
	}

	s.rewind(t, back)
	s.processor.start(t)
	s.processor.awaitReady(t)
	s.request(t, parcel, 0)
	s.awaitCaughtUp(t)
	s.feed(t, more, placeRate) // what was left out is counted when something follows it
	events := s.awaitTold(t, orders+more+parcel)
	if counts := countTold(events); counts["done"] != orders+more+parcel {
		t.Errorf("result events are %v, want %d done", counts, orders+more+parcel)
	}
	suppressed := func() float64 { return s.processor.metric("processor_outbox_suppressed_effects_total") }
	if got := suppressed(); got != parts*back+parcel {
		t.Errorf("the metrics count %v suppressed effects, want %d", got, parts*back+parcel)
	}
	if got := len(s.readEffects(t)); got != orders+parts*back+more+2*parcel {
		t.Errorf("the effects topic has %d records, want %d: the rewound input asked again for nothing", got, orders+parts*back+more+2*parcel)
	}
	s.wantCalled(t, before, more)

	before = s.receiver.called()
	s.rewind(t, onceMore)
	s.processor.settings = settings{"replay_generation=1"}
	s.processor.start(t)
	s.processor.awaitReady(t)
	s.request(t, parcel, 1)
	events = s.awaitTold(t, orders+more+parcel+parts*onceMore+parcel)
	counts := countTold(events)
	if counts["done"] != orders+more+2*parcel || counts["duplicate"] != parts*onceMore {
		t.Errorf("result events are %v, want %d done and %d duplicate", counts, orders+more+2*parcel, parts*onceMore)
	}
	s.wantCalled(t, before, parcel)
	if got := suppressed(); got != 0 {
		t.Errorf("%v effects of another replay generation were suppressed", got)
	}
	ids := map[string]bool{}
	for _, e := range events {
		if e.Status == "done" && ids[e.ID] {
			t.Errorf("effect %s was called under the key %s of another", e.at(), e.ID)
		}
		ids[e.ID] = ids[e.ID] || e.Status == "done"
	}
	if repeated := s.repeated(t); len(repeated) > 0 {
		t.Errorf("calls were repeated: %v", repeated)
	}
	t.Logf("%d records went back and suppressed %d effects; then %d under another generation: %v", parts*back, parts*back+parcel, parts*onceMore, counts)
}

// wantCalled fails the test unless so many effects were called since, and none of those that had been.
func (s *siege) wantCalled(t *testing.T, before map[string]int, fresh int) {
	t.Helper()
	called := s.receiver.called()
	for at, n := range before {
		if called[at] != n {
			t.Errorf("effect %s was called again", at)
		}
	}
	if got := len(called) - len(before); got != fresh {
		t.Errorf("%d effects were called since, want %d", got, fresh)
	}
}

// rewind stops the processor and sets the offsets of the orders back, as an operator does.
func (s *siege) rewind(t *testing.T, records int64) {
	t.Helper()
	s.stop(t)
	committed := testkit.CommittedOffsets(t, s.kafka.InternalBrokers(), s.application, s.input)
	for partition, offset := range committed {
		if offset < records {
			t.Fatalf("partition %d has only %d records", partition, offset)
		}
		s.run(t, "offsets", "set", "--topic", s.input, "--partition", strconv.Itoa(int(partition)), "--to", strconv.FormatInt(offset-records, 10), "--reason", "test", "--yes")
	}
}
