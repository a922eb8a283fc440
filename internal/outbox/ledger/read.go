package ledger

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"pawl/internal/outbox"
)

const segmentColumns = `s.first_off, s.last_off, s.n, s.effects`

// scanSegment reads a row of segmentColumns.
func scanSegment(row pgx.CollectableRow) (s segment, err error) {
	err = row.Scan(&s.first, &s.last, &s.n, &s.effects)
	return s, err
}

const pageHeadSQL = `SELECT c.next_off, c.gen FROM @schema.ingest c WHERE c.lane = $1 ORDER BY c.base_off DESC LIMIT 1`

// pageSQL begins with the segment that $2 is in, or the next one.
const pageSQL = `
SELECT ` + segmentColumns + ` FROM @schema.segment_g@gen s WHERE s.lane = $1 AND s.last_off >= $2 ORDER BY s.last_off LIMIT $3`

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
		if intents, head, err = l.pageIn(ctx, lane, spans, i, from, limit, intents); err != nil {
			return nil, 0, err
		}
		switch {
		case len(intents) >= limit && limit > 0:
			intents = intents[:limit]
			return intents, intents[limit-1].Offset + 1, nil
		case i == len(spans)-1:
			return intents, head, nil
		}
	}
}

// pageIn appends the intents of one generation from an offset on, until there are limit or more. How many segments that
// takes is not known before: a full one has some dozens, one of a small batch has one.
func (l *Ledger) pageIn(ctx context.Context, lane int32, spans []span, i int, from int64, limit int, intents []outbox.Intent) (_ []outbox.Intent, head int64, err error) {
	const usual = 32 // effects of a segment
	for wanted := limit/usual + 1; ; {
		var newest, effects int
		var segments []segment
		var batch pgx.Batch
		// The head comes first: what is below it is there for the statement after it.
		batch.Queue(l.sql(pageHeadSQL, 0), lane).QueryRow(func(row pgx.Row) error { return row.Scan(&head, &newest) })
		batch.Queue(l.sql(pageSQL, spans[i].generation), lane, from, wanted).Query(func(rows pgx.Rows) error {
			segments, err = pgx.CollectRows(rows, scanSegment)
			return err
		})
		if err := batched(ctx, l.pool, &batch); err != nil {
			return nil, 0, err
		}
		if newest != spans[len(spans)-1].generation {
			return nil, 0, errStale
		}
		for k := range segments {
			if intents, err = segments[k].appendIntents(intents, lane, from); err != nil {
				return nil, 0, err
			}
			effects += segments[k].n
		}
		if len(segments) < wanted || len(intents) >= limit {
			return intents, head, nil
		}
		from = segments[len(segments)-1].last + 1
		wanted = (limit-len(intents))*len(segments)/effects + 1
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

// segmentsSQL gives the segments that offsets are in, or would be.
const segmentsSQL = `
SELECT ` + segmentColumns + ` FROM @schema.segment_g@gen s WHERE s.lane = $1 AND s.last_off = ANY(ARRAY(
  SELECT DISTINCT (SELECT w.last_off FROM @schema.segment_g@gen w WHERE w.lane = $1 AND w.last_off >= u.off ORDER BY w.last_off LIMIT 1)
  FROM unnest($2::bigint[]) AS u (off)))`

// stretchSQL gives the segments from the one of an offset to the one of another.
const stretchSQL = `
SELECT ` + segmentColumns + ` FROM @schema.segment_g@gen s WHERE s.lane = $1 AND s.last_off >= $2 AND s.last_off <= coalesce((
  SELECT w.last_off FROM @schema.segment_g@gen w WHERE w.lane = $1 AND w.last_off >= $3 ORDER BY w.last_off LIMIT 1), 9223372036854775807)`

const keptSQL = `SELECT k.off, k.effect FROM @schema.kept k WHERE k.lane = $1 AND k.off = ANY($2::bigint[])`

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
		if intents, err = l.pick(ctx, l.pool, lane, generation, group, intents); err != nil {
			return nil, err
		}
		if len(intents)-from < len(group) {
			missing = append(missing, absent(group, intents[from:])...)
		}
	}
	if len(missing) == 0 {
		return intents, nil
	}
	rows, err := l.pool.Query(ctx, l.sql(keptSQL, 0), lane, missing)
	if err != nil {
		return nil, err
	}
	kept, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s segment, err error) {
		s.n = 1
		err = row.Scan(&s.first, &s.effects)
		s.last = s.first
		return s, err
	})
	if err != nil {
		return nil, err
	}
	for i := range kept {
		if intents, err = kept[i].appendIntents(intents, lane, 0); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(intents, byOffset)
	return intents, nil
}

// pick appends the intents at ascending offsets that are in a generation, ascending. It reads one stretch of segments where the
// offsets lie close, and looks for the segment of each where not.
func (l *Ledger) pick(ctx context.Context, db querier, lane int32, generation int, offsets []int64, intents []outbox.Intent) ([]outbox.Intent, error) {
	const sparse = 2 // positions for each offset
	first, last := offsets[0], offsets[len(offsets)-1]
	var rows pgx.Rows
	var err error
	if last-first < sparse*int64(len(offsets)) {
		rows, err = db.Query(ctx, l.sql(stretchSQL, generation), lane, first, last)
	} else {
		rows, err = db.Query(ctx, l.sql(segmentsSQL, generation), lane, offsets)
	}
	if err != nil {
		return nil, err
	}
	segments, err := pgx.CollectRows(rows, scanSegment)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(segments, func(a, b segment) int { return cmp.Compare(a.first, b.first) })
	var all []outbox.Intent
	for i := range segments {
		if all, err = segments[i].appendIntents(all[:0], lane, first); err != nil {
			return nil, err
		}
		before := len(intents)
		for k := range all {
			if _, wanted := slices.BinarySearch(offsets, all[k].Offset); wanted {
				intents = append(intents, all[k])
			}
		}
		if few := intents[before:]; len(few) < len(all)/2 { // they must not keep the whole segment in memory
			for k := range few {
				few[k].Key, few[k].Body = bytes.Clone(few[k].Key), bytes.Clone(few[k].Body)
			}
		}
	}
	return intents, nil
}

func byOffset(a, b outbox.Intent) int { return cmp.Compare(a.Offset, b.Offset) }

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
