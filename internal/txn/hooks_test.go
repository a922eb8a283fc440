package txn

import (
	"strconv"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/message"
)

// What the hooks tell adds up to what is in the topics: what was committed is told once, what was
// aborted is told as work that was done, and as nothing that came of it.
func TestHooksAddUpToWhatWasCommitted(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 2)
		w.config.RecordsMax = 50
		w.config.Routes[0].Handler = handlerFunc(func(in message.In, out *message.Batch) error {
			if in.Source.Offset%10 == 3 {
				return refusal("three")
			}
			if in.Source.Offset%10 == 5 {
				out.Call(message.Effect{Endpoint: "payments", Body: []byte("1234")})
			}
			return copyHandler{}.Handle(in, out)
		})
		fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Topic: inTopic, Err: kerr.UnknownMemberID, Count: 2})
		var input int64
		for p := range int32(2) {
			w.produce(p, numbers(int(p)*1000, int(p)*1000+200)...)
			for _, v := range numbers(int(p)*1000, int(p)*1000+200) {
				input += int64(len("k"+v) + len(v))
			}
		}
		var mu sync.Mutex
		produced := map[string]Produced{}
		rejected := map[string]int{}
		var polled, handled, rejects, aborts int
		var bytes int64
		r := w.run(func(c *Config) {
			ended := c.Hooks.Ended
			c.Hooks.Polled = func(p Polled) { mu.Lock(); defer mu.Unlock(); polled += p.Records }
			c.Hooks.Handled = func(h Handled) {
				mu.Lock()
				defer mu.Unlock()
				handled, rejects = handled+h.Records, rejects+h.Rejects
				if h.Handler != "copy" || h.Topic != inTopic {
					t.Errorf("handled %+v", h)
				}
			}
			c.Hooks.Produced = func(p Produced) {
				mu.Lock()
				defer mu.Unlock()
				sum := produced[p.Topic]
				sum.Records, sum.Bytes = sum.Records+p.Records, sum.Bytes+p.Bytes
				produced[p.Topic] = sum
			}
			c.Hooks.Rejected = func(r Rejected) {
				mu.Lock()
				defer mu.Unlock()
				rejected[r.Source.String()]++
				if r.Reason != "three" || r.Handler != "copy" || r.Err == nil {
					t.Errorf("rejected %+v", r)
				}
			}
			c.Hooks.Ended = func(e Ended) {
				mu.Lock()
				if e.Outcome == Committed {
					bytes += e.Bytes
				} else {
					aborts += e.Records
				}
				mu.Unlock()
				ended(e)
			}
		})
		until(t, w.hooks.ended, "400 committed records", committed(400))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if fault.Hits() != 2 || aborts == 0 {
			t.Errorf("%d faults and %d aborted records: nothing was redone", fault.Hits(), aborts)
		}
		if polled != 400+aborts || handled != polled || rejects < 40 {
			t.Errorf("%d polled and %d handled with %d rejects, want 400 and the %d that were redone", polled, handled, rejects, aborts)
		}
		if bytes != input {
			t.Errorf("%d bytes were committed, want %d", bytes, input)
		}
		for topic, want := range map[string]int{outTopic: 360, effectsTopic: 40, deadTopic: 40} {
			var size int64
			records := w.read(topic, kgo.ReadCommitted())
			for _, r := range records {
				size += int64(len(r.Key) + len(r.Value))
			}
			if got := produced[topic]; got.Records != want || len(records) != want || got.Bytes != size {
				t.Errorf("%s: told %d records of %d bytes, there are %d of %d, want %d", topic, got.Records, got.Bytes, len(records), size, want)
			}
		}
		for p := range 2 {
			for offset := 3; offset < 200; offset += 10 {
				if at := "in/" + strconv.Itoa(p) + "/" + strconv.Itoa(offset); rejected[at] != 1 {
					t.Errorf("the reject of %s was told %d times", at, rejected[at])
				}
			}
		}
		if len(rejected) != 40 {
			t.Errorf("%d rejects were told, want 40", len(rejected))
		}
	})
}

// No hook is required.
func TestEngineWorksWithoutHooks(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		ended := make(chan Ended, 100)
		w.produce(0, numbers(0, 10)...)
		w.config.Hooks = Hooks{Ended: func(e Ended) { ended <- e }}
		r := w.run()
		until(t, ended, "10 committed records", committed(10))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		w.config.Hooks = Hooks{}
		w.produce(0, numbers(10, 20)...)
		r = w.run()
		for w.committedTotal() < 20 {
			pause(t.Context(), backoffMin)
		}
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		w.wantOnce(outTopic, numbers(0, 20))
	})
}
