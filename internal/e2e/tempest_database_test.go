//go:build chaos && linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"pawl/internal/testkit"
)

// databaseTroubles are those of the ledger's database and of the way to it.
func databaseTroubles() []trouble {
	link := func(name string, least, most float64, strike, heal func(*testkit.Proxy), what string) trouble {
		return trouble{name: name, seat: onDatabase, least: least, most: most, strike: func(ctx context.Context, w *tempest, _ act) (string, error) {
			return overLinks(ctx, []*testkit.Proxy{w.databaseProxy}, strike, heal, what), nil
		}}
	}
	of := func(name string, least, most float64, strike func(context.Context, *tempest) (string, error)) trouble {
		return trouble{name: name, seat: onDatabase, least: least, most: most, strike: func(ctx context.Context, w *tempest, _ act) (string, error) {
			return strike(ctx, w)
		}}
	}
	return []trouble{
		of("database killed", 2, 7, killDatabase),
		of("database frozen", 4, 9, freezeDatabase),
		of("database frozen beyond the lease", 17, 20, freezeDatabase),
		of("database backends terminated", 3, 8, terminateBackends),
		of("ledger locked", 4, 9, lockLedger),
		of("database connections exhausted", 4, 8, exhaustDatabase),
		of("database disk full", 5, 10, fillDisk),
		of("database connections cut", 3, 8, func(ctx context.Context, w *tempest) (string, error) {
			return cutAgain(ctx, nobody, w.databaseProxy), nil
		}),
		of("database latency creeps up", 8, 14, func(ctx context.Context, w *tempest) (string, error) {
			return creep(ctx, []*testkit.Proxy{w.databaseProxy}), nil
		}),
		link("database refuses connections", 3, 8, (*testkit.Proxy).Refuse, (*testkit.Proxy).Accept, "connections cut or refused"),
		link("database traffic held", 4, 9, hold(testkit.Both), (*testkit.Proxy).Release, "pieces held and let go late"),
		link("database answers lost", 3, 8, hold(testkit.ToClient), dropHeld, "pieces lost on their way from the database"),
		link("database requests lost", 3, 8, hold(testkit.ToTarget), dropHeld, "pieces lost on their way to the database"),
	}
}

// killDatabase kills the server with all its processes and starts it again when ctx ends.
func killDatabase(ctx context.Context, w *tempest) (string, error) {
	if err := w.database.Kill(); err != nil {
		return "", err
	}
	_, err := pgx.Connect(ctx, w.database.DSN())
	<-ctx.Done()
	if startErr := w.database.Start(w.ctx); startErr != nil {
		return "", startErr
	}
	if err == nil {
		return "", errors.New("the database takes connections after SIGKILL")
	}
	return "the server died and recovered", nil
}

func freezeDatabase(ctx context.Context, w *tempest) (string, error) {
	began := time.Now()
	if err := w.database.Pause(); err != nil {
		return "", err
	}
	ask, cancel := context.WithTimeout(ctx, time.Second)
	_, err := pgx.Connect(ask, w.database.DSN())
	cancel()
	<-ctx.Done()
	if err := w.database.Resume(); err != nil {
		return "", err
	}
	if err == nil {
		return "", nil // it answered
	}
	return fmt.Sprintf("nothing answered for %.0f s", time.Since(began).Seconds()), nil
}

// inDatabase does something on a connection of the test's own, around the proxy.
func (w *tempest) inDatabase(ctx context.Context, do func(*pgx.Conn) error) error {
	connection, err := pgx.Connect(ctx, w.database.DSN())
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer func() {
		end, cancel := context.WithTimeout(w.ctx, askTimeout)
		defer cancel()
		_ = connection.Close(end)
	}()
	return do(connection)
}

const terminateSQL = `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'`

// terminateBackends ends the processes of all connections, as an administrator may, again and again.
func terminateBackends(ctx context.Context, w *tempest) (string, error) {
	var ended int64
	err := w.inDatabase(w.ctx, func(c *pgx.Conn) error {
		for ctx.Err() == nil {
			var n int64
			if err := c.QueryRow(w.ctx, terminateSQL).Scan(&n); err != nil {
				return fmt.Errorf("terminate backends: %w", err)
			}
			ended += n
			waitOr(ctx.Done(), cutEvery)
		}
		return nil
	})
	return proofOf(ended, "backends"), err
}

// lockLedger holds the table of leases, so that nobody can take, renew or use one.
func lockLedger(ctx context.Context, w *tempest) (proof string, err error) {
	err = w.inDatabase(w.ctx, func(c *pgx.Conn) error {
		lock, cancel := context.WithTimeout(w.ctx, askTimeout)
		defer cancel()
		tx, err := c.Begin(lock)
		if err != nil {
			return fmt.Errorf("lock the ledger: %w", err)
		}
		defer func() { _ = tx.Rollback(w.ctx) }()
		if _, err := tx.Exec(lock, "LOCK TABLE pawl.lane IN ACCESS EXCLUSIVE MODE"); err != nil {
			return fmt.Errorf("lock the ledger: %w", err)
		}
		<-ctx.Done()
		var waiting int64
		if err := tx.QueryRow(w.ctx, "SELECT count(*) FROM pg_locks WHERE NOT granted").Scan(&waiting); err != nil {
			return fmt.Errorf("lock the ledger: %w", err)
		}
		proof = proofOf(waiting, "locks waited for")
		return nil
	})
	return proof, err
}

// tooMany is what the server says when no connection is left.
const tooMany = "53300"

// exhaustDatabase takes every connection that the server has, then those of the processors.
func exhaustDatabase(ctx context.Context, w *tempest) (string, error) {
	var taken []*pgx.Conn
	defer func() {
		for _, c := range taken {
			_ = c.Close(w.ctx)
		}
	}()
	refused := logged(w.database.LogPath(), "too many clients already")
	for ctx.Err() == nil {
		c, err := pgx.Connect(ctx, w.database.DSN()+"&application_name=hog")
		var refusal *pgconn.PgError
		switch {
		case err == nil:
			taken = append(taken, c)
		case errors.As(err, &refusal) && refusal.Code == tooMany && len(taken) > 0:
			// What the processors have is taken from them, and given to whoever is first.
			_, _ = taken[0].Exec(ctx, terminateSQL+" AND application_name <> 'hog'")
		case ctx.Err() == nil:
			return "", fmt.Errorf("take all connections: %w", err)
		}
	}
	return proofOf(int64(logged(w.database.LogPath(), "too many clients already")-refused), "connections refused"), nil
}

// logged counts how often a text stands in a log.
func logged(path, text string) int {
	all, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	return strings.Count(string(all), text)
}

// fillDisk leaves no byte to the database's disk; where the test may not mount one of its own, the
// database is made read-only instead, which is what an administrator does on a full disk.
func fillDisk(ctx context.Context, w *tempest) (string, error) {
	if w.disk == "" {
		return readOnly(ctx, w)
	}
	refused := logged(w.database.LogPath(), "No space left on device")
	ballast := w.disk + "/ballast"
	file, err := os.Create(ballast)
	if err != nil {
		return "", fmt.Errorf("fill the disk: %w", err)
	}
	block := make([]byte, 1<<20)
	for {
		if _, err = file.Write(block); err != nil {
			break // it is full
		}
	}
	// What the database frees meanwhile is taken as well.
	for ctx.Err() == nil {
		_, _ = file.Write(block[:4096])
		waitOr(ctx.Done(), time.Second/10)
	}
	if err := errors.Join(file.Close(), os.Remove(ballast)); err != nil {
		return "", fmt.Errorf("empty the disk: %w", err)
	}
	hits := logged(w.database.LogPath(), "No space left on device") - refused
	// A server that could not write its log of changes has ended.
	if err := w.database.Start(w.ctx); err != nil {
		return "", err
	}
	return proofOf(int64(hits), "writes refused by a full disk"), nil
}

func readOnly(ctx context.Context, w *tempest) (string, error) {
	set := func(value string) error {
		return w.inDatabase(w.ctx, func(c *pgx.Conn) error {
			for _, sql := range []string{"SET default_transaction_read_only = off", "ALTER SYSTEM SET default_transaction_read_only = " + value, "SELECT pg_reload_conf()"} {
				if _, err := c.Exec(w.ctx, sql); err != nil {
					return fmt.Errorf("make the database read-only: %w", err)
				}
			}
			return nil
		})
	}
	refused := logged(w.database.LogPath(), "read-only transaction")
	if err := set("on"); err != nil {
		return "", err
	}
	<-ctx.Done()
	hits := logged(w.database.LogPath(), "read-only transaction") - refused
	return proofOf(int64(hits), "writes refused by a read-only database, in place of a full disk"), set("off")
}
