package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"pawl/internal/app"
	"pawl/internal/outbox/ledger"
	"pawl/internal/pause"
)

func (c *cli) newEffectsCommand() *cobra.Command {
	return newGroup("effects", "Look at effects, send them again or cancel them",
		`  processor effects ls -c config.yaml
  processor effects ls --group
  processor effects show 3:42
  processor effects dead ls --endpoint payments
  processor effects retry --state dead --endpoint payments --reason "bank is back" --dry-run
  processor effects cancel 3:42 --reason "settled by phone"
  processor effects audit --since 2d`,
		c.newEffectsListCommand(), c.newEffectsShowCommand(), c.newEffectsDeadCommand(), c.newEffectsRetryCommand(), c.newEffectsCancelCommand(), c.newEffectsAuditCommand())
}

func (c *cli) newEffectsDeadCommand() *cobra.Command {
	return newGroup("dead", "Look at effects that were given up",
		`  processor effects dead ls -c config.yaml
  processor effects dead ls --endpoint payments --older 2d -o json`,
		c.newEffectsDeadListCommand())
}

// effectFlags are the flags that select effects.
type effectFlags struct {
	state, endpoint, key, older string
	max                         int
}

func (f *effectFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.endpoint, "endpoint", "", "only effects for `ENDPOINT`")
	flags.StringVar(&f.key, "key", "", "only effects with this order `KEY`")
	flags.StringVar(&f.older, "older", "", "only effects that are older than this `TIME`, such as 10m or 2d")
	flags.IntVar(&f.max, "max", listMaxDefault, "no more than `NUMBER` effects")
}

func (f *effectFlags) addState(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.state, "state", "", "only effects in `STATE`: "+app.StateNames(app.EffectStates()))
}

// narrows tells whether any flag selects.
func (f *effectFlags) narrows() bool { return f.state+f.endpoint+f.key+f.older != "" }

// filter reads the flags.
func (f *effectFlags) filter() (ledger.Filter, error) {
	filter, err := app.EffectQuery{State: f.state, Endpoint: f.endpoint, Key: f.key, Older: f.older}.Filter("--")
	filter.Limit = f.max
	if f.max < 1 {
		err = errors.Join(err, fmt.Errorf("--max is %d, want 1 or more", f.max))
	}
	return filter, usage(err)
}

func (c *cli) newEffectsListCommand() *cobra.Command {
	var flags effectFlags
	var group bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List effects, without their contents",
		Long: `ls lists effects by state, lane and offset; without --state all but those that ended well. pending waits for its
turn or is being sent, inflight is an at-most-once call that was begun, parked waits for its next attempt, for the
effect before it with the same key, or for an operator; dead was given up, unknown may or may not have been made,
conflict has a business key that was used with another body. done and duplicate ended well.

Below the table stands one line for each endpoint that operators hold. That is read from the control topic, as
` + "`processor pause ls`" + ` does; where the brokers are away or do not allow it, the list stands all the same.`,
		Example: `  processor effects ls -c config.yaml
  processor effects ls --state parked --endpoint payments --older 1h
  processor effects ls --key customer-17 -o json
  processor effects ls --group`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := flags.filter()
			if err != nil {
				return err
			}
			if group && flags.narrows() {
				return usage(errors.New("--group counts everything: leave the other flags out"))
			}
			return c.withLedger(cmd, func(conf app.Config, l effectLedger) error {
				if err := c.listOrCount(cmd, l, filter, group); err != nil {
					return err
				}
				c.tellHolds(cmd.Context(), conf, filter.Endpoint)
				return nil
			})
		},
	}
	flags.addState(cmd)
	flags.add(cmd)
	cmd.Flags().BoolVar(&group, "group", false, "count by endpoint instead")
	return cmd
}

func (c *cli) listOrCount(cmd *cobra.Command, l effectLedger, filter ledger.Filter, group bool) error {
	if !group {
		return c.listEffects(cmd, l, filter)
	}
	backlogs, err := l.Summary(cmd.Context())
	if err != nil {
		return err
	}
	return c.renderBacklogs(backlogs)
}

// tellHolds says below a list of effects which endpoints operators hold, one or all. The ledger does not know that, and the
// brokers may be away: the list stands by then. For machines there is `pause ls`.
func (c *cli) tellHolds(ctx context.Context, conf app.Config, endpoint string) {
	if c.output == outputJSON {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, pauseLookTimeout)
	defer cancel()
	set, err := c.findPauses(ctx, conf)
	if err != nil {
		c.tellUnknown(err.Error())
		return
	}
	for _, p := range set.List() {
		if name, is := p.Target.Endpoint(); is && (endpoint == "" || endpoint == name) {
			fmt.Fprintln(c.stderr, printable(p.String()))
		}
	}
}

// findPauses gives what is paused over a connection of its own.
func (c *cli) findPauses(ctx context.Context, conf app.Config) (pause.Set, error) {
	b, err := c.connectTo(ctx, conf)
	if err != nil {
		return nil, fmt.Errorf("what is held is not known: %w", err)
	}
	defer b.close()
	return b.lookAtPauses(ctx, c.tellIgnored(conf))
}

func (c *cli) newEffectsDeadListCommand() *cobra.Command {
	flags := effectFlags{state: string(ledger.Dead)}
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List effects that were given up",
		Long:  `ls lists dead effects: refused for good, out of attempts, too old, or cancelled. retry sends them again with their ids.`,
		Example: `  processor effects dead ls -c config.yaml
  processor effects dead ls --endpoint payments --older 2d -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := flags.filter()
			if err != nil {
				return err
			}
			return c.withLedger(cmd, func(_ app.Config, l effectLedger) error { return c.listEffects(cmd, l, filter) })
		},
	}
	flags.add(cmd)
	return cmd
}

func (c *cli) listEffects(cmd *cobra.Command, l effectLedger, filter ledger.Filter) error {
	most := filter.Limit
	filter.Limit++ // to see whether there are more
	effects, err := l.List(cmd.Context(), filter)
	if err != nil {
		return err
	}
	more := len(effects) > most
	effects = effects[:min(most, len(effects))]
	listed := make([]app.ListedEffect, 0, len(effects))
	for i := range effects {
		listed = append(listed, app.ListEffect(&effects[i]))
	}
	if err := c.render(listed, effectTable(listed, time.Now())); err != nil {
		return err
	}
	if more {
		fmt.Fprintf(c.stderr, "there are more than %d: narrow the search, raise --max, or count them with --group\n", most)
	}
	return nil
}

const listKeyBytes = 24

func effectTable(listed []app.ListedEffect, now time.Time) table {
	t := table{header: []string{"EFFECT", "STATE", "AGE", "ENDPOINT", "KEY", "ATTEMPTS", "STATUS", "WAITS FOR", "ERROR"}, empty: "no effects"}
	for _, l := range listed {
		status := "-"
		if l.HTTPStatus > 0 {
			status = strconv.Itoa(l.HTTPStatus)
		}
		t.rows = append(t.rows, []string{
			l.Effect, l.State, age(now.Sub(l.Committed)), printable(l.Endpoint), shorten(app.PreviewBytes(l.Key, listKeyBytes), 2*listKeyBytes), strconv.Itoa(l.Attempts), status,
			describeWait(l), shorten(printable(l.Error), listErrorRunes),
		})
	}
	return t
}

func describeWait(l app.ListedEffect) string {
	if l.Waits == app.WaitsTime {
		return age(time.Duration(l.NextSeconds * float64(time.Second)))
	}
	return l.Waits
}

// countedEffects is one line of `effects ls --group -o json`.
type countedEffects struct {
	Endpoint string    `json:"endpoint"`
	Pending  int64     `json:"pending"`
	AtLeast  bool      `json:"at_least"` // there are more pending than were counted
	Parked   int64     `json:"parked"`
	Dead     int64     `json:"dead"`
	Unknown  int64     `json:"unknown"`
	Conflict int64     `json:"conflict"`
	Oldest   time.Time `json:"oldest,omitzero"` // commit of the oldest that is not settled
}

func countEffects(backlogs []ledger.Backlog) []countedEffects {
	counted := make([]countedEffects, 0, len(backlogs))
	for _, b := range backlogs {
		counted = append(counted, countedEffects{b.Endpoint, b.Pending, b.AtLeast, b.Parked, b.Dead, b.Unknown, b.Conflict, b.Oldest})
	}
	return counted
}

func (c *cli) renderBacklogs(backlogs []ledger.Backlog) error {
	t := table{header: []string{"ENDPOINT", "PENDING", "PARKED", "DEAD", "UNKNOWN", "CONFLICT", "OLDEST"}, empty: "no effects"}
	for _, b := range backlogs {
		pending, oldest := strconv.FormatInt(b.Pending, 10), "-"
		if b.AtLeast {
			pending = ">=" + pending
		}
		if !b.Oldest.IsZero() {
			oldest = age(time.Since(b.Oldest))
		}
		t.rows = append(t.rows, []string{
			printable(b.Endpoint), pending, strconv.FormatInt(b.Parked, 10), strconv.FormatInt(b.Dead, 10),
			strconv.FormatInt(b.Unknown, 10), strconv.FormatInt(b.Conflict, 10), oldest,
		})
	}
	return c.render(countEffects(backlogs), t)
}
