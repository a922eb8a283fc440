//go:build integration

package txn

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/cluster"
	"pawl/internal/testkit"
	"pawl/internal/transact"
)

// realWorld is a broker of its own with the topics of one application.
func realWorld(t *testing.T, settings map[string]string) (*world, *kadm.Client) {
	t.Helper()
	brokers := testkit.OpenKafka(t, cluster.KafkaConfig{Nodes: 1, Settings: settings}).Brokers()
	testkit.CreateTopics(t, brokers, 1, nil, inTopic, outTopic, effectsTopic, deadTopic, controlTopic)
	w := &world{t: t, hooks: &hookLog{t: t, ended: make(chan Ended, 100_000)}}
	var d net.Dialer
	w.dial, w.client = d.DialContext, testkit.Client(t, brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	w.config = validConfig()
	w.config.Application, w.config.Instance, w.config.Group = "app", "one", "app"
	w.config.Client = []kgo.Opt{kgo.SeedBrokers(brokers...)}
	w.config.Outputs, w.config.Routes = map[string]string{"out": outTopic}, []Route{{Topics: []string{inTopic}, Name: "copy", Handler: copyHandler{}}}
	w.config.EffectsTopic, w.config.DeadLetterTopic, w.config.ControlTopic, w.config.Lanes = effectsTopic, deadTopic, controlTopic, 1
	w.config.Hooks = w.hooks.hooks()
	return w, kadm.NewClient(w.client)
}

// wantOnceReal is wantOnce for a real broker.
func (w *world) wantOnceReal(topic string, values []string) {
	w.t.Helper()
	var got []string
	for _, r := range testkit.ReadCommitted(w.t, brokersOf(w.client), topic) {
		got = append(got, string(r.Value))
	}
	if !slices.Equal(got, values) {
		w.t.Errorf("topic %s has %d records, want %d, each once and in order: %v", topic, len(got), len(values), got)
	}
}

func brokersOf(client *kgo.Client) []string { return client.OptValue(kgo.SeedBrokers).([]string) }

// A lane has nothing to do for so long that the broker forgets its transactional id and what it knew of its
// producer id. It notices with the next record, makes a new session, and goes on.
func TestRealBrokerForgetsAnIdleLane(t *testing.T) {
	t.Parallel()
	w, admin := realWorld(t, map[string]string{
		"transactional.id.expiration.ms":                              "1500",
		"transaction.remove.expired.transaction.cleanup.interval.ms":  "300",
		"producer.id.expiration.ms":                                   "1500",
		"producer.id.expiration.check.interval.ms":                    "300",
		"transaction.abort.timed.out.transaction.cleanup.interval.ms": "300",
	})
	w.produce(0, numbers(0, 10)...)
	r := w.run()
	until(t, w.hooks.ended, "10 committed records", committed(10))
	testkit.WaitFor(t, 30*time.Second, "the broker to forget the transactional id", func() bool {
		listed, err := admin.ListTransactions(t.Context(), nil, nil)
		return err == nil && len(listed.Sorted()) == 0
	})
	w.produce(0, numbers(10, 20)...)
	within(t, time.Minute, w.hooks.ended, "20 committed records", committed(10))
	if err := r.drain(); err != nil {
		t.Fatal(err)
	}
	if len(w.hooks.suspected) != 0 {
		t.Error("a record was found guilty of what the broker forgot")
	}
	w.wantOnceReal(outTopic, numbers(0, 20))
}

// throttles keeps how long a broker asked its client to wait.
type throttles chan time.Duration

// OnBrokerThrottle is kgo.HookBrokerThrottle.
func (c throttles) OnBrokerThrottle(_ kgo.BrokerMetadata, wait time.Duration, _ bool) {
	select {
	case c <- wait:
	default: // one is enough
	}
}

// A quota holds the lane back. It costs time, and neither a record nor a session.
func TestRealBrokerQuotaCostsTimeOnly(t *testing.T) {
	t.Parallel()
	w, admin := realWorld(t, nil)
	_, err := admin.AlterClientQuotas(t.Context(), []kadm.AlterClientQuotaEntry{{
		Entity: kadm.ClientQuotaEntity{{Type: "client-id", Name: new(w.config.member(0))}},
		Ops:    []kadm.AlterClientQuotaOp{{Key: "producer_byte_rate", Value: 20_000}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	w.config.Timeout = 2 * time.Minute // a flush has 25 s of it, more than the broker will ask for
	held := make(throttles, 1)
	w.config.Client = append(w.config.Client, kgo.WithHooks(held))
	// Values that no codec makes smaller. The broker takes its rate over about ten seconds, so the first
	// 150 are over the quota whatever their batches, and the others wait.
	random := rand.New(rand.NewPCG(1, 1))
	large := make([]string, 170)
	for i := range large {
		value := []byte(numbers(i, i+1)[0])
		for range 125 {
			value = binary.BigEndian.AppendUint64(value, random.Uint64())
		}
		large[i] = string(value)
	}
	w.produce(0, large[:150]...)
	r := w.run()
	within(t, time.Minute, w.hooks.ended, "150 committed records", committed(150))
	select {
	case wait := <-held:
		t.Logf("the broker asks for %s", wait)
	case <-time.After(time.Minute):
		t.Fatal("150 KB went through under a quota of 20 KB/s: nothing was held back")
	}
	w.produce(0, large[150:]...)
	within(t, 2*time.Minute, w.hooks.ended, "20 more", committed(20))
	if err := r.drain(); err != nil {
		t.Fatal(err)
	}
	if len(w.hooks.suspected) != 0 || len(w.hooks.rebuilt) != 0 {
		t.Errorf("%d suspicions, %d sessions lost, want none", len(w.hooks.suspected), len(w.hooks.rebuilt))
	}
	w.wantOnceReal(outTopic, large)
}

// An EndTxn that was held up on its way arrives when the next transaction is open. With transactions v2 it is
// of an epoch that is over, and ends nothing.
func TestRealBrokerRefusesALateEnd(t *testing.T) {
	t.Parallel()
	brokers := testkit.Kafka(t)
	topic, id := testkit.Name(t, "late"), testkit.Name(t, "id")
	testkit.CreateTopics(t, brokers, 1, nil, topic)
	producer := testkit.Client(t, brokers, kgo.TransactionalID(id), kgo.DefaultProduceTopic(topic))
	write := func(value string, then func()) {
		t.Helper()
		err := producer.BeginTransaction()
		if err == nil {
			err = producer.ProduceSync(t.Context(), kgo.StringRecord(value)).FirstErr()
		}
		then()
		if err == nil {
			err = transact.Commit(t.Context(), producer, topic, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var producerID int64
	var epoch int16
	write("first", func() {
		var err error
		if producerID, epoch, err = producer.ProducerID(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	write("second", func() {
		late := kmsg.NewPtrEndTxnRequest()
		late.TransactionalID, late.ProducerID, late.ProducerEpoch, late.Commit = id, producerID, epoch, false
		resp, err := late.RequestWith(context.Background(), testkit.Client(t, brokers))
		if err != nil {
			t.Fatal(err)
		}
		if err := kerr.ErrorForCode(resp.ErrorCode); !errors.Is(err, kerr.InvalidProducerEpoch) && !errors.Is(err, kerr.ProducerFenced) {
			t.Errorf("a late EndTxn of epoch %d was answered %v, want it to be refused", epoch, err)
		}
	})
	var got []string
	for _, r := range testkit.ReadCommitted(t, brokers, topic) {
		got = append(got, string(r.Value))
	}
	if !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("committed are %v", got)
	}
}

// A batch that claims other records than it has would make a reader ask for it for ever. A broker refuses it when
// it is written.
func TestRealBrokerRefusesBatchesThatLie(t *testing.T) {
	t.Parallel()
	brokers := testkit.Kafka(t)
	topic := testkit.Name(t, "lies")
	testkit.CreateTopics(t, brokers, 1, nil, topic)
	client := testkit.Client(t, brokers)
	details, err := kadm.NewClient(client).ListTopics(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	for name, batch := range map[string][]byte{
		"too many":    broken(t, 0, 1000, []byte{0}),
		"cut short":   broken(t, 0, 1, []byte{120, 0, 0}),
		"of no bytes": broken(t, 0, 5, nil),
		"no gzip":     broken(t, 1, 1, []byte("this is no gzip")),
	} {
		err := produceRaw(t, client, topic, details[topic].ID, 0, batch)
		if !errors.Is(err, kerr.InvalidRecord) && !errors.Is(err, kerr.CorruptMessage) && !errors.Is(err, kerr.UnknownServerError) {
			t.Errorf("%s: the broker answered %v, want a refusal", name, err)
		}
	}
	if ends := testkit.EndOffsets(t, brokers, topic); ends[0] != 0 {
		t.Errorf("the topic ends at %d, want nothing in it", ends[0])
	}
}
