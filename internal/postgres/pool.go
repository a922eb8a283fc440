// Package postgres connects to Postgres and brings a schema up to date.
package postgres

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Config says where to connect and with how much.
type Config struct {
	DSN            string        // URL or key=value list; it may hold a password and is never shown
	ConnsMax       int32         // 0: the greater of 4 and the number of cores
	ConnectTimeout time.Duration // 0: 5 s

	// Credentials gives the connection string anew before each connection, of which user and password are taken: they
	// may have been replaced. An error leaves those of DSN. Nil: DSN has them for good.
	Credentials func() (dsn string, err error)
}

const (
	connectTimeout = 5 * time.Second
	pingTimeout    = 5 * time.Second
	connLifetime   = time.Hour
	cancelDelay    = 0
	deadlineDelay  = 2 * time.Second // of a connection whose server does not answer a cancel request
)

var errDSN = errors.New("parse the connection string: it is no URL and no key=value list that Postgres knows; it is not shown because it may hold a password")

// CheckDSN tells whether a connection string can be read. It asks nobody, and files that the string names
// need not be there. The error does not quote it.
func CheckDSN(dsn string) error {
	_, err := pgxpool.ParseConfig(dsn)
	if _, missing := errors.AsType[*fs.PathError](err); err == nil || missing {
		return nil
	}
	return errDSN // the cause quotes parts of the string
}

// Open makes a pool. It does not connect: a server that is away is met by the first call, and by each
// again until it is back. Close the pool when done.
//
// Connections keep no state between transactions and prepare no named statements, so that a pooler
// may hand them around: parameter types are asked for once and remembered by the client, and plans
// are always made for the values at hand. When a context ends, the server is asked to give up the
// statement, and the connection survives.
//
// Waiting for a connection ends with the caller's context and not before: give each call a deadline.
func Open(ctx context.Context, config Config) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(config.DSN)
	if err != nil {
		return nil, errDSN // the cause quotes parts of the string
	}
	if config.ConnsMax > 0 {
		c.MaxConns = config.ConnsMax
	}
	c.ConnConfig.ConnectTimeout = connectTimeout
	if config.ConnectTimeout > 0 {
		c.ConnConfig.ConnectTimeout = config.ConnectTimeout
	}
	c.MaxConnLifetime, c.MaxConnLifetimeJitter, c.PingTimeout = connLifetime, connLifetime/10, pingTimeout
	if config.Credentials != nil {
		c.BeforeConnect = func(_ context.Context, connecting *pgx.ConnConfig) error {
			dsn, err := config.Credentials()
			if err != nil {
				return nil //nolint:nilerr // half-written or gone for a moment: what was right a moment ago is the better guess
			}
			if fresh, err := pgx.ParseConfig(dsn); err == nil {
				connecting.User, connecting.Password = fresh.User, fresh.Password
			}
			return nil
		}
	}
	c.AfterConnect = func(_ context.Context, connected *pgx.Conn) error {
		registerByteArrays(connected.TypeMap())
		return nil
	}
	c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	c.ConnConfig.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, CancelRequestDelay: cancelDelay, DeadlineDelay: deadlineDelay}
	}
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, errors.New("open pool: the settings in the connection string are refused") // as above
	}
	return pool, nil
}
