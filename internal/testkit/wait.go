package testkit

import (
	"context"
	"testing"
	"time"
)

// poll is how often WaitFor looks.
const poll = 20 * time.Millisecond

// WaitFor returns as soon as done returns true, and fails the test, naming what it waited for, when
// that takes longer than timeout. Where the code under test offers an event, wait for that instead.
func WaitFor(tb testing.TB, timeout time.Duration, what string, done func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), timeout)
	defer cancel()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			tb.Fatalf("waited %v in vain for: %s", timeout, what)
		case <-ticker.C:
		}
	}
}
