package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"pawl/internal/app"
	"pawl/internal/audit"
	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger"
	"pawl/internal/outbox/rebuild"
	"pawl/internal/postgres"
)

// effectLedger is what the commands ask of the effect ledger.
type effectLedger interface {
	List(ctx context.Context, filter ledger.Filter) ([]ledger.Effect, error)
	Show(ctx context.Context, lane int32, offset int64) (ledger.Effect, error)
	ShowID(ctx context.Context, id message.ID) ([]ledger.Effect, error)
	Summary(ctx context.Context) ([]ledger.Backlog, error)
	Order(ctx context.Context, order outbox.Order, actor string) error
	Audit(ctx context.Context, filter outbox.AuditFilter) ([]outbox.Audit, error)
	AuditOf(ctx context.Context, lane int32, offset int64) ([]outbox.Audit, error)

	app.RebuildStore

	// Version says how far the schema is, Migrate brings it up to date and names what it applied.
	Version(ctx context.Context) (postgres.Version, error)
	Migrate(ctx context.Context) ([]string, error)
	Close()
}

// openLedger is how the commands reach the ledger that a configuration names.
type openLedger func(ctx context.Context, conf app.Config) (effectLedger, error)

// postgresLedger is the ledger with its schema and its pool.
type postgresLedger struct {
	*ledger.Ledger

	pool   *pgxpool.Pool
	schema string
}

func openPostgresLedger(ctx context.Context, conf app.Config) (effectLedger, error) {
	pool, opened, err := conf.OpenLedger(ctx)
	if err != nil {
		return nil, usage(err) // nothing was asked of the database yet
	}
	return &postgresLedger{opened, pool, conf.Postgres.Schema}, nil
}

func (l *postgresLedger) Version(ctx context.Context) (postgres.Version, error) {
	return postgres.Status(ctx, l.pool, ledger.Migrations(l.schema))
}

func (l *postgresLedger) Migrate(ctx context.Context) ([]string, error) {
	return postgres.Migrate(ctx, l.pool, ledger.Migrations(l.schema))
}

func (l *postgresLedger) Close() { l.pool.Close() }

// withSchema lets a command work on the ledger of the configuration, however old its schema is.
func (c *cli) withSchema(cmd *cobra.Command, work func(conf app.Config, l effectLedger, version postgres.Version) error) error {
	conf, err := c.load(cmd)
	if err != nil {
		return err
	}
	l, err := c.openLedger(cmd.Context(), conf)
	if err != nil {
		return err
	}
	defer l.Close()
	version, err := l.Version(cmd.Context())
	if err != nil {
		return err
	}
	return work(conf, l, version)
}

// withLedger lets a command work on the ledger of the configuration, whose schema must be there.
func (c *cli) withLedger(cmd *cobra.Command, work func(conf app.Config, l effectLedger) error) error {
	return c.withSchema(cmd, func(conf app.Config, l effectLedger, version postgres.Version) error {
		if version.Behind() {
			return fmt.Errorf("schema %s is at version %d, this program wants %d: run `processor migrate up`", conf.Postgres.Schema, version.Current, version.Wanted)
		}
		return work(conf, l)
	})
}

func (c *cli) newLedgerCommand() *cobra.Command {
	return newGroup("ledger", "Begin the effect ledger anew",
		`  processor ledger rebuild -c config.yaml --reason "database lost" --dry-run`,
		c.newLedgerRebuildCommand())
}

// rebuilt is what `ledger rebuild` prints with -o json.
type rebuilt struct {
	Reason string         `json:"reason"`
	DryRun bool           `json:"dry_run"`
	Lanes  []rebuild.Lane `json:"lanes"`
}

// rebuildFlags are what `ledger rebuild` was told.
type rebuildFlags struct {
	from, reason string
	repeat       bool
}

func (c *cli) newLedgerRebuildCommand() *cobra.Command {
	var flags rebuildFlags
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Fill a ledger that knows nothing from the effects topic",
		Long: `rebuild is for a database that is lost and has no backup. Stop every process, then

  processor migrate up -c config.yaml
  processor ledger rebuild -c config.yaml --reason "database lost"

and start them again. Where a ledger is to begin anew, put the old tables out of the way before
(ALTER SCHEMA pawl RENAME TO pawl_old). A lane that the ledger knows is kept as it is.

It brings every effect that the effects topic still has into the ledger, and settles those of which the results
topic tells: they are not called again, and their results are not told again. What is left is called, with the
Idempotency-Key and the bytes of the first time, if there was one: calls of the last seconds, whose results were
not told yet, may have been made. Of the class at-most-once these end unknown instead, because nobody knows; see
effects ls --state unknown. What the old ledger alone knew is lost: attempts of calls that failed for now, orders
of operators, and business keys of effects that the topic has no more, so that an order with such a key that
comes from now on is called. The column START is above 0 where the topic has lost its beginning: what stood there
and was not called by then is lost.

A rebuild that is cut off leaves its lanes to nobody: run it again.

With --repeat-told the results topic is not looked at, and every effect that is still on the topic is called again,
those of the class at-most-once too: ask the receivers how long they remember keys. With --from latest nothing is
called again, and effects that were not called yet are lost.`,
		Example: `  processor ledger rebuild -c config.yaml --reason "database lost" --dry-run
  processor ledger rebuild -c config.yaml --reason "database lost" --yes
  processor ledger rebuild -c config.yaml --reason "test system" --from latest --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if flags.from != rebuildEarliest && flags.from != rebuildLatest {
				return usage(fmt.Errorf("--from is %q, want %s or %s", flags.from, rebuildEarliest, rebuildLatest))
			}
			if flags.repeat && flags.from == rebuildLatest {
				return usage(errors.New("--repeat-told calls everything again and --from latest nothing: give one of them"))
			}
			return c.withLedger(cmd, func(conf app.Config, l effectLedger) error {
				return c.rebuildLedger(cmd.Context(), conf, l, flags)
			})
		},
	}
	cmd.Flags().StringVar(&flags.from, "from", rebuildEarliest, "where to begin: `POSITION` earliest or latest")
	cmd.Flags().BoolVar(&flags.repeat, "repeat-told", false, "call again what was told of, too")
	c.addReason(cmd, &flags.reason, reasonFlag, "database lost")
	c.addChangeFlags(cmd)
	return cmd
}

// The values of --from.
const (
	rebuildEarliest = "earliest"
	rebuildLatest   = "latest"
)

func (c *cli) rebuildLedger(ctx context.Context, conf app.Config, l effectLedger, flags rebuildFlags) error {
	config := c.kafkaConfig(conf)
	options, err := config.Options()
	if err != nil {
		return usage(err)
	}
	client, err := openClient(ctx, config)
	if err != nil {
		return err
	}
	defer client.Close()
	topicID, lanes, err := effectLanes(ctx, kadm.NewClient(client), conf.EffectsTopic())
	if err != nil {
		return err
	}
	job := conf.Rebuild(client, options, l)
	job.TopicID, job.Latest, job.Repeat = topicID, flags.from == rebuildLatest, flags.repeat
	job.Progress = c.rebuildProgress()
	if c.dryRun {
		job.Fence = nil
	}
	plan, err := job.Plan(ctx, lanes)
	if err != nil {
		return err
	}
	begin, told, calls := 0, int64(0), int64(0)
	for _, lane := range plan.Lanes {
		if lane.Action != rebuild.Kept {
			begin++
			told += lane.Told
			calls += lane.Calls
		}
	}
	if !c.dryRun && begin > 0 {
		question := fmt.Sprintf("Begin %s anew, settle up to %s that were told of, and call up to %s?", count(begin, "lane"), count(int(told), "effect"), count(int(calls), "effect"))
		if err := c.confirm(question); err != nil {
			return err
		}
		order := audit.Order{Action: "ledger rebuild", Target: fmt.Sprintf("%s of %s from %s", count(begin, "lane"), conf.EffectsTopic(), flags.from), Reason: flags.reason}
		if flags.repeat {
			order.Action += " --repeat-told"
		}
		err := c.audited(ctx, conf, options, order, func() (string, error) {
			return fmt.Sprintf("up to %d told, up to %d to call", told, calls), plan.Run(ctx)
		})
		if err != nil {
			return fmt.Errorf("%w; no process works on a lane that is not done: run the command again", err)
		}
	}
	return c.render(rebuilt{Reason: flags.reason, DryRun: c.dryRun, Lanes: plan.Lanes}, rebuildTable(plan.Lanes))
}

func rebuildTable(lanes []rebuild.Lane) table {
	t := table{header: []string{"LANE", "START", "END", "NEXT", "ACTION", "EFFECTS", "TOLD", "UNKNOWN", "REPEATS", "TWINS", "HELD", "CALLS"}}
	for _, lane := range lanes {
		bound := ""
		if lane.Action == rebuild.Begin || lane.Action == rebuild.Resume {
			bound = "<="
		}
		number := func(n int64) string {
			if n == 0 {
				return "0"
			}
			return bound + strconv.FormatInt(n, 10)
		}
		t.rows = append(t.rows, []string{
			strconv.Itoa(int(lane.Lane)), strconv.FormatInt(lane.Start, 10), strconv.FormatInt(lane.End, 10), strconv.FormatInt(lane.Next, 10), string(lane.Action),
			number(lane.Effects), number(lane.Told), number(lane.Unknown), number(lane.Repeats), number(lane.Twins), number(lane.Held), number(lane.Calls),
		})
	}
	return t
}

// rebuildEvery is the pause between two lines about the progress.
const rebuildEvery = 2 * time.Second

// rebuildProgress tells now and then how far a rebuild is.
func (c *cli) rebuildProgress() func(rebuild.Progress) {
	last := time.Now()
	return func(p rebuild.Progress) {
		if time.Since(last) < rebuildEvery {
			return
		}
		last = time.Now()
		if p.End == 0 {
			fmt.Fprintf(c.stderr, "lane %d: %s: %d\n", p.Lane, p.Step, p.At)
			return
		}
		fmt.Fprintf(c.stderr, "lane %d: %s: %d of %d\n", p.Lane, p.Step, p.At, p.End)
	}
}

// effectLanes gives the effects topic's id and the bounds of each of its partitions, in order.
func effectLanes(ctx context.Context, admin *kadm.Client, topic string) (id [16]byte, lanes []rebuild.Lane, err error) {
	details, err := admin.ListTopics(ctx, topic)
	if err == nil {
		err = details[topic].Err
	}
	if err != nil {
		return id, nil, fmt.Errorf("look up %s: %w; see `processor topics plan`", topic, err)
	}
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return id, nil, fmt.Errorf("list offsets of %s: %w", topic, err)
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return id, nil, fmt.Errorf("list offsets of %s: %w", topic, err)
	}
	for _, partition := range details[topic].Partitions.Numbers() {
		start, _ := starts.Lookup(topic, partition)
		end, _ := ends.Lookup(topic, partition)
		if err := errors.Join(start.Err, end.Err); err != nil {
			return id, nil, fmt.Errorf("list offsets of %s/%d: %w", topic, partition, err)
		}
		lanes = append(lanes, rebuild.Lane{Lane: partition, Start: start.Offset, End: end.Offset})
	}
	return details[topic].ID, lanes, nil
}
