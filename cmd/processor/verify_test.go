package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// processedYard has logs that are processed up to their end: by hand, since no service runs here.
func processedYard(t *testing.T, outputs bool) *yard {
	t.Helper()
	y := newYard(t, kfake.SeedTopics(2, "logs", "yard.planks", "yard.dead-letter"), kfake.SeedTopics(3, "yard.effects"))
	topics, err := y.admin.ListTopics(t.Context(), "logs")
	if err != nil {
		t.Fatal(err)
	}
	var records []*kgo.Record
	for offset := range int64(4) {
		source := message.Source{Application: "yard", Topic: "logs", TopicID: topics["logs"].ID, Partition: 1, Offset: offset}
		input := &kgo.Record{Topic: "logs", Partition: 1, Key: []byte("k"), Value: []byte(source.String())}
		if err := y.client.ProduceSync(t.Context(), input).FirstErr(); err != nil {
			t.Fatal(err)
		}
		records = append(records, &kgo.Record{Topic: "yard.planks", Partition: 0, Key: input.Key, Value: input.Value, Timestamp: input.Timestamp, Headers: []kgo.RecordHeader{
			{Key: message.HeaderSource, Value: []byte(source.String())}, {Key: message.HeaderID, Value: []byte(source.ID(0).String())},
		}})
	}
	if outputs {
		if err := y.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	for partition, end := range map[string]string{"1": "4", "0": "0"} {
		if got := y.run("offsets", "set", "--topic", "logs", "--partition", partition, "--to", end, "--reason", "test", "--yes"); got.code != exitOK {
			t.Fatal(got.stderr)
		}
	}
	return y
}

func TestVerifyReportsToPeopleAndPrograms(t *testing.T) {
	t.Parallel()
	clean := processedYard(t, true)
	got := clean.run("verify")
	for _, part := range []string{"4 judged, 4 of them by their handlers", "logs           1     0   4        4", "clean: each input of the range led to one committed outcome"} {
		if got.code != exitOK || !strings.Contains(got.stdout, part) {
			t.Errorf("exit code %d; the report lacks %q:\n%s%s", got.code, part, got.stdout, got.stderr)
		}
	}
	got = clean.run("verify", "--readers", "-o", "json")
	var read verifyReport
	if err := json.Unmarshal([]byte(got.stdout), &read); err != nil || got.code != exitOK || read.Saw.Reads != 8 {
		t.Errorf("with a reader: exit code %d, %v, %d records read, want 8: %s", got.code, err, read.Saw.Reads, got.stdout)
	}
	broken := processedYard(t, false)
	got = broken.run("verify", "-o", "json")
	var report verifyReport
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil || got.code != exitFindings || report.Clean || report.Counts["LOST"] != 4 || report.To["logs"][1] != 4 {
		t.Errorf("exit code %d, %v: %s", got.code, err, got.stdout)
	}
	got = broken.run("verify", "--from", "logs/1/2", "--to", "logs/1/3")
	for _, part := range []string{"LOST  logs/1/2", "must be on yard.planks", "NOT PROVEN: 1 finding"} {
		if got.code != exitFindings || !strings.Contains(got.stdout, part) {
			t.Errorf("exit code %d; the report lacks %q:\n%s%s", got.code, part, got.stdout, got.stderr)
		}
	}
	if got := broken.run("verify", "--from", "logs/0/0"); got.code != exitFindings || !strings.Contains(got.stdout, "SANITY") {
		t.Errorf("a range without inputs: exit code %d\n%s", got.code, got.stdout)
	}
	if got := broken.run("verify", "--from", "logs/0/0", "--allow-empty"); got.code != exitOK {
		t.Errorf("a range that may be empty: exit code %d\n%s", got.code, got.stdout)
	}
}

func TestVerifyRefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	y := processedYard(t, true)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--from", "yesterday"}, "want a time such as"},
		{[]string{"--from", "planks/0/0"}, "the inputs are logs"},
		{[]string{"--from", "1h", "--from", "2h"}, "give it once"},
		{[]string{"--listen", ":0"}, "for --follow"},
		{[]string{"--memory", "0"}, "--memory is 0"},
		{[]string{"--follow", "--interval", "1ms"}, "or more"},
		{[]string{"--explain", "logs/1/1", "--from", "1h"}, "leave --from"},
		{[]string{"--explain", "logs"}, "want topic/partition/offset"},
		{[]string{"--journal", "calls.jsonl"}, "set postgres.dsn_file"},
		{[]string{"--follow", "--explain", "logs/1/1"}, "none of the others can be"},
	} {
		if got := y.run(append([]string{"verify"}, test.args...)...); got.code != exitUsage || !strings.Contains(got.stderr, test.want) {
			t.Errorf("%v: exit code %d, want %d and %q:\n%s", test.args, got.code, exitUsage, test.want, got.stderr)
		}
	}
}

func TestVerifyExplainsARecord(t *testing.T) {
	t.Parallel()
	y := processedYard(t, true)
	for _, place := range []string{"logs/1/2", "yard.planks/0/2"} {
		got := y.run("verify", "--explain", place)
		for _, part := range []string{"input", "logs/1/2", "yes: the committed offset of its partition is 4", "output  yard.planks/0/2"} {
			if got.code != exitOK || !strings.Contains(got.stdout, part) {
				t.Errorf("%s: exit code %d; the story lacks %q:\n%s%s", place, got.code, part, got.stdout, got.stderr)
			}
		}
	}
	if got := y.run("verify", "--explain", "logs/1/4"); got.code != exitRuntime || !strings.Contains(got.stderr, "the log ends at 4") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
}
