package txn

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// orderLike is an input with what the orders handler asks for: two outputs, and a call under a key of its own.
func orderLike() (*kgo.Record, *outcome) {
	w := &worker{}
	headers := []message.Header{{Key: message.HeaderContentType, Value: []byte("application/json")}}
	for range 2 {
		w.asked.Emit(message.Out{Output: "out", Key: []byte("order-1"), Value: make([]byte, 400), Headers: headers})
	}
	w.asked.Call(message.Effect{Endpoint: "payments", OrderKey: []byte("customer-7"), BusinessKey: "charge:order-1", Body: make([]byte, 200)})
	r := &kgo.Record{Topic: inTopic, Partition: 3, Offset: 42, Key: []byte("customer-7"), Timestamp: inputTime}
	return r, &outcome{worker: w, to: w.asked.Len()}
}

func BenchmarkBuildOrder(b *testing.B) {
	builder := newTestBuilder()
	r, asked := orderLike()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%1000 == 0 {
			builder.reset()
		}
		if err := builder.build(r, testSource, asked, "orders", func(*kgo.Record) {}); err != nil {
			b.Fatal(err)
		}
	}
}
