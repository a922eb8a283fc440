package txn

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"pawl/internal/message"
)

// testSizes allows every topic 10,000 bytes a record.
func testSizes() map[string]int {
	return map[string]int{outTopic: 10_000, effectsTopic: 10_000, deadTopic: 10_000}
}

func testTopicID(string) [16]byte { return [16]byte{7} }

func newTestTransformer(workers int, h Handler) *transformer {
	c := validConfig()
	c.Routes[0].Handler = h
	return newTransformer(c, testSizes(), workers)
}

// dear makes the transformer believe that a record is worth a goroutine.
const dear = time.Second

// produced runs a batch through transformer and builder and returns what would be produced. It is a
// copy: what the builder makes dies with its reset.
func produced(tr *transformer, b *builder, records []*kgo.Record, poison map[spot]error, each time.Duration) ([]*kgo.Record, error) {
	defer b.reset()
	var made []*kgo.Record
	for part, err := range tr.run(records, testTopicID, poison, each) {
		if err != nil {
			return nil, err
		}
		for i, r := range part.records {
			source := message.Source{Application: tr.config.Application, Topic: r.Topic, TopicID: testTopicID(r.Topic), Partition: r.Partition, Offset: r.Offset}
			err := b.build(r, source, &part.outcomes[i], "copy", func(r *kgo.Record) {
				c := &kgo.Record{Topic: r.Topic, Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value), Timestamp: r.Timestamp}
				for _, h := range r.Headers {
					c.Headers = append(c.Headers, kgo.RecordHeader{Key: h.Key, Value: bytes.Clone(h.Value)})
				}
				made = append(made, c)
			})
			if err != nil {
				return made, err
			}
		}
	}
	return made, nil
}

// inputs makes records of one partition.
func inputs(values ...string) []*kgo.Record {
	var records []*kgo.Record
	for i, v := range values {
		records = append(records, &kgo.Record{
			Topic: inTopic, Offset: int64(i), Key: []byte("k" + v), Value: []byte(v), Timestamp: time.UnixMilli(1_700_000_000_000 + int64(i)),
		})
	}
	return records
}

func header(r *kgo.Record, key string) string {
	for _, h := range slices.Backward(r.Headers) {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// keyOrder is a handler that sees when the records of a key come out of order or on two goroutines at
// once: its state of a key has no lock, so the race detector watches too.
type keyOrder struct {
	mu   sync.Mutex
	last map[string]*int64
	bad  []string
}

func (k *keyOrder) see(in message.In) {
	k.mu.Lock()
	last, ok := k.last[string(in.Key)]
	if !ok {
		last = new(int64)
		*last = -1
		k.last[string(in.Key)] = last
	}
	k.mu.Unlock()
	if in.Key == nil {
		return // no order among these
	}
	if *last >= in.Source.Offset {
		k.mu.Lock()
		k.bad = append(k.bad, fmt.Sprintf("key %s: offset %d after %d", in.Key, in.Source.Offset, *last))
		k.mu.Unlock()
	}
	*last = in.Source.Offset
}

// flat writes records out, byte for byte. A panic's stack tells of the goroutine and is left out.
func flat(records []*kgo.Record) string {
	var b strings.Builder
	for _, r := range records {
		fmt.Fprintf(&b, "%s %q %q %d", r.Topic, r.Key, r.Value, r.Timestamp.UnixMilli())
		for _, h := range r.Headers {
			if h.Key != message.HeaderError {
				fmt.Fprintf(&b, " %q=%q", h.Key, h.Value)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// A batch on many workers gives what it gives on one, byte for byte and in the order of the input,
// whatever its handlers ask for, refuse or panic about; and a key's records stay in order.
func TestWorkersChangeNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		order := &keyOrder{last: map[string]*int64{}}
		handler := handlerFunc(func(in message.In, out *message.Batch) error {
			order.see(in)
			for i, what := range string(in.Value) {
				text := fmt.Appendf(nil, "%s %d", in.Source, i)
				switch what {
				case 'o':
					out.Emit(message.Out{Output: "out", Key: in.Key, Value: text, Headers: in.Headers})
				case 'e':
					out.Call(message.Effect{Endpoint: "payments", Body: text})
				case 'r':
					return refusal("no")
				case 'p':
					panic("oh")
				case 'u':
					out.Emit(message.Out{Output: "nowhere"})
				}
			}
			return nil
		})
		var records []*kgo.Record
		for offset := range rapid.Int64Range(0, 50).Draw(t, "records") {
			r := &kgo.Record{
				Topic: inTopic, Offset: offset, Timestamp: time.UnixMilli(offset),
				Value: []byte(rapid.StringOfN(rapid.RuneFrom([]rune("ooooeeerpu")), 0, 3, -1).Draw(t, "value")),
			}
			if key := rapid.IntRange(-1, 9).Draw(t, "key"); key >= 0 {
				r.Key = fmt.Append(nil, key)
				r.Headers = []kgo.RecordHeader{{Key: "h", Value: r.Key}}
			}
			records = append(records, r)
		}
		poison := map[spot]error{}
		if len(records) > 0 && rapid.Bool().Draw(t, "poison") {
			poison[spot{place{inTopic, 0}, rapid.Int64Range(0, int64(len(records)-1)).Draw(t, "guilty")}] = errors.New("harm")
		}
		one, many := newTestTransformer(1, handler), newTestTransformer(rapid.IntRange(2, 8).Draw(t, "workers"), handler)
		bOne, bMany := newBuilder(one.config, one.sizes), newBuilder(many.config, many.sizes)
		for range 2 { // what is used again is clean
			order.last = map[string]*int64{}
			want, err := produced(one, bOne, records, poison, dear)
			if err != nil {
				t.Fatal(err)
			}
			order.last = map[string]*int64{}
			got, err := produced(many, bMany, records, poison, dear)
			if err != nil {
				t.Fatal(err)
			}
			if a, b := flat(want), flat(got); a != b {
				t.Fatalf("one worker made\n%s, many\n%s", a, b)
			}
			if len(order.bad) > 0 {
				t.Fatal(order.bad)
			}
		}
	})
}

// The records of a key are handled by one worker; all workers have something to do.
func TestKeysStayOnOneWorker(t *testing.T) {
	t.Parallel()
	tr := newTestTransformer(4, copyHandler{})
	var records []*kgo.Record
	for i := range 1000 {
		records = append(records, &kgo.Record{Topic: inTopic, Offset: int64(i), Key: fmt.Append(nil, i%50)})
	}
	owner := map[string]*worker{}
	used := map[*worker]bool{}
	parts := 0
	for part, err := range tr.run(records, testTopicID, nil, dear) {
		if err != nil {
			t.Fatal(err)
		}
		parts++
		for i, r := range part.records {
			if w, ok := owner[string(r.Key)]; ok && w != part.outcomes[i].worker {
				t.Fatalf("key %s has two workers", r.Key)
			}
			owner[string(r.Key)] = part.outcomes[i].worker
			used[part.outcomes[i].worker] = true
		}
	}
	if parts != 1 || len(used) != 4 || len(owner) != 50 {
		t.Errorf("%d parts, %d of 4 workers were used, for %d of 50 keys; a batch that is spread is one part", parts, len(used), len(owner))
	}
}

// A batch that costs nothing stays on one worker, and is produced while the caches still have it.
func TestCheapBatchComesInParts(t *testing.T) {
	t.Parallel()
	tr := newTestTransformer(4, copyHandler{})
	records := make([]*kgo.Record, 2*partMax+1)
	for i := range records {
		records[i] = &kgo.Record{Topic: inTopic, Offset: int64(i)}
	}
	var sizes []int
	seen := 0
	for part, err := range tr.run(records, testTopicID, nil, 1) {
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(part.records))
		for i, r := range part.records {
			if part.outcomes[i].worker != tr.workers[0] {
				t.Fatal("a cheap batch was spread")
			}
			if r != records[seen] {
				t.Fatalf("record %d comes as number %d", r.Offset, seen)
			}
			seen++
		}
	}
	if want := []int{partMax, partMax, 1}; !slices.Equal(sizes, want) {
		t.Errorf("parts of %v records, want %v", sizes, want)
	}
}

// The first batch ever shows what a record costs; the rest of it is spread if that is much.
func TestUnknownCostIsFoundOutByTheFirstPart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTestTransformer(2, handlerFunc(func(message.In, *message.Batch) error {
			time.Sleep(10 * time.Microsecond) //nolint:forbidigo // virtual time: what a handler takes
			return nil
		}))
		records := make([]*kgo.Record, 10*partMax)
		for i := range records {
			records[i] = &kgo.Record{Topic: inTopic, Offset: int64(i)}
		}
		var sizes []int
		for part, err := range tr.run(records, testTopicID, nil, 0) {
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, len(part.records))
		}
		if want := []int{partMax, 9 * partMax}; !slices.Equal(sizes, want) {
			t.Errorf("parts of %v records, want %v", sizes, want)
		}
	})
}

// The deadline is one for the whole batch, whatever the number of its parts.
func TestPartsShareOneDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTestTransformer(1, handlerFunc(func(message.In, *message.Batch) error {
			time.Sleep(time.Millisecond) //nolint:forbidigo // virtual time: what a handler takes
			return nil
		}))
		tr.config.HandlerTimeout = 2*partMax*time.Millisecond + time.Millisecond/2
		records := make([]*kgo.Record, 4*partMax)
		for i := range records {
			records[i] = &kgo.Record{Topic: inTopic, Offset: int64(i)}
		}
		done := make(chan struct{})
		defer close(done)
		go func() { // the watchdog
			for tick := time.NewTicker(100 * time.Microsecond); ; {
				select {
				case now := <-tick.C:
					tr.overdue(now)
				case <-done:
					return
				}
			}
		}()
		begun, parts := time.Now(), 0
		var failed error
		for _, failed = range tr.run(records, testTopicID, nil, 0) {
			parts++
		}
		if took := time.Since(begun); parts != 3 || !errors.Is(failed, errSlow) || took > tr.config.HandlerTimeout+time.Millisecond {
			t.Errorf("ended in part %d after %s with %v, want the third, %s and %v", parts, took, failed, tr.config.HandlerTimeout, errSlow)
		}
	})
}

// nilError is a pointer that some handler returns without looking: as an error it is not nil.
type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

func TestHandlersThatGoWrongCostTheirRecordOnly(t *testing.T) {
	t.Parallel()
	big := bytes.Repeat([]byte("x"), 10_000)
	emit := func(b *message.Batch, value string) { b.Emit(message.Out{Output: "out", Value: []byte(value)}) }
	for name, c := range map[string]struct {
		handle func(in message.In, out *message.Batch) error
		reason string
		text   string
	}{
		"reject": {func(message.In, *message.Batch) error { return refusal("bad_json") }, "bad_json", "refused: bad_json"},
		"wrapped reject": {
			func(message.In, *message.Batch) error { return fmt.Errorf("order 7: %w", refusal("bad_price")) },
			"bad_price", "order 7: refused: bad_price",
		},
		"reject half way": {func(_ message.In, b *message.Batch) error {
			emit(b, "never seen")
			b.Call(message.Effect{Endpoint: "payments"})
			return refusal("late")
		}, "late", ""},
		"panic":           {func(message.In, *message.Batch) error { panic("division") }, RejectPanic, "panic: division"},
		"panic of nil":    {func(message.In, *message.Batch) error { panic(nil) }, RejectPanic, "panic called with nil"}, //nolint:govet // what is tested
		"index":           {func(in message.In, _ *message.Batch) error { _ = in.Value[99]; return nil }, RejectPanic, "index out of range [99]"},
		"panic half way":  {func(_ message.In, b *message.Batch) error { emit(b, "never seen"); panic("late") }, RejectPanic, "transform_test.go"},
		"nil as an error": {func(message.In, *message.Batch) error { var e *nilError; return e }, RejectPanic, "nil pointer"},
		"unknown output": {func(_ message.In, b *message.Batch) error {
			emit(b, "never seen")
			b.Emit(message.Out{Output: "nowhere"})
			return nil
		}, RejectOutputUnknown, `"nowhere"`},
		"no output": {func(_ message.In, b *message.Batch) error { b.Emit(message.Out{}); return nil }, RejectOutputUnknown, `""`},
		"unknown endpoint": {func(_ message.In, b *message.Batch) error {
			b.Call(message.Effect{Endpoint: "http://evil"})
			return nil
		}, RejectEndpointUnknown, `"http://evil"`},
		"value too large": {func(_ message.In, b *message.Batch) error {
			b.Emit(message.Out{Output: "out", Value: big})
			return nil
		}, RejectOutputTooLarge, "max.message.bytes allows 10000"},
		"key too large": {func(_ message.In, b *message.Batch) error {
			b.Emit(message.Out{Output: "out", Key: big})
			return nil
		}, RejectOutputTooLarge, outTopic},
		"headers too large": {func(_ message.In, b *message.Batch) error {
			b.Emit(message.Out{Output: "out", Headers: []message.Header{{Key: "a", Value: big[:5000]}, {Key: string(big[:5000])}}})
			return nil
		}, RejectOutputTooLarge, outTopic},
		"body too large": {func(_ message.In, b *message.Batch) error {
			b.Call(message.Effect{Endpoint: "payments", Body: big})
			return nil
		}, RejectOutputTooLarge, effectsTopic},
		"business key too large": {func(_ message.In, b *message.Batch) error {
			b.Call(message.Effect{Endpoint: "payments", BusinessKey: string(big)})
			return nil
		}, RejectOutputTooLarge, effectsTopic},
		"content type too large": {func(_ message.In, b *message.Batch) error {
			b.Call(message.Effect{Endpoint: "payments", ContentType: string(big)})
			return nil
		}, RejectOutputTooLarge, effectsTopic},
		"too many": {func(_ message.In, b *message.Batch) error {
			for range entriesMax/2 + 1 {
				emit(b, "")
				b.Call(message.Effect{Endpoint: "payments"})
			}
			return nil
		}, RejectTooMany, "10002"},
	} {
		for _, workers := range []int{1, 4} {
			t.Run(fmt.Sprintf("%s, %d workers", name, workers), func(t *testing.T) {
				t.Parallel()
				tr := newTestTransformer(workers, handlerFunc(func(in message.In, out *message.Batch) error {
					if string(in.Value) == "bad" {
						return c.handle(in, out)
					}
					return copyHandler{}.Handle(in, out)
				}))
				made, err := produced(tr, newBuilder(tr.config, tr.sizes), inputs("a", "bad", "b", "bad", "c"), nil, dear)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, r := range made {
					got = append(got, r.Topic+" "+string(r.Value))
				}
				want := []string{"out a", deadTopic + " bad", "out b", deadTopic + " bad", "out c"}
				if !slices.Equal(got, want) {
					t.Fatalf("made %q, want %q", got, want)
				}
				if reason, text := header(made[1], message.HeaderReason), header(made[1], message.HeaderError); reason != c.reason || !strings.Contains(text, c.text) {
					t.Errorf("rejected as %s: %s; want %s: %s", reason, text, c.reason, c.text)
				}
			})
		}
	}
}

// Errors without a reason are no fate of a record: the batch is aborted, and the error names who and
// where.
func TestErrorWithoutReasonEndsTheBatch(t *testing.T) {
	t.Parallel()
	cause := errors.New("a bug")
	for _, workers := range []int{1, 4} {
		tr := newTestTransformer(workers, handlerFunc(func(in message.In, _ *message.Batch) error {
			if string(in.Value) == "b" {
				return cause
			}
			return nil
		}))
		err := lastError(tr.run(inputs("a", "b", "c"), testTopicID, nil, dear))
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), "handler copy: in/0/1") {
			t.Errorf("%d workers: got %v, want the handler's error with its name and the record", workers, err)
		}
	}
}

// A record as large as its topic takes is no reject. That it really fits is shown on a broker
// (TestLargestRecordsThatAreNotRejectedFit).
func TestLargestRecordsAreNotRejected(t *testing.T) {
	t.Parallel()
	for extra, want := range map[int]string{0: outTopic, 1: deadTopic} {
		tr := newTestTransformer(1, handlerFunc(func(in message.In, out *message.Batch) error {
			out.Emit(message.Out{Output: "out", Key: in.Key, Value: bytes.Repeat([]byte("x"), 10_000-recordOverhead-len(in.Key)+extra)})
			return nil
		}))
		made, err := produced(tr, newBuilder(tr.config, tr.sizes), inputs("a"), nil, 0)
		if err != nil || len(made) != 1 || made[0].Topic != want {
			t.Errorf("%d bytes beyond the limit: made %v, %v; want one record to %s", extra, made, err, want)
		}
	}
}

// An input key that becomes the effect's key counts, too.
func TestLargeInputKeyMakesTheEffectTooLarge(t *testing.T) {
	t.Parallel()
	tr := newTestTransformer(1, handlerFunc(func(_ message.In, out *message.Batch) error {
		out.Call(message.Effect{Endpoint: "payments"})
		return nil
	}))
	tr.sizes[deadTopic] = 100_000
	records := inputs("a")
	records[0].Key = bytes.Repeat([]byte("k"), 10_000)
	made, err := produced(tr, newBuilder(tr.config, tr.sizes), records, nil, 0)
	if err != nil || len(made) != 1 || header(made[0], message.HeaderReason) != RejectOutputTooLarge {
		t.Errorf("made %v, %v; want one dead letter", made, err)
	}
}

// The slice of headers a handler gets is its own: what it does to it is not seen in the dead letter,
// and appending to it does not write into its neighbour's.
func TestHandlersCannotTouchTheHeadersOfTheInput(t *testing.T) {
	t.Parallel()
	tr := newTestTransformer(1, handlerFunc(func(in message.In, out *message.Batch) error {
		seen := len(in.Headers)
		in.Headers[0] = message.Header{Key: "changed"}
		in.Headers = append(in.Headers, message.Header{Key: "appended"})
		if string(in.Value) == "bad" {
			return refusal("no")
		}
		out.Emit(message.Out{Output: "out", Headers: in.Headers[:seen]})
		return nil
	}))
	records := inputs("bad", "good")
	for _, r := range records {
		r.Headers = []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "b", Value: nil}}
	}
	made, err := produced(tr, newBuilder(tr.config, tr.sizes), records, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := made[0].Headers[:2]; got[0].Key != "a" || got[1].Key != "b" {
		t.Errorf("the dead letter's headers begin with %v, want those that came", got)
	}
	if got := made[1].Headers[:2]; got[0].Key != "changed" || got[1].Key != "b" {
		t.Errorf("the output's headers begin with %v, want those that the handler gave", got)
	}
	if records[0].Headers[0].Key != "a" || records[1].Headers[0].Key != "a" {
		t.Error("the input's headers were changed")
	}
}

// lastError is how a run ended.
func lastError(parts iter.Seq2[part, error]) (last error) {
	for _, err := range parts {
		last = err
	}
	return last
}

// Rule 1: all of them returned, but too late.
func TestRule1LateBatchIsAnError(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{1, 4} {
		calls := 0
		var mu sync.Mutex
		var tr *transformer
		tr = newTestTransformer(workers, handlerFunc(func(_ message.In, _ *message.Batch) error {
			mu.Lock()
			calls++
			mu.Unlock()
			tr.overdue(time.Now().Add(time.Hour)) // as the watchdog does
			return nil
		}))
		if err := lastError(tr.run(inputs(numbers(0, 1000)...), testTopicID, nil, dear)); !errors.Is(err, errSlow) {
			t.Errorf("%d workers: got %v, want the batch to be late", workers, err)
		}
		if calls > workers {
			t.Errorf("%d workers: %d records were handled after the deadline", workers, calls-1)
		}
		if err := lastError(tr.run(inputs("last"), testTopicID, nil, 0)); !errors.Is(err, errSlow) {
			t.Errorf("%d workers: lateness at the last record is not seen: %v", workers, err)
		}
		tr.routes[inTopic].Handler = copyHandler{}
		if err := lastError(tr.run(inputs("next"), testTopicID, nil, 0)); err != nil {
			t.Errorf("%d workers: the next batch inherits the lateness: %v", workers, err)
		}
	}
}

// Rule 1: too late by the clock, though no watchdog has looked since.
func TestRule1LatenessIsMeasured(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		tr := newTestTransformer(1, nil)
		for took, want := range map[time.Duration]error{tr.config.HandlerTimeout - 1: nil, tr.config.HandlerTimeout: errSlow} {
			tr.routes[inTopic].Handler = handlerFunc(func(message.In, *message.Batch) error {
				time.Sleep(took) //nolint:forbidigo // virtual time
				return nil
			})
			if err := lastError(tr.run(inputs("slow"), testTopicID, nil, 0)); !errors.Is(err, want) {
				t.Errorf("after %s of %s: got %v, want %v", took, tr.config.HandlerTimeout, err, want)
			}
		}
	})
}

// Several topics, several handlers.
func TestRecordsGoToTheHandlerOfTheirTopic(t *testing.T) {
	t.Parallel()
	c := validConfig()
	naming := func(name string) Handler {
		return handlerFunc(func(in message.In, out *message.Batch) error {
			out.Emit(message.Out{Output: "out", Value: fmt.Appendf(nil, "%s %s %x", name, in.Source, in.Source.TopicID[:1])})
			return nil
		})
	}
	c.Routes = []Route{{Topics: []string{"a", "b"}, Name: "one", Handler: naming("one")}, {Topics: []string{"c"}, Name: "two", Handler: naming("two")}}
	tr := newTransformer(c, testSizes(), 1)
	records := []*kgo.Record{{Topic: "a"}, {Topic: "c", Offset: 1}, {Topic: "b", Partition: 2}, {Topic: "b", Offset: 3}, {Topic: "a", Offset: 4}}
	var got []string
	for part, err := range tr.run(records, func(topic string) [16]byte { return [16]byte{topic[0]} }, nil, 0) {
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range part.outcomes {
			o.worker.asked.Walk(o.from, o.to, o.outs, o.effects, func(e message.Entry) { got = append(got, string(e.Out.Value)) })
		}
	}
	want := []string{"one a/0/0 61", "two c/0/1 63", "one b/2/0 62", "one b/0/3 62", "one a/0/4 61"}
	if !slices.Equal(got, want) {
		t.Errorf("handled %q, want %q", got, want)
	}
}
