package telemetry

import (
	"sync"
	"time"
)

const (
	linesMax    = 10 // of one kind in one linesPeriod
	linesPeriod = 10 * time.Second
)

// kind is what log lines are thinned out by: the message and a label that tells its sorts apart.
// Both come from closed sets, so that there are few kinds.
type kind struct{ message, label string }

// limiter lets the first lines of each kind through and counts the others.
type limiter struct {
	mu    sync.Mutex
	kinds map[kind]*window
}

type window struct {
	began      time.Time
	passed     int
	suppressed int // since the last line that passed or was reported
}

func newLimiter() *limiter { return &limiter{kinds: map[kind]*window{}} }

// allow reports whether a line may be written now, and how many of its kind were not since the
// last one that was.
func (l *limiter) allow(k kind) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w, known := l.kinds[k]
	if !known {
		w = &window{}
		l.kinds[k] = w
	}
	if now := time.Now(); now.Sub(w.began) >= linesPeriod {
		w.began, w.passed = now, 0
	}
	if w.passed == linesMax {
		w.suppressed++
		return 0, false
	}
	w.passed++
	suppressed, w.suppressed = w.suppressed, 0
	return suppressed, true
}

// flush takes the counts of the kinds that have been quiet since their period ended, or of all.
// Without it the last lines of a flood would never be accounted for.
func (l *limiter) flush(all bool) map[kind]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	counts := map[kind]int{}
	for k, w := range l.kinds {
		if !all && now.Sub(w.began) < linesPeriod {
			continue
		}
		if w.suppressed > 0 {
			counts[k] = w.suppressed
		}
		delete(l.kinds, k)
	}
	return counts
}
