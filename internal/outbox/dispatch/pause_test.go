package dispatch_test

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"pawl/internal/outbox"
	"pawl/internal/outbox/dispatch"
)

// pausedNames makes a list the answer for Pause.
func pausedNames(names ...string) func(string) bool {
	return func(endpoint string) bool { return slices.Contains(names, endpoint) }
}

// An endpoint is paused while it fails and more waits for it than fits in memory: no call reaches it, no attempt is
// used up, the other endpoint of the lane goes on, and afterwards all is delivered in the order of the keys.
func TestAPausedEndpointStopsNobodyElse(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		w.shop.answer = failTimes(1, status(503))
		other := &endpoint{}
		w.config.Endpoints["other"] = w.endpoint(other)
		p := w.start()
		w.keys("a", "b")
		sleep(10 * time.Millisecond)
		if n := len(w.shop.seen()); n != 2 {
			t.Fatalf("%d calls before the pause, want 2", n)
		}
		p.Pause(pausedNames("shop"))
		const rounds, each = 100, 60 // enough to fill the window
		for range rounds {
			intents := make([]outbox.Intent, 0, each)
			for i := range each {
				one := intent(w.next+int64(i), strconv.Itoa(i%12))
				if i == each-1 {
					one.Endpoint, one.Key = "other", nil
				}
				intents = append(intents, one)
			}
			w.ingest(intents...)
			p.Offer(*w.batch)
			sleep(20 * time.Second)
		}
		if n := len(w.shop.seen()); n != 2 {
			t.Errorf("%d calls of the paused endpoint, want those 2 from before", n)
		}
		if n := len(other.seen()); n != rounds {
			t.Errorf("%d calls of the other endpoint, want %d", n, rounds)
		}
		for _, e := range p.Status().Endpoints {
			if e.Paused != (e.Endpoint == "shop") || e.Breaker != dispatch.Closed {
				t.Errorf("status %+v", e)
			}
		}
		p.Pause(pausedNames())
		sleep(2 * time.Hour)
		if n := len(w.fates()); n != 2+rounds*each {
			t.Errorf("%d fates, want %d", n, 2+rounds*each)
		}
		for offset, outcomes := range w.outcomes() {
			if o := outcomes[0]; o.Status != outbox.Done || o.Attempts > 2 {
				t.Errorf("%d is %+v, want it done with at most 2 attempts", offset, o)
			}
		}
		assertOrder(t, w)
		w.end(p)
	})
}

// A call that is under way when its endpoint is paused goes on, and so does a lane that is taken up paused.
func TestAPauseLeavesCallsUnderWayAlone(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		w.shop.answer = func(ctx context.Context, _ outbox.Call) outbox.Answer {
			if err := during(ctx, time.Second); err != nil {
				return noAnswer(true)
			}
			return ok()
		}
		p := w.start()
		w.keys("a", "a")
		sleep(500 * time.Millisecond)
		p.Pause(pausedNames("shop"))
		sleep(time.Minute)
		if calls := w.shop.seen(); len(calls) != 1 || calls[0].answer.Status != 200 {
			t.Errorf("calls %+v, want the first one, answered", calls)
		}
		w.end(p)
		if n := len(w.fates()); n != 1 {
			t.Errorf("%d fates, want that of the first", n)
		}

		d, err := dispatch.New(w.config)
		if err != nil {
			t.Fatal(err)
		}
		d.Pause(pausedNames("shop")) // before it runs
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx) }()
		d.Assign(lane)
		sleep(time.Minute)
		if n := len(w.shop.seen()); n != 1 {
			t.Errorf("%d calls, and the successor began paused", n)
		}
		d.Pause(pausedNames())
		sleep(2 * time.Second)
		if n := len(w.fates()); n != 2 {
			t.Errorf("%d fates after the pause, want 2", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Effects that wait for a held endpoint are parked without an attempt. Their age counts from the first attempt, also under an
// owner that takes them over: the hold may have lasted longer than that.
func TestWhatWasNeverTriedDoesNotAge(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		w.change(func(e *dispatch.Endpoint) { e.AgeMax = time.Hour })
		w.config.Endpoints["other"] = w.endpoint(&endpoint{})
		w.shop.answer = func(_ context.Context, call outbox.Call) outbox.Answer {
			if call.Attempt == 1 && call.Intent.Offset%100 == 0 {
				return status(503)
			}
			return ok()
		}
		keys := make([]string, 3000) // enough to be put aside
		for i := range keys {
			keys[i] = strconv.Itoa(i)
		}
		w.keys(keys...)
		first := w.start()
		first.Pause(func(string) bool { return true })
		sleep(2 * time.Hour)
		w.end(first)
		if r := w.recovery(); len(r.Parked) < 1000 || len(w.shop.seen()) > len(keys)-1000 {
			t.Errorf("%d are parked after %d calls: nothing is shown", len(r.Parked), len(w.shop.seen()))
		}
		w.config.Owner = "b"
		second := w.start()
		sleep(30 * time.Minute)
		dead := 0
		for _, fate := range w.fates() {
			if fate != outbox.Done {
				dead++
			}
		}
		if n := len(w.fates()); n != len(keys) || dead > 0 {
			t.Errorf("%d fates, %d of them not done, want %d that are done", n, dead, len(keys))
		}
		w.end(second)
	})
}
