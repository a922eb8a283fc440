package dispatch_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/outbox/dispatch"
	"pawl/internal/outbox/ledger/ledgertest"
)

// plan is what happens to a lane. Everything that isn't in it follows from the seed.
type plan struct {
	seed    uint64
	intents int
	keys    int
	batch   int
	fails   float64 // share of the store's calls that fail, half of them after they have done what they do
	answers int     // of 10 answers, how many are a plain success
	crashes int     // processes that end without a word
	once    bool    // some are at-most-once
	spread  time.Duration
	kept    int  // parked ones in memory, 0 for as many as usual
	down    bool // one of two endpoints, until it is calm
}

func drawPlan(t *rapid.T) plan {
	return plan{
		seed:    rapid.Uint64().Draw(t, "seed"),
		intents: rapid.IntRange(1, 150).Draw(t, "intents"),
		keys:    rapid.IntRange(1, 20).Draw(t, "keys"),
		batch:   rapid.IntRange(1, 40).Draw(t, "batch"),
		fails:   rapid.SampledFrom([]float64{0, 0, 0.02, 0.2, 0.5}).Draw(t, "fails"),
		answers: rapid.IntRange(1, 10).Draw(t, "answers"),
		crashes: rapid.IntRange(0, 4).Draw(t, "crashes"),
		once:    rapid.Bool().Draw(t, "once"),
		spread:  rapid.SampledFrom([]time.Duration{0, 100 * time.Millisecond, 5 * time.Second}).Draw(t, "spread"),
		kept:    rapid.SampledFrom([]int{0, 1, 2, 8, 30}).Draw(t, "kept"),
		down:    rapid.Bool().Draw(t, "down"),
	}
}

// life is one process. Once it has died nothing of what it does reaches anybody.
type life struct {
	dispatch.Store

	mu   sync.Mutex
	dead bool
}

func (l *life) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

func (l *life) die() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
}

func (l *life) Acquire(ctx context.Context, lane int32, owner string, ttl time.Duration) (outbox.Tenure, error) {
	if l.over() {
		return outbox.Tenure{}, errInjected
	}
	return l.Store.Acquire(ctx, lane, owner, ttl)
}

func (l *life) Renew(ctx context.Context, tenure outbox.Tenure, ttl time.Duration) (outbox.Tenure, []outbox.Order, error) {
	if l.over() {
		return tenure, nil, errInjected
	}
	return l.Store.Renew(ctx, tenure, ttl)
}

func (l *life) Release(ctx context.Context, tenure outbox.Tenure) error {
	if l.over() {
		return errInjected
	}
	return l.Store.Release(ctx, tenure)
}

func (l *life) Begin(ctx context.Context, tenure outbox.Tenure, sending []outbox.Sending) error {
	if l.over() {
		return errInjected
	}
	return l.Store.Begin(ctx, tenure, sending)
}

func (l *life) Flush(ctx context.Context, flush outbox.Flush) error {
	if l.over() {
		return errInjected
	}
	return l.Store.Flush(ctx, flush)
}

// run is one run of a plan.
type run struct {
	plan

	store *ledgertest.Memory
	shop  *endpoint

	mu       sync.Mutex
	random   *rand.Rand
	calm     bool // no more faults
	problems []string
	faults   int
	repeats  int // of calls whose answer had decided
	stowed   int // the most that were parked and not in memory
	decided  map[int64]int
	done     []outbox.Intent // by the endpoint, in this order
}

func (r *run) problem(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

func (r *run) calmed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calm
}

func (r *run) chance(share float64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.calm && r.random.Float64() < share
}

func (r *run) n(below int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.random.IntN(below)
}

func (r *run) fail(_ string, after bool) error {
	share := r.fails / 2
	if r.chance(share) {
		r.mu.Lock()
		r.faults++
		r.mu.Unlock()
		return fmt.Errorf("after %t: %w", after, errInjected)
	}
	return nil
}

// respond is the endpoint. It keeps what it decided about an intent, as a receiver does that honours the
// Idempotency-Key, and may do what it is asked and lose the answer.
func (r *run) respond(ctx context.Context, call outbox.Call) outbox.Answer {
	if r.n(4) == 0 {
		if err := during(ctx, time.Duration(r.n(5500))*time.Millisecond); err != nil {
			return outbox.Answer{Err: err, Sent: true}
		}
	}
	if r.down && call.Intent.Endpoint == "other" && !r.calmed() {
		return noAnswer(false)
	}
	choice := r.n(8)
	switch choice {
	case 0:
		return noAnswer(false)
	case 1:
		return noAnswer(true)
	case 2:
		return status(503)
	case 3:
		return outbox.Answer{Status: 429, RetryAfter: time.Duration(r.n(90)) * time.Second, Sent: true}
	}
	decided := r.decide(call.Intent)
	if choice == 4 && r.n(10) >= r.answers {
		return noAnswer(true) // it is done, and nobody hears of it
	}
	return status(decided)
}

func (r *run) decide(i outbox.Intent) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if decided := r.decided[i.Offset]; decided != 0 {
		return decided
	}
	decided := 200
	if r.random.IntN(10) >= r.answers {
		decided = 422
	} else {
		r.done = append(r.done, i)
	}
	r.decided[i.Offset] = decided
	return decided
}

// process is the store and the endpoint as one process has them.
func (r *run) process(owner string) (*life, dispatch.Config) {
	l := &life{Store: r.store}
	shop := dispatch.Endpoint{
		Target: mortal{l, r.shop}, Timeout: 5 * time.Second, AttemptsMax: 8, AgeMax: 20 * time.Minute, Concurrency: 6, OnDead: dispatch.Continue,
	}
	return l, dispatch.Config{
		Store: l, Owner: owner, LeaseTTL: 12 * time.Second, Workers: 8, DrainTimeout: 2 * time.Second, StrangerAgeMax: time.Hour,
		Endpoints: map[string]dispatch.Endpoint{"shop": shop, "other": shop},
		Hooks: dispatch.Hooks{Retrying: func(_ int32, err error) {
			if !isInjected(err) {
				r.problem("the store refused: %v", err)
			}
		}},
	}
}

// mortal makes no calls for a dead process, and loses the answers of those under way.
type mortal struct {
	life *life
	shop *endpoint
}

func (m mortal) Send(ctx context.Context, call outbox.Call) outbox.Answer {
	if m.life.over() {
		return noAnswer(false)
	}
	return m.shop.Send(ctx, call)
}

func (r *run) make() []outbox.Intent {
	intents := make([]outbox.Intent, r.intents)
	offset := int64(0)
	for i := range intents {
		offset += int64(1 + r.n(3)/2)
		one := intent(offset, "")
		if k := r.n(r.keys + 1); k > 0 {
			one.Key = fmt.Appendf(nil, "key-%d", k)
		}
		if r.once && r.n(3) == 0 {
			one.Class = message.AtMostOnce
		}
		if r.n(3) == 0 {
			one.Endpoint = "other"
		}
		if r.n(15) == 0 {
			one.BusinessKey = strconv.Itoa(r.n(3))
		}
		intents[i] = one
	}
	return intents
}

// play runs a plan to its end.
func (r *run) play() {
	ctx := context.Background()
	if err := r.store.Seed(ctx, lane, topicID, 0); err != nil {
		r.problem("%v", err)
	}
	r.store.Fail = r.fail
	intents := r.make()
	pace, next := r.spread, int64(0)
	owner := 0
	var alive *dispatch.Dispatcher
	var stop context.CancelFunc
	var life *life
	var group sync.WaitGroup
	begin := func() {
		owner++
		l, config := r.process(strconv.Itoa(owner))
		d, err := dispatch.New(config)
		if err != nil {
			r.problem("%v", err)
			return
		}
		if r.kept > 0 {
			d.KeepParked(r.kept)
		}
		running, cancel := context.WithCancel(ctx)
		group.Go(func() { _ = d.Run(running) })
		d.Assign(lane) //nolint:contextcheck // it has that of Run
		alive, stop, life = d, cancel, l
	}
	crash := func() {
		life.die()
		stop()
		begin()
	}
	begin()
	for len(intents) > 0 {
		part := intents[:min(len(intents), 1+r.n(r.batch))]
		intents = intents[len(part):]
		b := &outbox.Batch{Lane: lane, TopicID: topicID, Base: next, Next: part[len(part)-1].Offset + 1, Intents: slices.Clone(part)}
		r.append(b)
		next = b.Next
		if r.n(3) > 0 {
			alive.Offer(*b)
		}
		sleep(pace)
		for _, s := range alive.Status().Lanes {
			r.stowed = max(r.stowed, s.Stowed)
		}
		if r.n(4) == 0 {
			sleep(time.Duration(r.n(20_000)) * time.Millisecond)
		}
		if r.crashes > 0 && r.n(3) == 0 {
			r.crashes--
			crash()
		}
	}
	for ; r.crashes > 0; r.crashes-- {
		sleep(time.Duration(r.n(40_000)) * time.Millisecond)
		crash()
	}
	sleep(time.Minute)
	r.mu.Lock()
	r.calm = true
	r.mu.Unlock()
	for range 20 { // one that is tried again and again takes half an hour; with few in memory they do so one after the other
		if sleep(45 * time.Minute); r.over() {
			break
		}
	}
	stop()
	group.Wait()
}

// over reports whether every intent has its fate.
func (r *run) over() bool {
	results, err := r.store.Results(context.Background(), lane, 0, 1<<30)
	return err == nil && len(results) >= r.intents
}

// append repeats until the ledger has the batch, as an ingester does.
func (r *run) append(b *outbox.Batch) {
	for {
		_ = r.store.Append(context.Background(), b)
		head, err := r.store.Head(context.Background(), b.Lane)
		if err == nil && head.Next == b.Next {
			return
		}
	}
}

// check holds what happened against the promises.
func (r *run) check() {
	results, err := r.store.Results(context.Background(), lane, 0, 1<<30)
	if err != nil {
		r.problem("%v", err)
	}
	fates := map[int64]outbox.Outcome{}
	for _, result := range results {
		if before, again := fates[result.Outcome.Offset]; again {
			r.problem("%d is %s and then %s", result.Outcome.Offset, before.Status, result.Outcome.Status)
		}
		fates[result.Outcome.Offset] = result.Outcome
	}
	byIntent, byKey := map[int64][]transmission{}, map[string][]transmission{}
	for _, c := range r.shop.seen() {
		byIntent[c.Intent.Offset] = append(byIntent[c.Intent.Offset], c)
		if key := string(c.Intent.Key); key != "" {
			byKey[key] = append(byKey[key], c)
		}
	}
	for _, i := range r.store.Intents(lane) {
		fate, settled := fates[i.Offset]
		if !settled {
			r.problem("%d is lost", i.Offset)
			continue
		}
		r.checkIntent(i, fate, byIntent[i.Offset])
	}
	for key, calls := range byKey {
		r.checkKey(key, calls)
	}
	r.checkOrder()
	r.checkResults(results)
}

// checkResults wants the fates of a key in the order of its intents, as they are told; but what is never sent may come early.
func (r *run) checkResults(results []outbox.Result) {
	last := map[string]int64{}
	for _, result := range results {
		key := string(result.Intent.Key)
		if key == "" || result.Intent.Twin != nil {
			continue
		}
		if before, told := last[key]; told && result.Outcome.Offset < before {
			r.problem("%s: %d is told after %d", key, result.Outcome.Offset, before)
		}
		last[key] = result.Outcome.Offset
	}
}

func (r *run) checkIntent(i outbox.Intent, fate outbox.Outcome, calls []transmission) {
	sent, done := 0, r.decided[i.Offset] == 200
	for n, c := range calls {
		if c.answer.Sent {
			sent++
		}
		if c.Intent.ID != i.ID || !bytes.Equal(c.Intent.Body, i.Body) {
			r.problem("%d was called with other bytes", i.Offset)
		}
		if n == 0 {
			continue
		}
		// A call whose answer decided was repeated: only another tenure may do that, and only because
		// what the first one knew was lost.
		before := calls[n-1]
		final := before.answer.Status == 200 || before.answer.Status == 422
		if final {
			r.repeats++
		}
		if final && (c.Fence <= before.Fence || r.faults == 0 && !r.crashed()) {
			r.problem("%d was answered %d under epoch %d and called again under %d", i.Offset, before.answer.Status, before.Fence, c.Fence)
		}
	}
	once := i.Class == message.AtMostOnce
	switch {
	case i.Twin != nil:
		want := outbox.Conflict
		if i.Twin.Same {
			want = outbox.Duplicate
		}
		if fate.Status != want || len(calls) > 0 {
			r.problem("%d is %s after %d calls, want %s without any", i.Offset, fate.Status, len(calls), want)
		}
	case once && sent > 1:
		r.problem("%d is at-most-once and was transmitted %d times", i.Offset, sent)
	case !once && fate.Status == outbox.Unknown:
		r.problem("%d is unknown", i.Offset)
	case fate.Status == outbox.Done && !done:
		r.problem("%d is done and never was", i.Offset)
	case fate.Status == outbox.Dead && done && !once && !strings.Contains(fate.Error, "gave up"):
		r.problem("%d is dead after it was done", i.Offset)
	}
}

func (r *run) crashed() bool { return r.crashes != 0 }

// checkKey wants one call at a time.
func (r *run) checkKey(key string, calls []transmission) {
	for n, c := range calls {
		if n > 0 && c.begun.Before(calls[n-1].ended) {
			r.problem("%s: %d began before %d had ended", key, c.Intent.Offset, calls[n-1].Intent.Offset)
		}
	}
}

// checkOrder wants what the endpoint did first for each intent by offset within a key.
func (r *run) checkOrder() {
	highest := map[string]int64{}
	for _, i := range r.done {
		key := string(i.Key)
		if key != "" && i.Offset < highest[key] {
			r.problem("%s: %d was done after %d", key, i.Offset, highest[key])
		}
		highest[key] = max(highest[key], i.Offset)
	}
}

// Whatever endpoints answer, whenever processes die, however the store fails: what is promised holds.
func TestPromisesHoldUnderFaults(t *testing.T) {
	t.Parallel()
	faults, crashes, repeats, stowed := 0, 0, 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPlan(rt)
		r := &run{plan: p, store: &ledgertest.Memory{RecoveredMax: p.kept}, shop: &endpoint{}, random: rand.New(rand.NewPCG(p.seed, 1)), decided: map[int64]int{}}
		r.shop.answer = r.respond
		synctest.Test(t, func(*testing.T) { r.play() })
		r.plan = p
		r.check()
		if len(r.problems) > 0 {
			rt.Fatalf("%d problems, first ones: %q", len(r.problems), r.problems[:min(5, len(r.problems))])
		}
		faults, crashes, repeats, stowed = faults+r.faults, crashes+p.crashes, repeats+r.repeats, stowed+r.stowed
	})
	if faults == 0 || crashes == 0 || repeats == 0 || stowed == 0 {
		t.Errorf("%d faults of the store, %d deaths, %d repeats of decided calls, %d not kept in memory: too few to show anything", faults, crashes, repeats, stowed)
	}
}

// A backlog of any size is read as far as there is room for it, whatever does not move: the endpoint
// hangs, or the breaker is open, or the store takes no flush.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	for name, hinder := range map[string]func(w *world){
		"the endpoint hangs": func(w *world) {
			w.change(func(e *dispatch.Endpoint) { e.Timeout, e.Rate = 9*time.Second, 1 })
		},
		"the endpoint is down": func(w *world) {
			w.shop.answer = func(context.Context, outbox.Call) outbox.Answer { return status(503) }
		},
		"no flush succeeds": func(w *world) {
			w.store.Fail = func(method string, _ bool) error {
				if method == "Flush" {
					return errInjected
				}
				return nil
			}
		},
		"a flush is slow": func(w *world) {
			var once sync.Once
			w.store.Fail = func(method string, _ bool) error {
				if method == "Flush" {
					once.Do(func() { sleepAlone(9 * time.Second) })
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(w *world) {
				hinder(w)
				const backlog = 60_000
				keys := make([]string, 1000)
				for i := range keys {
					keys[i] = fmt.Sprint("key-", i)
				}
				for range backlog / len(keys) {
					w.keys(keys...)
				}
				p := w.start()
				for second := range 60 {
					sleep(time.Second)
					if n := len(w.shop.seen()); name == "a flush is slow" && second < 8 && n > 4096 {
						t.Fatalf("%d calls while one flush was under way", n)
					}
					s := p.Status().Lanes[0]
					if s.Window > 4096 || s.Parked > 9*4096 || s.Stowed > 0 || s.InFlight > 16 {
						t.Fatalf("too much is in memory: %+v", s)
					}
				}
				if n := len(w.shop.seen()); name == "no flush succeeds" && (n == 0 || n > 4096) {
					t.Errorf("%d calls were made whose results could not be written down", n)
				}
				w.end(p)
			})
		})
	}
}

func sleepAlone(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // virtual time
