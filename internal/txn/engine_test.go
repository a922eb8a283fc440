package txn

import (
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"pawl/internal/message"
	"pawl/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m, func() error { return goleak.Find() })) }

func TestEngineCopiesEachRecordOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4)
	for p := range int32(4) {
		w.produce(p, numbers(int(p)*1000, int(p)*1000+1000)...)
	}
	r := w.run(func(c *Config) { c.Lanes = 2 })
	until(t, w.hooks.ended, "4000 committed records", committed(4000))
	if err := r.drain(); err != nil {
		t.Fatal(err)
	}
	w.wantOnce(outTopic, numbers(0, 4000))
	out := w.read(outTopic, kgo.ReadCommitted())[0]
	if len(out.Headers) != 2 || out.Headers[0].Key != message.HeaderSource || out.Headers[1].Key != message.HeaderID {
		t.Errorf("headers are %v, want source and id", out.Headers)
	}
}

func TestRejectGoesToDeadLetterTopicAsItCame(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.config.Routes[0].Handler = handlerFunc(func(in message.In, out *message.Batch) error {
		if err := (copyHandler{}).Handle(in, out); err != nil {
			return err
		}
		switch {
		case strings.HasSuffix(string(in.Value), "3"):
			return refusal("bad_three")
		case strings.HasSuffix(string(in.Value), "7"):
			panic("seven")
		}
		return nil
	})
	w.produce(0, numbers(10, 20)...)
	r := w.run()
	until(t, w.hooks.ended, "10 committed records", committed(10))
	if err := r.drain(); err != nil {
		t.Fatal(err)
	}
	w.wantOnce(outTopic, []string{"10", "11", "12", "14", "15", "16", "18", "19"})
	w.wantOnce(deadTopic, []string{"13", "17"})
	for _, letter := range w.read(deadTopic, kgo.ReadCommitted()) {
		h := map[string]string{}
		for _, header := range letter.Headers {
			h[header.Key] = string(header.Value)
		}
		want := map[string]string{"13": "bad_three", "17": RejectPanic}[string(letter.Value)]
		if h[message.HeaderReason] != want || h[message.HeaderHandler] != "copy" || !strings.HasPrefix(h[message.HeaderSource], "in/0/") {
			t.Errorf("dead letter %s has headers %v, want reason %s", letter.Value, h, want)
		}
	}
}
