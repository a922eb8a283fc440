package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/deadletter"
	"pawl/internal/message"
)

// secretWord stands in the contents of the dead letters of these tests.
const secretWord = "hunter2"

// markup is what a page must show as text.
const markup = `<img src=x onerror=alert(1)>`

// refusedRecord is a record that some process has refused.
type refusedRecord struct {
	reason  string
	value   []byte
	headers []kgo.RecordHeader
}

// letters writes dead letters of records raw/0/0, raw/0/1 and so on, as the engine does.
func (r *running) letters(records ...refusedRecord) {
	r.t.Helper()
	topics, err := kadm.NewClient(r.client).ListTopics(r.t.Context(), "raw")
	if err != nil {
		r.t.Fatal(err)
	}
	for i, one := range records {
		source := message.Source{Application: "shop", Topic: "raw", TopicID: topics["raw"].ID, Offset: int64(i)}
		record := &kgo.Record{
			Topic: "shop.dead-letter", Key: fmt.Appendf(nil, "k-%d", i), Value: one.value, Timestamp: time.Date(2026, 11, 23, 10, 0, i, 0, time.UTC),
			Headers: append(one.headers,
				kgo.RecordHeader{Key: message.HeaderSource, Value: []byte(source.String())},
				kgo.RecordHeader{Key: message.HeaderID, Value: []byte(source.ID(-1).String())},
				kgo.RecordHeader{Key: message.HeaderHandler, Value: []byte("copy")},
				kgo.RecordHeader{Key: message.HeaderReason, Value: []byte(one.reason)},
				kgo.RecordHeader{Key: message.HeaderError, Value: []byte("line 3 is no " + one.reason + " " + markup)}),
		}
		if err := r.client.ProduceSync(r.t.Context(), record).FirstErr(); err != nil {
			r.t.Fatal(err)
		}
	}
}

// runWithLetters runs a service whose dead-letter topic has records of several kinds.
func runWithLetters(t *testing.T, contents bool) *running {
	t.Helper()
	r := runWith(t, func(c *Config) { c.Admin.Contents = contents }, Options{}, nothing)
	r.line("starting")
	records := []refusedRecord{
		{"no_price", []byte(`{"sku":"` + secretWord + `","note":"` + markup + `","lines":[1,2]}`), []kgo.RecordHeader{{Key: "authorization", Value: []byte("Bearer " + secretWord)}, {Key: "empty"}}},
		{"no_price", nil, nil},
	}
	for i := range 7 {
		records = append(records, refusedRecord{"bad_json", fmt.Appendf(nil, "{%s %d", secretWord, i), nil})
	}
	r.letters(append(records, refusedRecord{"bad_json", []byte("\x00\x01\xff" + secretWord), nil})...)
	if err := r.client.ProduceSync(t.Context(), &kgo.Record{Topic: "shop.dead-letter", Value: []byte("a stranger's")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return r
}

// get asks for JSON and wants it.
func (r *running) get(path string, into any) (text string) {
	r.t.Helper()
	code, text := r.ask(http.MethodGet, path, "")
	if code != http.StatusOK {
		r.t.Fatalf("%s answers %d %s", path, code, text)
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		r.t.Fatal(err)
	}
	return text
}

// The newest of each reason, whoever wrote them, with what became of them; and nothing of their contents.
func TestDeadLettersAreListedByReason(t *testing.T) {
	t.Parallel()
	r := runWithLetters(t, true)
	queue, err := deadletter.Open(r.conf.DeadLetters([]kgo.Opt{kgo.SeedBrokers(r.conf.Kafka.Brokers...)}))
	if err != nil {
		t.Fatal(err)
	}
	defer queue.Close()
	if _, err := queue.Discard(t.Context(), deadletter.DiscardOptions{Reason: "by phone", Options: deadletter.Options{Filter: deadletter.Filter{At: []deadletter.Position{{Offset: 9}}}}}); err != nil {
		t.Fatal(err)
	}
	var tail LettersTail
	text := r.get("/api/v1/dead-letters", &tail)
	if strings.Contains(text, secretWord) {
		t.Errorf("a list shows contents: %s", text)
	}
	var got []string
	for _, reason := range tail.Reasons {
		parts := []string{fmt.Sprintf("%s %d:", reason.Reason, reason.Letters)}
		for _, l := range reason.Newest {
			parts = append(parts, l.Letter, l.State)
		}
		got = append(got, strings.Join(parts, " "))
	}
	want := "bad_json 8: 0/9 discarded 0/8 open 0/7 open 0/6 open 0/5 open; no_price 2: 0/1 open 0/0 open; " + notOurs + " 1: 0/10 open"
	if strings.Join(got, "; ") != want || tail.Letters != 11 || tail.More || tail.Topic != "shop.dead-letter" {
		t.Errorf("%d letters, more %v, of %s\n%s, want\n%s", tail.Letters, tail.More, tail.Topic, strings.Join(got, "; "), want)
	}
}

// A look shows what a person needs to decide; what was in the record only where the setting and the question say so.
func TestDeadLetterIsShownWithItsContentsOnlyWhereTheyAreAllowed(t *testing.T) {
	t.Parallel()
	r, hidden := runWithLetters(t, true), runWithLetters(t, false)
	for _, one := range []*running{r, hidden} {
		var looked LookedLetter
		text := one.get("/api/v1/dead-letters/0/0", &looked)
		if strings.Contains(text, secretWord) || looked.Contents != nil {
			t.Errorf("contents are shown: %s", text)
		}
		if looked.Source == "" || looked.Reason != "no_price" || !strings.Contains(looked.Error, "line 3") || looked.Key != `"k-0"` || looked.ValueBytes == 0 ||
			len(looked.Headers) != 2 || looked.Headers[0] != (LookedHeader{"authorization", len("Bearer " + secretWord), ""}) || looked.Headers[1].Bytes != -1 {
			t.Errorf("it is %s", text)
		}
	}
	if code, text := hidden.ask(http.MethodGet, "/api/v1/dead-letters/0/0?contents=true", ""); code != http.StatusForbidden || !strings.Contains(text, "admin.contents") || strings.Contains(text, secretWord) {
		t.Errorf("not allowed, it answers %d %s", code, text)
	}
	for letter, want := range map[string]LookedContents{
		"0/0":  {Form: "json", Text: "{\n  \"sku\": \"" + secretWord + "\",\n  \"note\": \"" + markup + "\",\n  \"lines\": [\n    1,\n    2\n  ]\n}"},
		"0/1":  {Form: "null"},
		"0/9":  {Form: "hex", Text: "00000000  00 01 ff 68 75 6e 74 65  72 32                    |...hunter2|\n"},
		"0/8":  {Form: "text", Text: "{" + secretWord + " 6"},
		"0/10": {Form: "text", Text: "a stranger's"},
	} {
		var looked LookedLetter
		text := r.get("/api/v1/dead-letters/"+letter+"?contents=true", &looked)
		if looked.Contents == nil || *looked.Contents != want {
			t.Errorf("%s is %s, want %+v", letter, text, want)
		}
		if letter == "0/0" && looked.Headers[0].Value != `"Bearer `+secretWord+`"` {
			t.Errorf("its headers are %+v", looked.Headers)
		}
	}
	for path, want := range map[string]int{"/api/v1/dead-letters/0/42": 404, "/api/v1/dead-letters/9/0": 404, "/api/v1/dead-letters/x/0": 400, "/api/v1/dead-letters/0/-1": 400} {
		if code, text := r.ask(http.MethodGet, path, ""); code != want {
			t.Errorf("%s answers %d %s, want %d", path, code, text, want)
		}
	}
	for _, one := range []*running{r, hidden} {
		one.end()
		close(one.lines)
		shown := 0
		for line := range one.lines {
			if strings.Contains(line.text, secretWord) {
				t.Errorf("the log has contents: %s", line.text)
			}
			if line.Msg == "contents of a dead letter were shown" {
				shown++
			}
		}
		if want := map[*running]int{r: 5, hidden: 0}[one]; shown != want {
			t.Errorf("the log tells %d times that contents were shown, want %d", shown, want)
		}
	}
}

// A topic that can't be read is no reason to be still about why.
func TestDeadLettersThatCannotBeReadSaySo(t *testing.T) {
	t.Parallel()
	r := runWithLetters(t, false)
	fault := r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "shop.dead-letter", Err: kerr.TopicAuthorizationFailed, Count: -1})
	code, text := r.ask(http.MethodGet, "/api/v1/dead-letters", "")
	if code != http.StatusServiceUnavailable || !strings.Contains(text, "lacks the right Read") || fault.Hits() == 0 {
		t.Errorf("%d faults, it answers %d %s", fault.Hits(), code, text)
	}
}

// What is shown is bounded, whatever a record holds.
func TestLookIsCut(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("ä", lookedTextBytes)
	deep := strings.Repeat("[", 4000) + strings.Repeat("]", 4000)
	for name, c := range map[string]struct {
		value string
		form  string
		most  int
		cut   int
	}{
		"text":                {text, "text", lookedTextBytes, lookedTextBytes},
		"text, in the middle": {"x" + text, "text", lookedTextBytes, lookedTextBytes + 2},
		"binary":              {"\x00" + text, "hex", 5 * lookedBinaryBytes, 2*lookedTextBytes + 1 - lookedBinaryBytes},
		"long JSON":           {`["` + text + `"]`, "text", lookedTextBytes, lookedTextBytes + 4},
		"deep JSON":           {deep, "text", len(deep), 0},
		"brackets in JSON":    {`{"a":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"["}`, "json", 100, 0},
		"a number":            {"12", "text", 2, 0},
		"nothing":             {"", "text", 0, 0},
	} {
		got := lookInto([]byte(c.value))
		if got.Form != c.form || len(got.Text) > c.most || got.Cut != c.cut {
			t.Errorf("%s: %s of %d bytes, %d are cut; want %s of at most %d, %d cut", name, got.Form, len(got.Text), got.Cut, c.form, c.most, c.cut)
		}
	}
	letter := &deadletter.Letter{Key: []byte(text)}
	for range lookedHeaders + 3 {
		letter.Headers = append(letter.Headers, message.Header{Key: "h", Value: []byte(text)})
	}
	looked := LookAtLetter(letter, true)
	if len(looked.Headers) != lookedHeaders || looked.MoreHeaders != 3 || len(looked.Key) > 3*lookedKeyBytes || len(looked.Headers[0].Value) > 3*lookedKeyBytes {
		t.Errorf("%d headers and %d more, the key has %d bytes, a header %d", len(looked.Headers), looked.MoreHeaders, len(looked.Key), len(looked.Headers[0].Value))
	}
}

// A topic with many reasons, as a stranger may write it, has no endless answer.
func TestListedReasonsAreBounded(t *testing.T) {
	t.Parallel()
	var groups letterGroups
	for i := range 3 * reasonsMax {
		groups.add(deadletter.Letter{Reason: strconv.Itoa(i)}, int64(i))
	}
	if tail := groups.tail(); len(tail.Reasons) != reasonsMax || !tail.More || tail.Letters != 3*reasonsMax {
		t.Errorf("%d reasons of %d letters, more %v", len(tail.Reasons), tail.Letters, tail.More)
	}
}
