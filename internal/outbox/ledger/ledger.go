// Package ledger keeps effects in Postgres: what was ingested, what became of it, who may dispatch it.
//
// Every lane has an append-only chain of positions, whose primary key decides between ingesters; its
// effects, packed into segments, in partitions by generation; and its flushes, which are the outcomes. On the way of success
// rows are only inserted, so that nothing decays under a long transaction. Small tables hold what
// fails: parked, sending, dead and kept. The schema, with a comment on each table, is in migrations;
// roles.sql has the rights that each role needs.
//
// Hot statements name the partition, not its parent, and are planned for their values each time: the
// planner then has one small choice, made on the real size of the table. So the ledger remembers which
// generations exist and where they begin in each lane. What it remembers is never trusted where a
// mistake could do harm: a position is compared in the statement that writes, an epoch likewise, and a
// row that is not found where it should be is looked for again with fresh knowledge.
package ledger

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"pawl/internal/postgres"
)

// Config says how a ledger works. A zero value means the default that stands with it.
type Config struct {
	Schema string // pawl

	Timeout time.Duration // of each call of the ledger, waiting for a connection included; 10 s

	// Upkeep, see Maintain.
	Generation   time.Duration // span of new generations; 24 h
	Retention    time.Duration // from the end of a generation until it is dropped; 14 days
	BusinessKeys time.Duration // how long a business key is known; 90 days
	Dead         time.Duration // how long dead, unknown and conflicting effects are kept, and what operators ordered; 90 days
	Hooks        Hooks
}

// Hooks tell what the upkeep does. They run on the goroutine of Maintain. Any may be nil.
type Hooks struct {
	Made    func(generation int)
	Dropped func(generation int)
	// Held is called for a generation that is due to be dropped and cannot be: some lane has effects in it that
	// are not settled, or outcomes that are not relayed.
	Held func(generation int, lane int32)
}

const (
	defaultSchema       = "pawl"
	defaultTimeout      = 10 * time.Second
	defaultGeneration   = 24 * time.Hour
	defaultRetention    = 14 * 24 * time.Hour
	defaultBusinessKeys = 90 * 24 * time.Hour
	defaultDead         = 90 * 24 * time.Hour
)

// appendsAtOnce is how many statements that append small batches are under way at once. Brokers show the partitions of a
// transaction one after the other, so that its effects come in two parts: the second need not wait for the first. Of
// flushes there is one, since nobody waits for them.
const appendsAtOnce = 2

// Ledger is the effect ledger of one application. Its methods may be called from many goroutines; for
// one lane there should be one ingester, one dispatcher and one relay at a time, and where there are
// more, nothing breaks but their patience.
//
// An error that is none of package outbox leaves the outcome of a change unknown: read again.
type Ledger struct {
	pool   *pgxpool.Pool
	config Config
	now    func() time.Time
	owner  string // of the upkeep

	appends    group[addition]
	flushGroup group[*writing]

	mu          sync.Mutex
	statements  map[statement]string
	generations generations
	chains      map[int32]chain
	spans       map[int32][]span
	tenures     map[int32]*held
	relayed     map[int32]position // the last flush of a lane that was read
}

// Open makes a ledger on a pool, which stays the caller's. It does not touch the database; the schema
// must have been migrated, see Migrations.
func Open(pool *pgxpool.Pool, config Config) *Ledger {
	config.Schema = orDefault(config.Schema, defaultSchema)
	config.Timeout = orDefault(config.Timeout, defaultTimeout)
	config.Generation = orDefault(config.Generation, defaultGeneration)
	config.Retention = orDefault(config.Retention, defaultRetention)
	config.BusinessKeys = orDefault(config.BusinessKeys, defaultBusinessKeys)
	config.Dead = orDefault(config.Dead, defaultDead)
	l := &Ledger{
		pool: pool, config: config, now: time.Now, owner: newOwner(),
		statements: map[statement]string{}, chains: map[int32]chain{}, spans: map[int32][]span{},
		tenures: map[int32]*held{}, relayed: map[int32]position{},
	}
	l.appends.run, l.appends.most = l.addTogether, appendsAtOnce
	l.flushGroup.run, l.flushGroup.most = l.flushTogether, 1
	return l
}

func orDefault[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

//go:embed migrations/*.sql
var migrations embed.FS

//go:embed roles.sql
var roles string

// Migrations are the versions of the ledger's schema.
func Migrations(schema string) postgres.Migrations {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the name is a constant
	}
	return postgres.Migrations{Files: files, Schema: orDefault(schema, defaultSchema)}
}

// Roles is the SQL that makes the roles pawl_owner and pawl_app, for an operator to read and run.
func Roles(schema string) string {
	return postgres.Qualify(orDefault(schema, defaultSchema), roles)
}

// statement is an SQL text for one generation; 0 where it names no partition.
type statement struct {
	text       string
	generation int
}

// generationMark stands in SQL texts for the number of a generation.
const generationMark = "@gen"

// sql puts schema and generation into a text. The result is the same string each time: it is what
// pgx remembers parameter types by.
func (l *Ledger) sql(text string, generation int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := statement{text, generation}
	sql, known := l.statements[key]
	if !known {
		sql = strings.ReplaceAll(postgres.Qualify(l.config.Schema, text), generationMark, strconv.Itoa(generation))
		if len(l.statements) > statementsMax {
			clear(l.statements) // of generations long gone
		}
		l.statements[key] = sql
	}
	return sql
}

// statementsMax is some dozens of texts for some dozens of generations.
const statementsMax = 2000

// bounded gives a call its deadline. A caller's context that ends earlier ends it too.
func (l *Ledger) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, l.config.Timeout)
}

// onTime turns success into an error where it came after the call's time was up. At that moment the server is asked to
// give the statement up, and where a commit waits for a synchronous standby, Postgres gives up that wait only, warns,
// and reports success: the commit is on the primary's disk and nowhere else. Taken for an answer, it could be lost by a
// failover after it had been acted on: an at-most-once call whose note is gone would be made a second time.
func onTime(ctx context.Context, err error) error {
	if err == nil && ctx.Err() != nil {
		return fmt.Errorf("the answer came too late to be sure of: %w", ctx.Err())
	}
	return err
}

// errStale says that what the ledger remembers of generations does not fit the database.
var errStale = errors.New("what is remembered of the generations is out of date")

// retryStale does work that stands on remembered generations, and once more with fresh knowledge
// where they turn out to be out of date. Such work has changed nothing.
func (l *Ledger) retryStale(lane int32, work func() error) error {
	err := work()
	if !isStale(err) {
		return err
	}
	l.forget(lane)
	return work()
}

func isStale(err error) bool {
	return errors.Is(err, errStale) || postgres.Code(err) == postgres.UndefinedTable
}

// forget drops what is remembered of generations, in general and of a lane.
func (l *Ledger) forget(lane int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.generations = generations{}
	delete(l.chains, lane)
	delete(l.spans, lane)
	delete(l.relayed, lane)
}

// doing wraps an error with what was being done to a lane.
func doing(err error, what string, lane int32) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s lane %d: %w", what, lane, err)
}

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, arguments ...any) (pgx.Rows, error)
	SendBatch(ctx context.Context, batch *pgx.Batch) pgx.BatchResults
}

// batched sends statements in one round trip and hears their answers in order; the first error ends it.
func batched(ctx context.Context, db querier, batch *pgx.Batch) error {
	return db.SendBatch(ctx, batch).Close()
}

// rowsAffected keeps how many rows a queued statement touched.
func rowsAffected(n *int64) func(pgconn.CommandTag) error {
	return func(tag pgconn.CommandTag) error {
		*n = tag.RowsAffected()
		return nil
	}
}
