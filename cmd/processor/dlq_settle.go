package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"pawl/internal/audit"
	"pawl/internal/deadletter"
)

const redrivesMaxDefault = 3

func (c *cli) newDLQRedriveCommand() *cobra.Command {
	var (
		flags   letterFlags
		options deadletter.RedriveOptions
		because string
	)
	cmd := &cobra.Command{
		Use:   "redrive [LETTER...]",
		Short: "Send dead letters back to the topics they came from",
		Long: `redrive writes the refused records back to their topics and partitions: key, value, timestamp and headers as they
were, with a count of redrives in the header pawl-redrive. Each letter is redriven once, however often the command
is cut off or repeated: what is done is noted in the same transaction. A second redrive, discard or purge of the
same application ends the first.

A letter that cannot go back is refused, stays as it is and does not stop the others; then the exit code is 3.
Without LETTER and without a filter all open letters go back.`,
		Example: `  processor dlq redrive --reason unknown_version --dry-run
  processor dlq redrive --topic orders --since 2h --because "release 4.2 knows version 3" --yes
  processor dlq redrive 0/42 0/43 --because "the catalogue is repaired"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := flags.filter(args)
			if err != nil {
				return err
			}
			if options.RedrivesMax < 1 {
				return usage(fmt.Errorf("--max-redrives is %d, want 1 or more", options.RedrivesMax))
			}
			order := audit.Order{Action: "dlq redrive", Target: selected(args, flags), Reason: because}
			return c.settle(cmd, order, filter.At, func(queue *deadletter.Queue, how deadletter.Options) (deadletter.Summary, error) {
				how.Filter, how.Max = filter, flags.max
				options.Options = how
				return queue.Redrive(cmd.Context(), options)
			})
		},
	}
	flags.add(cmd, 0)
	c.addReason(cmd, &because, becauseFlag, "release 4.2 repairs them")
	cmd.Flags().IntVar(&options.RedrivesMax, "max-redrives", redrivesMaxDefault, "refuse a letter that has been redriven `NUMBER` times")
	cmd.Flags().BoolVar(&options.Restamp, "restamp", false, "give records the time of the redrive instead of their own")
	cmd.Flags().BoolVar(&options.Recreated, "recreated", false, "also write to topics that were deleted and created again since")
	c.addChangeFlags(cmd)
	return cmd
}

func (c *cli) newDLQDiscardCommand() *cobra.Command {
	var (
		flags      letterFlags
		options    deadletter.DiscardOptions
		everything bool
	)
	cmd := &cobra.Command{
		Use:   "discard [LETTER...]",
		Short: "Give dead letters up",
		Long: `discard marks dead letters as given up: ls hides them and redrive passes them over. They stay readable with
ls --all and show until they are purged. It wants a LETTER, a filter or --everything.`,
		Example: `  processor dlq discard --reason bad_json --until 7d --because "test data of last week"
  processor dlq discard 0/42 --because "settled by phone" --yes`,
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := flags.filter(args)
			if err != nil {
				return err
			}
			if narrow := len(args) > 0 || flags.narrows(); narrow == everything {
				return usage(errors.New("give either letters or a filter, or --everything"))
			}
			order := audit.Order{Action: "dlq discard", Target: selected(args, flags), Reason: options.Reason}
			return c.settle(cmd, order, filter.At, func(queue *deadletter.Queue, how deadletter.Options) (deadletter.Summary, error) {
				how.Filter, how.Max = filter, flags.max
				options.Options = how
				return queue.Discard(cmd.Context(), options)
			})
		},
	}
	flags.add(cmd, 0)
	c.addReason(cmd, &options.Reason, becauseFlag, "settled by phone")
	cmd.Flags().BoolVar(&everything, "everything", false, "all open letters")
	c.addChangeFlags(cmd)
	return cmd
}

// settled is what `dlq redrive` and `dlq discard` print with -o json.
type settled struct {
	Action   string         `json:"action"` // redrive or discard
	DryRun   bool           `json:"dry_run"`
	Letters  int            `json:"letters"` // settled, or under dry_run: would be
	Refused  map[string]int `json:"refused"` // by cause
	Refusals []refusal      `json:"refusals"`
}

type refusal struct {
	Letter string `json:"letter"`
	Cause  string `json:"cause"`
	Error  string `json:"error"`
}

// selected says in a line which letters an order is about.
func selected(positions []string, flags letterFlags) string {
	if len(positions) > 0 {
		return some(positions)
	}
	return flags.String()
}

// settle asks, unless it was told not to, with the number that a dry run finds, and runs. Letters that
// were named must be there, which a filter does not ask for.
func (c *cli) settle(cmd *cobra.Command, order audit.Order, named []deadletter.Position, run func(*deadletter.Queue, deadletter.Options) (deadletter.Summary, error)) error {
	action := strings.TrimPrefix(order.Action, "dlq ")
	queue, err := c.openDeadLetters(cmd)
	if err != nil {
		return err
	}
	defer queue.Close()
	if len(named) > 0 {
		letters, err := findLetters(cmd.Context(), queue.Queue, named)
		if err != nil {
			return err
		}
		for i := range letters {
			if letters[i].State != deadletter.StateOpen {
				fmt.Fprintf(c.stderr, "%s is %s already\n", letters[i].Position(), letters[i].State)
			}
		}
	}
	var summary deadletter.Summary
	if c.dryRun || !c.yes {
		if summary, err = run(queue.Queue, deadletter.Options{DryRun: true}); err != nil {
			return err
		}
		if c.dryRun || summary.Settled == 0 {
			return c.renderSettled(action, summary)
		}
		verb := map[string]string{"redrive": "Redrive", "discard": "Discard"}[action]
		question := fmt.Sprintf("%s %s?", verb, count(summary.Settled, "dead letter"))
		if refused := total(summary.Refused); refused > 0 {
			question = fmt.Sprintf("%s %s (%d more can not go back)?", verb, count(summary.Settled, "dead letter"), refused)
		}
		if err := c.confirm(question); err != nil {
			return err
		}
	}
	moving := isTerminal(c.stderr)
	progress := func(s deadletter.Summary) {
		if moving {
			fmt.Fprintf(c.stderr, "\r%s: %s", action, count(s.Settled, "letter"))
		}
	}
	err = c.audited(cmd.Context(), queue.conf, queue.client, order, func() (detail string, err error) {
		summary, err = run(queue.Queue, deadletter.Options{Progress: progress})
		return fmt.Sprintf("%s settled, %d refused", count(summary.Settled, "letter"), total(summary.Refused)), err
	})
	if moving && summary.Settled > 0 {
		fmt.Fprintln(c.stderr)
	}
	if err != nil {
		return fmt.Errorf("%w (until then: %s done)", err, count(summary.Settled, "letter"))
	}
	return c.renderSettled(action, summary)
}

func total[K comparable](counts map[K]int) int {
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return sum
}

func (c *cli) renderSettled(action string, summary deadletter.Summary) error {
	result := settled{Action: action, DryRun: c.dryRun, Letters: summary.Settled, Refused: map[string]int{}, Refusals: []refusal{}}
	done := map[string]string{"redrive": "redriven", "discard": "discarded"}[action]
	if c.dryRun {
		done = "would " + action
	}
	t := table{rows: [][]string{{done, count(summary.Settled, "letter")}}}
	for _, cause := range slices.Sorted(maps.Keys(summary.Refused)) {
		result.Refused[string(cause)] = summary.Refused[cause]
		t.rows = append(t.rows, []string{"refused: " + string(cause), count(summary.Refused[cause], "letter")})
	}
	for _, r := range summary.Refusals {
		told := refusal{Letter: r.Letter.String(), Cause: string(r.Cause), Error: r.Err.Error()}
		result.Refusals = append(result.Refusals, told)
		t.rows = append(t.rows, []string{"  " + told.Letter, printable(told.Error)})
	}
	if err := c.render(result, t); err != nil {
		return err
	}
	if refused := total(summary.Refused); refused > 0 {
		if more := refused - len(summary.Refusals); more > 0 {
			fmt.Fprintf(c.stderr, "%d more were refused and are not listed\n", more)
		}
		return findings()
	}
	return nil
}

// purged is what `dlq purge` prints with -o json.
type purged struct {
	DryRun  bool `json:"dry_run"`
	Letters int  `json:"letters"`
	Markers int  `json:"markers"`
}

func (c *cli) newDLQPurgeCommand() *cobra.Command {
	var because string
	cmd := &cobra.Command{
		Use:   "purge",
		Short: "Delete dead letters that are redriven or discarded",
		Long: `purge deletes what is redriven or discarded from the dead-letter topic, and then the markers that say so. Kafka
deletes from the front of a partition only: one open letter keeps all that stand behind it.`,
		Example: `  processor dlq purge --dry-run
  processor dlq purge --because "all is settled" --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			queue, err := c.openDeadLetters(cmd)
			if err != nil {
				return err
			}
			defer queue.Close()
			found, err := queue.Purge(cmd.Context(), true)
			if err != nil {
				return err
			}
			if !c.dryRun && found != (deadletter.Purged{}) {
				if err := c.confirm(fmt.Sprintf("Delete %s for good?", count(found.Letters, "settled dead letter"))); err != nil {
					return err
				}
				order := audit.Order{Action: "dlq purge", Target: queue.conf.DeadLetterTopic(), Reason: because}
				err = c.audited(cmd.Context(), queue.conf, queue.client, order, func() (detail string, err error) {
					found, err = queue.Purge(cmd.Context(), false)
					return count(found.Letters, "letter") + " deleted", err
				})
				if err != nil {
					return err
				}
			}
			verb := "deleted"
			if c.dryRun {
				verb = "would delete"
			}
			return c.render(purged{DryRun: c.dryRun, Letters: found.Letters, Markers: found.Markers}, table{rows: [][]string{
				{verb, count(found.Letters, "letter")},
				{"", count(found.Markers, "marker")},
			}})
		},
	}
	c.addReason(cmd, &because, becauseFlag, "all is settled")
	c.addChangeFlags(cmd)
	return cmd
}
