package txn

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/message"
)

// odd are records that somebody will send one day.
func odd() []*kgo.Record {
	many := make([]kgo.RecordHeader, 10_000)
	for i := range many {
		many[i] = kgo.RecordHeader{Key: fmt.Sprint("h", i%100), Value: fmt.Append(nil, i)}
	}
	noise := make([]byte, 200_000)
	for i := range noise {
		noise[i] = byte(rand.N(256))
	}
	return []*kgo.Record{
		{Key: nil, Value: nil},
		{Key: []byte{}, Value: []byte{}},
		{Key: nil, Value: []byte("value only")},
		{Key: []byte("tombstone"), Value: nil},
		{Key: []byte("\xff\xfe\x00"), Value: []byte("\xc3\x28 invalid \x00 text")},
		{Value: []byte("not json {")},
		{Value: noise},
		{Key: noise[:100_000]},
		{Value: []byte("many headers"), Headers: many},
		{Value: []byte("odd headers"), Headers: []kgo.RecordHeader{{Key: "", Value: nil}, {Key: "\xff", Value: []byte("\xff")}, {Key: "a", Value: nil}, {Key: "a", Value: []byte{}}}},
		{Value: []byte("forged"), Headers: []kgo.RecordHeader{{Key: "pawl-id", Value: []byte("mine")}, {Key: "pawl-source", Value: []byte("in/9/9")}, {Key: "pawl-error", Value: nil}}},
		{Value: []byte("old"), Timestamp: time.UnixMilli(1)},
		{Value: []byte("from the future"), Timestamp: time.UnixMilli(1 << 42)},
	}
}

// Whatever comes is copied as it is, or dead-lettered as it is: key, value, headers and time to the
// byte, and in order. Between them are ordinary records, which must not notice.
func TestOddRecordsGoThroughAsTheyAre(t *testing.T) {
	for _, rejecting := range []bool{false, true} {
		t.Run(fmt.Sprintf("rejecting=%t", rejecting), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newVirtualWorld(t, 1)
				w.config.Routes[0].Handler = handlerFunc(func(in message.In, out *message.Batch) error {
					if rejecting {
						return refusal("odd")
					}
					return copyHandler{}.Handle(in, out)
				})
				records := odd()
				for _, r := range records {
					sent := *r
					sent.Topic = inTopic
					if err := w.client.ProduceSync(context.Background(), &sent).FirstErr(); err != nil {
						t.Fatal(err)
					}
				}
				r := w.run()
				until(t, w.hooks.ended, "all of them", committed(len(records)))
				if err := r.drain(); err != nil {
					t.Fatal(err)
				}
				topic, ours := outTopic, 2
				if rejecting {
					topic, ours = deadTopic, DeadLetterHeaders
				}
				byOffset := map[int64]*kgo.Record{}
				for _, got := range w.read(topic, kgo.ReadCommitted()) {
					source, err := message.ParseSource(header(got, message.HeaderSource))
					if err != nil {
						t.Fatal(err)
					}
					byOffset[source.Offset] = got
				}
				for i, want := range records {
					got := byOffset[int64(i)]
					if got == nil {
						t.Errorf("record %d is nowhere", i)
						continue
					}
					if !same(got.Key, want.Key) || !same(got.Value, want.Value) {
						t.Errorf("record %d: key %.20q and value %.20q, want %.20q and %.20q", i, got.Key, got.Value, want.Key, want.Value)
					}
					if !want.Timestamp.IsZero() && !got.Timestamp.Equal(want.Timestamp) {
						t.Errorf("record %d has time %s, want %s", i, got.Timestamp, want.Timestamp)
					}
					headers := want.Headers
					if !rejecting && bytes.Equal(want.Value, []byte("forged")) {
						headers = nil // a handler may not write ours
					}
					if n := len(got.Headers) - ours; n != len(headers) {
						t.Errorf("record %d has %d headers beside ours, want %d", i, n, len(headers))
						continue
					}
					for j, h := range headers {
						if got.Headers[j].Key != h.Key || !same(got.Headers[j].Value, h.Value) {
							t.Errorf("record %d: header %d is %q, want %q", i, j, got.Headers[j], h)
							break
						}
					}
				}
				if len(byOffset) != len(records) || len(w.hooks.suspected) != 0 {
					t.Errorf("%d records came out of %d, %d suspicions", len(byOffset), len(records), len(w.hooks.suspected))
				}
			})
		})
	}
}

// same tells nil from empty, as Kafka does.
func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

// The largest output, effect and dead letter that are not rejected really fit: neither the client nor
// the brokers refuse them. One byte more is a reject, and costs no abort.
func TestLargestRecordsThatAreNotRejectedFit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const limit = 50_000
		w := newVirtualWorld(t, 1)
		for _, topic := range []string{outTopic, effectsTopic} {
			w.recreate(topic, map[string]string{"max.message.bytes": strconv.Itoa(limit)})
		}
		trace := message.Trace{Parent: make([]byte, message.TraceParentMax), State: make([]byte, message.TraceStateMax)}
		room := map[string]int{
			"out":    limit - recordOverhead - trace.Size(),
			"effect": limit - recordOverhead - effectOverhead - len("payments") - trace.Size(),
		}
		w.config.Routes[0].Handler = handlerFunc(func(in message.In, out *message.Batch) error {
			var kind string
			var extra int
			if _, err := fmt.Sscan(string(in.Value), &kind, &extra); err != nil {
				return err
			}
			big := make([]byte, room[kind]+extra)
			if kind == "out" {
				out.Emit(message.Out{Output: "out", Value: big})
			} else {
				out.Call(message.Effect{Endpoint: "payments", OrderKey: []byte{}, Body: big})
			}
			return nil
		})
		for _, v := range []string{"out 0", "out 1", "effect 0", "effect 1"} {
			r := &kgo.Record{Topic: inTopic, Value: []byte(v), Headers: make([]kgo.RecordHeader, trace.Len())}
			putTrace(r.Headers, trace)
			if err := w.client.ProduceSync(context.Background(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		r := w.run()
		for _, e := range until(t, w.hooks.ended, "4 committed records", committed(4)) {
			if e.Outcome != Committed {
				t.Errorf("ended as %+v, want no abort", e)
			}
		}
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		w.wantOnce(deadTopic, []string{"out 1", "effect 1"})
		for topic, kind := range map[string]string{outTopic: "out", effectsTopic: "effect"} {
			if got := w.read(topic, kgo.ReadCommitted()); len(got) != 1 || len(got[0].Value) != room[kind] {
				t.Errorf("%s has %d records, want the one of %d bytes", topic, len(got), room[kind])
			}
		}
	})
}

// One partition can't be read, for a while. The other one does not wait for it.
func TestPartitionInErrorDoesNotHoldUpTheOthers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 2)
		w.produce(0, numbers(0, 10)...)
		fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: inTopic, Partitions: []int32{0}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		r := w.run(new(tally).count)
		next(t, w.hooks.joined, "join")
		for i := range 60 {
			time.Sleep(time.Second) //nolint:forbidigo // virtual time
			written := time.Now()
			w.produce(1, strconv.Itoa(1000+i))
			until(t, w.hooks.ended, "the record of the other partition", committed(1))
			if took := time.Since(written); took > 2*backoffMax {
				t.Fatalf("record %d took %s", i, took)
			}
		}
		if got := fault.Hits(); got == 0 || got > 1000 {
			t.Errorf("asked %d times in a minute for what may not be read, want some, and at most 1000", got)
		}
		fault.Remove()
		until(t, w.hooks.ended, "10 committed records", committed(10))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		w.wantOnce(outTopic, append(numbers(0, 10), numbers(1000, 1060)...))
	})
}
