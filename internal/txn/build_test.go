package txn

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"pawl/internal/message"
)

var (
	inputTime  = time.UnixMilli(1_700_000_000_123)
	testSource = message.Source{Application: "app", Topic: inTopic, TopicID: testTopicID(""), Partition: 3, Offset: 42, ReplayGeneration: 3}
)

// build makes what one input gives rise to: what handle asks for, or its reject.
func build(t *testing.T, b *builder, r *kgo.Record, why *reject, handle func(*message.Batch)) []*kgo.Record {
	t.Helper()
	w := &worker{}
	if handle != nil {
		handle(&w.asked)
	}
	var made []*kgo.Record
	o := &outcome{worker: w, to: w.asked.Len(), reject: why}
	if err := b.build(r, testSource, o, "copy", func(r *kgo.Record) { made = append(made, r) }); err != nil {
		t.Fatal(err)
	}
	return made
}

func newTestBuilder() *builder { return newBuilder(validConfig(), testSizes()) }

// text shows headers so that they can be compared.
func text(headers []kgo.RecordHeader) (lines []string) {
	for _, h := range headers {
		lines = append(lines, h.Key+"="+string(h.Value))
	}
	return lines
}

func TestOutputCarriesItsSourceAndID(t *testing.T) {
	t.Parallel()
	r := &kgo.Record{Topic: inTopic, Partition: 3, Offset: 42, Timestamp: inputTime}
	own := inputTime.Add(time.Hour)
	made := build(t, newTestBuilder(), r, nil, func(b *message.Batch) {
		b.Emit(message.Out{Output: "out", Key: []byte("k"), Value: []byte("v"), Headers: []message.Header{
			{Key: "a", Value: []byte("1")},
			{Key: "a", Value: []byte("2")},
			{Key: "", Value: nil},
			{Key: "pawl-source", Value: []byte("forged")},
			{Key: "pawl-id", Value: []byte("forged")},
			{Key: "pawl-", Value: nil},
			{Key: "pawl-anything", Value: nil},
			{Key: "PAWL-id", Value: []byte("no prefix of ours")},
			{Key: "x-pawl-id", Value: []byte("nor this")},
		}})
		b.Call(message.Effect{Endpoint: "payments"})
		b.Emit(message.Out{Output: "out", Timestamp: own})
	})
	if len(made) != 3 {
		t.Fatalf("made %d records, want 3", len(made))
	}
	want := []string{
		"a=1", "a=2", "=", "PAWL-id=no prefix of ours", "x-pawl-id=nor this",
		"pawl-source=in/3/42", "pawl-id=" + testSource.ID(0).String(),
	}
	if got := text(made[0].Headers); !slices.Equal(got, want) {
		t.Errorf("headers %q, want %q", got, want)
	}
	if made[0].Topic != outTopic || string(made[0].Key) != "k" || string(made[0].Value) != "v" || !made[0].Timestamp.Equal(inputTime) {
		t.Errorf("made %+v", made[0])
	}
	last := made[2]
	if got, want := text(last.Headers), []string{"pawl-source=in/3/42", "pawl-id=" + testSource.ID(2).String()}; !slices.Equal(got, want) {
		t.Errorf("headers %q, want %q", got, want)
	}
	if last.Key != nil || last.Value != nil || !last.Timestamp.Equal(own) {
		t.Errorf("made %+v, want neither key nor value and its own time", last)
	}
}

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// An output goes on with its input's trace, whatever the handler thinks of headers, unless it has given it one. What it
// inherits follows from the record alone, so that the attempt after an abort writes the same.
func TestOutputsGoOnWithTheTraceOfTheirInput(t *testing.T) {
	t.Parallel()
	in := []kgo.RecordHeader{
		{Key: "other", Value: []byte("x")},
		{Key: "tracestate", Value: []byte("a=1")},
		{Key: "traceparent", Value: []byte(traceparent)},
		{Key: "traceparent", Value: []byte("second")},
		{Key: "tracestate", Value: []byte("second")},
	}
	long := []kgo.RecordHeader{{Key: "traceparent", Value: []byte(traceparent)}, {Key: "tracestate", Value: make([]byte, message.TraceStateMax+1)}}
	for name, c := range map[string]struct {
		in   []kgo.RecordHeader
		own  []message.Header
		want []string
	}{
		"both":                   {in, nil, []string{"traceparent=" + traceparent, "tracestate=a=1"}},
		"beside the handler's":   {in, []message.Header{{Key: "h"}}, []string{"h=", "traceparent=" + traceparent, "tracestate=a=1"}},
		"the handler's own":      {in, []message.Header{{Key: "traceparent", Value: []byte("own")}}, []string{"traceparent=own"}},
		"only a state":           {in, []message.Header{{Key: "tracestate", Value: []byte("own")}}, []string{"tracestate=own"}},
		"state too long":         {long, nil, []string{"traceparent=" + traceparent}},
		"state without a parent": {in[1:2], nil, nil},
		"parent too long":        {[]kgo.RecordHeader{{Key: "traceparent", Value: make([]byte, message.TraceParentMax+1)}, in[1]}, nil, nil},
		"parent empty":           {[]kgo.RecordHeader{{Key: "traceparent"}, in[1]}, nil, nil},
		"no headers":             {nil, nil, nil},
	} {
		r := &kgo.Record{Topic: inTopic, Partition: 3, Offset: 42, Timestamp: inputTime, Headers: c.in}
		b := newTestBuilder()
		for range 2 {
			made := build(t, b, r, nil, func(b *message.Batch) { b.Emit(message.Out{Output: "out", Headers: c.own}) })
			want := append(slices.Clone(c.want), "pawl-source=in/3/42", "pawl-id="+testSource.ID(0).String())
			if got := text(made[0].Headers); !slices.Equal(got, want) {
				t.Errorf("%s: headers %q, want %q", name, got, want)
			}
			b.reset()
		}
	}
}

func TestEffectRecordsHaveTheirFormat(t *testing.T) {
	t.Parallel()
	business := message.BusinessID("app", "payments", "charge:7").String()
	topicID := "07" + strings.Repeat("0", 30)
	for name, c := range map[string]struct {
		effect   message.Effect
		inputKey []byte
		key      string
		want     []string
	}{
		"plain": {
			message.Effect{Endpoint: "payments", Body: []byte(`{"a":1}`)},
			[]byte("order"), "order",
			[]string{"pawl-format=1", "pawl-id=" + testSource.ID(1).String(), "pawl-source=in/3/42", "pawl-index=1", "pawl-topic-id=" + topicID, "pawl-generation=3", "pawl-endpoint=payments", "pawl-class=at-least-once", "content-type=application/json"},
		},
		"everything given": {
			message.Effect{Endpoint: "payments", OrderKey: []byte("customer"), BusinessKey: "charge:7", Class: message.AtMostOnce, ContentType: "text/plain", Body: []byte(`{"a":1}`)},
			[]byte("order"), "customer",
			[]string{"pawl-format=1", "pawl-id=" + business, "pawl-source=in/3/42", "pawl-index=1", "pawl-topic-id=" + topicID, "pawl-generation=3", "pawl-endpoint=payments", "pawl-class=at-most-once", "content-type=text/plain", "pawl-business-key=charge:7", "traceparent=00-trace-01", "tracestate=a=1"},
		},
		"empty order key is one": {
			message.Effect{Endpoint: "payments", OrderKey: []byte{}, Body: []byte(`{"a":1}`)},
			[]byte("order"), "",
			[]string{"pawl-format=1", "pawl-id=" + testSource.ID(1).String(), "pawl-source=in/3/42", "pawl-index=1", "pawl-topic-id=" + topicID, "pawl-generation=3", "pawl-endpoint=payments", "pawl-class=at-least-once", "content-type=application/json"},
		},
		"no key at all": {
			message.Effect{Endpoint: "payments", Body: []byte(`{"a":1}`)},
			nil, "in/3/42",
			[]string{"pawl-format=1", "pawl-id=" + testSource.ID(1).String(), "pawl-source=in/3/42", "pawl-index=1", "pawl-topic-id=" + topicID, "pawl-generation=3", "pawl-endpoint=payments", "pawl-class=at-least-once", "content-type=application/json"},
		},
	} {
		r := &kgo.Record{Topic: inTopic, Partition: 3, Offset: 42, Key: c.inputKey, Timestamp: inputTime}
		if name == "everything given" {
			r.Headers = []kgo.RecordHeader{{Key: "other"}, {Key: "traceparent", Value: []byte("00-trace-01")}, {Key: "tracestate", Value: []byte("a=1")}}
		} else {
			r.Headers = []kgo.RecordHeader{{Key: "traceparent", Value: make([]byte, message.TraceParentMax+1)}} // none that could be
		}
		made := build(t, newTestBuilder(), r, nil, func(b *message.Batch) {
			b.Emit(message.Out{Output: "out"})
			b.Call(c.effect)
		})
		effect := made[1]
		if got := text(effect.Headers); !slices.Equal(got, c.want) {
			t.Errorf("%s: headers\n%q, want\n%q", name, got, c.want)
		}
		if effect.Topic != effectsTopic || effect.Key == nil || string(effect.Key) != c.key || string(effect.Value) != `{"a":1}` || !effect.Timestamp.Equal(inputTime) {
			t.Errorf("%s: made %+v, want key %q", name, effect, c.key)
		}
		if effect.Partition != 0 {
			t.Errorf("%s: a lane was chosen here; the partitioner does that", name)
		}
	}
}

// Whatever came is what the dead letter holds: what cannot be read must be seen as it is. Ours are the
// last five headers, whatever the names of those before them.
func TestDeadLetterIsTheRecordAndItsStory(t *testing.T) {
	t.Parallel()
	bytesOf := rapid.Custom(func(t *rapid.T) []byte {
		if rapid.IntRange(0, 3).Draw(t, "nil") == 0 {
			return nil
		}
		return rapid.SliceOfN(rapid.Byte(), 0, 30).Draw(t, "bytes")
	})
	names := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{
		"", "pawl-source", "pawl-id", "pawl-error", "pawl-reason", "pawl-handler", "pawl-redrive", "\xff\xfe", "\x00",
	}))
	b := newTestBuilder()
	rapid.Check(t, func(rt *rapid.T) {
		r := &kgo.Record{
			Topic: inTopic, Partition: 3, Offset: 42, Key: bytesOf.Draw(rt, "key"), Value: bytesOf.Draw(rt, "value"),
			Timestamp: time.UnixMilli(rapid.Int64Range(-1, 1<<45).Draw(rt, "time")),
		}
		for range rapid.IntRange(0, 10).Draw(rt, "headers") {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: names.Draw(rt, "name"), Value: bytesOf.Draw(rt, "content")})
		}
		defer b.reset()
		made := build(t, b, r, &reject{"bad_json", errors.New("line 3")}, nil)
		if len(made) != 1 {
			rt.Fatalf("made %d records, want 1", len(made))
		}
		letter := made[0]
		same := func(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }
		if letter.Topic != deadTopic || !same(letter.Key, r.Key) || !same(letter.Value, r.Value) || !letter.Timestamp.Equal(r.Timestamp) {
			rt.Fatalf("made %+v from %+v", letter, r)
		}
		n := len(r.Headers)
		if len(letter.Headers) != n+DeadLetterHeaders {
			rt.Fatalf("%d headers, want %d", len(letter.Headers), n+DeadLetterHeaders)
		}
		for i, h := range r.Headers {
			if letter.Headers[i].Key != h.Key || !same(letter.Headers[i].Value, h.Value) {
				rt.Fatalf("header %d is %q, want %q", i, letter.Headers[i], h)
			}
		}
		want := []string{"pawl-source=in/3/42", "pawl-id=" + testSource.ID(-1).String(), "pawl-handler=copy", "pawl-reason=bad_json", "pawl-error=line 3"}
		if got := text(letter.Headers[n:]); !slices.Equal(got, want) {
			rt.Fatalf("our headers are %q, want %q", got, want)
		}
		if len(b.rejects) != 1 || b.rejects[0].Source != testSource || b.rejects[0].Reason != "bad_json" || b.rejects[0].Handler != "copy" {
			rt.Fatalf("to tell: %+v", b.rejects)
		}
	})
}

func TestDeadLetterOfTenThousandHeaders(t *testing.T) {
	t.Parallel()
	r := &kgo.Record{Topic: inTopic, Partition: 3, Offset: 42}
	for i := range 10_000 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "h" + strconv.Itoa(i), Value: fmt.Append(nil, i)})
	}
	b := newBuilder(validConfig(), map[string]int{deadTopic: 1 << 20})
	for range 3 { // and again, with memory that was used before
		letter := build(t, b, r, &reject{"no", errors.New("no")}, nil)[0]
		if !slices.EqualFunc(letter.Headers[:10_000], r.Headers, func(a, b kgo.RecordHeader) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) }) {
			t.Fatal("the headers are not those that came")
		}
		if got := text(letter.Headers[10_000:]); len(got) != DeadLetterHeaders || got[0] != "pawl-source=in/3/42" {
			t.Errorf("our headers are %q", got)
		}
		b.reset()
	}
}

// The text of an error may quote the input: any length, any bytes. The header is short and is text.
func TestErrorOfADeadLetterIsShortText(t *testing.T) {
	t.Parallel()
	for name, story := range map[string]string{
		"huge":             strings.Repeat("x", 10<<20),
		"cut in a letter":  "x" + strings.Repeat("ü", errorBytesMax),
		"invalid":          "\xff\xfe\x00bad",
		"huge and invalid": strings.Repeat("\xffa", errorBytesMax),
		"empty":            "",
	} {
		r := &kgo.Record{Topic: inTopic, Partition: 3, Offset: 42}
		letter := build(t, newBuilder(validConfig(), map[string]int{deadTopic: 1 << 20}), r, &reject{"no", errors.New(story)}, nil)[0]
		got := header(letter, message.HeaderError)
		if len(got) > 2*errorBytesMax || !utf8.ValidString(got) {
			t.Errorf("%s: %d bytes, valid %t; want at most %d of text", name, len(got), utf8.ValidString(got), 2*errorBytesMax)
		}
		if len(story) < errorBytesMax && got != strings.ToValidUTF8(story, "\ufffd") {
			t.Errorf("%s: %q, want %q", name, got, story)
		}
	}
}

// At the limit it is written, beyond it the partition must be halted: the error says which, and what
// to run.
func TestDeadLetterBeyondItsTopicIsAnError(t *testing.T) {
	t.Parallel()
	r := &kgo.Record{Topic: inTopic, Partition: 3, Offset: 42, Value: bytes.Repeat([]byte("x"), 500), Headers: []kgo.RecordHeader{{Key: "h", Value: make([]byte, 300)}}}
	why := &reject{"bad_json", errors.New("line 3")}
	need := recordOverhead + 500 + headerOverhead + 301
	for _, h := range build(t, newBuilder(validConfig(), map[string]int{deadTopic: 1 << 20}), r, why, nil)[0].Headers[1:] {
		need += headerOverhead + len(h.Key) + len(h.Value)
	}
	for size, fits := range map[int]bool{need: true, need - 1: false} {
		b := newBuilder(validConfig(), map[string]int{deadTopic: size})
		produced := 0
		err := b.build(r, testSource, &outcome{worker: &worker{}, reject: why}, "copy", func(*kgo.Record) { produced++ })
		if fits {
			if err != nil || produced != 1 || len(b.rejects) != 1 {
				t.Errorf("at the limit: %v, %d produced", err, produced)
			}
			continue
		}
		large, ok := errors.AsType[*tooLarge](err)
		if !ok || large.at != (place{inTopic, 3}) || produced != 0 || len(b.rejects) != 0 {
			t.Fatalf("beyond the limit: %v, %d produced, %d to tell", err, produced, len(b.rejects))
		}
		for _, part := range []string{"in/3/42", "bad_json", deadTopic, fmt.Sprintf("max.message.bytes=%d", need)} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%v\ndoes not say %s", err, part)
			}
		}
	}
}

// What was produced is counted by topic until reset; records of one batch stay as they are while
// others are made.
func TestBuilderCountsAndKeepsUntilReset(t *testing.T) {
	t.Parallel()
	b := newTestBuilder()
	for range 3 {
		var made []*kgo.Record
		for range 3000 { // several chunks
			r := &kgo.Record{Topic: inTopic, Partition: 3, Offset: 42, Key: []byte("key")}
			made = append(made, build(t, b, r, nil, func(batch *message.Batch) {
				batch.Emit(message.Out{Output: "out", Key: []byte("ab"), Value: []byte("cde"), Headers: []message.Header{{Key: "n", Value: fmt.Append(nil, len(made))}}})
				batch.Call(message.Effect{Endpoint: "payments", Body: []byte("12")})
			})...)
		}
		for i, r := range made {
			if r.Topic == outTopic && (string(r.Headers[0].Value) != strconv.Itoa(i) || header(r, message.HeaderSource) != "in/3/42" || header(r, message.HeaderID) != testSource.ID(0).String()) {
				t.Fatalf("record %d is %+v now", i, r)
			}
		}
		if p := b.produced[outTopic]; p.Records != 3000 || p.Bytes != 15_000 {
			t.Errorf("counted %+v, want 3000 records of 5 bytes", *p)
		}
		if p := b.produced[effectsTopic]; p.Records != 3000 || p.Bytes != 15_000 {
			t.Errorf("counted %+v, want 3000 records of 5 bytes", *p)
		}
		b.reset()
		if p := b.produced[outTopic]; p.Records != 0 || p.Bytes != 0 || len(b.rejects) != 0 {
			t.Error("something is left after reset")
		}
	}
}

// A record that asks for nothing is done: no output, no dead letter.
func TestNothingAskedIsNothingMade(t *testing.T) {
	t.Parallel()
	if made := build(t, newTestBuilder(), &kgo.Record{}, nil, nil); len(made) != 0 {
		t.Errorf("made %v", made)
	}
}
