package dispatch_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"pawl/internal/outbox"
	"pawl/internal/outbox/dispatch"
)

// pair is a world with two endpoints and an idle one, of which the two can be taken down, and a bound of parked intents in memory that is soon
// reached.
type pair struct {
	*world

	other               *endpoint
	shopDown, otherDown atomic.Bool
	made                int
}

const kept = 400 // parked ones in memory

func newPair(w *world) *pair {
	p := &pair{world: w, other: &endpoint{}}
	w.parkedMax, w.store.RecoveredMax = kept, kept
	down := func(is *atomic.Bool) func(context.Context, outbox.Call) outbox.Answer {
		return func(ctx context.Context, _ outbox.Call) outbox.Answer {
			if err := during(ctx, time.Millisecond); err != nil {
				return outbox.Answer{Err: err, Sent: true}
			}
			if is.Load() {
				return status(503)
			}
			return ok()
		}
	}
	w.change(func(e *dispatch.Endpoint) { e.AttemptsMax = 1000 })
	w.shop.answer, p.other.answer = down(&p.shopDown), down(&p.otherDown)
	w.config.Endpoints["other"] = w.endpoint(p.other)
	w.config.Endpoints["third"] = w.endpoint(&endpoint{}) // there is always one that can be called
	return p
}

// ask ingests intents for the shop, some keys over and over, and after each ten of them two for the other endpoint, one with a key
// of its own and one without a key.
func (p *pair) ask(n int) { p.askEach(n, 10) }

// askEach is ask with another number than ten.
func (p *pair) askEach(n, each int) {
	p.t.Helper()
	intents := make([]outbox.Intent, 0, n+n/5)
	add := func(endpoint, key string) {
		one := intent(p.next+int64(len(intents)), key)
		one.Endpoint = endpoint
		intents = append(intents, one)
		p.made++
	}
	for i := range n {
		add("shop", fmt.Sprint("shop-", p.made%97))
		if i%each == each-1 {
			add("other", fmt.Sprint("other-", p.made))
			add("other", "")
		}
	}
	p.ingest(intents...)
}

// One endpoint is down for long, and of its effects more wait than a lane keeps in memory, by far. The other
// endpoint of the lane never notices; memory does not grow; what waits is delivered in the order of its keys afterwards.
func TestAnEndpointThatIsDownStopsNoOther(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		p := newPair(w)
		p.shopDown.Store(true)
		d := w.start()
		const rounds, each = 20, 500
		for round := range rounds {
			p.ask(each)
			sleep(30 * time.Second)
			if got, want := len(p.other.seen()), (round+1)*each/5; got != want {
				t.Errorf("round %d: %d calls of the other endpoint, want %d: %+v", round, got, want, d.Status().Lanes)
			}
		}
		s := d.Status().Lanes[0]
		if s.Parked > kept/3+4096 || s.Stowed < 5000 || s.Stowed+s.Parked+s.Window < rounds*each {
			t.Errorf("the lane has %+v", s)
		}
		p.shopDown.Store(false)
		sleep(30 * time.Minute)
		p.finished(d)
		w.end(d)
	})
}

// finished checks that all is delivered, once, in the order of keys, and nothing is left behind in memory.
func (p *pair) finished(d *process) {
	p.t.Helper()
	done := 0
	for offset, all := range p.outcomes() {
		if len(all) != 1 || all[0].Status != outbox.Done {
			p.t.Errorf("%d ended as %+v", offset, all)
		}
		done++
	}
	if done != p.made {
		p.t.Errorf("%d are done, want %d", done, p.made)
	}
	assertOrder(p.t, p.world)
	if s := d.Status().Lanes[0]; s.Parked+s.Stowed+s.Window != 0 {
		p.t.Errorf("the lane still has %+v", s)
	}
	if r := p.recovery(); len(r.Parked) != 0 || r.Low != p.next {
		p.t.Errorf("recovery is %+v, want nothing and low %d", r, p.next)
	}
}

// Both endpoints are down, each with more waiting than fits. Whoever comes back first is delivered all of it while the other
// one is still down, and so is what comes new.
func TestWhoComesBackFirstWaitsForNobody(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"shop", "other"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(w *world) {
				p := newPair(w)
				p.shopDown.Store(true)
				d := w.start()
				for range 10 {
					p.ask(500)
					sleep(10 * time.Second)
				}
				p.otherDown.Store(true)
				for range 10 {
					p.askEach(500, 1)
					sleep(10 * time.Second)
				}
				back, seen, want := &p.otherDown, p.other, 10*100+10*1000
				if first == "shop" {
					back, seen, want = &p.shopDown, w.shop, p.made-want
				}
				if d.Status().Lanes[0].Stowed < 10_000 {
					t.Errorf("the lane has %+v: nothing is shown", d.Status().Lanes)
				}
				back.Store(false)
				sleep(30 * time.Minute)
				if got := succeeded(seen); got != want {
					t.Errorf("%d calls of the one that is back succeeded, want %d: %+v", got, want, d.Status())
				}
				p.ask(500)
				sleep(30 * time.Minute)
				p.shopDown.Store(false)
				p.otherDown.Store(false)
				sleep(30 * time.Minute)
				p.finished(d)
				w.end(d)
			})
		})
	}
}

func succeeded(e *endpoint) (n int) {
	for _, c := range e.seen() {
		if c.answer.Status == 200 {
			n++
		}
	}
	return n
}

// Keys have effects for both endpoints. Those for the one that is up wait for theirs of its own key, and only those, also where
// it was down itself.
func TestAStowedKeyIsInOrderAcrossEndpoints(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		p := newPair(w)
		p.shopDown.Store(true)
		d := w.start()
		free, waits := 0, map[string]bool{}
		ask := func(round int) {
			intents := make([]outbox.Intent, 600)
			for i := range intents {
				key := fmt.Sprint("both-", round/2, "-", i%151)
				intents[i] = intent(w.next+int64(i), key)
				switch {
				case i%3 != 2:
					waits[key] = true
				case !waits[key]:
					free++
					fallthrough
				default:
					intents[i].Endpoint = "other"
				}
			}
			p.made += len(intents)
			w.ingest(intents...)
			p.ask(100)
			sleep(20 * time.Second)
		}
		for round := range 10 {
			ask(round)
		}
		if n := len(p.other.seen()); n != 10*20+free || free == 0 {
			t.Errorf("%d calls of the other endpoint, want those of its own keys and %d that come before all others of theirs", n, free)
		}
		p.otherDown.Store(true)
		p.askEach(2500, 1)
		for round := range 10 {
			ask(10 + round)
		}
		p.otherDown.Store(false)
		sleep(30 * time.Minute)
		if n := succeeded(p.other); n != 20*20+5000+free {
			t.Errorf("%d calls of the other endpoint succeeded, want those of its own keys and %d that come before all others of theirs", n, free)
		}
		p.shopDown.Store(false)
		sleep(2 * time.Hour)
		p.finished(d)
		assertMixed(t, w.shop, p.other)
		w.end(d)
	})
}

// assertMixed checks the order of keys that have effects for several endpoints.
func assertMixed(t *testing.T, endpoints ...*endpoint) {
	t.Helper()
	var all []transmission
	for _, e := range endpoints {
		for _, c := range e.seen() {
			if c.answer.Status == 200 && len(c.Intent.Key) > 0 {
				all = append(all, c)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b transmission) int { return a.begun.Compare(b.begun) })
	last := map[string]transmission{}
	for _, c := range all {
		before, some := last[string(c.Intent.Key)]
		if some && (before.Intent.Offset > c.Intent.Offset || c.begun.Before(before.ended)) {
			t.Errorf("%d of key %s came after %d", c.Intent.Offset, c.Intent.Key, before.Intent.Offset)
		}
		last[string(c.Intent.Key)] = c
	}
}

// Whoever takes over a lane with more parked than it may have in memory goes on with the other endpoint, and keeps the order.
func TestATakeoverFindsMoreThanItKeeps(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		p := newPair(w)
		p.shopDown.Store(true)
		for round := range 6 {
			w.config.Owner = fmt.Sprint("owner-", round)
			d := w.start()
			p.ask(3000)
			sleep(time.Minute)
			if got, want := len(p.other.seen()), (round+1)*600; got != want {
				t.Errorf("tenure %d: %d calls of the other endpoint, want %d", round, got, want)
			}
			w.end(d)
		}
		const last = "of all" // nothing in memory has this key
		w.keys("shop-" + last)
		p.made++
		w.end2(w.start(), time.Minute)
		if r := w.recovery(); r.Rest >= r.Low || len(r.Parked) > kept+4096 {
			t.Errorf("a recovery brings %d parked ones, and the rest from %d below %d: nothing is shown", len(r.Parked), r.Rest, r.Low)
		}
		w.config.Owner = "last"
		d := w.start()
		behind := intent(w.next, "shop-"+last)
		behind.Endpoint = "other"
		w.ingest(behind)
		p.made++
		sleep(30 * time.Second)
		if got, want := len(p.other.seen()), 6*600; got != want {
			t.Errorf("the last tenure: %d calls of the other endpoint, want %d: this one comes behind one for the shop", got, want)
		}
		p.shopDown.Store(false)
		sleep(30 * time.Minute)
		p.finished(d)
		w.end(d)
	})
}

// An order about one that is parked and not in memory is carried out as for any other.
func TestOrdersOfStowedIntents(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		p := newPair(w)
		p.shopDown.Store(true)
		d := w.start()
		p.ask(5000)
		sleep(time.Minute)
		order := func(offset int64, action outbox.Action) {
			if err := w.store.Order(t.Context(), outbox.Order{Lane: lane, Offset: offset, Action: action, Reason: "as asked"}, "ann"); err != nil {
				t.Error(err)
			}
		}
		late := w.next - 10 // of a key that many come before
		order(late, outbox.Cancel)
		order(late-600, outbox.RetryNow)
		sleep(time.Minute)
		if n := w.orders(); n != 0 {
			t.Errorf("%d orders are open", n)
		}
		if got := w.fates(); got[late] != outbox.Dead || got[late-600] != "" {
			t.Errorf("they are %q and %q, want the first cancelled and the other one waiting", got[late], got[late-600])
		}
		order(late, outbox.RetryNow) // after all: it waits for those before it
		sleep(time.Minute)
		p.shopDown.Store(false)
		sleep(30 * time.Minute)
		if got := w.fates(); len(got) != p.made || got[late] != outbox.Done {
			t.Errorf("%d fates, want %d, and %q", len(got), p.made, got[late])
		}
		assertOrder(t, w)
		if s := d.Status().Lanes[0]; s.Parked+s.Stowed+s.Window != 0 {
			t.Errorf("the lane still has %+v", s)
		}
		w.end(d)
	})
}

// A flush is lost with fates of intents that stand in the ledger as parked, of which a new tenure is given the first ones only.
// What the process knows of the others counts as well: they are not called again, and not told after later ones of their key.
func TestWhatIsKnownOfTheStowedIsNotLost(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		const late = 8 // after a marker
		w.store.RecoveredMax = 2
		begun, lost := time.Now(), 0
		down := func() bool { return time.Since(begun) < 10*time.Second }
		w.shop.answer = func(context.Context, outbox.Call) outbox.Answer {
			if down() {
				return status(503)
			}
			return ok()
		}
		w.store.Fail = func(method string, after bool) error {
			if method == "Flush" && !after && lost == 0 && slices.Contains(w.shop.offsets(), late) {
				lost++
				return errInjected
			}
			return nil
		}
		w.keys("a", "a", "a", "a", "a", "a", "a") // those behind the first are parked with it
		p := w.start()
		sleep(9 * time.Second)
		if got := len(w.recovery().Parked); got != w.store.RecoveredMax || !down() {
			t.Fatalf("%d parked ones are given at once, want %d", got, w.store.RecoveredMax)
		}
		w.keys("a")
		sleep(time.Minute)
		if lost != 1 || w.counted("owned") != 2 {
			t.Fatalf("%d flushes were lost, counted %v", lost, w.counts)
		}
		calls := map[int64]int{}
		for _, c := range w.shop.seen() {
			if c.answer.Status == ok().Status {
				calls[c.Intent.Offset]++
			}
		}
		results, err := w.store.Results(t.Context(), lane, 0, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		last := int64(-1)
		for _, r := range results {
			if r.Outcome.Offset < last {
				t.Errorf("%d is told after %d", r.Outcome.Offset, last)
			}
			if last = r.Outcome.Offset; calls[last] != 1 {
				t.Errorf("%d was called %d times", last, calls[last])
			}
		}
		if len(results) != 8 {
			t.Errorf("%d results, want 8", len(results))
		}
		w.end(p)
	})
}
