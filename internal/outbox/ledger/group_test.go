package ledger

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pawl/internal/postgres"
)

var errNotWritten = errors.New("not written")

// part is what the members of these tests bring.
type part struct {
	lane       int32
	generation int
}

func runParts(write func([]part) ([]int32, error)) func(context.Context, []*member[part]) {
	return func(_ context.Context, members []*member[part]) {
		together(members, func(p part) int { return p.generation }, func(p part) int32 { return p.lane }, errNotWritten, write)
	}
}

func lanesOf(parts []part) (lanes []int32) {
	for _, p := range parts {
		lanes = append(lanes, p.lane)
	}
	return lanes
}

// While a statement is under way eleven lanes come: they go with the next one.
func TestThoseWhoWaitGoTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		g := group[part]{most: 1, run: runParts(func(parts []part) ([]int32, error) {
			sizes = append(sizes, len(parts))
			time.Sleep(time.Millisecond) //nolint:forbidigo // virtual time
			return lanesOf(parts), nil
		})}
		var all sync.WaitGroup
		all.Go(func() { wantNil(t, g.do(t.Context(), part{lane: 0})) })
		synctest.Wait()
		for lane := int32(1); lane <= 11; lane++ {
			all.Go(func() { wantNil(t, g.do(t.Context(), part{lane: lane})) })
		}
		all.Wait()
		if !slices.Equal(sizes, []int{1, 11}) {
			t.Errorf("statements were for %v lanes, want 1 and 11", sizes)
		}
		wantNil(t, g.do(t.Context(), part{lane: 3}))
	})
}

// Where two statements may be under way, those who come meanwhile need not wait for the first one, but go together.
func TestThoseWhoComeLaterGoBesideTheFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		sizes, under, most := []int{}, 0, 0
		g := group[part]{most: 2, run: runParts(func(parts []part) ([]int32, error) {
			mu.Lock()
			under++
			most = max(most, under)
			sizes = append(sizes, len(parts))
			mu.Unlock()
			time.Sleep(time.Second) //nolint:forbidigo // virtual time
			mu.Lock()
			under--
			mu.Unlock()
			return lanesOf(parts), nil
		})}
		begun := time.Now()
		var all sync.WaitGroup
		all.Go(func() { wantNil(t, g.do(t.Context(), part{lane: 0})) })
		synctest.Wait()
		all.Go(func() { wantNil(t, g.do(t.Context(), part{lane: 1})) })
		synctest.Wait()
		for lane := int32(2); lane <= 9; lane++ {
			all.Go(func() { wantNil(t, g.do(t.Context(), part{lane: lane})) })
		}
		all.Wait()
		if took := time.Since(begun); !slices.Equal(sizes, []int{1, 1, 8}) || most != 2 || took != 2*time.Second {
			t.Errorf("statements for %v lanes, %d at once, took %s; want 1, 1 and 8, two at once, 2 s", sizes, most, took)
		}
		wantNil(t, g.do(t.Context(), part{lane: 3}))
		if g.under != 0 || g.gathering || len(g.waiting) > 0 {
			t.Errorf("%d lead, one gathers: %t, %d wait; want nobody", g.under, g.gathering, len(g.waiting))
		}
	})
}

func wantNil(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// Each hears of its own part only: two parts of one lane, or of two generations, never stand in one statement.
func TestEachHearsWhatBecameOfItsOwn(t *testing.T) {
	t.Parallel()
	members := []*member[part]{
		{value: part{lane: 1, generation: 1}},
		{value: part{lane: 2, generation: 1}},
		{value: part{lane: 1, generation: 1}},
		{value: part{lane: 3, generation: 2}},
	}
	statements := 0
	runParts(func(parts []part) ([]int32, error) {
		statements++
		if statements == 1 {
			return []int32{1}, nil // lane 2 does not stand where it should
		}
		if len(parts) != 1 {
			t.Errorf("statement %d has %v", statements, parts)
		}
		if parts[0].lane == 1 {
			return nil, nil // the second of its lane does not fit any more
		}
		return lanesOf(parts), nil
	})(t.Context(), members)
	want := []error{nil, errNotWritten, errNotWritten, nil}
	for i, m := range members {
		if !errors.Is(m.err, want[i]) {
			t.Errorf("member %d hears %v, want %v", i, m.err, want[i])
		}
	}
	if statements != 3 {
		t.Errorf("%d statements, want 3", statements)
	}
}

// Another process was faster in one lane. Its row fails the statement of all, who are not to blame.
func TestOneThatIsOvertakenDoesNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	taken := &pgconn.PgError{Code: postgres.UniqueViolation}
	members := []*member[part]{{value: part{lane: 1}}, {value: part{lane: 2}}, {value: part{lane: 3}}}
	runParts(func(parts []part) ([]int32, error) {
		if slices.Contains(lanesOf(parts), 2) {
			return nil, taken
		}
		return lanesOf(parts), nil
	})(t.Context(), members)
	for i, want := range []error{nil, taken, nil} {
		if !errors.Is(members[i].err, want) {
			t.Errorf("lane %d hears %v, want %v", i+1, members[i].err, want)
		}
	}
}

// The one who is to lead next has lost patience: somebody else leads, and nobody waits for ever.
func TestWhoLeavesPassesTheLeadOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := group[part]{most: 1, run: runParts(func(parts []part) ([]int32, error) {
			time.Sleep(time.Second) //nolint:forbidigo // virtual time
			return lanesOf(parts), nil
		})}
		var all sync.WaitGroup
		all.Go(func() { wantNil(t, g.do(t.Context(), part{lane: 0})) })
		synctest.Wait()
		impatient, cancel := context.WithTimeout(t.Context(), time.Second) // ends just when the lead is passed on
		defer cancel()
		all.Go(func() {
			if err := g.do(impatient, part{lane: 1}); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
		synctest.Wait()
		all.Go(func() { wantNil(t, g.do(t.Context(), part{lane: 2})) })
		all.Wait()
		wantNil(t, g.do(t.Context(), part{lane: 3}))
	})
}
