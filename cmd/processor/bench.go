package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pawl/internal/app"
	"pawl/internal/dev"
	"pawl/internal/load"
)

// What the flags of `processor bench` say where they are not given, and their limits.
const (
	benchRecords    = 500_000
	benchRecordsMax = 1_000_000_000
	benchBytes      = 500
	benchBytesMax   = 900_000 // a broker takes 1 MiB with what comes around it, where nobody says otherwise
	benchPartitions = 8
	benchProcesses  = 1
	benchRounds     = 3
	benchWarmRounds = 1
	benchDuration   = 20 * time.Second
	benchWarmUp     = 5 * time.Second
	benchLimit      = 15 * time.Minute
	benchManyMax    = 100 // rounds, processes
)

// benchFlags are what the command line of `processor bench` says.
type benchFlags struct {
	bootstrap   string
	kafka       string
	name        string
	records     int64
	bytes       int
	partitions  int32
	replication int16
	processes   int
	rounds      int
	warmRounds  int
	latency     float64 // records per second, 0 to measure throughput
	duration    time.Duration
	warmUp      time.Duration
	limit       time.Duration
}

func (c *cli) newBenchCommand() *cobra.Command {
	var flags benchFlags
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure throughput and latency on your own cluster, beside a plain at-least-once loop",
		Long: `Copy records on the cluster of the configuration, once with this program (processor run, handler copy, your txn
and kafka settings) and once with the plain loop that one writes without a framework (poll, produce, flush,
commit), in turn, round after round. Both run as processes of their own, with as many group members; what is printed
are medians, with the least and the most. What each has copied is read back and counted: a copy that lacks a record
is an error.

Without --latency a backlog is copied as fast as it goes, and throughput, CPU and memory are told. With --latency a
steady stream is, and what is told is the time from when a record was due to be produced to its delivery to a
read_committed reader. The schedule waits for nobody, so a stall counts in full.

Only topics, groups and transactional ids that bench makes itself are touched. Their names begin with --name, which
nothing else may have; the topics and groups are deleted at the end, also after Ctrl-C. Where that fails, or the
program is killed, "processor bench clean NAME" does it. How much will be written is said first, and asked for where
the brokers are not of this machine.`,
		Example: `  processor bench -c config.yaml
  processor bench --bootstrap broker-1:9092,broker-2:9092 --yes
  processor bench -c config.yaml --latency 5000
  processor bench -c config.yaml --set txn.lanes=4 --processes 2 --partitions 32 -o json
  processor bench --kafka real --records 2000000`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.bench(cmd, flags) },
	}
	f := cmd.Flags()
	f.StringVar(&flags.bootstrap, "bootstrap", "", "`ADDRESSES` of brokers, as host:port, separated by commas (default: kafka.brokers)")
	f.StringVar(&flags.kafka, "kafka", "", "start a `BROKER` of one node for the run instead: auto, real or embedded")
	f.StringVar(&flags.name, "name", "", "`NAME` that everything begins with, such as team-a.pawl-bench-1 (default: pawl-bench- and a random number)")
	f.Int64Var(&flags.records, "records", benchRecords, "`NUMBER` of records of a throughput run")
	f.IntVar(&flags.bytes, "bytes", benchBytes, "size of a record's value, in `BYTES`")
	f.Int32Var(&flags.partitions, "partitions", benchPartitions, "partitions of each topic, `NUMBER`")
	f.Int16Var(&flags.replication, "replication", -1, "replicas of each topic, `NUMBER`; -1 is the brokers' default")
	f.IntVar(&flags.processes, "processes", benchProcesses, "`NUMBER` of processes that copy")
	f.IntVar(&flags.rounds, "rounds", benchRounds, "`NUMBER` of rounds that count")
	f.IntVar(&flags.warmRounds, "warm-rounds", benchWarmRounds, "`NUMBER` of rounds before those")
	f.Float64Var(&flags.latency, "latency", 0, "measure latency at `RATE` records a second")
	f.DurationVar(&flags.duration, "duration", benchDuration, "with --latency: `TIME` that a run is measured for")
	f.DurationVar(&flags.warmUp, "warm-up", benchWarmUp, "with --latency: `TIME` of load before that")
	f.DurationVar(&flags.limit, "limit", benchLimit, "give up after `TIME`")
	c.addChangeFlags(cmd)
	cmd.MarkFlagsMutuallyExclusive("bootstrap", "kafka")
	cmd.MarkFlagsMutuallyExclusive("records", "latency")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("kafka", cobra.FixedCompletions(dev.Brokers(), cobra.ShellCompDirectiveNoFileComp)))
	cmd.AddCommand(c.newBenchCleanCommand(), c.newBenchLoopCommand(), c.newBenchSizeCommand())
	return cmd
}

const benchPrefix = "pawl-bench-"

// benchName is what everything of a run begins with. pawl-bench- in it is what keeps `bench clean` from
// topics that are not of bench; what stands before it is for clusters that give rights by prefix.
var benchName = regexp.MustCompile(`^([a-zA-Z0-9][a-zA-Z0-9_-]*[.-])*` + benchPrefix + `[a-z0-9]{1,32}$`)

// check names everything that is wrong with the flags, at once.
func (f benchFlags) check(cmd *cobra.Command) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if f.name != "" && !benchName.MatchString(f.name) {
		bad("--name is %q, want one that ends with %s and letters or digits, such as team-a.%s1", f.name, benchPrefix, benchPrefix)
	}
	if f.kafka != "" && !slices.Contains(dev.Brokers(), f.kafka) {
		bad("--kafka is %q, want one of %s", f.kafka, strings.Join(dev.Brokers(), ", "))
	}
	if f.records < 1 || f.records > benchRecordsMax {
		bad("--records is %d, want 1..%d", f.records, benchRecordsMax)
	}
	if f.bytes < load.PlainBytesMin || f.bytes > benchBytesMax {
		bad("--bytes is %d, want %d..%d", f.bytes, load.PlainBytesMin, benchBytesMax)
	}
	if f.partitions < 1 || f.partitions > 10_000 {
		bad("--partitions is %d, want 1..10000", f.partitions)
	}
	if f.replication < -1 || f.replication == 0 || f.replication > 100 {
		bad("--replication is %d, want 1..100, or -1 for the brokers' default", f.replication)
	}
	if f.processes < 1 || f.processes > benchManyMax {
		bad("--processes is %d, want 1..%d", f.processes, benchManyMax)
	}
	if f.rounds < 1 || f.rounds > benchManyMax || f.warmRounds < 0 || f.warmRounds > benchManyMax {
		bad("--rounds is %d and --warm-rounds %d, want 1..%d and 0..%d", f.rounds, f.warmRounds, benchManyMax, benchManyMax)
	}
	if cmd.Flags().Changed("latency") && !(f.latency >= 1 && f.latency <= 10_000_000) { // so that NaN is refused too
		bad("--latency is %v, want 1..10000000 records a second", f.latency)
	}
	if !cmd.Flags().Changed("latency") && (cmd.Flags().Changed("duration") || cmd.Flags().Changed("warm-up")) {
		bad("--duration and --warm-up are for --latency")
	}
	if f.duration < time.Second || f.warmUp < 0 || f.limit < time.Second {
		bad("--duration is %s, --warm-up %s and --limit %s, want 1s, 0s and 1s or more", f.duration, f.warmUp, f.limit)
	}
	return errors.Join(errs...)
}

// bench is the command from its flags to its report.
func (c *cli) bench(cmd *cobra.Command, flags benchFlags) (err error) {
	if err := flags.check(cmd); err != nil {
		return usage(err)
	}
	ctx, cancel := context.WithTimeoutCause(cmd.Context(), flags.limit, fmt.Errorf("not done within %s: give it longer with --limit, or less to do", flags.limit))
	defer cancel()
	t := &trial{cli: c, flags: flags, name: flags.name, screen: newBenchScreen(c)}
	if t.name == "" {
		t.name = benchPrefix + randomHex()
	}
	if flags.kafka != "" {
		addresses, name, closeBroker, err := dev.OpenBroker(ctx, dev.Broker(flags.kafka), t.screen.step)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, closeBroker()) }()
		t.screen.step(name + " at " + strings.Join(addresses, ", "))
		flags.bootstrap = strings.Join(addresses, ",")
	}
	if flags.bootstrap != "" {
		c.set = append(c.set, "kafka.brokers="+flags.bootstrap)
	}
	if err := t.open(ctx); err != nil {
		return err
	}
	defer t.close()
	if err := t.agree(ctx); err != nil || c.dryRun {
		return err
	}
	// The kernel ends the processes that copy with the thread that started them.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = t.measure(ctx)
	if errors.Is(err, context.Canceled) && errors.Is(context.Cause(ctx), context.Canceled) {
		err = errors.New("interrupted before the end")
	}
	if err := errors.Join(err, t.cleanUp(ctx)); err != nil {
		return err
	}
	return t.report.render(c)
}

func randomHex() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// loadBench reads the configuration as the processes of a run get it: sets are laid over everything else.
func (c *cli) loadBench(sets []string) (app.Config, *app.Origins, error) {
	options := c.loadOptions()
	options.Set = append(slices.Clip(options.Set), sets...)
	conf, origins, err := app.Load(options)
	return conf, origins, usage(err)
}
