package handlers

import (
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pawl/internal/message"
)

func outputs() []string   { return []string{"priced", "ledger", "review"} }
func endpoints() []string { return []string{"payments", "refunds"} }

func mustNew(tb testing.TB, name string, config map[string]any) Handler {
	tb.Helper()
	handler, err := New(name, Settings{Config: config, Outputs: outputs(), Endpoints: endpoints()})
	if err != nil {
		tb.Fatal(err)
	}
	return handler
}

func record(value []byte) message.In {
	return message.In{
		Source:    message.Source{Application: "test", Topic: "orders", Partition: 3, Offset: 42},
		Key:       []byte("k"),
		Value:     value,
		Timestamp: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC),
	}
}

// reason gives the label of a reject and "" for nil; any other error is a fault of the handler.
func reason(tb testing.TB, err error) string {
	tb.Helper()
	if err == nil {
		return ""
	}
	labelled, ok := err.(interface{ Reason() string })
	if !ok {
		tb.Fatalf("error without a reason: %v", err)
	}
	if !slices.Contains(Reasons(), labelled.Reason()) {
		tb.Fatalf("reason %q is not in the closed set: %v", labelled.Reason(), err)
	}
	if text := err.Error(); len(text) > rejectBytesMax || strings.ContainsAny(text, "\r\n") || text == "" {
		tb.Fatalf("a reject's text is one line of 1..%d bytes, got %q", rejectBytesMax, text)
	}
	return labelled.Reason()
}

// render shows everything a handler asked for as text, for golden files and for comparing attempts.
func render(b *message.Batch) string {
	var text strings.Builder
	b.Walk(0, b.Len(), 0, 0, func(e message.Entry) {
		if e.Out != nil {
			fmt.Fprintf(&text, "%d output %s key=%q timestamp=%s headers=%q\n%s\n", e.Index, e.Out.Output, e.Out.Key, e.Out.Timestamp.Format(time.RFC3339Nano), e.Out.Headers, e.Out.Value)
			return
		}
		fmt.Fprintf(&text, "%d effect %s order=%q business=%q class=%q\n%s\n", e.Index, e.Effect.Endpoint, e.Effect.OrderKey, e.Effect.BusinessKey, e.Effect.Class, e.Effect.Body)
	})
	return text.String()
}

func handle(handler Handler, value []byte) (*message.Batch, error) {
	out := new(message.Batch)
	err := handler.Handle(record(value), out)
	return out, err
}

// The readers' side of the formats, on purpose not the writers' structs.

type journal struct {
	ID       string `json:"journal_id"`
	Kind     string `json:"kind"`
	OrderID  string `json:"order_id"`
	Currency string `json:"currency"`
	Postings []struct {
		Account string `json:"account"`
		Amount  string `json:"amount"`
	} `json:"postings"`
}

type orderEvent struct {
	OrderID   string `json:"order_id"`
	Placement string `json:"placement"`
	Status    string `json:"status"`
	Charge    string `json:"charge"`
	Gross     string `json:"gross"`
	Discount  string `json:"discount"`
	Net       string `json:"net"`
	Tax       string `json:"tax"`
	Total     string `json:"total"`
	Lines     []struct {
		Gross    string `json:"gross"`
		Discount string `json:"discount"`
		Net      string `json:"net"`
		Tax      string `json:"tax"`
	} `json:"lines"`
}

func parse[T any](t fataler, value []byte) T {
	var parsed T
	if err := json.Unmarshal(value, &parsed); err != nil {
		t.Fatalf("parse %s: %v", value, err)
	}
	return parsed
}

// fataler is what *testing.T and *rapid.T have in common.
type fataler interface {
	Fatalf(format string, args ...any)
}

func rational(t fataler, text string) *big.Rat {
	number, ok := new(big.Rat).SetString(text)
	if !ok {
		t.Fatalf("%q is not a number", text)
	}
	return number
}

func sum(t fataler, texts ...string) *big.Rat {
	total := new(big.Rat)
	for _, text := range texts {
		total.Add(total, rational(t, text))
	}
	return total
}

func readFile(tb testing.TB, path string) []byte {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}
