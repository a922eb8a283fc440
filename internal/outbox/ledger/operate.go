package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

// State is what an operator is told of an effect: where it waits, or its fate.
type State string

// The states of effects that are not settled. Those of others are the names of their fates.
const (
	Pending  State = "pending"
	Inflight State = "inflight" // an at-most-once call that was begun; other calls leave no note
	Waiting  State = "parked"
)

// The states of settled effects.
const (
	Done      = State(outbox.Done)
	Dead      = State(outbox.Dead)
	Unknown   = State(outbox.Unknown)
	Duplicate = State(outbox.Duplicate)
	Conflict  = State(outbox.Conflict)
)

// Filter says which effects to list. A zero value does not restrict.
type Filter struct {
	State    State // empty: all that are not settled well, which leaves out done and duplicate
	Endpoint string
	Key      []byte        // order key
	AgeMin   time.Duration // since the effect was committed
	Limit    int           // at most, 100 where it is 0
	After    *Place        // of the last one on the page before
}

// Place is where an effect stands in a list.
type Place struct {
	State  State
	Lane   int32
	Offset int64
}

// Effect is an effect with its state.
type Effect struct {
	Intent   outbox.Intent
	State    State
	Attempts int
	Status   int             // HTTP status of the last answer, 0 where there was none
	Error    string          // of the last attempt
	Role     outbox.Role     // of a parked one
	Next     time.Duration   // until the next attempt of a parked one may begin
	Outcome  *outbox.Outcome // the last one, where it is known; given by Show only
	History  []Attempt       // given by Show only
}

// Attempt is one transmission that failed, or the last one of an effect that took several.
type Attempt struct {
	Number int
	At     time.Time // when it was written down
	Status int
	Error  string
}

const (
	listLimit = 100
	// listScan bounds how many effects of a lane a list looks at before it is content with what it has.
	listScan = 100_000
	listPage = 1000
)

// ErrNoEffect says that the ledger has no such effect, or has it no more.
var ErrNoEffect = errors.New("the ledger has no such effect")

// Order adds an operator's order; the owner of the lane carries it out with its next renewal. The
// ledger chooses its number, and remembers the order in the same transaction; see Audit.
func (l *Ledger) Order(ctx context.Context, order outbox.Order, actor string) error {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	if order.Action != outbox.RetryNow && order.Action != outbox.Cancel {
		return fmt.Errorf("order for %d:%d: unknown action %q", order.Lane, order.Offset, order.Action)
	}
	_, err := l.pool.Exec(ctx, l.sql(`
WITH kept AS (INSERT INTO @schema.audit (lane, off, action, reason, actor) VALUES ($1, $2, $3, $4, $5) RETURNING number, lane, off, action, reason)
INSERT INTO @schema.operator_order (number, lane, off, action, reason) SELECT number, lane, off, action, reason FROM kept`, 0),
		order.Lane, order.Offset, string(order.Action), storable(order.Reason), storable(actor))
	return doing(err, fmt.Sprintf("order %s of %d in", order.Action, order.Offset), order.Lane)
}

// List gives effects by state, lane and offset; done ones with the newest first. It is for people: it reads
// without locks, and of a lane with very many effects it looks at the first, or for done the last,
// hundred thousand.
func (l *Ledger) List(ctx context.Context, filter Filter) ([]Effect, error) {
	filter.Limit = orDefault(filter.Limit, listLimit)
	var states []State
	switch filter.State {
	case "":
		states = []State{Inflight, Waiting, Dead, Unknown, Conflict, Pending}
	case Pending, Inflight, Waiting, Done, Dead, Unknown, Duplicate, Conflict:
		states = []State{filter.State}
	default:
		return nil, fmt.Errorf("list effects: unknown state %q", filter.State)
	}
	if filter.After != nil {
		at := slices.Index(states, filter.After.State)
		if at < 0 {
			return nil, fmt.Errorf("list effects: what is %q does not stand in this list", filter.After.State)
		}
		states = states[at:]
	}
	var listed []Effect
	for i, state := range states {
		if len(listed) >= filter.Limit {
			break
		}
		f := filter
		if i > 0 {
			f.After = nil
		}
		f.State, f.Limit = state, filter.Limit-len(listed)
		found, err := l.list(ctx, f)
		if err != nil {
			return nil, fmt.Errorf("list effects that are %s: %w", state, err)
		}
		listed = append(listed, found...)
	}
	return listed, nil
}

func (l *Ledger) list(ctx context.Context, f Filter) ([]Effect, error) {
	switch f.State {
	case Inflight:
		return l.listSmall(ctx, f, `
SELECT s.lane, s.off, s.attempt, 0, '', 0::smallint, 0::float8 FROM @schema.sending s
WHERE (s.lane, s.off) > ($1, $2) AND ($3 = '' OR true) AND $4 <> '' ORDER BY s.lane, s.off LIMIT $5`)
	case Waiting:
		return l.listSmall(ctx, f, `
SELECT p.lane, p.off, p.attempts, p.status, p.error, p.role, extract(epoch FROM p.next_at - clock_timestamp())::float8 FROM @schema.parked p
WHERE (p.lane, p.off) > ($1, $2) AND ($3 = '' OR p.endpoint = $3) AND $4 <> '' ORDER BY p.lane, p.off LIMIT $5`)
	case Dead, Unknown, Conflict:
		return l.listSmall(ctx, f, `
SELECT d.lane, d.off, d.attempts, d.status, d.error, 0::smallint, 0::float8 FROM @schema.dead d
WHERE (d.lane, d.off) > ($1, $2) AND ($3 = '' OR d.endpoint = $3) AND d.fate = $4 ORDER BY d.lane, d.off LIMIT $5`)
	case Pending:
		return l.listLanes(ctx, f, l.pendingOf)
	case Done, Duplicate:
		return l.listLanes(ctx, f, l.settledOf)
	default:
		return nil, fmt.Errorf("unknown state %q", f.State)
	}
}

// accepts judges what a statement could not.
func (f *Filter) accepts(i *outbox.Intent, now time.Time) bool {
	return (f.Endpoint == "" || i.Endpoint == f.Endpoint) && (f.Key == nil || bytes.Equal(f.Key, i.Key)) && now.Sub(i.At) >= f.AgeMin
}

// listSmall pages through a table of (lane, off).
func (l *Ledger) listSmall(ctx context.Context, f Filter, sql string) (listed []Effect, err error) {
	lane, offset := int32(-1), int64(-1)
	if f.After != nil {
		lane, offset = f.After.Lane, f.After.Offset
	}
	for len(listed) < f.Limit {
		rows, err := l.pool.Query(ctx, l.sql(sql, 0), lane, offset, storable(f.Endpoint), string(f.State), listPage)
		if err != nil {
			return nil, err
		}
		page, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Effect, error) {
			e := Effect{State: f.State}
			var next float64
			err := row.Scan(&e.Intent.Lane, &e.Intent.Offset, &e.Attempts, &e.Status, &e.Error, &e.Role, &next)
			e.Error, e.Next = original(e.Error), max(0, seconds(next))
			return e, err
		})
		if err != nil {
			return nil, err
		}
		if listed, err = l.fill(ctx, f, listed, page); err != nil {
			return nil, err
		}
		if len(page) < listPage {
			break
		}
		lane, offset = page[len(page)-1].Intent.Lane, page[len(page)-1].Intent.Offset
	}
	return listed, nil
}

// fill gives effects their intents and adds those that the filter accepts. One that has been settled and
// dropped since is left out.
func (l *Ledger) fill(ctx context.Context, f Filter, listed, page []Effect) ([]Effect, error) {
	offsets := map[int32][]int64{}
	for _, e := range page {
		offsets[e.Intent.Lane] = append(offsets[e.Intent.Lane], e.Intent.Offset)
	}
	intents := map[int32][]outbox.Intent{}
	for lane, wanted := range offsets {
		slices.Sort(wanted)
		found, err := l.some(ctx, lane, wanted)
		if err != nil {
			return nil, err
		}
		intents[lane] = found
	}
	now := l.now()
	for _, e := range page {
		i, found := slices.BinarySearchFunc(intents[e.Intent.Lane], e.Intent, byOffset)
		if !found || len(listed) >= f.Limit {
			continue
		}
		e.Intent = intents[e.Intent.Lane][i]
		if f.accepts(&e.Intent, now) {
			listed = append(listed, e)
		}
	}
	return listed, nil
}

// some gives the intents at ascending offsets that are there.
func (l *Ledger) some(ctx context.Context, lane int32, offsets []int64) (intents []outbox.Intent, err error) {
	err = l.retryStale(lane, func() error {
		intents, err = l.lookUp(ctx, lane, offsets)
		return err
	})
	return intents, err
}

// listLanes asks lane after lane.
func (l *Ledger) listLanes(ctx context.Context, f Filter, of func(context.Context, Filter, int32) ([]Effect, error)) (listed []Effect, err error) {
	lanes, err := l.lanes(ctx)
	if err != nil {
		return nil, err
	}
	for _, lane := range lanes {
		rest := f
		rest.Limit -= len(listed)
		if rest.Limit <= 0 {
			break
		}
		switch {
		case f.After == nil:
		case lane < f.After.Lane:
			continue
		case lane > f.After.Lane:
			rest.After = nil
		}
		found, err := of(ctx, rest, lane)
		if err != nil {
			return nil, fmt.Errorf("lane %d: %w", lane, err)
		}
		listed = append(listed, found...)
	}
	return listed, nil
}

func (l *Ledger) lanes(ctx context.Context) ([]int32, error) {
	rows, err := l.pool.Query(ctx, l.sql(`SELECT DISTINCT s.lane FROM @schema.lane_gen s ORDER BY s.lane`, 0))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int32])
}

// standing is what tells the pending effects of a lane from the others.
type standing struct {
	low     int64
	settled outbox.Ranges
	asides  outbox.Ranges // offsets that are parked or sending
}

const lowSQL = `
SELECT greatest(coalesce((SELECT f.low_off FROM @schema.flush f WHERE f.lane = $1 ORDER BY f.seq DESC LIMIT 1), 0),
  coalesce((SELECT p.low_off FROM @schema.progress p WHERE p.lane = $1), 0))`

const asideSQL = `
SELECT p.off FROM @schema.parked p WHERE p.lane = $1 AND p.off >= $2
UNION ALL SELECT s.off FROM @schema.sending s WHERE s.lane = $1 AND s.off >= $2 ORDER BY off`

func (l *Ledger) standing(ctx context.Context, lane int32) (s standing, err error) {
	if err := l.pool.QueryRow(ctx, l.sql(lowSQL, 0), lane).Scan(&s.low); err != nil {
		return standing{}, err
	}
	var batch pgx.Batch
	batch.Queue(l.sql(asideSQL, 0), lane, s.low).Query(func(rows pgx.Rows) error {
		var offset int64
		_, err := pgx.ForEachRow(rows, []any{&offset}, func() error {
			s.asides = s.asides.Add(offset, offset+1)
			return nil
		})
		return err
	})
	batch.Queue(l.sql(settledSQL, 0), lane, s.low).Query(func(rows pgx.Rows) error {
		var from, to int64
		_, err := pgx.ForEachRow(rows, []any{&from, &to}, func() error {
			s.settled = s.settled.Add(from, to)
			return nil
		})
		return err
	})
	return s, batched(ctx, l.pool, &batch)
}

func (s *standing) pending(offset int64) bool {
	return offset >= s.low && !s.asides.Contains(offset) && !s.settled.Contains(offset)
}

func (l *Ledger) pendingOf(ctx context.Context, f Filter, lane int32) (listed []Effect, err error) {
	s, err := l.standing(ctx, lane)
	if err != nil {
		return nil, err
	}
	now := l.now()
	from := s.low
	if f.After != nil {
		from = max(from, f.After.Offset+1)
	}
	for seen := 0; seen < listScan && len(listed) < f.Limit; {
		page, next, err := l.Page(ctx, lane, from, listPage)
		if err != nil {
			return nil, err
		}
		for i := range page {
			if len(listed) < f.Limit && s.pending(page[i].Offset) && f.accepts(&page[i], now) {
				listed = append(listed, Effect{Intent: page[i], State: Pending})
			}
		}
		if len(page) < listPage {
			break
		}
		seen, from = seen+len(page), next
	}
	return listed, nil
}

const newestSQL = `
SELECT ` + flushColumns + ` FROM @schema.flush f WHERE f.lane = $1 AND f.seq < $2 ORDER BY f.seq DESC LIMIT $3`

func (l *Ledger) settledOf(ctx context.Context, f Filter, lane int32) (listed []Effect, err error) {
	const flushes = 10
	before := int64(1<<63 - 1)
	for seen := 0; seen < listScan && len(listed) < f.Limit; {
		rows, err := l.pool.Query(ctx, l.sql(newestSQL, 0), lane, before, flushes)
		if err != nil {
			return nil, err
		}
		page, err := pgx.CollectRows(rows, scanFlush)
		if err != nil {
			return nil, err
		}
		var effects []Effect
		for _, flush := range page {
			before = flush.seq
			for _, o := range slices.Backward(flush.outcomes) {
				if f.After != nil { // what stands on the pages before
					if State(o.Status) == f.State && o.Offset == f.After.Offset {
						f.After = nil
					}
				} else if State(o.Status) == f.State {
					effects = append(effects, Effect{Intent: outbox.Intent{Lane: lane, Offset: o.Offset}, State: f.State, Attempts: o.Attempts, Status: o.HTTPStatus, Error: o.Error})
				}
			}
			seen += len(flush.outcomes)
		}
		if listed, err = l.fill(ctx, f, listed, effects); err != nil {
			return nil, err
		}
		if len(page) < flushes {
			break
		}
	}
	return listed, nil
}

// Show tells all about one effect. ErrNoEffect.
func (l *Ledger) Show(ctx context.Context, lane int32, offset int64) (Effect, error) {
	intents, err := l.some(ctx, lane, []int64{offset})
	if err == nil && len(intents) == 0 {
		err = ErrNoEffect
	}
	if err != nil {
		return Effect{}, fmt.Errorf("show effect %d:%d: %w", lane, offset, err)
	}
	e := Effect{Intent: intents[0], State: Pending}
	if err := l.describe(ctx, &e); err != nil {
		return Effect{}, fmt.Errorf("show effect %d:%d: %w", lane, offset, err)
	}
	return e, nil
}

// The last outcome of an effect: a dead one that was retried has several.
const outcomeSQL = `
SELECT ` + flushColumns + ` FROM @schema.flush f
WHERE f.lane = $1 AND f.hi >= $2 AND f.lo <= $2 AND f.done @> $2::bigint ORDER BY f.seq DESC LIMIT 1`

const historySQL = `
SELECT a.attempt, a.at, a.status, a.error FROM @schema.attempt a WHERE a.lane = $1 AND a.off = $2 ORDER BY a.at, a.attempt`

func (l *Ledger) describe(ctx context.Context, e *Effect) error {
	lane, offset := e.Intent.Lane, e.Intent.Offset
	var batch pgx.Batch
	batch.Queue(l.sql(outcomeSQL, 0), lane, offset).Query(func(rows pgx.Rows) error {
		flushes, err := pgx.CollectRows(rows, scanFlush)
		for _, flush := range flushes {
			if i := slices.IndexFunc(flush.outcomes, func(o outbox.Outcome) bool { return o.Offset == offset }); i >= 0 {
				o := flush.outcomes[i]
				e.Outcome, e.State, e.Attempts, e.Status, e.Error = &o, State(o.Status), o.Attempts, o.HTTPStatus, o.Error
			}
		}
		return err
	})
	// Where the flush has been dropped, this is what is left of the outcome.
	batch.Queue(l.sql(`SELECT d.fate, d.attempts, d.status, d.error FROM @schema.dead d WHERE d.lane = $1 AND d.off = $2`, 0), lane, offset).QueryRow(func(row pgx.Row) error {
		err := row.Scan(&e.State, &e.Attempts, &e.Status, &e.Error)
		if err == nil {
			e.Error = original(e.Error)
		}
		return unlessNone(err)
	})
	batch.Queue(l.sql(`
SELECT p.attempts, p.status, p.error, p.role, extract(epoch FROM p.next_at - clock_timestamp())::float8
FROM @schema.parked p WHERE p.lane = $1 AND p.off = $2`, 0), lane, offset).QueryRow(func(row pgx.Row) error {
		var next float64
		err := row.Scan(&e.Attempts, &e.Status, &e.Error, &e.Role, &next)
		if err == nil {
			e.State, e.Error, e.Next = Waiting, original(e.Error), max(0, seconds(next))
		}
		return unlessNone(err)
	})
	batch.Queue(l.sql(`SELECT s.attempt FROM @schema.sending s WHERE s.lane = $1 AND s.off = $2`, 0), lane, offset).QueryRow(func(row pgx.Row) error {
		err := row.Scan(&e.Attempts)
		if err == nil {
			e.State = Inflight
		}
		return unlessNone(err)
	})
	batch.Queue(l.sql(historySQL, 0), lane, offset).Query(func(rows pgx.Rows) (err error) {
		e.History, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (a Attempt, err error) {
			err = row.Scan(&a.Number, &a.At, &a.Status, &a.Error)
			a.At, a.Error = a.At.UTC(), original(a.Error)
			return a, err
		})
		return err
	})
	return batched(ctx, l.pool, &batch)
}

// byIDSQL looks for the bytes of the id first: only what has them is taken apart.
const byIDSQL = `
SELECT s.lane, e.off FROM @schema.segment s, LATERAL @schema.read_segment(s.first_off, s.effects) e
WHERE position($1::bytea IN s.effects) > 0 AND e.id = $2
UNION
SELECT k.lane, k.off FROM @schema.kept k, LATERAL @schema.read_segment(k.off, k.effect) e
WHERE position($1::bytea IN k.effect) > 0 AND e.id = $2
ORDER BY lane, off`

// ShowID finds effects by their id, oldest first: those with one business key share it. ids have no
// index, so this reads every effect there is: give it the time, and use Show where lane and offset are known.
// ErrNoEffect.
func (l *Ledger) ShowID(ctx context.Context, id message.ID) ([]Effect, error) {
	rows, err := l.pool.Query(ctx, l.sql(byIDSQL, 0), id[:], [16]byte(id))
	if err != nil {
		return nil, fmt.Errorf("look for effect %s: %w", id, err)
	}
	places, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (i outbox.Intent, err error) {
		err = row.Scan(&i.Lane, &i.Offset)
		return i, err
	})
	if err == nil && len(places) == 0 {
		err = ErrNoEffect
	}
	if err != nil {
		return nil, fmt.Errorf("look for effect %s: %w", id, err)
	}
	effects := make([]Effect, len(places))
	for i, place := range places {
		if effects[i], err = l.Show(ctx, place.Lane, place.Offset); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(effects, func(a, b Effect) int { return a.Intent.At.Compare(b.Intent.At) })
	return effects, nil
}
