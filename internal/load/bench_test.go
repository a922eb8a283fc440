package load

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The generators must not be what a bench measures.
func BenchmarkGenerators(b *testing.B) {
	plain := func(filler Filler) Generator {
		generator, err := NewPlain(PlainConfig{Bytes: 500, Keys: 1000, Filler: filler})
		if err != nil {
			b.Fatal(err)
		}
		return generator
	}
	orders, err := NewOrders(OrdersConfig{BadShare: 0.01})
	if err != nil {
		b.Fatal(err)
	}
	for name, generator := range map[string]Generator{
		"plain random": plain(FillerRandom), "plain words": plain(FillerWords), "orders": orders,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var record kgo.Record
			now := time.Now()
			for n := int64(0); b.Loop(); n++ {
				generator.Fill(&record, Stamp{N: n, Scheduled: now, Called: now})
			}
		})
	}
}
