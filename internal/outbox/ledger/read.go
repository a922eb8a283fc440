package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"pawl/internal/outbox"
)

// scanIntent reads a row of effectColumns.
func scanIntent(row pgx.CollectableRow) (i outbox.Intent, err error) {
	var (
		generation int
		class      int16
		twinOffset *int64
		twinLane   *int32
		same       *bool
		at         time.Time
	)
	err = row.Scan(&i.Offset, &i.Source.Offset, &at, &generation, &i.Lane, &i.Source.Partition, &i.Source.ReplayGeneration, &i.Index, &class,
		(*[16]byte)(&i.ID), &i.Source.TopicID, &i.Source.Topic, &i.Endpoint, &i.ContentType, &i.BusinessKey, &i.Trace, &i.Key, &i.Body,
		&twinOffset, &twinLane, &same)
	if err != nil {
		return outbox.Intent{}, err
	}
	i.At = at.UTC()
	i.Source.Topic, i.Endpoint, i.ContentType = original(i.Source.Topic), original(i.Endpoint), original(i.ContentType)
	i.BusinessKey, i.Trace = original(i.BusinessKey), original(i.Trace)
	if twinOffset != nil && twinLane != nil && same != nil {
		i.Twin = &outbox.Twin{Lane: *twinLane, Offset: *twinOffset, Same: *same}
	}
	if i.Class, err = classOf(class); err != nil {
		return outbox.Intent{}, fmt.Errorf("effect %d:%d: %w", i.Lane, i.Offset, err)
	}
	return i, nil
}

const pageHeadSQL = `SELECT c.next_off, c.gen FROM @schema.ingest c WHERE c.lane = $1 ORDER BY c.base_off DESC LIMIT 1`

const pageSQL = `SELECT ` + effectColumns + ` FROM @schema.effect_g@gen WHERE lane = $1 AND off >= $2 ORDER BY off LIMIT $3`

// Page gives up to limit intents from an offset on, whatever became of them. All that there are in
// [from, next) are among them; next is at most that of Head. Intents of generations that were dropped
// are gone: every one of them was settled, or is parked and can be had by Get.
func (l *Ledger) Page(ctx context.Context, lane int32, from int64, limit int) (intents []outbox.Intent, next int64, err error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	err = l.retryStale(lane, func() error {
		intents, next, err = l.page(ctx, lane, from, limit)
		return err
	})
	return intents, next, doing(err, "page through", lane)
}

func (l *Ledger) page(ctx context.Context, lane int32, from int64, limit int) ([]outbox.Intent, int64, error) {
	spans, err := l.spansOf(ctx, lane)
	if err != nil {
		return nil, 0, err
	}
	if len(spans) == 0 {
		return l.pageOfNone(ctx, lane)
	}
	var intents []outbox.Intent
	for i := max(0, locate(spans, from)); ; i++ {
		var head int64
		var newest int
		var batch pgx.Batch
		// The head comes first: what is below it is there for the statement after it.
		batch.Queue(l.sql(pageHeadSQL, 0), lane).QueryRow(func(row pgx.Row) error { return row.Scan(&head, &newest) })
		batch.Queue(l.sql(pageSQL, spans[i].generation), lane, from, limit-len(intents)).Query(func(rows pgx.Rows) error {
			intents, err = pgx.AppendRows(intents, rows, scanIntent)
			return err
		})
		if err := batched(ctx, l.pool, &batch); err != nil {
			return nil, 0, err
		}
		if newest != spans[len(spans)-1].generation {
			return nil, 0, errStale
		}
		switch {
		case len(intents) >= limit && limit > 0:
			return intents, intents[len(intents)-1].Offset + 1, nil
		case i == len(spans)-1:
			return intents, head, nil
		}
	}
}

// pageOfNone is the page of a lane that was never ingested, or of one whose generations have all been
// dropped since.
func (l *Ledger) pageOfNone(ctx context.Context, lane int32) ([]outbox.Intent, int64, error) {
	var head int64
	var newest int
	err := l.pool.QueryRow(ctx, l.sql(pageHeadSQL, 0), lane).Scan(&head, &newest)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	_, all, err := l.current(ctx)
	if err != nil {
		return nil, 0, err
	}
	if newest >= all[0].number {
		return nil, 0, errStale
	}
	return nil, head, nil
}

const getSQL = `SELECT ` + effectColumns + ` FROM @schema.effect_g@gen WHERE lane = $1 AND off = ANY($2::bigint[])`

const getRangeSQL = `SELECT ` + effectColumns + ` FROM @schema.effect_g@gen WHERE lane = $1 AND off >= $2 AND off <= $3`

const getKeptSQL = `SELECT ` + effectColumns + ` FROM @schema.kept WHERE lane = $1 AND off = ANY($2::bigint[])`

// Get gives the intents at offsets, ascending: of generations that are there, and those that were kept
// when theirs was dropped. One that is not there is an error.
func (l *Ledger) Get(ctx context.Context, lane int32, offsets []int64) (intents []outbox.Intent, err error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	wanted := slices.Compact(slices.Sorted(slices.Values(offsets)))
	err = l.retryStale(lane, func() error {
		intents, err = l.get(ctx, lane, wanted)
		return err
	})
	return intents, doing(err, "get effects of", lane)
}

// get expects ascending offsets. It gives errStale where one is missing.
func (l *Ledger) get(ctx context.Context, lane int32, offsets []int64) ([]outbox.Intent, error) {
	intents, err := l.lookUp(ctx, lane, offsets)
	if err != nil {
		return nil, err
	}
	if gone := absent(offsets, intents); len(gone) > 0 {
		return nil, fmt.Errorf("there is no effect at %d: %w", gone[0], errStale)
	}
	return intents, nil
}

// lookUp gives the intents at ascending offsets that are there.
func (l *Ledger) lookUp(ctx context.Context, lane int32, offsets []int64) ([]outbox.Intent, error) {
	if len(offsets) == 0 {
		return nil, nil
	}
	spans, err := l.spansOf(ctx, lane)
	if err != nil {
		return nil, err
	}
	intents := make([]outbox.Intent, 0, len(offsets))
	groups := byGeneration(spans, offsets)
	missing := groups[0]
	delete(groups, 0)
	for _, generation := range slices.Sorted(maps.Keys(groups)) {
		group, from := groups[generation], len(intents)
		rows, err := l.queryOffsets(ctx, lane, generation, group)
		if err != nil {
			return nil, err
		}
		if intents, err = pgx.AppendRows(intents, rows, scanIntent); err != nil {
			return nil, err
		}
		slices.SortFunc(intents[from:], byOffset)
		found := intents[from:from]
		for _, intent := range intents[from:] { // a range may bring more
			if _, is := slices.BinarySearch(group, intent.Offset); is {
				found = append(found, intent)
			}
		}
		intents = intents[:from+len(found)]
		if len(found) < len(group) {
			missing = append(missing, absent(group, found)...)
		}
	}
	if len(missing) == 0 {
		return intents, nil
	}
	rows, err := l.pool.Query(ctx, l.sql(getKeptSQL, 0), lane, missing)
	if err != nil {
		return nil, err
	}
	if intents, err = pgx.AppendRows(intents, rows, scanIntent); err != nil {
		return nil, err
	}
	slices.SortFunc(intents, byOffset)
	return intents, nil
}

// queryOffsets reads one stretch of the index where the offsets lie close, and looks each up where not.
func (l *Ledger) queryOffsets(ctx context.Context, lane int32, generation int, offsets []int64) (pgx.Rows, error) {
	const sparse = 2 // positions for each offset
	first, last := offsets[0], offsets[len(offsets)-1]
	if last-first < sparse*int64(len(offsets)) {
		return l.pool.Query(ctx, l.sql(getRangeSQL, generation), lane, first, last)
	}
	return l.pool.Query(ctx, l.sql(getSQL, generation), lane, offsets)
}

func byOffset(a, b outbox.Intent) int {
	switch {
	case a.Offset < b.Offset:
		return -1
	case a.Offset > b.Offset:
		return 1
	default:
		return 0
	}
}

// absent gives the offsets that have no intent; both ascend.
func absent(offsets []int64, intents []outbox.Intent) (gone []int64) {
	i := 0
	for _, offset := range offsets {
		for i < len(intents) && intents[i].Offset < offset {
			i++
		}
		if i == len(intents) || intents[i].Offset != offset {
			gone = append(gone, offset)
		}
	}
	return gone
}
