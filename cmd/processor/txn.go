package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pawl/internal/audit"
	"pawl/internal/kafka"
)

func (c *cli) newTxnCommand() *cobra.Command {
	return newGroup("txn", "Show and end open transactions",
		`  processor txn ls -c config.yaml
  processor txn abort -c config.yaml orders.pod-3.0 --reason 'pod-3 is gone for good'`,
		c.newTxnListCommand(), c.newTxnAbortCommand())
}

// openTransactions is what `txn ls -o json` prints.
type openTransactions struct {
	Transactions []kafka.Transaction   `json:"transactions"`
	Held         []kafka.HeldPartition `json:"held"`
}

func (c *cli) newTxnListCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "Show open transactions and the partitions they hold back",
		Long: `Print the open transactions of this application, oldest first, and then the partitions of its topics
whose readers of committed records cannot get to the end of the log, with the producer that is in
their way. While the service runs, young transactions are always there; one that is older than its
timeout is not in order. hanging means that no coordinator knows the transaction: nothing will end
it but txn abort --hanging.

With --all, the transactions of all applications and all topics that the brokers let us see.

Exit code 3: a transaction hangs.`,
		Args: cobra.NoArgs,
		Example: `  processor txn ls -c config.yaml
  processor txn ls -c config.yaml --all -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.listTransactions(cmd, all) },
	}
	cmd.Flags().BoolVar(&all, "all", false, "transactions of all applications, and all topics")
	return cmd
}

func (c *cli) listTransactions(cmd *cobra.Command, all bool) error {
	b, err := c.connect(cmd)
	if err != nil {
		return err
	}
	defer b.close()
	listed, err := findTransactions(cmd.Context(), b, all)
	if err != nil {
		return err
	}
	if c.output == outputJSON {
		err = c.render(listed, table{})
	} else {
		err = c.renderTransactions(listed, time.Now())
	}
	if err != nil {
		return err
	}
	if listed.hanging() {
		return findings()
	}
	return nil
}

// findTransactions looks for open transactions, those of the application or all.
func findTransactions(ctx context.Context, b *brokers, all bool) (openTransactions, error) {
	prefix := b.conf.Application + "."
	var topics []string
	if all {
		prefix = ""
	} else {
		for _, topic := range b.conf.Topics() {
			topics = append(topics, topic.Name)
		}
	}
	listed := openTransactions{Transactions: []kafka.Transaction{}, Held: []kafka.HeldPartition{}}
	open, err := kafka.OpenTransactions(ctx, b.admin, prefix)
	if err != nil {
		return openTransactions{}, err
	}
	held, err := kafka.HeldPartitions(ctx, b.admin, topics...)
	if err != nil {
		return openTransactions{}, err
	}
	listed.Transactions = append(listed.Transactions, open...)
	listed.Held = append(listed.Held, held...)
	return listed, nil
}

// hanging tells that nothing but an operator will end one of them.
func (t openTransactions) hanging() bool {
	return slices.ContainsFunc(t.Held, func(held kafka.HeldPartition) bool {
		return slices.ContainsFunc(held.Holders, func(h kafka.Holder) bool { return h.Hanging })
	})
}

func (c *cli) renderTransactions(listed openTransactions, now time.Time) error {
	open := table{header: []string{"TRANSACTIONAL ID", "STATE", "AGE", "TIMEOUT", "PARTITIONS"}, empty: "no open transactions"}
	for _, one := range listed.Transactions {
		timeout := time.Duration(one.TimeoutSeconds * float64(time.Second))
		since := "-"
		if !one.Started.IsZero() {
			since = age(now.Sub(one.Started))
			if now.Sub(one.Started) > timeout {
				since = c.paint(c.stdout, red, since)
			}
		}
		open.rows = append(open.rows, []string{one.TransactionalID, one.State, since, timeout.String(), some(one.Partitions)})
	}
	if err := c.render(nil, open); err != nil {
		return err
	}
	held := table{header: []string{"HELD PARTITION", "STABLE", "END", "HELD", "BY", "LAST WRITE", "STATE"}}
	for _, one := range listed.Held {
		row := []string{one.Topic + "/" + strconv.Itoa(int(one.Partition)), offset(one.Stable), offset(one.End), strconv.FormatInt(one.Held, 10)}
		if len(one.Holders) == 0 {
			state := "ended meanwhile"
			if one.Hidden {
				state = "hidden: needs the right to Read the topic"
			}
			held.rows = append(held.rows, append(row, "-", "-", state))
		}
		for _, holder := range one.Holders {
			by, state := holder.TransactionalID, "open"
			if by == "" {
				by = fmt.Sprintf("producer %d", holder.ProducerID)
			}
			if holder.Hanging {
				state = c.paint(c.stdout, red, "hanging")
			}
			held.rows = append(held.rows, slices.Concat(row, []string{by, age(now.Sub(holder.LastWrite)), state}))
		}
	}
	if len(held.rows) == 0 {
		return nil
	}
	if len(open.rows) > 0 {
		fmt.Fprintln(c.stdout)
	}
	return c.render(nil, held)
}

// some prints the first few of a list.
func some(items []string) string {
	const itemsMax = 3
	if len(items) <= itemsMax {
		return strings.Join(items, " ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(items[:itemsMax], " "), len(items)-itemsMax)
}

// abortOrder is what `txn abort` was told.
type abortOrder struct {
	id       string
	foreign  bool
	reason   string
	hanging  string // topic/partition
	producer int64
	force    bool
}

func (c *cli) newTxnAbortCommand() *cobra.Command {
	var order abortOrder
	cmd := &cobra.Command{
		Use:   "abort [TRANSACTIONAL-ID]",
		Short: "End an open transaction",
		Long: `Abort the open transaction of a transactional id, as txn ls shows it, by taking the id over for a
moment. The records of the transaction are never seen, and its input is processed again. A living
instance that holds the id loses its session and makes a new one; nothing is lost or doubled.

Only ids of this application are accepted, unless --foreign says otherwise.

With --hanging, write the abort marker of a transaction that no coordinator knows straight into one
partition (KIP-664). That needs the right Alter or ClusterAction on the cluster.`,
		Args: cobra.MaximumNArgs(1),
		Example: `  processor txn abort -c config.yaml orders.pod-3.0 --reason 'pod-3 is gone for good'
  processor txn abort -c config.yaml orders.pod-3.0 --reason 'readers wait' --yes
  processor txn abort -c config.yaml --hanging orders.priced/4 --reason 'hangs since the upgrade'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (order.hanging != "") {
				return usage(errors.New("give either a transactional id or --hanging"))
			}
			if order.hanging != "" {
				return c.abortHanging(cmd, order)
			}
			order.id = args[0]
			return c.abortTransaction(cmd, order)
		},
	}
	flags := cmd.Flags()
	c.addReason(cmd, &order.reason, reasonFlag, "pod-3 is gone for good")
	flags.BoolVar(&order.foreign, "foreign", false, "accept an id of another application")
	flags.StringVar(&order.hanging, "hanging", "", "abort the hanging transaction in `TOPIC/PARTITION`")
	flags.Int64Var(&order.producer, "producer-id", 0, "with --hanging: which `PRODUCER`, where several have open transactions")
	flags.BoolVar(&order.force, "force", false, "with --hanging: abort a transaction that is not known to hang")
	c.addChangeFlags(cmd)
	return cmd
}

// abortedTransaction is what `txn abort -o json` prints.
type abortedTransaction struct {
	Aborted     bool               `json:"aborted"`
	Reason      string             `json:"reason"`
	Transaction *kafka.Transaction `json:"transaction,omitempty"`
	Partition   string             `json:"partition,omitempty"` // with --hanging
	Holder      *kafka.Holder      `json:"holder,omitempty"`
}

func (c *cli) abortTransaction(cmd *cobra.Command, order abortOrder) error {
	b, err := c.connect(cmd)
	if err != nil {
		return err
	}
	defer b.close()
	if prefix := b.conf.Application + "."; !order.foreign && !strings.HasPrefix(order.id, prefix) {
		return usage(fmt.Errorf("%s is not an id of %s (they begin with %s): give --foreign to abort it all the same", order.id, b.conf.Application, prefix))
	}
	found, err := kafka.FindTransaction(cmd.Context(), b.admin, order.id)
	if err != nil {
		return err
	}
	result := abortedTransaction{Reason: order.reason, Transaction: &found}
	if c.dryRun {
		return c.renderAborted(result)
	}
	if err := c.confirm(fmt.Sprintf("Abort the transaction of %s, which holds %s?", order.id, count(len(found.Partitions), "partition"))); err != nil {
		return err
	}
	err = b.audited(cmd.Context(), c, audit.Order{Action: "txn abort", Target: order.id, Reason: order.reason}, func() (detail string, err error) {
		found, err = kafka.AbortTransaction(cmd.Context(), b.kafka, order.id)
		return some(found.Partitions), err
	})
	if err != nil {
		return err
	}
	result.Aborted = true
	return c.renderAborted(result)
}

func (c *cli) abortHanging(cmd *cobra.Command, order abortOrder) error {
	slash := strings.LastIndexByte(order.hanging, '/')
	partition, err := strconv.ParseInt(order.hanging[slash+1:], 10, 32)
	if slash < 1 || err != nil || partition < 0 {
		return usage(fmt.Errorf("--hanging is %q, want TOPIC/PARTITION", order.hanging))
	}
	topic := order.hanging[:slash]
	b, err := c.connect(cmd)
	if err != nil {
		return err
	}
	defer b.close()
	holder, err := kafka.FindHanging(cmd.Context(), b.admin, topic, int32(partition), order.producer, order.force)
	if err != nil {
		return err
	}
	result := abortedTransaction{Reason: order.reason, Partition: order.hanging, Holder: &holder}
	if c.dryRun {
		return c.renderAborted(result)
	}
	if err := c.confirm(fmt.Sprintf("Write an abort marker into %s?", order.hanging)); err != nil {
		return err
	}
	err = b.audited(cmd.Context(), c, audit.Order{Action: "txn abort --hanging", Target: order.hanging, Reason: order.reason}, func() (string, error) {
		return fmt.Sprintf("producer %d, from offset %d", holder.ProducerID, holder.FirstOffset), kafka.AbortHanging(cmd.Context(), b.admin, topic, int32(partition), holder) //nolint:gosec // it was parsed as 32 bits
	})
	if err != nil {
		return err
	}
	result.Aborted = true
	return c.renderAborted(result)
}

func (c *cli) renderAborted(result abortedTransaction) error {
	if c.output == outputJSON {
		return c.render(result, table{})
	}
	did := "dry run, would be aborted"
	if result.Aborted {
		did = "aborted"
	}
	what := result.Partition
	if result.Transaction != nil {
		what = result.Transaction.TransactionalID
		if len(result.Transaction.Partitions) > 0 {
			what += " (" + some(result.Transaction.Partitions) + ")"
		}
	} else if result.Holder != nil {
		what += fmt.Sprintf(" (producer %d, from offset %d)", result.Holder.ProducerID, result.Holder.FirstOffset)
	}
	if _, err := fmt.Fprintf(c.stdout, "%s: %s: %s\n", did, what, result.Reason); err != nil {
		return fmt.Errorf("print result: %w", err)
	}
	return nil
}
