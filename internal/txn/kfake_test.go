package txn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// world is a fake cluster with the topics of one application.
type world struct {
	t       *testing.T
	cluster *kfake.Cluster
	dial    dialer
	virtual bool
	client  *kgo.Client
	config  Config
	hooks   *hookLog
}

const (
	inTopic      = "in"
	outTopic     = "out"
	effectsTopic = "app.effects"
	deadTopic    = "app.dead-letter"
	controlTopic = "app.control"
)

// newWorld is a cluster behind real sockets, with real time.
func newWorld(t *testing.T, partitions int32, opts ...kfake.Opt) *world {
	t.Helper()
	var d net.Dialer
	return openWorld(t, partitions, d.DialContext, opts...)
}

// newVirtualWorld is a cluster for a test in a bubble: its network is memory and its time virtual, so
// that seconds of timeouts cost nothing.
func newVirtualWorld(t *testing.T, partitions int32) *world {
	t.Helper()
	var network kfake.VirtualNetwork
	w := openWorld(t, partitions, network.DialContext, kfake.ListenFn(network.Listen), kfake.Ports(9092))
	w.virtual = true
	return w
}

// inBubble runs a test in virtual time, in parallel with other tests.
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, test)
}

func openWorld(t *testing.T, partitions int32, dial dialer, opts ...kfake.Opt) *world {
	t.Helper()
	cluster, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1),
		kfake.SeedTopics(partitions, inTopic, outTopic, effectsTopic, deadTopic), kfake.SeedTopics(1, controlTopic))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	reach := []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.Dialer(dial)}
	client, err := kgo.NewClient(append(slices.Clone(reach), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	hooks := &hookLog{t: t, ended: make(chan Ended, 100_000)}
	return &world{t: t, cluster: cluster, dial: dial, client: client, hooks: hooks, config: Config{
		Application: "app", Instance: "one", Group: "app",
		Client:   reach,
		Protocol: ProtocolClassic, SessionTimeout: 6 * time.Second, Heartbeat: 100 * time.Millisecond, RebalanceTimeout: 60 * time.Second,
		Start: StartEarliest, Outputs: map[string]string{"out": outTopic}, Endpoints: []string{"payments"},
		EffectsTopic: effectsTopic, DeadLetterTopic: deadTopic, ControlTopic: controlTopic,
		Routes: []Route{{Topics: []string{inTopic}, Name: "copy", Handler: copyHandler{}}},
		Lanes:  1, RecordsMax: 100, BytesMax: 1 << 20, IntervalMin: 5 * time.Millisecond, Timeout: 60 * time.Second,
		HandlerTimeout: 10 * time.Second, DrainTimeout: 10 * time.Second, Compression: "none",
		Hooks: hooks.hooks(),
	}}
}

// copyHandler is the identity to output "out".
type copyHandler struct{}

func (copyHandler) Handle(in message.In, out *message.Batch) error {
	out.Emit(message.Out{Output: "out", Key: in.Key, Value: in.Value, Headers: in.Headers})
	return nil
}

// handlerFunc makes a function a Handler.
type handlerFunc func(in message.In, out *message.Batch) error

func (f handlerFunc) Handle(in message.In, out *message.Batch) error { return f(in, out) }

// refusal is a reject for tests.
type refusal string

func (r refusal) Error() string  { return "refused: " + string(r) }
func (r refusal) Reason() string { return string(r) }

// hookLog turns hooks into events to wait for and counts to assert on.
type hookLog struct {
	t         *testing.T
	ended     chan Ended
	suspected chan Suspected
	fenced    chan error
	rebuilt   chan Reason
	haltedAt  chan Halted
	rejected  chan Rejected
	joined    chan struct{}
}

func (h *hookLog) hooks() Hooks {
	h.suspected = make(chan Suspected, 1000)
	h.fenced = make(chan error, 1000)
	h.rebuilt = make(chan Reason, 1000)
	h.haltedAt = make(chan Halted, 1000)
	h.rejected = make(chan Rejected, 10_000)
	h.joined = make(chan struct{}, 1000)
	return Hooks{
		Ended:     func(e Ended) { h.ended <- e },
		Suspected: func(s Suspected) { h.suspected <- s },
		Fenced:    func(_ int, err error) { h.fenced <- err },
		Rebuilt:   func(_ int, why Reason) { h.rebuilt <- why },
		Halted:    func(e Halted) { h.haltedAt <- e },
		Rejected:  func(r Rejected) { h.rejected <- r },
		Assigned:  func(int, map[string][]int32) { h.joined <- struct{}{} },
		Retrying:  func(_ int, err error) { h.t.Logf("retrying: %v", err) },
	}
}

const patience = 30 * time.Second

// next waits for one event.
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

// until reads events up to the first that satisfies want and returns all of them.
func until[T any](t *testing.T, events <-chan T, what string, want func(T) bool) []T {
	t.Helper()
	return within(t, patience, events, what, want)
}

// within is until for what takes longer.
func within[T any](t *testing.T, patience time.Duration, events <-chan T, what string, want func(T) bool) []T {
	t.Helper()
	var seen []T
	timeout := time.After(patience)
	for {
		select {
		case e := <-events:
			seen = append(seen, e)
			if want(e) {
				return seen
			}
		case <-timeout:
			t.Fatalf("no %s within %s; saw %d events: %+v", what, patience, len(seen), seen)
		}
	}
}

func committed(n int) func(Ended) bool {
	total := 0
	return func(e Ended) bool {
		if e.Outcome == Committed {
			total += e.Records
		}
		return total >= n
	}
}

// produce writes values to a partition of the input topic.
func (w *world) produce(partition int32, values ...string) {
	w.t.Helper()
	var records []*kgo.Record
	for _, v := range values {
		records = append(records, &kgo.Record{Topic: inTopic, Partition: partition, Key: []byte("k" + v), Value: []byte(v)})
	}
	if err := w.client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

func numbers(from, to int) []string {
	var values []string
	for i := from; i < to; i++ {
		values = append(values, strconv.Itoa(i))
	}
	return values
}

// running is an engine in the background.
type running struct {
	t      *testing.T
	engine *Engine
	stop   context.CancelFunc
	done   chan error
}

func (w *world) run(mutate ...func(*Config)) *running {
	w.t.Helper()
	c := w.config
	for _, m := range mutate {
		m(&c)
	}
	engine, err := New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{t: w.t, engine: engine, stop: stop, done: make(chan error, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.done <- engine.Run(ctx)
	}()
	w.t.Cleanup(func() {
		r.stop()
		<-ended
		if w.virtual { // what a drain timeout left behind ends by itself, but not after the bubble
			time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		}
	})
	return r
}

// drain stops the engine and returns what Run returned.
func (r *running) drain() error {
	r.t.Helper()
	r.stop()
	return next(r.t, r.done, "end of the engine")
}

// read returns all records of a topic below its end at the isolation level.
func (w *world) read(topic string, level kgo.IsolationLevel) []*kgo.Record {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ends, err := kadm.NewClient(w.client).ListEndOffsets(ctx, topic)
	if err != nil {
		w.t.Fatal(err)
	}
	starts, left := map[int32]kgo.Offset{}, map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			starts[o.Partition], left[o.Partition] = kgo.NewOffset().AtStart(), o.Offset
		}
	})
	if len(left) == 0 {
		return nil
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(w.cluster.ListenAddrs()...), kgo.Dialer(w.dial), kgo.FetchIsolationLevel(level), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: starts}), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		w.t.Fatal(err)
	}
	defer reader.Close()
	var records []*kgo.Record
	for len(left) > 0 {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			w.t.Fatalf("read %s: %v; still waiting for %v", topic, err, left)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			if !r.Attrs.IsControl() {
				records = append(records, r)
			}
		})
	}
	return records
}

// wantOnce checks that exactly these values are in the topic, each once, for committed readers.
func (w *world) wantOnce(topic string, values []string) {
	w.t.Helper()
	count := map[string]int{}
	for _, r := range w.read(topic, kgo.ReadCommitted()) {
		count[string(r.Value)]++
	}
	var errs []error
	for _, v := range values {
		if count[v] != 1 {
			errs = append(errs, fmt.Errorf("%s is there %d times", v, count[v]))
		}
		delete(count, v)
	}
	for _, v := range slices.Sorted(maps.Keys(count)) {
		errs = append(errs, fmt.Errorf("%s is there and should not be", v))
	}
	if err := errors.Join(errs...); err != nil {
		w.t.Errorf("topic %s: %v", topic, err)
	}
}

// committedOffset returns the group's offset of an input partition, -1 for none.
func (w *world) committedOffset(partition int32) int64 {
	w.t.Helper()
	offsets, err := kadm.NewClient(w.client).FetchOffsets(context.Background(), w.config.Group)
	if err != nil {
		w.t.Fatal(err)
	}
	o, ok := offsets.Lookup(inTopic, partition)
	if !ok {
		return -1
	}
	return o.At
}
