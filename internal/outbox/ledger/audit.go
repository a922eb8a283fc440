package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"pawl/internal/outbox"
)

// obeySQL comes after all other changes of its flush. One to cancel is obeyed if its effect is dead now, one to
// retry if its effect waits for its next attempt or was settled by this flush ($3): otherwise there was
// nothing left to do.
const obeySQL = `
WITH obeyed AS (DELETE FROM @schema.operator_order o WHERE o.lane = $1 AND o.number = ANY($2::bigint[]) RETURNING o.number, o.off, o.action)
INSERT INTO @schema.audit_end (number, result, owner)
SELECT b.number, CASE
    WHEN b.action = 'cancel' AND EXISTS (SELECT FROM @schema.dead d WHERE d.lane = $1 AND d.off = b.off AND d.fate = 'dead') THEN 'obeyed'
    WHEN b.action = 'retry' AND b.off = ANY($3::bigint[]) THEN 'obeyed'
    WHEN b.action = 'retry' AND EXISTS (SELECT FROM @schema.parked p WHERE p.lane = $1 AND p.off = b.off) THEN 'obeyed'
    ELSE 'late' END,
  (SELECT l.owner FROM @schema.lane l WHERE l.lane = $1)
FROM obeyed b`

// offsets gives those of the settled.
func (w *writing) offsets() []int64 {
	offsets := make([]int64, len(w.Settled))
	for i, o := range w.Settled {
		offsets[i] = o.Offset
	}
	return offsets
}

const auditColumns = `
SELECT a.number, a.lane, a.off, a.action, a.reason, a.actor, a.at, e.at, coalesce(e.result, 'open'), coalesce(e.owner, '')
FROM @schema.audit a LEFT JOIN @schema.audit_end e ON e.number = a.number `

const (
	auditSQL = auditColumns + `
WHERE a.at >= $1 AND ($2 = '' OR a.actor = $2) ORDER BY a.number DESC LIMIT $3`

	auditOfSQL = auditColumns + `
WHERE a.lane = $1 AND a.off = $2 ORDER BY a.number`
)

// Audit gives the orders that were given, newest first, with what became of them. They are kept for as
// long as dead effects.
func (l *Ledger) Audit(ctx context.Context, filter outbox.AuditFilter) ([]outbox.Audit, error) {
	found, err := l.audits(ctx, auditSQL, filter.Since, storable(filter.Actor), orDefault(filter.Limit, listLimit))
	if err != nil {
		return nil, fmt.Errorf("list orders: %w", err)
	}
	return found, nil
}

// AuditOf gives the orders about one effect, oldest first.
func (l *Ledger) AuditOf(ctx context.Context, lane int32, offset int64) ([]outbox.Audit, error) {
	found, err := l.audits(ctx, auditOfSQL, lane, offset)
	if err != nil {
		return nil, fmt.Errorf("list orders about effect %d:%d: %w", lane, offset, err)
	}
	return found, nil
}

func (l *Ledger) audits(ctx context.Context, sql string, arguments ...any) ([]outbox.Audit, error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	rows, err := l.pool.Query(ctx, l.sql(sql, 0), arguments...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (a outbox.Audit, err error) {
		var ended *time.Time
		err = row.Scan(&a.Order.Number, &a.Order.Lane, &a.Order.Offset, &a.Order.Action, &a.Order.Reason, &a.Actor, &a.At, &ended, &a.Result, &a.Owner)
		a.Order.Reason, a.Actor, a.At = original(a.Order.Reason), original(a.Actor), a.At.UTC()
		if ended != nil {
			a.Ended = ended.UTC()
		}
		return a, err
	})
}
