package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"pawl/internal/app"
	"pawl/internal/verify"
)

// verifyFlags are what `verify` was told.
type verifyFlags struct {
	from, to []string
	follow   bool
	interval time.Duration
	listen   string
	explain  string
	journal  string
	noLedger bool
	noModel  bool
	readers  bool
	shared   bool
	restored bool
	idle     bool
	memory   int
	dir      string
	wait     time.Duration
}

func (c *cli) newVerifyCommand() *cobra.Command {
	var flags verifyFlags
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Prove from the logs that each input led to one committed outcome",
		Long: `Read the logs of inputs and of all that was made of them, aborted transactions and markers included, and the
effect ledger; run the handlers again over the inputs; and compare. Nothing is written anywhere and no
consumer group is joined, so it may run beside the service, as often as you like.

The range is given by inputs: everything from --from on and below --to that the service has processed. Both
take a time, an age such as 2h, or topic/partition/offset, repeated for several partitions (the others are then
left out). What was made of the range is looked for in the whole of the other topics.

With --follow it goes on: each pass judges what was processed since the one before. Findings are printed as
they are found; with --listen they are metrics, too (processor_verify_*), for an alert.

With --explain it tells the story of one record, an input or anything that was made of one: the transactions
that wrote something of it, and what became of its effects.

What each verdict means, and what to do about it, is in docs/verify.md. Exit code 3: there are findings.`,
		Example: `  processor verify -c config.yaml
  processor verify -c config.yaml --from 24h -o json
  processor verify -c config.yaml --from orders/3/40000 --to orders/3/50000
  processor verify -c config.yaml --follow --listen :9091
  processor verify -c config.yaml --explain orders/3/42`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.verify(cmd, &flags) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&flags.from, "from", nil, "judge inputs from `POSITION` on: a time, an age or topic/partition/offset (default: the beginning; with --follow: now)")
	f.StringArrayVar(&flags.to, "to", nil, "judge inputs below `POSITION` (default: what the service has processed)")
	f.BoolVar(&flags.follow, "follow", false, "go on with what is processed from now on, until you end it")
	f.DurationVar(&flags.interval, "interval", defaultVerifyInterval, "with --follow, begin a pass every `TIME`")
	f.StringVar(&flags.listen, "listen", "", "with --follow, serve /metrics and /livez on `ADDRESS`")
	f.StringVar(&flags.explain, "explain", "", "tell the story of one record, `TOPIC/PARTITION/OFFSET`")
	f.StringVar(&flags.journal, "journal", "", "judge the calls that endpoints wrote down in `FILE`, too, JSON lines")
	f.BoolVar(&flags.noLedger, "no-ledger", false, "leave the effect ledger out, though the configuration names one")
	f.BoolVar(&flags.noModel, "no-model", false, "do not run the handlers again: check lineage and not content, for inputs that another version processed")
	f.BoolVar(&flags.readers, "readers", false, "read everything a second time as a read_committed reader gets it, and compare the two")
	f.BoolVar(&flags.shared, "shared", false, "others write to the output topics, or other inputs were read once: leave what is theirs alone")
	f.BoolVar(&flags.restored, "restored", false, "the ledger was restored from a backup: what was told before may differ from it")
	f.BoolVar(&flags.idle, "allow-empty", false, "that no input was judged is no finding")
	f.IntVar(&flags.memory, "memory", defaultVerifyMemory, "compare in memory up to `MIB`, in files beyond")
	f.StringVar(&flags.dir, "dir", "", "`DIRECTORY` of these files (default: the system's temporary one)")
	f.DurationVar(&flags.wait, "wait", defaultVerifyWait, "wait for open transactions up to `TIME`; one that is open longer is a finding")
	cmd.MarkFlagsMutuallyExclusive("follow", "explain")
	cmd.MarkFlagsMutuallyExclusive("follow", "to")
	cmd.MarkFlagsMutuallyExclusive("follow", "journal")
	return cmd
}

const (
	defaultVerifyInterval = 30 * time.Second
	defaultVerifyMemory   = 64
	defaultVerifyWait     = 2 * time.Minute
)

func (f *verifyFlags) check(cmd *cobra.Command) error {
	switch {
	case f.memory < 1 || f.memory > 1<<20:
		return fmt.Errorf("--memory is %d, want 1..1048576 MiB", f.memory)
	case f.interval < time.Second:
		return fmt.Errorf("--interval is %s, want 1s or more", f.interval)
	case !f.follow && (f.listen != "" || cmd.Flags().Changed("interval")):
		return errors.New("--listen and --interval are for --follow")
	case f.explain != "" && (len(f.from) > 0 || len(f.to) > 0 || f.journal != ""):
		return errors.New("--explain tells of one record: leave --from, --to and --journal out")
	case f.journal != "" && f.noLedger:
		return errors.New("--journal is judged against the ledger: leave --no-ledger out")
	}
	return nil
}

func (c *cli) verify(cmd *cobra.Command, flags *verifyFlags) error {
	if err := flags.check(cmd); err != nil {
		return usage(err)
	}
	b, err := c.connect(cmd)
	if err != nil {
		return err
	}
	defer b.close()
	system, closeLedger, err := flags.open(cmd.Context(), b)
	if err != nil {
		return err
	}
	defer closeLedger()
	system.Progress = c.progress()
	switch {
	case flags.explain != "":
		return c.explain(cmd.Context(), system, flags.explain)
	case flags.follow:
		return c.follow(cmd.Context(), system, b.conf, flags)
	default:
		return c.verifyOnce(cmd.Context(), system, b.conf, flags)
	}
}

// open makes what judges; close its ledger when done.
func (f *verifyFlags) open(ctx context.Context, b *brokers) (*verify.System, func(), error) {
	plan, err := f.plan(b.conf)
	if err != nil {
		return nil, nil, usage(err)
	}
	ledger, pool, err := f.openLedger(ctx, b.conf)
	if err != nil {
		return nil, nil, err
	}
	closeLedger := func() {
		if pool != nil {
			pool.Close()
		}
	}
	system, err := verify.NewSystem(ctx, b.client, ledger, b.conf.Group(), plan)
	if err != nil {
		closeLedger()
		return nil, nil, fmt.Errorf("verify: %w: run `processor check --connect`", err)
	}
	system.StableMax = f.wait
	return system, closeLedger, nil
}

// plan says what is to be looked at.
func (f *verifyFlags) plan(conf app.Config) (verify.Plan, error) {
	plan, err := conf.VerifyPlan()
	if err != nil {
		return verify.Plan{}, err
	}
	plan.Shared, plan.Restored, plan.Readers, plan.Journal = f.shared, f.restored, f.readers, f.journal != ""
	plan.Memory, plan.Dir = f.memory<<20, f.dir
	plan.Least = verify.Least{Idle: f.idle || f.follow}
	if f.noLedger {
		plan.Results = ""
	}
	if f.noModel {
		for i := range plan.Inputs {
			plan.Inputs[i].Handler = nil
		}
	}
	return plan, nil
}

// openLedger gives the ledger of the configuration, nil where there is none.
func (f *verifyFlags) openLedger(ctx context.Context, conf app.Config) (*verify.Ledger, *pgxpool.Pool, error) {
	if f.noLedger || !conf.HasLedger() {
		if f.journal != "" {
			return nil, nil, usage(errors.New("--journal is judged against the ledger: set postgres.dsn_file, or PROCESSOR_POSTGRES_DSN"))
		}
		return nil, nil, nil
	}
	pool, _, err := conf.OpenLedger(ctx)
	if err != nil {
		return nil, nil, usage(err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, nil, fmt.Errorf("reach the effect ledger: %w: bring Postgres back, or leave the ledger out with --no-ledger", err)
	}
	return verify.NewLedger(pool, conf.Postgres.Schema), pool, nil
}

// progress tells on stderr what is being done: each step once, and numbers now and then.
func (c *cli) progress() func(string) {
	last := ""
	return func(step string) {
		if step != last {
			last = step
			fmt.Fprintln(c.stderr, c.paint(c.stderr, gray, step))
		}
	}
}

// verifyReport is what `verify -o json` prints, with --follow once for each pass.
type verifyReport struct {
	Application string           `json:"application"`
	Began       time.Time        `json:"began"`
	Took        float64          `json:"took_seconds"`
	Clean       bool             `json:"clean"`
	From        verify.Positions `json:"from"`
	To          verify.Positions `json:"to"`
	verify.Report
}

func newVerifyReport(application string, began time.Time, report verify.Report, covered verify.Coverage) verifyReport {
	return verifyReport{
		Application: application, Began: began.UTC(), Took: covered.Took.Seconds(), Clean: report.Clean(),
		From: covered.From, To: covered.To, Report: report,
	}
}

func (c *cli) verifyOnce(ctx context.Context, system *verify.System, conf app.Config, flags *verifyFlags) error {
	out, err := flags.judge(ctx, system, conf)
	if err != nil {
		return err
	}
	if c.output == outputJSON {
		err = c.render(out, table{})
	} else {
		err = c.printVerify(c.stdout, out)
	}
	if err == nil && !out.Clean {
		err = findings()
	}
	return err
}

// judge makes one pass over the range that the flags name.
func (f *verifyFlags) judge(ctx context.Context, system *verify.System, conf app.Config) (verifyReport, error) {
	window, err := f.window(ctx, system)
	if err != nil {
		return verifyReport{}, err
	}
	if f.journal != "" {
		system.Journal = func(feed func(*verify.Call) error) error { return readJournal(f.journal, feed) }
	}
	began := time.Now()
	report, covered, _, err := system.Pass(ctx, window)
	if err != nil {
		return verifyReport{}, fmt.Errorf("verify: %w", err)
	}
	return newVerifyReport(conf.Application, began, report, covered), nil
}

func readJournal(path string, feed func(*verify.Call) error) error {
	file, err := os.Open(path) //nolint:gosec // the operator names it
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // it was only read
	return verify.ReadJournal(file, feed)
}

// window resolves --from and --to.
func (f *verifyFlags) window(ctx context.Context, system *verify.System) (w verify.Window, err error) {
	from, partsFrom, err := resolve(ctx, system, "--from", f.from)
	if err != nil {
		return w, err
	}
	to, partsTo, err := resolve(ctx, system, "--to", f.to)
	if err != nil {
		return w, err
	}
	w.From, w.To = from, to
	// Where partitions are named the others are left out. A partition that --to leaves out has no end.
	if partsFrom && !partsTo {
		w.To = only(from, to)
	}
	return w, nil
}

// only gives an end for each partition of from: that of to, or none.
func only(from, to verify.Positions) verify.Positions {
	ends := verify.Positions{}
	for topic, partitions := range from {
		ends[topic] = map[int32]int64{}
		for partition := range partitions {
			ends[topic][partition] = math.MaxInt64
			if end, is := to[topic][partition]; is {
				ends[topic][partition] = end
			}
		}
	}
	return ends
}

// resolve reads positions; parts tells that they name partitions.
func resolve(ctx context.Context, system *verify.System, flag string, texts []string) (at verify.Positions, parts bool, err error) {
	if len(texts) == 0 {
		return nil, false, nil
	}
	if when, err := parseMoment(flag, texts[0], time.Now()); err == nil {
		if len(texts) > 1 {
			return nil, false, usage(fmt.Errorf("%s %s is a time, which is for all partitions: give it once", flag, texts[0]))
		}
		at, err = system.Since(ctx, when)
		return at, false, err
	}
	known, err := system.Partitions(ctx)
	if err != nil {
		return nil, false, err
	}
	at = verify.Positions{}
	for _, text := range texts {
		place, err := verify.ParsePlace(text)
		if err != nil {
			return nil, false, usage(fmt.Errorf("%s %q is no position: want a time such as 2026-11-23T08:00:00Z, an age such as 2h, or topic/partition/offset", flag, text))
		}
		if _, exists := known[place.Topic][place.Partition]; !exists {
			return nil, false, usage(fmt.Errorf("%s %s: that is no partition of an input: the inputs are %s", flag, text, strings.Join(slices.Sorted(maps.Keys(known)), ", ")))
		}
		if at[place.Topic] == nil {
			at[place.Topic] = map[int32]int64{}
		}
		at[place.Topic][place.Partition] = place.Offset
	}
	return at, true, nil
}

// printVerify is the report for people.
func (c *cli) printVerify(w io.Writer, r verifyReport) error {
	saw := r.Saw
	n := func(n int64) string { return strconv.FormatInt(n, 10) }
	facts := table{rows: [][]string{
		{"application", r.Application},
		{"inputs", n(saw.Judged) + " judged, " + n(saw.Modelled) + " of them by their handlers" + if0(saw.Silent, ", %d led to nothing and no handler says whether they should")},
		{"outcomes", n(saw.Outputs) + " outputs, " + n(saw.DeadLetters) + " dead letters, " + n(saw.Effects) + " effects" + if0(saw.Rejected, ", %d rejected by the engine itself") + if0(saw.Foreign, ", %d of others") + if0(saw.Outside, ", %d outside the range") + if0(saw.Expired, ", %d may have been deleted by retention")},
		{"aborted", n(saw.Aborted) + " records that no reader sees; " + n(saw.Commits) + " commit and " + n(saw.Aborts) + " abort markers"},
	}}
	if saw.Rows > 0 || saw.Outcomes > 0 {
		facts.rows = append(facts.rows, []string{"ledger", n(saw.Rows) + " effects, " + n(saw.Outcomes) + " outcomes, " + n(saw.Results) + " result events" + if0(saw.Suppressed, ", %d repeats left out") + if0(saw.Waiting, ", %d on their way")})
	}
	if saw.Calls > 0 {
		facts.rows = append(facts.rows, []string{"calls", n(saw.Calls) + " in the journal, " + n(saw.Executed) + " executed" + if0(saw.Explained, ", %d repeated for a reason") + if0(saw.Stale, ", %d with a stale fence")})
	}
	if err := facts.write(w); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := coveredTable(r).write(w); err != nil {
		return err
	}
	fmt.Fprintln(w)
	return c.printFindings(w, r)
}

func (c *cli) printFindings(w io.Writer, r verifyReport) error {
	if r.Clean {
		_, err := fmt.Fprintf(w, "%s: each input of the range led to one committed outcome (%.1f s)\n", c.paint(w, green, "clean"), r.Took)
		return err
	}
	shown := map[verify.Verdict]int64{}
	for _, one := range r.Findings {
		at := one.At.String()
		if one.At.Topic == "" {
			at = "-"
		}
		shown[one.Verdict]++
		fmt.Fprintf(w, "%s  %s\n    %s\n", c.paint(w, red, string(one.Verdict)), at, one.Story)
	}
	fmt.Fprintln(w)
	for _, verdict := range verify.Verdicts() {
		if count := r.Counts[verdict]; count > 0 {
			fmt.Fprintf(w, "%s: %d%s\n", verdict, count, if0(count-shown[verdict], ", %d of them not shown"))
		}
	}
	_, err := fmt.Fprintf(w, "%s: %s (%.1f s); docs/verify.md says what each verdict means, `processor verify --explain TOPIC/PARTITION/OFFSET` tells the story of a record\n",
		c.paint(w, red, "NOT PROVEN"), count(int(r.Total()), "finding"), r.Took)
	return err
}

// if0 says nothing of none.
func if0(n int64, format string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(format, n)
}

func coveredTable(r verifyReport) table {
	t := table{header: []string{"INPUT", "PARTITION", "FROM", "TO", "OFFSETS"}}
	for _, topic := range slices.Sorted(maps.Keys(r.To)) {
		for _, partition := range slices.Sorted(maps.Keys(r.To[topic])) {
			from, to := r.From[topic][partition], r.To[topic][partition]
			t.rows = append(t.rows, []string{topic, strconv.Itoa(int(partition)), strconv.FormatInt(from, 10), strconv.FormatInt(to, 10), strconv.FormatInt(to-from, 10)})
		}
	}
	return t
}
