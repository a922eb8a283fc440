//go:build integration

package app

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"pawl/internal/faults"
	"pawl/internal/outbox/ledger"
	"pawl/internal/postgres"
	"pawl/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// A schema that is behind keeps the service unready and says what to run; once that is done the service
// gets ready by itself.
func TestSchemaThatIsBehindKeepsTheServiceUnready(t *testing.T) {
	t.Parallel()
	dsn := testkit.Postgres(t)
	r := runWith(t, withLedger(dsn), Options{}, nothing)
	r.line("starting")
	line := r.line("the effect ledger can't be used yet, effects wait on their topic")
	faults.Shows(t, "schema-behind", line.Err)
	if answer := r.awaitProbe("/readyz?verbose", http.StatusServiceUnavailable); !strings.Contains(answer, "[-]ledger") {
		t.Errorf("unready for another reason: %s", answer)
	}
	r.look("what to do about it", func(v View) bool {
		return v.Effects.Away != nil && strings.Contains(v.Effects.Away.Next, "`processor migrate up`")
	})
	pool, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := postgres.Migrate(t.Context(), pool, ledger.Migrations(r.conf.Postgres.Schema)); err != nil {
		t.Fatal(err)
	}
	r.awaitProbe("/readyz?verbose", http.StatusOK)
	r.look("the ledger", func(v View) bool { return v.Effects.LedgerUp && v.Effects.Away == nil })
	r.end()
}

// In a small set-up the service does that itself.
func TestServiceMigratesIfToldTo(t *testing.T) {
	t.Parallel()
	r := runWith(t, withLedger(testkit.Postgres(t)), Options{Migrate: true}, nothing)
	r.line("starting")
	r.line("the ledger's schema is up to date")
	r.awaitProbe("/readyz?verbose", http.StatusOK)
	r.end()
}

// Who leaves for good leaves the group of the ledger's lanes too.
func TestDrainLeavesTheLedgersGroupIfToldTo(t *testing.T) {
	t.Parallel()
	r := runWith(t, withLedger(testkit.Postgres(t)), Options{Migrate: true}, nothing)
	r.line("starting")
	r.awaitProbe("/readyz?verbose", http.StatusOK)
	testkit.WaitFor(t, patience, "the lanes' group", func() bool { return r.members(r.conf.LedgerGroup()) == 1 })
	if code, answer := r.ask(http.MethodPost, "/api/v1/drain", `{"leave": true, "reason": "scale-down"}`); code != http.StatusAccepted {
		t.Fatalf("drain answers %d %s", code, answer)
	}
	r.line("drained, resting until the process is told to end")
	if got := r.members(r.conf.LedgerGroup()); got != 0 {
		t.Errorf("after the drain the lanes' group has %d members, want none", got)
	}
	r.end()
}
