package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"pawl/internal/app"
	"pawl/internal/audit"
	"pawl/internal/kafka"
)

func (c *cli) newOffsetsCommand() *cobra.Command {
	return newGroup("offsets", "Show and move the service's offsets in its input topics",
		`  processor offsets show -c config.yaml
  processor offsets set -c config.yaml --topic orders --all-partitions --to earliest --dry-run`,
		c.newOffsetsShowCommand(), c.newOffsetsSetCommand())
}

func (c *cli) newOffsetsShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show the committed offsets",
		Long: `Print the committed offset of each partition of the input topics beside the bounds of its log, and
what is wrong with it: stale, where it was committed for a topic that was deleted and made again
since; lost, where the log no longer holds it.

Exit code 3: an offset is stale or lost.`,
		Args: cobra.NoArgs,
		Example: `  processor offsets show -c config.yaml
  processor offsets show -c config.yaml -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.showOffsets(cmd) },
	}
}

// shownOffset is one line of `offsets show`.
type shownOffset struct {
	kafka.CommittedOffset

	State string `json:"state"` // ok, none, stale, lost or error
	Error string `json:"error,omitempty"`
}

func newShownOffset(from kafka.CommittedOffset) shownOffset {
	shown := shownOffset{CommittedOffset: from, State: "ok"}
	switch {
	case from.Err != nil:
		shown.State, shown.Error = "error", inputError(from.PartitionLag).Error()
	case from.Committed == kafka.NoOffset:
		shown.State = "none"
	case from.Stale:
		shown.State = "stale"
	case from.Committed < from.Start || from.Committed > from.End:
		shown.State = "lost"
	}
	return shown
}

func (c *cli) showOffsets(cmd *cobra.Command) error {
	b, err := c.connect(cmd)
	if err != nil {
		return err
	}
	defer b.close()
	committed, err := kafka.CommittedOffsets(cmd.Context(), b.admin, b.conf.Group(), b.inputs(), b.conf.Preflight().ParseMetadata)
	if err != nil {
		return err
	}
	shown := make([]shownOffset, len(committed))
	t := table{header: []string{"TOPIC", "PARTITION", "COMMITTED", "START", "END", "LAG", "STATE"}, empty: "no input partitions"}
	bad := false
	var errs []error
	for i, one := range committed {
		shown[i] = newShownOffset(one)
		state := shown[i].State
		switch state {
		case "error":
			errs = append(errs, inputError(one.PartitionLag))
			t.rows = append(t.rows, []string{one.Topic, "-", "-", "-", "-", "-", c.paint(c.stdout, red, state)})
			continue
		case "stale", "lost":
			bad = true
			state = c.paint(c.stdout, red, state)
		}
		t.rows = append(t.rows, []string{
			one.Topic, strconv.Itoa(int(one.Partition)), offset(one.Committed), offset(one.Start), offset(one.End),
			strconv.FormatInt(one.Lag, 10), state,
		})
	}
	if err := c.render(shown, t); err != nil {
		return err
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if bad {
		return findings()
	}
	return nil
}

// offsetTarget is what `offsets set` was told.
type offsetTarget struct {
	topic      string
	partitions string
	all        bool
	to         string
	reason     string
}

func (c *cli) newOffsetsSetCommand() *cobra.Command {
	var target offsetTarget
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Move the committed offsets of an input topic",
		Long: `Move the committed offsets of one input topic to another place, after showing what that means and
asking. The group must be without members: stop all instances first. A static member that was stopped
counts until its session times out (kafka.session_timeout), or leaves at once with drain --leave.

Moving backwards processes records again: their outputs are written again with the same pawl-id, and
effects that are in the ledger are suppressed, unless replay_generation is raised first. Moving
forwards skips records for good.

--to is earliest, latest, an offset, or a time (RFC 3339): the first record at or after it.`,
		Args: cobra.NoArgs,
		Example: `  processor offsets set -c config.yaml --topic orders --all-partitions --to earliest --reason "first start"
  processor offsets set -c config.yaml --topic orders --partition 3 --to 4711 --reason "gap of 23 November" --yes
  processor offsets set -c config.yaml --topic orders --partition 0,4-7 --to 2026-11-23T08:00:00Z --dry-run`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.setOffsets(cmd, target) },
	}
	flags := cmd.Flags()
	flags.StringVar(&target.topic, "topic", "", "input `TOPIC`")
	flags.StringVar(&target.partitions, "partition", "", "`PARTITIONS` such as 3 or 0,4-7")
	flags.BoolVar(&target.all, "all-partitions", false, "all partitions of the topic")
	flags.StringVar(&target.to, "to", "", "`POSITION`: earliest, latest, an offset or a time")
	c.addReason(cmd, &target.reason, reasonFlag, "gap of 23 November")
	for _, required := range []string{"topic", "to"} {
		if err := cmd.MarkFlagRequired(required); err != nil {
			panic(err) // the flag was added above
		}
	}
	cmd.MarkFlagsOneRequired("partition", "all-partitions")
	cmd.MarkFlagsMutuallyExclusive("partition", "all-partitions")
	c.addChangeFlags(cmd)
	return cmd
}

// movedOffsets is what `offsets set -o json` prints.
type movedOffsets struct {
	Group   string             `json:"group"`
	Applied bool               `json:"applied"`
	Again   int64              `json:"again"`   // offsets that will be processed again
	Skipped int64              `json:"skipped"` // offsets that will never be
	Moves   []kafka.OffsetMove `json:"moves"`
}

func (c *cli) setOffsets(cmd *cobra.Command, target offsetTarget) error {
	to, err := kafka.ParsePosition(target.to)
	if err != nil {
		return usage(fmt.Errorf("--to: %w", err))
	}
	var partitions []int32 // nil is all
	if !target.all {
		if partitions, err = kafka.ParsePartitions(target.partitions); err != nil {
			return usage(fmt.Errorf("--partition: %w", err))
		}
	}
	b, err := c.connect(cmd)
	if err != nil {
		return err
	}
	defer b.close()
	if inputs := b.inputs(); !slices.Contains(inputs, target.topic) {
		return usage(fmt.Errorf("--topic: %s is no input of %s, whose inputs are %s", target.topic, b.conf.Application, strings.Join(inputs, ", ")))
	}
	moves, err := kafka.PlanOffsets(cmd.Context(), b.client, b.conf.Group(), target.topic, partitions, to)
	if err != nil {
		return err
	}
	moved := movedOffsets{Group: b.conf.Group(), Moves: moves}
	for _, move := range moves {
		moved.Again += move.Again()
		moved.Skipped += move.Skipped()
	}
	if c.output == outputTable {
		if err := c.render(moved, moveTable(moves)); err != nil {
			return err
		}
	}
	c.warnMoves(moved, b.conf.ReplayGeneration)
	if c.dryRun {
		fmt.Fprintln(c.stderr, "dry run: nothing was changed")
	} else {
		if err := c.confirm(fmt.Sprintf("Move %s of group %s?", count(len(moves), "offset"), moved.Group)); err != nil {
			return err
		}
		order := audit.Order{Action: "offsets set", Target: fmt.Sprintf("%s of group %s to %s", places(moves), moved.Group, target.to), Reason: target.reason}
		err := b.audited(cmd.Context(), c, order, func() (string, error) {
			return fmt.Sprintf("%s again, %s skipped", count(int(moved.Again), "offset"), count(int(moved.Skipped), "offset")), kafka.SetOffsets(cmd.Context(), b.admin, moved.Group, moves, app.OffsetMetadata)
		})
		if err != nil {
			return err
		}
		moved.Applied = true
		fmt.Fprintf(c.stderr, "%s moved\n", count(len(moves), "offset"))
	}
	if c.output == outputJSON {
		return c.render(moved, table{})
	}
	return nil
}

// places names the partitions that are moved, and where each stood: an audit without that tells half.
func places(moves []kafka.OffsetMove) string {
	named := make([]string, len(moves))
	for i, move := range moves {
		named[i] = fmt.Sprintf("%s/%d from %s", move.Topic, move.Partition, offset(move.From))
	}
	return strings.Join(named, ", ")
}

func moveTable(moves []kafka.OffsetMove) table {
	t := table{header: []string{"TOPIC", "PARTITION", "FROM", "TO", "AGAIN", "SKIPPED"}}
	for _, move := range moves {
		t.rows = append(t.rows, []string{
			move.Topic, strconv.Itoa(int(move.Partition)), offset(move.From), offset(move.To),
			strconv.FormatInt(move.Again(), 10), strconv.FormatInt(move.Skipped(), 10),
		})
	}
	return t
}

func (c *cli) warnMoves(moved movedOffsets, generation int) {
	warning := c.paint(c.stderr, yellow, "warning:")
	if moved.Again > 0 {
		fmt.Fprintf(c.stderr, "%s %d offsets will be processed again: their outputs are written again with the same pawl-id, and effects that are in the ledger are suppressed; to repeat effects on purpose, raise replay_generation (now %d) before the start\n",
			warning, moved.Again, generation)
	}
	if moved.Skipped > 0 {
		fmt.Fprintf(c.stderr, "%s %d offsets will never be processed\n", warning, moved.Skipped)
	}
}
