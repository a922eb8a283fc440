package kafka

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"pawl/internal/faults"
	"pawl/internal/testkit/golden"
)

// testTopics is what the application app wants.
func testTopics() []Topic {
	return []Topic{
		{Name: "in", Replication: -1, Role: RoleInput},
		{Name: "app.out", Partitions: 2, Replication: -1, Role: RoleOutput, Settings: map[string]string{"compression.type": "zstd"}},
		{Name: "app.effects", Partitions: 3, Replication: -1, Role: RoleEffects, Settings: map[string]string{"retention.ms": "1209600000"}},
		{Name: "app.effect-results", Partitions: 3, Replication: -1, Role: RoleResults},
		{Name: "app.relay-progress", Partitions: 3, Replication: -1, Role: RoleProgress},
		{Name: "app.dead-letter", Partitions: 1, Replication: -1, Role: RoleDeadLetter},
		{Name: "app.control", Partitions: 1, Replication: -1, Role: RoleControl},
	}
}

func testSpec() Spec {
	return Spec{
		Application: "app", Group: "app", LedgerGroup: "app.effects",
		Topics: testTopics(), Inputs: []string{"in", "app.effect-results"},
		TransactionalIDs:   []string{"app.one.0", "app.one.1"},
		TransactionTimeout: 30 * time.Second,
		ParseMetadata:      parseTestMetadata,
	}
}

func testMetadata(id [16]byte) string { return fmt.Sprintf("test %x", id) }

func parseTestMetadata(text string) (id [16]byte, ok bool) {
	var raw []byte
	if _, err := fmt.Sscanf(text, "test %x", &raw); err != nil || len(raw) != len(id) {
		return id, false
	}
	return [16]byte(raw), true
}

// fit makes every topic of testTopics.
func (f *fake) fit(t *testing.T) *fake {
	t.Helper()
	f.open(t)
	topics := testTopics()
	topics[0].Partitions = 2
	plans, err := Plan(t.Context(), f.client, topics, PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := Apply(t.Context(), f.client, plans, false); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fake) commit(t *testing.T, topic string, partition int32, at int64, metadata string) {
	t.Helper()
	offsets := make(kadm.Offsets)
	offsets.Add(kadm.Offset{Topic: topic, Partition: partition, At: at, LeaderEpoch: -1, Metadata: metadata})
	if err := f.admin.CommitAllOffsets(t.Context(), "app", offsets); err != nil {
		t.Fatal(err)
	}
}

func (f *fake) set(t *testing.T, topic, name, value string) {
	t.Helper()
	answer, err := f.admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}, topic)
	if err != nil {
		t.Fatal(err)
	}
	if err := answer[0].Err; err != nil {
		t.Fatal(err)
	}
}

func (f *fake) remove(t *testing.T, topics ...string) {
	t.Helper()
	if _, err := f.admin.DeleteTopics(t.Context(), topics...); err != nil {
		t.Fatal(err)
	}
}

// only returns what is not OK.
func only(findings []Finding) []Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool { return f.Status == OK })
}

func TestFitClusterPassesPreflight(t *testing.T) {
	t.Parallel()
	fake := newFake(t).fit(t)
	id := fake.TopicInfo("in").TopicID
	fake.commit(t, "in", 0, 0, testMetadata(id))
	fake.commit(t, "in", 1, 0, "somebody else's")
	findings := Preflight(short(t), fake.conf, testSpec())
	text, err := json.MarshalIndent(findings, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Is(t, "testdata/preflight-ok.json", string(text)+"\n")
	if err := Failed(findings); err != nil {
		t.Error(err)
	}
	if got := Summary(findings); got != "7 ok, 0 degraded, 0 problems" {
		t.Errorf("summary %q", got)
	}
	listed, err := fake.admin.ListTransactions(t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(listed) != 0 {
		t.Errorf("the preflight has left transactional ids behind: %v", listed)
	}
}

// One unfit thing each, and the finding that it must bring, with the next step.
func TestPreflightNamesWhatIsUnfit(t *testing.T) {
	t.Parallel()
	finalise := func(version int16) func(*testing.T, *fake) {
		return func(t *testing.T, f *fake) {
			t.Helper()
			_, err := f.admin.UpdateFeatures(t.Context(), false, kadm.FeatureUpdate{Feature: "transaction.version", MaxVersionLevel: version, UpgradeType: 2})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, test := range map[string]struct {
		opts         []kfake.Opt
		spoil        func(*testing.T, *fake)
		spec         func(*Spec)
		check        string
		status       Status
		detail, next string
		besides      string // another check that has something to say
		mistake      string // on the page of mistakes
	}{
		"Kafka 3.9": {
			mistake: "old-brokers",
			opts:    []kfake.Opt{kfake.MaxVersions(kversion.V3_9_0())},
			check:   CheckTransactions, status: Problem,
			detail: "the brokers are older than Kafka 4.0",
			next:   "upgrade the brokers to Kafka 4.0 or later, then run `kafka-features.sh --bootstrap-server 127.0.0.1:",
		},
		"transaction.version not finalised": {
			spoil: finalise(0),
			check: CheckTransactions, status: Problem,
			detail: "the finalised feature transaction.version is 0, want 2",
			next:   "upgrade --feature transaction.version=2`",
		},
		"transaction.version of before KIP-890": {
			spoil: finalise(1),
			check: CheckTransactions, status: Problem,
			detail: "the finalised feature transaction.version is 1, want 2",
			next:   "upgrade --feature transaction.version=2`",
		},
		"transaction timeout beyond the brokers'": {
			mistake: "timeout-too-long",
			spec:    func(s *Spec) { s.TransactionTimeout = 16 * time.Minute },
			check:   CheckTransactions, status: Problem,
			detail: "txn.timeout is 16m0s, but the brokers allow 15m0s (transaction.max.timeout.ms)",
			next:   "set txn.timeout to at most 15m0s",
		},
		"input topic missing": {
			spoil: func(t *testing.T, f *fake) { t.Helper(); f.remove(t, "in") },
			check: CheckTopics, status: Problem,
			detail: "input topic in does not exist", next: "correct routes.topics, or create it with `processor topics apply --create-inputs",
		},
		"input topic misspelt": {
			mistake: "wrong-topic",
			spec:    func(s *Spec) { s.Topics[0].Name = "inn" },
			check:   CheckTopics, status: Problem,
			detail: "input topic inn does not exist; there is one named in", next: "correct routes.topics",
		},
		"own topics missing": {
			mistake: "topics-missing",
			spoil:   func(t *testing.T, f *fake) { t.Helper(); f.remove(t, "app.out", "app.control") },
			check:   CheckTopics, status: Problem,
			detail: "missing: app.out, app.control", next: "run `processor topics apply`",
		},
		"effects compacted": {
			mistake: "effects-compacted",
			spoil:   func(t *testing.T, f *fake) { t.Helper(); f.set(t, "app.effects", "cleanup.policy", "compact,delete") },
			check:   CheckSettings, status: Problem,
			detail: `topic app.effects: cleanup.policy is "compact,delete", want "delete": compaction would lose effects`, next: "run `processor topics plan`",
		},
		"effects kept too short": {
			spoil: func(t *testing.T, f *fake) { t.Helper(); f.set(t, "app.effects", "retention.ms", "86400000") },
			check: CheckSettings, status: Problem,
			detail: `topic app.effects: retention.ms is "86400000", want "1209600000": effects may be lost`, next: "run `processor topics plan`",
		},
		"effects with other partitions": {
			mistake: "lanes-changed",
			spec:    func(s *Spec) { s.Topics[2].Partitions = 12 },
			check:   CheckSettings, status: Problem,
			detail: "effects topic app.effects has 3 partitions, but effects.lanes is 12; the number is fixed for life", next: "set effects.lanes to 3",
		},
		"control not compacted": {
			spoil: func(t *testing.T, f *fake) { t.Helper(); f.set(t, "app.control", "cleanup.policy", "delete") },
			check: CheckSettings, status: Problem,
			detail: `topic app.control: cleanup.policy is "delete", want "compact": without compaction alone`, next: "run `processor topics plan`",
		},
		"progress deleted with time": {
			spoil: func(t *testing.T, f *fake) {
				t.Helper()
				f.set(t, "app.relay-progress", "cleanup.policy", "delete,compact")
			},
			check: CheckSettings, status: Problem,
			detail: `topic app.relay-progress: cleanup.policy is`, next: "run `processor topics plan`",
		},
		"output with other settings": {
			spoil: func(t *testing.T, f *fake) { t.Helper(); f.set(t, "app.out", "compression.type", "gzip") },
			check: CheckSettings, status: Degraded,
			detail: `topic app.out: compression.type is "gzip", want "zstd"`, next: "run `processor topics plan`",
		},
		"output with other partitions": {
			spec:  func(s *Spec) { s.Topics[1].Partitions = 4 },
			check: CheckSettings, status: Degraded,
			detail: "topic app.out has 2 partitions, configured are 4", next: "run `processor topics plan`",
		},
		"too few replicas for the in-sync minimum": {
			spoil: func(t *testing.T, f *fake) { t.Helper(); f.set(t, "app.out", "min.insync.replicas", "2") },
			check: CheckReplication, status: Problem,
			detail: "topic app.out: min.insync.replicas is 2, but it has 1 replicas: no write can succeed", next: "lower min.insync.replicas",
		},
		"one in-sync replica is enough": {
			opts:  []kfake.Opt{kfake.NumBrokers(3)},
			check: CheckReplication, status: Degraded,
			detail: "min.insync.replicas is 1: in, app.out, app.effects, app.effect-results, app.relay-progress, app.dead-letter, app.control: an acknowledged record may exist on one broker only", next: "set min.insync.replicas to 2",
		},
		"one replica on three brokers": {
			opts: []kfake.Opt{kfake.NumBrokers(3)},
			spoil: func(t *testing.T, f *fake) {
				t.Helper()
				for _, topic := range testTopics() {
					f.set(t, topic.Name, "min.insync.replicas", "2")
				}
				f.remove(t, "app.dead-letter", "app.effect-results")
				if _, err := f.admin.CreateTopics(t.Context(), 1, 1, nil, "app.dead-letter"); err != nil {
					t.Fatal(err)
				}
				if _, err := f.admin.CreateTopics(t.Context(), 3, 1, nil, "app.effect-results"); err != nil {
					t.Fatal(err)
				}
			},
			check: CheckReplication, status: Degraded,
			detail: "one replica only, on a cluster of 3 brokers: app.effect-results, app.dead-letter: one lost disk", next: "kafka-reassign-partitions.sh",
		},
		"input recreated": {
			mistake: "input-recreated",
			spoil:   func(t *testing.T, f *fake) { t.Helper(); f.commit(t, "in", 1, 0, testMetadata([16]byte{1, 2, 3})) },
			check:   CheckOffsets, status: Problem,
			detail: "input topic in was deleted and created again: the committed offsets of partitions 1 belong to its predecessor",
			next:   "run `processor offsets set --topic in --all-partitions --to earliest --reason WHY`",
		},
		"input lost its end": {
			spoil: func(t *testing.T, f *fake) { t.Helper(); f.commit(t, "in", 0, 7, "") },
			check: CheckOffsets, status: Degraded,
			detail: "partitions 0 will halt: their committed offsets lie beyond the end of the log", next: "processor offsets set --topic in",
		},
		"no right to the transactional id": {
			mistake: "right-missing",
			spoil: func(t *testing.T, f *fake) {
				t.Helper()
				f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.TransactionalIDAuthorizationFailed, Count: -1})
			},
			check: CheckRights, status: Problem,
			detail: "transactional id app.one.0: no right to Write",
			next:   "kafka-acls.sh --bootstrap-server 127.0.0.1:",
		},
		"a broker that cannot be reached": {
			spoil: advertise(true), besides: CheckReplication,
			check: CheckBrokers, status: Degraded,
			detail: "broker 1 advertises 127.0.0.1:1, and from here: nothing listens at 127.0.0.1:1", next: "correct its advertised.listeners",
		},
		"no broker that can be reached": {
			spoil: advertise(false),
			check: CheckBrokers, status: Problem,
			detail: "broker 0 advertises 127.0.0.1:1, and from here: nothing listens at 127.0.0.1:1", next: "correct its advertised.listeners",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := newFake(t, test.opts...).fit(t)
			if test.spoil != nil {
				test.spoil(t, fake)
			}
			spec := testSpec()
			if test.spec != nil {
				test.spec(&spec)
			}
			findings := only(Preflight(short(t), fake.conf, spec))
			at := slices.IndexFunc(findings, func(f Finding) bool {
				return f.Check == test.check && f.Status == test.status && strings.Contains(f.Detail, test.detail) && strings.Contains(f.Next, test.next)
			})
			if at < 0 {
				t.Errorf("want %s %s %q, next %q; got %+v", test.check, test.status, test.detail, test.next, findings)
			} else if test.mistake != "" {
				faults.Shows(t, test.mistake, findings[at].Detail+": "+findings[at].Next)
			}
			for _, finding := range findings {
				if finding.Next == "" {
					t.Errorf("finding %+v names no next step", finding)
				}
				if finding.Check != test.check && finding.Check != test.besides {
					t.Errorf("unexpected finding %+v", finding)
				}
			}
		})
	}
}

// A broker's certificate runs out between the first connection and the second. The check that meets it says so, as the
// first would have.
func TestPreflightExplainsAConnectionThatFailsLater(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ca")
	good := ca.serverTLS("127.0.0.1")
	certificate, key := ca.issueUntil("broker", time.Now().Add(-time.Hour), "127.0.0.1")
	expired, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	var shown atomic.Int32
	fake := newFake(t, kfake.TLS(&tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if shown.Add(1) == 1 {
			return &good.Certificates[0], nil
		}
		return &expired, nil
	}}))
	fake.conf.TLS = TLS{Enabled: true, CAFile: write(t, "ca", ca.pem)}
	findings := Preflight(short(t), fake.conf, testSpec())
	failing(t, Failed(findings), "the broker's certificate is not valid", "expired", "renew the broker's certificate, and check this machine's clock")
	if shown.Load() < 2 {
		t.Errorf("the broker showed %d certificates, want a good one and an expired one", shown.Load())
	}
}

// advertise makes metadata name two brokers on a port where nobody listens, or all but the first.
func advertise(first bool) func(t *testing.T, f *fake) {
	return func(t *testing.T, f *fake) {
		t.Helper()
		_, text, _ := strings.Cut(f.ListenAddrs()[0], ":")
		port, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		f.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
			f.KeepControl()
			if topics := req.(*kmsg.MetadataRequest).Topics; len(topics) > 0 || topics == nil {
				return nil, nil, false
			}
			resp := req.ResponseKind().(*kmsg.MetadataResponse)
			for node := range int32(2) {
				broker := kmsg.NewMetadataResponseBroker()
				broker.NodeID, broker.Host, broker.Port = node, "127.0.0.1", 1
				if first && node == 0 {
					broker.Port = int32(port)
				}
				resp.Brokers = append(resp.Brokers, broker)
			}
			return resp, nil, true
		})
	}
}

// A cluster that is unfit in several ways is reported in one go.
func TestPreflightReportsAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	fake := newFake(t, kfake.MaxVersions(kversion.V3_9_0())).fit(t)
	fake.remove(t, "app.out", "in")
	fake.set(t, "app.effects", "cleanup.policy", "compact")
	fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, TopLevel: true, Err: kerr.GroupAuthorizationFailed, Count: -1})
	err := Failed(Preflight(short(t), fake.conf, testSpec()))
	failing(t, err, "older than Kafka 4.0", "input topic in does not exist", "missing: app.out", "cleanup.policy", "consumer group app: no right to Read", "--operation Read --group app")
}

// What a principal sees that may read and nothing else.
func TestReadOnlyPrincipalIsToldEachMissingRight(t *testing.T) {
	t.Parallel()
	allow := func(kind kmsg.ACLResourceType, name string, operations ...kmsg.ACLOperation) (acls []kfake.ACL) {
		for _, operation := range operations {
			acls = append(acls, kfake.ACL{Resource: kind, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: operation, Allow: true})
		}
		return acls
	}
	topic, group := kmsg.ACLResourceTypeTopic, kmsg.ACLResourceTypeGroup
	fake := newFake(t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "admin", "admin"),
		kfake.User("PLAIN", "reader", rightPassword, slices.Concat(
			allow(topic, "in", kmsg.ACLOperationRead),
			allow(topic, "app.out", kmsg.ACLOperationRead),
			allow(topic, "app.control", kmsg.ACLOperationRead, kmsg.ACLOperationDescribeConfigs),
			allow(topic, "app.dead-letter", kmsg.ACLOperationDescribe, kmsg.ACLOperationDescribeConfigs),
			allow(topic, "app.effect-results", kmsg.ACLOperationRead, kmsg.ACLOperationDescribeConfigs),
			allow(topic, "app.relay-progress", kmsg.ACLOperationDescribe),
			allow(group, "app", kmsg.ACLOperationDescribe),
		)...))
	fake.conf.SASL = SASL{Mechanism: "PLAIN", Username: "admin", PasswordFile: write(t, "password", "admin")}
	fake.fit(t)
	fake.conf.SASL = SASL{Mechanism: "PLAIN", Username: "reader", PasswordFile: write(t, "password", rightPassword)}
	findings := only(Preflight(short(t), fake.conf, testSpec()))
	var b strings.Builder
	for _, finding := range findings {
		fmt.Fprintf(&b, "%s %s: %s\n  %s\n", finding.Status, finding.Check, finding.Detail, strings.ReplaceAll(finding.Next, fake.conf.Brokers[0], "BROKER"))
	}
	golden.Is(t, "testdata/preflight-reader.txt", b.String())
}

func TestNearestFindsWhatWasMeant(t *testing.T) {
	t.Parallel()
	names := []string{"orders", "orders.priced", "payments"}
	for typed, want := range map[string]string{"order": "orders", "Orders": "orders", "odrers": "orders", "order.prices": "orders.priced", "customers": "", "x": ""} {
		if got := nearest(typed, names); got != want {
			t.Errorf("%q: got %q, want %q", typed, got, want)
		}
	}
}

func TestACLCommandsSurviveAShell(t *testing.T) {
	t.Parallel()
	conf := Config{Brokers: []string{"kafka-1:9092", "kafka-2:9092"}, SASL: SASL{Mechanism: "PLAIN", Username: "o'neil"}}
	got := acls{conf}.transactionalIDs("app", kmsg.ACLOperationWrite)
	want := `run ` + "`" + `kafka-acls.sh --bootstrap-server kafka-1:9092,kafka-2:9092 --add --allow-principal 'User:o'\''neil' --operation Write --transactional-id app. --resource-pattern-type prefixed` + "`"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	certificate, key := newAuthority(t, "ca").issue("pawl")
	for want, conf := range map[string]Config{
		"ANONYMOUS": {},
		"PRINCIPAL": {SASL: SASL{Mechanism: "OAUTHBEARER"}},
		"CN=pawl":   {TLS: TLS{Enabled: true, CertFile: write(t, "crt", certificate), KeyFile: write(t, "key", key)}},
	} {
		if got := conf.principal(); got != want {
			t.Errorf("principal %q, want %q", got, want)
		}
	}
}
