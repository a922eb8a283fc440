//go:build integration

package ledger_test

import (
	"fmt"
	"io/fs"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"pawl/internal/outbox/ledger"
	"pawl/internal/postgres"
	"pawl/internal/testkit"
)

// expansion is what a later release may do to the schema: add, and nothing that a release before it would have
// to know. What is removed or made strict goes one release later.
const expansion = `-- +goose Up
ALTER TABLE @schema.segment ADD COLUMN tenant text, ADD COLUMN priority int NOT NULL DEFAULT 0;
ALTER TABLE @schema.kept ADD COLUMN tenant text, ADD COLUMN priority int NOT NULL DEFAULT 0;
ALTER TABLE @schema.flush ADD COLUMN took interval;
ALTER TABLE @schema.ingest ADD COLUMN writer text;
ALTER TABLE @schema.lane ADD COLUMN zone text;
ALTER TABLE @schema.progress ADD COLUMN note text;
ALTER TABLE @schema.parked ADD COLUMN hint text;
ALTER TABLE @schema.sending ADD COLUMN host text;
ALTER TABLE @schema.dead ADD COLUMN seen boolean NOT NULL DEFAULT false;
ALTER TABLE @schema.business_key ADD COLUMN tenant text;
ALTER TABLE @schema.operator_order ADD COLUMN ticket text;
CREATE TABLE @schema.tenant (name text PRIMARY KEY, rate int);
`

// successor gives the migrations of a release after this one.
func successor(t *testing.T, schema string) postgres.Migrations {
	t.Helper()
	m := ledger.Migrations(schema)
	names, err := fs.Glob(m.Files, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{"99999_next_release.sql": {Data: []byte(expansion)}}
	for _, name := range names {
		text, err := fs.ReadFile(m.Files, name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: text}
	}
	m.Files = files
	return m
}

func upgrade(t *testing.T, pool *pgxpool.Pool, schema string) {
	t.Helper()
	applied, err := postgres.Migrate(t.Context(), pool, successor(t, schema))
	if err != nil || len(applied) == 0 {
		t.Fatalf("applied %v, %v", applied, err)
	}
}

// The next release migrates first, and processes of this one go on meanwhile and may be rolled back to.
func TestTheContractIsKeptOnTheSchemaOfTheNextRelease(t *testing.T) {
	t.Parallel()
	exercise(t, openPool(t, testkit.Postgres(t)), upgrade)
}

// A process that is at work does not notice: what it remembers stays true, and the generations that it makes have the new columns.
func TestAProcessWorksOnWhileTheNextReleaseMigrates(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := open(t, ledger.Config{})
	b.filled(lane, 400)
	tenure := b.acquire(lane)
	b.must(b.Flush(ctx, doneRange(tenure, 1, 0, 100)))
	upgrade(t, b.pool, "pawl")

	b.must(b.Append(ctx, batchOf(lane, 400, 800)))
	b.must(b.Append(ctx, batchOf(lane, 800, 810)))
	b.must(b.Flush(ctx, doneRange(tenure, 2, 100, 500)))
	before := b.number("SELECT max(gen) FROM pawl.gen")
	b.must(b.Maintain(ctx, time.Now().Add(3*24*time.Hour)))
	newest := b.number("SELECT max(gen) FROM pawl.gen")
	if newest <= before {
		t.Errorf("the newest generation is %d, and was %d", newest, before)
	}
	b.is(2, "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'pawl' AND table_name = $1 AND column_name IN ('tenant', 'priority')",
		fmt.Sprint("segment_g", newest))
	if results, err := b.Results(ctx, lane, 0, 10); err != nil || len(results) != 500 {
		t.Errorf("%d results, %v", len(results), err)
	}
	intents, _, err := b.Page(ctx, lane, 0, 1000)
	if err != nil || len(intents) != 810 {
		t.Errorf("%d intents, %v", len(intents), err)
	}
}

// `migrate` of this release leaves the newer schema alone, and so does `run --migrate`.
func TestASchemaThatIsAheadIsLeftAlone(t *testing.T) {
	t.Parallel()
	pool := openPool(t, testkit.Postgres(t))
	upgrade(t, pool, "pawl")
	m := ledger.Migrations("")
	if applied, err := postgres.Migrate(t.Context(), pool, m); err != nil || len(applied) != 0 {
		t.Errorf("applied %v, %v", applied, err)
	}
	if version, err := postgres.Status(t.Context(), pool, m); err != nil || version.Behind() || version.Current <= version.Wanted {
		t.Errorf("%+v, %v", version, err)
	}
}
