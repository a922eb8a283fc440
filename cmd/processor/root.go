package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"pawl/internal/app"
	"pawl/internal/kafka"
)

// Exit codes. Scripts rely on them.
const (
	exitOK       = 0
	exitRuntime  = 1 // it was asked rightly and did not work
	exitUsage    = 2 // the command line or the configuration is wrong
	exitFindings = 3 // it worked, and what it found needs a person
)

// exitError carries an exit code to execute. A nil err ends the program without another word:
// everything has been printed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// findings is what a command returns that has printed something that needs a person.
func findings() error { return &exitError{code: exitFindings} }

// usage marks an error as the caller's.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code: exitUsage, err: err}
}

// cli is what all commands share: the streams, the environment and the persistent flags. One cli
// executes one command line.
type cli struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            []string

	file   string   // -c
	set    []string // --set
	output string   // -o

	yes, dryRun bool // of commands that change something: see addChangeFlags

	openLedger openLedger

	begun bool // the command line was understood and a command has begun
}

func newCLI(stdin io.Reader, stdout, stderr io.Writer, env []string) *cli {
	return &cli{stdin: stdin, stdout: stdout, stderr: stderr, env: env, openLedger: openPostgresLedger}
}

// execute runs one command line and returns the exit code. It is the one place that prints errors.
func (c *cli) execute(ctx context.Context, args []string) int {
	return c.executeRoot(ctx, c.newRootCommand(), args) //nolint:contextcheck // commands get it from cobra
}

func (c *cli) executeRoot(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	exit, marked := errors.AsType[*exitError](err)
	if !marked {
		exit = &exitError{code: exitRuntime, err: err}
		if !c.begun { // cobra has refused the command line
			exit.code = exitUsage
		}
	}
	if exit.err == nil {
		return exit.code
	}
	c.printError(err)
	if !c.begun {
		fmt.Fprintf(c.stderr, "Run '%s --help' for usage.\n", cmd.CommandPath())
	}
	return exit.code
}

func (c *cli) printError(err error) {
	problems, is := errors.AsType[app.Problems](err)
	if !is {
		fmt.Fprintf(c.stderr, "%s %s\n", c.paint(c.stderr, red, "error:"), err)
		return
	}
	c.printProblems(c.stderr, problems)
	c.printSummary(problems)
}

func (c *cli) printSummary(problems app.Problems) {
	where := cmp.Or(c.configFile(), "no file was given: use -c FILE or "+envConfig)
	fmt.Fprintf(c.stderr, "%s %s in the configuration (%s)\n", c.paint(c.stderr, red, "error:"), count(len(problems), "problem"), where)
}

func (c *cli) printProblems(w io.Writer, problems app.Problems) {
	for _, problem := range problems {
		if problem.Warning {
			fmt.Fprint(w, c.paint(w, yellow, "warning: "))
		}
		fmt.Fprintln(w, problem)
		if problem.Excerpt != "" {
			fmt.Fprintln(w, c.paint(w, gray, problem.Excerpt))
		}
	}
}

// count says how many there are of something, whose plural is given where an s does not make it.
func count(n int, noun string, plural ...string) string {
	switch {
	case n == 1:
	case len(plural) > 0:
		noun = plural[0]
	default:
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

func (c *cli) newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "processor",
		Short: "Moves records from Kafka to Kafka, each exactly once",
		Long: `processor reads Kafka topics, runs business handlers and commits their outputs, dead letters, effects
and consumer offsets in one transaction.

Exit codes: 0 ok, 1 runtime error, 2 wrong usage or configuration, 3 findings.`,
		Example: `  processor check -c config.yaml
  processor run -c config.yaml
  PROCESSOR_KAFKA_BROKERS=broker:9092 processor lag -c config.yaml -o json`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.checkFlags(cmd); err != nil {
				return err
			}
			c.begun = true
			return nil
		},
	}
	root.SetIn(c.stdin)
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	root.CompletionOptions.DisableDefaultCmd = true

	flags := root.PersistentFlags()
	flags.StringVarP(&c.file, "config", "c", "", "configuration `FILE` (env "+envConfig+")")
	flags.StringArrayVar(&c.set, "set", nil, "override one setting, `PATH=VALUE`; repeatable (env PROCESSOR_<PATH>, one a setting)")
	flags.StringVarP(&c.output, "output", "o", outputTable, "output `FORMAT`: table or json")

	root.AddCommand(
		c.newBenchCommand(),
		c.newBundleCommand(),
		c.newCheckCommand(),
		c.newCompletionCommand(),
		c.newConfigCommand(),
		c.newDLQCommand(),
		c.newDevCommand(),
		c.newDrainCommand(),
		c.newEffectsCommand(),
		c.newHealthcheckCommand(),
		c.newHoldCommand(),
		c.newLagCommand(),
		c.newLedgerCommand(),
		c.newMigrateCommand(),
		c.newOffsetsCommand(),
		c.newAuditCommand(),
		c.newPauseCommand(),
		c.newResumeCommand(),
		c.newRunCommand(),
		c.newTopCommand(),
		c.newTopicsCommand(),
		c.newTxnCommand(),
		c.newVerifyCommand(),
		c.newVersionCommand(),
	)
	if err := c.completeFlags(root); err != nil {
		panic(err) // a flag's name is misspelt in completeFlags
	}
	return root
}

// newGroup makes a command that only holds others. Alone it prints its help; with an unknown name it
// is a usage error (cobra itself would print the help and exit 0).
func newGroup(use, short, example string, commands ...*cobra.Command) *cobra.Command {
	group := &cobra.Command{
		Use:     use,
		Short:   short,
		Example: example,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			hint := ""
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				hint = fmt.Sprintf(", did you mean %s?", strings.Join(near, " or "))
			}
			return usage(fmt.Errorf("unknown command %q for %q%s", args[0], cmd.CommandPath(), hint))
		},
	}
	group.SuggestionsMinimumDistance = 2
	group.AddCommand(commands...)
	return group
}

// checkFlags does what cobra does after the hook that calls it, so that every mistake in the
// command line ends with exitUsage.
func (c *cli) checkFlags(cmd *cobra.Command) error {
	if err := cmd.ValidateRequiredFlags(); err != nil {
		return err
	}
	if err := cmd.ValidateFlagGroups(); err != nil {
		return err
	}
	if c.output != outputTable && c.output != outputJSON {
		return fmt.Errorf("-o is %q, want %s or %s", c.output, outputTable, outputJSON)
	}
	return nil
}

// load reads the configuration that the persistent flags and the environment name, and prints its
// warnings. Its problems end the program with exitUsage.
func (c *cli) load(*cobra.Command) (app.Config, error) {
	conf, _, err := c.loadWithOrigins()
	return conf, err
}

func (c *cli) loadWithOrigins() (app.Config, *app.Origins, error) {
	conf, origins, err := app.Load(c.loadOptions())
	if err == nil { // else the problems come first
		c.printProblems(c.stderr, origins.Warnings())
	}
	return conf, origins, usage(err)
}

func (c *cli) loadOptions() app.LoadOptions {
	return app.LoadOptions{File: c.configFile(), Env: c.env, EnvKnown: []string{envConfig}, Set: c.set}
}

// kafkaConfig says how to reach the brokers of a loaded configuration, without a log: what a command
// has to say stands in its error.
func (c *cli) kafkaConfig(conf app.Config) kafka.Config {
	client := conf.KafkaConfig(nil)
	client.Version = thisBuild().Version
	return client
}

// envConfig names the file where -c does not.
const envConfig = "PROCESSOR_CONFIG"

func (c *cli) configFile() string {
	if c.file != "" {
		return c.file
	}
	return c.getenv(envConfig)
}

// getenv returns the last value, as exec does when a name is given twice.
func (c *cli) getenv(name string) string {
	for _, pair := range slices.Backward(c.env) {
		if value, found := strings.CutPrefix(pair, name+"="); found {
			return value
		}
	}
	return ""
}
