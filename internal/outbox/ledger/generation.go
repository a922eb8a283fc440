package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// generation is a span of time with a partition of its own in each large table. New rows go to the
// one that is open; which one that is is a matter of retention only, so clocks need not agree.
type generation struct {
	number int
	opens  time.Time
}

// generations is what is remembered of the table gen.
type generations struct {
	all   []generation  // ascending
	skew  time.Duration // of the database's clock before ours
	until time.Time     // by our clock: look again
}

// generationsFresh bounds how long a new generation may go unnoticed.
const generationsFresh = 30 * time.Second

var errNoGeneration = errors.New("the ledger has no generation: was it migrated?")

// current gives all generations, ascending, and the one that is open: the last that has opened. Where
// upkeep has stopped for long it is simply the newest, so that nothing but upkeep depends on upkeep.
func (l *Ledger) current(ctx context.Context) (open int, all []generation, err error) {
	l.mu.Lock()
	known := l.generations
	l.mu.Unlock()
	now := l.now().Round(0) // the wall clock, which goes on while a machine sleeps
	if len(known.all) == 0 || now.After(known.until) {
		if known, err = l.readGenerations(ctx, now); err != nil {
			return 0, nil, err
		}
	}
	open = known.all[0].number
	for _, g := range known.all {
		if !g.opens.After(now.Add(known.skew)) {
			open = g.number
		}
	}
	return open, known.all, nil
}

func (l *Ledger) readGenerations(ctx context.Context, now time.Time) (generations, error) {
	rows, err := l.pool.Query(ctx, l.sql(`SELECT gen, opens_at, now() FROM @schema.gen ORDER BY gen`, 0))
	if err != nil {
		return generations{}, fmt.Errorf("read generations: %w", err)
	}
	read := generations{until: now.Add(generationsFresh)}
	read.all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (g generation, err error) {
		var server time.Time
		err = row.Scan(&g.number, &g.opens, &server)
		read.skew = server.Sub(now)
		return g, err
	})
	if err != nil {
		return generations{}, fmt.Errorf("read generations: %w", err)
	}
	if len(read.all) == 0 {
		return generations{}, errNoGeneration
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.generations = read
	return read, nil
}

// span says from which offset on the effects of a lane are in a generation.
type span struct {
	generation int
	first      int64
}

// spansOf gives the spans of a lane, ascending. There may be newer ones in the database.
func (l *Ledger) spansOf(ctx context.Context, lane int32) ([]span, error) {
	l.mu.Lock()
	known := l.spans[lane]
	l.mu.Unlock()
	if len(known) > 0 {
		return known, nil
	}
	rows, err := l.pool.Query(ctx, l.sql(`SELECT s.gen, s.first_off FROM @schema.lane_gen s WHERE s.lane = $1 ORDER BY s.gen`, 0), lane)
	if err != nil {
		return nil, fmt.Errorf("read generations: %w", err)
	}
	read, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s span, err error) {
		err = row.Scan(&s.generation, &s.first)
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("read generations: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spans[lane] = read
	return read, nil
}

// addSpan remembers that a lane has gone on to a new generation.
func (l *Ledger) addSpan(lane int32, s span) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known := l.spans[lane]; len(known) > 0 {
		l.spans[lane] = append(slices.Clip(known), s)
	}
}

// locate gives the index of the span that has an offset; -1 where the offset is older than all.
func locate(spans []span, offset int64) int {
	for i, s := range slices.Backward(spans) {
		if s.first <= offset {
			return i
		}
	}
	return -1
}

// byGeneration groups offsets by the generation they are in; 0 has those older than all.
func byGeneration(spans []span, offsets []int64) map[int][]int64 {
	groups := map[int][]int64{}
	for _, offset := range offsets {
		generation := 0
		if i := locate(spans, offset); i >= 0 {
			generation = spans[i].generation
		}
		groups[generation] = append(groups[generation], offset)
	}
	return groups
}
