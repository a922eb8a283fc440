package ingest

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

// golden is a record as the first release wrote it, with every header.
func golden() *kgo.Record {
	return &kgo.Record{
		Topic: topic, Partition: 3, Offset: 42, Key: []byte("customer-7"), Value: []byte(`{"amount":5}`),
		Timestamp: time.UnixMilli(1_700_000_000_123),
		Headers: []kgo.RecordHeader{
			{Key: "pawl-format", Value: []byte("1")},
			{Key: "pawl-id", Value: []byte("55160fcc-9806-57c8-b61d-f684e4b980ba")},
			{Key: "pawl-source", Value: []byte("orders/4/1000")},
			{Key: "pawl-index", Value: []byte("2")},
			{Key: "pawl-topic-id", Value: []byte("0102030405060708090a0b0c0d0e0f10")},
			{Key: "pawl-generation", Value: []byte("7")},
			{Key: "pawl-endpoint", Value: []byte("payments")},
			{Key: "pawl-class", Value: []byte("at-most-once")},
			{Key: "content-type", Value: []byte("text/plain")},
			{Key: "pawl-business-key", Value: []byte("charge:17")},
			{Key: "traceparent", Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")},
			{Key: "tracestate", Value: []byte("a=1,b=2")},
		},
	}
}

func TestEffectsRecordIsRead(t *testing.T) {
	t.Parallel()
	want := outbox.Intent{
		Lane: 3, Offset: 42, ID: message.BusinessID("orders", "payments", "charge:17"),
		Source: message.Source{
			ReplayGeneration: 7, Topic: "orders", TopicID: [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, Partition: 4, Offset: 1000,
		},
		Index: 2, Endpoint: "payments", Class: message.AtMostOnce, ContentType: "text/plain", BusinessKey: "charge:17",
		Key: []byte("customer-7"), Body: []byte(`{"amount":5}`), At: time.UnixMilli(1_700_000_000_123).UTC(),
		Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", TraceState: "a=1,b=2",
	}
	got, err := Decode(golden())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
}

func TestHeadersThatMayBeMissing(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*kgo.Record){
		"no business key":      without("pawl-business-key"),
		"no trace":             without("traceparent"),
		"no state of a trace":  without("tracestate"),
		"headers of an agent":  with("baggage", "x=y"),
		"no body":              func(r *kgo.Record) { r.Value = nil },
		"an empty key":         func(r *kgo.Record) { r.Key = []byte{} },
		"no content type":      with("content-type", ""),
		"an agent's own trace": func(r *kgo.Record) { r.Headers = append(r.Headers, r.Headers[10]) },
	} {
		r := golden()
		change(r)
		if _, err := Decode(r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDecodeIsStrict(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*kgo.Record)
		want   string
	}{
		"not of Pawl":          {without("pawl-format"), "pawl-format is missing"},
		"a later format":       {with("pawl-format", "2"), `format "2"`},
		"an empty format":      {with("pawl-format", ""), `format ""`},
		"a header of a later":  {with("pawl-delay", "5s"), "pawl-delay is unknown"},
		"no id":                {without("pawl-id"), "pawl-id is missing"},
		"a short id":           {with("pawl-id", "55160fcc"), "pawl-id is no UUID"},
		"an id in capitals":    {with("pawl-id", "55160FCC-9806-57C8-B61D-F684E4B980BA"), "pawl-id is no UUID"},
		"an id of version 4":   {with("pawl-id", "55160fcc-9806-47c8-b61d-f684e4b980ba"), "pawl-id is no UUID"},
		"an id of dashes":      {with("pawl-id", strings.Repeat("-", 36)), "pawl-id is no UUID"},
		"no source":            {without("pawl-source"), "pawl-source is missing"},
		"a source of words":    {with("pawl-source", "orders/a/b"), "parse source"},
		"a negative index":     {with("pawl-index", "-1"), "pawl-index is not a plain number"},
		"an index with zeros":  {with("pawl-index", "007"), "pawl-index is not a plain number"},
		"a topic id too short": {with("pawl-topic-id", "01"), "pawl-topic-id is not 32 hex digits"},
		"a topic id of words":  {with("pawl-topic-id", strings.Repeat("x", 32)), "pawl-topic-id is not 32 hex digits"},
		"no generation":        {with("pawl-generation", ""), "pawl-generation is not a plain number"},
		"no endpoint":          {with("pawl-endpoint", ""), "pawl-endpoint is empty"},
		"an unknown class":     {with("pawl-class", "twice"), `pawl-class is "twice"`},
		"no content type":      {without("content-type"), "content-type is missing"},
		"an empty key":         {with("pawl-business-key", ""), "pawl-business-key is empty"},
		"no order key":         {func(r *kgo.Record) { r.Key = nil }, "no key"},
		"a header twice": {func(r *kgo.Record) {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: "pawl-endpoint", Value: []byte("other")})
		}, "pawl-endpoint is there twice"},
		"a later format explains all": {func(r *kgo.Record) {
			with("pawl-format", "2")(r)
			with("pawl-delay", "5s")(r)
			without("pawl-id")(r)
		}, `format "2"`},
	} {
		r := golden()
		c.change(r)
		if intent, err := Decode(r); err == nil || !strings.Contains(err.Error(), c.want) || intent.Endpoint != "" {
			t.Errorf("%s: decoded %+v, %v, want %q", name, intent, err, c.want)
		}
	}
}

// What came in with the input may be anything, and the trace goes out as a header of a call.
func TestTraceThatCannotBeAHeaderIsDropped(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"00-0af\r\nAuthorization: x", "00-\x00", "a b", "ü"} {
		r := golden()
		with("traceparent", bad)(r)
		if intent, err := Decode(r); err != nil || intent.Trace != "" || intent.TraceState != "" {
			t.Errorf("trace %q became %q and %q, %v", bad, intent.Trace, intent.TraceState, err)
		}
	}
	for state, want := range map[string]string{"a=1\r\nAuthorization: x": "", "a=\x00": "", "a=ü": "", " a=1, b=2 ": "a=1, b=2"} {
		r := golden()
		with("tracestate", state)(r)
		if intent, err := Decode(r); err != nil || intent.Trace == "" || intent.TraceState != want {
			t.Errorf("state %q became %q of %q, %v", state, intent.TraceState, intent.Trace, err)
		}
	}
}

// A record is a piece of all that was fetched with it, which must not live as long as an intent.
func TestIntentKeepsNoMemoryOfTheRecord(t *testing.T) {
	t.Parallel()
	r := golden()
	intent, err := Decode(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range append([][]byte{r.Key, r.Value}, r.Headers[6].Value, r.Headers[9].Value) {
		clear(b)
	}
	if string(intent.Key) != "customer-7" || string(intent.Body) != `{"amount":5}` || intent.Endpoint != "payments" || intent.BusinessKey != "charge:17" {
		t.Errorf("the intent changed with its record: %+v", intent)
	}
	_ = append(intent.Key, 'x')
	if string(intent.Body) != `{"amount":5}` {
		t.Error("appending to the key writes over the body")
	}
}

func BenchmarkDecode(b *testing.B) {
	r := golden()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(r); err != nil {
			b.Fatal(err)
		}
	}
}
