//go:build integration

package postgres_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"pawl/internal/cluster"
	"pawl/internal/faults"
	"pawl/internal/postgres"
	"pawl/internal/testkit"
)

// Who demands verify-full gets what it says, and whatever keeps a connection out is told with its next step and without
// the password.
func TestDatabaseMustShowWhoItIs(t *testing.T) {
	t.Parallel()
	authority, other := testkit.NewAuthority(t), testkit.NewAuthority(t)
	certificate, key := authority.IssueUntil(t, "db", time.Now().Add(time.Hour), "localhost") // not its address
	server := testkit.OpenPostgres(t, cluster.PostgresConfig{TLS: &cluster.TLS{Certificate: certificate, Key: key}})
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	base, err := url.Parse(server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	password, _ := base.User.Password()
	connect := func(change func(dsn *url.URL, query url.Values)) error {
		dsn, query := *base, url.Values{"sslmode": {"verify-full"}, "sslrootcert": {file(authority.PEM)}}
		dsn.Host = "localhost:" + base.Port()
		change(&dsn, query)
		dsn.RawQuery = query.Encode()
		pool, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn.String(), ConnectTimeout: 20 * time.Second})
		if err != nil {
			return err
		}
		defer pool.Close()
		if _, err = postgres.Status(t.Context(), pool, migrations(1)); err != nil {
			return err
		}
		var encrypted bool
		err = pool.QueryRow(t.Context(), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&encrypted)
		if err == nil && !encrypted {
			t.Error("the connection is not encrypted")
		}
		return err
	}
	refused := func(mistake string, change func(dsn *url.URL, query url.Values)) {
		t.Helper()
		err := connect(change)
		if err == nil {
			t.Errorf("%s: connected", mistake)
			return
		}
		faults.Shows(t, mistake, err.Error())
		if strings.Contains(fmt.Sprintf("%+v", err), password) {
			t.Errorf("%s: the password is in %v", mistake, err)
		}
	}

	if err := connect(func(*url.URL, url.Values) {}); err != nil {
		t.Errorf("all is right, and yet: %v", err)
	}
	refused("database-wrong-ca", func(_ *url.URL, query url.Values) { query.Set("sslrootcert", file(other.PEM)) })
	refused("database-wrong-name", func(dsn *url.URL, _ url.Values) { dsn.Host = base.Host })
	refused("database-wrong-password", func(dsn *url.URL, _ url.Values) { dsn.User = url.UserPassword(dsn.User.Username(), "wrong") })
	refused("database-missing", func(dsn *url.URL, _ url.Values) { dsn.Path = "/nobody" })

	old, oldKey := authority.IssueUntil(t, "db", time.Now().Add(-time.Hour), "localhost")
	if err := server.ReplaceTLS(cluster.TLS{Certificate: old, Key: oldKey}); err != nil {
		t.Fatal(err)
	}
	testkit.WaitFor(t, time.Minute, "the expired certificate", func() bool { return connect(func(*url.URL, url.Values) {}) != nil })
	refused("database-expired", func(*url.URL, url.Values) {})

	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	refused("database-away", func(*url.URL, url.Values) {})
}

func TestDatabaseWithoutTLSIsRefused(t *testing.T) {
	t.Parallel()
	dsn, err := url.Parse(testkit.OpenPostgres(t, cluster.PostgresConfig{}).DSN())
	if err != nil {
		t.Fatal(err)
	}
	dsn.RawQuery = url.Values{"sslmode": {"require"}}.Encode()
	pool, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn.String()})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	_, err = postgres.Status(t.Context(), pool, migrations(1))
	if err == nil {
		t.Fatal("connected in the clear")
	}
	faults.Shows(t, "database-without-tls", err.Error())
}

// A full disk is not to be had without a file system of its own. What the server says of one is: by the code that it uses.
func TestDatabaseWithAFullDiskSaysSo(t *testing.T) {
	t.Parallel()
	pool := openPool(t)
	_, err := postgres.Migrate(t.Context(), pool, postgres.Migrations{Schema: "things", Files: fstest.MapFS{"00001_things.sql": {Data: []byte(`-- +goose Up
-- +goose StatementBegin
DO $$ BEGIN RAISE EXCEPTION 'could not extend file "base/5/16384": No space left on device' USING ERRCODE = '53100'; END $$;
-- +goose StatementEnd
`)}}})
	if err == nil {
		t.Fatal("migrated onto a full disk")
	}
	faults.Shows(t, "database-disk-full", err.Error())
}

// The password is replaced while the pool lives.
func TestPoolTakesANewPassword(t *testing.T) {
	t.Parallel()
	dsn := testkit.Postgres(t)
	admin, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close(t.Context()) }()
	current, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	user := strings.TrimPrefix(current.Path, "/")
	execute := func(sql string) {
		t.Helper()
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	role := pgx.Identifier{user}.Sanitize()
	execute("CREATE ROLE " + role + " LOGIN PASSWORD 'first'")
	defer execute("DROP ROLE " + role)
	with := func(password string) string {
		one := *current
		one.User = url.UserPassword(user, password)
		return one.String()
	}
	now := with("first")
	pool, err := postgres.Open(t.Context(), postgres.Config{DSN: now, Credentials: func() (string, error) { return now, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := pool.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	execute("ALTER ROLE " + role + " PASSWORD 'second'")
	pool.Reset()
	if err := pool.Ping(t.Context()); err == nil || postgres.Code(err) != postgres.InvalidPassword {
		t.Errorf("with the old password: %v", err)
	}
	now = with("second")
	if err := pool.Ping(t.Context()); err != nil {
		t.Errorf("with the new password: %v", err)
	}
}
