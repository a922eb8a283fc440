//go:build integration

package ledger

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/postgres"
	"pawl/internal/testkit"
)

// planNode is what the test reads of a plan.
type planNode struct {
	Type     string     `json:"Node Type"`
	Relation string     `json:"Relation Name"`
	Index    string     `json:"Index Name"`
	Plans    []planNode `json:"Plans"`
}

// scans lists how the tables are read, such as "Index Scan effect_g1_pkey".
func (n planNode) scans() (found []string) {
	if n.Relation != "" && n.Type != "ModifyTable" {
		found = append(found, n.Type+" "+n.Index)
	}
	for _, child := range n.Plans {
		found = append(found, child.scans()...)
	}
	return found
}

func explain(t *testing.T, pool *pgxpool.Pool, sql string, arguments ...any) []string {
	t.Helper()
	var text []byte
	if err := pool.QueryRow(t.Context(), "EXPLAIN (FORMAT JSON) "+sql, arguments...).Scan(&text); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	var plans []struct{ Plan planNode }
	if err := json.Unmarshal(text, &plans); err != nil || len(plans) != 1 {
		t.Fatalf("%s: %v", text, err)
	}
	scans := plans[0].Plan.scans()
	slices.Sort(scans)
	return scans
}

// A plan that was right for an empty table, or for what the statistics remember, ruins a queue. So each
// hot statement must have one way only: by one index for each table that it touches, on an empty table, a filled one, and
// a filled one whose statistics say that it is empty. It runs with the settings of roles.sql.
func TestHotStatementsGoByOneIndex(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"empty", "filled", "filled since the statistics", "filled and analyzed"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			planned(t, state)
		})
	}
}

func planned(t *testing.T, state string) {
	t.Helper()
	ctx := t.Context()
	const lane, seq, size = int32(3), int64(30), 1000
	dsn, superuser := planPool(t, testkit.Postgres(t))
	if _, err := postgres.Migrate(ctx, superuser, Migrations("")); err != nil {
		t.Fatal(err)
	}
	l := Open(superuser, Config{})
	analyze := func() {
		if _, err := superuser.Exec(ctx, "ANALYZE"); err != nil {
			t.Fatal(err)
		}
	}
	if state == "filled since the statistics" {
		analyze()
	}
	if state != "empty" {
		for n := range int32(4) {
			fillForPlans(t, l, n, int(seq), size)
		}
	}
	if state == "filled and analyzed" {
		analyze()
	}
	_, pool := planPool(t, dsn+roleSettings)
	checkPlans(t, l, pool, lane, seq, seq*size)
}

// roleSettings is what of roles.sql bears on plans, as a part of a connection string.
var roleSettings = "&options=" + strings.ReplaceAll(url.QueryEscape("-c enable_seqscan=off -c enable_bitmapscan=off -c enable_hashjoin=off -c enable_mergejoin=off"), "+", "%20")

// checkPlans explains each hot statement for a lane that ends at next and has flushes up to seq.
func checkPlans(t *testing.T, l *Ledger, pool *pgxpool.Pool, lane int32, seq, next int64) {
	t.Helper()
	offsets := []int64{5, 700, 1400, 9000, 20000}
	batch := &outbox.Batch{Lane: lane, Base: next, Next: next + 1, Intents: []outbox.Intent{{Lane: lane, Offset: next, Class: message.AtLeastOnce}}}
	k := link{number: seq, generation: 1, marks: []byte{1, 0}}
	w := &writing{Flush: outbox.Flush{Tenure: outbox.Tenure{Lane: lane, Epoch: 1}, Seq: seq}, generation: 1}
	const segments, flush, chain, owner = "segment_g1_pkey", "flush_g1_pkey", "ingest_pkey", "lane_pkey"
	for _, s := range []struct {
		name, sql string
		arguments []any
		want      []string
	}{
		{"head", headSQL, []any{lane, wholeEvery}, []string{chain}},
		{"append", appendSQL, appendArguments([]addition{additionOf(batch, k)}), []string{chain}},
		{"page", pageSQL, []any{lane, int64(100), 1000}, []string{segments}},
		{"page head", pageHeadSQL, []any{lane}, []string{chain}},
		{"get", segmentsSQL, []any{lane, offsets}, []string{segments, segments}},
		{"get of a stretch", stretchSQL, []any{lane, int64(100), int64(1100)}, []string{segments, segments}},
		{"get of kept", keptSQL, []any{lane, offsets}, []string{"kept_pkey"}},
		{"totals", totalsSQL, []any{lane, int64(100), 1000}, []string{segments}},
		{"whole segments", wholeSQL, []any{lane, offsets}, []string{segments}},
		{"flush", flushSQL, flushArguments([]*writing{w}), []string{flush, owner}},
		{"results", resultsSQL, []any{lane, int64(3), 100}, []string{flush}},
		{"unpark", unparkSQL, []any{lane, offsets}, []string{"parked_pkey"}},
		{"unsend", unsendSQL, []any{lane, offsets}, []string{"sending_pkey"}},
		{"holds", holdsSQL, []any{lane}, []string{"hold_pkey"}},
		{"end holds", endHoldSQL, []any{lane, offsets}, []string{"hold_pkey"}},
		{"orders", ordersSQL, []any{lane, 10}, []string{"operator_order_pkey"}},
	} {
		got := explain(t, pool, l.sql(s.sql, 1), s.arguments...)
		names := make([]string, 0, len(got))
		for _, scan := range got {
			kind, index, _ := strings.Cut(scan, "Scan ")
			if kind != "Index " && kind != "Index Only " {
				t.Errorf("%s: %s", s.name, scan)
			}
			names = append(names, index)
		}
		if !slices.Equal(names, s.want) {
			t.Errorf("%s goes by %v, want %v", s.name, got, s.want)
		}
	}
}

func planPool(t *testing.T, dsn string) (string, *pgxpool.Pool) {
	t.Helper()
	pool, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn, ConnsMax: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return dsn, pool
}

func fillForPlans(t *testing.T, l *Ledger, lane int32, batches, size int) {
	t.Helper()
	ctx := t.Context()
	if err := l.Seed(ctx, lane, [16]byte{}, 0); err != nil {
		t.Fatal(err)
	}
	tenure, err := l.Acquire(ctx, lane, "owner", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for i := range batches {
		b := &outbox.Batch{Lane: lane, Base: int64(i * size), Next: int64((i + 1) * size)}
		f := outbox.Flush{Tenure: tenure, Seq: int64(i + 1), Low: b.Next, Covered: outbox.Ranges{{From: b.Base, To: b.Next}}}
		for offset := b.Base; offset < b.Next; offset++ {
			b.Intents = append(b.Intents, outbox.Intent{Lane: lane, Offset: offset, Endpoint: "payments", Class: message.AtLeastOnce, Body: fmt.Appendf(nil, "%d", offset)})
			f.Settled = append(f.Settled, outbox.Outcome{Offset: offset, Status: outbox.Done, Attempts: 1, HTTPStatus: 200})
		}
		if err := l.Append(ctx, b); err != nil {
			t.Fatal(err)
		}
		if err := l.Flush(ctx, f); err != nil {
			t.Fatal(err)
		}
	}
}
