package testkit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
)

// probe is a test that notes how it was ended instead of ending.
type probe struct {
	testing.TB
	skipped, failed string
}

func (p *probe) Helper()                        {}
func (p *probe) Skipf(format string, a ...any)  { p.skipped = fmt.Sprintf(format, a...) }
func (p *probe) Fatalf(format string, a ...any) { p.failed = fmt.Sprintf(format, a...) }

// What is missing skips on a laptop and fails in CI; what is broken fails everywhere.
func TestRequireSkipsOnlyWhatIsMissing(t *testing.T) {
	errTest := errors.New("no such thing")
	for _, test := range []struct {
		ci           string
		err          error
		skips, fails bool
	}{
		{"", nil, false, false},
		{"", unavailable{errTest}, true, false},
		{"", fmt.Errorf("open: %w", unavailable{errTest}), true, false},
		{"", errTest, false, true},
		{"true", unavailable{errTest}, false, true},
		{"true", errTest, false, true},
	} {
		t.Setenv("CI", test.ci)
		p := &probe{TB: t}
		require(p, "a thing", test.err)
		if (p.skipped != "") != test.skips && p.failed == "" || (p.failed != "") != test.fails {
			t.Errorf("CI=%q, %v: skipped %q, failed %q", test.ci, test.err, p.skipped, p.failed)
		}
	}
}

func TestSharedServerOpensOnceAndClosesOnce(t *testing.T) {
	t.Parallel()
	var s shared[int]
	if err := s.close(); err != nil {
		t.Errorf("close of what was never made: %v", err)
	}
	var opened, closed int
	var done sync.WaitGroup
	for range 8 {
		done.Go(func() {
			value, err := s.get(func() (int, func() error, error) {
				opened++
				return 7, func() error { closed++; return nil }, nil
			})
			if value != 7 || err != nil {
				t.Errorf("got %d, %v", value, err)
			}
		})
	}
	done.Wait()
	if err := errors.Join(s.close(), s.close()); err != nil || opened != 1 || closed != 1 {
		t.Errorf("opened %d times, closed %d times, %v", opened, closed, err)
	}
}

func TestLadderSaysEverythingThatIsMissing(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
	errTest := errors.New("no Java runtime")
	never := func(context.Context) (int, func() error, error) {
		t.Error("opened what is missing")
		return 0, nil, nil
	}
	_, _, err := firstOf(never, errTest, never)
	if _, ok := errors.AsType[unavailable](err); !ok || !errors.Is(err, errTest) {
		t.Errorf("error %v", err)
	}
	value, _, err := firstOf(never, nil, func(context.Context) (int, func() error, error) { return 7, nil, nil })
	if value != 7 || err != nil {
		t.Errorf("without Docker: %d, %v", value, err)
	}
}
