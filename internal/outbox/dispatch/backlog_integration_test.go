//go:build integration

package dispatch_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pawl/internal/outbox"
	"pawl/internal/outbox/dispatch"
	"pawl/internal/outbox/ledger"
	"pawl/internal/postgres"
	"pawl/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m, func() error { return goleak.Find() })) }

const (
	// backlogEffects is how many wait for the endpoint that is down, unless the environment says otherwise.
	backlogEffects  = 120_000
	backlogVariable = "PAWL_BACKLOG_EFFECTS"

	backlogEach    = 100       // of them, one is for the endpoint that is up
	backlogPerKey  = 4         // effects of a key, far from each other
	backlogMemory  = 32 << 20  // that a lane may add to the live heap, however much waits
	backlogTimeout = time.Hour // for the environment's number; a million takes minutes
)

// backlog is a lane of a real ledger with more effects than memory may hold, for an endpoint that is down and another one that is up.
type backlog struct {
	t     *testing.T
	store *ledger.Ledger
	size  int64
	down  atomic.Bool

	process *dispatch.Dispatcher

	settled atomic.Int64 // fates that are written down
	other   atomic.Int64 // calls of the endpoint that is up

	mu     sync.Mutex
	called []bool  // by offset: a call has succeeded
	last   []int64 // by key: the offset of the last call that has succeeded
	wrong  []string
	live   [1]metrics.Sample // of the heap, by its last collection
	before uint64            // without a dispatcher
	peak   uint64            // since then
}

// An endpoint is down and far more waits for it than a lane may have in memory, on a real server. The other endpoint of the lane is
// called all the same, the heap stays within its bound, also that of an owner that takes the lane over, and when the endpoint is back everything is called
// once, in the order of keys. It is alone in its process: it measures the heap.
func TestABacklogBeyondMemoryIsBoundedAndDrainsInOrder(t *testing.T) { //nolint:paralleltest // see above
	b := newBacklog(t)
	began := time.Now()
	b.fill()
	t.Logf("%d effects were ingested in %s", b.size, since(began))

	began = time.Now()
	b.measure()
	stop := b.start("first")
	b.await("parked", func(s dispatch.LaneStatus) bool {
		return s.Next == b.size && s.Window == 0 && b.settled.Load()+int64(s.Parked+s.Stowed) >= b.size
	})
	t.Logf("all of them were parked in %s; the heap grew by %d KiB at most", since(began), b.grew())
	others := b.size / backlogEach
	if b.other.Load() < others*98/100 { // a few keys are taken for others that wait
		t.Errorf("%d calls of the endpoint that is up, want %d", b.other.Load(), others)
	}
	stop()

	began = time.Now()
	stop = b.start("second")
	b.await("taken over", func(s dispatch.LaneStatus) bool {
		return s.Owner && b.settled.Load()+int64(s.Parked+s.Stowed) >= b.size
	})
	t.Logf("another owner knew them after %s", since(began))

	began = time.Now()
	b.down.Store(false)
	b.await("drained", func(dispatch.LaneStatus) bool { return b.settled.Load() >= b.size })
	t.Logf("all were called in %s; the heap grew by %d KiB at most", since(began), b.grew())
	stop()
	if grew := b.grew(); grew > backlogMemory>>10 {
		t.Errorf("the heap grew by %d KiB, want at most %d", grew, backlogMemory>>10)
	}
	b.check()
}

func since(began time.Time) time.Duration { return time.Since(began).Round(100 * time.Millisecond) }

func newBacklog(t *testing.T) *backlog {
	t.Helper()
	pool, err := postgres.Open(t.Context(), postgres.Config{DSN: testkit.Postgres(t), ConnsMax: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := postgres.Migrate(t.Context(), pool, ledger.Migrations("")); err != nil {
		t.Fatal(err)
	}
	b := &backlog{t: t, store: ledger.Open(pool, ledger.Config{Timeout: time.Minute}), size: backlogEffects}
	if text := os.Getenv(backlogVariable); text != "" {
		if b.size, err = strconv.ParseInt(text, 10, 64); err != nil || b.size < backlogEffects {
			t.Fatalf("%s is %q, want a number of effects from %d on: of fewer nothing is stowed", backlogVariable, text, backlogEffects)
		}
	}
	b.called, b.last = make([]bool, b.size), make([]int64, b.size/backlogPerKey)
	b.live[0].Name = "/gc/heap/live:bytes"
	b.down.Store(true)
	return b
}

func (b *backlog) fill() {
	b.t.Helper()
	const each = 1000
	if err := b.store.Seed(b.t.Context(), lane, topicID, 0); err != nil {
		b.t.Fatal(err)
	}
	body := make([]byte, 200)
	for base := int64(0); base < b.size; base += each {
		batch := &outbox.Batch{Lane: lane, TopicID: topicID, Base: base, Next: min(base+each, b.size)}
		for offset := base; offset < batch.Next; offset++ {
			one := intent(offset, fmt.Sprint("key-", offset%int64(len(b.last))))
			one.Body = body
			if offset%backlogEach == backlogEach-1 {
				one.Endpoint, one.Key = "other", nil
			}
			batch.Intents = append(batch.Intents, one)
		}
		if err := b.store.Append(b.t.Context(), batch); err != nil {
			b.t.Fatal(err)
		}
	}
}

// Send is a call of either endpoint.
func (b *backlog) Send(_ context.Context, call outbox.Call) outbox.Answer {
	if call.Intent.Endpoint == "shop" && b.down.Load() {
		return status(503)
	}
	offset := call.Intent.Offset
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.called[offset] {
		b.wrong = append(b.wrong, fmt.Sprintf("%d was called twice", offset))
	}
	b.called[offset] = true
	if len(call.Intent.Key) == 0 {
		b.other.Add(1)
		return ok()
	}
	key := offset % int64(len(b.last))
	if before := b.last[key]; before > offset {
		b.wrong = append(b.wrong, fmt.Sprintf("%d was called after %d of the same key", offset, before))
	}
	b.last[key] = offset
	return ok()
}

// start lets an owner deliver.
func (b *backlog) start(owner string) (stop func()) {
	b.t.Helper()
	at := dispatch.Endpoint{Target: b, Timeout: 5 * time.Second, AttemptsMax: 1000, AgeMax: 24 * time.Hour, Concurrency: 64, OnDead: dispatch.Continue}
	d, err := dispatch.New(dispatch.Config{
		Store: b.store, Owner: owner, LeaseTTL: 30 * time.Second, Workers: 128, DrainTimeout: 10 * time.Second, StrangerAgeMax: time.Hour,
		Endpoints: map[string]dispatch.Endpoint{"shop": at, "other": at},
		Hooks: dispatch.Hooks{
			Flushed:  func(f dispatch.Flushed) { b.settled.Add(int64(f.Results)); b.measure() },
			Retrying: func(_ int32, err error) { b.t.Logf("the store failed: %v", err) },
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.process = d
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	d.Assign(lane)
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(stop)
	return stop
}

func (b *backlog) await(what string, done func(dispatch.LaneStatus) bool) {
	b.t.Helper()
	testkit.WaitFor(b.t, backlogTimeout, "the backlog to be "+what, func() bool {
		lanes := b.process.Status().Lanes
		return len(lanes) == 1 && done(lanes[0])
	})
}

// measure notes how much of the heap is in use. The first time it is what was there before.
func (b *backlog) measure() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.before == 0 {
		runtime.GC()
	}
	metrics.Read(b.live[:])
	b.peak = max(b.peak, b.live[0].Value.Uint64())
	if b.before == 0 {
		b.before = b.peak
	}
}

// grew gives by how many KiB.
func (b *backlog) grew() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return (b.peak - b.before) >> 10
}

// check reads the ledger: each effect has one fate, and nothing is left.
func (b *backlog) check() {
	b.t.Helper()
	for _, wrong := range b.wrong[:min(len(b.wrong), 10)] {
		b.t.Error(wrong)
	}
	seen, after := make([]bool, b.size), int64(0)
	for {
		results, err := b.store.Results(b.t.Context(), lane, after, 10)
		if err != nil {
			b.t.Fatal(err)
		}
		if len(results) == 0 {
			break
		}
		for i := range results {
			o := &results[i].Outcome
			if seen[o.Offset] || o.Status != outbox.Done || !b.called[o.Offset] {
				b.t.Fatalf("%d is %s in flush %d; told before: %t, called: %t", o.Offset, o.Status, results[i].Seq, seen[o.Offset], b.called[o.Offset])
			}
			seen[o.Offset] = true
		}
		after = results[len(results)-1].Seq
	}
	for offset, is := range seen {
		if !is {
			b.t.Fatalf("%d has no fate", offset)
		}
	}
	tenure, err := b.store.Acquire(b.t.Context(), lane, "last", time.Minute)
	if err != nil {
		b.t.Fatal(err)
	}
	if r, err := b.store.Recover(b.t.Context(), tenure); err != nil || len(r.Parked) > 0 || r.Low != b.size {
		b.t.Errorf("a new owner finds %d parked ones and the low mark at %d of %d: %v", len(r.Parked), r.Low, b.size, err)
	}
}
