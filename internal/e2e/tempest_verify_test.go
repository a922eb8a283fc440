//go:build chaos && linux

package e2e

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"

	"pawl/internal/handlers"
	"pawl/internal/verify"
)

// verifyMemory is what the checker keeps before it goes to files.
const verifyMemory = 256 << 20

// plan says what the application of a tempest does, for the checker.
func (w *tempest) plan() (verify.Plan, error) {
	plan := verify.Plan{
		Application: w.application, Drained: true, Journal: true, Overlaps: true, Memory: verifyMemory, Dir: w.folder,
		Outputs: map[string]string{"copied": w.output, "priced": w.application + ".priced", "ledger": w.application + ".ledger"},
		Effects: w.application + ".effects", DeadLetters: w.deadLetter, Results: w.application + ".effect-results",
		Least: verify.Least{Inputs: 1, Committed: 1, Aborted: 1, Effects: 1, Calls: 1, Results: 1},
	}
	for _, route := range []struct {
		topic, handler string
		config         map[string]any
	}{
		{w.input, "copy", map[string]any{"output": "copied"}},
		{w.application + ".orders", "orders", nil},
		{plan.Results, "order-results", map[string]any{"void": "refunds"}},
	} {
		handler, err := handlers.New(route.handler, handlers.Settings{
			Config: route.config, Outputs: []string{"copied", "priced", "ledger"}, Endpoints: []string{"payments", "refunds"},
		})
		if err != nil {
			return plan, err
		}
		plan.Inputs = append(plan.Inputs, verify.Input{Topic: route.topic, Handler: handler})
	}
	return plan, nil
}

// verify gives everything to the exactly-once checker: what the topics hold, aborted or not, what the ledger
// has written down, and the calls of the endpoint.
func (w *tempest) verify(ctx context.Context, o *outcome) error {
	plan, err := w.plan()
	if err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, w.database.DSN())
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer pool.Close()
	system, err := verify.NewSystem(ctx, w.client, verify.NewLedger(pool, "pawl"), w.application, plan)
	if err != nil {
		return err
	}
	system.Journal = w.readJournal
	report, _, _, err := system.Pass(ctx, verify.Window{})
	if err != nil {
		return err
	}
	o.saw = report.Saw
	for _, finding := range report.Findings {
		o.accuse(string(finding.Verdict), "%d such, at %s: %s", report.Counts[finding.Verdict], finding.At, finding.Story)
	}
	return nil
}

// readJournal feeds the calls that the till wrote down. What it could not know then is known now: connections
// were cut while the answer was on its way.
func (w *tempest) readJournal(feed func(*verify.Call) error) error {
	file, err := os.Open(w.till.journal.Name())
	if err != nil {
		return err
	}
	defer file.Close()
	return verify.ReadJournal(file, func(call *verify.Call) error {
		call.Lost = call.Lost || w.till.cutSoon(call.At)
		return feed(call)
	})
}
