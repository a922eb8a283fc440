package ledger

import (
	"context"
	"runtime"
	"slices"
	"sync"

	"pawl/internal/postgres"
)

// group makes one statement of calls for different lanes that come at about the same time: a statement and its commit cost
// the server as much as what one lane has at a time. While as many are under way as may be, those who come wait, and go with the
// next one, which one of them runs for all.
type group[T any] struct {
	// run does the work of all members and sets the error of each. Its context ends later than that of any caller, if need be.
	run  func(ctx context.Context, members []*member[T])
	most int // statements at once

	mu        sync.Mutex
	under     int  // leaders
	gathering bool // one of them has not begun, and takes all who wait along
	waiting   []*member[T]
}

// member is a call.
type member[T any] struct {
	value T
	err   error
	turn  chan bool // gets true when it has to lead, false when its work is done
}

// do gives what became of the caller's own part. Where ctx ends first, that is unknown.
func (g *group[T]) do(ctx context.Context, value T) error {
	m := &member[T]{value: value, turn: make(chan bool, 1)}
	g.mu.Lock()
	leads := !g.gathering && g.under < g.most
	if leads {
		g.gathering = true
		g.under++
	} else {
		g.waiting = append(g.waiting, m)
	}
	g.mu.Unlock()
	if leads {
		runtime.Gosched() // those who were woken together with us may come along
	} else {
		select {
		case leads = <-m.turn:
		case <-ctx.Done():
			g.quit(m)
			return ctx.Err()
		}
	}
	if leads {
		g.lead(ctx, m)
	}
	return m.err
}

// lead works for itself and all who wait, and lets one of those lead who have come meanwhile.
func (g *group[T]) lead(ctx context.Context, leader *member[T]) {
	g.mu.Lock()
	others := g.waiting
	g.waiting, g.gathering = nil, false
	g.mu.Unlock()
	g.run(context.WithoutCancel(ctx), append([]*member[T]{leader}, others...))
	for _, m := range others {
		m.turn <- false // only who was to lead had true before
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pass()
}

// pass ends a lead. It must be called under the lock.
func (g *group[T]) pass() {
	if g.gathering || len(g.waiting) == 0 {
		g.under--
		return
	}
	next := g.waiting[0]
	g.waiting, g.gathering = g.waiting[1:], true
	next.turn <- true
}

// quit takes out a member that waits no longer. If it was to lead, another one does.
func (g *group[T]) quit(m *member[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = slices.DeleteFunc(g.waiting, func(other *member[T]) bool { return other == m })
	select {
	case leads := <-m.turn:
		if leads {
			g.gathering = false
			g.pass()
		}
	default:
	}
}

// together runs a statement for the members of each generation, one of each lane. write gives the lanes that it has written for;
// those that are not among them get the error otherwise. Where a row is there already, of another process, nothing is written for
// anybody: then each member goes alone.
func together[T any](members []*member[T], generation func(T) int, lane func(T) int32, otherwise error, write func([]T) ([]int32, error)) {
	for len(members) > 0 {
		number, taken := generation(members[0].value), map[int32]bool{}
		var some, rest []*member[T]
		var values []T
		for _, m := range members {
			if generation(m.value) != number || taken[lane(m.value)] {
				rest = append(rest, m)
				continue
			}
			taken[lane(m.value)] = true
			some, values = append(some, m), append(values, m.value)
		}
		members = rest
		lanes, err := write(values)
		if postgres.Code(err) == postgres.UniqueViolation && len(some) > 1 {
			for _, m := range some {
				together([]*member[T]{m}, generation, lane, otherwise, write)
			}
			continue
		}
		for _, m := range some {
			if m.err = err; err == nil && !slices.Contains(lanes, lane(m.value)) {
				m.err = otherwise
			}
		}
	}
}
