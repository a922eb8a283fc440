package ingest

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger/ledgertest"
	"pawl/internal/transact"
)

const topic = "app.effects"

var inputTopic = [16]byte{7, 7, 7}

// world is a fake cluster with an effects topic, and a ledger.
type world struct {
	t       *testing.T
	cluster *kfake.Cluster // nil where the cluster is real
	topic   string
	reach   []kgo.Opt
	client  *kgo.Client
	admin   *kadm.Client
	ledger  *ledgertest.Memory
	config  Config

	assigned  chan int32
	revoked   chan int32
	ingested  chan outbox.Batch
	landed    chan int64
	halted    chan haltedLane
	retrying  chan error
	overtaken chan int32
}

type haltedLane struct {
	lane int32
	err  error
}

// inBubble runs a test in virtual time.
func inBubble(t *testing.T, lanes int32, test func(w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { test(newWorld(t, lanes)) })
}

func newWorld(t *testing.T, lanes int32) *world {
	t.Helper()
	var network kfake.VirtualNetwork
	cluster, err := kfake.NewCluster(kfake.ListenFn(network.Listen), kfake.Ports(9092), kfake.NumBrokers(1), kfake.SeedTopics(lanes, topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return openWorld(t, topic, lanes, cluster, kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.Dialer(network.DialContext))
}

// openWorld makes a world of a cluster that has the topic.
func openWorld(t *testing.T, topic string, lanes int32, cluster *kfake.Cluster, reach ...kgo.Opt) *world {
	t.Helper()
	w := &world{
		t: t, cluster: cluster, topic: topic, ledger: &ledgertest.Memory{}, reach: reach,
		assigned: make(chan int32, 1000), revoked: make(chan int32, 1000), ingested: make(chan outbox.Batch, 10_000),
		landed: make(chan int64, 1000), halted: make(chan haltedLane, 100), retrying: make(chan error, 10_000), overtaken: make(chan int32, 10_000),
	}
	w.client = w.connect()
	w.admin = kadm.NewClient(w.client)
	w.config = Config{
		Client: w.reach, Topic: topic, Lanes: int(lanes), Store: w.ledger, BatchMax: 100, BytesMax: 1 << 20,
		Hooks: Hooks{
			Assigned:  func(lane int32) { w.assigned <- lane },
			Revoked:   func(lane int32) { w.revoked <- lane },
			Ingested:  func(b outbox.Batch) { w.ingested <- b },
			Landed:    func(_ int32, next int64) { w.landed <- next },
			Halted:    func(lane int32, err error) { w.halted <- haltedLane{lane, err} },
			Retrying:  func(_ int32, err error) { w.retrying <- err },
			Overtaken: func(lane int32) { w.overtaken <- lane },
		},
	}
	return w
}

func (w *world) connect(opts ...kgo.Opt) *kgo.Client {
	w.t.Helper()
	client, err := kgo.NewClient(append(append(slices.Clone(w.reach), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(w.topic)), opts...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(client.Close)
	return client
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// running is an ingester in the background.
type running struct {
	*Ingester

	stop context.CancelFunc
	done chan error
}

func (w *world) run(mutate ...func(*Config)) *running {
	w.t.Helper()
	c := w.config
	for _, m := range mutate {
		m(&c)
	}
	ingester, err := New(c)
	w.must(err)
	ctx, stop := context.WithCancel(w.t.Context())
	r := &running{ingester, stop, make(chan error, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.done <- ingester.Run(ctx)
	}()
	w.t.Cleanup(func() {
		stop()
		<-ended
	})
	return r
}

// drain stops an ingester and waits for its end.
func (w *world) drain(r *running) {
	w.t.Helper()
	r.stop()
	w.must(next(w.t, r.done, "end of Run"))
}

const patience = 5 * time.Minute // most of it virtual

func next[T any](t *testing.T, events <-chan T, what string) T {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(patience):
		t.Fatalf("no %s within %s", what, patience)
		panic("unreachable")
	}
}

// effect is a record as internal/txn writes it. It asks for n from an input partition of its lane.
func effect(lane int32, input int64, change ...func(*kgo.Record)) *kgo.Record {
	source := message.Source{Application: "app", Topic: "orders", TopicID: inputTopic, Partition: lane, Offset: input}
	r := &kgo.Record{
		Partition: lane, Key: fmt.Appendf(nil, "key-%d", input%7), Value: fmt.Appendf(nil, `{"n":%d}`, input),
		Headers: []kgo.RecordHeader{
			{Key: "pawl-format", Value: []byte("1")},
			{Key: "pawl-id", Value: []byte(source.ID(0).String())},
			{Key: "pawl-source", Value: []byte(source.String())},
			{Key: "pawl-index", Value: []byte("0")},
			{Key: "pawl-topic-id", Value: []byte(hex.EncodeToString(inputTopic[:]))},
			{Key: "pawl-generation", Value: []byte("0")},
			{Key: "pawl-endpoint", Value: []byte("payments")},
			{Key: "pawl-class", Value: []byte("at-least-once")},
			{Key: "content-type", Value: []byte("application/json")},
		},
	}
	for _, c := range change {
		c(r)
	}
	return r
}

// with sets or adds a header.
func with(name, value string) func(*kgo.Record) {
	return func(r *kgo.Record) {
		header := kgo.RecordHeader{Key: name, Value: []byte(value)}
		if i := slices.IndexFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == name }); i >= 0 {
			r.Headers[i] = header
			return
		}
		r.Headers = append(r.Headers, header)
	}
}

// without drops a header.
func without(name string) func(*kgo.Record) {
	return func(r *kgo.Record) {
		r.Headers = slices.DeleteFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == name })
	}
}

func effects(lane int32, from, to int64) []*kgo.Record {
	var records []*kgo.Record
	for n := from; n < to; n++ {
		records = append(records, effect(lane, n))
	}
	return records
}

// topicID asks for the id of the topic.
func (w *world) topicID() [16]byte {
	w.t.Helper()
	details, err := w.admin.ListTopics(w.t.Context(), w.topic)
	w.must(err)
	return details[w.topic].ID
}

// tellResults makes a results topic of two lanes and an event of one of them.
func (w *world) tellResults(lane int32) {
	w.t.Helper()
	w.config.Results = "app.effect-results"
	w.must(w.cluster.CreateTopic(w.config.Results, 2, nil))
	w.must(w.client.ProduceSync(w.t.Context(), &kgo.Record{Topic: w.config.Results, Partition: lane, Value: []byte("{}")}).FirstErr())
}

// truncate lets retention pass over a lane.
func (w *world) truncate(lane int32, to int64) {
	w.t.Helper()
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: w.topic, Partition: lane, At: to})
	deleted, err := w.admin.DeleteRecords(w.t.Context(), offsets)
	w.must(err)
	w.must(deleted.Error())
}

// produce writes outside of transactions: no markers.
func (w *world) produce(records ...*kgo.Record) {
	w.t.Helper()
	w.must(w.client.ProduceSync(w.t.Context(), records...).FirstErr())
}

// transact writes one transaction and ends it.
func (w *world) transact(producer *kgo.Client, end kgo.TransactionEndTry, records ...*kgo.Record) {
	w.t.Helper()
	w.must(producer.BeginTransaction())
	w.must(producer.ProduceSync(w.t.Context(), records...).FirstErr())
	w.end(producer, end, records[0])
}

// end ends the transaction of a producer that has written this record.
func (w *world) end(producer *kgo.Client, end kgo.TransactionEndTry, wrote *kgo.Record) {
	w.t.Helper()
	w.must(transact.End(w.t.Context(), producer, end, wrote.Topic, wrote.Partition))
}

// topicEnd is where a lane of the topic ends.
func (w *world) topicEnd(lane int32) int64 {
	w.t.Helper()
	ends, err := w.admin.ListEndOffsets(w.t.Context(), w.topic)
	w.must(err)
	o, _ := ends.Lookup(w.topic, lane)
	w.must(o.Err)
	return o.Offset
}

// committed reads what is committed by the markers in the log, whatever the broker says of it.
func (w *world) committed(lane int32) []outbox.Intent {
	w.t.Helper()
	end, at := w.topicEnd(lane), int64(0)
	reader := w.connect(kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{w.topic: {lane: kgo.NewOffset().AtStart()}}))
	defer reader.Close()
	var all []*kgo.Record
	for at < end {
		fetches := reader.PollFetches(w.t.Context())
		w.must(fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			at = r.Offset + 1
			all = append(all, r)
		})
	}
	var intents []outbox.Intent
	commits := map[int64]bool{} // by producer: its next marker
	for _, r := range slices.Backward(all) {
		switch {
		case r.Attrs.IsControl():
			commits[r.ProducerID] = r.Key[3] == 1
		case !r.Attrs.IsTransactional() || commits[r.ProducerID]:
			intent, err := Decode(r)
			w.must(err)
			intents = append(intents, intent)
		}
	}
	slices.Reverse(intents)
	return intents
}

// await waits until a lane of the ledger stands at an offset.
func (w *world) await(lane int32, next int64) {
	w.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		if w.ledger.Next(lane) >= next {
			return
		}
	}
	for len(w.halted) > 0 {
		h := <-w.halted
		w.t.Logf("lane %d halted: %v", h.lane, h.err)
	}
	w.t.Fatalf("lane %d stands at %d after %s, want %d", lane, w.ledger.Next(lane), patience, next)
}

// exact compares a lane of the ledger with the committed part of the topic.
func (w *world) exact(lane int32) {
	w.t.Helper()
	if diff := cmp.Diff(w.committed(lane), w.ledger.Intents(lane), cmp.Comparer(bytes.Equal)); diff != "" {
		w.t.Errorf("lane %d of the ledger (-committed +ledger):\n%s", lane, diff)
	}
}

func (w *world) offsets(lane int32) []int64 {
	offsets := []int64{}
	for _, intent := range w.ledger.Intents(lane) {
		offsets = append(offsets, intent.Offset)
	}
	return offsets
}

// failing makes calls of a method fail as often as told, before or after the change, and counts them.
type failing struct {
	method string
	after  bool
	left   atomic.Int64
	hits   atomic.Int64
}

var errStore = errors.New("the database is not there")

func (f *failing) fail(method string, after bool) error {
	if method == f.method && after == f.after && f.left.Add(-1) >= 0 {
		f.hits.Add(1)
		return errStore
	}
	return nil
}
