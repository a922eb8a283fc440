package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"pawl/internal/outbox"
)

// ordersMax bounds how many orders come with one renewal; the others come with the next ones.
const ordersMax = 1000

func newOwner() string { return rand.Text() }

// The clock is the database's, and the one of the moment: now() is that of the transaction's begin,
// which may have waited for a lock since.
//
// An epoch is at least the time in Unix milliseconds, so that it also grows over a ledger that was
// restored from a backup or made anew: receivers refuse what has a lower one. It comes with the epoch
// before, by which who takes a lane up again knows whether anybody had it in between.
const acquireSQL = `
INSERT INTO @schema.lane AS l (lane, epoch, owner, lease_until)
VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, $2, clock_timestamp() + $3::interval)
ON CONFLICT (lane) DO UPDATE SET owner = excluded.owner, lease_until = clock_timestamp() + $3::interval,
  after = l.epoch, epoch = greatest(l.epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
WHERE l.owner = $2 OR l.lease_until <= clock_timestamp()
RETURNING l.epoch, l.after`

// Acquire begins a tenure with a higher epoch than all before it. outbox.ErrHeld while another owner's
// lease lasts; one's own may be taken again at any time, which ends the tenure before. It waits for a
// flush that is under way: what was written before the takeover is there for Recover, and nothing
// else of an older tenure will be.
func (l *Ledger) Acquire(ctx context.Context, lane int32, owner string, ttl time.Duration) (outbox.Tenure, error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	asked := l.now()
	t := outbox.Tenure{Lane: lane, Until: asked.Add(ttl)}
	err := l.pool.QueryRow(ctx, l.sql(acquireSQL, 0), lane, owner, ttl).Scan(&t.Epoch, &t.After)
	if errors.Is(err, pgx.ErrNoRows) {
		err = outbox.ErrHeld
	}
	if err = onTime(ctx, err); err != nil {
		return outbox.Tenure{}, doing(err, "acquire", lane)
	}
	return t, nil
}

const renewSQL = `
UPDATE @schema.lane l SET lease_until = clock_timestamp() + $3::interval
WHERE l.lane = $1 AND l.epoch = $2 AND l.lease_until > clock_timestamp()`

const ordersSQL = `
SELECT o.number, o.off, o.action, o.reason FROM @schema.operator_order o WHERE o.lane = $1 ORDER BY o.number LIMIT $2`

// An order to retry may come too late: its effect was parked when it was given and has ended well
// since, perhaps under another owner. Who knows only the order would send the effect again.
const lateSQL = `
WITH late AS (
DELETE FROM @schema.operator_order o
WHERE o.lane = $1 AND o.action = 'retry' AND o.number = ANY($2)
  AND NOT EXISTS (SELECT FROM @schema.dead d WHERE d.lane = o.lane AND d.off = o.off)
  AND NOT EXISTS (SELECT FROM @schema.parked p WHERE p.lane = o.lane AND p.off = o.off)
  AND EXISTS (SELECT FROM @schema.flush f WHERE f.lane = o.lane AND f.hi >= o.off AND f.lo <= o.off AND f.done @> o.off)
RETURNING o.number)
INSERT INTO @schema.audit_end (number, result, owner)
SELECT late.number, 'late', (SELECT l.owner FROM @schema.lane l WHERE l.lane = $1) FROM late
RETURNING number`

// dropLate takes out of orders what came too late, and obeys it by that.
func (l *Ledger) dropLate(ctx context.Context, lane int32, orders []outbox.Order) ([]outbox.Order, error) {
	var retries []int64
	for _, order := range orders {
		if order.Action == outbox.RetryNow {
			retries = append(retries, order.Number)
		}
	}
	if len(retries) == 0 {
		return orders, nil
	}
	rows, err := l.pool.Query(ctx, l.sql(lateSQL, 0), lane, retries)
	if err != nil {
		return nil, err
	}
	late, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	return slices.DeleteFunc(orders, func(o outbox.Order) bool { return slices.Contains(late, o.Number) }), err
}

// Renew lengthens a lease and brings the lane's open orders by number, but for retries of what has ended
// well, and the number of its last flush. outbox.ErrFenced where another owner has the lane, and also where the lease has run out: then
// another owner may take it at any moment.
func (l *Ledger) Renew(ctx context.Context, tenure outbox.Tenure, ttl time.Duration) (outbox.Tenure, []outbox.Order, error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	asked := l.now()
	var orders []outbox.Order
	var held int64
	var batch pgx.Batch
	batch.Queue(l.sql(renewSQL, 0), tenure.Lane, tenure.Epoch, ttl).Exec(rowsAffected(&held))
	batch.Queue(l.sql(ordersSQL, 0), tenure.Lane, ordersMax).Query(func(rows pgx.Rows) (err error) {
		orders, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (outbox.Order, error) {
			o := outbox.Order{Lane: tenure.Lane}
			err := row.Scan(&o.Number, &o.Offset, &o.Action, &o.Reason)
			o.Reason = original(o.Reason)
			return o, err
		})
		return err
	})
	var last, old lastFlush
	l.queueLastFlush(&batch, tenure.Lane, &last, &old)
	err := batched(ctx, l.pool, &batch)
	if err == nil && held == 0 {
		err = outbox.ErrFenced
	}
	if err == nil {
		orders, err = l.dropLate(ctx, tenure.Lane, orders)
	}
	if err != nil {
		return tenure, nil, doing(err, "renew lease of", tenure.Lane)
	}
	tenure.Until, tenure.Seq = asked.Add(ttl), max(last.seq, old.seq)
	return tenure, orders, nil
}

const releaseSQL = `UPDATE @schema.lane l SET owner = '', lease_until = '-infinity' WHERE l.lane = $1 AND l.epoch = $2`

// Release gives a lease up, so that another owner may have the lane at once. outbox.ErrFenced where
// there was nothing left to give up.
func (l *Ledger) Release(ctx context.Context, tenure outbox.Tenure) error {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	tag, err := l.pool.Exec(ctx, l.sql(releaseSQL, 0), tenure.Lane, tenure.Epoch)
	if err == nil && tag.RowsAffected() == 0 {
		err = outbox.ErrFenced
	}
	return doing(err, "release", tenure.Lane)
}

const tenureSQL = `SELECT FROM @schema.lane l WHERE l.lane = $1 AND l.epoch = $2`

const lastFlushSQL = `
SELECT f.seq, f.low_off, f.gen FROM @schema.flush f WHERE f.lane = $1 ORDER BY f.seq DESC LIMIT 1`

const progressSQL = `SELECT p.seq, p.low_off FROM @schema.progress p WHERE p.lane = $1`

const settledSQL = `
SELECT lower(r), upper(r) FROM @schema.flush f, unnest(f.done) AS r WHERE f.lane = $1 AND f.hi >= $2 AND upper(r) > $2`

const parkedColumns = `p.off, p.role, p.attempts, p.status, p.error,
  extract(epoch FROM greatest(p.next_at - clock_timestamp(), interval '0')), extract(epoch FROM clock_timestamp() - p.first_at)`

// parkedSQL gives the first $3 below $2, and all from there on: those are no more than a window spans.
const parkedSQL = `
(SELECT ` + parkedColumns + ` FROM @schema.parked p WHERE p.lane = $1 AND p.off < $2 ORDER BY p.off LIMIT $3)
UNION ALL
(SELECT ` + parkedColumns + ` FROM @schema.parked p WHERE p.lane = $1 AND p.off >= $2 ORDER BY p.off)`

const waitingSQL = `SELECT ` + parkedColumns + ` FROM @schema.parked p WHERE p.lane = $1 AND p.off >= $2 ORDER BY p.off LIMIT $3`

// scanParked reads a row of parkedColumns.
func scanParked(row pgx.CollectableRow) (p outbox.Parked, err error) {
	var in, since float64
	err = row.Scan(&p.Offset, &p.Role, &p.Attempts, &p.Status, &p.Error, &in, &since)
	p.In, p.Since, p.Error = seconds(in), seconds(since), original(p.Error)
	return p, err
}

// Waiting gives up to limit parked ones of a lane from an offset on, by offset, as they are now.
func (l *Ledger) Waiting(ctx context.Context, lane int32, from int64, limit int) ([]outbox.Parked, error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	rows, err := l.pool.Query(ctx, l.sql(waitingSQL, 0), lane, from, limit)
	if err != nil {
		return nil, doing(err, "read what waits in", lane)
	}
	parked, err := pgx.CollectRows(rows, scanParked)
	return parked, doing(err, "read what waits in", lane)
}

const holdsSQL = `SELECT h.off, h.endpoint, h.key FROM @schema.hold h WHERE h.lane = $1 ORDER BY h.off`

const sendingSQL = `SELECT s.off, s.attempt FROM @schema.sending s WHERE s.lane = $1 ORDER BY s.off`

// Recover tells the owner what its predecessors left. It costs what the window and the waiting cost, not
// what the lane holds. outbox.ErrFenced.
func (l *Ledger) Recover(ctx context.Context, tenure outbox.Tenure) (outbox.Recovery, error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	h := l.hold(tenure.Lane)
	defer h.Unlock()
	r, state, err := l.recover(ctx, tenure)
	h.state = state
	return r, doing(err, "recover", tenure.Lane)
}

func (l *Ledger) recover(ctx context.Context, tenure outbox.Tenure) (r outbox.Recovery, state *tenureState, err error) {
	last, err := l.lastFlush(ctx, tenure)
	if err != nil {
		return outbox.Recovery{}, nil, err
	}
	r.Low, r.Seq = last.low, last.seq
	var batch pgx.Batch
	batch.Queue(l.sql(settledSQL, 0), tenure.Lane, r.Low).Query(func(rows pgx.Rows) error {
		var from, to int64
		_, err := pgx.ForEachRow(rows, []any{&from, &to}, func() error {
			r.Settled = r.Settled.Add(max(from, r.Low), to)
			return nil
		})
		return err
	})
	r.Rest = r.Low
	batch.Queue(l.sql(parkedSQL, 0), tenure.Lane, r.Low, outbox.RecoveredMax).Query(func(rows pgx.Rows) error {
		r.Parked, err = pgx.CollectRows(rows, scanParked)
		if n := outbox.RecoveredMax; len(r.Parked) >= n && r.Parked[n-1].Offset < r.Low {
			r.Rest = r.Parked[n-1].Offset + 1
		}
		return err
	})
	batch.Queue(l.sql(sendingSQL, 0), tenure.Lane).Query(func(rows pgx.Rows) error {
		r.Sending, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (s outbox.Sending, err error) {
			err = row.Scan(&s.Offset, &s.Attempt)
			return s, err
		})
		return err
	})
	batch.Queue(l.sql(holdsSQL, 0), tenure.Lane).Query(func(rows pgx.Rows) error {
		r.Holds, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (h outbox.Hold, err error) {
			err = row.Scan(&h.Offset, &h.Endpoint, &h.Key)
			h.Endpoint = original(h.Endpoint)
			return h, err
		})
		return err
	})
	if err := batched(ctx, l.pool, &batch); err != nil {
		return outbox.Recovery{}, nil, err
	}
	aside := map[int64]struct{}{}
	for _, p := range r.Parked {
		aside[p.Offset] = struct{}{}
	}
	for _, s := range r.Sending {
		aside[s.Offset] = struct{}{}
	}
	state = &tenureState{epoch: tenure.Epoch, seq: last.seq, low: last.low, generation: last.generation, aside: aside, read: l.now()}
	state.most = r.Rest < r.Low
	return r, state, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

type lastFlush struct {
	seq, low   int64
	generation int
}

// queueLastFlush asks for the last flush that has its row, and for what is kept of the last one that had.
func (l *Ledger) queueLastFlush(batch *pgx.Batch, lane int32, last, old *lastFlush) {
	batch.Queue(l.sql(lastFlushSQL, 0), lane).QueryRow(func(row pgx.Row) error {
		return unlessNone(row.Scan(&last.seq, &last.low, &last.generation))
	})
	batch.Queue(l.sql(progressSQL, 0), lane).QueryRow(func(row pgx.Row) error {
		return unlessNone(row.Scan(&old.seq, &old.low))
	})
}

// lastFlush checks the epoch and reads how far the lane has been flushed. The check comes first: who
// has the epoch then, and loses it later, is refused when it writes.
func (l *Ledger) lastFlush(ctx context.Context, tenure outbox.Tenure) (last lastFlush, err error) {
	var mine int64
	var batch pgx.Batch
	batch.Queue(l.sql(tenureSQL, 0), tenure.Lane, tenure.Epoch).Exec(rowsAffected(&mine))
	var old lastFlush
	l.queueLastFlush(&batch, tenure.Lane, &last, &old)
	if err := batched(ctx, l.pool, &batch); err != nil {
		return lastFlush{}, err
	}
	if mine == 0 {
		return lastFlush{}, outbox.ErrFenced
	}
	if old.seq > last.seq {
		return old, nil // its generation has been dropped: 0
	}
	return last, nil
}

func unlessNone(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	return err
}

// tenureState is what the ledger remembers of a tenure, all of which only its owner can change.
type tenureState struct {
	epoch      int64
	seq, low   int64              // of the last flush
	generation int                // it is in; those of a lane never go back
	aside      map[int64]struct{} // offsets that are parked or sending
	most       bool               // there are more of them than these: any offset may be one
	read       time.Time          // when aside was
}

const (
	asideMax   = 4 * outbox.RecoveredMax
	asideAgain = time.Minute // when it is read again whether all of them fit
)

// put notes that an offset is parked or sending.
func (s *tenureState) put(offset int64) {
	if len(s.aside) >= asideMax {
		s.most = true
		return
	}
	s.aside[offset] = struct{}{}
}

// waited reports whether an offset may be parked or sending. What is not known is looked for when it is settled.
func (s *tenureState) waited(offset int64) bool {
	_, known := s.aside[offset]
	return known || s.most
}

// held is the place of a lane's tenure. Whoever writes for the tenure holds its lock, so that two
// writes do not each remember only their own; state is nil where nothing sure is known.
type held struct {
	sync.Mutex
	state *tenureState
}

func (l *Ledger) hold(lane int32) *held {
	l.mu.Lock()
	h := l.tenures[lane]
	if h == nil {
		h = &held{}
		l.tenures[lane] = h
	}
	l.mu.Unlock()
	h.Lock()
	return h
}

// take gives what is known of a tenure, or reads it. Until the caller puts it back, nothing is known:
// an error in between may have left anything.
func (l *Ledger) take(ctx context.Context, h *held, tenure outbox.Tenure) (*tenureState, error) {
	state := h.state
	h.state = nil
	if state != nil && state.epoch == tenure.Epoch && (!state.most || l.now().Before(state.read.Add(asideAgain))) {
		return state, nil
	}
	_, state, err := l.recover(ctx, tenure)
	return state, err
}

const beginSQL = `
WITH own AS (SELECT FROM @schema.lane l WHERE l.lane = $1 AND l.epoch = $2 FOR SHARE)
INSERT INTO @schema.sending (lane, off, attempt)
SELECT $1, u.off, u.attempt FROM unnest($3::bigint[], $4::int[]) AS u (off, attempt) WHERE EXISTS (SELECT FROM own)
ON CONFLICT (lane, off) DO UPDATE SET attempt = excluded.attempt, at = now()`

// Begin notes that at-most-once calls are about to be sent. outbox.ErrFenced.
func (l *Ledger) Begin(ctx context.Context, tenure outbox.Tenure, sending []outbox.Sending) error {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	if len(sending) == 0 {
		return nil
	}
	return doing(l.begin(ctx, tenure, sending), "note calls of", tenure.Lane)
}

func (l *Ledger) begin(ctx context.Context, tenure outbox.Tenure, sending []outbox.Sending) error {
	h := l.hold(tenure.Lane)
	defer h.Unlock()
	state, err := l.take(ctx, h, tenure)
	if err != nil {
		return err
	}
	offsets, attempts := make([]int64, len(sending)), make([]int, len(sending))
	for i, s := range sending {
		offsets[i], attempts[i] = s.Offset, s.Attempt
	}
	tag, err := l.pool.Exec(ctx, l.sql(beginSQL, 0), tenure.Lane, tenure.Epoch, offsets, attempts)
	if err = onTime(ctx, err); err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		return outbox.ErrFenced
	}
	for _, offset := range offsets {
		state.put(offset)
	}
	h.state = state
	return nil
}

const toldSQL = `
WITH own AS (SELECT FROM @schema.lane l WHERE l.lane = $1 AND l.epoch = $2)
INSERT INTO @schema.progress AS p (lane, told) SELECT $1, $3 WHERE EXISTS (SELECT FROM own)
ON CONFLICT (lane) DO UPDATE SET told = greatest(p.told, excluded.told)`

// Told notes that the flushes up to seq have been relayed: what they need may go when its time has
// come. It is a hint that updates a row; every few seconds is often enough. outbox.ErrFenced.
func (l *Ledger) Told(ctx context.Context, tenure outbox.Tenure, seq int64) error {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	tag, err := l.pool.Exec(ctx, l.sql(toldSQL, 0), tenure.Lane, tenure.Epoch, seq)
	if err == nil && tag.RowsAffected() == 0 {
		err = outbox.ErrFenced
	}
	return doing(err, fmt.Sprintf("note relayed flush %d of", seq), tenure.Lane)
}
