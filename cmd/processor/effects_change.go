package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"pawl/internal/app"
	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger"
)

func (c *cli) newEffectsRetryCommand() *cobra.Command {
	return c.newOrderCommand(outbox.RetryNow, &cobra.Command{
		Use:   "retry [EFFECT...]",
		Short: "Send effects again, with their ids",
		Long: `retry orders that effects are sent now: dead ones begin anew with their attempts, parked ones do not wait any longer.
The id stays, so that a receiver that has seen the call makes no second one of it. A second outcome is a second result
event. An effect that is unknown may have been made already: only name such a one when you know better.

The process that dispatches the lane carries the order out within seconds; until then it waits in the ledger. EFFECT is
lane:offset or an id; without it --state and the other filters choose. What is in another state is refused, does
not stop the others, and makes the exit code 3.`,
		Example: `  processor effects retry 3:42 --reason "bank is back" -c config.yaml
  processor effects retry --state dead --endpoint payments --reason "bank is back" --dry-run
  processor effects retry --state parked --endpoint payments --max 1000 --reason "fixed" --yes`,
	})
}

func (c *cli) newEffectsCancelCommand() *cobra.Command {
	return c.newOrderCommand(outbox.Cancel, &cobra.Command{
		Use:   "cancel [EFFECT...]",
		Short: "Give effects up without sending them any more",
		Long: `cancel orders that effects are dead: their result event says so, with the reason. A call that is being made is not
taken back: if it succeeds, the effect is done. With an effect that is dead already nothing changes but for those that
wait for it (on_dead: hold), which go on.

The process that dispatches the lane carries the order out within seconds. EFFECT is lane:offset or an id; without
it --state and the other filters choose. What is in another state is refused, does not stop the others, and makes
the exit code 3.`,
		Example: `  processor effects cancel 3:42 --reason "settled by phone" -c config.yaml
  processor effects cancel --state parked --endpoint legacy --older 2d --reason "receiver is gone" --dry-run`,
	})
}

func (c *cli) newOrderCommand(action outbox.Action, cmd *cobra.Command) *cobra.Command {
	var flags effectFlags
	var reason string
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		filter, filterErr := flags.filter()
		targets, targetsErr := parseTargets(args)
		errs := []error{filterErr, targetsErr}
		switch {
		case len(args) > 0 && flags.narrows():
			errs = append(errs, errors.New("give either effects or filters"))
		case len(args) == 0 && flags.state == "":
			errs = append(errs, fmt.Errorf("give effects, or --state with one of %s", app.StateNames(app.FitsOrder(action))))
		case len(args) == 0 && !slices.Contains(app.FitsOrder(action), filter.State):
			errs = append(errs, fmt.Errorf("--state is %q, and one can %s what is %s", flags.state, action, app.StateNames(app.FitsOrder(action))))
		}
		if err := errors.Join(errs...); err != nil {
			return usage(err)
		}
		return c.withLedger(cmd, func(_ app.Config, l effectLedger) error {
			effects, err := chooseEffects(cmd.Context(), l, targets, filter)
			if err != nil {
				return err
			}
			return c.orderEffects(cmd.Context(), l, app.PlanOrders(action, effects, c.actor(), reason))
		})
	}
	flags.addState(cmd)
	flags.add(cmd)
	c.addReason(cmd, &reason, reasonFlag, "the receiver is repaired")
	c.addChangeFlags(cmd)
	return cmd
}

func chooseEffects(ctx context.Context, l effectLedger, targets []effectTarget, filter ledger.Filter) ([]ledger.Effect, error) {
	if len(targets) > 0 {
		return findEffects(ctx, l, targets)
	}
	return l.List(ctx, filter)
}

func (c *cli) orderEffects(ctx context.Context, l effectLedger, orders app.Ordered) error {
	if n := len(orders.Effects); !c.dryRun && n > 0 {
		if err := c.confirm(fmt.Sprintf("%s %s?", strings.ToUpper(orders.Action[:1])+orders.Action[1:], count(n, "effect"))); err != nil {
			return err
		}
	}
	if !c.dryRun {
		if err := orders.Give(ctx, l); err != nil {
			return fmt.Errorf("%w (until then: %s ordered; see `processor effects audit` before you repeat it)", err, count(len(orders.Effects), "effect"))
		}
	}
	return c.renderOrdered(orders)
}

func (c *cli) renderOrdered(orders app.Ordered) error {
	done := "ordered to " + orders.Action
	if orders.DryRun {
		done = "would " + orders.Action
	}
	t := table{rows: [][]string{{done, count(len(orders.Effects), "effect")}}}
	for _, refused := range orders.Refused {
		wanted := app.StateNames(app.FitsOrder(outbox.Action(orders.Action)))
		t.rows = append(t.rows, []string{"refused: " + refused.Effect, "it is " + refused.State + ", want " + wanted})
	}
	if err := c.render(orders, t); err != nil {
		return err
	}
	if len(orders.Refused) > 0 {
		return findings()
	}
	return nil
}

// actor says who gives an order, as far as a program can know.
func (c *cli) actor() string {
	name := c.getenv("USER")
	if name == "" {
		name = "unknown"
	}
	host, err := os.Hostname()
	if err != nil {
		return name
	}
	return name + "@" + host
}
