package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
)

const promoteTimeout = 30 * time.Second

// OpenStandby opens a server that follows this one by streaming (the log of what is written, as it is
// written) and answers questions meanwhile. It reaches this one by address, such as that of a proxy;
// empty means directly. This server, which must run, is stopped while its data is copied, and its
// connections are cut. Password and users are the same on both. The standby is asynchronous: an
// acknowledged commit may not be there, see Synchronize.
func (p *Postgres) OpenStandby(ctx context.Context, config PostgresConfig, address string) (*Postgres, error) {
	if config.Dir != "" {
		return nil, errors.New("open Postgres standby: it has no folder of its own, leave Dir empty")
	}
	if address == "" {
		address = p.port.address()
	}
	config.Binaries = p.config.Binaries
	if err := p.Stop(); err != nil {
		return nil, fmt.Errorf("open Postgres standby: %w", err)
	}
	started := false
	standby, err := openPostgres(ctx, config, func(standby *Postgres, ctx context.Context) error {
		if err := standby.copyOf(p, address); err != nil {
			return err
		}
		started = true
		return p.Start(ctx) // before the standby, which asks it at once
	})
	if err != nil {
		if !started {
			err = errors.Join(err, p.Start(ctx))
		}
		return nil, err
	}
	if err := p.awaitStandby(ctx, false); err != nil {
		return nil, errors.Join(fmt.Errorf("open Postgres standby: %w, log %s:%s", err, standby.LogPath(), tail(standby.LogPath())), standby.Close())
	}
	return standby, nil
}

// copyOf fills the data folder with that of a primary that is stopped, and says whom to follow.
func (p *Postgres) copyOf(primary *Postgres, address string) error {
	p.password = primary.password
	if err := os.Mkdir(p.dataPath(), 0o700); err != nil { // the server refuses one that others may enter
		return fmt.Errorf("make data folder: %w", err)
	}
	if err := os.CopyFS(p.dataPath(), os.DirFS(primary.dataPath())); err != nil {
		return fmt.Errorf("copy data: %w", err)
	}
	target := url.URL{Scheme: "postgres", User: url.UserPassword(postgresUser, p.password), Host: address, RawQuery: "sslmode=disable"}
	for name, text := range map[string]string{
		"postgresql.auto.conf": fmt.Sprintf("primary_conninfo = '%s'\nwal_retrieve_retry_interval = '100ms'\n", target.String()),
		"standby.signal":       "", // makes it a standby
	} {
		if err := os.WriteFile(filepath.Join(p.dataPath(), name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("configure standby: %w", err)
		}
	}
	paths := []string{p.folder.path}
	err := filepath.WalkDir(p.dataPath(), func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		return fmt.Errorf("copy data: %w", err)
	}
	return p.handOver(paths...)
}

// awaitStandby waits until somebody follows this server, or, if synchronous, until commits wait for it.
func (p *Postgres) awaitStandby(ctx context.Context, synchronous bool) error {
	ctx, cancel := context.WithTimeout(ctx, postgresReadyTimeout)
	defer cancel()
	for {
		var there bool
		err := p.ask(ctx, fmt.Sprintf(`SELECT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming' AND (sync_state <> 'async' OR NOT %t))`, synchronous), &there)
		if err != nil {
			return fmt.Errorf("ask whether the standby streams: %w", err)
		}
		if there {
			return nil
		}
		if !pause(ctx, postgresReadyRetry) {
			return fmt.Errorf("the standby does not stream: %w", ctx.Err())
		}
	}
}

// Synchronize makes the standby synchronous: a commit on a connection that is made from now on is
// acknowledged when the standby has it on its disk.
func (p *Postgres) Synchronize(ctx context.Context) error {
	connection, err := pgx.Connect(ctx, p.DSN())
	if err != nil {
		return fmt.Errorf("make the standby synchronous: %w", err)
	}
	defer connection.Close(ctx) //nolint:errcheck // nothing depends on it
	for _, sql := range []string{`ALTER SYSTEM SET synchronous_standby_names = '*'`, `SELECT pg_reload_conf()`} {
		if _, err := connection.Exec(ctx, sql); err != nil {
			return fmt.Errorf("make the standby synchronous: %w", err)
		}
	}
	return p.awaitStandby(ctx, true)
}

// Promote makes a standby a primary and returns when it takes writes. What had arrived from its primary
// is there.
func (p *Postgres) Promote(ctx context.Context) error {
	var promoted bool
	err := p.ask(ctx, fmt.Sprintf(`SELECT pg_promote(true, %d)`, int(promoteTimeout.Seconds())), &promoted)
	switch {
	case err != nil:
		return fmt.Errorf("promote Postgres: %w", err)
	case !promoted:
		return fmt.Errorf("promote Postgres: it did not end its recovery within %s, log %s:%s", promoteTimeout, p.LogPath(), tail(p.LogPath()))
	}
	return nil
}

// ask puts a question with one value for an answer.
func (p *Postgres) ask(ctx context.Context, sql string, answer any) error {
	connection, err := pgx.Connect(ctx, p.DSN())
	if err != nil {
		return err
	}
	defer connection.Close(ctx) //nolint:errcheck // nothing depends on it
	return connection.QueryRow(ctx, sql).Scan(answer)
}
