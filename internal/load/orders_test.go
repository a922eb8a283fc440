package load

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

func newOrders(t *testing.T, config OrdersConfig) *Orders {
	t.Helper()
	orders, err := NewOrders(config)
	if err != nil {
		t.Fatal(err)
	}
	return orders
}

func fillOrder(t *testing.T, config OrdersConfig, n int64) *kgo.Record {
	t.Helper()
	var record kgo.Record
	newOrders(t, config).Fill(&record, Stamp{N: n, Scheduled: time.Unix(1, 0), Called: time.Unix(2, 0)})
	return &record
}

// Order n is the same whether made after those before it on a used record, or alone; another seed
// makes another.
func TestOrderIsAFunctionOfSeedAndNumber(t *testing.T) {
	t.Parallel()
	config := OrdersConfig{Seed: 42, BadShare: 0.5}
	orders := newOrders(t, config)
	var reused kgo.Record
	for n := range int64(500) {
		orders.Fill(&reused, Stamp{N: n})
		alone := fillOrder(t, config, n)
		if !bytes.Equal(reused.Key, alone.Key) || !bytes.Equal(reused.Value, alone.Value) || (reused.Value == nil) != (alone.Value == nil) {
			t.Fatalf("order %d: %q alone, %q in line", n, alone.Value, reused.Value)
		}
	}
	other := fillOrder(t, OrdersConfig{Seed: 43}, 7)
	if same := fillOrder(t, OrdersConfig{Seed: 42}, 7); bytes.Equal(same.Value, other.Value) {
		t.Error("two seeds give the same order")
	}
}

// The bytes of a seed are part of what demos and golden files rely on.
func TestOrderLooksLikeThis(t *testing.T) {
	t.Parallel()
	record := fillOrder(t, OrdersConfig{Seed: 42}, 7)
	const key = "customer-00568"
	const value = `{"schema_version":1,"order_id":"o-2a-00000007","customer":{"id":"customer-00568","tier":"standard"},` +
		`"currency":"GBP","placed_at":"2026-01-01T00:00:07Z","lines":[` +
		`{"sku":"SKU-3155","quantity":12,"unit_price":"9.83","tax":"zero"},` +
		`{"sku":"SKU-0238","quantity":1,"unit_price":"233.71","tax":"zero"},` +
		`{"sku":"SKU-1663","quantity":16,"unit_price":"34.91","tax":"reduced"}]}`
	if string(record.Key) != key || string(record.Value) != value {
		t.Errorf("order 7 of seed 42 = %s %s", record.Key, record.Value)
	}
}

// The share of wrong orders is what was asked for, and each way turns up equally often.
func TestOrdersAreWrongAsOftenAsAsked(t *testing.T) {
	t.Parallel()
	const total, share = 90_000, 0.1
	orders := newOrders(t, OrdersConfig{Seed: 1, BadShare: share})
	count := make(map[Bad]int)
	for n := range int64(total) {
		count[orders.Bad(n)]++
	}
	if bad := total - count[BadNone]; math.Abs(float64(bad)-total*share) > 300 {
		t.Errorf("%d of %d are wrong, want about %v", bad, total, total*share)
	}
	for _, bad := range Bads() {
		if got := count[bad]; got < 800 || got > 1200 {
			t.Errorf("%s came %d times, want about 1000", bad, got)
		}
	}
	// Neighbouring seeds and numbers are independent: the share scatters no more
	// than chance does.
	for seed := range uint64(20) {
		few, bad := newOrders(t, OrdersConfig{Seed: seed, BadShare: 0.01}), 0
		for n := range int64(20_000) {
			if few.Bad(n) != BadNone {
				bad++
			}
		}
		if bad < 150 || bad > 250 { // 3.5 standard deviations
			t.Errorf("seed %d: %d of 20000 orders are wrong, want about 200", seed, bad)
		}
	}
	for n := range int64(1000) {
		if bad := newOrders(t, OrdersConfig{Seed: 1}).Bad(n); bad != BadNone {
			t.Fatalf("order %d is %s though none was asked for", n, bad)
		}
	}
}

// Each way of being wrong shows in the bytes, and a chosen way is the only one.
func TestBadOrdersAreWrongInTheirWay(t *testing.T) {
	t.Parallel()
	valid := func(value []byte) bool { return json.Valid(value) && utf8.Valid(value) }
	tests := map[Bad]func(value []byte) bool{
		BadNotJSON:          func(v []byte) bool { return !json.Valid(v) },
		BadCutOff:           func(v []byte) bool { return !json.Valid(v) && bytes.HasPrefix(v, []byte(`{"schema_version":1,`)) },
		BadUTF8:             func(v []byte) bool { return !utf8.Valid(v) },
		BadNoValue:          func(v []byte) bool { return v == nil },
		BadVersion:          func(v []byte) bool { return valid(v) && bytes.Contains(v, []byte(`"schema_version":9,`)) },
		BadMember:           func(v []byte) bool { return valid(v) && bytes.Contains(v, []byte(`"coupon":"SPRING",`)) },
		BadNegativeQuantity: func(v []byte) bool { return valid(v) && bytes.Contains(v, []byte(`"quantity":-1,`)) },
		BadCurrency:         func(v []byte) bool { return valid(v) && bytes.Contains(v, []byte(`"currency":"XXX"`)) },
		BadNoCustomer:       func(v []byte) bool { return valid(v) && bytes.Contains(v, []byte(`"customer":{"tier"`)) },
	}
	for _, bad := range Bads() {
		t.Run(string(bad), func(t *testing.T) {
			t.Parallel()
			for n := range int64(100) {
				record := fillOrder(t, OrdersConfig{Seed: 5, BadShare: 1, Bads: []Bad{bad}}, n)
				if !tests[bad](record.Value) {
					t.Fatalf("order %d is not %s: %s", n, bad, record.Value)
				}
				if len(record.Key) == 0 {
					t.Fatalf("order %d has no key", n)
				}
			}
		})
	}
}

// Every order of a run has its own id, and a customer's tier never changes.
func TestOrdersHaveTheirOwnIDs(t *testing.T) {
	t.Parallel()
	orders := newOrders(t, OrdersConfig{Seed: 9, Customers: 50})
	ids, tiers := make(map[string]bool), make(map[string]string)
	var record kgo.Record
	for n := range int64(2000) {
		orders.Fill(&record, Stamp{N: n})
		var order struct {
			ID       string                    `json:"order_id"`
			Customer struct{ ID, Tier string } `json:"customer"`
		}
		if err := json.Unmarshal(record.Value, &order); err != nil {
			t.Fatal(err)
		}
		if ids[order.ID] {
			t.Fatalf("order id %s came twice", order.ID)
		}
		ids[order.ID] = true
		if order.Customer.ID != string(record.Key) {
			t.Fatalf("key %s of an order of %s", record.Key, order.Customer.ID)
		}
		if known := tiers[order.Customer.ID]; known != "" && known != order.Customer.Tier {
			t.Fatalf("%s is %s and %s", order.Customer.ID, known, order.Customer.Tier)
		}
		tiers[order.Customer.ID] = order.Customer.Tier
	}
	if len(tiers) != 50 {
		t.Errorf("%d customers, want 50", len(tiers))
	}
}

func TestNewOrdersNamesEveryProblem(t *testing.T) {
	t.Parallel()
	for _, share := range []float64{-0.1, 1.1, math.NaN()} {
		_, err := NewOrders(OrdersConfig{Customers: -1, BadShare: share, Bads: []Bad{"ugly"}})
		for _, want := range []string{"customers is -1", fmt.Sprintf("bad share is %v", share), `"ugly"`} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v does not say %q", err, want)
			}
		}
	}
}

func TestNumbersArePadded(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{0, 9, 10, 99, 100, 12345, 1 << 40} {
		for _, width := range []int{1, 2, 5, 8} {
			if got, want := string(appendPadded(nil, n, width)), fmt.Sprintf("%0*d", width, n); got != want {
				t.Errorf("%d in %d digits = %q, want %q", n, width, got, want)
			}
		}
	}
	if !slices.Contains(Bads(), BadCutOff) || slices.Contains(Bads(), BadNone) {
		t.Error("Bads lists what is wrong, and only that")
	}
}
