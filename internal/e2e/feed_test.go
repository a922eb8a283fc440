//go:build chaos && linux

package e2e

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/load"
)

// perfProducer is Kafka's own kafka-producer-perf-test, feeding the input with values of random
// letters, each value different. It is let on, by stopping and continuing its process, only so far
// that the records last as long as the faults, however slow the machine.
type perfProducer struct {
	*process
	log   string
	total int64
	stop  context.CancelFunc
	done  sync.WaitGroup

	faults atomic.Int64 // that are still to come
	each   atomic.Int64 // time that one takes, in nanoseconds
}

const (
	faultTime = 2500 * time.Millisecond // that one takes at least
	slice     = 50 * time.Millisecond   // for which the producer runs at once while faults are to come
)

// perfProducer starts one that writes total records of the given size, at no more than rate records
// a second on average, and slower than that while faults are to come, see gate. m tells it how far it
// is.
func (r *rig) perfProducer(t testing.TB, m *monitor, total int64, bytes, rate, faults int) *perfProducer {
	t.Helper()
	p := &perfProducer{log: filepath.Join(r.folder, "producer.log"), total: total}
	p.plan(faults, 0, 0)
	// The producer is idempotent by default, so that it writes each record once, whatever happens to
	// the broker and to itself, unless it gives up: for so long it does not. What it holds back in
	// memory is little, because it comes at once when a broker is back.
	p.process = openProcess(t, r.kafka.Tool(t.Context(), "org.apache.kafka.tools.ProducerPerformance", "--bootstrap-server", r.kafka.Brokers()[0],
		"--topic", r.input, "--num-records", strconv.FormatInt(total, 10), "--record-size", strconv.Itoa(bytes), "--throughput", strconv.Itoa(rate),
		"--command-property", "delivery.timeout.ms=1200000", "max.block.ms=1200000", "buffer.memory=4194304", "retry.backoff.ms=20", "reconnect.backoff.max.ms=200"), p.log)
	ctx, stop := context.WithCancel(t.Context())
	p.stop = stop
	p.done.Go(func() { p.gate(ctx, m) })
	t.Cleanup(p.closeGate)
	return p
}

// plan tells how many faults are to come, and how long those took that there were.
func (p *perfProducer) plan(left, were int, took time.Duration) {
	p.faults.Store(int64(left))
	p.each.Store(int64(max(faultTime, took/time.Duration(max(1, were)))))
}

// gate lets the process run for a slice whenever it is behind a schedule by which the records never
// run out: at any time what is left is shared out evenly over the faults that are to come, and the
// end. After a slice the process stands until it is known how far it has come.
func (p *perfProducer) gate(ctx context.Context, m *monitor) {
	ticker := time.NewTicker(slice)
	defer ticker.Stop()
	var allowed float64
	last := time.Now()
	stood := last
	for ; ; <-ticker.C {
		switch {
		case ctx.Err() != nil, !p.alive():
			return
		case p.faults.Load() == 0:
			_ = p.signal(syscall.SIGCONT) // it may have ended meanwhile, here and below
			return
		}
		_ = p.signal(syscall.SIGSTOP)
		now := time.Now()
		fed, known := m.fed()
		left := time.Duration(p.faults.Load()+1) * time.Duration(p.each.Load())
		allowed += float64(p.total-fed) * min(1, float64(now.Sub(last))/float64(left))
		last = now
		if known.After(stood) && float64(fed) < allowed {
			_ = p.signal(syscall.SIGCONT)
			stood = now.Add(slice)
		}
	}
}

func (p *perfProducer) closeGate() {
	p.stop()
	p.done.Wait()
}

// finish lets the producer write what is left and fails the test unless it wrote everything.
func (p *perfProducer) finish(t testing.TB, timeout time.Duration) {
	t.Helper()
	p.plan(0, 0, 0)
	p.awaitEnd(t, timeout)
	p.closeGate()
	text, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	if want := strconv.FormatInt(p.total, 10) + " records sent"; !strings.Contains(string(text), want) {
		t.Fatalf("the producer did not say %q:\n%s", want, tail(p.log, logLines))
	}
}

// trickle is a steady load of small records from this process, around the proxies.
type trickle struct {
	producer *load.Producer
	stop     context.CancelFunc
	done     chan struct{}
	err      error
}

// trickleKeys spread the records over the partitions.
const trickleKeys = 64

// trickle runs until halt.
func (r *rig) trickle(t testing.TB, rate float64) *trickle {
	t.Helper()
	plain, err := load.NewPlain(load.PlainConfig{Run: rand.Uint64(), Bytes: 100, Keys: trickleKeys})
	if err != nil {
		t.Fatal(err)
	}
	return r.trickleOf(t, plain, rate)
}

// trickleOf is trickle with records of a kind.
func (r *rig) trickleOf(t testing.TB, generator load.Generator, rate float64) *trickle {
	t.Helper()
	producer, err := load.NewProducer(load.ProducerConfig{
		Options: []kgo.Opt{kgo.SeedBrokers(r.kafka.InternalBrokers()...)},
		Topic:   r.input, Generator: generator, Rate: rate,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	f := &trickle{producer: producer, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(f.done)
		f.err = producer.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-f.done
	})
	return f
}

// halt ends the load and returns how many records the broker has taken.
func (f *trickle) halt(t testing.TB) int64 {
	t.Helper()
	f.stop()
	<-f.done
	if f.err != nil {
		t.Fatal(f.err)
	}
	return f.producer.Acked()
}
