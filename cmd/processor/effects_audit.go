package main

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"pawl/internal/app"
	"pawl/internal/outbox"
)

func (c *cli) newEffectsAuditCommand() *cobra.Command {
	var since, actor string
	most := listMaxDefault
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "List what operators ordered, and what became of it",
		Long: `audit lists the orders to retry and to cancel effects, newest first: who gave them, when and why. An order is open
until the process that dispatches the lane is done with it; then it was obeyed, or it was late: the effect had ended before,
a call that was under way was answered well, or another order was faster. The ledger keeps orders for 90 days.`,
		Example: `  processor effects audit -c config.yaml
  processor effects audit --since 2d --actor anna@ops-1 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := auditSpan(since, most)
			if err != nil {
				return err
			}
			return c.withLedger(cmd, func(_ app.Config, l effectLedger) error {
				audit, err := l.Audit(cmd.Context(), outbox.AuditFilter{Since: from, Actor: actor, Limit: most})
				if err != nil {
					return err
				}
				orders := app.ListAudit(audit)
				return c.render(orders, auditTable(orders))
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&since, "since", "", "only what was ordered since: a `TIME` such as 2026-11-23T10:00:00Z, or 2h or 14d ago")
	flags.StringVar(&actor, "actor", "", "only what `NAME` ordered, as the list shows it")
	flags.IntVar(&most, "max", listMaxDefault, "no more than `NUMBER` orders")
	return cmd
}

func auditTable(orders []app.AuditedOrder) table {
	t := table{header: []string{"ORDER", "TIME", "ACTION", "EFFECT", "ACTOR", "RESULT", "REASON"}, empty: "no orders"}
	for _, o := range orders {
		t.rows = append(t.rows, []string{
			strconv.FormatInt(o.Number, 10), o.Time.Format(time.RFC3339), o.Action, o.Effect, printable(o.Actor), o.Result, shorten(printable(o.Reason), listErrorRunes),
		})
	}
	return t
}

// describeOrder tells what became of an order, and when.
func describeOrder(o app.AuditedOrder) string {
	if o.Ended.IsZero() {
		return o.Result
	}
	return o.Result + " at " + o.Ended.Format(time.RFC3339)
}
