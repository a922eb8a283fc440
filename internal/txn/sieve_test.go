package txn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/message"
	"pawl/internal/transact"
)

// blinded makes the brokers list nothing of what was aborted, and not even hold back what is open, until seeing is set.
type blinded struct {
	seeing   atomic.Bool
	answered atomic.Int64
	started  atomic.Int64 // fetches of partition 0 from its start
}

func blind(w *world) *blinded {
	b := &blinded{}
	w.cluster.ControlKey(int16(kmsg.Fetch), func(request kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		fetch := request.(*kmsg.FetchRequest)
		if fetch.IsolationLevel == 0 || b.seeing.Load() {
			return nil, nil, false
		}
		fetch.IsolationLevel = 0
		b.answered.Add(1)
		for _, topic := range fetch.Topics {
			for _, p := range topic.Partitions {
				if p.Partition == 0 && p.FetchOffset == 0 {
					b.started.Add(1)
				}
			}
		}
		return nil, nil, false
	})
	return b
}

// upstream is a producer of transactions.
func (w *world) upstream(id string) *kgo.Client {
	w.t.Helper()
	client, err := kgo.NewClient(append(slices.Clone(w.config.Client), kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(client.Close)
	return client
}

// end ends the transaction of a producer that has written to the input.
func (w *world) end(upstream *kgo.Client, how kgo.TransactionEndTry) {
	w.t.Helper()
	w.must(transact.End(w.t.Context(), upstream, how, inTopic, 0))
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func input(partition int32, value string) *kgo.Record {
	return &kgo.Record{Topic: inTopic, Partition: partition, Key: []byte("k" + value), Value: []byte(value)}
}

// Rule 14. Two producers commit and abort in turns, and the brokers list nothing of it.
func TestRule14AbortedRecordsThatTheBrokerDoesNotListAreNotHandled(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 3)
		b := blind(w)
		var unlisted atomic.Int64
		r := w.run(func(c *Config) {
			c.RecordsMax = 7
			c.Hooks.Unlisted = func(u Unlisted) { unlisted.Add(u.Records) }
		})
		chance := rand.New(rand.NewPCG(14, 0))
		producers := []*kgo.Client{w.upstream("one"), w.upstream("other")}
		var open [2][]string
		var want []string
		aborted, number := 0, 0
		for n := range 100 {
			p := n % 2
			if open[p] == nil {
				w.must(producers[p].BeginTransaction())
			}
			for range 1 + chance.IntN(20) {
				value := strconv.Itoa(number)
				number++
				w.must(producers[p].ProduceSync(t.Context(), input(int32(chance.IntN(3)), value)).FirstErr())
				open[p] = append(open[p], value)
			}
			if chance.IntN(2) > 0 && n < 98 {
				continue
			}
			end := kgo.TransactionEndTry(chance.IntN(2) > 0)
			w.end(producers[p], end)
			if end {
				want = append(want, open[p]...)
			} else {
				aborted += len(open[p])
			}
			open[p] = nil
		}
		until(t, w.hooks.ended, "all that is committed", committed(len(want)))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if aborted == 0 || unlisted.Load() == 0 || b.answered.Load() == 0 {
			t.Errorf("%d records were aborted, %d of them were given as committed: nothing was shown", aborted, unlisted.Load())
		}
		b.seeing.Store(true)
		w.wantOnce(outTopic, want)
	})
}

// Rule 14. A record waits for its marker while what stands before it is committed. The offset stays where it
// waits, whoever goes on: the same session, or the next one, which knows nothing of what waited.
func TestRule14OffsetsStayBeforeWhatWaits(t *testing.T) {
	for _, test := range []struct {
		name    string
		restart bool
		end     kgo.TransactionEndTry
		want    []string
	}{
		{"committed", false, kgo.TryCommit, []string{"before", "open", "behind", "last"}},
		{"aborted", false, kgo.TryAbort, []string{"before", "behind", "last"}},
		{"committed after a restart", true, kgo.TryCommit, []string{"before", "open", "behind", "last"}},
		{"aborted after a restart", true, kgo.TryAbort, []string{"before", "behind", "last"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newVirtualWorld(t, 1)
				b := blind(w)
				upstream := w.upstream("upstream")
				w.produce(0, "before")
				w.must(upstream.BeginTransaction())
				w.must(upstream.ProduceSync(t.Context(), input(0, "open")).FirstErr())
				w.produce(0, "behind")
				r := w.run()
				if e := next(t, w.hooks.ended, "end"); e.Outcome != Committed || e.Records != 1 || w.committedOffset(0) != 1 {
					t.Errorf("the first end is %+v and offset %d is committed, want one record, up to 1", e, w.committedOffset(0))
				}
				if test.restart {
					w.must(r.drain())
					r = w.run()
				}
				w.end(upstream, test.end)
				w.produce(0, "last")
				until(t, w.hooks.ended, "the end of the log", func(Ended) bool { return w.committedOffset(0) == 5 })
				w.must(r.drain())
				b.seeing.Store(true)
				w.wantOnce(outTopic, test.want)
			})
		})
	}
}

// Rule 14. The marker of a transaction is further away than what a lane keeps while it waits for it.
func TestRule14WhatIsTooMuchToHoldIsReadTwice(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const count, size = 48, 1 << 18 // a key is as long as its value
		w := newVirtualWorld(t, 2)
		b := blind(w)
		one, aborting := w.upstream("one"), w.upstream("aborting")
		w.must(one.BeginTransaction())
		w.must(one.ProduceSync(t.Context(), input(0, "first")).FirstErr())
		want := []string{"first"}
		large := func(n int) *kgo.Record {
			return input(0, fmt.Sprint(n, string(bytes.Repeat([]byte("x"), size))))
		}
		for n := range count {
			if n%8 == 7 {
				w.must(aborting.BeginTransaction())
				w.must(aborting.ProduceSync(t.Context(), large(n)).FirstErr())
				w.end(aborting, kgo.TryAbort)
				continue
			}
			w.must(w.client.ProduceSync(context.Background(), large(n)).FirstErr())
			want = append(want, string(large(n).Value))
		}
		w.end(one, kgo.TryCommit)
		w.produce(1, numbers(0, 20)...)
		want = append(want, numbers(0, 20)...)
		r := w.run(func(c *Config) { c.RecordsMax = 8 })
		until(t, w.hooks.ended, "all that is committed", committed(len(want)))
		w.must(r.drain())
		if b.started.Load() < 2 {
			t.Error("nothing was read again: nothing was shown")
		}
		b.seeing.Store(true)
		w.wantOnce(outTopic, want)
	})
}

// Rules 7 and 14. All records of a transaction are decided at once, with one marker. Those that are handed out are no
// more than the batch may have, so that the harmful one among them is found.
func TestRule14RecordsOfOneTransactionAreBisected(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		upstream := w.upstream("upstream")
		w.must(upstream.BeginTransaction())
		for _, value := range numbers(0, 50) {
			w.must(upstream.ProduceSync(t.Context(), input(0, value)).FirstErr())
		}
		w.end(upstream, kgo.TryCommit)
		r := w.run(func(c *Config) {
			c.Routes[0].Handler = handlerFunc(func(in message.In, out *message.Batch) error {
				if string(in.Value) == "17" {
					return errors.New("no reason given")
				}
				return copyHandler{}.Handle(in, out)
			})
		})
		until(t, w.hooks.ended, "the end of the log", func(Ended) bool { return w.committedOffset(0) == 51 })
		w.must(r.drain())
		w.wantOnce(outTopic, slices.Concat(numbers(0, 17), numbers(18, 50)))
		w.wantOnce(deadTopic, []string{"17"})
	})
}

// Rules 13 and 14. What is decided and was more than a poll had asked for is not handed out while its partition is
// paused, and no committed offset passes it.
func TestRule14WhatIsReadyWaitsWhileItsPartitionIsPaused(t *testing.T) {
	const count = 5
	at := place{inTopic, 0}
	key := kmsg.NewControlRecordKey()
	key.Type = kmsg.ControlRecordKeyTypeCommit
	attrs := func(control bool) kgo.RecordAttrs {
		return kgo.NewRecordAttrs(kgo.RecordAttrsOpts{Transactional: true, Control: control})
	}
	var records []*kgo.Record
	for n := range int64(count) {
		records = append(records, &kgo.Record{Topic: inTopic, Offset: n, ProducerID: 1, Attrs: attrs(false)})
	}
	records = append(records, &kgo.Record{Topic: inTopic, Offset: count, ProducerID: 1, Attrs: attrs(true), Key: key.AppendTo(nil)})
	s := sieve{share: heldBytesMax}
	s.pass(kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: inTopic, Partitions: []kgo.FetchPartition{{Records: records}}}}}}, 2, nil, nil)
	if got := s.position(at, count+1); got != 2 {
		t.Fatalf("position %d is committed, want 2", got)
	}
	s.paused = map[place]bool{at: true}
	if left := s.left(count); left != nil {
		t.Errorf("%d records of a paused partition were handed out", left.NumRecords())
	}
	if got := s.position(at, count+1); got != 2 {
		t.Errorf("position %d is committed while the partition is paused, want 2", got)
	}
	s.paused = nil
	if left := s.left(count); left.NumRecords() != count-1 || s.position(at, count+1) != count+1 {
		t.Errorf("%d records were handed out, position %d is committed; want %d and %d", left.NumRecords(), s.position(at, count+1), count-1, count+1)
	}
}

// Plain input passes through untouched.
func BenchmarkSieve(b *testing.B) {
	records := manyInputs(8000)
	for _, r := range records {
		r.Partition = 0
	}
	var s sieve
	for b.Loop() {
		fetches := kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: inTopic, Partitions: []kgo.FetchPartition{{Records: records}}}}}}
		s.pass(fetches, len(records), nil, func(place, int64) {})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(records)), "ns/record")
}
