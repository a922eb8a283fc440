//go:build integration

package cluster

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// testPostgres opens a server and closes it at the end of the test.
func testPostgres(t *testing.T, config PostgresConfig) *Postgres {
	t.Helper()
	config.Progress = func(step string) { t.Log(step) }
	begin := time.Now()
	p, err := OpenPostgres(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("opened in %v", time.Since(begin))
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func connect(t *testing.T, p *Postgres) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), p.DSN())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.WithoutCancel(t.Context())) })
	return c
}

// Kill in the middle of a transaction, with the connection's process frozen before: what was
// committed is there after Start, what was open is not, and the address is the same.
func TestPostgresKeepsCommitsOverKill(t *testing.T) {
	t.Parallel()
	p := testPostgres(t, PostgresConfig{})
	c := connect(t, p)
	for _, sql := range []string{
		"create table kept (n int)", "insert into kept values (1)", "begin", "insert into kept values (2)",
	} {
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("started after kill in %v", time.Since(begin))
	var sum int
	if err := connect(t, p).QueryRow(t.Context(), "select sum(n) from kept").Scan(&sum); err != nil {
		t.Fatal(err)
	}
	if sum != 1 {
		t.Errorf("sum is %d after Kill, want 1", sum)
	}
}

// A paused server answers nobody, not even on connections that it has; Resume heals that.
func TestPostgresPauseFreezesConnections(t *testing.T) {
	t.Parallel()
	p := testPostgres(t, PostgresConfig{})
	c := connect(t, p)
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), "select 1")
		answer <- err
	}()
	select {
	case err := <-answer:
		t.Errorf("a paused server answered: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err != nil {
		t.Error(err)
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	connect(t, p)
}

// A standby has what its primary had committed, and after the loss of the primary it takes writes, under
// the users of the primary.
func TestPostgresStandbyTakesOver(t *testing.T) {
	t.Parallel()
	primary := testPostgres(t, PostgresConfig{})
	if _, err := connect(t, primary).Exec(t.Context(), "create table kept (n int); insert into kept values (1)"); err != nil {
		t.Fatal(err)
	}
	standby, err := primary.OpenStandby(t.Context(), PostgresConfig{Progress: func(step string) { t.Log(step) }}, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := primary.Synchronize(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t, primary).Exec(t.Context(), "insert into kept values (2)"); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t, standby).Exec(t.Context(), "insert into kept values (4)"); err == nil {
		t.Error("a standby took a write")
	}
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	promoted := connect(t, standby)
	if _, err := promoted.Exec(t.Context(), "insert into kept values (8)"); err != nil {
		t.Fatal(err)
	}
	var sum int
	if err := promoted.QueryRow(t.Context(), "select sum(n) from kept").Scan(&sum); err != nil {
		t.Fatal(err)
	}
	if sum != 11 {
		t.Errorf("sum is %d after the takeover, want 11", sum)
	}
}
