package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"pawl/internal/outbox"
)

const flushColumns = `f.seq, f.epoch, f.gen, f.n, f.results`

const resultsSQL = `
SELECT ` + flushColumns + ` FROM @schema.flush_g@gen f WHERE f.lane = $1 AND f.seq > $2 ORDER BY f.seq LIMIT $3`

// oldestSQL looks in all generations.
const oldestSQL = `
SELECT f.seq, f.gen FROM @schema.flush f WHERE f.lane = $1 AND f.seq > $2 ORDER BY f.seq LIMIT 1`

// Results gives the outcomes of the flushes numbered above after, in the order of the flushes and, within
// one, of the offsets. A flush is never split. limit is a number of flushes; those without outcomes do
// not count, so that no results means that there are none. Where flushes above after have been
// dropped, it begins with the oldest that is there.
func (l *Ledger) Results(ctx context.Context, lane int32, after int64, limit int) (results []outbox.Result, err error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	err = l.retryStale(lane, func() error {
		results, err = l.results(ctx, lane, after, limit)
		return err
	})
	return results, doing(err, "read results of", lane)
}

// flushRow is a flush as the relay reads it.
type flushRow struct {
	seq, epoch int64
	generation int
	outcomes   []outbox.Outcome
}

func (l *Ledger) results(ctx context.Context, lane int32, after int64, limit int) ([]outbox.Result, error) {
	flushes, err := l.flushes(ctx, lane, after, limit)
	if err != nil {
		return nil, err
	}
	var offsets []int64
	for _, f := range flushes {
		for _, o := range f.outcomes {
			offsets = append(offsets, o.Offset)
		}
	}
	slices.Sort(offsets)
	intents, err := l.get(ctx, lane, slices.Compact(offsets))
	if err != nil {
		return nil, err
	}
	results := make([]outbox.Result, 0, len(offsets))
	for _, f := range flushes {
		for _, o := range f.outcomes {
			i, _ := slices.BinarySearchFunc(intents, o.Offset, func(intent outbox.Intent, offset int64) int {
				return byOffset(intent, outbox.Intent{Offset: offset})
			})
			results = append(results, outbox.Result{Seq: f.seq, Epoch: f.epoch, Outcome: o, Intent: intents[i]})
		}
	}
	return results, nil
}

// flushes reads on from where the relay was last, generation by generation. The numbers of a lane
// ascend with its generations, so that no older one needs a look.
func (l *Ledger) flushes(ctx context.Context, lane int32, after int64, limit int) (found []flushRow, err error) {
	open, all, err := l.current(ctx)
	if err != nil {
		return nil, err
	}
	at, err := l.place(ctx, lane, after, open, all[0].number)
	if err != nil {
		return nil, err
	}
	for _, g := range all {
		if g.number < at.generation {
			continue
		}
		// Rows without outcomes are skipped here and not in the statement, which would read past all of them.
		for from := after; len(found) < limit; {
			wanted := limit - len(found)
			rows, err := l.pool.Query(ctx, l.sql(resultsSQL, g.number), lane, from, wanted)
			if err != nil {
				return nil, err
			}
			page, err := pgx.CollectRows(rows, scanFlush)
			if err != nil {
				return nil, err
			}
			for _, f := range page {
				from = f.seq
				if len(f.outcomes) > 0 {
					found = append(found, f)
				}
			}
			if len(page) < wanted {
				break
			}
		}
	}
	if n := len(found); n > 0 {
		l.mu.Lock()
		l.relayed[lane] = position{found[n-1].seq, found[n-1].generation}
		l.mu.Unlock()
	}
	return found, nil
}

// position is a flush and the generation it is in.
type position struct {
	seq        int64
	generation int
}

// place gives a generation before which there is no flush above after.
func (l *Ledger) place(ctx context.Context, lane int32, after int64, open, oldest int) (position, error) {
	l.mu.Lock()
	known, is := l.relayed[lane]
	l.mu.Unlock()
	if is && known.seq <= after {
		return known, nil
	}
	var found position
	err := l.pool.QueryRow(ctx, l.sql(oldestSQL, 0), lane, after).Scan(&found.seq, &found.generation)
	if errors.Is(err, pgx.ErrNoRows) {
		// There is none yet. The next one goes where this or another process thinks that the open
		// generation is, and their clocks may differ a little.
		found, err = position{after, max(open-1, oldest)}, nil
	}
	if err != nil {
		return position{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.relayed[lane] = position{after, found.generation}
	return found, nil
}

func scanFlush(row pgx.CollectableRow) (f flushRow, err error) {
	var n int
	var results []byte
	if err := row.Scan(&f.seq, &f.epoch, &f.generation, &n, &results); err != nil {
		return flushRow{}, err
	}
	if f.outcomes, err = readResults(results); err != nil {
		return flushRow{}, fmt.Errorf("flush %d: %w", f.seq, err)
	}
	if len(f.outcomes) != n {
		return flushRow{}, fmt.Errorf("flush %d has %d outcomes, want %d", f.seq, len(f.outcomes), n)
	}
	return f, nil
}

const flushAtSQL = `
SELECT f.epoch, f.hi FROM @schema.flush f WHERE f.lane = $1 AND f.seq = $2
UNION ALL
SELECT p.epoch, p.last_off FROM @schema.progress p WHERE p.lane = $1 AND p.seq = $2 AND p.seq > 0
LIMIT 1`

// FlushAt identifies a flush by its epoch and the offset of its last outcome, -1 where it had none. The
// last flush of a lane is found for ever, others for as long as their generation is kept.
func (l *Ledger) FlushAt(ctx context.Context, lane int32, seq int64) (epoch, lastOffset int64, found bool, err error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	err = l.pool.QueryRow(ctx, l.sql(flushAtSQL, 0), lane, seq).Scan(&epoch, &lastOffset)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, 0, false, nil
	}
	return epoch, lastOffset, err == nil, doing(err, fmt.Sprintf("look up flush %d of", seq), lane)
}
