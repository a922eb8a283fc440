// Command bench is the yardstick: it runs this project beside its peers on one real broker or one real
// Postgres, in one run, round after round in turn, and prints medians with their spread.
//
// It measures the processes from outside. Throughput is read off the offsets that a group commits and
// the end of its output, CPU and memory off the process table, latency off records that carry the
// time of their produce call. Every run's output is read back and checked: a copy that loses records
// is not a fast one.
//
// The effects part measures the way of an effect from the first insert to its last completion: this
// project's ledger and dispatcher beside River on the same Postgres, and beside a loop that only makes
// the calls. There each peer is one process of this program that reads its own CPU time, that of the
// server's processes and the position in the WAL, by the same code. Neither side has a broker: effects
// are made in the peer's process and inserted in batches, which is what the ledger's ingester does with
// what it has read. Run it by `make bench BENCH_FLAGS='-only effects'`; it takes Postgres and no broker.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"pawl/internal/cluster"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main with its streams; it returns the exit code: 0 done, 1 failed, 2 wrong usage, 3 a target
// was missed and -check asked to say so.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	profile := ""
	if len(args) > 2 && args[0] == profileCommand {
		profile, args = args[1], args[2:]
	}
	if work := peerCommand(args); work != nil {
		err := withProfile(profile, func() error { return work(ctx, args[1:]) })
		if err != nil {
			fmt.Fprintln(stderr, "error:", err)
			return 1
		}
		return 0
	}
	settings, err := parseFlags(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "error:", err)
		return 2
	}
	if settings.report != "" {
		if err := publish(settings.report); err != nil {
			fmt.Fprintln(stderr, "error:", err)
			return 1
		}
		return 0
	}
	report, err := measure(ctx, settings, func(step string) { fmt.Fprintln(stderr, step) })
	if err != nil {
		fmt.Fprintln(stderr, "error:", err)
		return 1
	}
	report.print(stdout)
	report.Command = strings.Join(append([]string{"bench"}, args...), " ")
	path, err := report.save(settings.out)
	if err != nil {
		fmt.Fprintln(stderr, "error:", err)
		return 1
	}
	fmt.Fprintln(stderr, "results:", path)
	if settings.check && !report.met() {
		return 3
	}
	return 0
}

// peerCommand is what this program does as a peer, nil where it is none.
func peerCommand(args []string) func(context.Context, []string) error {
	if len(args) == 0 {
		return nil
	}
	switch args[0] {
	case loopCommand:
		return runLoop
	case sessionCommand:
		return runSession
	case effectsCommand:
		return runEffects
	case wireLoopCommand:
		return runWireLoop
	}
	return nil
}

// settings is what the command line says.
type settings struct {
	processor  string // path of the binary
	out        string // folder for result files
	only       string // comma-separated parts
	peers      string // comma-separated names
	rounds     int
	warmRounds int // before those, where there is a broker
	count      int64
	backlog    int64 // records of a catch-up
	orders     int64 // of a run of that part
	bytes      int
	parts      int
	processes  int
	lanes      int
	rate       float64
	duration   time.Duration
	warmUp     time.Duration
	check      bool
	kafka      string // addresses of a broker to use instead of one of our own

	cpuProfile string // folder, empty for none

	effectPeers   string // comma-separated names
	effectTargets string // comma-separated names
	effectBytes   int
	holdXmin      bool

	wireRate float64 // effects per second

	points     string // of a sweep instead of its own; empty: those
	sweepBytes int64  // to copy in a run of a sweep, at most

	report string // folder of the documents to write anew; empty: measure
}

func parseFlags(args []string, stderr io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&s.processor, "processor", "bin/processor", "`path` of the processor binary")
	flags.StringVar(&s.out, "out", "results", "`folder` for result files")
	flags.StringVar(&s.only, "only", "throughput,latency", "`parts` to run; the others are "+partCatchUp+": a backlog that waits when this project starts, "+partSteps+": a load that changes under one process with its defaults, "+partTracing+": what spans cost, "+partWire+" and "+partOrders+", which need Postgres too, "+partEffects+", which needs no broker, and the sweeps "+sweepNames())
	flags.StringVar(&s.peers, "peers", processorName+","+loopName, "`names` of those to measure, of "+strings.Join(peerNames, ", ")+"; targets need the first two")
	flags.IntVar(&s.rounds, "rounds", 5, "rounds that count, after some that warm up; in each, every peer runs once")
	flags.IntVar(&s.warmRounds, "warm-rounds", brokerWarmUp, "rounds before those that count, where there is a broker to warm up")
	flags.Int64Var(&s.count, "records", 500_000, fmt.Sprintf("records to copy in a throughput run; if it is not given, %d in a catch-up and %d in a run of orders", catchUpRecords, orderRecords))
	flags.IntVar(&s.bytes, "bytes", 500, "size of a record's value")
	flags.IntVar(&s.parts, "partitions", 8, "partitions of every topic")
	flags.IntVar(&s.processes, "processes", 2, "processes of each peer")
	flags.IntVar(&s.lanes, "lanes", defaultLanes(), "lanes of each processor; what it would choose itself if none are given")
	flags.Float64Var(&s.rate, "rate", 5000, "records per second of a latency run")
	flags.DurationVar(&s.duration, "duration", 0, "length of a latency or wire run (0: 20s), an effects run (0: 10s) or a step (0: 10s)")
	flags.DurationVar(&s.warmUp, "warm-up", 5*time.Second, "load before a latency or wire run or the first step, not measured")
	flags.BoolVar(&s.check, "check", false, "exit with 3 when a target is missed")
	flags.StringVar(&s.kafka, "brokers", "", "`addresses` of an idle broker to use; empty: start one")
	flags.StringVar(&s.cpuProfile, "cpu-profile", "", "`folder` for CPU profiles of the peers that are this program: all of the effects part, and the loops")
	flags.StringVar(&s.effectPeers, "effect-peers", strings.Join([]string{effectPawl, effectRiver, effectRiverLean, effectHTTP}, ","), "`names` of those to measure in the effects part")
	flags.StringVar(&s.effectTargets, "effect-targets", targetNothing+","+targetHTTP, "`names` of what effects call")
	flags.IntVar(&s.effectBytes, "effect-bytes", 200, "size of an effect's body")
	flags.Float64Var(&s.wireRate, "wire-rate", 1000, "effects per second of a wire run")
	flags.StringVar(&s.points, "points", "", "`numbers` to measure a sweep at instead of its own, or the records/s of the steps instead of "+defaultSteps+"; only one of those may be in -only then")
	flags.Int64Var(&s.sweepBytes, "sweep-bytes", 250_000_000, "bytes to copy in a run of a sweep, at most")
	flags.StringVar(&s.report, "report", "", "measure nothing: write performance.md and its charts in this `folder` from the results in its folder performance")
	flags.BoolVar(&s.holdXmin, "hold-xmin", false, "measure pawl and river also while a transaction is held open")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	s.backlog, s.orders = catchUpRecords, orderRecords
	flags.Visit(func(given *flag.Flag) {
		if given.Name == "records" {
			s.backlog, s.orders = s.count, s.count
		}
	})
	errs := []error{s.checkEffects()}
	if (s.has(partCatchUp) || s.has(partSteps) || s.has(partTracing) || s.has(partOrders)) && !slices.Contains(strings.Split(s.peers, ","), processorName) {
		errs = append(errs, fmt.Errorf("%s, %s, %s and %s measure %s: name it in -peers", partCatchUp, partSteps, partTracing, partOrders, processorName))
	}
	if flags.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unknown argument %q", flags.Arg(0)))
	}
	if s.warmRounds < 0 {
		errs = append(errs, errors.New("warm-rounds must not be below 0"))
	}
	if s.rounds < 1 || s.count < 1 || s.parts < 1 || s.processes < 1 || s.lanes < 1 {
		errs = append(errs, errors.New("rounds, records, partitions, processes and lanes must be at least 1"))
	}
	if s.rate <= 0 || s.wireRate <= 0 || s.duration < 0 || s.warmUp < 0 {
		errs = append(errs, errors.New("rates must be above 0, duration and warm-up not below"))
	}
	parts := append(slices.Clone(brokerParts), partEffects)
	for _, sweep := range sweeps {
		parts = append(parts, sweep.name)
	}
	for part := range strings.SplitSeq(s.only, ",") {
		if !slices.Contains(parts, part) {
			errs = append(errs, fmt.Errorf("-only names %q, want some of %s", part, strings.Join(parts, ", ")))
		}
	}
	return s, errors.Join(append(errs, s.checkPoints())...)
}

// The parts of a run.
const (
	partThroughput = "throughput"
	partLatency    = "latency"
	partCatchUp    = "catch-up"
	partSteps      = "steps"
	partTracing    = "tracing"
	partWire       = "wire"
	partOrders     = "orders"
	partEffects    = "effects"
)

// brokerParts are those that have to do with records, beside the sweeps.
var brokerParts = []string{partThroughput, partLatency, partCatchUp, partSteps, partTracing, partWire, partOrders}

func (s settings) has(part string) bool { return slices.Contains(strings.Split(s.only, ","), part) }

// needsBroker tells whether one of the parts has to do with records.
func (s settings) needsBroker() bool {
	return slices.ContainsFunc(brokerParts, s.has) || slices.ContainsFunc(sweeps, func(one sweep) bool { return s.has(one.name) })
}

// latencyDuration is the length of a latency or wire run.
func (s settings) latencyDuration() time.Duration {
	if s.duration > 0 {
		return s.duration
	}
	return 20 * time.Second
}

// measure runs everything that settings ask for. It locks its goroutine to the thread, because the
// kernel ends the peers' processes with the thread that started them.
func measure(ctx context.Context, s settings, progress func(string)) (_ *report, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	folder, err := os.MkdirTemp("", "pawl-bench-")
	if err != nil {
		return nil, fmt.Errorf("make work folder: %w", err)
	}
	defer func() {
		if err == nil {
			err = os.RemoveAll(folder)
		} else {
			err = fmt.Errorf("%w (logs of the peers are in %s)", err, folder)
		}
	}()
	if s.cpuProfile != "" {
		if err := os.MkdirAll(s.cpuProfile, 0o750); err != nil {
			return nil, fmt.Errorf("make the folder of profiles: %w", err)
		}
	}
	var peers []peer
	var programs programs
	if s.needsBroker() {
		if programs, err = findPrograms(ctx, s, folder, progress); err != nil {
			return nil, err
		}
		peers = newPeers(s, programs)
	}
	report := newReport(s, peers)
	progress(fmt.Sprintf("%d cores, load average before the run %s: every other program makes the figures worse", report.Cores, report.LoadBefore))
	if s.needsBroker() {
		if err := onBroker(ctx, s, programs, peers, report, progress); err != nil {
			return nil, err
		}
	}
	if s.has(partEffects) {
		if err := effects(ctx, s, folder, report, progress); err != nil {
			return nil, err
		}
	}
	return report, nil
}

// onBroker measures the parts that need a broker, all on one.
func onBroker(ctx context.Context, s settings, programs programs, peers []peer, report *report, progress func(string)) (err error) {
	kafka, err := openKafka(ctx, s, progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kafka.close()) }()
	report.Kafka = kafka.version

	stage, err := openStage(ctx, s, kafka, programs.folder, progress)
	if err != nil {
		return err
	}
	defer stage.Close()
	if s.has(partThroughput) {
		if err := stage.throughput(ctx, peers, report.addCopy); err != nil {
			return err
		}
	}
	if s.has(partLatency) {
		if err := stage.latency(ctx, peers, report.addWait); err != nil {
			return err
		}
	}
	for _, sweep := range sweeps {
		if s.has(sweep.name) {
			if err := stage.sweep(ctx, sweep, programs, report); err != nil {
				return err
			}
		}
	}
	if s.has(partCatchUp) {
		if err := stage.catchUp(ctx, programs, report); err != nil {
			return err
		}
	}
	if s.has(partSteps) {
		if err := stage.steps(ctx, programs, report); err != nil {
			return err
		}
	}
	if s.has(partTracing) {
		if err := stage.tracing(ctx, programs, report); err != nil {
			return err
		}
	}
	if s.has(partWire) {
		if err := stage.wire(ctx, programs, report); err != nil {
			return err
		}
	}
	if s.has(partOrders) {
		return stage.orders(ctx, programs, report)
	}
	return nil
}

// broker is the cluster of one node that all peers use.
type broker struct {
	addresses []string
	version   string
	pid       int // 0 where it isn't ours
	close     func() error
}

// openKafka starts one node with a full JVM, and with a delay before the first rebalance as every
// Kafka has by default: so all members of a group join in one rebalance, and what is measured is
// copying, not joining.
func openKafka(ctx context.Context, s settings, progress func(string)) (broker, error) {
	if s.kafka != "" {
		return broker{addresses: strings.Split(s.kafka, ","), version: "given by -brokers", close: func() error { return nil }}, nil
	}
	kafka, err := cluster.OpenKafka(ctx, cluster.KafkaConfig{
		HeapMB:   1024,
		JVM:      []string{"-XX:+UseG1GC", "-Djava.awt.headless=true"},
		Settings: map[string]string{"group.initial.rebalance.delay.ms": "1000"},
		Progress: progress,
	})
	if err != nil {
		return broker{}, err
	}
	return broker{addresses: kafka.Brokers(), version: kafka.Version(), pid: kafka.Pid(0), close: kafka.Close}, nil
}
