package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"pawl/internal/app"
	"pawl/internal/outbox/ledger"
	"pawl/internal/postgres"
)

func (c *cli) newMigrateCommand() *cobra.Command {
	return newGroup("migrate", "Look at the schema of the effect ledger and bring it up to date",
		`  processor migrate status -c config.yaml
  processor migrate up -c config.yaml --yes
  processor migrate roles -c config.yaml | psql`,
		c.newMigrateStatusCommand(), c.newMigrateUpCommand(), c.newMigrateRolesCommand())
}

// migrated is what `migrate status` and `migrate up` print with -o json.
type migrated struct {
	Schema  string   `json:"schema"`
	Current int64    `json:"current"` // 0: it is not there
	Wanted  int64    `json:"wanted"`
	Behind  bool     `json:"behind"`
	DryRun  bool     `json:"dry_run"`
	Applied []string `json:"applied"`
}

func (c *cli) renderMigrated(conf app.Config, version postgres.Version, applied []string) error {
	m := migrated{Schema: conf.Postgres.Schema, Current: version.Current, Wanted: version.Wanted, Behind: version.Behind(), DryRun: c.dryRun, Applied: []string{}}
	t := table{rows: [][]string{
		{"schema", m.Schema},
		{"version", strconv.FormatInt(m.Current, 10)},
		{"wanted", strconv.FormatInt(m.Wanted, 10)},
	}}
	if len(applied) > 0 {
		m.Applied = applied
		t.rows = append(t.rows, []string{"applied", strings.Join(applied, ", ")})
	}
	return c.render(m, t)
}

func (c *cli) newMigrateStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Say how far the schema is",
		Long: `status compares the version of the schema with the one that this program wants. A schema that is ahead is fine:
a release runs on the schema of its successor. It needs no more than the right to read.

Exit code 3: the schema is behind.`,
		Example: `  processor migrate status -c config.yaml
  processor migrate status -c config.yaml -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withSchema(cmd, func(conf app.Config, _ effectLedger, version postgres.Version) error {
				if err := c.renderMigrated(conf, version, nil); err != nil {
					return err
				}
				if version.Behind() {
					fmt.Fprintln(c.stderr, "the schema is behind: run `processor migrate up`")
					return findings()
				}
				return nil
			})
		},
	}
}

func (c *cli) newMigrateUpCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Bring the schema up to date",
		Long: `up makes the schema where it is missing and applies what is missing, in order. Processes of this release and of the
one before it may run meanwhile. Two at once do no harm: one works, the other waits.

It needs the role that owns the schema.`,
		Example: `  processor migrate up -c config.yaml --dry-run
  PROCESSOR_POSTGRES_DSN=postgres://pawl_owner@db/pawl processor migrate up -c config.yaml --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withSchema(cmd, func(conf app.Config, l effectLedger, version postgres.Version) error {
				if c.dryRun || !version.Behind() {
					return c.renderMigrated(conf, version, nil)
				}
				if err := c.confirm(fmt.Sprintf("Bring schema %s from version %d to %d?", conf.Postgres.Schema, version.Current, version.Wanted)); err != nil {
					return err
				}
				applied, err := l.Migrate(cmd.Context())
				if err != nil {
					return err
				}
				if version, err = l.Version(cmd.Context()); err != nil {
					return err
				}
				return c.renderMigrated(conf, version, applied)
			})
		},
	}
	c.addChangeFlags(cmd)
	return cmd
}

func (c *cli) newMigrateRolesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "roles",
		Short: "Print the SQL that makes the database roles",
		Long: `roles prints the SQL for the two roles: one that owns the schema and migrates it, one with the least rights that the
service needs. It connects to nothing: an administrator of the database reads it and runs it.`,
		Example: `  processor migrate roles -c config.yaml > roles.sql`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conf, err := c.load(cmd)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.stdout, strings.TrimRight(ledger.Roles(conf.Postgres.Schema), "\n"))
			return err
		},
	}
}
