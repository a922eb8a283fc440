package testkit

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
)

// shared is something expensive that the tests of a process have in common: made at the first use,
// closed by Main. Without Main the kernel ends its processes with the test process.
type shared[T any] struct {
	mu    sync.Mutex
	made  bool
	value T
	err   error
	end   func() error
}

// get makes the value once; all callers share the outcome, good or bad.
func (s *shared[T]) get(open func() (T, func() error, error)) (T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.made {
		s.made = true
		s.value, s.end, s.err = open()
	}
	return s.value, s.err
}

// close ends what was made, if anything was.
func (s *shared[T]) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end == nil {
		return nil
	}
	end := s.end
	s.end = nil
	return end()
}

// The brokers and the database of this test process.
var (
	sharedKafka    shared[[]string]
	sharedPostgres shared[string]
)

// Main is for the TestMain of packages that want the shared servers closed in good order, for
// instance because they look for goroutines left behind: it runs the tests, closes the servers, runs
// the checks and returns the exit code.
//
//	func TestMain(m *testing.M) { os.Exit(testkit.Main(m, func() error { return goleak.Find() })) }
func Main(m *testing.M, checks ...func() error) int {
	code := m.Run()
	err := errors.Join(sharedKafka.close(), sharedPostgres.close())
	for _, check := range checks {
		err = errors.Join(err, check())
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "after the tests: %v\n", err)
		return max(code, 1)
	}
	return code
}

// unavailable says that this machine lacks what a server needs. Any other error means that the server
// is there and broken.
type unavailable struct{ error }

func (u unavailable) Unwrap() error { return u.error }

// require ends a test that cannot have what it needs. What this machine does not have skips the test
// loudly, by name, and fails it in CI, where nothing may be left out without notice. What is there
// and does not work fails it everywhere.
func require(tb testing.TB, what string, err error) {
	tb.Helper()
	if err == nil {
		return
	}
	if _, ok := errors.AsType[unavailable](err); !ok || os.Getenv("CI") == "true" {
		tb.Fatalf("%s needs %s: %v", tb.Name(), what, err)
	}
	tb.Skipf("SKIPPED %s: needs %s: %v", tb.Name(), what, err)
}
