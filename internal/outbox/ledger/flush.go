package ledger

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"

	"pawl/internal/failpoint"
	"pawl/internal/outbox"
)

// flushSQL writes flushes of several lanes in one generation, and gives the lanes of those that it has written.
//
// The epoch is checked under a shared lock, which a takeover waits for: what passes the check is
// committed before the new owner looks. The flush before this one must be there, too: where it is not, the database
// was restored from a backup under the feet of this tenure, which has to end then. It is looked for in an order that only
// the primary key has: with old statistics the planner would take the other index, and read all of a lane.
const flushSQL = `
WITH own AS (
  SELECT l.lane FROM unnest($1::int[], $2::bigint[]) AS i (lane, epoch), @schema.lane l WHERE l.lane = i.lane AND l.epoch = i.epoch FOR SHARE OF l
)
INSERT INTO @schema.flush_g@gen AS w (lane, epoch, gen, seq, low_off, lo, hi, n, done, results)
SELECT i.lane, i.epoch, @gen, i.seq, i.low_off, i.lo, i.hi, i.n, i.done::int8multirange, i.results
FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::int[], $8::text[], $9::bytea[], $10::boolean[])
  AS i (lane, epoch, seq, low_off, lo, hi, n, done, results, first)
WHERE i.lane IN (SELECT own.lane FROM own) AND (i.first OR i.seq - 1 = (
  SELECT f.seq FROM @schema.flush_g@gen f WHERE f.lane = i.lane AND f.seq >= i.seq - 1 ORDER BY f.seq LIMIT 1))
RETURNING w.lane`

// Flush writes outcomes down, all or nothing: one statement where nothing is parked, dead or ordered.
// outbox.ErrFenced: nothing was written. A flush that no sound dispatcher asks for is refused by an
// error of another kind. After any such error the outcome is unknown: end the tenure and recover.
func (l *Ledger) Flush(ctx context.Context, flush outbox.Flush) error {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	lane := flush.Tenure.Lane
	h := l.hold(lane)
	defer h.Unlock()
	state, err := l.take(ctx, h, flush.Tenure)
	if err != nil {
		return doing(err, "flush", lane)
	}
	if flush.Seq != state.seq+1 {
		return doing(fmt.Errorf("flush %d follows %d", flush.Seq, state.seq), "flush", lane)
	}
	if flush.Low < state.low {
		return doing(fmt.Errorf("the low mark goes back from %d to %d", state.low, flush.Low), "flush", lane)
	}
	w, err := prepare(flush, state)
	if err != nil {
		return doing(err, "flush", lane)
	}
	err = l.retryStale(lane, func() error {
		open, _, err := l.current(ctx)
		if err != nil {
			return err
		}
		w.generation = max(open, state.generation)
		w.first = w.generation != state.generation
		if w.plain() {
			return l.flushGroup.do(ctx, w)
		}
		return l.flushInSteps(ctx, w)
	})
	if err = onTime(ctx, err); err != nil {
		return doing(err, fmt.Sprintf("flush %d of", flush.Seq), lane)
	}
	state.seq, state.low, state.generation = flush.Seq, flush.Low, w.generation
	for _, offset := range w.freed {
		delete(state.aside, offset)
	}
	for _, p := range flush.Parked {
		state.put(p.Offset)
	}
	h.state = state
	return nil
}

// writing is a flush with what has to be changed beside its row.
type writing struct {
	outbox.Flush
	generation int
	first      bool // of its lane or of its generation
	results    []byte
	lo, hi     int64
	freed      []int64          // settled offsets that were parked or sending
	failed     []outbox.Outcome // to be kept: dead, unknown, conflict
	tried      []outbox.Outcome // whose last attempt is worth a row
}

func prepare(flush outbox.Flush, state *tenureState) (*writing, error) {
	results, err := writeResults(flush.Settled)
	if err != nil {
		return nil, err
	}
	w := &writing{Flush: flush, results: results, lo: 0, hi: -1}
	if n := len(flush.Settled); n > 0 {
		w.lo, w.hi = flush.Settled[0].Offset, flush.Settled[n-1].Offset
	}
	for _, o := range flush.Settled {
		if !flush.Covered.Contains(o.Offset) {
			return nil, fmt.Errorf("the outcome of %d is not covered", o.Offset)
		}
		if state.waited(o.Offset) {
			w.freed = append(w.freed, o.Offset)
		}
		lost := o.Status == outbox.Dead || o.Status == outbox.Unknown
		if lost || o.Status == outbox.Conflict {
			w.failed = append(w.failed, o)
		}
		if o.Attempts > 0 && (lost || o.Attempts > 1) {
			w.tried = append(w.tried, o)
		}
	}
	return w, nil
}

// plain reports whether the row is all there is to write.
func (w *writing) plain() bool {
	return len(w.freed)+len(w.failed)+len(w.Parked)+len(w.Holds)+len(w.Freed)+len(w.Obeyed)+len(w.tried) == 0
}

// flushArguments are those of flushSQL.
func flushArguments(flushes []*writing) []any {
	n := len(flushes)
	lanes, epochs, seqs, lows := make([]int32, n), make([]int64, n), make([]int64, n), make([]int64, n)
	los, his, counts := make([]int64, n), make([]int64, n), make([]int, n)
	done, results, first := make([]string, n), make([][]byte, n), make([]bool, n)
	for i, w := range flushes {
		lanes[i], epochs[i], seqs[i], lows[i] = w.Tenure.Lane, w.Tenure.Epoch, w.Seq, w.Low
		los[i], his[i], counts[i], done[i], results[i], first[i] = w.lo, w.hi, len(w.Settled), multirange(w.Covered), w.results, w.first
	}
	return []any{lanes, epochs, seqs, lows, los, his, counts, done, results, first}
}

// multirange writes a set of offsets as Postgres reads it.
func multirange(ranges outbox.Ranges) string {
	b := []byte{'{'}
	for i, r := range ranges {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(append(b, '['), r.From, 10)
		b = append(strconv.AppendInt(append(b, ','), r.To, 10), ')')
	}
	return string(append(b, '}'))
}

// writeFlushes gives the lanes that it has written for: the others were fenced.
func (l *Ledger) writeFlushes(ctx context.Context, db querier, flushes []*writing) ([]int32, error) {
	rows, err := db.Query(ctx, l.sql(flushSQL, flushes[0].generation), flushArguments(flushes)...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int32])
}

// flushTogether is what the group of flushes runs.
func (l *Ledger) flushTogether(ctx context.Context, members []*member[*writing]) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	together(members, func(w *writing) int { return w.generation }, func(w *writing) int32 { return w.Tenure.Lane }, outbox.ErrFenced,
		func(flushes []*writing) ([]int32, error) { return l.writeFlushes(ctx, l.pool, flushes) })
}

const (
	ownSQL = `SELECT FROM @schema.lane l WHERE l.lane = $1 AND l.epoch = $2 FOR SHARE`

	keepSQL = `
INSERT INTO @schema.kept (lane, off, effect) SELECT $1, u.off, u.effect FROM unnest($2::bigint[], $3::bytea[]) AS u (off, effect)
ON CONFLICT (lane, off) DO NOTHING`

	burySQL = `
INSERT INTO @schema.dead (lane, off, seq, fate, attempts, status, error, endpoint)
SELECT $1, u.off, $2, u.fate, u.attempts, u.status, u.error, u.endpoint
FROM unnest($3::bigint[], $4::text[], $5::int[], $6::int[], $7::text[], $8::text[]) AS u (off, fate, attempts, status, error, endpoint)
ON CONFLICT (lane, off) DO UPDATE SET seq = excluded.seq, at = now(), fate = excluded.fate, attempts = excluded.attempts,
  status = excluded.status, error = excluded.error`

	// What is retried is no longer dead. Its copy stays until it is settled.
	unburySQL = `DELETE FROM @schema.dead d WHERE d.lane = $1 AND d.off = ANY($2::bigint[])`

	unparkSQL = `DELETE FROM @schema.parked p WHERE p.lane = $1 AND p.off = ANY($2::bigint[])`

	// The relay still needs what was kept of a settled effect, until it has told flush $2.
	dropSQL = `UPDATE @schema.kept k SET settled = $2 WHERE k.lane = $1 AND k.off = ANY($3::bigint[])`

	unsendSQL = `DELETE FROM @schema.sending s WHERE s.lane = $1 AND s.off = ANY($2::bigint[])`

	endHoldSQL = `DELETE FROM @schema.hold h WHERE h.lane = $1 AND h.off = ANY($2::bigint[])`

	holdSQL = `
INSERT INTO @schema.hold (lane, off, endpoint, key)
SELECT $1, u.off, u.endpoint, u.key FROM unnest($2::bigint[], $3::text[], $4::bytea[]) AS u (off, endpoint, key)
ON CONFLICT (lane, off) DO NOTHING`

	// An attempt that a parked or dead effect already had is not written again.
	attemptSQL = `
INSERT INTO @schema.attempt_g@gen (gen, lane, off, attempt, status, error)
SELECT @gen, $1, u.off, u.attempt, u.status, u.error
FROM unnest($2::bigint[], $3::int[], $4::int[], $5::text[]) AS u (off, attempt, status, error)
WHERE u.attempt > coalesce((SELECT p.attempts FROM @schema.parked p WHERE p.lane = $1 AND p.off = u.off),
  (SELECT d.attempts FROM @schema.dead d WHERE d.lane = $1 AND d.off = u.off), 0)`

	parkSQL = `
INSERT INTO @schema.parked AS p (lane, off, role, attempts, next_at, first_at, status, error, endpoint)
SELECT $1, u.off, u.role, u.attempts, clock_timestamp() + u.due * interval '1 microsecond', clock_timestamp() - u.age * interval '1 microsecond',
  u.status, u.error, u.endpoint
FROM unnest($2::bigint[], $3::smallint[], $4::int[], $5::bigint[], $6::bigint[], $7::int[], $8::text[], $9::text[])
  AS u (off, role, attempts, due, age, status, error, endpoint)
ON CONFLICT (lane, off) DO UPDATE SET role = excluded.role, attempts = excluded.attempts, next_at = excluded.next_at,
  first_at = excluded.first_at, status = excluded.status, error = excluded.error`
)

// flushInSteps is one transaction of two round trips and its commit, after one for the effects that something has to be
// known of: those never change.
func (l *Ledger) flushInSteps(ctx context.Context, w *writing) error {
	intents, err := l.about(ctx, w)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, l.sql(ownSQL, 0), w.Tenure.Lane, w.Tenure.Epoch)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return outbox.ErrFenced
		}
		var batch pgx.Batch
		l.queueAttempts(&batch, w)
		l.queueFailed(&batch, w, intents)
		l.queueFreed(&batch, w)
		l.queueParked(&batch, w, intents)
		l.queueHolds(&batch, w)
		if len(w.Obeyed) > 0 {
			batch.Queue(l.sql(obeySQL, 0), w.Tenure.Lane, w.Obeyed, w.offsets())
		}
		if err := batched(ctx, tx, &batch); err != nil {
			return err
		}
		defer failpoint.Hit("ledger.flush")
		written, err := l.writeFlushes(ctx, tx, []*writing{w})
		if err == nil && len(written) == 0 {
			err = outbox.ErrFenced
		}
		return err
	})
}

// about reads the effects that are to be kept, and those that are parked and whose endpoint the dispatcher did not know.
func (l *Ledger) about(ctx context.Context, w *writing) (map[int64]*outbox.Intent, error) {
	var offsets []int64
	for _, o := range w.failed {
		offsets = append(offsets, o.Offset)
	}
	for _, p := range w.Parked {
		if p.Endpoint == "" {
			offsets = append(offsets, p.Offset)
		}
	}
	slices.Sort(offsets)
	intents, err := l.get(ctx, w.Tenure.Lane, slices.Compact(offsets))
	if err != nil {
		return nil, err
	}
	about := make(map[int64]*outbox.Intent, len(intents))
	for i := range intents {
		about[intents[i].Offset] = &intents[i]
	}
	return about, nil
}

func (l *Ledger) queueAttempts(batch *pgx.Batch, w *writing) {
	n := len(w.tried) + len(w.Parked)
	offsets, attempts, statuses, texts := make([]int64, 0, n), make([]int, 0, n), make([]int, 0, n), make([]string, 0, n)
	add := func(offset int64, attempt, status int, text string) {
		offsets, attempts, statuses, texts = append(offsets, offset), append(attempts, attempt), append(statuses, status), append(texts, storable(text))
	}
	for _, o := range w.tried {
		add(o.Offset, o.Attempts, o.HTTPStatus, o.Error)
	}
	for _, p := range w.Parked {
		if p.Attempts > 0 {
			add(p.Offset, p.Attempts, p.Status, p.Error)
		}
	}
	if len(offsets) > 0 {
		batch.Queue(l.sql(attemptSQL, w.generation), w.Tenure.Lane, offsets, attempts, statuses, texts)
	}
}

func (l *Ledger) queueFailed(batch *pgx.Batch, w *writing, intents map[int64]*outbox.Intent) {
	n := len(w.failed)
	if n == 0 {
		return
	}
	offsets, fates, attempts := make([]int64, n), make([]string, n), make([]int, n)
	statuses, texts, endpoints, effects := make([]int, n), make([]string, n), make([]string, n), make([][]byte, n)
	for i, o := range w.failed {
		offsets[i], fates[i], attempts[i], statuses[i], texts[i] = o.Offset, string(o.Status), o.Attempts, o.HTTPStatus, storable(o.Error)
		intent := intents[o.Offset]
		endpoints[i], effects[i] = storable(intent.Endpoint), packOne(intent)
	}
	batch.Queue(l.sql(keepSQL, 0), w.Tenure.Lane, offsets, effects)
	batch.Queue(l.sql(burySQL, 0), w.Tenure.Lane, w.Seq, offsets, fates, attempts, statuses, texts, endpoints)
}

func (l *Ledger) queueFreed(batch *pgx.Batch, w *writing) {
	if len(w.freed) == 0 {
		return
	}
	lane := w.Tenure.Lane
	batch.Queue(l.sql(unparkSQL, 0), lane, w.freed)
	batch.Queue(l.sql(unsendSQL, 0), lane, w.freed)
	settled := slices.DeleteFunc(slices.Clone(w.freed), func(offset int64) bool {
		return slices.ContainsFunc(w.failed, func(o outbox.Outcome) bool { return o.Offset == offset })
	})
	if len(settled) > 0 {
		batch.Queue(l.sql(dropSQL, 0), lane, w.Seq, settled)
	}
}

func (l *Ledger) queueHolds(batch *pgx.Batch, w *writing) {
	if len(w.Freed) > 0 {
		batch.Queue(l.sql(endHoldSQL, 0), w.Tenure.Lane, w.Freed)
	}
	n := len(w.Holds)
	if n == 0 {
		return
	}
	offsets, endpoints, keys := make([]int64, n), make([]string, n), make([][]byte, n)
	for i, h := range w.Holds {
		offsets[i], endpoints[i], keys[i] = h.Offset, storable(h.Endpoint), h.Key
	}
	batch.Queue(l.sql(holdSQL, 0), w.Tenure.Lane, offsets, endpoints, keys)
}

func (l *Ledger) queueParked(batch *pgx.Batch, w *writing, intents map[int64]*outbox.Intent) {
	n := len(w.Parked)
	if n == 0 {
		return
	}
	lane, offsets := w.Tenure.Lane, make([]int64, n)
	roles, attempts, statuses := make([]int16, n), make([]int, n), make([]int, n)
	due, age, texts, endpoints := make([]int64, n), make([]int64, n), make([]string, n), make([]string, n)
	for i := range w.Parked {
		p := &w.Parked[i]
		offsets[i], roles[i], attempts[i], statuses[i], texts[i] = p.Offset, int16(p.Role), p.Attempts, p.Status, storable(p.Error)
		due[i], age[i], endpoints[i] = p.In.Microseconds(), p.Since.Microseconds(), storable(p.Endpoint)
		if p.Endpoint == "" {
			endpoints[i] = storable(intents[p.Offset].Endpoint)
		}
	}
	batch.Queue(l.sql(parkSQL, 0), lane, offsets, roles, attempts, due, age, statuses, texts, endpoints)
	batch.Queue(l.sql(unburySQL, 0), lane, offsets)
	batch.Queue(l.sql(unsendSQL, 0), lane, offsets)
}
