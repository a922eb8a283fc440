package testkit

import (
	"context"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pawl/internal/cluster"
)

const databaseTimeout = 30 * time.Second

// Postgres returns the connection string of a fresh database on the server that all tests of this
// process share. The database is dropped when the test ends. A test must not stop the server; one
// that wants to takes OpenPostgres.
func Postgres(tb testing.TB) string {
	tb.Helper()
	server, err := sharedPostgres.get(openSharedPostgres)
	require(tb, "a Postgres server", err)
	dsn, err := url.Parse(server)
	if err != nil || dsn.Host == "" {
		tb.Fatal("POSTGRES_DSN: want a URL, such as postgres://user:password@localhost:5432/postgres")
	}
	name := databaseName(tb)
	execute(tb, server, "create database "+name)
	tb.Cleanup(func() { execute(tb, server, "drop database "+name+" with (force)") })
	dsn.Path = "/" + name
	return dsn.String()
}

// databaseName makes a name that fits Postgres: lower case, at most 63 bytes.
func databaseName(tb testing.TB) string {
	tb.Helper()
	const head, tail = 40, tailSize
	name := strings.ToLower(strings.ReplaceAll(Name(tb, "db"), "-", "_"))
	return "t_" + name[:min(head, len(name)-tail)] + name[len(name)-tail:]
}

func execute(tb testing.TB, dsn, sql string) {
	tb.Helper()
	// Also called after the end of the test, when its context has ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), databaseTimeout)
	defer cancel()
	connection, err := pgx.Connect(ctx, dsn)
	if err != nil {
		tb.Fatalf("connect to Postgres: %v", err)
	}
	defer connection.Close(ctx) //nolint:errcheck // nothing depends on it
	if _, err := connection.Exec(ctx, sql); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

func openSharedPostgres() (string, func() error, error) {
	if dsn := os.Getenv("POSTGRES_DSN"); dsn != "" {
		return dsn, nil, nil
	}
	return firstOf(openPostgresContainer, cluster.PostgresAvailable(""), func(ctx context.Context) (string, func() error, error) {
		p, err := cluster.OpenPostgres(ctx, cluster.PostgresConfig{})
		if err != nil {
			return "", nil, err
		}
		return p.DSN(), p.Close, nil
	})
}

// OpenPostgres opens a server for this test alone, which it may kill, stop and pause. It is closed
// when the test ends.
func OpenPostgres(tb testing.TB, config cluster.PostgresConfig) *cluster.Postgres {
	tb.Helper()
	if err := cluster.PostgresAvailable(config.Cache); config.Binaries == "" && err != nil {
		require(tb, "a Postgres server of its own", unavailable{err})
	}
	ctx, cancel := context.WithTimeout(tb.Context(), openTimeout)
	defer cancel()
	if config.Progress == nil {
		config.Progress = func(step string) { tb.Log(step) }
	}
	return closing(tb)(cluster.OpenPostgres(ctx, config))
}

// OpenStandby opens a server that follows primary by the address of a proxy, or directly if that is
// empty; see cluster.Postgres.OpenStandby. It is closed when the test ends.
func OpenStandby(tb testing.TB, primary *cluster.Postgres, config cluster.PostgresConfig, address string) *cluster.Postgres {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), openTimeout)
	defer cancel()
	return closing(tb)(primary.OpenStandby(ctx, config, address))
}

// closing gives a server that was opened, until the test ends.
func closing(tb testing.TB) func(*cluster.Postgres, error) *cluster.Postgres {
	tb.Helper()
	return func(p *cluster.Postgres, err error) *cluster.Postgres {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() {
			if err := p.Close(); err != nil {
				tb.Error(err)
			}
		})
		return p
	}
}
