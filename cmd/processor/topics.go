package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"pawl/internal/kafka"
)

func (c *cli) newTopicsCommand() *cobra.Command {
	return newGroup("topics", "Compare the topics with the configuration, and make them as configured",
		`  processor topics plan -c config.yaml
  processor topics apply -c config.yaml --yes`,
		c.newTopicsPlanCommand(), c.newTopicsApplyCommand())
}

// topicFlags are what plan and apply have in common, so that a plan shows what the same apply does.
type topicFlags struct {
	createInputs int32
	grow         bool
}

func (f *topicFlags) add(cmd *cobra.Command) {
	cmd.Flags().Int32Var(&f.createInputs, "create-inputs", 0, "make missing input topics too, with so many `PARTITIONS`; their owner usually does")
	cmd.Flags().BoolVar(&f.grow, "grow", false, "add partitions to outputs, results and dead letters; keys move to other partitions")
}

func (f *topicFlags) validate() error {
	if f.createInputs < 0 {
		return usage(fmt.Errorf("--create-inputs is %d, want the number of partitions", f.createInputs))
	}
	return nil
}

func (f *topicFlags) plan(cmd *cobra.Command, b *brokers) ([]kafka.TopicPlan, error) {
	topics := b.conf.Topics()
	for i := range topics {
		if topics[i].Role == kafka.RoleInput {
			topics[i].Partitions = f.createInputs
		}
	}
	return kafka.Plan(cmd.Context(), b.client, topics, kafka.PlanOptions{Grow: f.grow})
}

func (c *cli) newTopicsPlanCommand() *cobra.Command {
	var flags topicFlags
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Say what differs between the topics and the configuration",
		Long: `Compare every topic that the configuration names with the cluster and print what apply would do:
+ is made, ~ is changed, ! differs but is not for apply to change. Nothing is changed.

Exit code 0: all as configured. Exit code 3: something differs.`,
		Args: cobra.NoArgs,
		Example: `  processor topics plan -c config.yaml
  processor topics plan -c config.yaml -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.validate(); err != nil {
				return err
			}
			b, err := c.connect(cmd)
			if err != nil {
				return err
			}
			defer b.close()
			plans, err := flags.plan(cmd, b)
			if err != nil {
				return err
			}
			if err := c.renderPlans(plans); err != nil {
				return err
			}
			for _, plan := range plans {
				if !plan.Clean() {
					return findings()
				}
			}
			return nil
		},
	}
	flags.add(cmd)
	return cmd
}

func (c *cli) newTopicsApplyCommand() *cobra.Command {
	var flags topicFlags
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Make the topics as configured",
		Long: `Make missing topics and change settings that differ, after showing the plan and asking. Nothing is
ever deleted, no partition is added unless --grow says so, never to the effects, progress and control
topics, and existing input topics are left alone. New topics are waited for until every broker knows
them. With --dry-run the brokers check the plan without carrying it out.

Exit code 3: done, but something differs that is not for apply to change.`,
		Args: cobra.NoArgs,
		Example: `  processor topics apply -c config.yaml
  processor topics apply -c config.yaml --dry-run
  processor topics apply -c config.yaml --yes --create-inputs 12`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.validate(); err != nil {
				return err
			}
			return c.applyTopics(cmd, flags)
		},
	}
	flags.add(cmd)
	c.addChangeFlags(cmd)
	return cmd
}

func (c *cli) applyTopics(cmd *cobra.Command, flags topicFlags) error {
	b, err := c.connect(cmd)
	if err != nil {
		return err
	}
	defer b.close()
	plans, err := flags.plan(cmd, b)
	if err != nil {
		return err
	}
	if err := c.renderPlans(plans); err != nil {
		return err
	}
	changes, drift := 0, 0
	for _, plan := range plans {
		if plan.Changes() {
			changes++
		}
		if len(plan.Drift) > 0 {
			drift++
		}
	}
	if changes > 0 {
		if !c.dryRun {
			if err := c.confirm(fmt.Sprintf("Change %s?", count(changes, "topic"))); err != nil {
				return err
			}
		}
		if err := kafka.Apply(cmd.Context(), b.client, plans, c.dryRun); err != nil {
			return err
		}
		if c.dryRun {
			fmt.Fprintf(c.stderr, "dry run: the brokers would accept it, nothing was changed\n")
		} else {
			fmt.Fprintf(c.stderr, "%s changed\n", count(changes, "topic"))
		}
	}
	if drift > 0 {
		return findings()
	}
	return nil
}

// renderPlans prints plans as JSON or as a diff for people.
func (c *cli) renderPlans(plans []kafka.TopicPlan) error {
	if c.output == outputJSON {
		return c.render(plans, table{})
	}
	var b strings.Builder
	var makes, changes, drift, clean int
	for _, plan := range plans {
		switch {
		case plan.Create:
			makes++
		case plan.Changes():
			changes++
		case len(plan.Drift) > 0:
			drift++
		default:
			clean++
		}
		c.writePlan(&b, plan)
	}
	if clean < len(plans) {
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%d to make, %d to change, %d that differ, %d as configured\n", makes, changes, drift, clean)
	if _, err := io.WriteString(c.stdout, b.String()); err != nil {
		return fmt.Errorf("print plan: %w", err)
	}
	return nil
}

func (c *cli) writePlan(w io.Writer, plan kafka.TopicPlan) {
	line := func(in color, mark, format string, args ...any) {
		fmt.Fprintln(w, c.paint(c.stdout, in, mark+" "+fmt.Sprintf(format, args...)))
	}
	switch {
	case plan.Create:
		replicas := "the brokers' default of replicas"
		if plan.Replication > 0 {
			replicas = count(int(plan.Replication), "replica")
		}
		line(green, "+", "%s (%s): %s, %s", plan.Topic, plan.Role, count(int(plan.Partitions), "partition"), replicas)
		for _, setting := range plan.Settings {
			line(green, "+", "  %s = %s", setting.Name, setting.Want)
		}
	case plan.Changes():
		line(yellow, "~", "%s (%s)", plan.Topic, plan.Role)
		if plan.Partitions > 0 {
			line(yellow, "~", "  partitions: %d -> %d", plan.PartitionsHave, plan.Partitions)
		}
		for _, setting := range plan.Settings {
			line(yellow, "~", "  %s: %s -> %s", setting.Name, orNone(setting.Have), setting.Want)
		}
	case len(plan.Drift) > 0:
		line(red, "!", "%s (%s)", plan.Topic, plan.Role)
	}
	for _, drift := range plan.Drift {
		line(red, "!", "  %s", drift)
	}
}

func orNone(text string) string {
	if text == "" {
		return "(none)"
	}
	return text
}
