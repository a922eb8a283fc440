package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// SchemaMark stands in SQL texts for the quoted name of the schema.
const SchemaMark = "@schema"

// Migrations are the versions of one schema: SQL files in the format of goose, named
// <number>_<what>.sql, at the root of Files.
type Migrations struct {
	Files  fs.FS
	Schema string
}

// Version says which migration a schema has and which one this program wants.
type Version struct{ Current, Wanted int64 }

// Behind reports whether migrations are missing. A schema that is ahead is fine: a release runs on the
// schema of its successor.
func (v Version) Behind() bool { return v.Current < v.Wanted }

const (
	versionTable = "goose_db_version"
	lockPeriod   = time.Second     // between two tries to take the lock
	lockMax      = 2 * time.Minute // another process may be migrating
	unlockMax    = 5 * time.Second
)

var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

// Qualify puts the schema's name into an SQL text.
func Qualify(schema, sql string) string {
	return strings.ReplaceAll(sql, SchemaMark, pgx.Identifier{schema}.Sanitize())
}

// Status reads how far a schema is. It needs nothing but the right to read, and a schema that is not
// there has version 0.
func Status(ctx context.Context, pool *pgxpool.Pool, m Migrations) (Version, error) {
	names, err := fs.Glob(m.Files, "*.sql")
	if err != nil {
		return Version{}, fmt.Errorf("list migrations: %w", err)
	}
	var v Version
	for _, name := range names {
		number, err := goose.NumericComponent(name)
		if err != nil {
			return Version{}, fmt.Errorf("read number of migration %s: %w", name, err)
		}
		v.Wanted = max(v.Wanted, number)
	}
	err = pool.QueryRow(ctx, Qualify(m.Schema, "SELECT coalesce(max(version_id), 0) FROM @schema."+versionTable+" WHERE is_applied")).Scan(&v.Current)
	if code := Code(err); code == UndefinedTable || code == InvalidSchemaName {
		return v, nil
	}
	if err != nil {
		return Version{}, fmt.Errorf("read version of schema %s: %w", m.Schema, explain(err))
	}
	return v, nil
}

// Migrate makes the schema where it is missing, applies what is missing, in order, and returns the
// names of the files that it applied. Several processes may call it at once: one works, the others
// wait. It may go through a pooler in transaction mode.
func Migrate(ctx context.Context, pool *pgxpool.Pool, m Migrations) (applied []string, err error) {
	if !schemaName.MatchString(m.Schema) {
		return nil, fmt.Errorf("migrate: schema %q: want 1 to 63 of a-z 0-9 _ that begin with no digit", m.Schema)
	}
	if err := makeSchema(ctx, pool, m.Schema); err != nil {
		return nil, fmt.Errorf("make schema %s: %w", m.Schema, explain(err))
	}
	unlock, err := lockMigrations(ctx, pool, m.Schema)
	if err != nil {
		return nil, fmt.Errorf("migrate schema %s: %w", m.Schema, err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	db := stdlib.OpenDBFromPool(pool)
	defer func() { err = errors.Join(err, db.Close()) }()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, qualified{m.Files, m.Schema},
		goose.WithTableName(m.Schema+"."+versionTable), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	results, err := provider.Up(ctx)
	for _, result := range results {
		applied = append(applied, result.Source.Path)
	}
	if err != nil {
		return applied, fmt.Errorf("migrate schema %s: %w", m.Schema, explain(err))
	}
	return applied, nil
}

// lockMigrations waits until nobody else migrates the schema. The lock lives in a transaction that stays
// open, on a connection of its own: one that lived in a session would be left behind on any of the
// server's connections by a pooler. The transaction has no snapshot and no id, so it holds nothing else up.
func lockMigrations(ctx context.Context, pool *pgxpool.Pool, schema string) (unlock func() error, err error) {
	connection, err := pgx.ConnectConfig(ctx, pool.Config().ConnConfig)
	if err != nil {
		return nil, fmt.Errorf("connect to lock migrations: %w", explain(err))
	}
	unlock = func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockMax)
		defer cancel()
		_, err := connection.Exec(ctx, "ROLLBACK")
		if err := errors.Join(err, connection.Close(ctx)); err != nil {
			return fmt.Errorf("unlock migrations: %w", err)
		}
		return nil
	}
	if err := waitForLock(ctx, connection, schema); err != nil {
		return nil, errors.Join(fmt.Errorf("lock migrations: %w", err), unlock())
	}
	return unlock, nil
}

// waitForLock leaves a transaction open that has the lock.
func waitForLock(ctx context.Context, connection *pgx.Conn, schema string) error {
	id := fnv.New64a()
	_, _ = id.Write([]byte("pawl schema " + schema)) // never fails
	ctx, cancel := context.WithTimeoutCause(ctx, lockMax, fmt.Errorf("another process has been migrating for %v", lockMax))
	defer cancel()
	ticker := time.NewTicker(lockPeriod)
	defer ticker.Stop()
	for {
		// The transaction is idle while the work is done, for which a server may end it.
		if _, err := connection.Exec(ctx, "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil {
			return err
		}
		var mine bool
		err := connection.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock($1)", int64(id.Sum64())).Scan(&mine) //nolint:gosec // any number will do
		if err != nil || mine {
			return err
		}
		// A pooler has few connections of the server: who waits must not keep one.
		if _, err := connection.Exec(ctx, "ROLLBACK"); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// makeSchema looks first, because a role that owns the schema may lack the right to make one.
func makeSchema(ctx context.Context, pool *pgxpool.Pool, schema string) error {
	var there bool
	if err := pool.QueryRow(ctx, "SELECT to_regnamespace($1) IS NOT NULL", schema).Scan(&there); err != nil || there {
		return err
	}
	_, err := pool.Exec(ctx, Qualify(schema, "CREATE SCHEMA IF NOT EXISTS @schema"))
	if code := Code(err); code == UniqueViolation || code == DuplicateSchema {
		return nil // another process made it in between
	}
	return err
}

// qualified is a folder of SQL files with the schema's name put in.
type qualified struct {
	fs.FS
	schema string
}

// Open implements fs.FS.
func (q qualified) Open(name string) (fs.File, error) {
	file, err := q.FS.Open(name)
	if err != nil || !strings.HasSuffix(name, ".sql") {
		return file, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	text, err := q.ReadFile(name)
	if err != nil {
		return nil, err
	}
	info, err := fs.Stat(q.FS, name)
	if err != nil {
		return nil, err
	}
	return &opened{bytes.NewReader(text), info}, nil
}

// ReadFile implements fs.ReadFileFS.
func (q qualified) ReadFile(name string) ([]byte, error) {
	text, err := fs.ReadFile(q.FS, name)
	if err != nil {
		return nil, err
	}
	return []byte(Qualify(q.schema, string(text))), nil
}

// opened is an open file of a qualified folder.
type opened struct {
	*bytes.Reader
	info fs.FileInfo
}

// Stat implements fs.File.
func (t *opened) Stat() (fs.FileInfo, error) { return t.info, nil }

// Close implements fs.File.
func (t *opened) Close() error { return nil }
