package txn

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/message"
)

// The tests of this file inject faults of internal/faults that no rule's test does.

// A process dies in each place where a transaction can be cut. Its successor does the batch again, unless
// it was committed, and nothing stands there twice.
func TestDeathInEachPlaceOfATransaction(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		key      kmsg.Key
		executed bool // the broker does what it is asked for; only the answer meets nobody
	}{
		"after produce, before the offsets": {kmsg.TxnOffsetCommit, false},
		"after the offsets, before the end": {kmsg.EndTxn, false},
		"after the end, before its answer":  {kmsg.EndTxn, true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newVirtualWorld(t, 1)
				g := w.newGate()
				dead := make(chan struct{})
				if c.executed {
					g.onCut = func() { g.kill(); close(dead) }
					g.loseAnswers(c.key, true)
				} else {
					w.cluster.ControlKey(int16(c.key), func(kmsg.Request) (kmsg.Response, error, bool) {
						g.kill()
						close(dead)
						return nil, errDead, true
					})
				}
				w.produce(0, numbers(0, 10)...)
				first := w.run(func(c *Config) { c.Client = append(slices.Clone(c.Client), g.dial()) })
				next(t, dead, "death")
				first.stop()
				if written := len(w.read(outTopic, kgo.ReadUncommitted())); written != 10 {
					t.Errorf("it died with %d outputs written, want 10", written)
				}
				w.produce(0, numbers(10, 20)...)
				second := w.run()
				until(t, w.hooks.ended, "20 records", func(Ended) bool { return w.committedTotal() == 20 })
				if err := second.drain(); err != nil {
					t.Fatal(err)
				}
				<-first.done
				w.wantOnce(outTopic, numbers(0, 20))
			})
		})
	}
}

// A process stands still between the offsets and the end of its transaction, for longer than the
// transaction's timeout and the session's: somebody else has its partition and has done its batch. Then it
// goes on, and what it had sent arrives.
func TestProcessThatSleepsThroughItsTransaction(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.config.Timeout, w.config.HandlerTimeout = 6*time.Second, 500*time.Millisecond
		g := w.newGate()
		asleep := make(chan struct{})
		g.freezeAt(kmsg.EndTxn, func() { close(asleep) })
		w.produce(0, numbers(0, 10)...)
		first := w.run(func(c *Config) { c.Client = append(slices.Clone(c.Client), g.dial()) })
		next(t, asleep, "EndTxn")
		second := w.run(func(c *Config) { c.Instance = "two" })
		until(t, w.hooks.ended, "10 records by the other one", func(Ended) bool { return w.committedTotal() == 10 })
		g.mend()
		w.produce(0, numbers(10, 20)...)
		until(t, w.hooks.ended, "20 records", func(Ended) bool { return w.committedTotal() == 20 })
		for _, r := range []*running{first, second} {
			if err := r.drain(); err != nil {
				t.Fatal(err)
			}
		}
		if g.late == 0 {
			t.Error("nothing arrived late: nothing was tested")
		}
		w.wantOnce(outTopic, numbers(0, 20))
	})
}

// A handler is at work while the group gives its partition away, and the new owner commits. What the
// handler made must not be committed as well.
func TestBatchInHandWhilePartitionsMove(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 2)
		w.config.Timeout, w.config.HandlerTimeout = 60*time.Second, 20*time.Second
		release, busy := make(chan struct{}), make(chan struct{})
		w.produce(0, numbers(0, 10)...)
		w.produce(1, numbers(10, 20)...)
		first := w.run(func(c *Config) {
			c.Routes = slices.Clone(c.Routes)
			var once atomic.Bool
			c.Routes[0].Handler = handlerFunc(func(in message.In, out *message.Batch) error {
				if once.CompareAndSwap(false, true) {
					close(busy)
					<-release
				}
				return copyHandler{}.Handle(in, out)
			})
		})
		next(t, busy, "batch")
		second := w.run(func(c *Config) { c.Instance = "two" })
		until(t, w.hooks.ended, "a commit by the new owner", func(e Ended) bool { return e.Outcome == Committed && e.Records > 0 })
		close(release)
		seen := until(t, w.hooks.ended, "the rest", func(Ended) bool { return w.committedTotal() == 20 })
		if !slices.ContainsFunc(seen, func(e Ended) bool { return e.Outcome != Committed }) {
			t.Errorf("the batch in hand was not given up: %+v", seen)
		}
		for _, r := range []*running{first, second} {
			if err := r.drain(); err != nil {
				t.Fatal(err)
			}
		}
		w.wantOnce(outTopic, numbers(0, 20))
	})
}

// Partitions move from leader to leader, and coordinators too, while transactions abort now and then: after
// each abort the lane begins where it had committed, whoever leads by then.
func TestLeadersMoveWhileTransactionsAbort(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const total = 600
		w := newVirtualWorld(t, 2)
		if _, _, err := w.cluster.AddNode(-1, 9093); err != nil {
			t.Fatal(err)
		}
		random, ofCluster := rand.New(rand.NewPCG(1, 2)), rand.New(rand.NewPCG(3, 4)) // each of one goroutine
		aborts := w.cluster.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Topic: inTopic, Err: kerr.UnknownMemberID, Count: -1,
			When: func(kmsg.Request) bool { return ofCluster.IntN(3) == 0 },
		})
		for p := range int32(2) {
			w.produce(p, numbers(int(p)*total/2, int(p+1)*total/2)...)
		}
		r := w.run(func(c *Config) { c.RecordsMax = 20 })
		moves := 0
		until(t, w.hooks.ended, "all records", func(Ended) bool {
			for _, topic := range []string{inTopic, outTopic} {
				at := random.Int32N(2)
				if err := w.cluster.MoveTopicPartition(topic, at, 1-w.cluster.LeaderFor(topic, at)); err != nil {
					t.Fatal(err)
				}
				moves++
			}
			if random.IntN(4) == 0 {
				w.cluster.RehashCoordinators()
			}
			return w.committedTotal() == total
		})
		aborts.Remove()
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if aborts.Hits() < 3 || moves < 40 {
			t.Errorf("%d aborts, %d moves: too few to test anything", aborts.Hits(), moves)
		}
		w.wantOnce(outTopic, numbers(0, total))
		if len(w.hooks.suspected) != 0 {
			t.Error("a record was found guilty of what brokers did")
		}
	})
}

// Brokers that cannot write for a while, each in its own words. It costs time, and no record.
func TestBrokersThatCannotWriteCostTimeOnly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		err  *kerr.Error
	}{
		{"too few replicas in sync", kerr.NotEnoughReplicas},
		{"too few replicas in sync, found out after the write", kerr.NotEnoughReplicasAfterAppend},
		{"disk of the broker broken", kerr.KafkaStorageError},
		{"answer after the broker's own timeout", kerr.RequestTimedOut},
		{"no leader", kerr.LeaderNotAvailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newVirtualWorld(t, 1)
				fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: outTopic, Err: c.err, Count: 25})
				w.produce(0, numbers(0, 30)...)
				r := w.run()
				until(t, w.hooks.ended, "30 committed records", committed(30))
				if err := r.drain(); err != nil {
					t.Fatal(err)
				}
				if fault.Hits() != 25 {
					t.Errorf("it was refused %d times, want 25", fault.Hits())
				}
				if len(w.hooks.suspected) != 0 || len(w.read(deadTopic, kgo.ReadUncommitted())) != 0 {
					t.Error("a record was found guilty of what brokers did")
				}
				w.wantOnce(outTopic, numbers(0, 30))
			})
		})
	}
}

// crumbling is a network that carries a few bytes at a time, slowly, and breaks connections in the middle of
// what they carry.
type crumbling struct {
	reach  dialer
	pieces atomic.Int64
	breaks atomic.Int64
	calm   atomic.Bool
}

func (c *crumbling) dial() kgo.Opt {
	return kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := c.reach(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &crumblingConn{Conn: conn, net: c}, nil
	})
}

type crumblingConn struct {
	net.Conn
	net *crumbling
}

func (c *crumblingConn) Write(b []byte) (written int, err error) {
	if c.net.calm.Load() {
		n, err := c.Conn.Write(b)
		return n, asNetwork("write", err)
	}
	for written < len(b) {
		if c.net.pieces.Add(1)%400 == 0 {
			c.net.breaks.Add(1)
			_ = c.Close()
			return written, &net.OpError{Op: "write", Net: "tcp", Err: io.ErrClosedPipe}
		}
		n, err := c.Conn.Write(b[written:min(len(b), written+1+rand.IntN(16))])
		written += n
		if err != nil {
			return written, asNetwork("write", err)
		}
		time.Sleep(rand.N(4 * time.Millisecond)) //nolint:forbidigo // virtual time
	}
	return written, nil
}

func (c *crumblingConn) Read(b []byte) (int, error) {
	if !c.net.calm.Load() && len(b) > 0 {
		b = b[:1+rand.IntN(min(len(b), 16))]
		time.Sleep(rand.N(2 * time.Millisecond)) //nolint:forbidigo // virtual time
	}
	n, err := c.Conn.Read(b)
	return n, asNetwork("read", err)
}

// A network of a few bytes at a time, slow, with connections that break in mid-frame: slower, and exact.
func TestCrumblingNetworkIsSlowerAndExact(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		c := &crumbling{reach: w.dial}
		w.produce(0, numbers(0, 100)...)
		r := w.run(func(config *Config) {
			config.Client = append(slices.Clone(config.Client), c.dial())
			config.RecordsMax = 20
		})
		within(t, time.Hour, w.hooks.ended, "100 records", committed(100))
		c.calm.Store(true)
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if c.pieces.Load() < 500 || c.breaks.Load() == 0 {
			t.Errorf("%d pieces, %d breaks: too few to test anything", c.pieces.Load(), c.breaks.Load())
		}
		w.wantOnce(outTopic, numbers(0, 100))
	})
}

// The input topic is deleted under a running lane, and made again under its name. Its partition halts, and
// says what to run: the offsets of the old one mean nothing there. Nothing of the new one is taken before.
func TestDeletedInputHaltsItsPartition(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.produce(0, numbers(0, 10)...)
		r := w.run()
		until(t, w.hooks.ended, "10 committed records", committed(10))
		w.recreate(inTopic, nil)
		w.reconnect()
		w.produce(0, numbers(100, 105)...)
		halted := next(t, w.hooks.haltedAt, "halted partition")
		if halted.Topic != inTopic || !strings.Contains(halted.Err.Error(), "processor offsets set") {
			t.Errorf("halted %+v", halted)
		}
		time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		w.wantOnce(outTopic, numbers(0, 10))
	})
}

// The group's offsets are gone: expired while nothing ran, or deleted by hand. Under fail nothing is read;
// the partition halts and says what to run.
func TestRule9LostOffsetsHaltUnderFail(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.produce(0, numbers(0, 10)...)
		r := w.run()
		until(t, w.hooks.ended, "10 committed records", committed(10))
		r.engine.Leave()
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if _, err := kadm.NewClient(w.client).DeleteGroup(t.Context(), w.config.Group); err != nil {
			t.Fatal(err)
		}
		w.produce(0, numbers(10, 20)...)
		r = w.run(func(c *Config) { c.Start = StartFail })
		halted := next(t, w.hooks.haltedAt, "halted partition")
		if !strings.Contains(halted.Err.Error(), "processor offsets set") {
			t.Errorf("halted %+v", halted)
		}
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		w.wantOnce(outTopic, numbers(0, 10))
	})
}

// Every transaction takes an epoch of its id, and there are 32,767 of them. When they are used up the
// coordinator gives another producer id, in the middle of the work.
func TestEpochsRollOver(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		member := w.config.member(0)
		ids := map[int64]bool{}
		take := func() (epoch int16) {
			t.Helper()
			req := kmsg.NewPtrInitProducerIDRequest()
			req.TransactionalID, req.TransactionTimeoutMillis = &member, 60_000
			req.ProducerID, req.ProducerEpoch = -1, -1
			resp, err := req.RequestWith(t.Context(), w.client)
			if err == nil {
				err = kerr.ErrorForCode(resp.ErrorCode)
			}
			if err != nil {
				t.Fatal(err)
			}
			ids[resp.ProducerID] = true
			return resp.ProducerEpoch
		}
		for epoch := take(); epoch < math.MaxInt16-10; {
			epoch = take()
		}
		w.produce(0, numbers(0, 60)...)
		r := w.run(func(c *Config) { c.RecordsMax = 2 })
		until(t, w.hooks.ended, "60 committed records", committed(60))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		before := len(ids)
		take()
		if before != 1 || len(ids) != 2 {
			t.Errorf("there were %d and then %d producer ids, want 1 and 2: the epochs did not roll over", before, len(ids))
		}
		w.wantOnce(outTopic, numbers(0, 60))
	})
}

// reconnect replaces the test's own client by one that knows what was changed behind its back.
func (w *world) reconnect() {
	w.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.cluster.ListenAddrs()...), kgo.Dialer(w.dial), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(client.Close)
	w.client = client
}

// broken makes a batch that a broker takes for good and that no reader can use.
func broken(t *testing.T, attributes int16, count int32, records []byte) []byte {
	t.Helper()
	b := kmsg.RecordBatch{
		Length: int32(49 + len(records)), PartitionLeaderEpoch: -1, Magic: 2, Attributes: attributes,
		LastOffsetDelta: count - 1, FirstTimestamp: time.Now().UnixMilli(), MaxTimestamp: time.Now().UnixMilli(),
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: count, Records: records,
	}
	b.CRC = int32(crc32.Checksum(b.AppendTo(nil)[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b.AppendTo(nil)
}

// produceRaw writes a batch as it is.
func produceRaw(t *testing.T, client *kgo.Client, topic string, id [16]byte, partition int32, batch []byte) error {
	t.Helper()
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	of := kmsg.NewProduceRequestTopic()
	of.Topic, of.TopicID = topic, id
	part := kmsg.NewProduceRequestTopicPartition()
	part.Partition, part.Records = partition, batch
	of.Partitions = append(of.Partitions, part)
	req.Topics = append(req.Topics, of)
	resp, err := req.RequestWith(t.Context(), client)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
}

// A batch that nobody can read: it unpacks to more than memory, or not at all, or has records of no bytes. Its partition halts and names the offset; what came before is done, what comes after
// is not, and the other partition goes on. Nothing is skipped.
func TestUnreadableBatchHaltsItsPartition(t *testing.T) {
	t.Parallel()
	packed := func(t *testing.T, n int) []byte {
		t.Helper()
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := io.CopyN(z, zeros{}, int64(n))
		if err := errors.Join(err, z.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	const gzipped = 1
	for name, batch := range map[string]func(t *testing.T) []byte{
		"bomb": func(t *testing.T) []byte {
			t.Helper()
			return broken(t, gzipped, 1, packed(t, decompressBytesMax+1<<20))
		},
		"no gzip":     func(t *testing.T) []byte { t.Helper(); return broken(t, gzipped, 1, []byte("this is no gzip")) },
		"of no bytes": func(t *testing.T) []byte { t.Helper(); return broken(t, 0, 5, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newVirtualWorld(t, 2)
				w.produce(0, numbers(0, 5)...)
				if err := produceRaw(t, w.client, inTopic, w.topicID(inTopic), 0, batch(t)); err != nil {
					t.Fatal(err)
				}
				w.produce(0, numbers(5, 10)...)
				r := w.run()
				halted := within(t, time.Hour, w.hooks.haltedAt, "halted partition", func(Halted) bool { return true })[0]
				if halted.Partition != 0 || !strings.Contains(halted.Err.Error(), "processor offsets set") {
					t.Errorf("halted %+v", halted)
				}
				w.produce(1, numbers(20, 30)...)
				until(t, w.hooks.ended, "the other partition", func(Ended) bool { return w.committedOffset(1) == 10 })
				if err := r.drain(); err != nil {
					t.Fatal(err)
				}
				if at := w.committedOffset(0); at != 5 {
					t.Errorf("the committed offset is %d, want 5, where it halted", at)
				}
				w.wantOnce(outTopic, slices.Concat(numbers(0, 5), numbers(20, 30)))
			})
		})
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// Partitions are added to the input while lanes run. What was written to them before anybody knew of them is
// read as well, whatever the start policy says: it is about what was there when the group began.
func TestAddedPartitionsAreReadFromTheirStart(t *testing.T) {
	t.Parallel()
	for _, start := range []Start{StartEarliest, StartLatest} {
		t.Run(string(start), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newVirtualWorld(t, 1)
				w.produce(0, "old")
				r := w.run(func(c *Config) { c.Start = start })
				next(t, w.hooks.joined, "join")
				time.Sleep(time.Second) //nolint:forbidigo // virtual time: the start is committed
				w.produce(0, numbers(0, 10)...)
				until(t, w.hooks.ended, "10 records", func(Ended) bool { return w.committedOffset(0) == 11 })
				if _, err := kadm.NewClient(w.client).CreatePartitions(t.Context(), 1, inTopic); err != nil {
					t.Fatal(err)
				}
				w.reconnect()
				w.produce(1, numbers(10, 20)...)
				within(t, time.Hour, w.hooks.ended, "what is on the added partition", func(Ended) bool { return w.committedOffset(1) == 10 })
				if err := r.drain(); err != nil {
					t.Fatal(err)
				}
				want := numbers(0, 20)
				if start == StartEarliest {
					want = append(want, "old")
				}
				w.wantOnce(outTopic, want)
			})
		})
	}
}
