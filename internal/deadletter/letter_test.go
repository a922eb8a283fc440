package deadletter

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

func header(key, value string) kgo.RecordHeader {
	return kgo.RecordHeader{Key: key, Value: []byte(value)}
}

// The refused record may itself be what a processor has written, and carry pawl-* headers of its
// own: even a whole dead letter can be refused.
func TestLetterIsSplitAtTheLastStory(t *testing.T) {
	t.Parallel()
	story := []kgo.RecordHeader{
		header("pawl-source", "in/3/42"), header("pawl-id", "id"), header("pawl-handler", "orders"),
		header("pawl-reason", "bad_json"), header("pawl-error", "no JSON"),
	}
	tests := []struct {
		name     string
		original []kgo.RecordHeader
		redrives int
	}{
		{"no headers", nil, 0},
		{"headers", []kgo.RecordHeader{header("a", "1"), header("a", ""), {Key: "b"}}, 0},
		{"written by a processor", []kgo.RecordHeader{header("a", "1"), header("pawl-source", "x/0/1"), header("pawl-id", "y")}, 0},
		{"a dead letter", story, 0},
		{"redriven before", []kgo.RecordHeader{header("a", "1"), header("pawl-redrive", "2")}, 2},
		{"with a forged count", []kgo.RecordHeader{header("pawl-redrive", "-7"), header("pawl-redrive", "99999999999999999999"), header("pawl-redrive", "x")}, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := parse(&kgo.Record{Headers: append(append([]kgo.RecordHeader(nil), test.original...), story...)})
			var want []message.Header
			for _, h := range test.original {
				want = append(want, message.Header(h))
			}
			if diff := cmp.Diff(want, l.Headers); diff != "" {
				t.Errorf("headers differ: %s", diff)
			}
			if l.Unreadable != nil || l.Source.String() != "in/3/42" || l.ID != "id" || l.Handler != "orders" || l.Reason != "bad_json" || l.Error != "no JSON" || l.Redrives != test.redrives {
				t.Errorf("story is %+v", l)
			}
		})
	}
}

func TestRecordThatNoEngineWroteIsUnreadable(t *testing.T) {
	t.Parallel()
	for name, headers := range map[string][]kgo.RecordHeader{
		"no headers": nil,
		"bad source": {header("pawl-source", "in"), header("pawl-id", "id"), header("pawl-reason", "r")},
		"no reason":  {header("pawl-source", "in/3/42"), header("pawl-id", "id")},
		"no id":      {header("pawl-source", "in/3/42"), header("pawl-reason", "r")},
	} {
		if l := parse(&kgo.Record{Headers: headers}); l.Unreadable == nil {
			t.Errorf("%s: readable: %+v", name, l)
		}
	}
}

func TestFilterSelects(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	l := Letter{Partition: 1, Offset: 7, State: StateOpen, Source: message.Source{Topic: "in"}, Handler: "orders", Reason: "bad_json", Timestamp: noon}
	settled := l
	settled.State = StateDiscarded
	tests := []struct {
		name   string
		filter Filter
		letter Letter
		want   bool
	}{
		{"all", Filter{}, l, true},
		{"settled", Filter{}, settled, false},
		{"settled too", Filter{Settled: true}, settled, true},
		{"reason", Filter{Reasons: []string{"panic", "bad_json"}}, l, true},
		{"other reason", Filter{Reasons: []string{"panic"}}, l, false},
		{"handler", Filter{Handlers: []string{"orders"}}, l, true},
		{"other handler", Filter{Handlers: []string{"copy"}}, l, false},
		{"topic", Filter{Topics: []string{"in"}}, l, true},
		{"other topic", Filter{Topics: []string{"in2"}}, l, false},
		{"since is inclusive", Filter{Since: noon}, l, true},
		{"before since", Filter{Since: noon.Add(1)}, l, false},
		{"until is exclusive", Filter{Until: noon}, l, false},
		{"before until", Filter{Until: noon.Add(1)}, l, true},
		{"at", Filter{At: []Position{{0, 1}, {1, 7}}}, l, true},
		{"at another", Filter{At: []Position{{0, 7}, {1, 8}}}, l, false},
		{"all conditions hold or none", Filter{Reasons: []string{"bad_json"}, Topics: []string{"in2"}}, l, false},
	}
	for _, test := range tests {
		if got := test.filter.match(&test.letter); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

func TestFilterReadsNoMoreThanPositionsSpan(t *testing.T) {
	t.Parallel()
	b := bounds{partition: 1, start: 10, end: 20}
	tests := []struct {
		at       []Position
		from, to int64
	}{
		{nil, 10, 20},
		{[]Position{{1, 12}}, 12, 13},
		{[]Position{{1, 15}, {0, 11}, {1, 12}}, 12, 16},
		{[]Position{{1, 5}, {1, 25}}, 10, 20},
		{[]Position{{0, 12}}, 20, 10},
		{[]Position{{1, 5}}, 10, 10},
		{[]Position{{1, 20}}, 20, 20},
	}
	for _, test := range tests {
		filter := Filter{At: test.at}
		if from, to := filter.narrow(b); from != test.from || to != test.to {
			t.Errorf("%v reads %d..%d, want %d..%d", test.at, from, to, test.from, test.to)
		}
	}
}

func TestParsePosition(t *testing.T) {
	t.Parallel()
	if p, err := ParsePosition("3/42"); err != nil || p != (Position{3, 42}) || p.String() != "3/42" {
		t.Errorf("got %v, %v", p, err)
	}
	for _, text := range []string{"", "3", "3/", "/42", "-1/0", "0/-1", "3/42/1", "x/1", "9999999999/1"} {
		if p, err := ParsePosition(text); err == nil {
			t.Errorf("%q gives %v", text, p)
		}
	}
}
