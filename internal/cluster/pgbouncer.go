package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const pgBouncerStopTimeout = 10 * time.Second

// errNoPgBouncer says what to do about a missing program.
var errNoPgBouncer = errors.New("no pgbouncer found (PATH, /usr/sbin): run `make setup`, or install the package pgbouncer")

// PgBouncerAvailable tells whether OpenPgBouncer has what it needs: nil, or an error that says what to do.
func PgBouncerAvailable() error {
	_, err := findPgBouncer()
	return err
}

// findPgBouncer also looks where distributions put it, which is not on everybody's path.
func findPgBouncer() (string, error) {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errNoPgBouncer
}

// PgBouncer is a running pooler in transaction mode in front of a Postgres server: each transaction of a
// client goes to the server's connection that has been idle for longest, and few of those are there.
type PgBouncer struct {
	server  *url.URL
	spawner *spawner
	folder  *folder
	port    port
	process *process
}

// OpenPgBouncer starts a pooler in front of the server of a connection URL, whose user and password it
// logs in with, and waits until a connection to that database comes through. ctx bounds the opening only: it
// lives until Close.
func OpenPgBouncer(ctx context.Context, dsn string) (_ *PgBouncer, err error) {
	program, err := findPgBouncer()
	if err != nil {
		return nil, fmt.Errorf("open pgbouncer: %w", err)
	}
	server, err := url.Parse(dsn)
	if err != nil || server.Hostname() == "" {
		return nil, errors.New("open pgbouncer: want a connection URL with a host")
	}
	account, err := serverAccount() // it refuses to run as root too
	if err != nil {
		return nil, fmt.Errorf("open pgbouncer: %w", err)
	}
	folder, err := openFolder("", "pgbouncer")
	if err != nil {
		return nil, fmt.Errorf("open pgbouncer: %w", err)
	}
	b := &PgBouncer{server: server, spawner: openSpawner(), folder: folder}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open pgbouncer: %w", err), b.Close())
		}
	}()
	if b.port, err = openPort(ctx); err != nil {
		return nil, err
	}
	if err := b.configure(account); err != nil {
		return nil, err
	}
	return b, b.start(ctx, program, account)
}

func (b *PgBouncer) configPath() string { return filepath.Join(b.folder.path, "pgbouncer.ini") }
func (b *PgBouncer) logPath() string    { return filepath.Join(b.folder.path, "log") }

// DSN returns the connection string of the same database through the pooler.
func (b *PgBouncer) DSN() string {
	dsn := *b.server
	dsn.Host = b.port.address()
	query := dsn.Query()
	query.Set("sslmode", "disable")
	dsn.RawQuery = query.Encode()
	return dsn.String()
}

// configure writes the settings, which hold the password.
func (b *PgBouncer) configure(account *syscall.Credential) error {
	quote := func(value string) string { return "'" + strings.ReplaceAll(value, "'", "''") + "'" }
	password, _ := b.server.User.Password()
	serverPort := b.server.Port()
	if serverPort == "" {
		serverPort = "5432"
	}
	text := fmt.Sprintf(`[databases]
* = host=%s port=%s user=%s password=%s
[pgbouncer]
listen_addr = %s
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
max_client_conn = 200
server_round_robin = 1
`, quote(b.server.Hostname()), serverPort, quote(b.server.User.Username()), quote(password), loopback, b.port.number)
	if err := os.WriteFile(b.configPath(), []byte(text), 0o600); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	if account == nil {
		return nil
	}
	for _, path := range []string{b.folder.path, b.configPath()} {
		if err := os.Chown(path, int(account.Uid), int(account.Gid)); err != nil {
			return fmt.Errorf("hand settings to the pooler's account: %w", err)
		}
	}
	return nil
}

func (b *PgBouncer) start(ctx context.Context, program string, account *syscall.Credential) (err error) {
	log, err := os.OpenFile(b.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()                                // the child has its own
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, "-q", b.configPath()) //nolint:gosec // pgbouncer, arguments of ours
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.folder.path, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account}
	if b.process, err = b.spawner.start(cmd); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, postgresReadyTimeout)
	defer cancel()
	for {
		connection, err := pgx.Connect(ctx, b.DSN())
		if err == nil {
			return connection.Close(ctx)
		}
		if !b.process.alive() || !pause(ctx, postgresReadyRetry) {
			return fmt.Errorf("pgbouncer is not ready (%w), log:%s", err, tail(b.logPath()))
		}
	}
}

// Close ends the pooler, gives its port back and removes its folder.
func (b *PgBouncer) Close() error {
	var errs []error
	if b.process != nil {
		errs = append(errs, b.process.stop(syscall.SIGTERM, pgBouncerStopTimeout))
	}
	if b.port.lock != nil {
		errs = append(errs, b.port.close())
	}
	b.spawner.close()
	if err := errors.Join(append(errs, b.folder.close())...); err != nil {
		return fmt.Errorf("close pgbouncer: %w", err)
	}
	return nil
}
