//go:build chaos && linux

package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"pawl/internal/testkit"
)

// vault is the database of a ledger, and what an administrator does with it.
type vault struct {
	t      *testing.T
	dsn    string
	name   string
	server string // another database of the same server
}

func newVault(t *testing.T, dsn string) *vault {
	t.Helper()
	v := &vault{t: t, dsn: dsn}
	at, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	v.name = strings.TrimPrefix(at.Path, "/")
	at.Path = "/postgres"
	v.server = at.String()
	t.Cleanup(func() { v.execute(v.server, "DROP DATABASE IF EXISTS "+v.copyName()+" WITH (FORCE)") })
	return v
}

func (v *vault) copyName() string { return v.name[:min(55, len(v.name))] + "_backup" }

func (v *vault) execute(dsn string, statements ...string) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(v.t.Context()), workTimeout)
	defer cancel()
	connection, err := pgx.Connect(ctx, dsn)
	if err != nil {
		v.t.Fatal(err)
	}
	defer func() { _ = connection.Close(ctx) }()
	for _, statement := range statements {
		if _, err := connection.Exec(ctx, statement); err != nil {
			v.t.Fatalf("%s: %v", statement, err)
		}
	}
}

// backUp copies the database as it is now, and makes the copy an hour old, so that no lease in it lasts. Postgres copies
// one that nobody is connected to, so that everybody is cut off for a moment. It gives what the copy knows to have ended.
func (v *vault) backUp() map[string]bool {
	v.t.Helper()
	v.execute(v.server,
		"ALTER DATABASE "+v.name+" ALLOW_CONNECTIONS false",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+v.name+"'",
		"CREATE DATABASE "+v.copyName()+" TEMPLATE "+v.name,
		"ALTER DATABASE "+v.name+" ALLOW_CONNECTIONS true")
	dsn := strings.Replace(v.dsn, "/"+v.name, "/"+v.copyName(), 1)
	v.execute(dsn,
		"UPDATE pawl.lane SET epoch = epoch - 3600000, lease_until = lease_until - interval '1 hour'")
	return v.settled(dsn)
}

// restore puts the copy in the place of the database.
func (v *vault) restore() {
	v.t.Helper()
	v.execute(v.server, "DROP DATABASE "+v.name+" WITH (FORCE)", "ALTER DATABASE "+v.copyName()+" RENAME TO "+v.name)
}

// lose leaves an empty database.
func (v *vault) lose() {
	v.t.Helper()
	v.execute(v.server, "DROP DATABASE "+v.name+" WITH (FORCE)", "CREATE DATABASE "+v.name)
}

// settled gives the effects of which a ledger knows how they ended, by lane:offset.
func (v *vault) settled(dsn string) map[string]bool {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), workTimeout)
	defer cancel()
	settled := map[string]bool{}
	connection, err := pgx.Connect(ctx, dsn)
	if err != nil {
		v.t.Fatal(err)
	}
	defer func() { _ = connection.Close(ctx) }()
	rows, err := connection.Query(ctx, `SELECT e.lane || ':' || e.off FROM pawl.effect e
		WHERE EXISTS (SELECT FROM pawl.flush f WHERE f.lane = e.lane AND f.done @> e.off)`)
	if err != nil {
		v.t.Fatal(err)
	}
	var at string
	if _, err := pgx.ForEachRow(rows, []any{&at}, func() error { settled[at] = true; return nil }); err != nil {
		v.t.Fatal(err)
	}
	return settled
}

// since gives the calls from the n-th on.
func (r *receiver) since(n int) []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls[n:])
}

// fences gives the highest one of the calls of each lane.
func fences(calls []received) map[string]int64 {
	highest := map[string]int64{}
	for _, call := range calls {
		highest[laneOf(call.order)] = max(highest[laneOf(call.order)], call.fence)
	}
	return highest
}

func laneOf(at string) string {
	lane, _, _ := strings.Cut(at, ":")
	return lane
}

// wantRepeats holds the calls since a ledger was lost against what was unknown to the new one: each of those is called,
// in the order of its key, under a higher fence than any before, and nothing else that there was.
func (s *siege) wantRepeats(t *testing.T, before int, effects map[string]effect, known, unknown map[string]bool) (repeats int) {
	t.Helper()
	s.receiver.check(t, effects, nil)
	calls := s.receiver.since(0)
	highest := fences(calls[:before])
	first := map[string]int{}
	lines := map[string][]string{}
	for i, call := range calls[before:] {
		switch {
		case known[call.order]:
			t.Errorf("effect %s was called again, and the ledger knew how it had ended", call.order)
		case unknown[call.order] && call.fence <= highest[laneOf(call.order)]:
			t.Errorf("effect %s was called again with fence %d, want one above %d", call.order, call.fence, highest[laneOf(call.order)])
		}
		if _, again := first[call.order]; call.accepted && !again {
			first[call.order] = i
		}
	}
	for at := range unknown {
		if _, called := first[at]; !called {
			t.Errorf("effect %s is unknown to the ledger and was not called again", at)
			continue
		}
		lines[effects[at].key] = append(lines[effects[at].key], at)
		repeats++
	}
	for key, line := range lines {
		slices.SortFunc(line, func(a, b string) int { return offsetOf(a) - offsetOf(b) })
		for i := 1; i < len(line); i++ {
			if first[line[i-1]] > first[line[i]] {
				t.Errorf("key %s: effect %s was called again before %s", key, line[i], line[i-1])
			}
		}
	}
	return repeats
}

// wantToldOnce fails the test if an effect has no result event, or two.
func wantToldOnce(t *testing.T, events []told, effects map[string]effect) {
	t.Helper()
	times := map[string]int{}
	for _, e := range events {
		times[e.at()]++
	}
	for at := range effects {
		if times[at] != 1 {
			t.Errorf("effect %s has %d result events, want 1", at, times[at])
		}
	}
	for at := range maps.Keys(times) {
		if _, known := effects[at]; !known {
			t.Errorf("a result was told of %s, which is no effect", at)
		}
	}
}

// A backup of the ledger is made while effects are on their way; later the database is restored from it, under
// a processor that has ended and under one that runs on. The ledger reads what it is missing from the topic, repeats
// only what the backup did not know, and nobody is told anything twice.
func TestRestoredLedgerRepeatsOnlyWhatTheBackupDidNotKnow(t *testing.T) {
	for _, running := range []bool{false, true} {
		t.Run(fmt.Sprintf("running is %t", running), func(t *testing.T) { restoreLedger(t, running) })
	}
}

func restoreLedger(t *testing.T, running bool) {
	t.Helper()
	const (
		early = 300
		late  = 300
		fresh = 100
	)
	s := newSiege(t)
	v := newVault(t, s.dsn)
	s.run(t, "migrate", "up", "--yes")
	s.processor.start(t)
	s.processor.awaitReady(t)
	s.feed(t, early, 0)
	testkit.WaitFor(t, startTimeout, "outcomes to back up", func() bool { return len(v.settled(v.dsn)) >= early/4 })
	known := v.backUp()
	s.feed(t, late, placeRate)
	told := s.awaitTold(t, early+late)

	if !running {
		s.processor.kill()
	}
	before := s.receiver.count()
	v.restore()
	unknown := map[string]bool{}
	for _, e := range told {
		if !known[e.at()] {
			unknown[e.at()] = true
		}
	}
	if len(known) == 0 || len(unknown) < late {
		t.Fatalf("the backup knows %d effects and lacks %d, want some and at least %d", len(known), len(unknown), late)
	}
	if !running {
		s.processor.start(t)
		s.processor.awaitReady(t)
	}
	s.feed(t, fresh, placeRate)
	testkit.WaitFor(t, workTimeout*2, "every effect settled in the restored ledger", func() bool {
		return len(v.settled(v.dsn)) == early+late+fresh
	})
	events := s.awaitTold(t, early+late+fresh)
	effects := s.readEffects(t)
	wantToldOnce(t, events, effects)
	repeats := s.wantRepeats(t, before, effects, known, unknown)
	s.checkLedger(t, effects)
	testkit.WaitFor(t, workTimeout, "the relay to pass over what was told", func() bool {
		return s.processor.metric("processor_outbox_results_skipped_total") >= float64(len(unknown))
	})
	if n := s.processor.metric("processor_outbox_relay_diverged_total"); n == 0 {
		t.Error("the relay did not notice that the ledger is another one")
	}
	t.Logf("the backup knew %d effects and lacked %d, of which %d were called again; %v results were not told twice",
		len(known), len(unknown), repeats, s.processor.metric("processor_outbox_results_skipped_total"))
}
