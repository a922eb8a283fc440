package handlers

import (
	"bytes"
	"fmt"
	"testing"

	"pawl/internal/message"
)

// benchmarkHandler runs over a thousand different records, so that texts met before are not cheaper.
func benchmarkHandler(b *testing.B, name string, config map[string]any, value func(i int) []byte) {
	b.Helper()
	handler := mustNew(b, name, config)
	var values [1000][]byte
	for i := range values {
		values[i] = value(i)
	}
	in := record(nil)
	var out message.Batch
	b.ReportAllocs()
	b.SetBytes(int64(len(values[0])))
	for i := 0; b.Loop(); i++ {
		out.Reset()
		in.Value = values[i%len(values)]
		if err := handler.Handle(in, &out); err != nil {
			b.Fatal(err)
		}
	}
}

// numbered is an order of three lines with its own ids.
func numbered(b *testing.B, i int) []byte {
	b.Helper()
	value := readFile(b, "testdata/orders/three-lines.json")
	value = bytes.ReplaceAll(value, []byte("o-1001"), fmt.Appendf(nil, "order-%06d", i))
	return bytes.ReplaceAll(value, []byte("c-77"), fmt.Appendf(nil, "customer-%05d", i))
}

func BenchmarkCopy(b *testing.B) {
	benchmarkHandler(b, "copy", map[string]any{"output": "priced"}, func(i int) []byte { return numbered(b, i) })
}

func BenchmarkOrders(b *testing.B) {
	benchmarkHandler(b, "orders", nil, func(i int) []byte { return numbered(b, i) })
}

func BenchmarkOrderResults(b *testing.B) {
	orders := mustNew(b, "orders", nil)
	benchmarkHandler(b, "order-results", nil, func(i int) []byte {
		out, err := handle(orders, numbered(b, i))
		if err != nil {
			b.Fatal(err)
		}
		return resultEvent(out.Effects()[0], "done", 201)
	})
}
