package dispatch_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/outbox/dispatch"
	"pawl/internal/outbox/ledger/ledgertest"
)

type nothing struct{}

func (nothing) Send(context.Context, outbox.Call) outbox.Answer {
	return outbox.Answer{Status: 200, Sent: true}
}

// afar answers after a while, so that calls of many lanes wait for their bounds.
type afar struct{ nothing }

func (a afar) Send(ctx context.Context, call outbox.Call) outbox.Answer {
	time.Sleep(time.Millisecond) //nolint:forbidigo // a benchmark: it is what is measured
	return a.nothing.Send(ctx, call)
}

// BenchmarkDispatch is what the dispatcher itself costs for each effect: the endpoint does nothing, and
// the ledger is in memory. With "afar" it takes a millisecond to do nothing. With "offered" the intents are handed over as they are ingested, with
// "paged" they stand in the ledger already.
func BenchmarkDispatch(b *testing.B) {
	for _, lanes := range []int32{1, 4} {
		b.Run(fmt.Sprintf("offered/lanes=%d", lanes), func(b *testing.B) { benchmark(b, nothing{}, lanes, true) })
		b.Run(fmt.Sprintf("paged/lanes=%d", lanes), func(b *testing.B) { benchmark(b, nothing{}, lanes, false) })
	}
	b.Run("afar/lanes=16", func(b *testing.B) { benchmark(b, afar{}, 16, true) })
}

func benchmark(b *testing.B, target dispatch.Target, lanes int32, offered bool) {
	b.Helper()
	const each = 500 // intents of a batch
	var settled atomic.Int64
	all, moved := make(chan struct{}), make(chan struct{}, 1)
	total := int64(b.N)
	store := &ledgertest.Memory{}
	d, err := dispatch.New(dispatch.Config{
		Store: store, Owner: "bench", LeaseTTL: 15 * time.Second, Workers: 64, DrainTimeout: time.Second, StrangerAgeMax: time.Hour,
		Endpoints: map[string]dispatch.Endpoint{
			"shop": {Target: target, Timeout: 5 * time.Second, AttemptsMax: 20, AgeMax: time.Hour, Concurrency: 64, OnDead: dispatch.Continue},
		},
		Hooks: dispatch.Hooks{Flushed: func(f dispatch.Flushed) {
			if settled.Add(int64(f.Results)) == total {
				close(all)
			}
			select {
			case moved <- struct{}{}:
			default:
			}
		}},
	})
	if err != nil {
		b.Fatal(err)
	}
	batches := make([]*outbox.Batch, 0, b.N/each+int(lanes))
	next := make([]int64, lanes)
	for made := 0; made < b.N; {
		lane := int32(len(batches)) % lanes
		batch := &outbox.Batch{Lane: lane, TopicID: topicID, Base: next[lane]}
		for range min(each, b.N-made) {
			offset := batch.Base + int64(len(batch.Intents))
			source := message.Source{Topic: "orders", Offset: offset}
			batch.Intents = append(batch.Intents, outbox.Intent{
				Lane: lane, Offset: offset, Source: source, Endpoint: "shop", Class: message.AtLeastOnce,
				Key: fmt.Appendf(nil, "key-%d", offset*7919%20_000), Body: make([]byte, 200),
			})
		}
		made += len(batch.Intents)
		next[lane] = batch.Base + int64(len(batch.Intents))
		batch.Next = next[lane]
		batches = append(batches, batch)
	}
	for lane := range lanes {
		if err := store.Seed(b.Context(), lane, topicID, 0); err != nil {
			b.Fatal(err)
		}
	}
	if !offered {
		for _, batch := range batches {
			if err := store.Append(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	b.ReportAllocs()
	b.ResetTimer()
	before := processorTime(b)
	go func() { ended <- d.Run(ctx) }()
	for lane := range lanes {
		d.Assign(lane)
	}
	if offered {
		given := int64(0)
		for _, batch := range batches {
			for given-settled.Load() > 2000*int64(lanes) {
				<-moved
			}
			if err := store.Append(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
			d.Offer(*batch)
			given += int64(len(batch.Intents))
		}
	}
	<-all
	b.StopTimer()
	b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}

// processorTime is what this process has used: on a busy machine it tells more than the clock.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
