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

const pendingSQL = `
SELECT e.endpoint, count(*), min(e.at), coalesce(max(e.off), 0) FROM (
  SELECT p.off, p.endpoint, p.at FROM @schema.effect_g@gen p WHERE p.lane = $1 AND p.off >= $2 ORDER BY p.off LIMIT $4
) e
WHERE NOT $3::text::int8multirange @> e.off
GROUP BY e.endpoint`

// Summary counts by endpoint, sorted. It counts at most a hundred thousand pending effects of a lane.
func (l *Ledger) Summary(ctx context.Context) ([]Backlog, error) {
	all := map[string]*Backlog{}
	of := func(endpoint string) *Backlog {
		endpoint = original(endpoint)
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
			b := of(endpoint)
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
			switch b := of(endpoint); State(fate) {
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
	excluded := slices.Clone(s.settled)
	for offset := range s.aside {
		excluded = excluded.Add(offset, offset+1)
	}
	type count struct {
		endpoint string
		n        int64
		oldest   time.Time
		last     int64
	}
	var counted []count // added up only when all have been read: a retry begins again
	for i := max(0, locate(spans, s.low)); i < len(spans); i++ {
		rows, err := l.pool.Query(ctx, l.sql(pendingSQL, spans[i].generation), lane, s.low, multirange(excluded), summaryMax)
		if err != nil {
			return err
		}
		part, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c count, err error) {
			err = row.Scan(&c.endpoint, &c.n, &c.oldest, &c.last)
			return c, err
		})
		if err != nil {
			return err
		}
		counted = append(counted, part...)
	}
	total := int64(0)
	for _, c := range counted {
		total += c.n
	}
	for _, c := range counted {
		b := of(c.endpoint)
		b.Pending += c.n
		b.AtLeast = b.AtLeast || total >= summaryMax
		b.since(c.oldest)
	}
	return nil
}
