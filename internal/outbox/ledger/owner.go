package ledger

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
)

const ownerSQL = `SELECT l.owner FROM @schema.lane l WHERE l.lane = $1 AND l.lease_until > clock_timestamp()`

// Owner tells whose the lease of a lane is, "" where it is nobody's.
func (l *Ledger) Owner(ctx context.Context, lane int32) (string, error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	var owner string
	err := l.pool.QueryRow(ctx, l.sql(ownerSQL, 0), lane).Scan(&owner)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return owner, doing(err, "look up owner of", lane)
}
