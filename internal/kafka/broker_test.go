//go:build integration

package kafka

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/cluster"
	"pawl/internal/faults"
	"pawl/internal/testkit"
	"pawl/internal/transact"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// own is an application with names of its own on a real cluster, seen by an almighty client.
type own struct {
	*fake

	spec Spec
	in   string
}

// newOwn makes all topics of a new application, with an input of two partitions, unless it is told
// to leave them.
func newOwn(t *testing.T, brokers []string, apply bool) *own {
	t.Helper()
	o := &own{fake: (&fake{conf: Config{Brokers: brokers}}).open(t), in: testkit.Name(t, "in")}
	application := testkit.Name(t, "app")
	o.spec = testSpec()
	o.spec.Application, o.spec.Group, o.spec.LedgerGroup = application, application, application+".effects"
	o.spec.TransactionalIDs = []string{application + ".one.0"}
	o.spec.Inputs = []string{o.in, application + ".effect-results"}
	for i := range o.spec.Topics {
		topic := &o.spec.Topics[i]
		topic.Name = strings.Replace(topic.Name, "app.", application+".", 1)
		if topic.Role == RoleInput {
			topic.Name, topic.Partitions = o.in, 2
		}
	}
	if apply {
		o.apply(t)
	}
	return o
}

func (o *own) apply(t *testing.T) {
	t.Helper()
	plans, err := Plan(t.Context(), o.client, o.spec.Topics, PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := Apply(t.Context(), o.client, plans, false); err != nil {
		t.Fatal(err)
	}
}

func (o *own) topic(suffix string) string { return o.spec.Application + "." + suffix }

func TestRealTopicsAreMadeOnceAndComparedClean(t *testing.T) {
	t.Parallel()
	o := newOwn(t, testkit.Kafka(t), false)
	findings := Preflight(short(t), o.conf, o.spec)
	failing(t, Failed(findings), "input topic "+o.in+" does not exist", "missing: "+o.topic("out")+", "+o.topic("effects"))

	plans, err := Plan(t.Context(), o.client, o.spec.Topics, PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := Apply(t.Context(), o.client, plans, true); err != nil {
		t.Fatalf("dry run: %v", err)
	}
	if seen, err := requestTopics(t.Context(), o.client, o.in); err != nil || seen[o.in].err == nil {
		t.Fatalf("the dry run has made topics: %v", err)
	}
	for range 2 {
		o.apply(t)
	}
	again, err := Plan(t.Context(), o.client, o.spec.Topics, PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, plan := range again {
		if !plan.Clean() {
			t.Errorf("after apply: %+v", plan)
		}
	}
	begin := time.Now()
	findings = Preflight(short(t), o.conf, o.spec)
	t.Logf("preflight took %v", time.Since(begin)) // it is part of every restart
	if found := only(findings); len(found) > 0 {
		t.Errorf("preflight: %+v", found)
	}

	// What the preflight asked for has left nothing behind.
	listed, err := o.admin.ListTransactions(t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, found := listed[o.spec.TransactionalIDs[0]]; found {
		t.Error("the preflight has made a transactional id")
	}
	groups, err := o.admin.ListGroups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, found := groups[o.spec.Group]; found {
		t.Error("the preflight has made a group")
	}
}

func TestRealDriftIsFoundAndMended(t *testing.T) {
	t.Parallel()
	o := newOwn(t, testkit.Kafka(t), true)
	o.set(t, o.topic("effects"), "cleanup.policy", "compact")
	o.set(t, o.topic("control"), "cleanup.policy", "compact,delete")
	o.set(t, o.topic("out"), "compression.type", "gzip")
	o.spec.Topics[1].Partitions = 4 // output
	o.spec.Topics[2].Partitions = 6 // effects
	err := Failed(Preflight(short(t), o.conf, o.spec))
	failing(t, err, "effects topic "+o.topic("effects")+" has 3 partitions, but effects.lanes is 6", `cleanup.policy is "compact", want "delete"`, `cleanup.policy is "compact,delete", want "compact"`)

	plans, err := Plan(t.Context(), o.client, o.spec.Topics, PlanOptions{Grow: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := Apply(t.Context(), o.client, plans, true); err != nil {
		t.Fatalf("dry run: %v", err)
	}
	if err := Apply(t.Context(), o.client, plans, false); err != nil {
		t.Fatal(err)
	}
	o.spec.Topics[2].Partitions = 3
	if found := only(Preflight(short(t), o.conf, o.spec)); len(found) > 0 {
		t.Errorf("preflight after apply: %+v", found)
	}

	o.spec.Topics[1].Settings = map[string]string{"compresion.type": "zstd"}
	plans, err = Plan(t.Context(), o.client, o.spec.Topics, PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	failing(t, Apply(t.Context(), o.client, plans, true), "topic "+o.topic("out")+": change settings: INVALID_CONFIG", "compresion.type")
}

func TestRealWrongTopicNames(t *testing.T) {
	t.Parallel()
	o := newOwn(t, testkit.Kafka(t), true)
	o.spec.Topics[0].Name = o.in + "s"
	failing(t, Failed(Preflight(short(t), o.conf, o.spec)), "input topic "+o.in+"s does not exist; there is one named "+o.in, "correct routes.topics")
	o.spec.Topics[0].Name = "not a topic"
	failing(t, Failed(Preflight(short(t), o.conf, o.spec)), `"not a topic" cannot be the name of a topic`)
}

func TestRealRecreatedInputIsNoticed(t *testing.T) {
	t.Parallel()
	o := newOwn(t, testkit.Kafka(t), true)
	testkit.Produce(t, o.conf.Brokers, &kgo.Record{Topic: o.in, Value: []byte("v")})
	offsets := make(kadm.Offsets)
	offsets.Add(kadm.Offset{Topic: o.in, Partition: 0, At: 0, LeaderEpoch: -1, Metadata: testMetadata([16]byte{1, 2, 3})})
	if err := o.admin.CommitAllOffsets(t.Context(), o.spec.Group, offsets); err != nil {
		t.Fatal(err)
	}
	failing(t, Failed(Preflight(short(t), o.conf, o.spec)), "input topic "+o.in+" was deleted and created again: the committed offsets of partitions 0", "processor offsets set --topic "+o.in)

	moves, err := PlanOffsets(short(t), o.client, o.spec.Group, o.in, nil, Position{kind: atEarliest})
	if err != nil {
		t.Fatal(err)
	}
	if err := SetOffsets(short(t), o.admin, o.spec.Group, moves, testMetadata); err != nil {
		t.Fatal(err)
	}
	if found := only(Preflight(short(t), o.conf, o.spec)); len(found) > 0 {
		t.Errorf("preflight after offsets set: %+v", found)
	}
}

func TestRealLagPassesMarkers(t *testing.T) {
	t.Parallel()
	o := newOwn(t, testkit.Kafka(t), true)
	ctx := short(t)
	first := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	producer := o.producer(t, testkit.Name(t, "upstream"), o.in)
	producer.begin()
	producer.write(first, first.Add(time.Second))
	producer.end(kgo.TryCommit)
	producer.begin()
	producer.write(first.Add(2 * time.Second))
	var lags []PartitionLag
	testkit.WaitFor(t, time.Minute, "marker", func() bool {
		var err error
		lags, err = Lag(ctx, o.admin, o.spec.Group, []string{o.in})
		return err == nil && lags[0].Stable == 3 // a broker that has just come up has no coordinator yet
	})
	if want := (PartitionLag{Topic: o.in, Committed: NoOffset, Stable: 3, End: 4, Lag: 4, Held: 1}); lags[0] != want {
		t.Errorf("got %+v, want %+v", lags[0], want)
	}
	if err := AddOldest(ctx, o.conf, lags); err != nil {
		t.Fatal(err)
	}
	if !lags[0].Oldest.Equal(first) {
		t.Errorf("oldest %v, want %v", lags[0].Oldest, first)
	}
	producer.end(kgo.TryAbort)
	testkit.WaitFor(t, time.Minute, "abort marker", func() bool {
		lags, err := Lag(ctx, o.admin, o.spec.Group, []string{o.in})
		return err == nil && lags[0].Stable == 5
	})
	offsets := make(kadm.Offsets)
	offsets.Add(kadm.Offset{Topic: o.in, Partition: 0, At: 5, LeaderEpoch: -1})
	if err := o.admin.CommitAllOffsets(ctx, o.spec.Group, offsets); err != nil {
		t.Fatal(err)
	}
	lags, err := Lag(ctx, o.admin, o.spec.Group, []string{o.in})
	if err != nil || lags[0].Lag != 0 {
		t.Errorf("all is committed: %+v, %v", lags, err)
	}
}

func TestRealOffsetsOfALivingGroupAreRefused(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]kgo.Opt{
		"classic static": {kgo.InstanceID("one")},
		"consumer":       {kgo.ServerSideBalancer(), kgo.Balancers(kgo.RangeBalancer())},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOwn(t, testkit.Kafka(t), true)
			testkit.Produce(t, o.conf.Brokers, &kgo.Record{Topic: o.in, Value: []byte("v")})
			early, err := PlanOffsets(short(t), o.client, o.spec.Group, o.in, nil, Position{kind: atLatest})
			if err != nil {
				t.Fatal(err)
			}
			base, err := o.conf.Options()
			if err != nil {
				t.Fatal(err)
			}
			member, err := kgo.NewClient(append(append(base, kgo.ConsumerGroup(o.spec.Group), kgo.ConsumeTopics(o.in), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart())), opts...)...)
			if err != nil {
				t.Fatal(err)
			}
			defer member.Close()
			if fetches := member.PollFetches(short(t)); len(fetches.Records()) != 1 {
				t.Fatalf("the member read nothing: %v", fetches.Errors())
			}
			_, err = PlanOffsets(short(t), o.client, o.spec.Group, o.in, nil, Position{kind: atEarliest})
			var live *LiveGroupError
			if !errors.As(err, &live) || len(live.Members) != 1 {
				t.Fatalf("got %v", err)
			}
			for partition := range int32(2) {
				if owns := live.Members[0].Owns; !owns.Lookup(o.in, partition) {
					t.Errorf("the member owns %v, want %s/%d", owns, o.in, partition)
				}
			}
			failing(t, SetOffsets(short(t), o.admin, o.spec.Group, early, testMetadata), "a member has joined the group meanwhile")
		})
	}
}

func TestRealPendingOffsetsAreRefused(t *testing.T) {
	t.Parallel()
	o := newOwn(t, testkit.Kafka(t), true)
	testkit.Produce(t, o.conf.Brokers, &kgo.Record{Topic: o.in, Value: []byte("v")})
	id := o.spec.TransactionalIDs[0]
	producer := o.producer(t, id, o.topic("out"))
	producer.begin()
	producer.write(time.Now())
	seen, err := requestTopics(t.Context(), o.client, o.in)
	if err != nil {
		t.Fatal(err)
	}
	addOffset(t, producer.client, id, o.spec.Group, o.in, seen[o.in].id, 0)
	_, err = PlanOffsets(short(t), o.client, o.spec.Group, o.in, nil, Position{kind: atEarliest})
	if _, ok := errors.AsType[*PendingOffsetsError](err); !ok {
		t.Fatalf("got %v", err)
	}
	if _, err := AbortTransaction(short(t), o.conf, o.spec.TransactionalIDs[0]); err != nil {
		t.Fatal(err)
	}
	testkit.WaitFor(t, time.Minute, "offsets to settle", func() bool {
		_, err := PlanOffsets(short(t), o.client, o.spec.Group, o.in, nil, Position{kind: atEarliest})
		return err == nil
	})
}

func TestRealTransactionsAreFoundAndEnded(t *testing.T) {
	t.Parallel()
	o := newOwn(t, testkit.Kafka(t), true)
	ctx := short(t)
	id, out := o.spec.TransactionalIDs[0], o.topic("out")
	producer := o.producer(t, id, out)
	producer.begin()
	producer.write(time.Now(), time.Now())
	open, err := OpenTransactions(ctx, o.admin, o.spec.Application+".")
	if err != nil {
		t.Fatal(err)
	}
	if len(open) != 1 || open[0].TransactionalID != id || !slices.Equal(open[0].Partitions, []string{out + "/0"}) || open[0].Started.IsZero() {
		t.Fatalf("open: %+v", open)
	}
	held, err := HeldPartitions(ctx, o.admin, out)
	if err != nil {
		t.Fatal(err)
	}
	if len(held) != 1 || held[0].Held != 2 || len(held[0].Holders) != 1 || held[0].Holders[0].TransactionalID != id {
		t.Fatalf("held: %+v", held)
	}
	if _, err := AbortTransaction(ctx, o.conf, id); err != nil {
		t.Fatal(err)
	}
	released := func() bool {
		held, err := HeldPartitions(ctx, o.admin, out)
		return err == nil && len(held) == 0
	}
	testkit.WaitFor(t, time.Minute, "readers to be released", released)
	if err := transact.Commit(ctx, producer.client, out, 0); err == nil {
		t.Error("the fenced producer has committed")
	}
	_, err = AbortTransaction(ctx, o.conf, id)
	failing(t, err, "has no open transaction, its state is Empty")
	_, err = AbortTransaction(ctx, o.conf, id+"0")
	failing(t, err, "does not exist")

	// A marker of our own, as for a transaction that no coordinator would end.
	other := o.producer(t, id+".other", out)
	other.begin()
	other.write(time.Now())
	_, err = FindHanging(ctx, o.admin, out, 0, 0, false)
	failing(t, err, "belongs to "+id+".other and is not hanging")
	holder, err := FindHanging(ctx, o.admin, out, 0, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := AbortHanging(ctx, o.admin, out, 0, holder); err != nil {
		t.Fatal(err)
	}
	testkit.WaitFor(t, time.Minute, "readers to be released", released)
	if records := testkit.ReadCommitted(t, o.conf.Brokers, out); len(records) != 0 {
		t.Errorf("%d records of aborted transactions were read", len(records))
	}
}

// Kafka 3.9 is refused with a clear message, and so is 4.x on which transactions v2 are not turned on.
func TestRealClusterWithoutTransactionsV2IsRefused(t *testing.T) {
	t.Parallel()
	t.Run("Kafka 3.9.1", func(t *testing.T) {
		t.Parallel()
		old := testkit.OpenKafka(t, cluster.KafkaConfig{Version: "3.9.1"})
		o := newOwn(t, old.Brokers(), true)
		found := only(Preflight(short(t), o.conf, o.spec))
		if len(found) != 1 || found[0].Check != CheckTransactions || found[0].Status != Problem {
			t.Fatalf("findings %+v", found)
		}
		t.Log(found[0])
		failing(t, Failed(found), "the brokers are older than Kafka 4.0 (by their requests: 3.9)", "upgrade the brokers to Kafka 4.0 or later")
	})
	t.Run("Kafka 4 with transaction.version 1", func(t *testing.T) {
		t.Parallel()
		kafka := testkit.KafkaCluster(t, 1)
		o := newOwn(t, kafka.Brokers(), true)
		for _, level := range []int16{1, 0} {
			answer, err := o.admin.UpdateFeatures(t.Context(), false, kadm.FeatureUpdate{Feature: "transaction.version", MaxVersionLevel: level, UpgradeType: 2})
			if err != nil {
				t.Fatal(err)
			}
			for _, one := range answer {
				if one.Err != nil {
					t.Fatal(one.Err)
				}
			}
			want := fmt.Sprintf("the finalised feature transaction.version is %d, want 2", level)
			testkit.WaitFor(t, time.Minute, want, func() bool {
				return strings.Contains(fmt.Sprint(Failed(Preflight(short(t), o.conf, o.spec))), want)
			})
		}
		command := regexp.MustCompile("run `kafka-features.sh ([^`]*)`").FindStringSubmatch(Failed(Preflight(short(t), o.conf, o.spec)).Error())
		if command == nil {
			t.Fatal("the finding names no command")
		}
		// What the finding says to run is run.
		if text, err := kafka.Tool(t.Context(), "org.apache.kafka.tools.FeatureCommand", strings.Fields(command[1])...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		testkit.WaitFor(t, time.Minute, "transactions v2", func() bool { return Failed(Preflight(short(t), o.conf, o.spec)) == nil })
	})
}

// A processor that is restarted while a broker is away must come up all the same.
func TestRealPreflightPassesWithOneBrokerAway(t *testing.T) {
	t.Parallel()
	kafka := testkit.KafkaCluster(t, 3)
	o := newOwn(t, kafka.Brokers(), false)
	for i := range o.spec.Topics {
		o.spec.Topics[i].Replication = 3
	}
	o.apply(t)
	if err := Failed(Preflight(short(t), o.conf, o.spec)); err != nil {
		t.Fatal(err)
	}
	if err := kafka.Kill(1); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	testkit.WaitFor(t, time.Minute, "a preflight without problems", func() bool {
		begin := time.Now()
		findings := Preflight(short(t), o.conf, o.spec)
		t.Logf("%v after the kill: %s in %v: %v", begin.Sub(killed).Round(time.Millisecond), Summary(findings), time.Since(begin).Round(time.Millisecond), Failed(findings))
		return Failed(findings) == nil
	})
}

func TestRealPasswordsAndRights(t *testing.T) {
	t.Parallel()
	ca, otherCA := newAuthority(t, "ca"), newAuthority(t, "other ca")
	certificate, key := ca.issue("broker", "127.0.0.1")
	// Each network thread takes a new certificate at a moment of its own: one thread, one moment.
	kafka := testkit.OpenKafka(t, cluster.KafkaConfig{ACL: true, Settings: map[string]string{"num.network.threads": "1"}, Listener: cluster.Listener{
		TLS: &cluster.TLS{Certificate: certificate, Key: key},
		SASL: &cluster.SASL{
			Mechanisms: []string{"SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "OAUTHBEARER"},
			Users:      []cluster.User{{Name: "service", Password: rightPassword}},
		},
	}})
	o := newOwn(t, kafka.InternalBrokers(), true)
	conf := Config{
		Brokers: kafka.Brokers(), TLS: TLS{Enabled: true, CAFile: write(t, "ca", ca.pem)},
		SASL: SASL{Mechanism: "SCRAM-SHA-512", Username: "service", PasswordFile: write(t, "password", rightPassword)},
	}

	t.Run("wrong password", func(t *testing.T) {
		for _, mechanism := range []string{"SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"} {
			wrong := conf
			wrong.SASL.Mechanism, wrong.SASL.PasswordFile = mechanism, write(t, "password", wrongPassword)
			begin := time.Now()
			found := Preflight(short(t), wrong, o.spec)
			if len(found) != 1 || found[0].Detail != `the broker refuses user "service" with `+mechanism || !strings.Contains(found[0].Next, "kafka.sasl.password_file") {
				t.Errorf("findings %+v", found)
			}
			t.Logf("%s: told after %v", mechanism, time.Since(begin))
			if strings.Contains(fmt.Sprint(found), wrongPassword) {
				t.Errorf("the password is shown: %+v", found)
			}
		}
	})
	t.Run("no hot loop, and rotation", func(t *testing.T) {
		file := write(t, "password", wrongPassword)
		wrong := conf
		wrong.SASL.PasswordFile = file
		opts, err := wrong.Options()
		if err != nil {
			t.Fatal(err)
		}
		count := newAttempts()
		client, err := kgo.NewClient(append(opts, kgo.WithHooks(count), kgo.ConsumeTopics(o.in), kgo.ConsumerGroup(o.spec.Group), kgo.RetryBackoffFn(func(int) time.Duration { return 5 * time.Millisecond }))...)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		for ctx.Err() == nil {
			client.PollFetches(ctx)
		}
		opened, failed := count.count()
		if failed == 0 || opened > 8 { // pauses of 250, 500, 1000, 2000 ms, and the first
			t.Errorf("%d connections in 4 s, %d refused", opened, failed)
		}
		t.Logf("4 s with a wrong password: %d connections, %d refused", opened, failed)
		rewrite(t, file, rightPassword)
		begin := time.Now()
		select {
		case <-count.joined:
		case <-short(t).Done():
			t.Fatal("never connected")
		}
		t.Logf("connected %v after the password was corrected", time.Since(begin))
	})
	t.Run("mechanisms", func(t *testing.T) {
		for _, mechanism := range []string{"SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"} {
			one := conf
			one.SASL.Mechanism = mechanism
			open(t, one)
		}
		token := "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString(fmt.Append(nil, fmt.Sprintf(`{"sub":"service","iat":%d,"exp":%d}`, time.Now().Unix(), time.Now().Add(time.Hour).Unix()))) + "."
		bearer := conf
		bearer.SASL = SASL{Mechanism: "OAUTHBEARER", TokenFile: write(t, "token", token)}
		open(t, bearer)
		bearer.SASL.TokenFile = write(t, "token", "rubbish")
		_, err := bearer.Open(short(t))
		failing(t, err, "the broker refuses the token of "+bearer.SASL.TokenFile, "check that whatever writes kafka.sasl.token_file is running")

		bare := conf
		bare.SASL = SASL{}
		_, err = bare.Open(short(t))
		failing(t, err, "the listener wants SASL, but kafka.sasl.mechanism is empty; it offers", "SCRAM-SHA-512")
		encrypted := o.conf
		encrypted.TLS = TLS{Enabled: true}
		_, err = encrypted.Open(short(t))
		failing(t, err, "the listener does not speak TLS, but kafka.tls.enabled is true")
		plain := o.conf
		plain.SASL = conf.SASL
		_, err = plain.Open(short(t))
		failing(t, err, "the listener does not want SASL, but kafka.sasl.mechanism is SCRAM-SHA-512")
	})
	// No password goes to a broker that can't show who it is.
	t.Run("certificates", func(t *testing.T) {
		refused := func(t *testing.T, change func(*TLS), words ...string) {
			t.Helper()
			one := conf
			change(&one.TLS)
			found := Preflight(short(t), one, o.spec)
			if len(found) != 1 {
				t.Errorf("findings %+v", found)
			}
			failing(t, Failed(found), words...)
		}
		refused(t, func(tls *TLS) { *tls = TLS{} }, "the listener speaks TLS, but kafka.tls.enabled is false", "set kafka.tls.enabled to true")
		refused(t, func(tls *TLS) { tls.CAFile = "" }, "signed by an authority that this system does not know", "set kafka.tls.ca_file")
		refused(t, func(tls *TLS) { tls.CAFile = write(t, "ca", otherCA.pem) }, "not signed by an authority in", "kafka.tls.ca_file")
		refused(t, func(tls *TLS) { tls.ServerName = "kafka.example" }, "the broker's certificate is for another name", "kafka.tls.server_name")

		show := func(certificate, key string) {
			t.Helper()
			const keystore = "listener.name.client.ssl.keystore."
			answer, err := o.admin.AlterBrokerConfigs(short(t), []kadm.AlterConfig{
				{Op: kadm.SetConfig, Name: keystore + "certificate.chain", Value: &certificate},
				{Op: kadm.SetConfig, Name: keystore + "key", Value: &key},
				{Op: kadm.SetConfig, Name: keystore + "type", Value: new("PEM")},
			}, 0)
			if err != nil || answer[0].Err != nil {
				t.Fatalf("replace the broker's certificate: %+v, %v", answer, err)
			}
		}
		// The broker applies it when it has read its own log. Failed alone does not tell: the user has no
		// rights yet.
		show(ca.issueUntil("broker", time.Now().Add(-time.Hour), "127.0.0.1"))
		testkit.WaitFor(t, time.Minute, "the expired certificate", func() bool {
			client, err := conf.Open(short(t))
			if err == nil {
				client.Close()
			}
			return err != nil
		})
		faults.Shows(t, "expired-certificate", fmt.Sprint(Failed(Preflight(short(t), conf, o.spec))))
		show(certificate, key)
		testkit.WaitFor(t, time.Minute, "the renewed certificate", func() bool {
			client, err := conf.Open(short(t))
			if err == nil {
				client.Close()
			}
			return err == nil
		})
	})
	// Each finding names a command; after all of them the preflight passes, with no more rights than
	// those, and a transaction goes through.
	t.Run("rights", func(t *testing.T) {
		first := only(Preflight(short(t), conf, o.spec))
		if len(first) == 0 {
			t.Fatal("a user without rights passes")
		}
		for round := 1; ; round++ {
			found := only(Preflight(short(t), conf, o.spec))
			if len(found) == 0 {
				t.Logf("passes after %d rounds", round)
				break
			}
			if round > 3 {
				t.Fatalf("still %+v", found)
			}
			for _, finding := range found {
				command, _, ok := strings.Cut(strings.TrimPrefix(finding.Next, "run `kafka-acls.sh "), "`")
				if !ok || finding.Status != Problem && finding.Check != CheckSettings {
					t.Fatalf("finding %+v names no right to add", finding)
				}
				t.Logf("round %d: %s\n    %s", round, finding.Detail, command)
				allow(t, o.admin, command)
			}
		}
		workAsLane(t, conf, o)
		made, err := kadm.NewClient(open(t, conf)).CreateTopic(t.Context(), 1, -1, nil, "more")
		if !errors.Is(cmp.Or(err, made.Err), kerr.TopicAuthorizationFailed) {
			t.Errorf("the service may create topics: %+v, %v", made, err)
		}
	})
}

// workAsLane does what a lane does: reads, writes to every topic of its own, and commits all with its
// offsets.
func workAsLane(t *testing.T, conf Config, o *own) {
	t.Helper()
	testkit.Produce(t, o.conf.Brokers, &kgo.Record{Topic: o.in, Value: []byte("v")})
	opts, err := conf.Options()
	if err != nil {
		t.Fatal(err)
	}
	session, err := kgo.NewGroupTransactSession(append(opts, kgo.TransactionalID(o.spec.TransactionalIDs[0]), kgo.ConsumerGroup(o.spec.Group),
		kgo.InstanceID("one"), kgo.ConsumeTopics(o.in), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if fetches := session.PollFetches(short(t)); len(fetches.Records()) != 1 {
		t.Fatalf("read %d records: %v", len(fetches.Records()), fetches.Errors())
	}
	if err := session.Begin(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"out", "effects", "effect-results", "relay-progress", "dead-letter", "control"} {
		if err := session.ProduceSync(short(t), &kgo.Record{Topic: o.topic(name), Key: []byte("k"), Value: []byte("v")}).FirstErr(); err != nil {
			t.Errorf("write to %s: %v", name, err)
		}
	}
	if committed, err := session.End(short(t), kgo.TryCommit); err != nil || !committed {
		t.Errorf("committed: %t, %v", committed, err)
	}
	// And what the ledger reads: the effects, in its own group, and the results and the progress of the
	// relay without one.
	reader, err := kgo.NewClient(append(opts, kgo.ConsumerGroup(o.spec.LedgerGroup), kgo.ConsumeTopics(o.topic("effects")),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if fetches := reader.PollFetches(short(t)); len(fetches.Records()) != 1 {
		t.Errorf("read %d effects: %v", len(fetches.Records()), fetches.Errors())
	}
	plain, err := kgo.NewClient(append(opts, kgo.ConsumeTopics(o.topic("effect-results"), o.topic("relay-progress")),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	for read := 0; read < 2; {
		fetches := plain.PollFetches(short(t))
		if fetches.Err() != nil {
			t.Fatalf("read %d of 2 records of the relay: %v", read, fetches.Errors())
		}
		read += fetches.NumRecords()
	}
}

// allow carries out what kafka-acls.sh would, without the seconds that a JVM takes.
func allow(t *testing.T, admin *kadm.Client, command string) {
	t.Helper()
	var operations []kadm.ACLOperation
	builder := kadm.NewACLs().AllowHosts("*").ResourcePatternType(kadm.ACLPatternLiteral)
	words := strings.Fields(strings.ReplaceAll(command, "'", ""))
	for i := 0; i+1 < len(words); i++ {
		switch value := words[i+1]; words[i] {
		case "--allow-principal":
			builder.Allow(value)
		case "--operation":
			switch value {
			case "Read":
				operations = append(operations, kadm.OpRead)
			case "Write":
				operations = append(operations, kadm.OpWrite)
			case "Describe":
				operations = append(operations, kadm.OpDescribe)
			case "DescribeConfigs":
				operations = append(operations, kadm.OpDescribeConfigs)
			default:
				t.Fatalf("operation %q", value)
			}
		case "--topic":
			builder.Topics(value)
		case "--group":
			builder.Groups(value)
		case "--transactional-id":
			builder.TransactionalIDs(value)
		case "--resource-pattern-type":
			builder.ResourcePatternType(kadm.ACLPatternPrefixed)
		}
	}
	answer, err := admin.CreateACLs(t.Context(), builder.Operations(operations...))
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range answer {
		if one.Err != nil {
			t.Fatal(one.Err)
		}
	}
}

func TestRealMutualTLS(t *testing.T) {
	t.Parallel()
	ca, otherCA := newAuthority(t, "ca"), newAuthority(t, "other ca")
	certificate, key := ca.issue("broker", "127.0.0.1", "localhost")
	kafka := testkit.OpenKafka(t, cluster.KafkaConfig{Listener: cluster.Listener{TLS: &cluster.TLS{Certificate: certificate, Key: key, ClientCA: ca.pem}}})
	conf := func(change func(*TLS)) Config {
		clientCertificate, clientKey := ca.issue("service")
		conf := Config{Brokers: kafka.Brokers(), TLS: TLS{Enabled: true, CAFile: write(t, "ca", ca.pem), CertFile: write(t, "crt", clientCertificate), KeyFile: write(t, "key", clientKey)}}
		change(&conf.TLS)
		return conf
	}
	open(t, conf(func(*TLS) {}))
	open(t, conf(func(tls *TLS) { tls.ServerName = "localhost" }))
	for name, test := range map[string]struct {
		change func(*TLS)
		words  []string
	}{
		"no TLS":          {func(tls *TLS) { *tls = TLS{} }, []string{"the listener speaks TLS, but kafka.tls.enabled is false"}},
		"wrong authority": {func(tls *TLS) { tls.CAFile = write(t, "ca", otherCA.pem) }, []string{"not signed by an authority in", "kafka.tls.ca_file"}},
		"wrong name":      {func(tls *TLS) { tls.ServerName = "kafka.example" }, []string{"the broker's certificate is for another name", "kafka.tls.server_name"}},
		"no certificate":  {func(tls *TLS) { tls.CertFile, tls.KeyFile = "", "" }, []string{"the broker ends the TLS handshake", "set kafka.tls.cert_file"}},
		"certificate of another authority": {func(tls *TLS) {
			certificate, key := otherCA.issue("service")
			tls.CertFile, tls.KeyFile = write(t, "crt", certificate), write(t, "key", key)
		}, []string{"the broker ends the TLS handshake", "truststore"}},
		"expired certificate": {func(tls *TLS) {
			certificate, key := ca.issueUntil("service", time.Now().Add(-time.Hour))
			tls.CertFile, tls.KeyFile = write(t, "crt", certificate), write(t, "key", key)
		}, []string{"the broker ends the TLS handshake", "not expired"}},
	} {
		t.Run(name, func(t *testing.T) {
			found := Preflight(short(t), conf(test.change), testSpec())
			if len(found) != 1 {
				t.Fatalf("findings %+v", found)
			}
			failing(t, Failed(found), test.words...)
		})
	}
}

// open connects for the length of the test.
func open(t *testing.T, conf Config) *kgo.Client {
	t.Helper()
	client, err := conf.Open(short(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}
