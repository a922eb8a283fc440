package handlers

import (
	"strconv"

	"pawl/internal/message"
)

// What orders and order-results write. The members stand in a fixed order and are appended by hand,
// so equal facts are equal bytes; every text in them has passed isID or minorDigits or is a
// constant, and needs no escaping. schema/*.json describe the formats and the tests hold them to it.

// The states of an order as the order events tell them. An order begins as priced or in review;
// priced ends as confirmed or cancelled, never both, because its charge has one result. void is no
// state of the order: it says that a second, different order under the same id was not accepted.
const (
	statusPriced    = "priced"
	statusReview    = "review"
	statusConfirmed = "confirmed"
	statusCancelled = "cancelled"
	statusVoid      = "void"
)

// What became of the charge, as confirmed, cancelled and void events tell it.
const (
	chargeTaken     = "taken"     // the endpoint said yes
	chargeRefused   = "refused"   // the endpoint said no
	chargeUncertain = "uncertain" // nobody knows: money may have been taken
	chargeConflict  = "conflict"  // never sent: the id was taken by another order
)

// jsonHeaders go with every output; shared, never changed.
func jsonHeaders() []message.Header {
	return []message.Header{{Key: message.HeaderContentType, Value: []byte("application/json")}}
}

// terms are what a charge is about; they travel in its body, so that its result alone is enough to
// confirm or undo the order.
type terms struct {
	orderID, customerID string
	placement           string
	currency            string
	digits              int
	net, tax            int64
}

// The operations that a charge body asks for.
const (
	operationCharge = "charge"
	operationVoid   = "void"
)

// Business keys begin with their operation, so that a void never shares the charge's idempotency key.
func businessKey(operation, orderID string) string { return operation + ":" + orderID }

// appendCharge appends the body of a call: schema/charge.v1.json.
func appendCharge(b []byte, operation string, t *terms) []byte {
	b = append(b, `{"schema_version":1`...)
	b = appendText(b, "operation", operation)
	b = appendText(b, "order_id", t.orderID)
	b = appendText(b, "customer_id", t.customerID)
	b = appendText(b, "currency", t.currency)
	b = appendMoney(b, "amount", t.net+t.tax, t.digits)
	b = appendMoney(b, "net", t.net, t.digits)
	b = appendMoney(b, "tax", t.tax, t.digits)
	b = appendText(b, "placement", t.placement)
	return append(b, '}')
}

// appendOutcome appends the order event that ends an order: schema/order-event.v1.json.
func appendOutcome(b []byte, status, charge string, t *terms) []byte {
	b = append(b, `{"schema_version":1`...)
	b = appendText(b, "order_id", t.orderID)
	b = appendText(b, "customer_id", t.customerID)
	b = appendText(b, "currency", t.currency)
	b = appendMoney(b, "total", t.net+t.tax, t.digits)
	b = appendText(b, "placement", t.placement)
	b = appendText(b, "status", status)
	b = appendText(b, "charge", charge)
	return append(b, '}')
}

// The kinds of journals.
const (
	journalSale     = "sale"     // the customer owes us, we owe goods and tax
	journalPayment  = "payment"  // the customer has paid
	journalReversal = "reversal" // undoes the sale
)

type posting struct {
	account string
	amount  int64 // debit positive, credit negative
}

// postings of a journal; their amounts sum to zero for every kind.
func postings(kind string, t *terms) [3]posting {
	total := t.net + t.tax
	switch kind {
	case journalPayment:
		return [3]posting{{"cash", total}, {"receivable", -total}}
	case journalReversal:
		return [3]posting{{"receivable", -total}, {"revenue", t.net}, {"tax", t.tax}}
	default:
		return [3]posting{{"receivable", total}, {"revenue", -t.net}, {"tax", -t.tax}}
	}
}

// appendJournal appends one balanced ledger entry: schema/journal.v1.json. Its id is made from what
// was ordered, not from where the record stood, so an order that was produced twice upstream gives
// the same journal twice and a reader that keeps one per id counts it once.
func appendJournal(b []byte, kind string, t *terms) []byte {
	b = append(b, `{"schema_version":1,"journal_id":"`...)
	b = append(b, t.orderID...)
	b = append(b, '/')
	b = append(b, t.placement...)
	b = append(b, '/')
	b = append(b, kind...)
	b = append(b, '"')
	b = appendText(b, "kind", kind)
	b = appendText(b, "order_id", t.orderID)
	b = appendText(b, "customer_id", t.customerID)
	b = appendText(b, "currency", t.currency)
	b = append(b, `,"postings":[`...)
	for i, p := range postings(kind, t) {
		if p.account == "" {
			break
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"account":"`...)
		b = append(b, p.account...)
		b = append(b, '"')
		b = appendMoney(b, "amount", p.amount, t.digits)
		b = append(b, '}')
	}
	return append(b, `]}`...)
}

func appendText(b []byte, name, value string) []byte {
	b = appendName(b, name)
	b = append(b, '"')
	b = append(b, value...)
	return append(b, '"')
}

func appendMoney(b []byte, name string, amount int64, digits int) []byte {
	b = appendName(b, name)
	b = append(b, '"')
	b = appendAmount(b, amount, digits)
	return append(b, '"')
}

func appendInt(b []byte, name string, value int64) []byte {
	return strconv.AppendInt(appendName(b, name), value, 10)
}

func appendName(b []byte, name string) []byte {
	b = append(b, `,"`...)
	b = append(b, name...)
	return append(b, `":`...)
}
