package handlers

import (
	"strings"

	"github.com/go-json-experiment/json"

	"pawl/internal/message"
)

// resultFormat is the version of result events that this release reads: schema/effect-result.v1.json.
const resultFormat = 1

// What became of an effect, as result events tell it.
const (
	resultDone      = "done"      // the endpoint accepted it
	resultDead      = "dead"      // the endpoint refused it, or attempts ran out
	resultUnknown   = "unknown"   // it may or may not have been made
	resultDuplicate = "duplicate" // same business key and body as an earlier effect: only that one was sent
	resultConflict  = "conflict"  // same business key as an earlier effect, other body: kept, not sent
)

// result is what this handler reads of a result event. Members that it does not know are left
// alone, unlike in orders: the relay of the next release may tell more in the same format.
type result struct {
	Format      int     `json:"format"`
	Endpoint    string  `json:"endpoint"`
	BusinessKey string  `json:"business_key"`
	Status      string  `json:"status"`
	HTTPStatus  int     `json:"http_status"`
	Request     request `json:"request"`
}

type request struct {
	Body []byte `json:"body"` // base64 in JSON
}

// charge is the body of a call that orders or this handler asked for.
type charge struct {
	SchemaVersion int    `json:"schema_version"`
	Operation     string `json:"operation"`
	OrderID       string `json:"order_id"`
	CustomerID    string `json:"customer_id"`
	Currency      string `json:"currency"`
	Amount        string `json:"amount"`
	Net           string `json:"net"`
	Tax           string `json:"tax"`
	Placement     string `json:"placement"`
}

// results is the handler of what became of charges: it confirms an order or undoes it.
//
// It keeps no state. A result event carries the call's body, which carries the order's terms, and
// there is one event per effect, so an order ends once. An order that came twice has a second
// effect with the same business key and body; its event says duplicate and adds nothing. A different
// order under a used id was written to the ledger but never charged; its event says conflict, its
// ledger entry is reversed, and its order event says void: the first order's state stands.
type results struct {
	events   string // output of order events
	ledger   string // output of journals
	payments string // endpoint whose results these are
	void     string // endpoint that gives money back; empty: uncertain charges are only reported
	headers  []message.Header
}

func newResults(o *options) Handler {
	return &results{
		events:   o.output("priced", "priced"),
		ledger:   o.output("ledger", "ledger"),
		payments: o.endpoint("endpoint", "payments"),
		void:     o.optional("void", o.endpoint),
		headers:  jsonHeaders(),
	}
}

// Handle settles one order.
func (h *results) Handle(in message.In, out *message.Batch) error {
	event, err := decodeResult(in.Value)
	if err != nil {
		return err
	}
	operation, orderID, _ := strings.Cut(event.BusinessKey, ":")
	switch {
	case operation == operationCharge && event.Endpoint == h.payments:
		return h.settle(event, orderID, out)
	case operation == operationVoid && event.Endpoint == h.void:
		return settleVoid(event, orderID)
	default:
		return nil // another handler's effect: its results share the topic
	}
}

func decodeResult(value []byte) (*result, error) {
	if len(value) == 0 {
		return nil, reject(ReasonNoValue, "the record has no value")
	}
	event := &result{Format: absent}
	if err := json.Unmarshal(value, event); err != nil {
		return nil, reject(ReasonBadJSON, "decode result event: %v", err)
	}
	switch {
	case event.Format == absent:
		return nil, missing("format")
	case event.Format != resultFormat:
		return nil, reject(ReasonUnknownVersion, "format is %d, this release knows %d", event.Format, resultFormat)
	case event.Endpoint == "":
		return nil, missing("endpoint")
	case event.Status == "":
		return nil, missing("status")
	}
	return event, nil
}

func (h *results) settle(event *result, orderID string, out *message.Batch) error {
	t, err := decodeTerms(event.Request.Body, operationCharge, orderID)
	if err != nil {
		return err
	}
	switch event.Status {
	case resultDone:
		h.emit(statusConfirmed, chargeTaken, journalPayment, t, out)
	case resultDead:
		if refused(event.HTTPStatus) {
			h.emit(statusCancelled, chargeRefused, journalReversal, t, out)
			return nil
		}
		h.cancelUncertain(t, out)
	case resultUnknown:
		h.cancelUncertain(t, out)
	case resultConflict:
		h.emit(statusVoid, chargeConflict, journalReversal, t, out)
	case resultDuplicate: // the first effect's event settles the order
	default:
		return reject(ReasonUnknownStatus, "status is %s, this release knows done, dead, unknown, duplicate and conflict", quote(event.Status))
	}
	return nil
}

// cancelUncertain undoes an order of which nobody knows whether it was charged; where an endpoint
// for it is configured, the money is asked back.
func (h *results) cancelUncertain(t *terms, out *message.Batch) {
	h.emit(statusCancelled, chargeUncertain, journalReversal, t, out)
	if h.void == "" {
		return
	}
	out.Call(message.Effect{
		Endpoint:    h.void,
		OrderKey:    []byte(t.customerID),
		BusinessKey: businessKey(operationVoid, t.orderID),
		Body:        appendCharge(nil, operationVoid, t),
	})
}

// settleVoid ends the chain: a compensation is never compensated, a person has to look.
func settleVoid(event *result, orderID string) error {
	if _, err := decodeTerms(event.Request.Body, operationVoid, orderID); err != nil {
		return err
	}
	switch event.Status {
	case resultDone, resultDuplicate:
		return nil
	case resultDead, resultUnknown, resultConflict:
		return reject(ReasonVoidFailed, "the void of order %s is %s: settle it with the payment provider by hand, then discard this dead letter", quote(orderID), event.Status)
	default:
		return reject(ReasonUnknownStatus, "status is %s, this release knows done, dead, unknown, duplicate and conflict", quote(event.Status))
	}
}

// refused tells a plain no from an answer, or the lack of one, behind which the call may have been
// carried out.
func refused(httpStatus int) bool {
	switch httpStatus {
	case 408, 409, 425, 429:
		return false
	default:
		return httpStatus >= 400 && httpStatus < 500
	}
}

// decodeTerms reads a call's body back. A body that orders cannot have written is refused whole:
// compensating with doubtful amounts would make a second mistake of the first.
func decodeTerms(body []byte, operation, orderID string) (*terms, error) {
	c := charge{SchemaVersion: absent}
	if err := json.Unmarshal(body, &c, json.RejectUnknownMembers(true)); err != nil {
		return nil, reject(ReasonBadEffect, "decode the effect's body: %v", err)
	}
	if c.SchemaVersion != schemaVersion {
		return nil, reject(ReasonUnknownVersion, "the effect's body has schema_version %d, this release knows %d", c.SchemaVersion, schemaVersion)
	}
	digits, known := minorDigits(c.Currency)
	amount, amountErr := parseDecimal(c.Amount, amountDigits-digits, digits)
	net, netErr := parseDecimal(c.Net, amountDigits-digits, digits)
	tax, taxErr := parseDecimal(c.Tax, amountDigits-digits, digits)
	switch {
	case c.Operation != operation || c.OrderID != orderID:
		return nil, reject(ReasonBadEffect, "the effect's body is a %s of order %s, its business key is %s", quote(c.Operation), quote(c.OrderID), quote(businessKey(operation, orderID)))
	case !isID(c.OrderID) || !isID(c.CustomerID) || !isID(c.Placement) || !known:
		return nil, reject(ReasonBadEffect, "the effect's body lacks order, customer, placement or currency")
	case amountErr != nil || netErr != nil || taxErr != nil || amount > amountMax || net > amount || tax != amount-net:
		return nil, reject(ReasonBadEffect, "the effect's body has amounts that do not add up")
	}
	return &terms{
		orderID: c.OrderID, customerID: c.CustomerID, placement: c.Placement,
		currency: c.Currency, digits: digits, net: net, tax: tax,
	}, nil
}

func (h *results) emit(status, charge, journal string, t *terms, out *message.Batch) {
	b := make([]byte, 0, 1024)
	b = appendOutcome(b, status, charge, t)
	out.Emit(message.Out{Output: h.events, Key: []byte(t.orderID), Value: cut(b, 0), Headers: h.headers})
	start := len(b)
	b = appendJournal(b, journal, t)
	out.Emit(message.Out{Output: h.ledger, Key: []byte(t.customerID), Value: cut(b, start), Headers: h.headers})
}
