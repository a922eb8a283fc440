package load

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Bad is a way in which an order can be wrong.
type Bad string

// The ways. Each is refused by the orders handler with one reason, always the same.
const (
	BadNone             Bad = ""                  // a valid order
	BadNotJSON          Bad = "not_json"          // some text
	BadCutOff           Bad = "cut_off"           // the first half of a valid order
	BadUTF8             Bad = "invalid_utf8"      // a valid order but for one byte
	BadNoValue          Bad = "no_value"          // a tombstone
	BadVersion          Bad = "unknown_version"   // schema version 9
	BadMember           Bad = "unknown_member"    // a member that the schema does not have
	BadNegativeQuantity Bad = "negative_quantity" // a quantity of -1
	BadCurrency         Bad = "unknown_currency"  // XXX
	BadNoCustomer       Bad = "no_customer"       // an order of nobody
)

// Bads lists every way except BadNone.
func Bads() []Bad {
	return []Bad{
		BadNotJSON, BadCutOff, BadUTF8, BadNoValue, BadVersion, BadMember,
		BadNegativeQuantity, BadCurrency, BadNoCustomer,
	}
}

// OrdersConfig is what a stream of orders needs.
type OrdersConfig struct {
	Seed      uint64  // the same seed gives the same orders; it is part of every order's id
	Customers int64   // how many customers order; 0 means 1,000
	BadShare  float64 // share of wrong orders, 0..1
	Bads      []Bad   // the ways in which they are wrong, equally likely; empty means all
}

// Orders makes JSON orders for the orders handler, keyed by customer, some of them wrong. Every
// order has its own id.
type Orders struct {
	config OrdersConfig
	chance *chance
	random *rand.Rand
}

const customersDefault = 1000

// placedFirst is when order 0 was placed; each later one came a second after the one before.
var placedFirst = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// NewOrders checks the configuration.
func NewOrders(config OrdersConfig) (*Orders, error) {
	var errs []error
	if config.Customers < 0 {
		errs = append(errs, fmt.Errorf("customers is %d, want at least 0", config.Customers))
	}
	if !(config.BadShare >= 0 && config.BadShare <= 1) { // so that NaN is refused too
		errs = append(errs, fmt.Errorf("bad share is %v, want 0..1", config.BadShare))
	}
	for _, bad := range config.Bads {
		if !slices.Contains(Bads(), bad) {
			errs = append(errs, fmt.Errorf("bad order %q is unknown, use some of %v", bad, Bads()))
		}
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("orders: %w", errors.Join(errs...))
	}
	if config.Customers == 0 {
		config.Customers = customersDefault
	}
	if len(config.Bads) == 0 {
		config.Bads = Bads()
	}
	chance := newChance(config.Seed)
	return &Orders{config: config, chance: chance, random: rand.New(chance)}, nil //nolint:gosec // reproducible on purpose
}

// Bad tells in which way order n is wrong. Like Fill it is for one goroutine at a time.
func (o *Orders) Bad(n int64) Bad {
	o.chance.record(n)
	if o.random.Float64() >= o.config.BadShare {
		return BadNone
	}
	return o.config.Bads[o.random.IntN(len(o.config.Bads))]
}

// Fill makes order stamp.N. Its bytes do not depend on the stamp's times.
func (o *Orders) Fill(record *kgo.Record, stamp Stamp) {
	bad := o.Bad(stamp.N)
	customer := o.random.Int64N(o.config.Customers)
	record.Key = appendPadded(append(record.Key[:0], "customer-"...), customer, 5)
	record.Headers = record.Headers[:0]
	value := record.Value[:0]
	switch bad {
	case BadNoValue:
		value = nil
	case BadNotJSON:
		value = append(value, "please send order number "...)
		value = strconv.AppendInt(value, stamp.N, 10)
	case BadCutOff:
		value = o.appendOrder(value, stamp.N, customer, bad)
		value = value[:len(value)/2]
	case BadUTF8:
		value = o.appendOrder(value, stamp.N, customer, bad)
		value[len(`{"schema_version":1,"order_id":"`)] = 0xff
	default:
		value = o.appendOrder(value, stamp.N, customer, bad)
	}
	record.Value = value
}

// appendOrder appends an order that is wrong in at most one member.
func (o *Orders) appendOrder(b []byte, n, customer int64, bad Bad) []byte {
	version, currency := "1", pick(o.random, "EUR", "EUR", "EUR", "USD", "USD", "GBP", "CHF", "JPY")
	if bad == BadVersion {
		version = "9"
	}
	if bad == BadCurrency {
		currency = "XXX"
	}
	b = append(b, `{"schema_version":`...)
	b = append(b, version...)
	b = append(b, `,"order_id":"o-`...)
	b = strconv.AppendUint(b, o.config.Seed, 16)
	b = append(b, '-')
	b = appendPadded(b, n, 8)
	b = append(b, `","customer":{`...)
	if bad != BadNoCustomer {
		b = append(b, `"id":"customer-`...)
		b = appendPadded(b, customer, 5)
		b = append(b, `",`...)
	}
	b = append(b, `"tier":"`...)
	b = append(b, tier(customer)...)
	b = append(b, `"},"currency":"`...)
	b = append(b, currency...)
	b = append(b, `","placed_at":"`...)
	b = placedFirst.Add(time.Duration(n)*time.Second).AppendFormat(b, time.RFC3339)
	if bad == BadMember {
		b = append(b, `","coupon":"SPRING`...)
	}
	b = append(b, `","lines":[`...)
	for i := range 1 + o.random.IntN(4) {
		if i > 0 {
			b = append(b, ',')
		}
		quantity := 1 + o.random.Int64N(20)
		if bad == BadNegativeQuantity && i == 0 {
			quantity = -1
		}
		b = o.appendLine(b, quantity)
	}
	return append(b, `]}`...)
}

func (o *Orders) appendLine(b []byte, quantity int64) []byte {
	b = append(b, `{"sku":"SKU-`...)
	b = appendPadded(b, o.random.Int64N(5000), 4)
	b = append(b, `","quantity":`...)
	b = strconv.AppendInt(b, quantity, 10)
	b = append(b, `,"unit_price":"`...)
	b = strconv.AppendInt(b, 1+o.random.Int64N(499), 10)
	b = append(b, '.')
	b = appendPadded(b, o.random.Int64N(100), 2)
	b = append(b, `","tax":"`...)
	b = append(b, pick(o.random, "standard", "standard", "reduced", "zero")...)
	return append(b, `"}`...)
}

// tier is fixed for a customer.
func tier(customer int64) string {
	switch customer % 10 {
	case 0:
		return "gold"
	case 1, 2, 3:
		return "silver"
	default:
		return "standard"
	}
}

func pick(random *rand.Rand, from ...string) string { return from[random.IntN(len(from))] }

// appendPadded appends n with leading zeros up to width digits.
func appendPadded(b []byte, n int64, width int) []byte {
	for limit := int64(10); width > 1; width, limit = width-1, limit*10 {
		if n < limit {
			for range width - 1 {
				b = append(b, '0')
			}
			break
		}
	}
	return strconv.AppendInt(b, n, 10)
}
