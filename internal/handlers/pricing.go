package handlers

import (
	"maps"
	"slices"
)

// rules are the price rules of one route: what a customer's tier and a line's tax class are worth,
// as fractions of percentScale, and above which total an order waits for a person.
type rules struct {
	discounts   map[string]int64 // by customer tier
	taxes       map[string]int64 // by tax class
	reviewAbove map[string]int64 // by currency, in its smallest unit; a currency that is not here is never reviewed
}

// amounts are in the smallest unit of the order's currency. gross - discount = net, and what the
// customer pays is net + tax, exactly, for a line as for the sum of lines.
type amounts struct {
	gross, discount, net, tax int64
}

func (a amounts) total() int64 { return a.net + a.tax }

func newRules(o *options) rules {
	return rules{
		discounts:   percentages(o, "discounts", map[string]string{"standard": "0", "silver": "2.5", "gold": "5"}),
		taxes:       percentages(o, "taxes", map[string]string{"standard": "20", "reduced": "10", "zero": "0"}),
		reviewAbove: limits(o, "review_above"),
	}
}

// percentages reads a map of names to percentages; a map that is given replaces the default whole.
func percentages(o *options, key string, fallback map[string]string) map[string]int64 {
	texts := o.numbers(key)
	if texts == nil {
		texts = fallback
	}
	parsed := make(map[string]int64, len(texts))
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		percent, err := parseDecimal(texts[name], 3, percentDecimals)
		switch {
		case !isID(name):
			o.fail(key+"."+name, "is no usable name: use 1..%d of the characters A-Z a-z 0-9 . _ -", idBytesMax)
		case err != nil:
			o.fail(key+"."+name, "%v", err)
		case percent > percentScale:
			o.fail(key+"."+name, "is %s, want 0..100", texts[name])
		}
		parsed[name] = percent
	}
	return parsed
}

func limits(o *options, key string) map[string]int64 {
	texts := o.numbers(key)
	parsed := make(map[string]int64, len(texts))
	for _, currency := range slices.Sorted(maps.Keys(texts)) {
		digits, known := minorDigits(currency)
		if !known {
			o.fail(key+"."+currency, "is not an ISO 4217 currency code in use, such as EUR")
			continue
		}
		limit, err := parseDecimal(texts[currency], priceDigitsMax, digits)
		if err != nil {
			o.fail(key+"."+currency, "%v", err)
		}
		parsed[currency] = limit
	}
	return parsed
}

// price computes every line into lines, which has one element per order line, and returns their
// sum. Each step of a line is rounded half up to the currency's smallest unit, so that the lines of
// an invoice add up to its total: gross = quantity * unit price; discount = gross * tier's
// percentage; net = gross - discount; tax = net * rate of the line's class.
func (r *rules) price(o *order, digits int, lines []amounts) (amounts, error) {
	discount, known := r.discounts[o.Customer.Tier]
	if !known {
		return amounts{}, reject(ReasonUnknownTier, "customer.tier is %s, want one of %s",
			quote(o.Customer.Tier), list(slices.Sorted(maps.Keys(r.discounts))))
	}
	var sum amounts
	for i := range o.Lines {
		line, err := r.priceLine(&o.Lines[i], i, digits, discount)
		if err != nil {
			return amounts{}, err
		}
		lines[i] = line
		sum.gross += line.gross
		sum.discount += line.discount
		sum.net += line.net
		sum.tax += line.tax
	}
	if total := sum.total(); total < 1 || sum.gross > amountMax || total > amountMax {
		return amounts{}, reject(ReasonBadAmount, "the order's total is %s %s, want more than 0 and at most 10^15 of the smallest unit",
			appendAmount(nil, total, digits), o.Currency)
	}
	return sum, nil
}

func (r *rules) priceLine(l *orderLine, i, digits int, discount int64) (amounts, error) {
	rate, known := r.taxes[l.Tax]
	if !known {
		return amounts{}, reject(ReasonUnknownTax, "lines[%d].tax is %s, want one of %s",
			i, quote(l.Tax), list(slices.Sorted(maps.Keys(r.taxes))))
	}
	unit, err := parseDecimal(l.UnitPrice, priceDigitsMax, decimalsMax)
	if err != nil {
		return amounts{}, reject(ReasonBadAmount, "lines[%d].unit_price %v", i, err)
	}
	gross, ok := scaled(unit, l.Quantity, powerOfTen(decimalsMax-digits))
	if !ok {
		return amounts{}, reject(ReasonBadAmount, "lines[%d] is more than 10^15 of the currency's smallest unit", i)
	}
	// A fraction of at most 1 of an amount that fits does fit.
	reduction, _ := scaled(gross, discount, percentScale)
	net := gross - reduction
	tax, _ := scaled(net, rate, percentScale)
	return amounts{gross: gross, discount: reduction, net: net, tax: tax}, nil
}

// needsReview tells an order that a person has to approve before anything is charged.
func (r *rules) needsReview(o *order, total int64) bool {
	limit, limited := r.reviewAbove[o.Currency]
	return limited && total > limit && o.ApprovedBy == ""
}
