package relay

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

func TestEveryEventFitsItsSchema(t *testing.T) {
	t.Parallel()
	schema := resultSchema(t)
	rapid.Check(t, func(t *rapid.T) {
		bytesOf := rapid.SliceOfN(rapid.Byte(), 0, 50)
		of := intent(3, rapid.Int64Range(0, 1<<40).Draw(t, "offset"))
		of.Body = bytesOf.Draw(t, "body")
		of.Key = bytesOf.Draw(t, "key")
		of.ContentType = rapid.SampledFrom([]string{"", "application/json", "text/<&>\xff"}).Draw(t, "content type")
		of.BusinessKey = rapid.SampledFrom([]string{"", "charge:1", "\xff\"\n"}).Draw(t, "business key")
		if rapid.Bool().Draw(t, "business id") {
			of.ID = message.BusinessID("app", "payments", of.BusinessKey)
		}
		o := outbox.Outcome{
			Offset:     of.Offset,
			Status:     rapid.SampledFrom([]outbox.Status{outbox.Done, outbox.Dead, outbox.Unknown, outbox.Duplicate, outbox.Conflict}).Draw(t, "status"),
			Attempts:   rapid.IntRange(0, 30).Draw(t, "attempts"),
			HTTPStatus: rapid.SampledFrom([]int{0, 99, 100, 204, 503, 599, 600, 999}).Draw(t, "http status"),
			Error:      rapid.StringN(0, 400, -1).Draw(t, "error"),
		}
		if o.Status == outbox.Duplicate || o.Status == outbox.Conflict {
			of.Twin = &outbox.Twin{Lane: 1, Offset: 2}
		}
		if rapid.Bool().Draw(t, "response") {
			o.Response = &outbox.Response{ContentType: "text/plain", Body: rapid.SampledFrom([][]byte{nil, {}, {0, 255}}).Draw(t, "answer")}
		}
		made, trimmed, err := record("results", 1<<20, outbox.Result{Outcome: o, Intent: of})
		if err != nil || trimmed != nil {
			t.Fatalf("trimmed %+v, error %v", trimmed, err)
		}
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(made.Value))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(document); err != nil {
			t.Fatalf("%v\n%s", err, made.Value)
		}
		if has := strings.Contains(string(made.Value), `"error"`); o.Status == outbox.Done && has {
			t.Fatalf("an effect that is done has an error: %s", made.Value)
		}
	})
}

func TestErrorIsOneShortLine(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "short", "two\r\nlines", strings.Repeat("ä", 200), strings.Repeat("x", 299) + "€", "bad \xff byte"} {
		got := line(text)
		if len(got) > outbox.ErrorMax || strings.ContainsAny(got, "\r\n") || !utf8.ValidString(got) {
			t.Errorf("line(%q) is %q", text, got)
		}
		if len(text) <= 5 && got != text {
			t.Errorf("line(%q) is %q, want it as it is", text, got)
		}
	}
}

// What does not fit loses the answer's body first, then the error, and never the request.
func TestLargeEventLosesItsAnswerFirst(t *testing.T) {
	t.Parallel()
	of := intent(0, 1)
	of.Body = bytes.Repeat([]byte("b"), 3000) // 4000 in base64
	result := outbox.Result{Intent: of, Outcome: outbox.Outcome{
		Offset: 1, Status: outbox.Dead, HTTPStatus: 400, Error: strings.Repeat("e", 300),
		Response: &outbox.Response{Body: bytes.Repeat([]byte("r"), 3000)},
	}}
	whole, _, err := record("results", 1<<20, result)
	if err != nil {
		t.Fatal(err)
	}
	full := len(whole.Value) + len(whole.Key) + len(of.Trace) + len(of.TraceState) + recordOverhead
	for _, c := range []struct {
		limit            int
		answer, error    bool
		trimmed, refused bool
	}{
		{limit: full, answer: true, error: true},
		{limit: full - 1, error: true, trimmed: true},
		{limit: full - 3960, error: true, trimmed: true},
		{limit: full - 4200, trimmed: true},
		{limit: 4000, refused: true},
	} {
		made, trimmed, err := record("results", c.limit, result)
		if _, halted := errors.AsType[*haltError](err); halted != c.refused || (err != nil) != c.refused {
			t.Errorf("limit %d: error %v, want refused = %t", c.limit, err, c.refused)
			continue
		}
		if c.refused {
			if !strings.Contains(err.Error(), "max.message.bytes") {
				t.Errorf("limit %d: %q does not say what to do", c.limit, err)
			}
			continue
		}
		value := string(made.Value)
		if size := len(made.Value) + len(made.Key) + len(of.Trace) + len(of.TraceState) + recordOverhead; size > c.limit {
			t.Errorf("limit %d: the event needs %d", c.limit, size)
		}
		if strings.Contains(value, "cnJycnJycn") != c.answer || strings.Contains(value, "eeeee") != c.error || strings.Contains(value, `"truncated":true`) == c.answer {
			t.Errorf("limit %d: answer %t and error %t should be there: %s", c.limit, c.answer, c.error, value)
		}
		if !strings.Contains(value, "YmJiYmJi") || strings.Count(value, "YmJi") < 900 {
			t.Errorf("limit %d: the request was cut", c.limit)
		}
		if (trimmed != nil) != c.trimmed || trimmed != nil && trimmed.Error == c.error {
			t.Errorf("limit %d: trimmed is told as %+v", c.limit, trimmed)
		}
	}
}

// The results topic takes less than an effect needs. The lane halts and says so; when the topic takes more,
// it goes on without a restart.
func TestLaneHaltsAtTooLargeResultUntilItFits(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		set := func(size string) {
			changes := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &size}}
			if _, err := kadm.NewClient(w.client).AlterTopicConfigs(w.t.Context(), changes, resultsTopic); err != nil {
				w.t.Fatal(err)
			}
		}
		set("600")
		w.settle(0, 10, 5, outbox.Done)
		p := w.run([]int32{0})
		err := next(w.t, p.halted, "halt")
		if !strings.Contains(err.Error(), "max.message.bytes of "+resultsTopic+" allows 600") {
			w.t.Errorf("the lane halts with %v", err)
		}
		if phase := p.relay.Status().Lanes[0].Phase; phase != PhaseHalted {
			w.t.Errorf("the lane is %s, want %s", phase, PhaseHalted)
		}
		tries := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Observe: true, Count: -1})
		for range 300 { // new outcomes must not make it try again and again
			p.relay.Wake(0)
			time.Sleep(time.Second) //nolint:forbidigo // virtual time
		}
		if n := tries.Hits(); n < 5 || n > 20 {
			w.t.Errorf("the lane was tried %d times in 5 minutes, want about 10", n)
		}
		if len(p.halted) != 0 {
			w.t.Errorf("the same halt was told %d times more", len(p.halted))
		}
		set("100000")
		p.told(10)
		w.wantOnce(outbox.Done, map[int32]int64{0: 10})
	})
}

func TestLaneHaltsAtRecordsOfAnotherRelease(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ topic, value, want string }{
		"newer progress": {progressTopic, `{"format":2,"seq":5}`, "format 2, this release knows 1"},
		"no progress":    {progressTopic, `nonsense`, "decode progress"},
		"newer event":    {resultsTopic, `{"format":2,"lane":0,"offset":1,"status":"done"}`, "format 2"},
		"no event":       {resultsTopic, `nonsense`, "decode result event"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				w.settle(0, 10, 5, outbox.Done)
				if err := w.client.ProduceSync(w.t.Context(), &kgo.Record{Topic: c.topic, Key: []byte("0"), Value: []byte(c.value)}).FirstErr(); err != nil {
					w.t.Fatal(err)
				}
				if err := next(w.t, w.run([]int32{0}).halted, "halt"); !strings.Contains(err.Error(), c.want) {
					w.t.Errorf("the lane halts with %v, want %q", err, c.want)
				}
			})
		})
	}
}
