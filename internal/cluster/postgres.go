package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	postgresUser         = "pawl"
	postgresReadyTimeout = 60 * time.Second
	postgresStopTimeout  = 30 * time.Second
	postgresReadyRetry   = 25 * time.Millisecond
	// The server is started again when it ends at once, after a pause and so many times in all: after
	// a crash it refuses to start while a process of its predecessor still holds the shared memory.
	postgresStarts  = 10
	postgresRestart = 200 * time.Millisecond
)

// PostgresConfig says what server to open. The zero value suits tests.
type PostgresConfig struct {
	Dir      string            // data; kept by Close. Empty: a temporary folder that Close removes
	Cache    string            // where fetched binaries are kept; empty: pawl in the user's cache folder
	Binaries string            // folder of initdb and postgres; empty: PAWL_POSTGRES_BIN, installed ones, fetched ones
	Settings map[string]string // of postgresql.conf
	TLS      *TLS              // the server's certificate and key, offered beside plain connections; nil: no TLS
	Durable  bool              // wait for the disk; without it data survives Kill, but not the loss of the machine
	Progress func(string)      // told about slow steps; may be nil
}

// Postgres is a running server with a superuser and its database "postgres". The methods may be
// called from several goroutines.
type Postgres struct {
	config   PostgresConfig
	binaries string
	spawner  *spawner
	folder   *folder
	port     port
	password string
	account  *syscall.Credential // who runs the server; nil: the caller

	mu      sync.Mutex
	process *process // nil before the first start

	closeOnce sync.Once
	closeErr  error
}

// OpenPostgres finds or fetches the binaries, makes a database cluster, starts it and waits until it
// takes connections. The server refuses to run as root, so root runs it as the user postgres or
// nobody. ctx bounds the opening only: the server lives until Close.
func OpenPostgres(ctx context.Context, config PostgresConfig) (*Postgres, error) {
	return openPostgres(ctx, config, (*Postgres).format)
}

// openPostgres opens a server whose data folder fill makes.
func openPostgres(ctx context.Context, config PostgresConfig, fill func(*Postgres, context.Context) error) (_ *Postgres, err error) {
	if config.Progress == nil {
		config.Progress = func(string) {}
	}
	binaries, err := findPostgres(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open Postgres: %w", err)
	}
	account, err := serverAccount()
	if err != nil {
		return nil, fmt.Errorf("open Postgres: %w", err)
	}
	folder, err := openFolder(config.Dir, "postgres")
	if err != nil {
		return nil, fmt.Errorf("open Postgres: %w", err)
	}
	p := &Postgres{config: config, binaries: binaries, spawner: openSpawner(), folder: folder, password: rand.Text(), account: account}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open Postgres: %w", err), p.Close())
		}
	}()
	if p.port, err = openPort(ctx); err != nil {
		return nil, err
	}
	if err := fill(p, ctx); err != nil {
		return nil, err
	}
	config.Progress("starting Postgres from " + binaries)
	if err := p.Start(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Postgres) dataPath() string     { return filepath.Join(p.folder.path, "data") }
func (p *Postgres) passwordPath() string { return filepath.Join(p.folder.path, "password") }

// LogPath returns where the server writes its log, over restarts, until Close.
func (p *Postgres) LogPath() string { return filepath.Join(p.folder.path, "log") }

// DSN returns the connection string of the superuser and the database "postgres".
func (p *Postgres) DSN() string {
	dsn := url.URL{
		Scheme: "postgres", User: url.UserPassword(postgresUser, p.password), Host: p.port.address(),
		Path: "postgres", RawQuery: "sslmode=disable",
	}
	return dsn.String()
}

// format makes the database cluster unless the folder holds one from an earlier use.
func (p *Postgres) format(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(p.dataPath(), "PG_VERSION")); err == nil {
		password, err := os.ReadFile(p.passwordPath())
		if err != nil {
			return fmt.Errorf("read password of the earlier use: %w", err)
		}
		p.password = string(password)
		return nil
	}
	if err := os.WriteFile(p.passwordPath(), []byte(p.password), 0o600); err != nil {
		return fmt.Errorf("write password: %w", err)
	}
	if err := os.Mkdir(p.dataPath(), 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	if err := p.handOver(p.folder.path, p.dataPath(), p.passwordPath()); err != nil {
		return err
	}
	cmd := p.command(ctx, "initdb", "--pgdata", p.dataPath(), "--username", postgresUser, "--pwfile", p.passwordPath(),
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make database cluster: %w\n%s", err, out)
	}
	if p.config.TLS != nil {
		return p.writeTLS(*p.config.TLS)
	}
	return nil
}

// The names that Postgres looks for in its data folder by default.
const (
	postgresCertificate = "server.crt"
	postgresKey         = "server.key"
)

func (p *Postgres) writeTLS(tls TLS) error {
	for name, text := range map[string]string{postgresCertificate: tls.Certificate, postgresKey: tls.Key} {
		path := filepath.Join(p.dataPath(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("write certificate: %w", err)
		}
		if err := p.handOver(path); err != nil {
			return err
		}
	}
	return nil
}

// ReplaceTLS gives a server that was opened with TLS another certificate, which it shows to new connections soon after.
func (p *Postgres) ReplaceTLS(tls TLS) error {
	if err := p.writeTLS(tls); err != nil {
		return err
	}
	return p.with(func(server *process) error { return server.signal(syscall.SIGHUP) })
}

// handOver gives files to the server's account, and makes the binaries reachable for it.
func (p *Postgres) handOver(paths ...string) error {
	if p.account == nil {
		return nil
	}
	for _, path := range paths {
		if err := os.Chown(path, int(p.account.Uid), int(p.account.Gid)); err != nil {
			return fmt.Errorf("hand data to the server's account: %w", err)
		}
	}
	return p.handOverBinaries()
}

// handOverBinaries copies binaries that only this user can reach to where the server's account can.
func (p *Postgres) handOverBinaries() error {
	if reachable(p.binaries) {
		return nil
	}
	own := filepath.Join(p.folder.path, "server")
	if err := os.CopyFS(own, os.DirFS(filepath.Dir(p.binaries))); err != nil {
		return fmt.Errorf("copy Postgres binaries for the server's account: %w", err)
	}
	p.binaries = filepath.Join(own, filepath.Base(p.binaries))
	return nil
}

// command prepares one of the server's programs to run as the server's account.
func (p *Postgres) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.binaries, name), args...) //nolint:gosec // Postgres, arguments of ours
	cmd.Dir = p.dataPath()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.account}
	dieWithParent(cmd)
	return cmd
}

// Start starts the server unless it runs, recovering from a crash if there was one, and waits until
// it takes connections.
func (p *Postgres) Start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, postgresReadyTimeout)
	defer cancel()
	var err error
	for range postgresStarts {
		if p.process == nil || !p.process.alive() {
			if err := p.launch(ctx); err != nil {
				return err
			}
		}
		if err = p.waitReady(ctx); err == nil {
			return nil
		}
		if !pause(ctx, postgresRestart) {
			break
		}
	}
	return fmt.Errorf("postgres is not ready (%w), log %s:%s", err, p.LogPath(), tail(p.LogPath()))
}

// pause waits; it returns false when ctx ends first.
func pause(ctx context.Context, duration time.Duration) bool {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (p *Postgres) launch(ctx context.Context) (err error) {
	log, err := os.OpenFile(p.LogPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }() // the child has its own
	settings := map[string]string{
		"listen_addresses":        loopback,
		"port":                    strconv.Itoa(p.port.number),
		"unix_socket_directories": "",
		"max_connections":         "200",
	}
	if !p.config.Durable {
		settings["fsync"] = "off"
		settings["full_page_writes"] = "off"
	}
	if p.config.TLS != nil {
		settings["ssl"] = "on"
	}
	maps.Copy(settings, p.config.Settings)
	args := []string{"-D", p.dataPath()}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	cmd := p.command(context.WithoutCancel(ctx), "postgres", args...) // outlives ctx: Close ends it
	cmd.Stdout, cmd.Stderr = log, log
	p.process, err = p.spawner.start(cmd)
	return err
}

// waitReady returns nil when the server takes connections, an error when it ended or ctx did.
func (p *Postgres) waitReady(ctx context.Context) error {
	ticker := time.NewTicker(postgresReadyRetry)
	defer ticker.Stop()
	for {
		connection, err := pgx.Connect(ctx, p.DSN())
		if err == nil {
			return connection.Close(ctx)
		}
		select {
		case <-p.process.gone:
			return fmt.Errorf("the server ended: %w", p.process.err)
		case <-ctx.Done():
			return err
		case <-ticker.C:
		}
	}
}

// Kill ends the server and the processes of all its connections at once, as the loss of the machine
// would, save that what was written is not lost with the page cache. A server that does not run is
// fine.
func (p *Postgres) Kill() error {
	return p.with(func(server *process) error {
		return errors.Join(p.signalAll(syscall.SIGKILL), server.kill())
	})
}

// Stop shuts the server down in good order; open connections are cut, their transactions rolled back.
func (p *Postgres) Stop() error {
	return p.with(func(server *process) error {
		return server.stop(syscall.SIGINT, postgresStopTimeout)
	})
}

// Pause freezes the server and the processes of all its connections (SIGSTOP).
func (p *Postgres) Pause() error {
	return p.with(func(*process) error { return p.signalAll(syscall.SIGSTOP) })
}

// Resume lets a paused server go on.
func (p *Postgres) Resume() error {
	return p.with(func(*process) error { return p.signalAll(syscall.SIGCONT) })
}

// signalAll signals the server and then its children. The server comes first: once stopped or dead
// it makes no more of them.
func (p *Postgres) signalAll(sig syscall.Signal) error {
	if !p.process.alive() {
		return nil
	}
	// Read before the signal: children of a dead process no longer name it as their parent.
	before, err := childProcesses(p.process.pid())
	if err != nil {
		return err
	}
	if err := p.process.signal(sig); err != nil && !errors.Is(err, errNotRunning) {
		return err
	}
	after, err := childProcesses(p.process.pid())
	if err != nil {
		return err
	}
	for _, pid := range append(before, after...) {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("send %v to process %d of Postgres: %w", sig, pid, err)
		}
	}
	return nil
}

// with does something to the server, which must have been started at least once.
func (p *Postgres) with(do func(*process) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil {
		return fmt.Errorf("postgres: %w", errNotRunning)
	}
	if err := do(p.process); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	return nil
}

// Close kills the server, gives its port back and removes the temporary folder. It may be called
// more than once.
func (p *Postgres) Close() error {
	p.closeOnce.Do(func() {
		var errs []error
		if p.process != nil {
			stop := p.Kill
			if !p.folder.temporary {
				stop = p.Stop // the data is kept
			}
			errs = append(errs, stop())
		}
		if p.port.lock != nil {
			errs = append(errs, p.port.close())
		}
		p.spawner.close()
		errs = append(errs, p.folder.close())
		if err := errors.Join(errs...); err != nil {
			p.closeErr = fmt.Errorf("close Postgres: %w", err)
		}
	})
	return p.closeErr
}
