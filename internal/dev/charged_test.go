package dev

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/handlers"
	"pawl/internal/load"
)

const testResults = "orders.effect-results"

// world is what there is after a run with a ledger.
type world struct {
	inputs  []*kgo.Record
	written []*kgo.Record // by the processors, results of effects left out
	calls   []ChargeCall
	results []*kgo.Record
	handled []*kgo.Record   // results as the processors had them
	summary EndpointSummary // its calls are beside those above
	kill    Kill
}

// newWorld is one in which all is well: every tenth charge is declined.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{inputs: testInputs(t), kill: Kill{Calls: 2}}
	w.written = processAll(t, newHandler(t), w.inputs)
	next := map[int32]int64{}
	for _, effect := range w.written {
		if effect.Topic != testEffects {
			continue
		}
		effect.Partition = int32(effect.Key[len(effect.Key)-1] % 3)
		effect.Offset = next[effect.Partition]
		next[effect.Partition]++
		status := http.StatusOK
		if len(w.calls)%10 == 0 {
			status = http.StatusPaymentRequired
		}
		sum := sha256.Sum256(effect.Value)
		w.calls = append(w.calls, ChargeCall{
			ID: string(header(effect, "pawl-id").Value), Order: fmt.Sprintf("%d:%d", effect.Partition, effect.Offset),
			Body: hex.EncodeToString(sum[:]), Status: status, Settled: true,
		})
		w.results = append(w.results, w.event(t, effect, status))
	}
	w.handled = slices.Clone(w.results)
	w.written = append(w.written, processAll(t, newResultsHandler(t), w.handled)...)
	return w
}

// event is the result event of an effect, written down a second time on purpose.
func (w *world) event(t *testing.T, effect *kgo.Record, status int) *kgo.Record {
	t.Helper()
	fate := map[int]string{http.StatusOK: "done", http.StatusPaymentRequired: "dead"}[status]
	value, err := json.Marshal(map[string]any{
		"format": 1, "effect_id": string(header(effect, "pawl-id").Value), "lane": effect.Partition, "offset": effect.Offset,
		"source": string(header(effect, "pawl-source").Value), "endpoint": "payments",
		"business_key": string(header(effect, "pawl-business-key").Value), "status": fate, "attempts": 1, "http_status": status,
		"request": map[string]any{"content_type": "application/json", "body": effect.Value},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &kgo.Record{
		Topic: testResults, Partition: effect.Partition, Offset: effect.Offset, Key: effect.Key, Value: value,
		Timestamp: time.UnixMilli(2_000_000 + effect.Offset),
	}
}

func newResultsHandler(t *testing.T) handler {
	t.Helper()
	h, err := handlers.New("order-results", handlers.Settings{Outputs: []string{"priced", "ledger"}, Endpoints: []string{"payments"}})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// prove is what the demo does, over records in memory.
func (w *world) prove(t *testing.T) *Proof {
	t.Helper()
	m := newModel(map[string]route{"orders": {newHandler(t), testTopicID}, testResults: {newResultsHandler(t), testTopicID}},
		testOutputs(), testEffects, testDeadLetters)
	l := newLedgerModel(testResults)
	outcomes := load.Outcomes{Topics: make(map[string]load.Outcome), Aborted: 1}
	count := func(record *kgo.Record) {
		outcome := outcomes.Topics[record.Topic]
		outcome.Committed++
		outcomes.Topics[record.Topic] = outcome
	}
	expect := func(record *kgo.Record) {
		if err := m.expect(record); err != nil {
			t.Fatal(err)
		}
	}
	for _, record := range w.inputs {
		expect(record)
	}
	for _, record := range w.written {
		if count(record); record.Topic == testEffects {
			l.effect(record)
		}
	}
	for _, call := range w.calls {
		l.call(call)
	}
	for _, record := range w.results {
		count(record)
		l.result(record)
	}
	for _, record := range w.handled {
		expect(record)
	}
	for _, record := range w.written {
		m.see(record)
	}
	l.summary = w.summary
	l.summary.Calls += int64(len(w.calls))
	wrong, err := DemoConfig{Orders: testOrders, BadShare: testBadShare, Seed: 7}.wrong()
	if err != nil {
		t.Fatal(err)
	}
	proof := Proof{Kill: w.kill}
	proof.conclude(m, l, outcomes, testOrders, wrong)
	return &proof
}

// What a correct processor, a correct ledger and an endpoint that declines now and then make is proven.
// The second handler's outputs are among what is expected.
func TestProofHoldsForCallsAndResults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	proof := w.prove(t)
	if !proof.Proven() {
		t.Fatalf("faults: %v", proof.Faults)
	}
	good := int64(len(w.calls))
	dead := (good + 9) / 10
	want := []TopicProof{
		{Role: "output", Topic: "orders.ledger", Expected: 2 * good, Seen: 2 * good},
		{Role: "output", Topic: "orders.priced", Expected: 2 * good, Seen: 2 * good},
		{Role: "effects", Topic: testEffects, Expected: good, Seen: good},
		{Role: "results", Topic: testResults, Expected: good, Seen: good},
		{Role: "dead-letter", Topic: testDeadLetters, Expected: testOrders - good, Seen: testOrders - good},
	}
	if diff := cmp.Diff(want, proof.Topics); diff != "" {
		t.Errorf("topics (-want +got):\n%s", diff)
	}
	wantEffects := EffectsProof{Committed: good, Calls: &EndpointSummary{Calls: good}, Results: map[string]int64{"done": good - dead, "dead": dead}}
	if diff := cmp.Diff(wantEffects, proof.Effects); diff != "" {
		t.Errorf("effects (-want +got):\n%s", diff)
	}
	if proof.Inputs != testOrders {
		t.Errorf("%d inputs, want the %d orders and not the results", proof.Inputs, testOrders)
	}
}

// Each way in which ledger, dispatcher and relay can break their promise is found, as that way.
func TestProofFindsEveryFaultOfCallsAndResults(t *testing.T) {
	t.Parallel()
	event := func(change func(map[string]any)) func(*testing.T, *world) {
		return func(t *testing.T, w *world) {
			t.Helper()
			var members map[string]any
			if err := json.Unmarshal(w.results[3].Value, &members); err != nil {
				t.Fatal(err)
			}
			change(members)
			value, err := json.Marshal(members)
			if err != nil {
				t.Fatal(err)
			}
			changed := *w.results[3]
			changed.Value = value
			w.results[3] = &changed
		}
	}
	member := func(name string, value any) func(*testing.T, *world) {
		return event(func(members map[string]any) { members[name] = value })
	}
	counter := func(change func(*EndpointSummary)) func(*testing.T, *world) {
		return func(_ *testing.T, w *world) { change(&w.summary) }
	}
	const altered, lost = testResults + ": 1 altered", "1 effects were never carried out"
	const foreign = "1 calls were made for no committed effect, or with another key or other bytes"
	tests := map[string]struct {
		change func(*testing.T, *world)
		faults []string
	}{
		"never called":  {func(_ *testing.T, w *world) { w.calls = slices.Delete(w.calls, 3, 4) }, []string{lost, altered}},
		"never settled": {func(_ *testing.T, w *world) { w.calls[3].Settled = false }, []string{lost, altered}},
		"called early":  {func(_ *testing.T, w *world) { w.calls = append(w.calls, ChargeCall{ID: "x", Order: "1:999"}) }, []string{foreign}},
		"another key":   {func(_ *testing.T, w *world) { w.calls = append(w.calls, w.calls[3]); w.calls[len(w.calls)-1].ID = "x" }, []string{foreign}},
		"other bytes": {func(_ *testing.T, w *world) {
			w.calls = append(w.calls, w.calls[3])
			w.calls[len(w.calls)-1].Body = "x"
		}, []string{foreign}},
		"malformed":     {counter(func(s *EndpointSummary) { s.Malformed = 1 }), []string{"1 calls were malformed"}},
		"unexplained":   {counter(func(s *EndpointSummary) { s.Unexplained = 1 }), []string{"1 calls were repeated without a reason"}},
		"mismatched":    {counter(func(s *EndpointSummary) { s.Mismatched = 1 }), []string{"1 calls used a key again with another body"}},
		"charged twice": {counter(func(s *EndpointSummary) { s.ChargedTwice = 1 }), []string{"1 orders were charged twice"}},
		"order":         {counter(func(s *EndpointSummary) { s.OrderViolations = 1 }), []string{"1 charges came before an earlier one of their customer"}},
		"journal":       {counter(func(s *EndpointSummary) { s.Calls++ }), []string{"the endpoint counts 541 calls and has written down 540"}},
		"idle kill":     {func(_ *testing.T, w *world) { w.kill.Calls = 0 }, []string{"no call was under way when the processor was killed: run it again"}},

		"result lost":       {func(_ *testing.T, w *world) { w.results = slices.Delete(w.results, 3, 4) }, []string{testResults + ": 1 missing"}},
		"result twice":      {func(_ *testing.T, w *world) { w.results = append(w.results, w.results[3]) }, []string{testResults + ": 1 there more than once"}},
		"result of nothing": {member("offset", 99_999), []string{testResults + ": 1 missing, 1 made from no input"}},
		"result of another": {member("effect_id", "x"), []string{altered}},
		"false endpoint":    {member("endpoint", "x"), []string{altered}},
		"false key":         {member("business_key", "x"), []string{altered}},
		"false source":      {member("source", "x"), []string{altered}},
		"false status":      {member("status", "dead"), []string{altered}},
		"false answer":      {member("http_status", 402), []string{altered}},
		"false request":     {member("request", map[string]any{"body": "eA=="}), []string{altered}},
		"no event": {func(_ *testing.T, w *world) {
			changed := *w.results[3]
			changed.Value = []byte("{")
			w.results[3] = &changed
		}, []string{testResults + ": 1 missing, 1 altered"}},
		"other lane": {func(_ *testing.T, w *world) {
			changed := *w.results[3]
			changed.Partition++
			w.results[3] = &changed
		}, []string{altered}},
		"results of a key swapped": {func(t *testing.T, w *world) {
			t.Helper()
			for i := 1; i < len(w.results); i++ {
				if string(w.results[i].Key) == string(w.results[0].Key) {
					w.results[0], w.results[i] = w.results[i], w.results[0]
					return
				}
			}
			t.Fatal("no such result")
		}, []string{testResults + ": 1 out of order"}},
		"results of two keys swapped": {func(_ *testing.T, w *world) {
			for i := 1; i < len(w.results); i++ {
				if string(w.results[i].Key) != string(w.results[0].Key) {
					w.results = append([]*kgo.Record{w.results[i], w.results[0]}, append(slices.Clone(w.results[1:i]), w.results[i+1:]...)...)
					return
				}
			}
		}, nil},
		"output of a result lost":  {func(_ *testing.T, w *world) { w.written = w.written[:len(w.written)-1] }, []string{"orders.ledger: 1 missing"}},
		"output of a result twice": {func(_ *testing.T, w *world) { w.written = append(w.written, w.written[len(w.written)-2]) }, []string{"orders.priced: 1 there more than once"}},
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			tests[name].change(t, w)
			proof := w.prove(t)
			if diff := cmp.Diff(tests[name].faults, proof.Faults, cmp.Transformer("none", func(s []string) []string { return append([]string{}, s...) })); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
			if said := strings.Contains(proof.Report(), "NOT PROVEN"); said != (len(tests[name].faults) > 0) {
				t.Errorf("the report says that this is no proof: %v", said)
			}
		})
	}
}
