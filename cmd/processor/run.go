package main

import (
	"fmt"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/cobra"

	"pawl/internal/app"
)

// memoryShare is the part of a container's memory that the heap may fill before the collector works
// harder; the rest is for what it does not see.
const memoryShare = 0.9

// garbageShare is GOGC where it is not set: most of the heap are buffers without pointers, cheap to collect
// (internal/txn/DESIGN.md has what it costs and saves).
const garbageShare = 70

func (c *cli) newRunCommand() *cobra.Command {
	var options app.Options
	command := &cobra.Command{
		Use:   "run",
		Short: "Run the service until it is told to end",
		Long: `run reads the configured topics, runs the handlers and commits their outputs, dead letters, effects and
the consumer offsets in one transaction each.

SIGTERM or Ctrl-C drains: what is in hand is finished and committed, then the process ends. A second
signal ends it at once; that too loses nothing, its open transaction is aborted and done again.`,
		Example: `  processor run -c config.yaml
  PROCESSOR_INSTANCE=orders-0 processor run -c config.yaml --set txn.lanes=4
  processor run -c config.yaml --set log.format=text --set log.level=debug`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conf, origins, err := c.loadWithOrigins()
			if err != nil {
				return err
			}
			options.Settings = origins.Settings(conf)
			// A secret or certificate that is not there is a wrong configuration, as for every other command.
			if _, err := c.kafkaConfig(conf).Options(); err != nil {
				return usage(err)
			}
			if problems := app.CheckTracing(c.env); problems != nil {
				return usage(problems)
			}
			// Without a limit there is nothing to set, and nothing to say.
			_, _ = memlimit.Set(memlimit.WithRatio(memoryShare), memlimit.WithProvider(memlimit.FromCgroup))
			if c.getenv("GOGC") == "" {
				debug.SetGCPercent(garbageShare)
			}
			b := thisBuild()
			if err := app.Run(cmd.Context(), conf, app.Build{Version: b.Version, Commit: b.Commit, Full: b}, options, c.stderr); err != nil {
				return fmt.Errorf("run: %w", err)
			}
			return nil
		},
	}
	command.Flags().BoolVar(&options.Migrate, "migrate", false, "bring the schema of the effect ledger up to date first; for small set-ups, see processor migrate")
	return command
}
