package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/kafka"
)

// benchCleanTimeout bounds the deletion of what a trial has made, which Ctrl-C does not end.
const benchCleanTimeout = 30 * time.Second

func (c *cli) newBenchCleanCommand() *cobra.Command {
	bootstrap := ""
	cmd := &cobra.Command{
		Use:   "clean NAME",
		Short: "Delete what a bench has left behind that was killed",
		Long: `Delete all topics and consumer groups whose names begin with that of a bench, which "processor bench" says first. It
does so itself at the end; this is for one that was killed, or could not.`,
		Example: `  processor bench clean pawl-bench-3f9a2c41 -c config.yaml
  processor bench clean pawl-bench-3f9a2c41 --bootstrap broker-1:9092 --dry-run`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if bootstrap != "" {
				c.set = append(c.set, "kafka.brokers="+bootstrap)
			}
			return c.benchClean(cmd, args[0])
		},
	}
	cmd.Flags().StringVar(&bootstrap, "bootstrap", "", "`ADDRESSES` of brokers, as host:port, separated by commas (default: kafka.brokers)")
	c.addChangeFlags(cmd)
	return cmd
}

func (c *cli) benchClean(cmd *cobra.Command, name string) error {
	if !benchName.MatchString(name) {
		return usage(fmt.Errorf("%q is no name of a bench, want one that ends with %s and letters or digits", name, benchPrefix))
	}
	t := &trial{cli: c, name: name, flags: benchFlags{partitions: benchPartitions, replication: -1}}
	if err := t.open(cmd.Context()); err != nil {
		return err
	}
	defer t.close()
	found, err := ownNames(cmd.Context(), t.brokers.client, name+"-")
	if err != nil {
		return t.explain(err)
	}
	rows := [][]string{}
	for _, topic := range found.topics {
		rows = append(rows, []string{"topic", topic})
	}
	for _, group := range found.groups {
		rows = append(rows, []string{"group", group})
	}
	if err := c.render(map[string][]string{"topics": found.topics, "groups": found.groups}, table{rows: rows, empty: "nothing has a name that begins with " + name + "-"}); err != nil {
		return err
	}
	if len(rows) == 0 || c.dryRun {
		return nil
	}
	if err := c.confirm(fmt.Sprintf("Delete %s and %s?", count(len(found.topics), "topic"), count(len(found.groups), "group"))); err != nil {
		return err
	}
	return t.cleanUp(cmd.Context())
}

// names are topics and groups.
type names struct{ topics, groups []string }

// ownNames finds the topics and groups that begin with a prefix.
func ownNames(ctx context.Context, client *kgo.Client, prefix string) (names, error) {
	topics, err := kafka.TopicNames(ctx, client)
	if err != nil {
		return names{}, err
	}
	groups, err := kadm.NewClient(client).ListGroups(ctx)
	if err != nil {
		return names{}, fmt.Errorf("list groups: %w", err)
	}
	other := func(name string) bool { return !strings.HasPrefix(name, prefix) }
	return names{
		topics: slices.DeleteFunc(topics, other),
		groups: slices.DeleteFunc(groups.Groups(), other),
	}, nil
}

// clean deletes the topics and groups that begin with a prefix.
func clean(ctx context.Context, client *kgo.Client, prefix string) error {
	admin := kadm.NewClient(client)
	found, err := ownNames(ctx, client, prefix)
	if err != nil {
		return err
	}
	var errs []error
	if len(found.topics) > 0 {
		deleted, err := admin.DeleteTopics(ctx, found.topics...)
		errs = append(errs, err)
		for _, one := range deleted {
			if one.Err != nil && !errors.Is(one.Err, kerr.UnknownTopicOrPartition) {
				errs = append(errs, fmt.Errorf("delete topic %s: %w", one.Topic, one.Err))
			}
		}
	}
	for _, group := range found.groups {
		errs = append(errs, deleteGroup(ctx, admin, group))
	}
	return errors.Join(errs...)
}

// deleteGroup deletes a group whose processes have ended. Static members stay in it until their session
// times out, so they are made to leave.
func deleteGroup(ctx context.Context, admin *kadm.Client, group string) error {
	_, members, err := kafka.Members(ctx, admin, group)
	if err != nil {
		return err
	}
	var static []string
	for _, member := range members {
		if member.Instance != "" {
			static = append(static, member.Instance)
		}
	}
	if len(static) > 0 {
		if _, err := admin.LeaveGroup(ctx, kadm.LeaveGroup(group).Reason("the bench is over").InstanceIDs(static...)); err != nil {
			return fmt.Errorf("leave group %s: %w", group, err)
		}
	}
	deleted, err := admin.DeleteGroups(ctx, group)
	if err != nil {
		return fmt.Errorf("delete group %s: %w", group, err)
	}
	if err := deleted[group].Err; err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return fmt.Errorf("delete group %s: %w", group, err)
	}
	return nil
}

// cleanUp deletes everything of the trial, whatever has become of ctx, and says how to do it by hand where
// it can't.
func (t *trial) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), benchCleanTimeout)
	defer cancel()
	if err := clean(ctx, t.brokers.client, t.name+"-"); err != nil {
		return fmt.Errorf("something of the bench is left on the cluster: %w: delete it with `%s`", t.explain(err), t.cleanCommand())
	}
	fmt.Fprintf(t.stderr, "topics and groups of %s are deleted\n", t.name)
	return nil
}

// cleanCommand is what deletes everything of the trial.
func (t *trial) cleanCommand() string {
	command := "processor bench clean " + t.name
	if file := t.configFile(); file != "" {
		command += " -c " + file
	}
	if t.flags.bootstrap != "" {
		command += " --bootstrap " + t.flags.bootstrap
	}
	return command
}

// makeTopic makes one with the trial's partitions and replicas.
func (t *trial) makeTopic(ctx context.Context, name string) error {
	return t.makeTopics(ctx, []kafka.Topic{{Name: name, Partitions: t.flags.partitions, Replication: t.flags.replication, Role: kafka.RoleOutput}})
}

func (t *trial) makeTopics(ctx context.Context, topics []kafka.Topic) error {
	for _, topic := range topics {
		if !strings.HasPrefix(topic.Name, t.name+"-") {
			panic("bench would make " + topic.Name) // a name that sets has not replaced: our own bug
		}
	}
	plans, err := kafka.Plan(ctx, t.brokers.client, topics, kafka.PlanOptions{})
	if err == nil {
		err = kafka.Apply(ctx, t.brokers.client, plans, false)
	}
	return t.explain(err)
}

// refusals are the brokers' words for a right that is missing.
var refusals = []error{kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed, kerr.ClusterAuthorizationFailed}

// explain adds to the brokers' refusal which rights a bench needs.
func (t *trial) explain(err error) error {
	if !slices.ContainsFunc(refusals, func(refusal error) bool { return errors.Is(err, refusal) }) {
		return err
	}
	return fmt.Errorf("%w: a bench needs these rights on all names that begin with %s: Create, Delete, Describe, DescribeConfigs, Read and Write on topics, "+
		"Read, Describe and Delete on groups, Write and Describe on transactional ids: have them granted for the prefix "+
		"(kafka-acls --resource-pattern-type prefixed), or give --name one that you have them for", err, t.name)
}
