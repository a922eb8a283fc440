package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// clockTick is the unit of CPU times in /proc (USER_HZ, 100 on every Linux).
const clockTick = 10 * time.Millisecond

// gauge reads what a Postgres server of this machine and this process have used so far.
type gauge struct {
	connection *pgx.Conn
	server     int // process id of the postmaster
}

// reading is what had been used at a time. WAL is in bytes.
type reading struct {
	at     time.Time
	own    time.Duration
	server time.Duration
	wal    int64
}

// openGauge connects. The connection is plain SQL, for questions about tables without statistics: it
// takes an index wherever there is one.
func openGauge(ctx context.Context, dsn string) (*gauge, error) {
	connection, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	g := &gauge{connection: connection}
	backend := 0
	err = connection.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&backend)
	if err == nil {
		_, err = connection.Exec(ctx, "SET enable_seqscan = off")
	}
	if err == nil {
		g.server, _, err = processTimes(backend)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("find the Postgres server among the processes: %w", err), connection.Close(ctx))
	}
	return g, nil
}

func (g *gauge) close(ctx context.Context) error {
	if g == nil {
		return nil
	}
	return g.connection.Close(ctx)
}

// settle lets the server write back what it owes, so that each run begins alike.
func (g *gauge) settle(ctx context.Context) error {
	if g == nil {
		return nil
	}
	if _, err := g.connection.Exec(ctx, "CHECKPOINT"); err != nil {
		return fmt.Errorf("make a checkpoint: %w", err)
	}
	return nil
}

// read works without a server too: then only this process is read.
func (g *gauge) read(ctx context.Context) (reading, error) {
	r := reading{at: time.Now()}
	var err error
	if r.own, err = ownTime(); err != nil || g == nil {
		return r, err
	}
	if err := g.connection.QueryRow(ctx, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").Scan(&r.wal); err != nil {
		return r, fmt.Errorf("read position in the WAL: %w", err)
	}
	r.server, err = familyTime(g.server)
	return r, err
}

// ownTime is the CPU time of this process.
func ownTime() (time.Duration, error) {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0, fmt.Errorf("read own CPU time: %w", err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()), nil
}

// familyTime is the CPU time of a process, of its children, and of those that it has waited for.
func familyTime(parent int) (time.Duration, error) {
	_, sum, err := processTimes(parent)
	if err != nil {
		return 0, err
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, fmt.Errorf("list processes: %w", err)
	}
	for _, path := range stats {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		// One that has just ended is counted by its parent.
		if of, used, err := processTimes(pid); err == nil && of == parent {
			sum += used
		}
	}
	return sum, nil
}

// processTimes reads the parent of a process, and its CPU time with that of children it has waited for.
func processTimes(pid int) (parent int, used time.Duration, err error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat")) //nolint:gosec // of the kernel
	if err != nil {
		return 0, 0, fmt.Errorf("read times of a process: %w", err)
	}
	parent, used, err = parseStat(string(text))
	if err != nil {
		return 0, 0, fmt.Errorf("read times of process %d: %w", pid, err)
	}
	return parent, used, nil
}

// parseStat reads "pid (name) state parent ... utime stime cutime cstime ..." (proc_pid_stat(5)); the
// name may hold blanks and parentheses.
func parseStat(text string) (parent int, used time.Duration, err error) {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const parentField, firstTime, lastTime = 1, 11, 14
	if len(fields) <= lastTime {
		return 0, 0, fmt.Errorf("%d fields after the name, want more than %d", len(fields), lastTime)
	}
	if parent, err = strconv.Atoi(fields[parentField]); err != nil {
		return 0, 0, fmt.Errorf("parent: %w", err)
	}
	for _, field := range fields[firstTime : lastTime+1] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("time: %w", err)
		}
		used += time.Duration(ticks) * clockTick
	}
	return parent, used, nil
}
