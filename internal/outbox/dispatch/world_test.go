package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/outbox/dispatch"
	"pawl/internal/outbox/ledger/ledgertest"
)

var topicID = [16]byte{7}

const lane = int32(3)

var errInjected = errors.New("connection lost")

// transmission is one call as an endpoint saw it.
type transmission struct {
	outbox.Call

	begun, ended time.Time
	answer       outbox.Answer
}

// endpoint records its calls and answers as the test says.
type endpoint struct {
	answer func(ctx context.Context, call outbox.Call) outbox.Answer // nil: 200

	mu    sync.Mutex
	calls []*transmission
}

func (e *endpoint) Send(ctx context.Context, call outbox.Call) outbox.Answer {
	seen := &transmission{Call: call, begun: time.Now()}
	e.mu.Lock()
	e.calls = append(e.calls, seen)
	e.mu.Unlock()
	answer := ok()
	if e.answer != nil {
		answer = e.answer(ctx, call)
	}
	e.mu.Lock()
	seen.ended, seen.answer = time.Now(), answer
	e.mu.Unlock()
	return answer
}

func (e *endpoint) seen() []transmission {
	e.mu.Lock()
	defer e.mu.Unlock()
	calls := make([]transmission, len(e.calls))
	for i, c := range e.calls {
		calls[i] = *c
	}
	return calls
}

// offsets lists what was called, in the order in which it began.
func (e *endpoint) offsets() []int64 {
	var offsets []int64
	for _, c := range e.seen() {
		offsets = append(offsets, c.Intent.Offset)
	}
	return offsets
}

func ok() outbox.Answer { return outbox.Answer{Status: http.StatusOK, Sent: true} }

func status(code int) outbox.Answer { return outbox.Answer{Status: code, Sent: true} }

func noAnswer(sent bool) outbox.Answer {
	return outbox.Answer{Err: errors.New("connection reset"), Sent: sent}
}

// failTimes answers with a failure so often to each intent, and with 200 then.
func failTimes(n int, failure outbox.Answer) func(context.Context, outbox.Call) outbox.Answer {
	return func(_ context.Context, call outbox.Call) outbox.Answer {
		if call.Attempt <= n {
			return failure
		}
		return ok()
	}
}

// during waits as long as a call takes.
func during(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// world is a ledger, an endpoint and dispatchers between them, in a bubble.
type world struct {
	t      testing.TB
	store  *ledgertest.Memory
	shop   *endpoint
	config dispatch.Config
	next   int64
	batch  *outbox.Batch // the last one that was ingested

	parkedMax int // in place of the dispatcher's own

	mu      sync.Mutex
	settled []dispatch.Settled
	breaker []dispatch.State
	counts  map[string]int
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, store: &ledgertest.Memory{}, shop: &endpoint{}, counts: map[string]int{}}
	if err := w.store.Seed(context.Background(), lane, topicID, 0); err != nil {
		t.Fatal(err)
	}
	w.config = dispatch.Config{
		Store: w.store, Owner: "a", LeaseTTL: 15 * time.Second, Workers: 32, DrainTimeout: 5 * time.Second, StrangerAgeMax: time.Hour,
		Endpoints: map[string]dispatch.Endpoint{"shop": w.endpoint(w.shop)},
		Hooks: dispatch.Hooks{
			Settled: func(s dispatch.Settled) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.settled = append(w.settled, s)
			},
			Breaker: func(b dispatch.Breaker) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.breaker = append(w.breaker, b.State)
			},
			Fenced: func(int32, int64) { w.count("fenced") },
			Owned:  func(int32, int64) { w.count("owned") },
			Lost:   func(int32, int64) { w.count("lost") },
			Retrying: func(_ int32, err error) { // the ledger in memory refuses what is unsound
				if !isInjected(err) {
					t.Errorf("the store refused: %v", err)
				}
				w.count("retrying")
			},
			Parked:  func(dispatch.Parked) { w.count("parked") },
			Flushed: func(dispatch.Flushed) { w.count("flushed") },
		},
	}
	return w
}

func (w *world) count(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[what]++
}

func (w *world) counted(what string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts[what]
}

func (w *world) endpoint(target dispatch.Target) dispatch.Endpoint {
	return dispatch.Endpoint{Target: target, Timeout: 5 * time.Second, AttemptsMax: 20, AgeMax: 24 * time.Hour, Concurrency: 16, OnDead: dispatch.Continue}
}

// change alters the endpoint shop.
func (w *world) change(f func(e *dispatch.Endpoint)) {
	e := w.config.Endpoints["shop"]
	f(&e)
	w.config.Endpoints["shop"] = e
}

func intent(offset int64, key string) outbox.Intent {
	source := message.Source{Application: "test", Topic: "orders", TopicID: topicID, Offset: offset}
	i := outbox.Intent{
		Lane: lane, Offset: offset, ID: source.ID(0), Source: source, Endpoint: "shop", Class: message.AtLeastOnce,
		ContentType: "application/json", Body: fmt.Appendf(nil, `{"n":%d}`, offset), At: time.Now(),
	}
	if key != "" {
		i.Key = []byte(key)
	}
	return i
}

// ingest appends intents at the next offsets.
func (w *world) ingest(intents ...outbox.Intent) {
	w.t.Helper()
	b := &outbox.Batch{Lane: lane, TopicID: topicID, Base: w.next, Next: w.next + 1, Intents: intents}
	if len(intents) > 0 {
		b.Next = intents[len(intents)-1].Offset + 2 // a marker of the transaction follows
	}
	if err := w.store.Append(context.Background(), b); err != nil {
		w.t.Fatal(err)
	}
	w.next, w.batch = b.Next, b
}

// keys ingests one intent for each key.
func (w *world) keys(keys ...string) {
	w.t.Helper()
	intents := make([]outbox.Intent, len(keys))
	for i, key := range keys {
		intents[i] = intent(w.next+int64(i), key)
	}
	w.ingest(intents...)
}

// process is a dispatcher that runs.
type process struct {
	*dispatch.Dispatcher

	stop context.CancelFunc
	done chan error
}

func (w *world) start() *process {
	w.t.Helper()
	d, err := dispatch.New(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{Dispatcher: d, stop: cancel, done: make(chan error, 1)}
	go func() { p.done <- d.Run(ctx) }()
	if w.parkedMax > 0 {
		d.KeepParked(w.parkedMax)
	}
	d.Assign(lane)
	return p
}

func (w *world) end(p *process) {
	w.t.Helper()
	p.stop()
	if err := <-p.done; err != nil {
		w.t.Error(err)
	}
}

// outcomes gives all that were written down, by offset.
func (w *world) outcomes() map[int64][]outbox.Outcome {
	w.t.Helper()
	results, err := w.store.Results(context.Background(), lane, 0, 1<<30)
	if err != nil {
		w.t.Fatal(err)
	}
	outcomes := map[int64][]outbox.Outcome{}
	for _, r := range results {
		outcomes[r.Outcome.Offset] = append(outcomes[r.Outcome.Offset], r.Outcome)
	}
	return outcomes
}

// fates gives the last status of each offset.
func (w *world) fates() map[int64]outbox.Status {
	fates := map[int64]outbox.Status{}
	for offset, all := range w.outcomes() {
		fates[offset] = all[len(all)-1].Status
	}
	return fates
}

// recovery is what a new owner would find.
func (w *world) recovery() outbox.Recovery {
	w.t.Helper()
	clone := w.store.Clone()
	tenure, err := clone.Acquire(context.Background(), lane, w.config.Owner, time.Minute)
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := clone.Recover(context.Background(), tenure)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// sleep lets virtual time go by, and all that happens meanwhile.
func sleep(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // virtual time
	synctest.Wait()
}

// bubble runs a test in virtual time.
func bubble(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(newWorld(t)) })
}

// isInjected reports whether a test made an error, or a tenure ended by it.
func isInjected(err error) bool {
	return errors.Is(err, errInjected) || errors.Is(err, context.DeadlineExceeded)
}
