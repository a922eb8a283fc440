package ledger

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Backlog is what the ledger holds of an endpoint.
type Backlog struct {
	Endpoint string
	Pending  int64
	Parked   int64
	Dead     int64
	Unknown  int64
	Conflict int64
	Oldest   time.Time // commit of the oldest pending or first attempt of the oldest parked, zero without any
	AtLeast  bool      // there are more pending than were counted
}

// summaryMax bounds how many effects of a lane are counted.
const summaryMax = 100_000

const totalsSQL = `
SELECT s.first_off, s.last_off, s.n, s.totals FROM @schema.segment_g@gen s WHERE s.lane = $1 AND s.last_off >= $2 ORDER BY s.last_off LIMIT $3`

const wholeSQL = `SELECT ` + segmentColumns + ` FROM @schema.segment_g@gen s WHERE s.lane = $1 AND s.last_off = ANY($2::bigint[])`

// What is read at once to count.
const (
	totalsPage = 4096
	wholePage  = 64
)

// Summary counts by endpoint, sorted. It counts at most a hundred thousand pending effects of a lane.
func (l *Ledger) Summary(ctx context.Context) ([]Backlog, error) {
	all := map[string]*Backlog{}
	of := func(endpoint string) *Backlog {
		if all[endpoint] == nil {
			all[endpoint] = &Backlog{Endpoint: endpoint}
		}
		return all[endpoint]
	}
	if err := l.countSmall(ctx, of); err != nil {
		return nil, fmt.Errorf("count effects: %w", err)
	}
	lanes, err := l.lanes(ctx)
	if err != nil {
		return nil, fmt.Errorf("count effects: %w", err)
	}
	for _, lane := range lanes {
		if err := l.retryStale(lane, func() error { return l.countPending(ctx, lane, of) }); err != nil {
			return nil, fmt.Errorf("count effects: lane %d: %w", lane, err)
		}
	}
	return slices.SortedFunc(values(all), func(a, b Backlog) int { return cmp.Compare(a.Endpoint, b.Endpoint) }), nil
}

func values(all map[string]*Backlog) func(yield func(Backlog) bool) {
	return func(yield func(Backlog) bool) {
		for b := range maps.Values(all) {
			if !yield(*b) {
				return
			}
		}
	}
}

func (b *Backlog) since(at time.Time) {
	if b.Oldest.IsZero() || at.Before(b.Oldest) {
		b.Oldest = at.UTC()
	}
}

func (l *Ledger) countSmall(ctx context.Context, of func(string) *Backlog) error {
	var batch pgx.Batch
	batch.Queue(l.sql(`SELECT p.endpoint, count(*), min(p.first_at) FROM @schema.parked p GROUP BY p.endpoint`, 0)).Query(func(rows pgx.Rows) error {
		var endpoint string
		var n int64
		var oldest time.Time
		_, err := pgx.ForEachRow(rows, []any{&endpoint, &n, &oldest}, func() error {
			b := of(original(endpoint))
			b.Parked = n
			b.since(oldest)
			return nil
		})
		return err
	})
	batch.Queue(l.sql(`SELECT d.endpoint, d.fate, count(*) FROM @schema.dead d GROUP BY d.endpoint, d.fate`, 0)).Query(func(rows pgx.Rows) error {
		var endpoint, fate string
		var n int64
		_, err := pgx.ForEachRow(rows, []any{&endpoint, &fate, &n}, func() error {
			switch b := of(original(endpoint)); State(fate) {
			case Dead:
				b.Dead = n
			case Unknown:
				b.Unknown = n
			case Conflict:
				b.Conflict = n
			default:
				return fmt.Errorf("unknown fate %q", fate)
			}
			return nil
		})
		return err
	})
	return batched(ctx, l.pool, &batch)
}

func (l *Ledger) countPending(ctx context.Context, lane int32, of func(string) *Backlog) error {
	s, err := l.standing(ctx, lane)
	if err != nil {
		return err
	}
	spans, err := l.spansOf(ctx, lane)
	if err != nil {
		return err
	}
	n := counting{lane: lane, standing: s, counts: map[string]*count{}}
	for i := max(0, locate(spans, s.low)); i < len(spans); i++ {
		if err := l.countIn(ctx, spans[i].generation, &n); err != nil {
			return err
		}
	}
	for endpoint, c := range n.counts { // added up only now that all have been read: a retry begins again
		b := of(endpoint)
		b.Pending += c.n
		b.AtLeast = b.AtLeast || n.total >= summaryMax
		b.since(c.oldest)
	}
	return nil
}

// counting is what has been counted of a lane.
type counting struct {
	lane int32
	standing
	counts map[string]*count
	total  int64
}

type count struct {
	n      int64
	oldest time.Time
}

func (c *counting) add(endpoint string, n int64, since time.Time) {
	have := c.counts[endpoint]
	if have == nil {
		have = &count{oldest: since}
		c.counts[endpoint] = have
	}
	have.n += n
	c.total += n
	if since.Before(have.oldest) {
		have.oldest = since
	}
}

// countIn counts the pending ones of a generation. Of a segment in which all are pending the totals tell enough.
func (l *Ledger) countIn(ctx context.Context, generation int, c *counting) error {
	for from := c.low; c.total < summaryMax; {
		rows, err := l.pool.Query(ctx, l.sql(totalsSQL, generation), c.lane, from, totalsPage)
		if err != nil {
			return err
		}
		segments, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s segment, err error) {
			err = row.Scan(&s.first, &s.last, &s.n, &s.totals)
			return s, err
		})
		if err != nil {
			return err
		}
		var mixed []int64
		for i := range segments {
			if !c.whole(&segments[i]) {
				mixed = append(mixed, segments[i].last)
			} else if err := readTotals(segments[i].totals, c.add); err != nil {
				return fmt.Errorf("effects from %d: %w", segments[i].first, err)
			}
		}
		for some := range slices.Chunk(mixed, wholePage) {
			if err := l.countMixed(ctx, generation, some, c); err != nil {
				return err
			}
		}
		if len(segments) < totalsPage {
			break
		}
		from = segments[len(segments)-1].last + 1
	}
	return nil
}

// whole reports whether all effects of a segment are pending.
func (c *counting) whole(s *segment) bool {
	return s.first >= c.low && !c.settled.Overlaps(s.first, s.last+1) && !c.asides.Overlaps(s.first, s.last+1)
}

// countMixed counts, one by one, in segments of which some effects are not pending.
func (l *Ledger) countMixed(ctx context.Context, generation int, lasts []int64, c *counting) error {
	rows, err := l.pool.Query(ctx, l.sql(wholeSQL, generation), c.lane, lasts)
	if err != nil {
		return err
	}
	segments, err := pgx.CollectRows(rows, scanSegment)
	if err != nil {
		return err
	}
	for i := range segments {
		intents, err := segments[i].appendIntents(nil, c.lane, c.low)
		if err != nil {
			return err
		}
		for k := range intents {
			if c.pending(intents[k].Offset) {
				c.add(intents[k].Endpoint, 1, intents[k].At)
			}
		}
	}
	return nil
}
