package app

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pawl/internal/kafka"
)

// The names and settings that operators and other tools rely on.
func TestTopicsAreThoseOfTheDesign(t *testing.T) {
	t.Parallel()
	conf, _ := load(t, LoadOptions{File: example})
	forEver := map[string]string{"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1", "max.message.bytes": "33554432"}
	want := []kafka.Topic{
		{Name: "orders", Replication: -1, Role: kafka.RoleInput},
		{Name: "orders.raw", Replication: -1, Role: kafka.RoleInput},
		{Name: "orders.archive", Partitions: 12, Replication: -1, Role: kafka.RoleOutput, Settings: map[string]string{"retention.ms": "604800000"}},
		{Name: "orders.ledger", Partitions: 12, Replication: -1, Role: kafka.RoleOutput},
		{Name: "orders.priced", Partitions: 12, Replication: -1, Role: kafka.RoleOutput},
		{Name: "orders.effects", Partitions: 12, Replication: -1, Role: kafka.RoleEffects, Settings: map[string]string{
			"cleanup.policy": "delete", "retention.ms": "1209600000", "retention.bytes": "-1", "message.timestamp.type": "LogAppendTime",
		}},
		{Name: "orders.effect-results", Partitions: 12, Replication: -1, Role: kafka.RoleResults, Settings: map[string]string{
			"cleanup.policy": "delete", "retention.ms": "1209600000", "retention.bytes": "-1", "max.message.bytes": "2097152",
		}},
		{Name: "orders.relay-progress", Partitions: 12, Replication: -1, Role: kafka.RoleProgress, Settings: map[string]string{"cleanup.policy": "compact"}},
		{Name: "orders.dead-letter", Partitions: 1, Replication: -1, Role: kafka.RoleDeadLetter, Settings: forEver},
		{Name: "orders.control", Partitions: 1, Replication: -1, Role: kafka.RoleControl, Settings: map[string]string{"cleanup.policy": "compact"}},
	}
	if diff := cmp.Diff(want, conf.Topics(), equateEmpty); diff != "" {
		t.Errorf("topics (-want +got):\n%s", diff)
	}

	conf.Effects.Enabled = false
	for _, topic := range conf.Topics() {
		if topic.Role == kafka.RoleEffects || topic.Role == kafka.RoleResults || topic.Role == kafka.RoleProgress {
			t.Errorf("%s is planned although there are no effects", topic.Name)
		}
	}
	if names := conf.EndpointNames(); len(names) > 0 {
		t.Errorf("handlers may use %v although there are no effects", names)
	}
}

func TestNamesComeFromTheApplication(t *testing.T) {
	t.Parallel()
	conf := Config{Application: "shop.orders", Instance: "pod-1", Outputs: map[string]Output{"a": {Topic: "x"}}}
	got := strings.Join([]string{conf.Group(), conf.EffectsTopic(), conf.ResultsTopic(), conf.ProgressTopic(), conf.DeadLetterTopic(), conf.ControlTopic(), fmt.Sprint(conf.OutputTopics())}, " ")
	want := "shop.orders shop.orders.effects shop.orders.effect-results shop.orders.relay-progress shop.orders.dead-letter shop.orders.control map[a:x]"
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestPreflightAsksForWhatIsConfigured(t *testing.T) {
	t.Parallel()
	conf, _ := load(t, LoadOptions{File: example, Set: []string{"instance=pod-1"}})
	spec := conf.Preflight()
	if want := []string{"orders", "orders.effect-results", "orders.raw"}; !cmp.Equal(spec.Inputs, want) {
		t.Errorf("inputs %v, want %v", spec.Inputs, want)
	}
	if spec.Group != "orders" || spec.TransactionalIDs[0] != "orders.pod-1.0" || spec.TransactionTimeout != conf.Txn.Timeout.Std() || len(spec.Topics) != 10 {
		t.Errorf("got %+v", spec)
	}
}

// A process without a database hands effects to their topic and asks for no right to read it.
func TestOnlyALedgerAsksForItsRights(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		set   []string
		group string
		ids   []string
	}{
		{nil, "", []string{"orders.pod-1.0"}},
		{[]string{"postgres.dsn=postgres://db"}, "orders.effects", []string{"orders.pod-1.0", "orders.relay.0"}},
		{[]string{"postgres.dsn_file=/run/dsn"}, "orders.effects", []string{"orders.pod-1.0", "orders.relay.0"}},
	} {
		conf, _ := load(t, LoadOptions{File: example, Set: append([]string{"instance=pod-1", "postgres.dsn_file="}, c.set...)})
		spec := conf.Preflight()
		if spec.LedgerGroup != c.group || !cmp.Equal(spec.TransactionalIDs, c.ids) {
			t.Errorf("%v: group %q and ids %v, want %q and %v", c.set, spec.LedgerGroup, spec.TransactionalIDs, c.group, c.ids)
		}
	}
}

func TestKafkaConfigNamesFilesAndClient(t *testing.T) {
	t.Parallel()
	conf := Config{Application: "shop", Instance: "pod-1", Kafka: Kafka{
		Brokers: []string{"a:1"},
		TLS:     TLS{Enabled: true, CAFile: "ca", CertFile: "cert", KeyFile: "key", ServerName: "name"},
		SASL:    SASL{Mechanism: "OAUTHBEARER", Username: "me", PasswordFile: "password", TokenFile: "token"},
	}}
	want := kafka.Config{
		Brokers: []string{"a:1"}, ClientID: "shop.pod-1",
		TLS:  kafka.TLS{Enabled: true, CAFile: "ca", CertFile: "cert", KeyFile: "key", ServerName: "name"},
		SASL: kafka.SASL{Mechanism: "OAUTHBEARER", Username: "me", PasswordFile: "password", TokenFile: "token"},
	}
	if diff := cmp.Diff(want, conf.KafkaConfig(nil)); diff != "" {
		t.Errorf("kafka (-want +got):\n%s", diff)
	}
}

// PawlConfigDiffers compares the hashes of the processes of an application, each of which has a name of its own.
func TestHashIsThatOfTheApplication(t *testing.T) {
	t.Parallel()
	one := Default()
	one.Instance, one.Admin.Listen = "pawl-0", ":9090"
	other := one
	other.Instance, other.Admin.Listen = "pawl-1", ":9091"
	if one.hash() != other.hash() {
		t.Error("two processes of one application have two hashes")
	}
	other.Txn.Lanes = 7
	if one.hash() == other.hash() {
		t.Error("two configurations have one hash")
	}
	if one.Instance != "pawl-0" {
		t.Error("hashing changes the configuration")
	}
}
