package kafka

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/testkit/golden"
)

// changed asserts that the fake is asked for as many changes as wanted, from now to the test's end.
func changes(f *fake) *kfake.FaultHandle {
	return f.Fault(kfake.Fault{Observe: true, Count: -1, Keys: []kmsg.Key{kmsg.CreateTopics, kmsg.CreatePartitions, kmsg.IncrementalAlterConfigs, kmsg.AlterConfigs, kmsg.DeleteTopics}})
}

func TestPlanThenApplyThenPlanIsClean(t *testing.T) {
	t.Parallel()
	fake := newFake(t, kfake.NumBrokers(3)).open(t)
	ctx := short(t)
	topics := testTopics()
	plans, err := Plan(ctx, fake.client, topics, PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(plans, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Is(t, "testdata/plan-empty-cluster.json", string(text)+"\n")
	if err := Apply(ctx, fake.client, plans, true); err != nil {
		t.Fatalf("dry run: %v", err)
	}
	if info := fake.TopicInfo("app.out"); info != nil {
		t.Fatal("a dry run has made a topic")
	}
	for range 2 { // the second time nothing is left to do, and a topic that exists is no error
		if err := Apply(ctx, fake.client, plans, false); err != nil {
			t.Fatal(err)
		}
	}
	again, err := Plan(ctx, fake.client, topics, PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, plan := range again {
		if plan.Role == RoleInput {
			if plan.Clean() || plan.Changes() {
				t.Errorf("the missing input is not drift alone: %+v", plan)
			}
			continue
		}
		if !plan.Clean() {
			t.Errorf("after apply: %+v", plan)
		}
	}
	if err := Apply(ctx, fake.client, again, false); err != nil {
		t.Fatal(err)
	}
}

func TestPlanNamesWhatDiffers(t *testing.T) {
	t.Parallel()
	out := Topic{Name: "app.out", Partitions: 2, Replication: -1, Role: RoleOutput, Settings: map[string]string{"compression.type": "zstd"}}
	with := func(change func(*Topic)) Topic {
		topic := out
		change(&topic)
		return topic
	}
	for name, test := range map[string]struct {
		topic Topic
		grow  bool
		want  TopicPlan
	}{
		"as configured": {topic: out, want: TopicPlan{}},
		"numbers and lists spelled otherwise": {
			topic: with(func(t *Topic) {
				t.Settings = map[string]string{"retention.ms": "604800000.0", "cleanup.policy": " delete "}
			}),
			want: TopicPlan{},
		},
		"a setting": {
			topic: with(func(t *Topic) { t.Settings = map[string]string{"retention.ms": "1000", "compression.type": "zstd"} }),
			want:  TopicPlan{Settings: []SettingChange{{Name: "retention.ms", Have: "604800000", Want: "1000"}}},
		},
		"more partitions": {
			topic: with(func(t *Topic) { t.Partitions = 4 }),
			want:  TopicPlan{PartitionsHave: 2, Drift: []string{"2 partitions, configured are 4: add them with `processor topics apply --grow`, which moves keys to other partitions"}},
		},
		"more partitions, asked for": {
			topic: with(func(t *Topic) { t.Partitions = 4 }), grow: true,
			want: TopicPlan{PartitionsHave: 2, Partitions: 4},
		},
		"fewer partitions": {
			topic: with(func(t *Topic) { t.Partitions = 1 }), grow: true,
			want: TopicPlan{PartitionsHave: 2, Drift: []string{"2 partitions, configured are 1: Kafka cannot take partitions away, correct the configuration"}},
		},
		"effects never grow": {
			topic: with(func(t *Topic) { t.Role, t.Partitions = RoleEffects, 4 }), grow: true,
			want: TopicPlan{PartitionsHave: 2, Drift: []string{"2 partitions, configured are 4: the number of a topic with the role effects is fixed for life, correct the configuration"}},
		},
		"control must be compacted": {
			topic: with(func(t *Topic) { t.Role = RoleControl }),
			want:  TopicPlan{Settings: []SettingChange{{Name: "cleanup.policy", Have: "delete", Want: "compact"}}},
		},
		"replication": {
			topic: with(func(t *Topic) { t.Replication = 3 }),
			want:  TopicPlan{Drift: []string{"replication is 1, configured is 3: move replicas with kafka-reassign-partitions.sh, or correct the configuration"}},
		},
		"an input is somebody else's": {
			topic: Topic{Name: "app.out", Partitions: 9, Replication: 3, Role: RoleInput, Settings: map[string]string{"retention.ms": "1"}},
			want:  TopicPlan{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := newFake(t).open(t)
			if _, err := fake.admin.CreateTopics(t.Context(), 2, 1, map[string]*string{"compression.type": new("zstd")}, "app.out"); err != nil {
				t.Fatal(err)
			}
			plans, err := Plan(short(t), fake.client, []Topic{test.topic}, PlanOptions{Grow: test.grow})
			if err != nil {
				t.Fatal(err)
			}
			test.want.Topic, test.want.Role = "app.out", test.topic.Role
			if diff := cmp.Diff([]TopicPlan{test.want}, plans); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
			asked := changes(fake)
			if err := Apply(short(t), fake.client, plans, false); err != nil {
				t.Fatal(err)
			}
			if did := asked.Hits() > 0; did != test.want.Changes() {
				t.Errorf("apply made %d changes, plan says changes: %t", asked.Hits(), test.want.Changes())
			}
			if !test.want.Changes() {
				return
			}
			again, err := Plan(short(t), fake.client, []Topic{test.topic}, PlanOptions{Grow: test.grow})
			if err != nil {
				t.Fatal(err)
			}
			if !again[0].Clean() {
				t.Errorf("after apply: %+v", again)
			}
		})
	}
}

// A results topic that is routed back to the service is planned once, as the service's own.
func TestPlanKnowsATopicWithTwoRoles(t *testing.T) {
	t.Parallel()
	fake := newFake(t).open(t)
	plans, err := Plan(short(t), fake.client, []Topic{
		{Name: "results", Role: RoleInput},
		{Name: "results", Role: RoleResults, Partitions: 3},
	}, PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(plans) != 1 || plans[0].Role != RoleResults || !plans[0].Create {
		t.Errorf("got %+v", plans)
	}
}

func TestPlanRefusesSettingsAgainstTheRole(t *testing.T) {
	t.Parallel()
	fake := newFake(t).open(t)
	_, err := Plan(short(t), fake.client, []Topic{
		{Name: "app.effects", Partitions: 1, Role: RoleEffects, Settings: map[string]string{"cleanup.policy": "compact"}},
		{Name: "app.control", Partitions: 1, Role: RoleControl, Settings: map[string]string{"cleanup.policy": "compact,delete"}},
	}, PlanOptions{})
	failing(t, err, `topic app.effects: cleanup.policy is "compact", but a topic with the role effects needs "delete"`, `topic app.control: cleanup.policy is "compact,delete"`)
}

// What the broker refuses is reported for each topic, and does not keep the others from being made.
func TestApplyReportsEachFailureAndGoesOn(t *testing.T) {
	t.Parallel()
	fake := newFake(t).open(t)
	fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: "app.out", Err: kerr.PolicyViolation, Count: -1})
	plans, err := Plan(short(t), fake.client, testTopics(), PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	failing(t, Apply(short(t), fake.client, plans, false), "topic app.out: create: POLICY_VIOLATION")
	if fake.TopicInfo("app.control") == nil {
		t.Error("the topics after the failing one were not made")
	}
}
