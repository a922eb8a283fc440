package dispatch

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// gateStep is something that happens at a gate.
type gateStep struct {
	kind   int   // 0: a call wants to begin, 1: one ends, 2: time passes
	which  int   // of those under way
	health error // what the call says of the endpoint
	wait   time.Duration
}

func gateSteps() *rapid.Generator[[]gateStep] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) gateStep {
		return gateStep{
			kind: rapid.SampledFrom([]int{0, 0, 0, 1, 1, 1, 2}).Draw(t, "kind"), which: rapid.IntRange(0, 9).Draw(t, "which"),
			health: rapid.SampledFrom([]error{nil, errUnhealthy, errUnhealthy, errNeutral}).Draw(t, "health"),
			wait:   time.Duration(rapid.IntRange(1, 7000).Draw(t, "ms")) * time.Millisecond,
		}
	}), 1, 120)
}

// Whatever calls bring, in whatever order and time: no more of them are under way than an endpoint and all together
// may have, none begins while the breaker is open, what is given back can be had again, and only failures open a breaker.
func TestGateKeepsItsBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		free := rapid.IntRange(1, 6).Draw(rt, "slots")
		endpoint := Endpoint{Concurrency: rapid.IntRange(1, 5).Draw(rt, "concurrency")}
		if rapid.Bool().Draw(rt, "limited") {
			endpoint.Rate = rapid.Float64Range(1, 100).Draw(rt, "rate")
		}
		steps := gateSteps().Draw(rt, "steps")
		var problem error // rapid must hear of it outside of the bubble
		synctest.Test(t, func(*testing.T) { problem = passGate(free, endpoint, steps) })
		if problem != nil {
			rt.Fatal(problem)
		}
	})
}

// passGate goes through steps and tells what is wrong.
func passGate(free int, endpoint Endpoint, steps []gateStep) error {
	s := &slots{free: free}
	var told []State
	g := newGate("shop", endpoint, s, func(b Breaker) { told = append(told, b.State) })
	who := newBell()
	var under []pass
	failures := 0
	for _, step := range steps {
		switch {
		case step.kind == 0:
			was := g.shut() != ""
			p, why, ok := g.enter(time.Now(), who)
			if ok && was || !ok && why == (refusal{}) && len(under) < min(endpoint.Concurrency, free) {
				return fmt.Errorf("let through: %t, while open: %t, with %d under way; why %+v", ok, was, len(under), why)
			}
			if ok {
				under = append(under, p)
			}
		case step.kind == 1 && len(under) > 0:
			i := step.which % len(under)
			under[i].leave(step.health)
			under = append(under[:i], under[i+1:]...)
			if step.health == errUnhealthy { //nolint:errorlint // it is that very value
				failures++
			}
		default:
			time.Sleep(step.wait) //nolint:forbidigo // virtual time
		}
		if n := g.status().InFlight; n != len(under) || n > endpoint.Concurrency || s.free != free-n {
			return fmt.Errorf("%d calls are under way, the gate says %d, %d of %d slots are free", len(under), n, s.free, free)
		}
	}
	if len(told) > 0 && (told[0] != Open || failures < breakerFailures) {
		return fmt.Errorf("the breaker told %v after %d failures", told, failures)
	}
	for _, p := range under {
		p.leave(nil)
	}
	if s.free != free {
		return fmt.Errorf("%d of %d slots were given back", s.free, free)
	}
	return nil
}
