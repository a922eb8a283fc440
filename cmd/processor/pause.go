package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"

	"pawl/internal/app"
	"pawl/internal/pause"
)

const (
	pauseAskTimeout  = 30 * time.Second // for the brokers to say what is paused
	pauseLookTimeout = 10 * time.Second // the same, where a command shows it beside something else
)

func (c *cli) newPauseCommand() *cobra.Command {
	cmd := c.newPauseOrderCommand(app.PauseInput, &cobra.Command{
		Use:   "pause TARGET...",
		Short: "Stop reading input for a while, in all processes, or list what is paused",
		Long: `pause makes every process of the application stop reading a TARGET within a second or two: input (all of it),
input/TOPIC or input/TOPIC/PARTITION. What is in hand is finished and committed; the offset stays, the lag grows and is
shown. A pause survives restarts, moves with its partition and holds for processes that start later. It lies in the
control topic, so that no process need run, and no database is needed.

It stays until ` + "`processor resume`" + `, or ends by itself after --for. Without --for it is reported as overdue after
--expect, an hour if that is not given (alert PawlPauseOverdue). The newest order about a target counts.`,
		Example: `  processor pause input/orders/3 --reason "bad data from upstream" -c config.yaml
  processor pause input/orders --for 30m --reason "maintenance of the warehouse" --yes
  processor pause input --expect 4h --reason "incident 4711"
  processor pause ls -o json`,
	})
	cmd.AddCommand(c.newPauseListCommand())
	return cmd
}

func (c *cli) newHoldCommand() *cobra.Command {
	return c.newPauseOrderCommand(app.HoldEndpoint, &cobra.Command{
		Use:   "hold endpoint/NAME...",
		Short: "Stop calling an endpoint for a while, in all processes",
		Long: `hold makes every process of the application stop calling an endpoint within a second or two. Calls under way are
finished. Effects wait in the ledger, in the order of their keys, and use up no attempts; other endpoints are called as
ever. For the rest a hold is what a pause of input is, see ` + "`processor pause --help`" + `; ` + "`processor pause ls`" + ` lists both.`,
		Example: `  processor hold endpoint/payments --reason "the bank asked us to" -c config.yaml
  processor hold endpoint/payments --for 2h --reason "maintenance of the bank" --yes`,
	})
}

func (c *cli) newResumeCommand() *cobra.Command {
	return c.newPauseOrderCommand(app.Resume, &cobra.Command{
		Use:   "resume TARGET...",
		Short: "End a pause of input or a hold of an endpoint, in all processes",
		Long: `resume ends a pause or a hold: TARGET is one that ` + "`processor pause ls`" + ` lists. A partition that was paused by itself
and with its topic needs both to be resumed. Reading goes on at the committed offset, calls at the oldest effect of each key.`,
		Example: `  processor resume input/orders/3 --reason "data is repaired" -c config.yaml
  processor resume endpoint/payments --reason "the bank is back" --yes`,
	})
}

func (c *cli) newPauseOrderCommand(action app.PauseAction, cmd *cobra.Command) *cobra.Command {
	order := app.PauseOrder{Action: action}
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage(fmt.Errorf("give what to %s: input, input/TOPIC, input/TOPIC/PARTITION or endpoint/NAME", action))
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		order.Actor = c.actor()
		return c.withPauses(cmd, func(b *brokers, board *pause.Board) error {
			plans, errs := make([]app.PausePlan, 0, len(args)), make([]error, 0, len(args))
			for _, target := range args {
				order.Target = target
				plan, err := b.conf.PlanPause(cmd.Context(), order, time.Now(), board.Set(), app.CountPartitions(b.client))
				plans, errs = append(plans, plan), append(errs, err)
			}
			if err := errors.Join(errs...); err != nil {
				return usage(err)
			}
			return c.orderPauses(cmd.Context(), board, plans)
		})
	}
	flags := cmd.Flags()
	c.addReason(cmd, &order.Reason, reasonFlag, "bad data from the shop")
	if action != app.Resume {
		flags.StringVar(&order.For, "for", "", "`TIME` such as 30m after which it ends by itself")
		flags.StringVar(&order.Expect, "expect", "", "`TIME` after which it is reported as overdue (default 1h)")
		cmd.MarkFlagsMutuallyExclusive("for", "expect")
	}
	c.addChangeFlags(cmd)
	return cmd
}

// withPauses connects, reads what is paused and runs what is to be done.
func (c *cli) withPauses(cmd *cobra.Command, do func(*brokers, *pause.Board) error) error {
	b, err := c.connect(cmd)
	if err != nil {
		return err
	}
	defer b.close()
	return b.withBoard(cmd.Context(), pauseAskTimeout, c.tellIgnored(b.conf), func(board *pause.Board) error { return do(b, board) })
}

// tellIgnored warns of notes that can't be read.
func (c *cli) tellIgnored(conf app.Config) func(pause.Ignored) {
	return func(i pause.Ignored) {
		fmt.Fprintf(c.stderr, "%s the note %s in %s can't be read and is ignored: %v\n", c.paint(c.stderr, yellow, "warning:"), i.Key, conf.ControlTopic(), i.Err)
	}
}

// withBoard reads what is paused and runs what is to be done.
func (b *brokers) withBoard(ctx context.Context, timeout time.Duration, ignored func(pause.Ignored), do func(*pause.Board) error) error {
	options, err := b.kafka.Options()
	if err != nil {
		return usage(err)
	}
	asking, enough := context.WithTimeout(ctx, timeout)
	defer enough()
	var trouble error // of the board's goroutine, until that has ended
	board, err := b.conf.OpenPauses(options, pause.Hooks{
		Retrying: func(err error) {
			trouble = err
			if errors.Is(err, kerr.TopicAuthorizationFailed) {
				enough() // it will not be allowed by waiting
			}
		},
		Ignored: ignored,
	})
	if err != nil {
		return err
	}
	defer board.Close()
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- board.Run(ctx) }()
	err = board.Refresh(asking)
	known := err == nil
	if known {
		err = do(board)
	}
	cancel()
	err = errors.Join(err, <-done)
	switch {
	case known || trouble == nil || asking.Err() == nil:
		return err // nobody waited for what went wrong behind it
	case errors.Is(trouble, kerr.TopicAuthorizationFailed):
		return trouble
	default:
		return fmt.Errorf("%w; %w", err, trouble)
	}
}

// lookAtPauses gives what is paused to a command that shows it beside something else, and goes on without.
func (b *brokers) lookAtPauses(ctx context.Context, ignored func(pause.Ignored)) (set pause.Set, err error) {
	err = b.withBoard(ctx, pauseLookTimeout, ignored, func(board *pause.Board) error {
		set = board.Set()
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("what is paused is not known: %w", err)
	}
	return set, nil
}

// tellUnknown says in one line why what is paused is not shown.
func (c *cli) tellUnknown(why string) {
	fmt.Fprintf(c.stderr, "%s %s\n", c.paint(c.stderr, yellow, "warning:"), printable(strings.ReplaceAll(why, "\n", "; ")))
}

func (c *cli) orderPauses(ctx context.Context, board *pause.Board, plans []app.PausePlan) error {
	names := make([]string, len(plans))
	for i, plan := range plans {
		names[i] = string(plan.Target)
	}
	action := string(plans[0].Action)
	if !c.dryRun {
		if err := c.confirm(fmt.Sprintf("%s %s in all processes?", strings.ToUpper(action[:1])+action[1:], strings.Join(names, ", "))); err != nil {
			return err
		}
		for i, plan := range plans {
			if err := plan.Give(ctx, board); err != nil {
				return fmt.Errorf("%w (ordered until then: %d of %d; see `processor pause ls` before you repeat it)", err, i, len(plans))
			}
		}
	}
	done := "ordered: " + action
	if c.dryRun {
		done = "would " + action
	}
	t := table{}
	for _, plan := range plans {
		note := ""
		switch {
		case len(plan.Below) > 0:
			note = fmt.Sprintf("still paused by %s", plan.Below[0])
		case !plan.Until.IsZero():
			note = "until " + plan.Until.Local().Format(time.DateTime)
		case !plan.Expect.IsZero():
			note = "until it is resumed; overdue from " + plan.Expect.Local().Format(time.DateTime)
		}
		t.rows = append(t.rows, []string{done, string(plan.Target), note})
	}
	return c.render(struct {
		DryRun bool            `json:"dry_run"`
		Orders []app.PausePlan `json:"orders"`
	}{c.dryRun, plans}, t)
}

func (c *cli) newPauseListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List what is paused or held now",
		Long: `List what operators have paused, input and endpoints, by whom, why, and until when. It is read from the control topic:
no process need run. To know that all of it was read, the command writes a record without meaning to that topic.`,
		Args: cobra.NoArgs,
		Example: `  processor pause ls -c config.yaml
  processor pause ls -c config.yaml -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withPauses(cmd, func(_ *brokers, board *pause.Board) error { return c.listPauses(board.Set().List(), time.Now()) })
		},
	}
}

func (c *cli) listPauses(list []pause.Pause, now time.Time) error {
	t := table{header: []string{"TARGET", "SINCE", "ENDS", "BY", "REASON"}, empty: "nothing is paused"}
	for _, p := range list {
		ends := "when resumed"
		switch overdue := p.Overdue(now); {
		case !p.Until.IsZero():
			ends = p.Until.Local().Format(time.DateTime)
		case overdue > 0:
			ends = c.paint(c.stdout, yellow, "overdue by "+overdue.Round(time.Second).String())
		}
		t.rows = append(t.rows, []string{string(p.Target), p.Since.Local().Format(time.DateTime), ends, p.Actor, p.Reason})
	}
	return c.render(list, t)
}
