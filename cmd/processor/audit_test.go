package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/audit"
	"pawl/internal/message"
)

// orders gives what the audit has, oldest first, as lines.
func (y *yard) orders() (lines []string) {
	y.t.Helper()
	got := y.run("audit", "-o", "json")
	var orders []audit.Entry
	if err := json.Unmarshal([]byte(got.stdout), &orders); err != nil || got.code != exitOK {
		y.t.Fatalf("%+v, %v", got, err)
	}
	for _, o := range orders {
		if o.Actor != newCLI(nil, nil, nil, nil).actor() || o.At.IsZero() || o.Ended.Before(o.At) {
			y.t.Errorf("the order is %+v", o)
		}
		lines = append(lines, fmt.Sprintf("%s | %s | %s | %s | %s", o.Action, o.Target, o.Result, o.Detail, o.Reason))
	}
	slices.Reverse(lines)
	return lines
}

// Every command that changes something says who did it, why, and what became of it; one that only looked, or was not
// confirmed, says nothing.
func TestCommandsThatChangeSomethingAreAudited(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.fit()
	if got := y.run("audit"); got.code != exitOK || !strings.Contains(got.stderr, "no orders") {
		t.Errorf("of no orders: %+v", got)
	}
	y.write(5)
	y.commit(0, 3, "")
	topics, err := y.admin.ListTopics(t.Context(), "logs")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		source := message.Source{Application: "yard", Topic: "logs", TopicID: topics["logs"].ID, Offset: int64(i)}
		letter := &kgo.Record{Topic: "yard.dead-letter", Value: []byte("v"), Timestamp: time.Now(), Headers: []kgo.RecordHeader{
			{Key: message.HeaderSource, Value: []byte(source.String())},
			{Key: message.HeaderID, Value: []byte(source.ID(-1).String())},
			{Key: message.HeaderHandler, Value: []byte("copy")},
			{Key: message.HeaderReason, Value: []byte("bad_json")},
		}}
		if err := y.client.ProduceSync(t.Context(), letter).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	y.transaction("yard.one.0")
	y.transaction("zoo.one.0")
	for args, code := range map[string]int{
		"offsets set --topic logs --all-partitions --to earliest --dry-run":                exitOK,
		"offsets set --topic logs --all-partitions --to earliest --reason test":            exitUsage,
		"txn abort yard.one.0 --reason why --dry-run":                                      exitOK,
		"txn abort yard.none.0 --reason why --yes":                                         exitRuntime, // there is nothing to abort
		"txn abort --hanging yard.planks/0 --reason why --dry-run --force --producer-id 2": exitRuntime,
		"dlq redrive --dry-run":                  exitOK,
		"dlq discard --everything --because why": exitUsage,
		"dlq purge --dry-run":                    exitOK,
	} {
		if got := y.run(strings.Fields(args)...); got.code != code {
			t.Errorf("%s: %+v, want exit code %d", args, got, code)
		}
	}
	if lines := y.orders(); len(lines) != 0 {
		t.Errorf("nothing was changed, and the audit has %q", lines)
	}
	for _, args := range [][]string{
		{"offsets", "set", "--topic", "logs", "--partition", "0", "--to", "1", "--reason", "gap of the 23rd", "--yes"},
		{"txn", "abort", "yard.one.0", "--reason", "is gone", "--yes"},
		{"txn", "abort", "--hanging", "yard.planks/0", "--force", "--reason", "hangs", "--yes"},
		{"dlq", "redrive", "0/0", "--because", "repaired", "--yes"},
		{"dlq", "redrive", "--because", "test", "--reason", "bad_json", "--max", "1", "--yes"},
		{"dlq", "discard", "--everything", "--because", "test data", "--yes"},
		{"dlq", "purge", "--because", "test", "--yes"},
	} {
		if got := y.run(args...); got.code != exitOK || strings.Contains(got.stderr, "the audit does not have this") {
			t.Errorf("%v: %+v", args, got)
		}
	}
	want := []string{
		"offsets set | logs/0 from 3 of group yard to 1 | done | 2 offsets again, 0 offsets skipped | gap of the 23rd",
		"txn abort | yard.one.0 | done | yard.planks/0 | is gone",
		"txn abort --hanging | yard.planks/0 | done | producer ID, from offset 1 | hangs",
		"dlq redrive | 0/0 | done | 1 letter settled, 0 refused | repaired",
		"dlq redrive | reason bad_json, at most 1 | done | 1 letter settled, 0 refused | test",
		"dlq discard | all that are open | done | 1 letter settled, 0 refused | test data",
		"dlq purge | yard.dead-letter | done | 3 letters deleted | test",
	}
	got := y.orders()
	if !slices.Equal(got, want) {
		t.Errorf("the audit has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	table := y.run("audit", "--max", "1")
	if !strings.Contains(table.stdout, "dlq purge") || strings.Contains(table.stdout, "txn abort") {
		t.Errorf("it prints %+v", table)
	}
	if got := y.run("audit", "--max", "0"); got.code != exitUsage {
		t.Errorf("--max 0: %+v", got)
	}
}

// An order fails and says so; one that can't be written down is carried out, which is told.
func TestAuditTellsOfFailuresAndOfItsOwn(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.fit()
	y.write(2)
	y.commit(0, 1, "")
	fault := y.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Topic: "logs", Err: kerr.GroupAuthorizationFailed, Count: -1})
	if got := y.run("offsets", "set", "--topic", "logs", "--partition", "0", "--to", "0", "--reason", "test", "--yes"); got.code != exitRuntime || fault.Hits() == 0 {
		t.Errorf("%+v after %d faults", got, fault.Hits())
	}
	fault.Remove()
	if lines := y.orders(); len(lines) != 1 || !strings.Contains(lines[0], "| failed | 1 offset again, 0 offsets skipped: ") {
		t.Errorf("the audit has %q", lines)
	}
	if _, err := y.admin.DeleteTopics(t.Context(), "yard.control"); err != nil {
		t.Fatal(err)
	}
	got := y.run("offsets", "set", "--topic", "logs", "--partition", "0", "--to", "0", "--reason", "test", "--yes")
	if got.code != exitOK || !strings.Contains(got.stderr, "the audit does not have this: write to control topic yard.control") {
		t.Errorf("without a control topic: %+v", got)
	}
}
