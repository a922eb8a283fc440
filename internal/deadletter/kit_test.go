package deadletter

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"pawl/internal/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	letters = "app.dead-letter"
	control = "app.control"
	patient = 60 * time.Second
)

// world is a cluster with the topics of one application: two topics of origin of two partitions,
// dead letters in two partitions, one control partition.
type world struct {
	t       *testing.T
	cluster *kfake.Cluster // nil where the cluster is a real one
	client  *kgo.Client
	admin   *kadm.Client
	options []kgo.Opt
	prefix  string // of all topic names
	ids     map[string]kadm.TopicID
}

func newWorld(t *testing.T) *world {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "in", "in2", letters), kfake.SeedTopics(1, control))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	w := worldAt(t, "", cluster.ListenAddrs()...)
	w.cluster = cluster
	return w
}

// worldAt is the world on brokers where the topics are there.
func worldAt(t *testing.T, prefix string, brokers ...string) *world {
	t.Helper()
	w := &world{t: t, options: []kgo.Opt{kgo.SeedBrokers(brokers...)}, prefix: prefix, ids: make(map[string]kadm.TopicID)}
	var err error
	w.client, err = kgo.NewClient(append(w.options, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.client.Close)
	w.admin = kadm.NewClient(w.client)
	topics, err := w.admin.ListTopics(t.Context(), prefix+"in", prefix+"in2", prefix+letters, prefix+control)
	if err != nil {
		t.Fatal(err)
	}
	for name, topic := range topics {
		w.ids[name] = topic.ID
	}
	return w
}

func (w *world) ctx() context.Context {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	w.t.Cleanup(cancel)
	return ctx
}

// open makes a Queue with small transactions.
func (w *world) open(options ...kgo.Opt) *Queue {
	w.t.Helper()
	q, err := Open(Config{
		Client: append(append([]kgo.Opt(nil), w.options...), options...), Application: w.prefix + "app", ReplayGeneration: 2,
		Topic: w.prefix + letters, ControlTopic: w.prefix + control,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(q.Close)
	q.recordsMax, q.attemptWait = 10, time.Millisecond
	return q
}

func (w *world) produce(records ...*kgo.Record) {
	w.t.Helper()
	if err := w.client.ProduceSync(w.ctx(), records...).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

// refused is a record as it was before its refusal, with where it stood.
type refused struct {
	source message.Source
	record kgo.Record
	reason string
}

// letter makes the dead letter that the engine writes.
func (w *world) letter(r refused) *kgo.Record {
	source := r.source
	source.Application = w.prefix + "app"
	if source.TopicID == [16]byte{} {
		source.TopicID = w.ids[source.Topic]
	}
	record := r.record
	record.Topic = w.prefix + letters
	record.Headers = append(append([]kgo.RecordHeader(nil), r.record.Headers...),
		kgo.RecordHeader{Key: message.HeaderSource, Value: []byte(source.String())},
		kgo.RecordHeader{Key: message.HeaderID, Value: []byte(source.ID(-1).String())},
		kgo.RecordHeader{Key: message.HeaderHandler, Value: []byte("orders")},
		kgo.RecordHeader{Key: message.HeaderReason, Value: []byte(r.reason)},
		kgo.RecordHeader{Key: message.HeaderError, Value: []byte("why it was refused")})
	return &record
}

// fill writes n dead letters, alternating over topics and partitions of origin and over partitions
// of the dead-letter topic; the value numbers them.
func (w *world) fill(n int) {
	w.t.Helper()
	var records []*kgo.Record
	for i := range n {
		record := w.letter(refused{
			source: message.Source{Topic: w.prefix + []string{"in", "in2"}[i%2], Partition: int32(i / 2 % 2), Offset: int64(i)},
			record: kgo.Record{Key: []byte("k" + strconv.Itoa(i)), Value: []byte(strconv.Itoa(i)), Timestamp: time.Now().Truncate(time.Millisecond)},
			reason: []string{"bad_json", "bad_amount", "panic"}[i%3],
		})
		record.Partition = int32(i % 2)
		records = append(records, record)
	}
	w.produce(records...)
}

// read returns what a read_committed reader gets of a topic, waiting for transactions that are open.
func (w *world) read(topic string) []*kgo.Record {
	w.t.Helper()
	q := w.open()
	detail, err := q.describe(w.ctx(), topic)
	if err != nil {
		w.t.Fatal(err)
	}
	all, err := q.bounds(w.ctx(), topic, q.admin.ListEndOffsets)
	if err != nil {
		w.t.Fatal(err)
	}
	var records []*kgo.Record
	for _, b := range all {
		err := q.scan(w.ctx(), detail, b.partition, b.start, b.end, func(r *kgo.Record) error {
			records = append(records, r)
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return records
}

// wantOnce demands that the letters numbered 0 to n-1 are in the topics of origin, each once.
func (w *world) wantOnce(n int) {
	w.t.Helper()
	count := make(map[string]int)
	for _, topic := range []string{"in", "in2"} {
		for _, r := range w.read(w.prefix + topic) {
			count[string(r.Value)]++
		}
	}
	for i := range n {
		if got := count[strconv.Itoa(i)]; got != 1 {
			w.t.Errorf("letter %d was redriven %d times", i, got)
		}
	}
	if len(count) != n {
		w.t.Errorf("%d different records were redriven, want %d", len(count), n)
	}
}

func (w *world) list(q *Queue, filter Filter) []Letter {
	w.t.Helper()
	var all []Letter
	if err := q.Each(w.ctx(), filter, func(l Letter) error {
		all = append(all, l)
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	return all
}

func (w *world) redrive(q *Queue, change ...func(*RedriveOptions)) Summary {
	w.t.Helper()
	options := RedriveOptions{RedrivesMax: 3}
	for _, c := range change {
		c(&options)
	}
	summary, err := q.Redrive(w.ctx(), options)
	if err != nil {
		w.t.Fatal(err)
	}
	return summary
}

// endTxn is the API key of EndTxn.
const endTxn = 26

// answerEater is a dialer that loses answers: it sends a request of one API key to the broker, waits
// until the broker has answered it, throws the answer away and cuts the connection.
type answerEater struct {
	key   int16
	left  atomic.Int64 // answers still to lose
	eaten atomic.Int64
	lost  func() // called after a loss, before anybody learns of it; may be nil
}

func (e *answerEater) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &eatenConn{Conn: conn, eater: e}, nil
}

// eatenConn knows which answer to lose by its correlation id, which is the same as that of the request and
// stands behind the size of each.
type eatenConn struct {
	net.Conn
	eater *answerEater

	mu     sync.Mutex
	doomed []byte // the correlation id, nil while no answer is to be lost

	// Of the answer that is being read:
	head []byte // size and correlation id, as far as they have come
	left int    // bytes behind them
}

func (c *eatenConn) Write(b []byte) (int, error) {
	// Before the request goes out: its answer may be read before this goroutine runs again.
	if len(b) >= 12 && int16(binary.BigEndian.Uint16(b[4:])) == c.eater.key && c.eater.left.Add(-1) >= 0 {
		c.mu.Lock()
		c.doomed = slices.Clone(b[8:12])
		c.mu.Unlock()
	}
	return c.Conn.Write(b)
}

// begins reports whether the doomed answer begins in what was read.
func (c *eatenConn) begins(b []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(b) > 0 {
		if c.left > 0 {
			n := min(c.left, len(b))
			b, c.left = b[n:], c.left-n
			continue
		}
		n := min(8-len(c.head), len(b))
		c.head = append(c.head, b[:n]...)
		b = b[n:]
		if len(c.head) < 8 {
			break
		}
		if bytes.Equal(c.head[4:], c.doomed) {
			return true
		}
		c.left, c.head = int(binary.BigEndian.Uint32(c.head))-4, c.head[:0]
	}
	return false
}

func (c *eatenConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil || !c.begins(b[:n]) {
		return n, err
	}
	c.eater.eaten.Add(1)
	if c.eater.lost != nil {
		c.eater.lost()
	}
	return 0, errors.Join(io.EOF, c.Close())
}
