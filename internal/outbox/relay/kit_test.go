package relay

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger/ledgertest"
)

const (
	resultsTopic  = "app.effect-results"
	progressTopic = "app.relay-progress"
	patience      = 10 * time.Minute // virtual
)

// world is a cluster, a ledger in memory and its dispatcher.
type world struct {
	t       *testing.T
	cluster *kfake.Cluster // nil where the cluster is a real one
	brokers []string
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	client  *kgo.Client

	application, results, progress string

	ledger  *ledgertest.Memory
	tenures map[int32]outbox.Tenure
	seqs    map[int32]int64
}

// inWorld runs a test in virtual time, in parallel with other tests.
func inWorld(t *testing.T, lanes int32, test func(w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { test(newWorld(t, lanes)) })
}

func newWorld(t *testing.T, lanes int32) *world {
	t.Helper()
	network := new(kfake.VirtualNetwork)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ListenFn(network.Listen), kfake.Ports(9092),
		kfake.BrokerConfigs(map[string]string{"log.cleaner.backoff.ms": "86400000"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	for topic, policy := range map[string]string{resultsTopic: "delete", progressTopic: "compact"} {
		if err := cluster.CreateTopic(topic, lanes, map[string]string{"cleanup.policy": policy, "retention.ms": "-1"}); err != nil {
			t.Fatal(err)
		}
	}
	w := &world{t: t, cluster: cluster, brokers: cluster.ListenAddrs(), dial: network.DialContext, application: "app", results: resultsTopic, progress: progressTopic}
	return w.open()
}

func (w *world) open() *world {
	w.t.Helper()
	w.ledger, w.tenures, w.seqs = &ledgertest.Memory{}, map[int32]outbox.Tenure{}, map[int32]int64{}
	var err error
	if w.client, err = kgo.NewClient(append(w.reach(w.dial), kgo.RecordPartitioner(kgo.ManualPartitioner()))...); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(w.client.Close)
	return w
}

func (w *world) reach(dial func(context.Context, string, string) (net.Conn, error)) []kgo.Opt {
	return []kgo.Opt{kgo.SeedBrokers(w.brokers...), kgo.Dialer(dial)}
}

// intent is the effect at an offset of a lane.
func intent(lane int32, offset int64) outbox.Intent {
	source := message.Source{Application: "app", Topic: "orders", TopicID: [16]byte{7}, Partition: lane, Offset: offset}
	return outbox.Intent{
		Lane: lane, Offset: offset, ID: source.ID(0), Source: source, Endpoint: "payments", Class: message.AtLeastOnce,
		ContentType: "application/json", Key: fmt.Appendf(nil, "key-%d", offset%7), Body: fmt.Appendf(nil, `{"charge":%d}`, offset),
		Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", TraceState: "a=1,b=2", At: time.Now(),
	}
}

// tenure begins a new tenure of a lane, as a new owner would.
func (w *world) tenure(lane int32) {
	w.t.Helper()
	tenure, err := w.ledger.Acquire(w.t.Context(), lane, "one", time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	recovery, err := w.ledger.Recover(w.t.Context(), tenure)
	if err != nil {
		w.t.Fatal(err)
	}
	w.tenures[lane], w.seqs[lane] = tenure, recovery.Seq
}

// ask lets n more effects of a lane be ingested.
func (w *world) ask(lane int32, n int) (offsets []int64) {
	w.t.Helper()
	head, err := w.ledger.Head(w.t.Context(), lane)
	if err != nil {
		w.t.Fatal(err)
	}
	if !head.Known {
		if err := w.ledger.Seed(w.t.Context(), lane, [16]byte{9}, 0); err != nil {
			w.t.Fatal(err)
		}
	}
	batch := &outbox.Batch{Lane: lane, TopicID: [16]byte{9}, Base: head.Next, Next: head.Next + int64(n)}
	for offset := batch.Base; offset < batch.Next; offset++ {
		batch.Intents = append(batch.Intents, intent(lane, offset))
		offsets = append(offsets, offset)
	}
	if err := w.ledger.Append(w.t.Context(), batch); err != nil {
		w.t.Fatal(err)
	}
	return offsets
}

// flush writes the fates of effects down, as one flush.
func (w *world) flush(lane int32, outcomes ...outbox.Outcome) {
	w.t.Helper()
	if w.tenures[lane].Epoch == 0 {
		w.tenure(lane)
	}
	w.seqs[lane]++
	f := outbox.Flush{Tenure: w.tenures[lane], Seq: w.seqs[lane], Settled: outcomes}
	for _, o := range outcomes {
		f.Covered = f.Covered.Add(o.Offset, o.Offset+1)
	}
	if err := w.ledger.Flush(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

// settle lets n more effects of a lane get this fate, in flushes of size.
func (w *world) settle(lane int32, n, size int, status outbox.Status) {
	w.t.Helper()
	for chunk := range slices.Chunk(w.ask(lane, n), size) {
		w.flush(lane, fates(status, chunk...)...)
	}
}

func fates(status outbox.Status, offsets ...int64) (outcomes []outbox.Outcome) {
	for _, offset := range offsets {
		o := outbox.Outcome{Offset: offset, Status: status, Attempts: 1, HTTPStatus: 200, Response: &outbox.Response{ContentType: "text/plain", Body: []byte("ok")}}
		if status != outbox.Done {
			o.HTTPStatus, o.Error = 422, "422 no such account"
		}
		outcomes = append(outcomes, o)
	}
	return outcomes
}

// process is a relay in a process of its own.
type process struct {
	w        *world
	wire     *wire
	relay    *Relay
	stop     context.CancelFunc
	ended    chan struct{}
	opened   chan Opened
	relayed  chan Relayed
	diverged chan Diverged
	trimmed  chan Trimmed
	halted   chan error
	fenced   chan error
	gaveUp   chan int32
	retrying chan error
}

// run starts a relay and assigns lanes to it.
func (w *world) run(lanes []int32, mutate ...func(*Config)) *process {
	w.t.Helper()
	const room = 10_000
	p := &process{
		w: w, wire: &wire{dialer: w.dial, conns: map[*wireConn]bool{}}, ended: make(chan struct{}),
		opened: make(chan Opened, room), relayed: make(chan Relayed, room), diverged: make(chan Diverged, room), trimmed: make(chan Trimmed, room),
		halted: make(chan error, room), fenced: make(chan error, room), gaveUp: make(chan int32, room), retrying: make(chan error, room),
	}
	config := Config{
		Client: w.reach(p.wire.dial), Application: w.application, ResultsTopic: w.results, ProgressTopic: w.progress, Store: w.ledger,
		Hooks: Hooks{
			Opened:   func(o Opened) { p.opened <- o },
			Relayed:  func(r Relayed) { p.relayed <- r },
			Diverged: func(d Diverged) { p.diverged <- d },
			Trimmed:  func(e Trimmed) { p.trimmed <- e },
			Halted:   func(_ int32, err error) { p.halted <- err },
			Fenced:   func(_ int32, err error) { p.fenced <- err },
			GaveUp:   func(lane int32) { p.gaveUp <- lane },
			Retrying: func(_ int32, err error) { p.retrying <- err },
		},
	}
	for _, m := range mutate {
		m(&config)
	}
	var err error
	if p.relay, err = New(config); err != nil {
		w.t.Fatal(err)
	}
	for _, lane := range lanes {
		p.relay.Assign(lane)
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	go func() {
		defer close(p.ended)
		if err := p.relay.Run(ctx); err != nil {
			w.t.Errorf("Run returned %v", err)
		}
	}()
	w.t.Cleanup(p.end)
	return p
}

// end stops the relay and waits for it.
func (p *process) end() {
	p.stop()
	<-p.ended
}

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

// told waits until so many events were committed, and gives the sum of all transactions.
func (p *process) told(events int) (sum Relayed) {
	p.w.t.Helper()
	for sum.Events < events {
		r := next(p.w.t, p.relayed, fmt.Sprintf("event %d of %d", sum.Events+1, events))
		sum.Events += r.Events
		sum.Skipped += r.Skipped
	}
	return sum
}

// read returns the committed records of a topic.
func (w *world) read(topic string) (records []*kgo.Record) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	details, err := kadm.NewClient(w.client).ListTopics(ctx, topic)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, partition := range slices.Sorted(maps.Keys(details[topic].Partitions)) {
		start, end, err := bounds(ctx, w.client, topic, partition)
		if err != nil {
			w.t.Fatal(err)
		}
		if err := readPartition(ctx, w.client, topic, partition, start, end, func(r *kgo.Record) error {
			records = append(records, r)
			return nil
		}); err != nil {
			w.t.Fatal(err)
		}
	}
	return records
}

// events returns the result events as readers see them, each held against its schema.
func (w *world) events() (events []event) {
	w.t.Helper()
	schema := resultSchema(w.t)
	for _, r := range w.read(w.results) {
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(r.Value))
		if err != nil {
			w.t.Fatal(err)
		}
		if err := schema.Validate(document); err != nil {
			w.t.Errorf("%v\n%s", err, r.Value)
		}
		var e event
		if err := json.Unmarshal(r.Value, &e); err != nil {
			w.t.Fatal(err)
		}
		if e.Lane != r.Partition {
			w.t.Errorf("an event of lane %d stands on partition %d", e.Lane, r.Partition)
		}
		events = append(events, e)
	}
	return events
}

// wantOnce checks that the lanes' effects below these offsets have one event each, of this status, and
// that there is no other event.
func (w *world) wantOnce(status outbox.Status, until map[int32]int64) {
	w.t.Helper()
	count := map[place]int{}
	for _, e := range w.events() {
		if e.Status != status {
			w.t.Errorf("effect %d/%d is told to be %s, want %s", e.Lane, e.Offset, e.Status, status)
		}
		count[place{e.Lane, e.Offset}]++
	}
	for lane, end := range until {
		for offset := range end {
			if n := count[place{lane, offset}]; n != 1 {
				w.t.Errorf("effect %d/%d has %d events, want one", lane, offset, n)
			}
			delete(count, place{lane, offset})
		}
	}
	if len(count) > 0 {
		w.t.Errorf("there are events of other effects: %v", count)
	}
}

func resultSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	data, err := os.ReadFile("../../handlers/schema/effect-result.v1.json")
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertContent()
	if err := compiler.AddResource("result", document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("result")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// wire is the network of one process. It can lose the answer to a request, and it can end for good,
// which for the brokers is a SIGKILL.
type wire struct {
	dialer func(context.Context, string, string) (net.Conn, error)

	mu    sync.Mutex
	dead  bool
	conns map[*wireConn]bool
	fault *fault
	hits  int
}

// fault is what happens at the next request of a kind.
type fault struct {
	key   kmsg.Key
	after bool // the broker has executed it
	kill  bool // the process dies; otherwise only the connection does
	then  func()
}

var errDead = errors.New("the process is dead")

// executed is more than a broker needs for a request. In virtual time it passes only when the broker has
// nothing left to do.
const executed = 50 * time.Millisecond

func (w *wire) arm(f fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = &f
}

func (w *wire) struck() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hits
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := w.dialer(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		_ = conn.Close()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errDead}
	}
	c := &wireConn{Conn: conn, wire: w}
	w.conns[c] = true
	return c, nil
}

func (w *wire) kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
	for c := range w.conns {
		_ = c.Conn.Close()
	}
}

type wireConn struct {
	net.Conn

	wire *wire
}

func (c *wireConn) Write(b []byte) (int, error) {
	c.wire.mu.Lock()
	f := c.wire.fault
	if f == nil || len(b) < 6 || kmsg.Key(binary.BigEndian.Uint16(b[4:6])) != f.key {
		c.wire.mu.Unlock()
		return c.Conn.Write(b)
	}
	c.wire.fault = nil
	c.wire.hits++
	c.wire.mu.Unlock()
	if f.after {
		if n, err := c.Conn.Write(b); err != nil {
			return n, err
		}
		time.Sleep(executed) //nolint:forbidigo // virtual time
	}
	if f.then != nil {
		f.then()
	}
	if f.kill {
		c.wire.kill()
	}
	_ = c.Conn.Close()
	return 0, &net.OpError{Op: "write", Net: "tcp", Err: net.ErrClosed}
}

func (c *wireConn) Close() error {
	c.wire.mu.Lock()
	delete(c.wire.conns, c)
	c.wire.mu.Unlock()
	return c.Conn.Close()
}
