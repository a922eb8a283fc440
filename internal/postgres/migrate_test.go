//go:build integration

package postgres_test

import (
	"os"
	"slices"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"pawl/internal/postgres"
	"pawl/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m, func() error { return goleak.Find() })) }

func openPool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := postgres.Open(t.Context(), postgres.Config{DSN: testkit.Postgres(t), ConnsMax: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func migrations(n int) postgres.Migrations {
	files := fstest.MapFS{"00001_things.sql": {Data: []byte("-- +goose Up\nCREATE TABLE @schema.thing (n int);\n")}}
	if n > 1 {
		files["00002_more.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nINSERT INTO @schema.thing VALUES (7);\n")}
	}
	return postgres.Migrations{Files: files, Schema: "things"}
}

func status(t *testing.T, pool *pgxpool.Pool, m postgres.Migrations, want postgres.Version) {
	t.Helper()
	if got, err := postgres.Status(t.Context(), pool, m); err != nil || got != want {
		t.Errorf("version %+v, %v, want %+v", got, err, want)
	}
}

func TestMigrateAppliesWhatIsMissing(t *testing.T) {
	t.Parallel()
	pool := openPool(t)
	status(t, pool, migrations(2), postgres.Version{Wanted: 2})
	if applied, err := postgres.Migrate(t.Context(), pool, migrations(1)); err != nil || !slices.Equal(applied, []string{"00001_things.sql"}) {
		t.Fatal(applied, err)
	}
	status(t, pool, migrations(2), postgres.Version{Current: 1, Wanted: 2})
	if applied, err := postgres.Migrate(t.Context(), pool, migrations(2)); err != nil || len(applied) != 1 {
		t.Fatal(applied, err)
	}
	if applied, err := postgres.Migrate(t.Context(), pool, migrations(2)); err != nil || len(applied) != 0 {
		t.Fatal(applied, err)
	}
	status(t, pool, migrations(2), postgres.Version{Current: 2, Wanted: 2})
	// The release before runs on the newer schema.
	if v, err := postgres.Status(t.Context(), pool, migrations(1)); err != nil || v.Behind() {
		t.Errorf("%+v, %v", v, err)
	}
}

// Several replicas start at once, each with leave to migrate.
func TestMigrationsRunOnceBesideEachOther(t *testing.T) {
	t.Parallel()
	runOnce(t, openPool(t))
}

// A pooler in transaction mode would keep a lock that belongs to a session on one of the server's
// connections, where none of the four finds it again.
func TestMigrationsRunOnceThroughAPooler(t *testing.T) {
	t.Parallel()
	pool, err := postgres.Open(t.Context(), postgres.Config{DSN: testkit.PgBouncer(t, testkit.Postgres(t)), ConnsMax: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	runOnce(t, pool)
}

func runOnce(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := postgres.Migrate(t.Context(), pool, migrations(2)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	var n int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM things.thing").Scan(&n); err != nil || n != 1 {
		t.Errorf("the second migration ran %d times, %v", n, err)
	}
	if err := pool.QueryRow(t.Context(), `
SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE l.locktype = 'advisory' AND d.datname = current_database()`).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d locks are left, %v", n, err)
	}
}

// A pooler in transaction mode gives each transaction another connection of the server.
func TestNoNamedStatementStaysOnAConnection(t *testing.T) {
	t.Parallel()
	pool := openPool(t)
	for range 20 {
		var n int
		if err := pool.QueryRow(t.Context(), "SELECT $1::int", 4).Scan(&n); err != nil || n != 4 {
			t.Fatal(n, err)
		}
	}
	var statements int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_prepared_statements WHERE name <> ''").Scan(&statements); err != nil || statements != 0 {
		t.Errorf("%d statements are prepared, %v", statements, err)
	}
}
