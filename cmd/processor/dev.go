package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"pawl/internal/dev"
)

// What the flags of `processor dev` say where they are not given.
const (
	devRate     = 50
	demoRate    = 2500
	demoOrders  = 20_000
	demoBad     = 0.01
	demoSeed    = 1
	devBrokers  = 1
	devInstance = 2
)

func (c *cli) newDevCommand() *cobra.Command {
	conf := dev.DemoConfig{}
	var broker string
	var demo bool
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a broker, a stream of orders and processors on this machine; --demo kills one and proves that nothing was lost",
		Long: `dev needs little but this binary. It starts a broker, a private Postgres and an endpoint that takes charges
(and fails one call in twenty), creates the topics, produces orders (one in a hundred of them wrong) and runs
processors as processes of their own, until Ctrl-C. It prints the addresses and the configuration file, which
every other command takes with -c.

With --demo it runs a script instead: it kills a processor with SIGKILL in the middle of a transaction and of its
calls, starts it again, lets everything finish, reads all topics, compares them with what the orders must give
and the calls with what was committed. It prints the proof and ends with exit code 0, or 3 where the proof fails.

The broker is Apache Kafka where a Java runtime is there (its jars are fetched once with Maven), else one that is
embedded in this process; --kafka chooses. Where the programs of a Postgres server can't be had, dev says so:
effects are committed then, and wait.`,
		Example: `  processor dev
  processor dev --demo
  processor dev --kafka embedded --instances 3 --rate 500
  processor dev --demo --kafka real --brokers 3 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("rate") && demo {
				conf.Rate = demoRate
			}
			program, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program, to run it as a processor: %w", err)
			}
			conf.Broker, conf.Program, conf.Screen = dev.Broker(broker), program, c.screen()
			if demo {
				return c.demo(cmd, conf)
			}
			if err := conf.Config.Validate(); err != nil {
				return usage(err)
			}
			return dev.Run(cmd.Context(), conf.Config, c.stdout)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&demo, "demo", false, "run the script that kills a processor, print the proof and end")
	flags.StringVar(&broker, "kafka", string(dev.BrokerAuto), "which `BROKER`: auto, real or embedded")
	flags.IntVar(&conf.Nodes, "brokers", devBrokers, "`NUMBER` of brokers, 1 to 3")
	flags.IntVar(&conf.Instances, "instances", devInstance, "`NUMBER` of processors")
	flags.Float64Var(&conf.Rate, "rate", devRate, fmt.Sprintf("orders a `SECOND`; with --demo %d where it is not given", demoRate))
	flags.StringVar(&conf.DataDir, "data-dir", "", "keep topics and logs in `FOLDER` from one run to the next")
	flags.Int64Var(&conf.Orders, "orders", demoOrders, "with --demo: `NUMBER` of orders")
	flags.Float64Var(&conf.BadShare, "bad", demoBad, "with --demo: `SHARE` of the orders that are wrong, 0 to 1")
	flags.Uint64Var(&conf.Seed, "seed", demoSeed, "with --demo: the same `SEED` gives the same orders")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("kafka", cobra.FixedCompletions(dev.Brokers(), cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func (c *cli) demo(cmd *cobra.Command, conf dev.DemoConfig) error {
	if err := conf.Validate(); err != nil {
		return usage(err)
	}
	proof, err := dev.Demo(cmd.Context(), conf)
	if err != nil {
		return err
	}
	if c.output == outputJSON {
		err = c.render(proof, table{})
	} else {
		_, err = io.WriteString(c.stdout, proof.Report())
	}
	if err == nil && !proof.Proven() {
		err = findings()
	}
	return err
}

// screen is where progress moves, or is told in lines where standard error is no terminal.
func (c *cli) screen() dev.Screen {
	screen := dev.Screen{Out: c.stderr}
	file, is := c.stderr.(*os.File)
	if !is || !isTerminal(file) || c.getenv("TERM") == "dumb" {
		return screen
	}
	screen.Color = c.getenv("NO_COLOR") == ""
	screen.Size = func() (width, height int) {
		width, height, err := term.GetSize(int(file.Fd()))
		if err != nil || width < 1 || height < 1 {
			return 80, 24
		}
		return width, height
	}
	return screen
}
