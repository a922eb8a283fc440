package testkit

import (
	"context"
	"testing"

	"pawl/internal/cluster"
)

// PgBouncer puts a pooler in transaction mode in front of a database, see Postgres, and returns the
// connection string through it. It is closed when the test ends. A test must not cancel statements on their
// way: version 1.18, which distributions still have, can end of that.
func PgBouncer(tb testing.TB, dsn string) string {
	tb.Helper()
	if err := cluster.PgBouncerAvailable(); err != nil {
		require(tb, "pgbouncer", unavailable{err})
	}
	ctx, cancel := context.WithTimeout(tb.Context(), openTimeout)
	defer cancel()
	b, err := cluster.OpenPgBouncer(ctx, dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Error(err)
		}
	})
	return b.DSN()
}
