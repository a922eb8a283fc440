//go:build integration

package testkit

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"pawl/internal/cluster"
)

// Two tests, or one that asks twice, never see each other's tables.
func TestEveryDatabaseIsFresh(t *testing.T) {
	t.Parallel()
	for range 2 {
		c, err := pgx.Connect(t.Context(), Postgres(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(t.Context(), "create table mine (n int)"); err != nil {
			t.Error(err)
		}
		if err := c.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}
}

func TestPostgresOfOneTestMayBeKilled(t *testing.T) {
	t.Parallel()
	p := OpenPostgres(t, cluster.PostgresConfig{})
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := pgx.Connect(t.Context(), p.DSN()); err == nil {
		t.Error("a killed server takes connections")
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}
