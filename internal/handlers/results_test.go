package handlers

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"pawl/internal/message"
	"pawl/internal/testkit/golden"
)

// resultEvent writes the event that the relay writes for an effect.
func resultEvent(effect message.Effect, status string, httpStatus int) []byte {
	event := map[string]any{
		"format": 1, "effect_id": message.BusinessID("test", effect.Endpoint, effect.BusinessKey).String(),
		"lane": 3, "offset": 42, "source": "orders/3/42", "endpoint": effect.Endpoint, "business_key": effect.BusinessKey,
		"status": status, "attempts": 1,
		"request": map[string]any{"content_type": "application/json", "body": base64.StdEncoding.EncodeToString(effect.Body)},
	}
	if httpStatus != 0 {
		event["http_status"] = httpStatus
		event["response"] = map[string]any{"body": base64.StdEncoding.EncodeToString([]byte("answer")), "truncated": false}
	}
	value, err := json.Marshal(event)
	if err != nil {
		panic(err)
	}
	return value
}

func chargeOf(tb testing.TB) message.Effect {
	tb.Helper()
	out, err := handle(mustNew(tb, "orders", nil), readFile(tb, "testdata/orders/three-lines.json"))
	if err != nil {
		tb.Fatal(err)
	}
	return out.Effects()[0]
}

func TestResultsWriteWhatTheGoldenFilesSay(t *testing.T) {
	t.Parallel()
	plain := mustNew(t, "order-results", nil)
	voiding := mustNew(t, "order-results", map[string]any{"void": "refunds"})
	tests := []struct {
		name       string
		handler    Handler
		status     string
		httpStatus int
	}{
		{"done", plain, "done", 201},
		{"refused", plain, "dead", 402},
		{"attempts-ran-out", plain, "dead", 503},
		{"no-answer", voiding, "dead", 0},
		{"unknown", voiding, "unknown", 0},
		{"conflict", voiding, "conflict", 0},
		{"duplicate", voiding, "duplicate", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			out, err := handle(test.handler, resultEvent(chargeOf(t), test.status, test.httpStatus))
			if err != nil {
				t.Fatal(err)
			}
			golden.Is(t, filepath.Join("testdata/results", test.name+".golden"), render(out))
		})
	}
}

func TestResultsLeaveOtherHandlersEffectsAlone(t *testing.T) {
	t.Parallel()
	handler := mustNew(t, "order-results", map[string]any{"void": "refunds"})
	for _, effect := range []message.Effect{
		{Endpoint: "mail", BusinessKey: "charge:o-1", Body: []byte("x")},
		{Endpoint: "payments", BusinessKey: "", Body: nil},
		{Endpoint: "payments", BusinessKey: "invoice:o-1"},
		{Endpoint: "payments", BusinessKey: "void:o-1"},
		{Endpoint: "refunds", BusinessKey: "charge:o-1"},
	} {
		if out, err := handle(handler, resultEvent(effect, "done", 200)); err != nil || out.Len() != 0 {
			t.Errorf("%+v gives %d entries, %v", effect, out.Len(), err)
		}
	}
}

func TestRefusedIsAPlainNoOnly(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]bool{0: false, 200: false, 302: false, 400: true, 402: true, 404: true, 408: false, 409: false, 422: true, 425: false, 429: false, 499: true, 500: false, 504: false} {
		if refused(status) != want {
			t.Errorf("refused(%d) is %v", status, !want)
		}
	}
}

func resultRejects(tb testing.TB) []rejectCase {
	tb.Helper()
	effect := chargeOf(tb)
	with := func(change func(*message.Effect)) string {
		changed := effect
		change(&changed)
		return string(resultEvent(changed, "done", 200))
	}
	body := func(old, replacement string) string {
		return with(func(e *message.Effect) {
			if !bytes.Contains(e.Body, []byte(old)) {
				tb.Fatalf("the body has no %s: %s", old, e.Body)
			}
			e.Body = bytes.Replace(e.Body, []byte(old), []byte(replacement), 1)
		})
	}
	event := func(old, replacement string) string {
		text := string(resultEvent(effect, "done", 200))
		if !strings.Contains(text, old) {
			tb.Fatalf("the event has no %s: %s", old, text)
		}
		return strings.Replace(text, old, replacement, 1)
	}
	void := message.Effect{Endpoint: "refunds", BusinessKey: "void:o-1001", Body: bytes.Replace(effect.Body, []byte(`:"charge"`), []byte(`:"void"`), 1)}
	return []rejectCase{
		{"tombstone", "", ReasonNoValue},
		{"not JSON", "hello", ReasonBadJSON},
		{"body not base64", event(`"body":"`, `"body":"*`), ReasonBadJSON},
		{"no format", event(`"format":1,`, ``), ReasonMissingField},
		{"format 2", event(`"format":1`, `"format":2`), ReasonUnknownVersion},
		{"no endpoint", event(`"endpoint":"payments",`, ``), ReasonMissingField},
		{"no status", event(`"status":"done"`, `"status":null`), ReasonMissingField},
		{"unknown status", event(`"status":"done"`, `"status":"lost"`), ReasonUnknownStatus},
		{"no body", event(`"request":{`, `"asked":{`), ReasonBadEffect},
		{"body not JSON", with(func(e *message.Effect) { e.Body = []byte("x") }), ReasonBadEffect},
		{"body with unknown member", body(`"net"`, `"x":1,"net"`), ReasonBadEffect},
		{"body of version 2", body(`"schema_version":1`, `"schema_version":2`), ReasonUnknownVersion},
		{"body of another order", with(func(e *message.Effect) { e.BusinessKey = "charge:o-2" }), ReasonBadEffect},
		{"body of another operation", body(`"charge"`, `"void"`), ReasonBadEffect},
		{"body without customer", body(`"c-77"`, `""`), ReasonBadEffect},
		{"body without placement", body(`"placement":"`, `"placement":" `), ReasonBadEffect},
		{"body in no currency", body(`EUR`, `EUX`), ReasonBadEffect},
		{"amounts that do not add up", body(`"tax":"`, `"tax":"1`), ReasonBadEffect},
		{"amount with exponent", body(`"amount":"`, `"amount":"1e`), ReasonBadEffect},
		{"amount beyond 64 bits", body(`"amount":"`, `"amount":"`+strings.Repeat("9", 30)), ReasonBadEffect},
		{"void dead", string(resultEvent(void, "dead", 400)), ReasonVoidFailed},
		{"void unknown", string(resultEvent(void, "unknown", 0)), ReasonVoidFailed},
		{"void conflict", string(resultEvent(void, "conflict", 0)), ReasonVoidFailed},
		{"void with unknown status", string(resultEvent(void, "lost", 0)), ReasonUnknownStatus},
		{"void with another body", string(resultEvent(message.Effect{Endpoint: "refunds", BusinessKey: "void:o-1001", Body: effect.Body}, "done", 200)), ReasonBadEffect},
	}
}

func TestResultsRejectWithNamedReason(t *testing.T) {
	t.Parallel()
	handler := mustNew(t, "order-results", map[string]any{"void": "refunds"})
	for _, test := range resultRejects(t) {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			out, err := handle(handler, []byte(test.value))
			if got := reason(t, err); got != test.want {
				t.Fatalf("reason is %q, want %q: %v", got, test.want, err)
			}
			if out.Len() != 0 {
				t.Errorf("a reject left %d entries", out.Len())
			}
		})
	}
}

func TestEveryReasonHasATest(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, test := range append(orderRejects(), resultRejects(t)...) {
		seen[test.want] = true
	}
	for _, reason := range Reasons() {
		if !seen[reason] {
			t.Errorf("no test rejects with %s", reason)
		}
	}
}

// effectLedger is a model of what the effect ledger promises: the first effect under a business key is sent and
// gets one final result; the same body again is a duplicate, another body a conflict.
type effectLedger struct {
	first map[string][]byte
}

func (l *effectLedger) status(effect message.Effect, draw func() (string, int)) (string, int) {
	if first, taken := l.first[effect.BusinessKey]; taken {
		if bytes.Equal(first, effect.Body) {
			return resultDuplicate, 0
		}
		return resultConflict, 0
	}
	l.first[effect.BusinessKey] = effect.Body
	return draw()
}

// The whole flow over a model of the effect ledger: orders that come twice, different orders under
// one id, and every fate of a charge. Each order ends once, and the books close: who has paid owes
// nothing, who has not paid owes nothing either, and revenue is what confirmed orders say.
func TestEveryOrderEndsOnceAndTheBooksClose(t *testing.T) {
	t.Parallel()
	orders := mustNew(t, "orders", nil)
	results := mustNew(t, "order-results", map[string]any{"void": "refunds"})
	rapid.Check(t, func(t *rapid.T) {
		ledger := effectLedger{first: make(map[string][]byte)}
		books := newBooks()
		run := func(handler Handler, value []byte) []message.Effect {
			out, err := handle(handler, value)
			if err != nil {
				t.Fatalf("%v: %s", err, value)
			}
			books.add(t, out.Outs())
			return out.Effects()
		}
		var placed [][]byte
		var effects []message.Effect
		for i := range rapid.IntRange(1, 12).Draw(t, "orders") {
			value := drawOrder(t, fmt.Sprintf("o-%d", rapid.IntRange(0, 4).Draw(t, "id")))
			if i > 0 && rapid.Bool().Draw(t, "again") {
				value = rapid.SampledFrom(placed).Draw(t, "which")
			}
			placed = append(placed, value)
			effects = append(effects, run(orders, value)...)
		}
		for len(effects) > 0 {
			effect := effects[0]
			effects = effects[1:]
			status, httpStatus := ledger.status(effect, func() (string, int) {
				if strings.HasPrefix(effect.BusinessKey, "void:") {
					return resultDone, 200 // a void that fails is a reject: a person's matter
				}
				return rapid.SampledFrom([]string{resultDone, resultDead, resultUnknown}).Draw(t, "fate"),
					rapid.SampledFrom([]int{0, 402, 503}).Draw(t, "http status")
			})
			effects = append(effects, run(results, resultEvent(effect, status, httpStatus))...)
		}
		books.close(t)
	})
}

// books is a reader of both outputs, as a downstream service would be: one journal per id.
type books struct {
	journals map[string]journal
	placed   map[string]string // placement to total
	final    map[string]string // order id to confirmed or cancelled
	voids    int
}

func newBooks() *books {
	return &books{journals: make(map[string]journal), placed: make(map[string]string), final: make(map[string]string)}
}

func (b *books) add(t fataler, outs []message.Out) {
	for _, out := range outs {
		if out.Output == "ledger" {
			j := parse[journal](t, out.Value)
			checkJournal(t, j)
			if old, known := b.journals[j.ID]; known && fmt.Sprint(old) != fmt.Sprint(j) {
				t.Fatalf("journal %s has two contents: %v and %v", j.ID, old, j)
			}
			b.journals[j.ID] = j
			continue
		}
		event := parse[orderEvent](t, out.Value)
		switch event.Status {
		case statusConfirmed, statusCancelled:
			if earlier, ended := b.final[event.OrderID]; ended {
				t.Fatalf("order %s ended %s and then %s", event.OrderID, earlier, event.Status)
			}
			b.final[event.OrderID] = event.Status
		case statusPriced:
			b.placed[event.OrderID+"/"+event.Placement] = event.Total
		case statusVoid:
			b.voids++
		}
	}
}

func (b *books) close(t fataler) {
	balance := make(map[string]*big.Rat) // per order and account
	for _, j := range b.journals {
		for _, p := range j.Postings {
			key := j.OrderID + " " + p.Account
			if balance[key] == nil {
				balance[key] = new(big.Rat)
			}
			balance[key].Add(balance[key], rational(t, p.Amount))
		}
	}
	for key := range b.placed {
		orderID, _, _ := strings.Cut(key, "/")
		if b.final[orderID] == "" {
			t.Fatalf("order %s never ended", orderID)
		}
	}
	for key, amount := range balance {
		orderID, account, _ := strings.Cut(key, " ")
		if amount.Sign() != 0 && (account == "receivable" || b.final[orderID] == statusCancelled) {
			t.Fatalf("order %s is %s and has %s left on %s", orderID, b.final[orderID], amount.FloatString(3), account)
		}
	}
}
