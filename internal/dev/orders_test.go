package dev

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/handlers"
	"pawl/internal/load"
	"pawl/internal/message"
)

// The generator's orders are what the handler of this release takes, and what it makes wrong is
// refused for the reason it was made wrong in. Only here do the two packages meet.
func TestGeneratedOrdersAreWhatTheHandlerExpects(t *testing.T) {
	t.Parallel()
	reasons := map[load.Bad]string{
		load.BadNone:             "",
		load.BadNotJSON:          handlers.ReasonBadJSON,
		load.BadCutOff:           handlers.ReasonBadJSON,
		load.BadUTF8:             handlers.ReasonBadJSON,
		load.BadNoValue:          handlers.ReasonNoValue,
		load.BadVersion:          handlers.ReasonUnknownVersion,
		load.BadMember:           handlers.ReasonUnknownMember,
		load.BadNegativeQuantity: handlers.ReasonBadQuantity,
		load.BadCurrency:         handlers.ReasonUnknownCurrency,
		load.BadNoCustomer:       handlers.ReasonMissingField,
	}
	orders, err := load.NewOrders(load.OrdersConfig{Seed: 3, BadShare: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	h := newHandler(t)
	seen := make(map[load.Bad]int)
	for n := range int64(5000) {
		var record kgo.Record
		orders.Fill(&record, load.Stamp{N: n})
		bad := orders.Bad(n)
		seen[bad]++
		var batch message.Batch
		err := h.Handle(message.In{Key: record.Key, Value: record.Value}, &batch)
		reason := ""
		var reject interface{ Reason() string }
		if errors.As(err, &reject) {
			reason = reject.Reason()
		} else if err != nil {
			t.Fatal(err)
		}
		if want, known := reasons[bad]; !known || reason != want {
			t.Fatalf("order %d is %q and refused with %q (%v), want %q: %s", n, bad, reason, err, want, record.Value)
		}
		if bad == load.BadNone && (len(batch.Outs()) != 2 || len(batch.Effects()) != 1) {
			t.Fatalf("order %d gives %d outputs and %d effects, want 2 and 1", n, len(batch.Outs()), len(batch.Effects()))
		}
	}
	if len(seen) != len(reasons) {
		t.Errorf("%d kinds of orders came up, want %d", len(seen), len(reasons))
	}
}

func newHandler(t *testing.T) handlers.Handler {
	t.Helper()
	h, err := handlers.New("orders", handlers.Settings{Outputs: []string{"priced", "ledger"}, Endpoints: []string{"payments"}})
	if err != nil {
		t.Fatal(err)
	}
	return h
}
