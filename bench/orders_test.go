package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/handlers"
	"pawl/internal/load"
	"pawl/internal/message"
	"pawl/internal/yardstick"
)

// priced are the orders of a run with what the handler, as it ships, makes of each.
func priced(t *testing.T, count int64) []*message.Batch {
	t.Helper()
	generator, err := load.NewOrders(load.OrdersConfig{Seed: orderSeed, Customers: orderCustomers})
	if err != nil {
		t.Fatal(err)
	}
	handler, err := handlers.New("orders", handlers.Settings{Outputs: []string{"priced", "ledger"}, Endpoints: []string{"payments"}})
	if err != nil {
		t.Fatal(err)
	}
	made := make([]*message.Batch, count)
	for n := range count {
		var order kgo.Record
		generator.Fill(&order, load.Stamp{N: n})
		made[n] = &message.Batch{}
		if err := handler.Handle(message.In{Key: order.Key, Value: order.Value}, made[n]); err != nil {
			t.Fatalf("order %d is no valid one: %v\n%s", n, err, order.Value)
		}
	}
	return made
}

// Everything that the handler writes of an order, and asks for, names the order and its customer where bench looks.
func TestOutputsAndCallsOfAnOrderAreRecognised(t *testing.T) {
	t.Parallel()
	const count = 200
	var seen [3]*arrivals // of two outputs and the calls
	for i := range seen {
		seen[i] = newArrivals(count)
	}
	customers := map[int]bool{}
	for n, made := range priced(t, count) {
		if len(made.Outs()) != 2 || len(made.Effects()) != 1 {
			t.Fatalf("order %d gives %d outputs and %d effects, want 2 and 1", n, len(made.Outs()), len(made.Effects()))
		}
		for i, value := range [][]byte{made.Outs()[0].Value, made.Outs()[1].Value, made.Effects()[0].Body} {
			customer, number, err := parseOrder(value)
			if err != nil || number != int64(n) || fmt.Sprintf("customer-%05d", customer) != string(made.Effects()[0].OrderKey) {
				t.Fatalf("%s is of customer %d and order %d, %v; want order %d", value, customer, number, err, n)
			}
			customers[customer] = true
			if err := seen[i].order(value); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, one := range seen {
		if one.missing.Load() != 0 || one.repeated.Load() != 0 || one.disordered.Load() != 0 {
			t.Errorf("kind %d: %d missing, %d repeated, %d out of order; want none", i, one.missing.Load(), one.repeated.Load(), one.disordered.Load())
		}
	}
	if len(customers) < count/2 {
		t.Errorf("%d customers placed %d orders, want many", len(customers), count)
	}
}

func TestOrderThatIsMissingOrThereTwiceIsTold(t *testing.T) {
	t.Parallel()
	seen := newArrivals(3)
	call := func(n, customer int) error {
		return seen.order(fmt.Appendf(nil, `{%s%08d%s%05d"}`, orderBegins, n, orderGoesOn, customer))
	}
	for _, one := range [][2]int{{2, 7}, {0, 7}, {0, 7}} {
		if err := call(one[0], one[1]); err != nil {
			t.Fatal(err)
		}
	}
	if seen.missing.Load() != 1 || seen.repeated.Load() != 1 || seen.disordered.Load() != 1 {
		t.Errorf("%d missing, %d repeated, %d out of order; want one of each", seen.missing.Load(), seen.repeated.Load(), seen.disordered.Load())
	}
	for _, one := range [][2]int{{3, 7}, {-1, 7}, {1, orderCustomers}} {
		if call(one[0], one[1]) == nil {
			t.Errorf("order %d of customer %d was taken", one[0], one[1])
		}
	}
	for _, value := range []string{"", `{"order_id":"o-8-00000001","customer_id":"customer-00001"}`, `{"order_id":"o-7-1"}`, `{"order_id":"o-7-x","customer_id":"customer-1"}`, `{"order_id":"o-7-1","customer_id":"customer-x"}`, `{"order_id":"o-7-1","customer_id":"customer-1`} {
		if seen.order([]byte(value)) == nil {
			t.Errorf("%q was taken", value)
		}
	}
}

// The two differ in nothing but the ledger, so that what it takes can be told.
func TestOrdersRunWithALedgerAndWithout(t *testing.T) {
	t.Parallel()
	peers := newOrdersPeers(settings{parts: 3, processes: 2, lanes: 1}, programs{binary: "processor", folder: "folder"})
	j := job{name: "app", brokers: []string{"broker:1"}, in: "app-in", url: "http://127.0.0.1:1/", dsn: "postgres://somewhere"}
	with, without := peers[0].config(j), peers[1].config(j)
	const postgres = "postgres: {dsn: \"postgres://somewhere\"}\n"
	if with == without || strings.Replace(with, postgres, "", 1) != without {
		t.Errorf("with a ledger the configuration is\n%s\nand without\n%s", with, without)
	}
	for i, want := range []bool{true, false} {
		commands := peers[i].commands(t.Context(), j)
		if len(commands) != 2 {
			t.Fatalf("%s: %d processes, want 2", peers[i].name(), len(commands))
		}
		for _, command := range commands {
			if slices.Contains(command.Args, "--migrate") != want {
				t.Errorf("%s: %v", peers[i].name(), command.Args)
			}
		}
	}
}

// ordersOf is a report of a round of orders.
func ordersOf(rate, ingested, called float64) []orderRun {
	copied := yardstick.Copied{Rate: rate, Took: 10 * time.Second}
	return []orderRun{
		{
			Peer: processorName, Round: 1, Copied: copied, CPU: 11, Broker: 22, Postgres: 3.5, Endpoint: 4.5, WAL: 600, Peak: 150,
			Ingested: ingested, Called: called, Behind: 2500 * time.Millisecond, Effects: 80_000,
		},
		{Peer: ordersNoLedger, Round: 1, Copied: yardstick.Copied{Rate: 2 * rate}},
	}
}

// A rate of orders says nothing of their effects, so the report says whether they kept up.
func TestReportSaysWhetherEffectsKeepUp(t *testing.T) {
	t.Parallel()
	for called, want := range map[float64]string{
		0.25: "Effects are behind: when the last order was committed, 50% of them were ingested and 25% had been called for; the rest took 2.5s more.",
		0.96: "Effects keep up: when the last order was committed, 96% of them had been called for.",
	} {
		r := newReport(settings{only: partOrders, orders: orderRecords, parts: 8, processes: 2}, nil)
		r.Orders = ordersOf(100_000, 0.5, called)
		var table bytes.Buffer
		r.print(&table)
		for _, part := range []string{want, "1000000 orders", fmt.Sprintf("%.0f (%.0f..%.0f)", called*100_000, called*100_000, called*100_000), "50000 (50000..50000)", "3.50 (3.50..3.50)", ordersNoLedger} {
			if !strings.Contains(table.String(), part) {
				t.Errorf("the report lacks %q:\n%s", part, &table)
			}
		}
		if len(r.measured()) != 1 || !r.met() {
			t.Errorf("targets %+v, want that of orders met", r.measured())
		}
	}
}
