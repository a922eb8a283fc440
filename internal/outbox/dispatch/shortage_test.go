package dispatch

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// knockFor asks a gate for calls without end, each of them short, and comes late by so much whenever it was told to wait.
// It gives how many began.
func knockFor(g *gate, duration, late time.Duration) (calls int) {
	who := newBell()
	for end := time.Now().Add(duration); time.Now().Before(end); {
		p, why, ok := g.enter(time.Now(), who)
		if !ok {
			time.Sleep(why.again + late) //nolint:forbidigo // virtual time
			continue
		}
		p.leave(nil)
		calls++
	}
	return calls
}

// Timers are late, on a busy machine by milliseconds, which at a high rate is longer than the wait for a token itself. An
// endpoint that gets as many calls as its rate allows is held up by the rate all of the time nevertheless.
func TestWhoComesLateForATokenHasWaitedUntilThen(t *testing.T) {
	t.Parallel()
	const duration = 20 * time.Second
	for _, rate := range []float64{20, 100, 1000, 5000} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := newGate("shop", Endpoint{Concurrency: 1, Rate: rate}, &slots{free: 1}, func(Breaker) {})
				calls := knockFor(g, duration, 3*time.Millisecond)
				share := g.status().Saturation[ByRate].Seconds() / duration.Seconds()
				if least := int(rate * duration.Seconds()); calls < least || share < 0.99 || share > 1.01 {
					t.Errorf("%d calls began, want %d at least; the share of the time that they waited is %.3f, want all of it", calls, least, share)
				}
			})
		})
	}
}

// A call that is given up while it waits for a token, as its lane goes to another process, does not wait for ever.
func TestWhoDoesNotComeForATokenWaitsNoLonger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate("shop", Endpoint{Concurrency: 1, Rate: 2}, &slots{free: 1}, func(Breaker) {})
		who := newBell()
		p, _, ok := g.enter(time.Now(), who)
		if !ok {
			t.Fatal("the first call may not begin")
		}
		p.leave(nil)
		if _, why, ok := g.enter(time.Now(), who); ok || why.again != 500*time.Millisecond {
			t.Fatalf("the second may begin: %t, or in %s", ok, why.again)
		}
		for range 2 {
			time.Sleep(time.Minute) //nolint:forbidigo // virtual time
			if got := g.status().Saturation[ByRate]; got < 500*time.Millisecond || got > 500*time.Millisecond+burst {
				t.Errorf("it waited for %s, want the wait for the token and %s at most", got, burst)
			}
		}
	})
}
