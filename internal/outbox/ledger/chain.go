package ledger

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"pawl/internal/failpoint"
	"pawl/internal/outbox"
	"pawl/internal/postgres"
)

// wholeEvery is the distance between chain rows that carry all marks of their lane. The head is put
// together from the newest of them and what follows it.
const wholeEvery = 100

// groupMax is the number of effects beyond which a batch is worth a statement of its own.
const groupMax = 250

// chain is the newest row of a lane's chain and the marks up to it. What is remembered of it is only a
// guess: every append compares number, position and topic with the row itself.
type chain struct {
	number     int64
	next       int64
	generation int
	topicID    [16]byte
	seen       map[outbox.Origin]outbox.Mark
}

const headSQL = `
SELECT c.number, c.next_off, c.gen, c.topic_id, c.whole, c.marks
FROM @schema.ingest c WHERE c.lane = $1 ORDER BY c.base_off DESC LIMIT $2`

// Head tells how far a lane has been ingested.
func (l *Ledger) Head(ctx context.Context, lane int32) (outbox.Head, error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	c, known, err := l.readChain(ctx, lane)
	if err != nil || !known {
		return outbox.Head{Lane: lane}, doing(err, "read head of", lane)
	}
	return outbox.Head{Lane: lane, Known: true, TopicID: c.topicID, Next: c.next, Seen: maps.Clone(c.seen)}, nil
}

func (l *Ledger) readChain(ctx context.Context, lane int32) (c chain, known bool, err error) {
	rows, err := l.pool.Query(ctx, l.sql(headSQL, 0), lane, wholeEvery)
	if err != nil {
		return chain{}, false, err
	}
	defer rows.Close()
	c.seen = map[outbox.Origin]outbox.Mark{}
	whole := false
	for rows.Next() && !whole { // newest first
		var row chain
		var marks []byte
		if err := rows.Scan(&row.number, &row.next, &row.generation, &row.topicID, &whole, &marks); err != nil {
			return chain{}, false, err
		}
		if !known {
			known, row.seen = true, c.seen
			c = row
		}
		if err := readMarks(marks, func(origin outbox.Origin, mark outbox.Mark) { raise(c.seen, origin, mark) }); err != nil {
			return chain{}, false, err
		}
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return chain{}, false, err
	}
	if !known {
		return chain{}, false, nil
	}
	if !whole {
		return chain{}, false, fmt.Errorf("the chain has no row with all marks among its last %d: it was tampered with; restore a backup or rebuild the ledger", wholeEvery)
	}
	remembered := c
	remembered.seen = maps.Clone(c.seen)
	l.remember(lane, remembered)
	return c, true, nil
}

func raise(seen map[outbox.Origin]outbox.Mark, origin outbox.Origin, mark outbox.Mark) {
	if have, is := seen[origin]; !is || mark.Above(have) {
		seen[origin] = mark
	}
}

// remember keeps a chain; its marks are the ledger's from then on.
func (l *Ledger) remember(lane int32, c chain) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.chains[lane] = c
}

// chainOf gives the remembered chain of a lane, or reads it. Nobody else may hold it: it is taken out of memory.
func (l *Ledger) chainOf(ctx context.Context, lane int32) (chain, bool, error) {
	l.mu.Lock()
	c, known := l.chains[lane]
	delete(l.chains, lane)
	l.mu.Unlock()
	if known {
		return c, true, nil
	}
	return l.readChain(ctx, lane)
}

// Seed begins the chain of a lane, so that it is read from next on. A lane that has a chain is left
// alone: outbox.ErrOvertaken.
func (l *Ledger) Seed(ctx context.Context, lane int32, topicID [16]byte, next int64) error {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	return doing(onTime(ctx, l.retryStale(lane, func() error { return l.seed(ctx, lane, topicID, next) })), "seed", lane)
}

func (l *Ledger) seed(ctx context.Context, lane int32, topicID [16]byte, next int64) error {
	generation, _, err := l.current(ctx)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		// Two seeds with different positions have different keys; the lock lets the second see the first.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext($1), $2)`, l.config.Schema, lane); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, l.sql(`
INSERT INTO @schema.ingest (lane, base_off, next_off, number, gen, n, topic_id, whole, marks)
SELECT $1, $2::bigint - 1, $2, 0, $3, 0, $4, true, $5
WHERE NOT EXISTS (SELECT FROM @schema.ingest c WHERE c.lane = $1)`, 0), lane, next, generation, topicID, writeMarks(nil))
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return outbox.ErrOvertaken
		}
		_, err = tx.Exec(ctx, l.sql(openSpanSQL, 0), lane, generation, next)
		return err
	})
}

// Append adds a batch if the lane stands at its Base under its TopicID, else it changes nothing and
// gives outbox.ErrOvertaken. It sets Twin of the intents, which is only right when it succeeds. After
// any other error the batch may have been added all the same: read the head.
func (l *Ledger) Append(ctx context.Context, batch *outbox.Batch) error {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	if err := checkBatch(batch); err != nil {
		return doing(err, "append to", batch.Lane)
	}
	return doing(onTime(ctx, l.retryStale(batch.Lane, func() error { return l.append(ctx, batch) })), "append to", batch.Lane)
}

func checkBatch(batch *outbox.Batch) error {
	if batch.Next <= batch.Base {
		return fmt.Errorf("the batch ends at %d and begins at %d", batch.Next, batch.Base)
	}
	from := batch.Base
	for i := range batch.Intents {
		intent := &batch.Intents[i]
		if intent.Lane != batch.Lane || intent.Offset < from || intent.Offset >= batch.Next {
			return fmt.Errorf("intent %d:%d is out of place", intent.Lane, intent.Offset)
		}
		if int(int32(intent.Index)) != intent.Index || int(int32(intent.Source.ReplayGeneration)) != intent.Source.ReplayGeneration { //nolint:gosec // that is the question
			return fmt.Errorf("intent %d:%d: its index %d or replay generation %d is too large for the ledger",
				intent.Lane, intent.Offset, intent.Index, intent.Source.ReplayGeneration)
		}
		from = intent.Offset + 1
	}
	return nil
}

func (l *Ledger) append(ctx context.Context, batch *outbox.Batch) error {
	c, known, err := l.chainOf(ctx, batch.Lane)
	if err != nil {
		return err
	}
	if !known || c.next != batch.Base || c.topicID != batch.TopicID {
		// What was remembered may be old, but then somebody else is ingesting this lane, and the caller
		// reads the head again in any case. If it is new the batch is wrong.
		if !known {
			return outbox.ErrOvertaken
		}
		if c, known, err = l.readChain(ctx, batch.Lane); err != nil {
			return err
		}
		if !known || c.next != batch.Base || c.topicID != batch.TopicID {
			return outbox.ErrOvertaken
		}
	}
	open, _, err := l.current(ctx)
	if err != nil {
		return err
	}
	link := l.link(batch, c, max(c.generation, open))
	intents := batch.Intents
	keyed := slices.ContainsFunc(intents, func(i outbox.Intent) bool { return i.BusinessKey != "" })
	clearTwins(intents)
	switch {
	case keyed || link.opens:
		err = l.appendInSteps(ctx, batch, link, keyed)
	case len(intents) > groupMax:
		err = l.addAlone(ctx, l.pool, additionOf(batch, link))
	default:
		err = l.appends.do(ctx, additionOf(batch, link))
	}
	if postgres.Code(err) == postgres.UniqueViolation {
		return outbox.ErrOvertaken // another writer saw the same end and was faster
	}
	if err != nil {
		return err
	}
	failpoint.Hit("ledger.appended")
	if link.opens {
		l.addSpan(batch.Lane, span{link.generation, batch.Base})
	}
	l.remember(batch.Lane, chain{link.number, batch.Next, link.generation, batch.TopicID, c.seen})
	return nil
}

func clearTwins(intents []outbox.Intent) {
	for i := range intents {
		intents[i].Twin = nil // what a failed attempt left
	}
}

// link is a row of the chain to be.
type link struct {
	number     int64
	generation int
	opens      bool // it is the lane's first in its generation
	whole      bool
	marks      []byte
}

func (l *Ledger) link(batch *outbox.Batch, c chain, generation int) link {
	k := link{number: c.number + 1, generation: generation, opens: generation != c.generation}
	for origin, mark := range batch.Seen {
		raise(c.seen, origin, mark)
	}
	marks := batch.Seen
	if k.whole = k.number%wholeEvery == 0; k.whole {
		marks = c.seen
	}
	k.marks = writeMarks(marks)
	return k
}

// appendSQL adds links with their segments, of several lanes in one generation, and gives the lanes of those that it has added.
// A chain row is inserted only where the newest row ends at its base, has the number before its own
// and is of the same topic. Of two writers that both see that, the primary key lets one commit.
const appendSQL = `
WITH link AS (
  INSERT INTO @schema.ingest (lane, base_off, next_off, number, gen, n, topic_id, whole, marks)
  SELECT i.lane, i.base_off, i.next_off, i.number, @gen, i.n, i.topic_id, i.whole, i.marks
  FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::int[], $6::uuid[], $7::boolean[], $8::bytea[])
    AS i (lane, base_off, next_off, number, n, topic_id, whole, marks)
  WHERE EXISTS (SELECT FROM (
    SELECT c.next_off, c.number, c.topic_id FROM @schema.ingest c WHERE c.lane = i.lane ORDER BY c.base_off DESC LIMIT 1
  ) head WHERE head.next_off = i.base_off AND head.number = i.number - 1 AND head.topic_id = i.topic_id)
  RETURNING lane
), packed AS (
  INSERT INTO @schema.segment_g@gen (gen, lane, first_off, last_off, n, totals, effects)
  SELECT @gen, u.lane, u.first_off, u.last_off, u.n, u.totals, u.effects
  FROM unnest($9::int[], $10::bigint[], $11::bigint[], $12::int[], $13::bytea[], $14::bytea[]) AS u (lane, first_off, last_off, n, totals, effects)
  WHERE u.lane IN (SELECT link.lane FROM link)
)
SELECT link.lane FROM link`

// addition is what is to be appended to a lane.
type addition struct {
	lane       int32
	base, next int64
	n          int
	topicID    [16]byte
	link       link
	segments   []segment
}

func additionOf(batch *outbox.Batch, k link) addition {
	return addition{batch.Lane, batch.Base, batch.Next, len(batch.Intents), batch.TopicID, k, pack(batch.Intents)}
}

// appendArguments are those of appendSQL.
func appendArguments(additions []addition) []any {
	n := len(additions)
	lanes, bases, nexts, numbers, counts := make([]int32, n), make([]int64, n), make([]int64, n), make([]int64, n), make([]int, n)
	topicIDs, wholes, marks := make([][16]byte, n), make([]bool, n), make([][]byte, n)
	var owners []int32
	var firsts, lasts []int64
	var sizes []int
	var totals, effects [][]byte
	for i, a := range additions {
		lanes[i], bases[i], nexts[i], numbers[i], counts[i] = a.lane, a.base, a.next, a.link.number, a.n
		topicIDs[i], wholes[i], marks[i] = a.topicID, a.link.whole, a.link.marks
		for _, s := range a.segments {
			owners, firsts, lasts, sizes = append(owners, a.lane), append(firsts, s.first), append(lasts, s.last), append(sizes, s.n)
			totals, effects = append(totals, s.totals), append(effects, s.effects)
		}
	}
	return []any{lanes, bases, nexts, numbers, counts, topicIDs, wholes, marks, owners, firsts, lasts, sizes, totals, effects}
}

// add appends, of several lanes and in one generation, and gives the lanes that stood where their additions begin.
func (l *Ledger) add(ctx context.Context, db querier, additions []addition) ([]int32, error) {
	rows, err := db.Query(ctx, l.sql(appendSQL, additions[0].link.generation), appendArguments(additions)...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int32])
}

// addAlone is add for one lane.
func (l *Ledger) addAlone(ctx context.Context, db querier, a addition) error {
	added, err := l.add(ctx, db, []addition{a})
	if err == nil && len(added) == 0 {
		err = outbox.ErrOvertaken
	}
	return err
}

// addTogether is what the group of appends runs.
func (l *Ledger) addTogether(ctx context.Context, members []*member[addition]) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	together(members, func(a addition) int { return a.link.generation }, func(a addition) int32 { return a.lane }, outbox.ErrOvertaken,
		func(additions []addition) ([]int32, error) { return l.add(ctx, l.pool, additions) })
}

// appendInSteps is for batches that open a generation or have business keys.
func (l *Ledger) appendInSteps(ctx context.Context, batch *outbox.Batch, k link, keyed bool) error {
	return pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		defer failpoint.Hit("ledger.append")
		if keyed {
			if err := l.takeKeys(ctx, tx, batch); err != nil {
				return fmt.Errorf("take business keys: %w", err)
			}
		}
		if k.opens {
			if _, err := tx.Exec(ctx, l.sql(openSpanSQL, 0), batch.Lane, k.generation, batch.Base); err != nil {
				return err
			}
		}
		return l.addAlone(ctx, tx, additionOf(batch, k))
	})
}

const openSpanSQL = `INSERT INTO @schema.lane_gen (lane, gen, first_off) VALUES ($1, $2, $3)`
