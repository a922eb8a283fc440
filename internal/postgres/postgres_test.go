package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pawl/internal/postgres"
)

const secret = "hunter2"

// A password must not reach a log by way of an error, whatever is wrong with the string.
func TestErrorsDoNotShowTheConnectionString(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{
		"postgres://pawl:" + secret + "@local host:5432/db",
		"postgres://pawl:" + secret + "@localhost:port/db",
		"host=localhost password=" + secret + " port=none",
		"postgres://pawl:" + secret + "@localhost/db?sslmode=never",
		"postgres://pawl:%zz" + secret + "@localhost/db",
	} {
		pool, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn})
		if err == nil {
			pool.Close()
			t.Errorf("%s was taken", dsn)
			continue
		}
		if text := fmt.Sprintf("%v %+v", err, errors.Unwrap(err)); strings.Contains(text, secret) {
			t.Errorf("the password is in %s", text)
		}
	}
}

// A ledger that is away must not keep a process from starting.
func TestAServerThatIsAwayIsMetByTheFirstCall(t *testing.T) {
	t.Parallel()
	pool, err := postgres.Open(t.Context(), postgres.Config{DSN: "postgres://pawl:" + secret + "@127.0.0.1:1/db", ConnectTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := pool.Exec(ctx, "SELECT 1"); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("the call gave %v", err)
	}
}

func TestCodeIsThatOfTheServer(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("insert: %w", &pgconn.PgError{Code: postgres.UniqueViolation})
	if got := postgres.Code(err); got != postgres.UniqueViolation {
		t.Errorf("code is %q", got)
	}
	if got := postgres.Code(context.Canceled); got != "" {
		t.Errorf("code is %q", got)
	}
}

func TestQualifyQuotesTheSchema(t *testing.T) {
	t.Parallel()
	if got := postgres.Qualify(`pa"wl`, "SELECT FROM @schema.t"); got != `SELECT FROM "pa""wl".t` {
		t.Error(got)
	}
}

func TestMigrateRefusesASchemaThatNeedsQuotes(t *testing.T) {
	t.Parallel()
	for _, schema := range []string{"", "Pawl", "1pawl", "pa.wl", strings.Repeat("p", 64)} {
		if _, err := postgres.Migrate(t.Context(), nil, postgres.Migrations{Files: fstest.MapFS{}, Schema: schema}); err == nil {
			t.Errorf("%q was taken", schema)
		}
	}
}
