package dev

import (
	"encoding/json"
	"net/http"
	"time"
)

// ChargeCall is one call as a charge endpoint saw it, and a line of its journal.
type ChargeCall struct {
	At       time.Time `json:"at"`
	ID       string    `json:"id"`               // Idempotency-Key
	Order    string    `json:"order"`            // Pawl-Order: lane:offset
	Attempt  int       `json:"attempt"`          // Pawl-Attempt
	Fence    int64     `json:"fence"`            // Pawl-Fence
	Sender   string    `json:"sender,omitempty"` // which processor called, where it says so
	Customer string    `json:"customer"`         // whose calls must come in order
	Charge   string    `json:"charge"`           // operation:order id
	Body     string    `json:"body"`             // SHA-256 in hex
	Fate     Fate      `json:"fate"`
	Late     bool      `json:"late,omitempty"`
	Status   int       `json:"status"` // of the answer, also of one that is lost
	Settled  bool      `json:"settled,omitempty"`
	Repeat   Repeat    `json:"repeat,omitempty"`
	Disorder bool      `json:"disorder,omitempty"`

	lane   int32
	offset int64
}

// Repeat says why a call came again although its key was settled.
type Repeat string

// The reasons, in the order in which they are looked for.
const (
	RepeatNone        Repeat = ""
	RepeatLost        Repeat = "lost"        // its answer never reached the caller (reset, or too late), or was a failure
	RepeatTakeover    Repeat = "takeover"    // the fence is higher: whoever got the answer died before it wrote that down
	RepeatRetry       Repeat = "retry"       // the attempt is higher: the caller says that it got no answer in time
	RepeatUnexplained Repeat = "unexplained" // nothing of that: the caller made a call twice
)

// EndpointSummary counts calls.
type EndpointSummary struct {
	Calls     int64 `json:"calls"`
	Malformed int64 `json:"malformed"` // answered 400 and not among Calls
	Distinct  int64 `json:"distinct"`  // keys
	Charged   int64 `json:"charged"`   // keys settled with a charge or a void
	Declined  int64 `json:"declined"`  // keys settled with a refusal
	Failed    int64 `json:"failed"`    // answered 500 or 503: nothing was done
	Lost      int64 `json:"lost"`      // answers that never reached the caller, as far as the endpoint knows
	Late      int64 `json:"late"`      // answers that were held back

	// Calls whose key was settled already. The four below add up to it, see Repeat.
	Duplicates  int64 `json:"duplicates"`
	AfterLost   int64 `json:"after_lost"`
	AfterDeath  int64 `json:"after_death"`
	AfterRetry  int64 `json:"after_retry"`
	Unexplained int64 `json:"unexplained"`

	// What must never be.
	Mismatched      int64 `json:"mismatched"`       // a key with another body, answered 422
	ChargedTwice    int64 `json:"charged_twice"`    // an order charged again under another key
	OrderViolations int64 `json:"order_violations"` // a customer's call settled after one that comes later by Pawl-Order, or in two lanes

	// StaleFences counts calls with a lower fence than the lane had before: a paused sender's. They are
	// carried out here, so that the proof rests on Pawl alone; a receiver that compares fences would refuse.
	StaleFences int64 `json:"stale_fences"`
}

// chargeBody is what the endpoint reads of a charge.
type chargeBody struct {
	Operation  string `json:"operation"`
	OrderID    string `json:"order_id"`
	CustomerID string `json:"customer_id"`
	Currency   string `json:"currency"`
	Amount     string `json:"amount"`
}

// book is a payment provider's memory. It is not safe for concurrent use.
type book struct {
	calls   []ChargeCall
	summary EndpointSummary
	keys    map[string]*bookedKey
	charged map[string]string       // by operation:order id, the key it was charged under
	last    map[string]*bookedOrder // by customer
	fences  map[int32]int64         // by lane, the highest
}

type bookedKey struct {
	body    string // hash of the first call's
	status  int    // 0 until settled
	reply   []byte
	lost    bool // the last answer
	calls   int
	attempt int // highest of the settled calls, of the highest fence
	fence   int64
}

// bookedOrder is a customer's settled call that comes last by Pawl-Order.
type bookedOrder struct {
	lane   int32
	offset int64
}

func newBook() book {
	return book{
		keys: make(map[string]*bookedKey), charged: make(map[string]string),
		last: make(map[string]*bookedOrder), fences: make(map[int32]int64),
	}
}

// count tells how many calls with this key have been judged.
func (b *book) count(id string) int {
	if key := b.keys[id]; key != nil {
		return key.calls
	}
	return 0
}

// judge carries a call out and writes it down. It returns the call with its outcome, and what to
// answer unless its fate is to get no answer.
func (b *book) judge(call ChargeCall, decline bool, body chargeBody) (ChargeCall, []byte) {
	b.summary.Calls++
	if call.Late {
		b.summary.Late++
	}
	if call.Fence < b.fences[call.lane] {
		b.summary.StaleFences++
	}
	b.fences[call.lane] = max(b.fences[call.lane], call.Fence)
	key := b.keys[call.ID]
	if key == nil {
		key = &bookedKey{body: call.Body}
		b.keys[call.ID] = key
		b.summary.Distinct++
	}
	key.calls++
	var reply []byte
	switch {
	case key.body != call.Body:
		b.summary.Mismatched++
		call.Status, reply = http.StatusUnprocessableEntity, problem("the key was used with another body")
	case key.status != 0:
		b.repeat(&call, key)
		call.Status, reply = b.fail(call.Fate, key.status, key.reply)
	case call.Fate == FateError || call.Fate == FateUnavailable:
		call.Status, reply = b.fail(call.Fate, 0, nil)
	default:
		b.settle(&call, key, decline, body)
		call.Status, reply = key.status, key.reply
	}
	if call.Fate == FateReset {
		b.lost(call.ID)
	}
	b.calls = append(b.calls, call)
	return call, reply
}

// fail replaces an answer where it is the call's fate.
func (b *book) fail(fate Fate, status int, reply []byte) (failed int, why []byte) {
	switch fate {
	case FateError:
		status, reply = http.StatusInternalServerError, problem("something broke, nothing was charged by this call")
	case FateUnavailable:
		status, reply = http.StatusServiceUnavailable, problem("too busy, nothing was charged by this call")
	case FateAnswer, FateReset:
		return status, reply
	}
	b.summary.Failed++
	return status, reply
}

// repeat finds out why a settled call came again.
func (b *book) repeat(call *ChargeCall, key *bookedKey) {
	b.summary.Duplicates++
	switch {
	case key.lost:
		call.Repeat = RepeatLost
		b.summary.AfterLost++
	case call.Fence > key.fence:
		call.Repeat = RepeatTakeover
		b.summary.AfterDeath++
	case call.Fence == key.fence && call.Attempt > key.attempt:
		call.Repeat = RepeatRetry
		b.summary.AfterRetry++
	default:
		call.Repeat = RepeatUnexplained
		b.summary.Unexplained++
	}
	key.lost = call.Fate == FateError || call.Fate == FateUnavailable // such an answer asks for another call
	key.note(call)
}

func (k *bookedKey) note(call *ChargeCall) {
	switch {
	case call.Fence > k.fence:
		k.fence, k.attempt = call.Fence, call.Attempt
	case call.Fence == k.fence:
		k.attempt = max(k.attempt, call.Attempt)
	}
}

// settle decides a key for good.
func (b *book) settle(call *ChargeCall, key *bookedKey, decline bool, body chargeBody) {
	call.Settled = true
	key.fence = call.Fence
	key.note(call)
	last := b.last[call.Customer]
	switch {
	case last == nil:
		b.last[call.Customer] = &bookedOrder{lane: call.lane, offset: call.offset}
	case last.lane != call.lane || call.offset <= last.offset:
		call.Disorder = true
		b.summary.OrderViolations++
	default:
		last.offset = call.offset
	}
	if decline {
		b.summary.Declined++
		key.status, key.reply = http.StatusPaymentRequired, problem("declined")
		return
	}
	b.summary.Charged++
	if first, found := b.charged[call.Charge]; found && first != call.ID {
		b.summary.ChargedTwice++
	} else {
		b.charged[call.Charge] = call.ID
	}
	receipt := struct {
		Receipt string `json:"receipt"`
		chargeBody
	}{"r-" + call.ID, body}
	key.status = http.StatusOK
	key.reply, _ = json.Marshal(receipt) //nolint:errchkjson // texts always encode
	key.reply = append(key.reply, '\n')
}

// lost notes that an answer reached nobody.
func (b *book) lost(id string) {
	b.summary.Lost++
	if key := b.keys[id]; key.status != 0 {
		key.lost = true
	}
}
