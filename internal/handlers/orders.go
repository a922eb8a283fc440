package handlers

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"sync"

	"pawl/internal/message"
)

// orders is the handler of new orders: it checks an order, prices it, writes the priced order and
// the customer's ledger entry, and asks for the charge.
//
// What a record asks for depends on nothing but its value and the route's settings, so an order that
// was produced twice upstream asks for the same charge under the same business key and is charged
// once; another order under a used id is found out by the effect ledger as a conflict.
type orders struct {
	rules    rules
	priced   string // output of order events, key is the order id
	ledger   string // output of journals, key is the customer id
	review   string // output of orders that wait for a person; empty switches review off
	payments string // endpoint of charges
	headers  []message.Header
	scratch  sync.Pool // of *orderScratch: Handle runs on several goroutines
}

// orderScratch is memory that one call of Handle needs and leaves behind empty.
type orderScratch struct {
	order order
	lines []amounts
}

func newOrders(o *options) Handler {
	h := &orders{
		rules:    newRules(o),
		priced:   o.output("priced", "priced"),
		ledger:   o.output("ledger", "ledger"),
		review:   o.optional("review", o.output),
		payments: o.endpoint("endpoint", "payments"),
		headers:  jsonHeaders(),
	}
	if (h.review == "") != (len(h.rules.reviewAbove) == 0) {
		o.fail("review", "and config.review_above need each other: set the output that such orders go to and the totals above which they do, or neither")
	}
	h.scratch.New = func() any { return new(orderScratch) }
	return h
}

// Handle prices one order.
func (h *orders) Handle(in message.In, out *message.Batch) error {
	scratch := h.scratch.Get().(*orderScratch) //nolint:forcetypeassert // the pool holds nothing else
	defer func() {
		lines := scratch.order.Lines
		clear(lines) // the pool must not keep a record's texts alive
		scratch.order = order{Lines: lines[:0]}
		h.scratch.Put(scratch)
	}()
	o := &scratch.order
	o.SchemaVersion = absent
	if err := decodeStrict(in.Value, o); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	digits, known := minorDigits(o.Currency)
	if !known {
		return reject(ReasonUnknownCurrency, "currency is %s, want an ISO 4217 code in use, such as EUR", quote(o.Currency))
	}
	scratch.lines = slices.Grow(scratch.lines[:0], len(o.Lines))[:len(o.Lines)]
	sum, err := h.rules.price(o, digits, scratch.lines)
	if err != nil {
		return err
	}
	h.emit(o, digits, sum, scratch.lines, out)
	return nil
}

// placementBytes is how much of the SHA-256 of its terms tells one placement of an order id from
// another: 64 bits, for the few orders that ever share an id.
const placementBytes = 8

// emit writes keys and values of all entries into one allocation that they share.
func (h *orders) emit(o *order, digits int, sum amounts, lines []amounts, out *message.Batch) {
	b := make([]byte, 0, 1024+160*len(lines))
	b = append(b, o.OrderID...)
	orderKey := cut(b, 0)
	start := len(b)
	b = append(b, o.Customer.ID...)
	customerKey := cut(b, start)

	start = len(b)
	b = appendPriced(b, o, digits, sum, lines)
	digest := sha256.Sum256(b[start:])
	var placement [2 * placementBytes]byte
	hex.Encode(placement[:], digest[:placementBytes])
	t := terms{
		orderID: o.OrderID, customerID: o.Customer.ID, placement: string(placement[:]),
		currency: o.Currency, digits: digits, net: sum.net, tax: sum.tax,
	}
	status, output := statusPriced, h.priced
	if h.rules.needsReview(o, sum.total()) {
		status, output = statusReview, h.review
	}
	b = appendText(b, "placement", t.placement)
	b = appendText(b, "status", status)
	b = append(b, '}')
	out.Emit(message.Out{Output: output, Key: orderKey, Value: cut(b, start), Headers: h.headers})
	if status == statusReview {
		return // nothing is owed or charged before a person has approved
	}

	start = len(b)
	b = appendJournal(b, journalSale, &t)
	out.Emit(message.Out{Output: h.ledger, Key: customerKey, Value: cut(b, start), Headers: h.headers})

	start = len(b)
	b = appendCharge(b, operationCharge, &t)
	out.Call(message.Effect{
		Endpoint: h.payments,
		// A customer's charges happen in the order of the orders; a stuck one delays that customer only.
		OrderKey:    customerKey,
		BusinessKey: businessKey(operationCharge, o.OrderID),
		Body:        cut(b, start),
	})
}

// cut takes what stands in b from start on, without room to append into what comes after it.
func cut(b []byte, start int) []byte { return b[start:len(b):len(b)] }

// appendPriced appends an order event with its lines, up to what depends on the placement.
func appendPriced(b []byte, o *order, digits int, sum amounts, lines []amounts) []byte {
	b = append(b, `{"schema_version":1`...)
	b = appendText(b, "order_id", o.OrderID)
	b = appendText(b, "customer_id", o.Customer.ID)
	b = appendText(b, "tier", o.Customer.Tier)
	b = appendText(b, "currency", o.Currency)
	b = appendText(b, "placed_at", o.PlacedAt)
	if o.ApprovedBy != "" {
		b = appendText(b, "approved_by", o.ApprovedBy)
	}
	b = append(b, `,"lines":[`...)
	for i := range o.Lines {
		line := &o.Lines[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"sku":"`...)
		b = append(b, line.SKU...)
		b = append(b, '"')
		b = appendInt(b, "quantity", line.Quantity)
		b = appendText(b, "unit_price", line.UnitPrice)
		b = appendText(b, "tax_class", line.Tax)
		b = appendAmounts(b, lines[i], digits)
		b = append(b, '}')
	}
	b = append(b, ']')
	b = appendAmounts(b, sum, digits)
	return appendMoney(b, "total", sum.total(), digits)
}

func appendAmounts(b []byte, a amounts, digits int) []byte {
	b = appendMoney(b, "gross", a.gross, digits)
	b = appendMoney(b, "discount", a.discount, digits)
	b = appendMoney(b, "net", a.net, digits)
	return appendMoney(b, "tax", a.tax, digits)
}
