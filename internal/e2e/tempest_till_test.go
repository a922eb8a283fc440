//go:build chaos && linux

package e2e

import (
	"context"
	"fmt"
	"time"

	"pawl/internal/testkit"
)

// tillTroubles are those of the payment provider and of the way to it.
func tillTroubles() []trouble {
	mood := func(name string, mood tillMood) trouble {
		return trouble{name: name, seat: onTill, least: 4, most: 9, strike: func(ctx context.Context, w *tempest, _ act) (string, error) {
			before := w.till.count()
			w.till.be(mood)
			defer w.till.be(tillWell)
			<-ctx.Done()
			after := w.till.count()
			hit := after.failed - before.failed + after.lost - before.lost
			if mood == tillSlow {
				hit = after.calls - before.calls
			}
			return proofOf(hit, "calls"), nil
		}}
	}
	return []trouble{
		mood("endpoint answers 500", tillErrors),
		mood("endpoint answers 503", tillBusy),
		mood("endpoint resets before it acts", tillResets),
		mood("endpoint acts and its answer is lost", tillLoses),
		mood("endpoint slow", tillSlow),
		mood("endpoint acts and answers too late", tillTooSlow),
		mood("endpoint hangs", tillHangs),
		{name: "endpoint unreachable", seat: onTill, least: 4, most: 9, strike: func(ctx context.Context, w *tempest, _ act) (string, error) {
			before := w.tillProxy.Hits()
			over := w.till.cutOff()
			w.tillProxy.Refuse()
			over()
			defer w.tillProxy.Accept()
			<-ctx.Done()
			return proofOf(int64(w.tillProxy.Hits()-before), "connections"), nil
		}},
		{name: "endpoint connections cut", seat: onTill, least: 3, most: 8, strike: func(ctx context.Context, w *tempest, _ act) (string, error) {
			return cutAgain(ctx, w.till.cutOff, w.tillProxy), nil
		}},
	}
}

// nobody is told of a cut.
func nobody() (over func()) { return func() {} }

// proofOf is empty where nothing was hit.
func proofOf(hits int64, what string) string {
	if hits <= 0 {
		return ""
	}
	return fmt.Sprintf("%d %s", hits, what)
}

const cutEvery = 700 * time.Millisecond

// cutAgain cuts all connections through proxies, and those that replace them, until ctx ends. Whoever
// wants to know is told before and after each cut.
func cutAgain(ctx context.Context, tell func() (over func()), proxies ...*testkit.Proxy) string {
	ticker := time.NewTicker(cutEvery)
	defer ticker.Stop()
	var cut int64
	for {
		over := tell()
		for _, proxy := range proxies {
			cut += int64(proxy.Cut())
		}
		over()
		select {
		case <-ctx.Done():
			return proofOf(cut, "connections")
		case <-ticker.C:
		}
	}
}
