package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"

	"pawl/internal/kafka"
	"pawl/internal/pause"
)

// lagReport is what `lag -o json` prints.
type lagReport struct {
	Group      string         `json:"group"`
	Lag        int64          `json:"lag"`  // of all partitions
	Held       int64          `json:"held"` // part of it that open transactions upstream hold back
	Partitions []partitionLag `json:"partitions"`

	PausesError string `json:"pauses_error,omitempty"` // why it is not known what is paused
}

type partitionLag struct {
	kafka.PartitionLag

	Seconds *float64 `json:"seconds,omitempty"` // age of the oldest record that waits; with --seconds
	Reason  string   `json:"reason,omitempty"`  // why it waits, where that is not this service; with --seconds
	Error   string   `json:"error,omitempty"`

	Owner  *owner       `json:"owner,omitempty"`  // the member of the group that has it, where one does
	Paused *pause.Pause `json:"paused,omitempty"` // by operators: the narrowest pause that keeps it from being read
}

// owner is a member of the group: a lane of a process of ours, or else whoever it is.
type owner struct {
	Member   string `json:"member"`             // its static name, or else its client id
	Instance string `json:"instance,omitempty"` // of ours
	Lane     *int   `json:"lane,omitempty"`
	Host     string `json:"host"`
}

// newOwner reads the name <application>.<instance>.<lane>. An instance has no dot in it.
func newOwner(application string, member kafka.Member) *owner {
	o := &owner{Member: cmp.Or(member.Instance, member.Client), Host: member.Host}
	rest, ours := strings.CutPrefix(member.Instance, application+".")
	instance, number, named := strings.Cut(rest, ".")
	if lane, err := strconv.Atoi(number); ours && named && err == nil {
		o.Instance, o.Lane = instance, &lane
	}
	return o
}

func (o *owner) String() string {
	switch {
	case o == nil:
		return ""
	case o.Lane == nil:
		return printable(o.Member)
	default:
		return fmt.Sprintf("%s lane %d", printable(o.Instance), *o.Lane)
	}
}

func (c *cli) newLagCommand() *cobra.Command {
	var seconds bool
	var most int64
	cmd := &cobra.Command{
		Use:   "lag",
		Short: "Show how far the service is behind in its input topics",
		Long: `Print for each partition of the input topics what is committed, where the log ends, and how much lies
between. Transaction markers count, and the service commits past them, so that a service that has
done everything shows 0. HELD is the part of the lag that an open transaction of the input's
producers holds back; see processor txn ls.

With --seconds, one record per partition is read to tell how long the oldest has been waiting, and
for what, where it is not for the service.

OWNER is the instance and the lane that has the partition, as the group says, under either protocol;
it is empty where nobody has it, such as while the group rebalances.

REASON says what operators have paused, by whom, why and until when. It is read from the control
topic as processor pause ls does, which takes Read and Write on it; where that is not allowed, the
command says so and shows the rest.

Exit code 3: the lag is above --max.`,
		Args: cobra.NoArgs,
		Example: `  processor lag -c config.yaml
  processor lag -c config.yaml --seconds
  processor lag -c config.yaml --max 10000 -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.lag(cmd, seconds, most) },
	}
	cmd.Flags().BoolVar(&seconds, "seconds", false, "tell how long the oldest record has been waiting")
	cmd.Flags().Int64Var(&most, "max", -1, "end with exit code 3 if the lag of all partitions is above `RECORDS`")
	return cmd
}

func (c *cli) lag(cmd *cobra.Command, seconds bool, most int64) error {
	b, err := c.connect(cmd)
	if err != nil {
		return err
	}
	defer b.close()
	report, err := findLag(cmd.Context(), b, seconds, c.tellIgnored(b.conf))
	if err != nil {
		return err
	}
	if err := c.render(report, c.lagTable(report, seconds, time.Now())); err != nil {
		return err
	}
	if report.PausesError != "" {
		c.tellUnknown(report.PausesError)
	}
	if err := report.err(); err != nil {
		return err
	}
	if most >= 0 && report.Lag > most {
		return findings()
	}
	return nil
}

// findLag asks how far behind the service is and what is paused; with seconds, for how long, too. ignored may be nil.
func findLag(ctx context.Context, b *brokers, seconds bool, ignored func(pause.Ignored)) (lagReport, error) {
	lags, err := kafka.Lag(ctx, b.admin, b.conf.Group(), b.inputs())
	if err == nil && seconds {
		err = kafka.AddOldest(ctx, b.kafka, lags)
	}
	if err != nil {
		return lagReport{}, err
	}
	_, members, err := kafka.Members(ctx, b.admin, b.conf.Group())
	if err != nil {
		return lagReport{}, err
	}
	report := newLagReport(b.conf.Group(), lags, seconds, time.Now())
	report.addOwners(b.conf.Application, members)
	if len(lags) > 0 {
		report.addPauses(b.lookAtPauses(ctx, ignored))
	}
	return report, nil
}

// addOwners tells who has each partition.
func (r *lagReport) addOwners(application string, members []kafka.Member) {
	for i := range r.Partitions {
		lag := &r.Partitions[i]
		for _, member := range members {
			if lag.Err == nil && member.Owns.Lookup(lag.Topic, lag.Partition) {
				lag.Owner = newOwner(application, member)
			}
		}
	}
}

// addPauses marks what operators have paused.
func (r *lagReport) addPauses(set pause.Set, err error) {
	if err != nil {
		r.PausesError = err.Error()
		return
	}
	for i := range r.Partitions {
		lag := &r.Partitions[i]
		if p, paused := set.Input(lag.Topic, lag.Partition); paused && lag.Err == nil {
			lag.Paused = &p
		}
	}
}

// err tells of the partitions that could not be looked at.
func (r lagReport) err() error {
	errs := make([]error, 0, len(r.Partitions))
	for _, lag := range r.Partitions {
		errs = append(errs, inputError(lag.PartitionLag))
	}
	return errors.Join(errs...)
}

// inputError says why a partition could not be looked at and what to do, nil where it could.
func inputError(lag kafka.PartitionLag) error {
	switch {
	case lag.Err == nil:
		return nil
	case errors.Is(lag.Err, kerr.UnknownTopicOrPartition):
		return fmt.Errorf("input topic %s does not exist: correct routes.topics, or see `processor topics plan`", lag.Topic)
	default:
		return fmt.Errorf("input topic %s: %w: run `processor check --connect`", lag.Topic, lag.Err)
	}
}

func newLagReport(group string, lags []kafka.PartitionLag, seconds bool, now time.Time) lagReport {
	report := lagReport{Group: group, Partitions: []partitionLag{}}
	for _, lag := range lags {
		one := partitionLag{PartitionLag: lag}
		if lag.Err != nil {
			one.Error = inputError(lag).Error()
		}
		if seconds && lag.Err == nil {
			age := 0.0
			if !lag.Oldest.IsZero() {
				age = max(now.Sub(lag.Oldest), 0).Seconds()
			}
			one.Seconds = &age
			if lag.OldestHeld {
				one.Reason = "held back by an open transaction, see processor txn ls --all"
			}
		}
		report.Lag += lag.Lag
		report.Held += lag.Held
		report.Partitions = append(report.Partitions, one)
	}
	return report
}

func (c *cli) lagTable(report lagReport, seconds bool, now time.Time) table {
	t := table{header: []string{"TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "HELD"}, empty: "no input partitions"}
	if seconds {
		t.header = append(t.header, "OLDEST")
	}
	t.header = append(t.header, "OWNER", "REASON")
	for _, lag := range report.Partitions {
		if lag.Error != "" {
			t.rows = append(t.rows, []string{lag.Topic, "-", "-", "-", "-", "-"}) // the error says the rest
			continue
		}
		row := []string{lag.Topic, strconv.Itoa(int(lag.Partition)), offset(lag.Committed), offset(lag.End), c.number(lag.Lag, yellow), c.number(lag.Held, red)}
		if lag.Seconds != nil {
			row = append(row, age(time.Duration(*lag.Seconds*float64(time.Second))))
		}
		t.rows = append(t.rows, append(row, lag.Owner.String(), lag.why(now)))
	}
	if len(report.Partitions) > 1 {
		t.rows = append(t.rows, []string{"total", "", "", "", c.number(report.Lag, yellow), c.number(report.Held, red)})
	}
	return t
}

// why says what a partition waits for, where that is not this service.
func (l partitionLag) why(now time.Time) string {
	if l.Paused == nil {
		return l.Reason
	}
	p, until := l.Paused, "until it is resumed"
	switch overdue := p.Overdue(now); {
	case !p.Until.IsZero():
		until = "until " + p.Until.Local().Format(time.DateTime)
	case overdue > 0:
		until += ", overdue by " + overdue.Round(time.Second).String()
	}
	paused := fmt.Sprintf("paused by %s (%s: %s): %s", p.Target, printable(p.Actor), printable(p.Reason), until)
	if l.Reason == "" {
		return paused
	}
	return paused + "; " + l.Reason
}

// number paints what is not 0.
func (c *cli) number(n int64, in color) string {
	text := strconv.FormatInt(n, 10)
	if n == 0 {
		return text
	}
	return c.paint(c.stdout, in, text)
}

// offset prints an offset, a dash where there is none.
func offset(n int64) string {
	if n == kafka.NoOffset {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

// age prints a duration to two places or so: what matters is its size.
func age(d time.Duration) string {
	switch {
	case d <= 0:
		return "-"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}
