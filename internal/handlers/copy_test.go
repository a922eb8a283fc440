package handlers

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"pawl/internal/message"
)

func TestCopyKeepsEverything(t *testing.T) {
	t.Parallel()
	handler := mustNew(t, "copy", map[string]any{"output": "priced"})
	rapid.Check(t, func(t *rapid.T) {
		maybe := func(label string) []byte {
			if rapid.Bool().Draw(t, label+" is nil") {
				return nil
			}
			return rapid.SliceOf(rapid.Byte()).Draw(t, label)
		}
		in := message.In{
			Key:       maybe("key"),
			Value:     maybe("value"),
			Timestamp: time.UnixMilli(rapid.Int64Range(-1e12, 1e13).Draw(t, "timestamp")),
		}
		for range rapid.IntRange(0, 5).Draw(t, "headers") {
			in.Headers = append(in.Headers, message.Header{Key: rapid.String().Draw(t, "name"), Value: maybe("header")})
		}
		var out message.Batch
		if err := handler.Handle(in, &out); err != nil {
			t.Fatal(err)
		}
		want := []message.Out{{Output: "priced", Key: in.Key, Value: in.Value, Headers: in.Headers, Timestamp: in.Timestamp}}
		if diff := cmp.Diff(want, out.Outs()); diff != "" || len(out.Effects()) != 0 {
			t.Fatalf("copy changed the record: %s", diff)
		}
	})
}

func TestCopyTakesTenThousandHeaders(t *testing.T) {
	t.Parallel()
	in := record(nil)
	in.Headers = make([]message.Header, 10_000)
	var out message.Batch
	if err := mustNew(t, "copy", map[string]any{"output": "priced"}).Handle(in, &out); err != nil || len(out.Outs()[0].Headers) != 10_000 {
		t.Fatalf("err %v, %d headers", err, len(out.Outs()[0].Headers))
	}
}

func TestCopyAllocatesNothing(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts the whole process
	handler := mustNew(t, "copy", map[string]any{"output": "priced"})
	in := record([]byte("value"))
	var out message.Batch
	handler.Handle(in, &out) //nolint:errcheck // copy rejects nothing
	if allocs := testing.AllocsPerRun(100, func() {
		out.Reset()
		handler.Handle(in, &out) //nolint:errcheck // as above
	}); allocs != 0 {
		t.Errorf("copy allocates %v times per record", allocs)
	}
}
