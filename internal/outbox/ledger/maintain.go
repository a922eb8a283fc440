package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"pawl/internal/postgres"
)

const (
	ahead         = 2               // generations that have not opened
	upkeepLease   = 5 * time.Minute // longer than any step of the upkeep
	detachTimeout = time.Minute
	lockTries     = 5         // each waits for as long as the function's or transaction's lock_timeout
	retentionMin  = time.Hour // by then every process has noticed that the generation has ended, and writes to another
	chainKept     = time.Hour // an ingester that is later than this with a batch is refused all the same, by the position
	trimRows      = 1000      // deleted by one statement
	trimRounds    = 1000      // of one call of Maintain
)

// Maintain does the upkeep: it makes generations ahead, drops those whose time has passed, and trims
// what is kept for a while. Call it about every minute from as many processes as you like; a lease
// picks one, the others do nothing. now decides what is due. A role that does not own the tables
// makes generations and leaves the rest to one that does.
//
// A generation is dropped Retention after its end, if all of its effects are settled or parked, and
// the outcomes that it holds or that need its effects are relayed. What is still parked is copied first, and
// so is the last flush of each lane.
func (l *Ledger) Maintain(ctx context.Context, now time.Time) error {
	mine, err := l.leaseUpkeep(ctx)
	if err != nil || !mine {
		return wrap(err, "lease upkeep")
	}
	if err := l.makeGenerations(ctx, now); err != nil {
		return wrap(err, "make generation")
	}
	owner, err := l.ownsTables(ctx)
	if err != nil || !owner {
		return wrap(err, "look up own rights")
	}
	// What cannot be done now does not keep the rest from being done.
	return errors.Join(
		wrap(l.retireGenerations(ctx, now), "retire generations"),
		wrap(l.dropRetired(ctx), "drop generations"),
		wrap(l.trim(ctx, now), "trim"),
	)
}

func wrap(err error, what string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("maintain ledger: %s: %w", what, err)
}

// run is one bounded statement.
func (l *Ledger) run(ctx context.Context, sql string, arguments ...any) (rows int64, err error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	tag, err := l.pool.Exec(ctx, l.sql(sql, 0), arguments...)
	return tag.RowsAffected(), err
}

func (l *Ledger) leaseUpkeep(ctx context.Context) (bool, error) {
	n, err := l.run(ctx, `
INSERT INTO @schema.upkeep AS u (owner, lease_until) VALUES ($1, clock_timestamp() + $2::interval)
ON CONFLICT (single) DO UPDATE SET owner = excluded.owner, lease_until = excluded.lease_until
WHERE u.owner = $1 OR u.lease_until <= clock_timestamp()`, l.owner, upkeepLease)
	return n > 0, err
}

func (l *Ledger) ownsTables(ctx context.Context) (owner bool, err error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	err = l.pool.QueryRow(ctx, `SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c WHERE c.oid = to_regclass($1)`,
		pgx.Identifier{l.config.Schema, "segment"}.Sanitize()).Scan(&owner)
	return owner, err
}

// retention is what the table gen says of a generation.
type retention struct {
	number        int
	opens, closes time.Time
}

func (l *Ledger) retentions(ctx context.Context) ([]retention, error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	rows, err := l.pool.Query(ctx, l.sql(`SELECT g.gen, g.opens_at, g.closes_at FROM @schema.gen g ORDER BY g.gen`, 0))
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r retention, err error) {
		err = row.Scan(&r.number, &r.opens, &r.closes)
		return r, err
	})
	if err == nil && len(all) == 0 {
		err = errNoGeneration
	}
	return all, err
}

// makeGenerations ends: each round but the last adds one, or meets somebody who did.
func (l *Ledger) makeGenerations(ctx context.Context, now time.Time) error {
	for range ahead + lockTries {
		all, err := l.retentions(ctx)
		if err != nil {
			return err
		}
		newest, unopened := all[len(all)-1], 0
		for _, r := range all {
			if r.opens.After(now) {
				unopened++
			}
		}
		if unopened >= ahead {
			return nil
		}
		opens := newest.closes
		if opens.Before(now) {
			opens = now // upkeep has been away for long
		}
		if err := l.makeGeneration(ctx, newest.number+1, opens); err != nil {
			return err
		}
	}
	return nil
}

func (l *Ledger) makeGeneration(ctx context.Context, number int, opens time.Time) error {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	var made bool
	err := retryLock(func() error {
		return l.pool.QueryRow(ctx, l.sql(`SELECT @schema.make_generation($1, $2, $3)`, 0), number, opens, opens.Add(l.config.Generation)).Scan(&made)
	})
	if made && l.config.Hooks.Made != nil {
		l.config.Hooks.Made(number)
	}
	return err
}

// retryLock repeats what waited in vain for a lock. The server bounds each wait.
func retryLock(work func() error) (err error) {
	for range lockTries {
		if err = work(); postgres.Code(err) != postgres.LockNotAvailable {
			return err
		}
	}
	return err
}

// retireGenerations takes generations out of use whose time has passed.
func (l *Ledger) retireGenerations(ctx context.Context, now time.Time) error {
	all, err := l.retentions(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for i, r := range all {
		if i >= len(all)-1-ahead || r.closes.Add(max(l.config.Retention, retentionMin)).After(now) {
			break // the open one and those ahead stay, whatever the clock says
		}
		lane, held, err := l.retire(ctx, r.number)
		if err != nil {
			errs = append(errs, fmt.Errorf("generation %d: %w", r.number, err))
			break
		}
		if held {
			if l.config.Hooks.Held != nil {
				l.config.Hooks.Held(r.number, lane)
			}
			break // those after it wait too: a lane's generations go in order
		}
	}
	return errors.Join(errs...)
}

const lanesSQL = `
SELECT s.lane FROM @schema.lane_gen s WHERE s.gen = @gen
UNION SELECT f.lane FROM @schema.flush_g@gen f ORDER BY lane`

// heldSQL looks for what still needs generation @gen in a lane whose low mark is $2 and whose last relayed
// flush is $3: an effect that is not settled; an outcome that is not relayed, in it or of an effect in
// it; and what is settled above the low mark, where a later generation may have effects that it is about.
const heldSQL = `
SELECT EXISTS (SELECT FROM @schema.segment_g@gen s, LATERAL @schema.read_segment(s.first_off, s.effects) e
    WHERE s.lane = $1 AND s.last_off >= $2 AND e.off >= $2 AND NOT EXISTS (
      SELECT FROM @schema.flush f WHERE f.lane = $1 AND f.hi >= e.off AND f.lo <= e.off AND f.done @> e.off))
  OR EXISTS (SELECT FROM @schema.flush_g@gen f WHERE f.lane = $1 AND f.n > 0 AND f.seq > $3)
  OR EXISTS (SELECT FROM @schema.flush f WHERE f.lane = $1 AND f.n > 0 AND f.seq > $3
    AND f.lo <= (SELECT max(s.last_off) FROM @schema.segment_g@gen s WHERE s.lane = $1))
  OR EXISTS (SELECT FROM @schema.segment s WHERE s.lane = $1 AND s.gen > @gen AND s.last_off = (
      SELECT min(w.last_off) FROM @schema.segment w WHERE w.lane = $1 AND w.gen > @gen AND w.last_off >= $2)
    AND s.first_off <= (SELECT max(f.hi) FROM @schema.flush_g@gen f WHERE f.lane = $1 AND f.hi >= $2))`

// carriedSQL gives what is parked of a generation.
const carriedSQL = `
SELECT p.lane, p.off FROM @schema.parked p JOIN @schema.lane_gen s ON s.lane = p.lane AND s.gen = @gen
WHERE p.off >= s.first_off AND p.off < coalesce((
  SELECT min(t.first_off) FROM @schema.lane_gen t WHERE t.lane = p.lane AND t.gen > @gen), 9223372036854775807)
ORDER BY p.lane, p.off`

// carry copies what is parked of a generation.
func (l *Ledger) carry(ctx context.Context, tx pgx.Tx, generation int) error {
	rows, err := tx.Query(ctx, l.sql(carriedSQL, generation))
	if err != nil {
		return err
	}
	parked := map[int32][]int64{}
	var lane int32
	var offset int64
	if _, err := pgx.ForEachRow(rows, []any{&lane, &offset}, func() error {
		parked[lane] = append(parked[lane], offset)
		return nil
	}); err != nil {
		return err
	}
	for lane, offsets := range parked {
		for some := range slices.Chunk(offsets, trimRows) {
			intents, err := l.pick(ctx, tx, lane, generation, some, nil)
			if err != nil {
				return err
			}
			there, effects := make([]int64, len(intents)), make([][]byte, len(intents))
			for i := range intents {
				there[i], effects[i] = intents[i].Offset, packOne(&intents[i])
			}
			if _, err := tx.Exec(ctx, l.sql(keepSQL, 0), lane, there, effects); err != nil {
				return err
			}
		}
	}
	return nil
}

const carryFlushSQL = `
INSERT INTO @schema.progress AS p (lane, seq, epoch, low_off, last_off)
SELECT DISTINCT ON (f.lane) f.lane, f.seq, f.epoch, f.low_off, f.hi FROM @schema.flush_g@gen f ORDER BY f.lane, f.seq DESC
ON CONFLICT (lane) DO UPDATE SET seq = excluded.seq, epoch = excluded.epoch, low_off = excluded.low_off, last_off = excluded.last_off
WHERE p.seq < excluded.seq`

// errHeldBack undoes what was begun for a generation that is still needed.
var errHeldBack = errors.New("the generation is still needed")

// retire carries over what must outlive a generation and takes it out of use, in one transaction. The
// tables are still there for whoever has not noticed.
func (l *Ledger) retire(ctx context.Context, number int) (lane int32, held bool, err error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	err = pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, l.sql(lanesSQL, number))
		if err != nil {
			return err
		}
		lanes, err := pgx.CollectRows(rows, pgx.RowTo[int32])
		if err != nil {
			return err
		}
		// First the copy, then the look: an effect that was parked and is settled in between is in the copy,
		// and one that was settled before the look holds the generation until its outcome is relayed.
		if err := l.carry(ctx, tx, number); err != nil {
			return err
		}
		for _, lane = range lanes {
			low, told, err := l.marksOf(ctx, tx, lane)
			if err != nil {
				return err
			}
			if err := tx.QueryRow(ctx, l.sql(heldSQL, number), lane, low, told).Scan(&held); err != nil {
				return err
			}
			if held {
				return errHeldBack
			}
		}
		for _, sql := range []string{
			carryFlushSQL,
			`DELETE FROM @schema.lane_gen s WHERE s.gen = @gen`,
			`DELETE FROM @schema.gen g WHERE g.gen = @gen`,
		} {
			if _, err := tx.Exec(ctx, l.sql(sql, number)); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, errHeldBack) {
		err = nil
	}
	return lane, held, err
}

// marksOf reads the low mark of a lane and its last relayed flush.
func (l *Ledger) marksOf(ctx context.Context, tx pgx.Tx, lane int32) (low, told int64, err error) {
	err = tx.QueryRow(ctx, l.sql(`
SELECT greatest(coalesce((SELECT f.low_off FROM @schema.flush f WHERE f.lane = $1 ORDER BY f.seq DESC LIMIT 1), 0), coalesce(max(p.low_off), 0)), coalesce(max(p.told), 0)
FROM @schema.progress p WHERE p.lane = $1`, 0), lane).Scan(&low, &told)
	return low, told, err
}

// partition is a table of a generation that is no longer in use.
type partition struct {
	name, parent string
	number       int
	attached     bool
	pending      bool // a detach was cut short
}

const retiredSQL = `
SELECT c.relname, i.inhrelid IS NOT NULL, coalesce(i.inhdetachpending, false)
FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r' AND c.relname ~ '^(segment|flush|attempt)_g[0-9]+$'
  AND substring(c.relname FROM '[0-9]+$')::int < (SELECT min(g.gen) FROM @schema.gen g)
ORDER BY c.relname`

// dropRetired detaches and drops the tables of retired generations. It goes on where an earlier try
// was cut short. No step makes a reader or writer wait: CONCURRENTLY waits for them instead.
func (l *Ledger) dropRetired(ctx context.Context) error {
	tables, err := l.retired(ctx)
	if err != nil {
		return err
	}
	left := map[int]int{}
	for _, t := range tables {
		left[t.number]++
	}
	for _, t := range tables {
		if err := l.detach(ctx, t); err != nil {
			return fmt.Errorf("detach %s: %w", t.name, err)
		}
		if err := l.drop(ctx, t); err != nil {
			return fmt.Errorf("drop %s: %w", t.name, err)
		}
		if left[t.number]--; left[t.number] == 0 && l.config.Hooks.Dropped != nil {
			l.config.Hooks.Dropped(t.number)
		}
	}
	return nil
}

func (l *Ledger) retired(ctx context.Context) ([]partition, error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	rows, err := l.pool.Query(ctx, l.sql(retiredSQL, 0), pgx.Identifier{l.config.Schema}.Sanitize())
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (p partition, err error) {
		if err := row.Scan(&p.name, &p.attached, &p.pending); err != nil {
			return p, err
		}
		var number string
		p.parent, number, _ = strings.Cut(p.name, "_g")
		p.number, err = strconv.Atoi(number)
		return p, err
	})
}

func (l *Ledger) detach(ctx context.Context, p partition) error {
	if !p.attached {
		return nil
	}
	how := "CONCURRENTLY"
	if p.pending {
		how = "FINALIZE"
	}
	ctx, cancel := context.WithTimeout(ctx, detachTimeout)
	defer cancel()
	// Not within a transaction: the server refuses that.
	_, err := l.pool.Exec(ctx, l.sql(`ALTER TABLE @schema.`+p.parent+` DETACH PARTITION @schema.`+p.name+` `+how, 0))
	return err
}

func (l *Ledger) drop(ctx context.Context, p partition) error {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	return retryLock(func() error {
		return pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '1s'`); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, l.sql(`DROP TABLE IF EXISTS @schema.`+p.name, 0))
			return err
		})
	})
}

const (
	// The newest row with all marks, and what follows it, is what the head is put together from.
	trimChainSQL = `
DELETE FROM @schema.ingest c USING (
  SELECT o.lane, o.base_off FROM @schema.ingest o
  WHERE o.at < $1 AND o.base_off < (SELECT w.base_off FROM @schema.ingest w WHERE w.lane = o.lane AND w.whole ORDER BY w.base_off DESC LIMIT 1)
  LIMIT $2) old
WHERE c.lane = old.lane AND c.base_off = old.base_off`

	trimKeysSQL = `
DELETE FROM @schema.business_key b WHERE b.ctid = ANY (ARRAY(SELECT o.ctid FROM @schema.business_key o WHERE o.at < $1 LIMIT $2))`

	trimDeadSQL = `
DELETE FROM @schema.dead d USING (
  SELECT o.lane, o.off FROM @schema.dead o JOIN @schema.progress p ON p.lane = o.lane AND p.told >= o.seq
  WHERE o.at < $1 AND NOT EXISTS (SELECT FROM @schema.hold h WHERE h.lane = o.lane AND h.off = o.off) LIMIT $2) old
WHERE d.lane = old.lane AND d.off = old.off`

	trimAuditSQL = `
DELETE FROM @schema.audit a USING (
  SELECT o.number FROM @schema.audit o
  WHERE o.at < $1 AND NOT EXISTS (SELECT FROM @schema.operator_order w WHERE w.lane = o.lane AND w.number = o.number)
  ORDER BY o.number LIMIT $2) old
WHERE a.number = old.number`

	// A copy that does not say when it was settled was made while that happened, or its dead one was
	// trimmed; it goes when everything is relayed. $1 only has a type: these have no time.
	trimKeptSQL = `
DELETE FROM @schema.kept k USING (
  SELECT o.lane, o.off FROM @schema.kept o LEFT JOIN @schema.progress p ON p.lane = o.lane
  WHERE $1::timestamptz IS NOT NULL AND coalesce(o.settled, (
      SELECT f.seq FROM @schema.flush f WHERE f.lane = o.lane ORDER BY f.seq DESC LIMIT 1), p.seq) <= p.told
    AND NOT EXISTS (SELECT FROM @schema.parked w WHERE w.lane = o.lane AND w.off = o.off)
    AND NOT EXISTS (SELECT FROM @schema.dead d WHERE d.lane = o.lane AND d.off = o.off)
  LIMIT $2) old
WHERE k.lane = old.lane AND k.off = old.off`
)

// trim deletes in small steps what has been kept for long enough.
func (l *Ledger) trim(ctx context.Context, now time.Time) error {
	var errs []error
	for _, t := range []struct {
		what, sql string
		before    time.Time
	}{
		{"chain", trimChainSQL, now.Add(-chainKept)},
		{"business keys", trimKeysSQL, now.Add(-l.config.BusinessKeys)},
		{"dead", trimDeadSQL, now.Add(-l.config.Dead)},
		{"kept", trimKeptSQL, now},
		{"audit", trimAuditSQL, now.Add(-l.config.Dead)},
	} {
		for range trimRounds {
			n, err := l.run(ctx, t.sql, t.before, trimRows)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", t.what, err))
			}
			if err != nil || n < trimRows {
				break
			}
		}
	}
	return errors.Join(errs...)
}
