package dispatch_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/outbox/dispatch"
)

func TestEveryIntentIsSentOnceAndWrittenDown(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		w.keys("a", "b", "a", "c", "")
		p := w.start()
		sleep(time.Second)
		w.keys("a", "", "")
		p.Offer(*w.batch)
		sleep(time.Second)
		fates := w.fates()
		for _, i := range w.store.Intents(lane) {
			if fates[i.Offset] != outbox.Done {
				t.Errorf("%d is %q, want done", i.Offset, fates[i.Offset])
			}
		}
		if n := len(w.shop.seen()); n != 8 {
			t.Errorf("%d calls, want 8: %v", n, w.shop.offsets())
		}
		if r := w.recovery(); r.Low != w.next || len(r.Parked) != 0 {
			t.Errorf("recovery is %+v, want low %d", r, w.next)
		}
		w.end(p)
	})
}

// Intents of a key go one after the other, by offset; keys go beside each other.
func TestKeysAreInOrderAndBesideEachOther(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		w.shop.answer = func(ctx context.Context, _ outbox.Call) outbox.Answer {
			if err := during(ctx, time.Second); err != nil {
				return outbox.Answer{Err: err, Sent: true}
			}
			return ok()
		}
		w.keys("a", "a", "b", "a", "b", "")
		p := w.start()
		sleep(500 * time.Millisecond)
		if got := w.shop.offsets(); len(got) != 3 {
			t.Errorf("%v are under way, want the first of each key", got)
		}
		sleep(10 * time.Second)
		assertOrder(t, w)
		if n := len(w.fates()); n != 6 {
			t.Errorf("%d fates, want 6", n)
		}
		w.end(p)
	})
}

// Nine of ten intents have one key, each call of which takes a second: the others do not wait for them, wherever
// they stand in between, and the hot key is in order.
func TestAHotKeyHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		w.shop.answer = func(ctx context.Context, call outbox.Call) outbox.Answer {
			if string(call.Intent.Key) == "hot" {
				if err := during(ctx, time.Second); err != nil {
					return outbox.Answer{Err: err, Sent: true}
				}
			}
			return ok()
		}
		keys, cold := make([]string, 1000), 0
		for i := range keys {
			if keys[i] = "hot"; i%10 == 9 {
				keys[i] = fmt.Sprint("cold-", i)
				cold++
			}
		}
		w.keys(keys...)
		p := w.start()
		sleep(3 * time.Second)
		if n := len(w.fates()); n < cold || n > cold+4 {
			t.Errorf("%d fates after three seconds, want the %d of the other keys and a few of the hot one", n, cold)
		}
		sleep(20 * time.Minute)
		if n := len(w.fates()); n != len(keys) {
			t.Errorf("%d fates in the end, want %d", n, len(keys))
		}
		assertOrder(t, w)
		w.end(p)
	})
}

// assertOrder checks that the calls of a key do not overlap and that first successes ascend.
func assertOrder(t testing.TB, w *world) {
	t.Helper()
	last := map[string]transmission{}
	done := map[int64]bool{}
	highest := map[string]int64{}
	for _, c := range w.shop.seen() {
		key := string(c.Intent.Key)
		if key == "" {
			continue
		}
		if before, some := last[key]; some && c.begun.Before(before.ended) {
			t.Errorf("%d of key %s began at %s, %d ended at %s", c.Intent.Offset, key, c.begun, before.Intent.Offset, before.ended)
		}
		last[key] = c
		if c.answer.Status != 200 || done[c.Intent.Offset] {
			continue
		}
		done[c.Intent.Offset] = true
		if top, some := highest[key]; some && top > c.Intent.Offset {
			t.Errorf("%d of key %s succeeded after %d", c.Intent.Offset, key, top)
		}
		highest[key] = max(highest[key], c.Intent.Offset)
	}
}

// What fails is parked, repeated with the same id and bytes and another attempt number, and keeps what
// follows it waiting; other keys go on.
func TestFailuresAreParkedAndRepeated(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		w.shop.answer = func(_ context.Context, call outbox.Call) outbox.Answer {
			if call.Intent.Offset == 0 && call.Attempt <= 6 {
				return status(503)
			}
			return ok()
		}
		w.keys("a", "a", "b", "a", "a", "a", "a", "a", "a")
		p := w.start()
		sleep(60 * time.Millisecond)
		r := w.recovery()
		if r.Low != w.next || len(r.Parked) != 8 || r.Parked[0].Role != outbox.Retry || r.Parked[0].Attempts == 0 || r.Parked[0].Status != 503 || r.Parked[1].Role != outbox.Follower {
			t.Errorf("recovery is %+v, want the key parked and the low mark behind it", r)
		}
		if w.fates()[2] != outbox.Done {
			t.Error("the other key waits too")
		}
		sleep(time.Minute)
		assertOrder(t, w)
		if got := w.outcomes()[0]; len(got) != 1 || got[0].Status != outbox.Done || got[0].Attempts != 7 {
			t.Errorf("outcomes of the first are %+v", got)
		}
		for i, c := range w.shop.seen() {
			if c.Intent.Offset == 0 && (c.Intent.ID != intent(0, "").ID || string(c.Intent.Body) != `{"n":0}`) {
				t.Errorf("call %d is %+v", i, c.Call)
			}
		}
		if n := len(w.fates()); n != 9 {
			t.Errorf("%d fates, want 9", n)
		}
		if r := w.recovery(); len(r.Parked) != 0 {
			t.Errorf("still parked: %+v", r.Parked)
		}
		w.end(p)
	})
}

func TestRetryAfterIsObeyed(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		w.shop.answer = failTimes(1, outbox.Answer{Status: 429, RetryAfter: time.Minute, Sent: true})
		w.keys("a")
		p := w.start()
		sleep(59 * time.Second)
		if n := len(w.shop.seen()); n != 1 {
			t.Errorf("%d calls within the minute, want 1", n)
		}
		sleep(5 * time.Second)
		if w.fates()[0] != outbox.Done {
			t.Error("it was not sent after the minute")
		}
		w.end(p)
	})
}

func TestAttemptsAndAgeAreLimited(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*dispatch.Endpoint)
		calls  func(n int) bool
	}{
		"attempts": {func(e *dispatch.Endpoint) { e.AttemptsMax = 4 }, func(n int) bool { return n == 4 }},
		"age":      {func(e *dispatch.Endpoint) { e.AgeMax, e.AttemptsMax = 2*time.Second, 1000 }, func(n int) bool { return n > 1 && n < 45 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(w *world) {
				w.change(test.change)
				w.shop.answer = func(_ context.Context, call outbox.Call) outbox.Answer {
					if call.Intent.Offset == 0 {
						return status(503)
					}
					return ok()
				}
				w.keys("a", "a")
				p := w.start()
				sleep(time.Minute)
				got := w.outcomes()[0]
				if len(got) != 1 || got[0].Status != outbox.Dead || got[0].HTTPStatus != 503 || !strings.Contains(got[0].Error, "gave up") {
					t.Errorf("outcomes are %+v", got)
				}
				if n := len(w.shop.seen()) - 1; !test.calls(n) || got[0].Attempts != n {
					t.Errorf("%d calls, %d attempts", n, got[0].Attempts)
				}
				if w.fates()[1] != outbox.Done {
					t.Error("the next one of the key does not go on")
				}
				w.end(p)
			})
		})
	}
}

// The attempts, the time of the next one and the age outlast the process.
func TestBackoffSurvivesARestart(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		w.shop.answer = failTimes(1, outbox.Answer{Status: 503, RetryAfter: time.Minute, Sent: true})
		w.keys("a", "a")
		w.end2(w.start(), time.Second)
		before := len(w.shop.seen())
		w.config.Owner = "b"
		p := w.start()
		sleep(50 * time.Second)
		if n := len(w.shop.seen()); before != 1 || n != 1 {
			t.Errorf("%d and %d calls before the minute is over, want 1", before, n)
		}
		w.keys("a")
		sleep(10 * time.Second)
		calls := w.shop.seen()
		if len(calls) < 2 || calls[1].Intent.Offset != 0 || calls[1].Attempt != 2 {
			t.Errorf("after the minute: %+v", calls)
		}
		sleep(2 * time.Minute)
		assertOrder(t, w)
		if len(w.fates()) != 3 {
			t.Errorf("fates are %v", w.fates())
		}
		w.end(p)
	})
}

// end2 ends a process after a while.
func (w *world) end2(p *process, d time.Duration) {
	w.t.Helper()
	sleep(d)
	w.end(p)
}

func TestTwinsAreSettledWithoutACall(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		w.shop.answer = failTimes(3, status(503))
		one, same, other := intent(0, "a"), intent(1, "a"), intent(2, "b")
		one.BusinessKey, same.BusinessKey, other.BusinessKey = "k", "k", "k"
		same.Body = one.Body
		w.ingest(one, same, other)
		p := w.start()
		sleep(time.Minute)
		fates := w.fates()
		if fates[0] != outbox.Done || fates[1] != outbox.Duplicate || fates[2] != outbox.Conflict {
			t.Errorf("fates are %v", fates)
		}
		if n := len(w.shop.seen()); n != 4 {
			t.Errorf("%d calls, want 4 of the first", n)
		}
		if o := w.outcomes()[2][0]; o.Attempts != 0 || o.Error == "" {
			t.Errorf("the conflict is %+v", o)
		}
		w.end(p)
	})
}

// A process that doesn't know an endpoint leaves its intents to one that does.
func TestUnknownEndpointsWaitForAProcessThatKnowsThem(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		stranger := intent(0, "a")
		stranger.Endpoint = "new"
		w.ingest(stranger, intent(1, "a"), intent(2, "b"))
		p := w.start()
		sleep(10 * time.Minute)
		if got := w.fates(); len(got) != 1 || got[2] != outbox.Done {
			t.Errorf("fates are %v, want only the other key's", got)
		}
		if r := w.recovery(); len(r.Parked) != 2 || r.Parked[0].Attempts != 0 || r.Parked[0].In != 0 {
			t.Errorf("parked are %+v", r.Parked)
		}
		w.end(p)

		known := w.config.Endpoints
		w.config.Owner, w.config.Endpoints = "b", map[string]dispatch.Endpoint{"shop": known["shop"], "new": known["shop"]}
		p = w.start()
		sleep(time.Minute)
		if got := w.fates(); got[0] != outbox.Done || got[1] != outbox.Done {
			t.Errorf("fates are %v", got)
		}
		assertOrder(t, w)
		w.end(p)
	})
}

func TestUnknownEndpointsDieOfAge(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		stranger := intent(0, "a")
		stranger.Endpoint = "new"
		w.ingest(stranger, intent(1, "a"))
		w.end2(w.start(), 40*time.Minute)
		p := w.start()
		sleep(25 * time.Minute) // in sum more than the hour
		if got := w.fates(); got[0] != outbox.Dead || got[1] != outbox.Done {
			t.Errorf("fates are %v", got)
		}
		w.end(p)
	})
}

func TestAtMostOnceIsNotedFirstAndNeverRepeated(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answers []outbox.Answer // by attempt, the last one for ever
		want    outbox.Status
		calls   int
	}{
		"done":           {[]outbox.Answer{ok()}, outbox.Done, 1},
		"failed":         {[]outbox.Answer{status(503)}, outbox.Dead, 1},
		"no answer":      {[]outbox.Answer{noAnswer(true)}, outbox.Unknown, 1},
		"not sent":       {[]outbox.Answer{noAnswer(false), noAnswer(false), ok()}, outbox.Done, 3},
		"sent in vain":   {[]outbox.Answer{noAnswer(false), noAnswer(true)}, outbox.Unknown, 2},
		"never to reach": {[]outbox.Answer{noAnswer(false)}, outbox.Dead, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(w *world) {
				w.change(func(e *dispatch.Endpoint) { e.AttemptsMax = 5 })
				var noted atomic.Int64
				w.store.Fail = func(method string, after bool) error {
					if method == "Begin" && after {
						noted.Add(1)
					}
					return nil
				}
				w.shop.answer = func(_ context.Context, call outbox.Call) outbox.Answer {
					if noted.Load() == 0 {
						t.Error("it is sent before it is noted")
					}
					return test.answers[min(call.Attempt, len(test.answers))-1]
				}
				once := intent(0, "a")
				once.Class = message.AtMostOnce
				w.ingest(once)
				p := w.start()
				sleep(2 * time.Hour)
				if got := w.outcomes()[0]; len(got) != 1 || got[0].Status != test.want || got[0].Attempts != test.calls {
					t.Errorf("outcomes are %+v, want %s after %d", got, test.want, test.calls)
				}
				if n := len(w.shop.seen()); n != test.calls {
					t.Errorf("%d calls, want %d", n, test.calls)
				}
				w.end(p)
			})
		})
	}
}

// A flush that says of an intent that it waits takes its note away. Whatever a flush is late with, a call
// under way has its note: its owner may die at any moment.
func TestAtMostOnceKeepsItsNote(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string][]string{"tried again": {"a"}, "next of its key": {"a", "a", "a", "a", "a", "a", "a", "a"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(w *world) {
				slow := 0
				w.store.Fail = func(method string, after bool) error {
					if method == "Flush" && !after {
						slow++
						sleepAlone(3 * time.Second)
					}
					return nil
				}
				looked := 0
				w.shop.answer = func(ctx context.Context, call outbox.Call) outbox.Answer {
					if call.Intent.Class != message.AtMostOnce || call.Attempt == 1 && len(keys) == 1 {
						return noAnswer(false)
					}
					for range 4 {
						noted := slices.ContainsFunc(w.recovery().Sending, func(s outbox.Sending) bool { return s.Offset == call.Intent.Offset }) //nolint:contextcheck // it looks at a copy
						if looked++; !noted {
							t.Errorf("call %d of %d is under way without a note", call.Attempt, call.Intent.Offset)
						}
						if err := during(ctx, time.Second); err != nil {
							return outbox.Answer{Err: err, Sent: true}
						}
					}
					return ok()
				}
				w.change(func(e *dispatch.Endpoint) { e.AttemptsMax = 2 })
				intents := make([]outbox.Intent, len(keys))
				for i, key := range keys {
					intents[i] = intent(int64(i), key)
					if i > 0 || len(keys) == 1 {
						intents[i].Class = message.AtMostOnce
					}
				}
				w.ingest(intents...)
				p := w.start()
				sleep(10 * time.Minute)
				if slow == 0 || looked == 0 {
					t.Fatalf("%d slow flushes and %d looks: nothing is shown", slow, looked)
				}
				w.end(p)
			})
		})
	}
}

// The owner dies between the note and the outcome: the next one does not know, and does not try.
func TestAtMostOnceOfALostOwnerIsUnknown(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		once := intent(0, "a")
		once.Class = message.AtMostOnce
		w.ingest(once, intent(1, "a"))
		tenure, err := w.store.Acquire(t.Context(), lane, "dead", time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.store.Begin(t.Context(), tenure, []outbox.Sending{{Offset: 0, Attempt: 1}}); err != nil {
			t.Fatal(err)
		}
		p := w.start()
		sleep(5 * time.Second)
		if got := w.fates(); got[0] != outbox.Unknown || got[1] != outbox.Done {
			t.Errorf("fates are %v", got)
		}
		if got := w.shop.offsets(); !slices.Equal(got, []int64{1}) {
			t.Errorf("calls of %v, want 1 only", got)
		}
		w.end(p)
	})
}

// Whoever finds the note of a call tells at once that its fate is unknown. So no call is noted before the fates of those
// before it in its key are written down: an owner that dies would leave a later one to be told first.
func TestAtMostOnceIsNotedAfterWhatComesBefore(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		refused, noted := 0, false
		w.store.Fail = func(method string, after bool) error {
			switch {
			case method == "Begin" && !after:
				if noted = true; w.fates()[0] != outbox.Done {
					t.Error("the call is noted before the fate of the one before it is written down")
				}
			case method == "Flush" && !after && refused < 5:
				refused++
				return errInjected
			}
			return nil
		}
		once := intent(1, "a")
		once.Class = message.AtMostOnce
		w.ingest(intent(0, "a"), once)
		p := w.start()
		sleep(time.Minute)
		if got := w.fates(); refused != 5 || !noted || got[0] != outbox.Done || got[1] != outbox.Done {
			t.Errorf("fates are %v after %d failed flushes", got, refused)
		}
		w.end(p)
	})
}

// An endpoint that is down an hour costs a few attempts for the breaker's trials and no more, however
// much is waiting; the rest of the lane goes on, and everything is delivered in order afterwards.
func TestAnOpenBreakerUsesUpNoAttempts(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		begun := time.Now()
		w.shop.answer = func(context.Context, outbox.Call) outbox.Answer {
			if time.Since(begun) < time.Hour {
				return noAnswer(true)
			}
			return ok()
		}
		other := &endpoint{}
		w.config.Endpoints["other"] = w.endpoint(other)
		p := w.start()
		const rounds, each = 100, 60
		for range rounds { // enough to fill the window
			intents := make([]outbox.Intent, 0, each)
			for i := range each {
				one := intent(w.next+int64(i), []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"}[i%12])
				if i == each-1 {
					one.Endpoint, one.Key = "other", nil
				}
				intents = append(intents, one)
			}
			w.ingest(intents...)
			p.Offer(*w.batch)
			sleep(20 * time.Second)
		}
		if n := len(other.seen()); n != rounds {
			t.Errorf("%d calls of the other endpoint, want %d", n, rounds)
		}
		failed := 0
		for _, c := range w.shop.seen() {
			if c.answer.Err != nil {
				failed++
			}
		}
		if failed > 1000 { // a trial or so every five seconds, with pauses of minutes between those of a key
			t.Errorf("%d calls failed", failed)
		}
		sleep(2 * time.Hour)
		if n := len(w.fates()); n != rounds*each {
			t.Errorf("%d fates, want %d", n, rounds*each)
		}
		for offset, fate := range w.fates() {
			if fate != outbox.Done {
				t.Errorf("%d is %s", offset, fate)
			}
		}
		assertOrder(t, w)
		if !slices.Contains(w.breaker, dispatch.Open) || w.breaker[len(w.breaker)-1] != dispatch.Closed {
			t.Errorf("the breaker went through %v", w.breaker)
		}
		w.end(p)
	})
}

// More keys than fit wait for an endpoint that is down, each with a few intents: they make room.
func TestAnOpenBreakerMakesRoomForOtherEndpoints(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		begun := time.Now()
		w.shop.answer = func(context.Context, outbox.Call) outbox.Answer {
			if time.Since(begun) < 10*time.Minute {
				return status(503)
			}
			return ok()
		}
		other := &endpoint{}
		w.config.Endpoints["other"] = w.endpoint(other)
		keys := make([]string, 3000)
		for i := range keys {
			keys[i] = strconv.Itoa(i)
		}
		w.keys(keys...)
		p := w.start()
		sleep(10 * time.Second)
		w.keys(keys...) // these follow parked ones, and are too few of each key to be many
		w.keys(keys...)
		last := intent(w.next, "")
		last.Endpoint = "other"
		w.ingest(last)
		sleep(time.Minute)
		if n := len(other.seen()); n != 1 {
			t.Errorf("%d calls of the other endpoint, want 1: %+v", n, p.Status())
		}
		sleep(2 * time.Hour)
		if n := len(w.fates()); n != 9001 {
			t.Errorf("%d fates, want 9001: %+v", n, p.Status())
		}
		assertOrder(t, w)
		w.end(p)
	})
}

// meter keeps the highest of what it counts.
type meter struct {
	mu           sync.Mutex
	now, highest int
}

func (m *meter) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now += n
	m.highest = max(m.highest, m.now)
}

func (m *meter) most() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.highest
}

func TestConcurrencyAndRateAreBounded(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		var under meter
		w.shop.answer = func(ctx context.Context, _ outbox.Call) outbox.Answer {
			under.add(1)
			defer under.add(-1)
			if err := during(ctx, time.Second); err != nil {
				return outbox.Answer{Err: err, Sent: true}
			}
			return ok()
		}
		w.change(func(e *dispatch.Endpoint) { e.Concurrency, e.Rate = 3, 2 })
		begun := time.Now()
		w.keys(make([]string, 40)...)
		p := w.start()
		sleep(time.Minute)
		if under.most() > 3 {
			t.Errorf("%d calls at once, want at most 3", under.most())
		}
		calls := w.shop.seen()
		if len(calls) != 40 {
			t.Fatalf("%d calls, want 40", len(calls))
		}
		if took := calls[39].begun.Sub(begun); took < 19*time.Second || took > 25*time.Second {
			t.Errorf("40 calls at 2 a second began within %s", took)
		}
		w.end(p)
	})
}

// Workers bound the calls of all endpoints and lanes together.
func TestWorkersBoundAllCalls(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		var under meter
		w.shop.answer = func(ctx context.Context, _ outbox.Call) outbox.Answer {
			under.add(1)
			defer under.add(-1)
			_ = during(ctx, time.Second)
			return ok()
		}
		w.config.Workers = 4
		w.keys(make([]string, 20)...)
		p := w.start()
		sleep(6 * time.Second)
		if under.most() != 4 || len(w.fates()) != 20 {
			t.Errorf("%d calls at once and %d fates, want 4 and 20", under.most(), len(w.fates()))
		}
		w.end(p)
	})
}

// Saturation is the time in which a call waited for a bound: to the millisecond, by the clock of the bubble, and not one
// for each call that waits.
func TestSaturationIsTheTimeThatCallsWaited(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*world)
		by     dispatch.Bound
		calls  int
		want   time.Duration
	}{
		"none":        {func(w *world) { w.change(func(e *dispatch.Endpoint) { e.Concurrency = 10 }) }, dispatch.ByConcurrency, 10, 0},
		"concurrency": {func(w *world) { w.change(func(e *dispatch.Endpoint) { e.Concurrency = 2 }) }, dispatch.ByConcurrency, 10, 4 * time.Second},
		"rate":        {func(w *world) { w.change(func(e *dispatch.Endpoint) { e.Concurrency, e.Rate = 100, 2 }) }, dispatch.ByRate, 10, 4500 * time.Millisecond},
		"workers":     {func(w *world) { w.config.Workers = 5 }, dispatch.ByWorkers, 15, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(w *world) {
				w.shop.answer = func(ctx context.Context, _ outbox.Call) outbox.Answer {
					_ = during(ctx, time.Second)
					return ok()
				}
				c.change(w)
				w.keys(make([]string, c.calls)...)
				p := w.start()
				look := func() dispatch.Saturation { return p.Status().Endpoints[0].Saturation }
				sleep(1500 * time.Millisecond) // in the middle of it the clock is seen to run
				if got, want := look()[c.by], min(c.want, 1500*time.Millisecond); got < want-100*time.Millisecond || got > want {
					t.Errorf("after a second and a half %s, want %s", got, want)
				}
				sleep(time.Minute)
				if len(w.fates()) != c.calls {
					t.Errorf("%d fates, want %d", len(w.fates()), c.calls)
				}
				for by, got := range look() {
					want := time.Duration(0)
					if by == c.by {
						want = c.want
					}
					if got < want-100*time.Millisecond || got > want+100*time.Millisecond {
						t.Errorf("by %s: %s, want %s", by, got, want)
					}
				}
				w.end(p)
			})
		})
	}
}

func TestOnDeadHold(t *testing.T) {
	t.Parallel()
	order := func(w *world, offset int64, action outbox.Action) {
		if err := w.store.Order(t.Context(), outbox.Order{Lane: lane, Offset: offset, Action: action, Reason: "because"}, "ann"); err != nil {
			t.Error(err)
		}
	}
	for name, test := range map[string]struct {
		restart bool
		offset  int64
		action  outbox.Action
		want    map[int64]outbox.Status
		calls   []int64
	}{
		"nothing":              {offset: -1, want: map[int64]outbox.Status{0: outbox.Dead, 3: outbox.Done}, calls: []int64{0}},
		"retry":                {action: outbox.RetryNow, want: map[int64]outbox.Status{0: outbox.Done, 1: outbox.Done, 2: outbox.Done, 3: outbox.Done, 5: outbox.Done}, calls: []int64{0, 0, 1, 2, 5}},
		"cancel":               {action: outbox.Cancel, want: map[int64]outbox.Status{0: outbox.Dead, 1: outbox.Done, 2: outbox.Done, 3: outbox.Done, 5: outbox.Done}, calls: []int64{0, 1, 2, 5}},
		"restart":              {restart: true, offset: -1, want: map[int64]outbox.Status{0: outbox.Dead, 3: outbox.Done}, calls: []int64{0}},
		"restart, retry":       {restart: true, action: outbox.RetryNow, want: map[int64]outbox.Status{0: outbox.Done, 1: outbox.Done, 2: outbox.Done, 3: outbox.Done, 5: outbox.Done}, calls: []int64{0, 0, 1, 2, 5}},
		"cancel a follower":    {offset: 1, action: outbox.Cancel, want: map[int64]outbox.Status{0: outbox.Dead, 1: outbox.Dead, 3: outbox.Done}, calls: []int64{0}},
		"retry of a follower":  {offset: 1, action: outbox.RetryNow, want: map[int64]outbox.Status{0: outbox.Dead, 1: outbox.Done, 2: outbox.Done, 3: outbox.Done, 5: outbox.Done}, calls: []int64{0, 1, 2, 5}},
		"restart, then cancel": {restart: true, action: outbox.Cancel, want: map[int64]outbox.Status{0: outbox.Dead, 1: outbox.Done, 2: outbox.Done, 3: outbox.Done, 5: outbox.Done}, calls: []int64{0, 1, 2, 5}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(w *world) {
				w.change(func(e *dispatch.Endpoint) { e.OnDead = dispatch.Hold })
				refused := false
				w.shop.answer = func(_ context.Context, call outbox.Call) outbox.Answer {
					if call.Intent.Offset == 0 && !refused {
						refused = true
						return status(422)
					}
					return ok()
				}
				w.keys("a", "a", "a", "b")
				p := w.start()
				sleep(time.Minute)
				w.keys("a")
				sleep(time.Second)
				if r := w.recovery(); len(r.Parked) != 3 || r.Parked[0].Role != outbox.Held || r.Parked[2].Role != outbox.Held || r.Low != w.next {
					t.Errorf("parked are %+v, want three held ones", r)
				}
				if test.restart {
					w.end(p)
					p = w.start()
					sleep(time.Second)
				}
				if test.offset >= 0 {
					order(w, test.offset, test.action)
				}
				sleep(time.Minute)
				if got := w.fates(); !equal(got, test.want) {
					t.Errorf("fates are %v, want %v", got, test.want)
				}
				got := slices.DeleteFunc(w.shop.offsets(), func(offset int64) bool { return offset == 3 }) // the other key
				if !slices.Equal(got, test.calls) {
					t.Errorf("calls are %v, want %v", got, test.calls)
				}
				if left := w.orders(); left != 0 {
					t.Errorf("%d orders are left", left)
				}
				w.end(p)
			})
		})
	}
}

// A dead intent holds its key also where nothing waits behind it when its owner ends, and for every
// owner, until an operator decides or the policy is another one.
func TestAHoldOutlivesItsOwner(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(w *world){
		"retry": func(w *world) {
			_ = w.store.Order(w.t.Context(), outbox.Order{Lane: lane, Offset: 0, Action: outbox.RetryNow}, "ann")
		},
		"cancel": func(w *world) {
			_ = w.store.Order(w.t.Context(), outbox.Order{Lane: lane, Offset: 0, Action: outbox.Cancel}, "ann")
		},
		"policy": func(w *world) { w.change(func(e *dispatch.Endpoint) { e.OnDead = dispatch.Continue }) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(w *world) {
				w.change(func(e *dispatch.Endpoint) { e.OnDead = dispatch.Hold })
				refused := 0
				w.shop.answer = func(_ context.Context, call outbox.Call) outbox.Answer {
					if o := call.Intent.Offset; (o == 0 || o == 1) && refused < 2 {
						refused++
						return status(422)
					}
					return ok()
				}
				w.keys("a", "") // nobody waits for one without a key
				w.end2(w.start(), time.Minute)
				w.end2(w.start(), time.Minute)
				if r := w.recovery(); len(r.Holds) != 1 || r.Holds[0].Offset != 0 {
					t.Fatalf("holds are %+v", r.Holds)
				}
				waiting := w.next
				w.keys("a", "b")
				p := w.start()
				sleep(time.Minute)
				if got := w.fates(); got[waiting] != "" || got[waiting+1] != outbox.Done {
					t.Errorf("fates are %v", got)
				}
				w.end(p)
				end(w)
				w.end2(w.start(), time.Minute)
				if got := w.fates(); got[waiting] != outbox.Done {
					t.Errorf("fates are %v", got)
				}
				if r := w.recovery(); len(r.Holds)+len(r.Parked) != 0 {
					t.Errorf("there are left: %+v", r)
				}
			})
		})
	}
}

func equal[K, V comparable](a, b map[K]V) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

// orders counts those that nobody has obeyed.
func (w *world) orders() int {
	clone := w.store.Clone()
	tenure, err := clone.Acquire(context.Background(), lane, w.config.Owner, time.Minute)
	if err != nil {
		w.t.Fatal(err)
	}
	_, orders, err := clone.Renew(context.Background(), tenure, time.Minute)
	if err != nil {
		w.t.Fatal(err)
	}
	return len(orders)
}

// An operator hastens a retry, and cancels what waits or is under way.
func TestOrdersOfParkedIntents(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		down := true
		w.shop.answer = func(ctx context.Context, call outbox.Call) outbox.Answer {
			if call.Intent.Offset == 4 { // slow, and in vain
				_ = during(ctx, 4900*time.Millisecond)
				return status(503)
			}
			if down && call.Intent.Offset < 3 {
				return outbox.Answer{Status: 503, RetryAfter: time.Hour, Sent: true}
			}
			return ok()
		}
		w.keys("a", "b", "c", "c", "d")
		p := w.start()
		sleep(time.Second)
		down = false
		for _, order := range []outbox.Order{{Offset: 0, Action: outbox.RetryNow}, {Offset: 1, Action: outbox.Cancel}, {Offset: 4, Action: outbox.Cancel}, {Offset: 3, Action: outbox.Cancel}} {
			order.Lane, order.Reason = lane, "asked for"
			if err := w.store.Order(t.Context(), order, "ann"); err != nil {
				t.Fatal(err)
			}
		}
		sleep(30 * time.Second)
		want := map[int64]outbox.Status{0: outbox.Done, 1: outbox.Dead, 3: outbox.Dead, 4: outbox.Dead}
		if got := w.fates(); !equal(got, want) {
			t.Errorf("fates are %v, want %v", got, want)
		}
		if o := w.outcomes()[1][0]; !strings.Contains(o.Error, "asked for") || o.Attempts != 1 {
			t.Errorf("the cancelled one is %+v", o)
		}
		if w.orders() != 0 {
			t.Error("orders are left")
		}
		w.end(p)
	})
}

// A dead intent is retried with its id; its second outcome follows its first.
func TestADeadIntentIsRetried(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		refuse := true
		w.shop.answer = func(context.Context, outbox.Call) outbox.Answer {
			if refuse {
				return status(422)
			}
			return ok()
		}
		w.keys("a", "a")
		p := w.start()
		sleep(time.Second)
		refuse = false
		if err := w.store.Order(t.Context(), outbox.Order{Lane: lane, Offset: 0, Action: outbox.RetryNow}, "ann"); err != nil {
			t.Fatal(err)
		}
		sleep(20 * time.Second)
		if got := w.outcomes()[0]; len(got) != 2 || got[0].Status != outbox.Dead || got[1].Status != outbox.Done {
			t.Errorf("outcomes are %+v", got)
		}
		calls := w.shop.seen()
		if last := calls[len(calls)-1]; last.Intent.Offset != 0 || last.Intent.ID != calls[0].Intent.ID {
			t.Errorf("the last call is %+v", last.Call)
		}
		w.end(p)
	})
}

// An operator who asks twice gets one retry, and one who asks too late or for a twin gets none.
func TestWhatIsNotDeadIsNotRetried(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		refuse := true
		w.shop.answer = func(_ context.Context, call outbox.Call) outbox.Answer {
			if refuse && call.Intent.Offset == 0 {
				return status(422)
			}
			return ok()
		}
		dead, once, first, twin := intent(0, "a"), intent(1, "b"), intent(2, "c"), intent(3, "d")
		once.Class = message.AtMostOnce
		first.BusinessKey, twin.BusinessKey = "k", "k"
		w.ingest(dead, once, first, twin)
		p := w.start()
		sleep(time.Second)
		refuse = false
		for _, offset := range []int64{0, 0, 1, 2, 3, 0} {
			if err := w.store.Order(t.Context(), outbox.Order{Lane: lane, Offset: offset, Action: outbox.RetryNow}, "ann"); err != nil {
				t.Fatal(err)
			}
		}
		sleep(time.Minute)
		for offset, want := range []int{2, 1, 1, 1} {
			if n := len(w.outcomes()[int64(offset)]); n != want {
				t.Errorf("%d has %d outcomes, want %d", offset, n, want)
			}
		}
		if n := len(w.shop.seen()); n != 4 {
			t.Errorf("%d calls, want 4: %v", n, w.shop.offsets())
		}
		if w.orders() != 0 {
			t.Error("orders are left")
		}
		// Another process knows the twin by the ledger only.
		w.end(p)
		if err := w.store.Order(t.Context(), outbox.Order{Lane: lane, Offset: 3, Action: outbox.RetryNow}, "ann"); err != nil {
			t.Fatal(err)
		}
		p = w.start()
		sleep(time.Minute)
		if n := len(w.shop.seen()); n != 4 || w.orders() != 0 {
			t.Errorf("%d calls, want 4: %v", n, w.shop.offsets())
		}
		w.end(p)
	})
}

// Large answers bound what is under way, and do not stop it.
func TestLargeAnswersGoOn(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		w.shop.answer = func(context.Context, outbox.Call) outbox.Answer {
			answer := ok()
			answer.Response = &outbox.Response{Body: make([]byte, outbox.ResponseMax)}
			return answer
		}
		w.keys(make([]string, 3000)...)
		p := w.start()
		sleep(time.Minute)
		if n := len(w.fates()); n != 3000 {
			t.Errorf("%d fates, want 3000", n)
		}
		w.end(p)
	})
}

// There is no intent where an order points: it is given up after some tries.
func TestAnOrderForNothingIsGivenUp(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		hooks := &w.config.Hooks
		hooks.Retrying = func(int32, error) { w.count("retrying") }
		w.keys("a")
		p := w.start()
		sleep(time.Second)
		if err := w.store.Order(t.Context(), outbox.Order{Lane: lane, Offset: 1, Action: outbox.RetryNow}, "ann"); err != nil { // a marker
			t.Fatal(err)
		}
		sleep(time.Minute)
		if n := w.counted("retrying"); w.orders() != 0 || n != 5 {
			t.Errorf("%d orders are left after %d tries", w.orders(), n)
		}
		w.end(p)
	})
}

// The lease is lost while a call is under way: its result is dropped, and the next owner repeats it.
func TestAFencedOwnerStops(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		w.shop.answer = func(ctx context.Context, call outbox.Call) outbox.Answer {
			if call.Fence == 1 {
				_ = during(ctx, 3*time.Second)
			}
			return ok()
		}
		w.keys("a", "a")
		p := w.start()
		sleep(time.Second)
		// An operator frees the lane under the owner's feet, and somebody else takes it.
		if err := w.store.Release(t.Context(), outbox.Tenure{Lane: lane, Epoch: 1}); err != nil {
			t.Fatal(err)
		}
		tenure, err := w.store.Acquire(t.Context(), lane, "b", 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		sleep(10 * time.Second)
		if w.counted("fenced") != 1 || w.counted("lost") != 1 || len(w.fates()) != 0 {
			t.Errorf("counted %v with fates %v", w.counts, w.fates())
		}
		if s := p.Status(); len(s.Lanes) != 1 || s.Lanes[0].Owner || s.Lanes[0].Lane != lane {
			t.Errorf("status is %+v", s)
		}
		calls := len(w.shop.seen())
		if err := w.store.Release(t.Context(), tenure); err != nil {
			t.Fatal(err)
		}
		sleep(10 * time.Second)
		if got := w.fates(); len(got) != 2 || got[0] != outbox.Done {
			t.Errorf("fates are %v", got)
		}
		seen := w.shop.seen()
		if first, again := seen[0], seen[calls]; again.Intent.ID != first.Intent.ID || again.Fence != 3 {
			t.Errorf("the repeat is %+v", again.Call)
		}
		w.end(p)
	})
}

// An endpoint that answers, and takes its time, fills the window with what waits for it. It makes room, so
// that others don't wait behind it; one that will be through soon does not, since putting aside costs
// the store more than a call. Each key stays in order.
func TestASlowEndpointMakesRoomForOthers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		takes  time.Duration
		keys   int64 // with few of them, what waits behind others of its key is what fills the window
		parked bool
	}{
		"slow":                   {4 * time.Second, 3000, true},
		"slow, and of few keys":  {4 * time.Second, 60, true},
		"slow, and of many keys": {4 * time.Second, 10_000, true},
		"only busy":              {50 * time.Millisecond, 3000, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(w *world) {
				slow := &endpoint{answer: func(ctx context.Context, _ outbox.Call) outbox.Answer {
					if err := during(ctx, test.takes); err != nil {
						return outbox.Answer{Err: err, Sent: true}
					}
					return ok()
				}}
				w.config.Endpoints["slow"] = w.endpoint(slow)
				var intents []outbox.Intent
				const backlog = 10_000
				for i := range int64(backlog) {
					intents = append(intents, intent(i, fmt.Sprint("key-", i%test.keys)))
					intents[i].Endpoint = "slow"
				}
				for i := range int64(100) {
					intents = append(intents, intent(backlog+i, fmt.Sprint("other-", i)))
				}
				w.ingest(intents...)
				p := w.start()
				sleep(time.Minute)
				if n := len(w.shop.seen()); n != 100 {
					t.Errorf("%d of 100 calls of the other endpoint", n)
				}
				if parked := w.counted("parked") > 0; parked != test.parked {
					t.Errorf("%d are put aside", w.counted("parked"))
				}
				sleep(time.Hour)
				last := map[string]int64{}
				for _, c := range slow.seen() {
					if before, again := last[string(c.Intent.Key)]; again && before >= c.Intent.Offset {
						t.Fatalf("%s: %d after %d", c.Intent.Key, c.Intent.Offset, before)
					}
					last[string(c.Intent.Key)] = c.Intent.Offset
				}
				if n := len(slow.seen()); n != backlog {
					t.Errorf("%d calls of the slow endpoint, want %d", n, backlog)
				}
				w.end(p)
			})
		})
	}
}

// A standby without the last flushes takes over from the ledger while a lane has nothing to do, and
// within its lease. The ingester brings what is missing again, and no more comes.
func TestAnIdleLaneNoticesThatTheLedgerWentBack(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		noticed := 0
		w.config.Hooks.Retrying = func(_ int32, err error) {
			if !strings.Contains(err.Error(), "went back") {
				t.Error(err)
			}
			noticed++
		}
		p := w.start()
		w.keys("a", "b")
		p.Offer(*w.batch)
		sleep(time.Second)
		standby, from := w.store.Clone(), w.next
		w.keys("c", "d")
		lost := *w.batch
		p.Offer(lost)
		sleep(time.Second)
		if n := len(w.fates()); n != 4 {
			t.Fatalf("%d fates before the standby takes over, want 4", n)
		}
		w.store.Restore(standby)
		w.next = from
		w.ingest(lost.Intents...)
		p.Offer(*w.batch)
		sleep(time.Minute)
		if n := len(w.fates()); n != 4 || noticed != 1 {
			t.Errorf("%d of 4 have a fate, and it was noticed %d times", n, noticed)
		}
		w.end(p)
	})
}

// A store that is quick hears of each result soon; one that is slow is asked less often, but often enough.
func TestSlowFlushesAreFewer(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		took     time.Duration
		min, max int // flushes within ten seconds of steady work
	}{
		"quick":     {time.Millisecond, 160, 200},
		"busy":      {8 * time.Millisecond, 110, 160},
		"very busy": {40 * time.Millisecond, 60, 110},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(w *world) {
				w.store.Fail = func(method string, after bool) error {
					if method == "Flush" && !after {
						sleepAlone(test.took)
					}
					return nil
				}
				p := w.start()
				sleep(time.Second)
				before := w.counted("flushed")
				for range 2000 {
					w.keys("", "")
					p.Offer(*w.batch)
					sleep(5 * time.Millisecond)
				}
				if n := w.counted("flushed") - before; n < test.min || n > test.max {
					t.Errorf("%d flushes, want %d to %d", n, test.min, test.max)
				}
				w.end(p)
			})
		})
	}
}

// A flush lands and its answer is lost: nothing is called again, whatever is settled stays so. And a
// flush that did not land: the results are kept by the same owner and written down by its next tenure.
func TestAFlushOfUnknownOutcomeEndsTheTenure(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		after bool
		times int64
	}{"landed": {true, 1}, "lost": {false, 3}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(w *world) {
				var fails atomic.Int64
				fails.Store(test.times)
				w.store.Fail = func(method string, at bool) error {
					if method == "Flush" && at == test.after && fails.Add(-1) >= 0 {
						return errInjected
					}
					return nil
				}
				w.keys("a", "b", "a", "", "", "")
				p := w.start()
				sleep(30 * time.Second)
				if len(w.fates()) != 6 || len(w.shop.seen()) != 6 {
					t.Errorf("fates are %v after calls of %v", w.fates(), w.shop.offsets())
				}
				if fails.Load() > 0 || w.counted("owned") < 2 {
					t.Errorf("%d failures were left, counted %v", fails.Load(), w.counts)
				}
				w.end(p)
			})
		})
	}
}

// The store is down for ten minutes: calls stop soon, memory stays bounded, and it goes on by itself.
func TestTheStoreIsDown(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		var down atomic.Bool
		w.store.Fail = func(string, bool) error {
			if down.Load() {
				return errInjected
			}
			return nil
		}
		w.keys(make([]string, 50)...)
		p := w.start()
		sleep(time.Second)
		w.keys(make([]string, 50)...)
		down.Store(true)
		p.Offer(*w.batch)
		sleep(10 * time.Minute)
		down.Store(false)
		sleep(20 * time.Second)
		if n := len(w.fates()); n != 100 {
			t.Errorf("%d fates, want 100", n)
		}
		if n := len(w.shop.seen()); n != 100 {
			t.Errorf("%d calls, want 100: what was answered is not repeated", n)
		}
		w.end(p)
	})
}

// Leaving waits for calls and writes down what they brought; another process has the lane at once.
func TestLeavingDrains(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(w *world, p *process){
		"run ends":   func(w *world, p *process) { w.end(p) },
		"unassigned": func(_ *world, p *process) { p.Unassign(lane); sleep(4 * time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(w *world) {
				w.shop.answer = func(ctx context.Context, _ outbox.Call) outbox.Answer {
					_ = during(ctx, 3*time.Second)
					return ok()
				}
				w.keys("a", "a")
				p := w.start()
				sleep(time.Second)
				leave(w, p)
				if got := w.fates(); len(got) != 1 || got[0] != outbox.Done {
					t.Errorf("fates are %v, want that of the call under way", got)
				}
				if _, err := w.store.Acquire(t.Context(), lane, "b", time.Second); err != nil {
					t.Errorf("the lane is not free: %v", err)
				}
				p.stop()
			})
		})
	}
}

// A call that does not end within the drain timeout is cancelled, and parked for the next owner.
func TestDrainingIsBounded(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		w.config.DrainTimeout = time.Second
		w.shop.answer = func(ctx context.Context, _ outbox.Call) outbox.Answer {
			if err := during(ctx, time.Hour); err != nil {
				return outbox.Answer{Err: err, Sent: true}
			}
			return ok()
		}
		w.keys("a")
		p := w.start()
		sleep(time.Second)
		begun := time.Now()
		w.end(p)
		if took := time.Since(begun); took > 1100*time.Millisecond {
			t.Errorf("it took %s", took)
		}
		if r := w.recovery(); len(r.Parked) != 1 || r.Parked[0].Attempts != 1 {
			t.Errorf("parked are %+v", r.Parked)
		}
	})
}

// No call begins that could still be under way when the lease ends.
func TestNoCallOutlastsTheLease(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		var down atomic.Bool
		w.store.Fail = func(method string, _ bool) error {
			if method == "Renew" && down.Load() {
				return errInjected
			}
			return nil
		}
		p := w.start()
		sleep(time.Second)
		down.Store(true)
		until := time.Now().Add(w.config.LeaseTTL)
		for range 40 {
			w.keys("a", "b")
			p.Offer(*w.batch)
			sleep(time.Second)
		}
		for _, c := range w.shop.seen() {
			if c.begun.Add(5 * time.Second).After(until) {
				t.Errorf("%d began %s before the lease ended", c.Intent.Offset, until.Sub(c.begun))
			}
		}
		if n := len(w.shop.seen()); n == 0 {
			t.Error("nothing was sent while the lease lasted")
		}
		down.Store(false)
		sleep(20 * time.Second)
		if n := len(w.fates()); n != 80 {
			t.Errorf("%d fates, want 80", n)
		}
		w.end(p)
	})
}

// One of two processes owns the lane; when it is gone without a word, the other has it after the lease.
func TestAnotherProcessTakesOver(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		p := w.start()
		sleep(time.Second)
		w.config.Owner = "b"
		q := w.start()
		sleep(5 * time.Second)
		if s := q.Status(); s.Lanes[0].Owner {
			t.Errorf("both own the lane: %+v", s)
		}
		w.end(p)
		sleep(3 * time.Second)
		if s := q.Status(); !s.Lanes[0].Owner || s.Lanes[0].Epoch != 2 {
			t.Errorf("nobody owns the lane: %+v", s)
		}
		w.end(q)
	})
}

func TestConfigurationIsJudgedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := dispatch.New(dispatch.Config{LeaseTTL: 9 * time.Second, Endpoints: map[string]dispatch.Endpoint{"shop": {Timeout: 5 * time.Second, Rate: -1}}})
	if err == nil {
		t.Fatal("an empty configuration was taken")
	}
	for _, want := range []string{"the store", "the owner", "workers", "drain", "unknown endpoints", "the lease is 9s, want at least 10s", "target", "attempts_max", "age_max", "concurrency", "rate", "on_dead"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not speak of %q", err, want)
		}
	}
}
