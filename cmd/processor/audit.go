package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/app"
	"pawl/internal/audit"
)

func (c *cli) newAuditCommand() *cobra.Command {
	var since string
	most := listMaxDefault
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "List what operators ordered: drains, moved offsets, aborts, settled dead letters, rebuilds",
		Long: `audit lists the orders of operators to this application, newest first: who gave them, when and why, and what became of
them. They stand in the control topic: drain, offsets set, txn abort, ledger rebuild, dlq redrive, dlq discard and dlq purge.
An order that is begun goes on, or was cut off: it may have been carried out.

Orders about effects stand in the ledger: ` + "`processor effects audit`" + `. What is paused, and by whom: ` + "`processor pause ls`" + `.
To know that all was read, the command writes a record without meaning to the control topic.`,
		Example: `  processor audit -c config.yaml
  processor audit --since 2d -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := auditSpan(since, most)
			if err != nil {
				return err
			}
			b, err := c.connect(cmd)
			if err != nil {
				return err
			}
			defer b.close()
			orders, err := readAudit(cmd.Context(), b, from, most)
			if orders != nil || err == nil {
				err = errors.Join(c.render(orders, orderTable(orders)), err)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&since, "since", "", "only what was ordered since: a `TIME` such as 2026-11-23T10:00:00Z, or 2h or 14d ago")
	cmd.Flags().IntVar(&most, "max", listMaxDefault, "no more than `NUMBER` orders")
	return cmd
}

// auditSpan judges what a list of orders was told.
func auditSpan(since string, most int) (from time.Time, err error) {
	from, err = parseMoment("--since", since, time.Now())
	if most < 1 {
		err = errors.Join(err, fmt.Errorf("--max is %d, want 1 or more", most))
	}
	return from, usage(err)
}

// readAudit gives the orders; those that this release can't read are an error beside them.
func readAudit(ctx context.Context, b *brokers, since time.Time, most int) ([]audit.Entry, error) {
	options, err := b.kafka.Options()
	if err != nil {
		return nil, usage(err)
	}
	trail, err := b.conf.OpenAudit(options)
	if err != nil {
		return nil, err
	}
	defer trail.Close()
	orders, err := trail.Read(ctx, since, most)
	if orders == nil && err == nil {
		orders = []audit.Entry{} // [] in JSON, not null
	}
	return orders, err
}

func orderTable(orders []audit.Entry) table {
	t := table{header: []string{"TIME", "ACTION", "TARGET", "ACTOR", "RESULT", "DETAIL", "REASON"}, empty: "no orders"}
	for _, o := range orders {
		t.rows = append(t.rows, []string{
			o.At.Format(time.RFC3339), printable(o.Action), shorten(printable(o.Target), listErrorRunes), printable(o.Actor), printable(string(o.Result)),
			shorten(printable(o.Detail), listErrorRunes), shorten(printable(o.Reason), listErrorRunes),
		})
	}
	return t
}

// audited carries an order out, with a record of who gave it, why, and what became of it. do says how many or how far.
//
// An order that can't be written down is carried out all the same, and that is said: whoever may give it to the brokers could
// do so without this program, and an incident is no time to be refused for the state of the control topic.
func (c *cli) audited(ctx context.Context, conf app.Config, client []kgo.Opt, order audit.Order, do func() (detail string, err error)) error {
	order.Actor = c.actor()
	trail, err := conf.OpenAudit(client)
	if err != nil {
		return err
	}
	defer trail.Close()
	entry, unwritten := trail.Begin(ctx, order)
	detail, err := do()
	if unwritten == nil {
		unwritten = trail.End(ctx, entry, detail, err)
	}
	if unwritten != nil {
		fmt.Fprintf(c.stderr, "%s the audit does not have this: %v\n", c.paint(c.stderr, yellow, "warning:"), unwritten)
	}
	return err
}

// audited does so with the connection's options.
func (b *brokers) audited(ctx context.Context, c *cli, order audit.Order, do func() (detail string, err error)) error {
	options, err := b.kafka.Options()
	if err != nil {
		return usage(err)
	}
	return c.audited(ctx, b.conf, options, order, do)
}
