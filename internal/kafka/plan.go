package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// visiblePause is how often a broker is asked whether it knows a new topic.
	visiblePause = 50 * time.Millisecond
	// visibleTimeout bounds the wait for new topics.
	visibleTimeout = 30 * time.Second
)

// TopicPlan is what one topic needs to become as configured.
type TopicPlan struct {
	Topic  string `json:"topic"`
	Role   Role   `json:"role"`
	Create bool   `json:"create,omitempty"` // it does not exist

	// Partitions to make: the configured number for a new topic, more than PartitionsHave for one
	// that is to grow, 0 for no change.
	Partitions     int32 `json:"partitions,omitempty"`
	PartitionsHave int32 `json:"partitions_have,omitempty"`
	Replication    int16 `json:"replication,omitempty"` // of a new topic; -1 is the brokers' default

	Settings []SettingChange `json:"settings,omitempty"`

	// Drift is what differs and is not changed by Apply, each with the reason and the way out.
	Drift []string `json:"drift,omitempty"`
}

// Changes tells whether Apply would do something.
func (t TopicPlan) Changes() bool { return t.Create || t.Partitions > 0 || len(t.Settings) > 0 }

// Clean tells whether the topic is as configured.
func (t TopicPlan) Clean() bool { return !t.Changes() && len(t.Drift) == 0 }

// PlanOptions say what a plan may contain beside what is always safe.
type PlanOptions struct {
	// Grow lets outputs, results and dead letters get more partitions. That moves keys to other
	// partitions, so that their order is lost across the change.
	Grow bool
}

// Plan compares topics with the cluster and returns one entry for each, in the given order. It
// changes nothing. A missing input is created only where it has a number of partitions: whoever
// owns it should have made it. Existing inputs are never changed. Nothing is ever deleted.
func Plan(ctx context.Context, client *kgo.Client, topics []Topic, options PlanOptions) ([]TopicPlan, error) {
	var errs []error
	for _, topic := range topics {
		errs = append(errs, topic.Validate())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	topics = ownFirst(topics)
	names := make([]string, len(topics))
	for i, topic := range topics {
		names[i] = topic.Name
	}
	seen, err := requestTopics(ctx, client, names...)
	if err != nil {
		return nil, err
	}
	var resources []kmsg.DescribeConfigsRequestResource
	for _, topic := range topics {
		if topic.Role != RoleInput && seen[topic.Name].err == nil {
			resources = append(resources, topicResource(topic.Name))
		}
	}
	configs, err := requestConfigs(ctx, client, resources...)
	if err != nil {
		return nil, err
	}
	plans := make([]TopicPlan, 0, len(topics))
	for _, topic := range topics {
		plan, err := planTopic(topic, seen[topic.Name], configs[topic.Name], options)
		errs = append(errs, err)
		plans = append(plans, plan)
	}
	return plans, errors.Join(errs...)
}

// ownFirst leaves each name once. A topic that is both an input and the service's own (a results
// topic that is routed back) is its own.
func ownFirst(topics []Topic) []Topic {
	var unique []Topic
	for _, topic := range topics {
		i := slices.IndexFunc(unique, func(t Topic) bool { return t.Name == topic.Name })
		switch {
		case i < 0:
			unique = append(unique, topic)
		case unique[i].Role == RoleInput:
			unique[i] = topic
		}
	}
	return unique
}

func planTopic(topic Topic, seen *seenTopic, have config, options PlanOptions) (TopicPlan, error) {
	plan := TopicPlan{Topic: topic.Name, Role: topic.Role}
	switch {
	case errors.Is(seen.err, kerr.UnknownTopicOrPartition):
		planCreate(&plan, topic)
		return plan, nil
	case seen.err != nil:
		return plan, fmt.Errorf("describe topic %s: %w", topic.Name, seen.err)
	case topic.Role == RoleInput:
		return plan, nil
	case have.err != nil:
		return plan, fmt.Errorf("describe settings of topic %s: %w", topic.Name, have.err)
	}
	plan.Settings = settingChanges(topic.wantedSettings(), have.values)
	count := int32(len(seen.partitions)) //nolint:gosec // Kafka counts partitions with 32 bits
	if topic.Partitions > 0 && topic.Partitions != count {
		planPartitions(&plan, topic, count, options)
	}
	if replicas := seen.replicas(); topic.Replication > 0 && replicas != int(topic.Replication) {
		plan.Drift = append(plan.Drift, fmt.Sprintf("replication is %d, configured is %d: move replicas with kafka-reassign-partitions.sh, or correct the configuration", replicas, topic.Replication))
	}
	return plan, nil
}

func planCreate(plan *TopicPlan, topic Topic) {
	if topic.Partitions <= 0 {
		if topic.Role == RoleInput {
			plan.Drift = append(plan.Drift, "does not exist: create it where it is owned, or with `processor topics apply --create-inputs PARTITIONS`")
		} else {
			plan.Drift = append(plan.Drift, "does not exist, and no number of partitions is configured")
		}
		return
	}
	plan.Create = true
	plan.Partitions = topic.Partitions
	plan.Replication = topic.Replication
	if plan.Replication == 0 {
		plan.Replication = -1
	}
	settings := topic.wantedSettings()
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		plan.Settings = append(plan.Settings, SettingChange{Name: name, Want: settings[name]})
	}
}

func planPartitions(plan *TopicPlan, topic Topic, count int32, options PlanOptions) {
	plan.PartitionsHave = count
	switch {
	case topic.Role.keepsPartitions():
		plan.Drift = append(plan.Drift, fmt.Sprintf("%d partitions, configured are %d: the number of a topic with the role %s is fixed for life, correct the configuration", count, topic.Partitions, topic.Role))
	case count > topic.Partitions:
		plan.Drift = append(plan.Drift, fmt.Sprintf("%d partitions, configured are %d: Kafka cannot take partitions away, correct the configuration", count, topic.Partitions))
	case !options.Grow:
		plan.Drift = append(plan.Drift, fmt.Sprintf("%d partitions, configured are %d: add them with `processor topics apply --grow`, which moves keys to other partitions", count, topic.Partitions))
	default:
		plan.Partitions = topic.Partitions
	}
}

// Apply carries out what the plans hold and waits until every broker knows the new topics. With
// dryRun the brokers only check it. A topic that somebody else has made meanwhile is no error: plan
// again to see it compared. Every change is tried; the errors come joined.
func Apply(ctx context.Context, client *kgo.Client, plans []TopicPlan, dryRun bool) error {
	var errs []error
	var created []string
	for _, plan := range plans {
		var err error
		switch {
		case plan.Create:
			err = createTopic(ctx, client, plan, dryRun)
			created = append(created, plan.Topic)
		case plan.Changes():
			err = changeTopic(ctx, client, plan, dryRun)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("topic %s: %w", plan.Topic, err))
		}
	}
	if err := errors.Join(errs...); err != nil || dryRun {
		return err
	}
	return waitVisible(ctx, client, created)
}

func createTopic(ctx context.Context, client *kgo.Client, plan TopicPlan, dryRun bool) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.ValidateOnly = dryRun
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic = plan.Topic
	topic.NumPartitions = plan.Partitions
	topic.ReplicationFactor = plan.Replication
	for _, setting := range plan.Settings {
		config := kmsg.NewCreateTopicsRequestTopicConfig()
		config.Name = setting.Name
		config.Value = new(setting.Want)
		topic.Configs = append(topic.Configs, config)
	}
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	for _, one := range resp.Topics {
		err := answerError(one.ErrorCode, one.ErrorMessage)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("create: %w", err)
		}
	}
	return nil
}

func changeTopic(ctx context.Context, client *kgo.Client, plan TopicPlan, dryRun bool) error {
	var errs []error
	if plan.Partitions > 0 {
		errs = append(errs, growTopic(ctx, client, plan, dryRun))
	}
	if len(plan.Settings) > 0 {
		errs = append(errs, alterTopic(ctx, client, plan, dryRun))
	}
	return errors.Join(errs...)
}

func growTopic(ctx context.Context, client *kgo.Client, plan TopicPlan, dryRun bool) error {
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.ValidateOnly = dryRun
	topic := kmsg.NewCreatePartitionsRequestTopic()
	topic.Topic = plan.Topic
	topic.Count = plan.Partitions
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return fmt.Errorf("add partitions: %w", err)
	}
	for _, one := range resp.Topics {
		if err := answerError(one.ErrorCode, one.ErrorMessage); err != nil {
			return fmt.Errorf("add partitions: %w", err)
		}
	}
	return nil
}

// alterTopic sets the planned settings and leaves all others as they are.
func alterTopic(ctx context.Context, client *kgo.Client, plan TopicPlan, dryRun bool) error {
	changes := make([]kadm.AlterConfig, len(plan.Settings))
	for i, setting := range plan.Settings {
		changes[i] = kadm.AlterConfig{Op: kadm.SetConfig, Name: setting.Name, Value: new(setting.Want)}
	}
	admin := kadm.NewClient(client)
	alter := admin.AlterTopicConfigs
	if dryRun {
		alter = admin.ValidateAlterTopicConfigs
	}
	answer, err := alter(ctx, changes, plan.Topic)
	if err != nil {
		return fmt.Errorf("change settings: %w", err)
	}
	for _, one := range answer {
		if one.Err != nil {
			return fmt.Errorf("change settings: %w: %s", one.Err, one.ErrMessage)
		}
	}
	return nil
}

// waitVisible returns once every broker knows a leader for every partition of the topics. A broker
// that is down is not waited for: it learns of them before it serves anybody.
func waitVisible(ctx context.Context, client *kgo.Client, topics []string) error {
	if len(topics) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, visibleTimeout)
	defer cancel()
	brokers, err := requestBrokers(ctx, client)
	if err != nil {
		return err
	}
	for _, broker := range brokers {
		for !visible(ctx, client, broker.NodeID, topics) { // ended by ctx
			timer := time.NewTimer(visiblePause)
			select {
			case <-ctx.Done():
				timer.Stop()
				return fmt.Errorf("wait until broker %d knows %s: %w", broker.NodeID, strings.Join(topics, ", "), ctx.Err())
			case <-timer.C:
			}
		}
	}
	// The client remembers for a moment that it was told there are none.
	_, err = requestTopics(ctx, client, topics...)
	return err
}

func visible(ctx context.Context, client *kgo.Client, broker int32, topics []string) bool {
	answer, err := client.Broker(int(broker)).RetriableRequest(ctx, metadataRequest(topics...))
	if err != nil {
		return ctx.Err() == nil // not there to know it
	}
	resp, ok := answer.(*kmsg.MetadataResponse)
	if !ok {
		return false
	}
	seen := seenTopics(resp)
	for _, name := range topics {
		topic := seen[name]
		if topic == nil || topic.err != nil || len(topic.partitions) == 0 ||
			slices.ContainsFunc(topic.partitions, func(p seenPartition) bool { return p.leader < 0 }) {
			return false
		}
	}
	return true
}

// answerError joins a code and the broker's own words.
func answerError(code int16, message *string) error {
	err := kerr.ErrorForCode(code)
	if err == nil || message == nil || *message == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, *message)
}
