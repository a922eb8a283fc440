package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// letterBox is a fake cluster with dead letters, and the configuration that leads there.
type letterBox struct {
	t      *testing.T
	client *kgo.Client
	config string
}

func newLetterBox(t *testing.T) *letterBox {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders", "shop.dead-letter", "shop.control"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	config := filepath.Join(t.TempDir(), "config.yaml")
	text := fmt.Sprintf("application: shop\nkafka: {brokers: [%q]}\nroutes: [{topics: [orders], handler: copy, config: {output: out}}]\noutputs: {out: {topic: out}}\n", cluster.ListenAddrs()[0])
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return &letterBox{t: t, client: client, config: config}
}

// add writes dead letters as the engine does, numbered by their offset of origin.
func (b *letterBox) add(reason string, values ...string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	topics, err := kadm.NewClient(b.client).ListTopics(ctx, "orders")
	if err != nil {
		b.t.Fatal(err)
	}
	for i, value := range values {
		source := message.Source{Application: "shop", Topic: "orders", TopicID: topics["orders"].ID, Offset: int64(i)}
		record := &kgo.Record{
			Topic: "shop.dead-letter", Key: []byte("k"), Value: []byte(value), Timestamp: time.Date(2026, 11, 23, 10, 0, i, 0, time.UTC),
			Headers: []kgo.RecordHeader{
				{Key: "trace", Value: []byte("\x1b[31mred")},
				{Key: message.HeaderSource, Value: []byte(source.String())},
				{Key: message.HeaderID, Value: []byte(source.ID(-1).String())},
				{Key: message.HeaderHandler, Value: []byte("copy")},
				{Key: message.HeaderReason, Value: []byte(reason)},
				{Key: message.HeaderError, Value: []byte("no " + reason + "\x1b[2J")},
			},
		}
		if err := b.client.ProduceSync(ctx, record).FirstErr(); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *letterBox) dlq(args ...string) ran {
	b.t.Helper()
	return invoke(b.t, nil, append([]string{"dlq", "-c", b.config}, args...)...)
}

func (b *letterBox) want(code int, stdout, stderr string, args ...string) ran {
	b.t.Helper()
	got := b.dlq(args...)
	if got.code != code || !strings.Contains(got.stdout, stdout) || !strings.Contains(got.stderr, stderr) {
		b.t.Errorf("dlq %s: exit code %d, want %d\nstdout:\n%s\nwant in it: %s\nstderr:\n%s\nwant in it: %s", strings.Join(args, " "), got.code, code, got.stdout, stdout, got.stderr, stderr)
	}
	if strings.Contains(got.stdout+got.stderr, "\x1b") {
		b.t.Errorf("dlq %s: a stranger's escape sequence reaches the terminal: %q", strings.Join(args, " "), got.stdout+got.stderr)
	}
	return got
}

func TestDLQListsShowsAndSettlesDeadLetters(t *testing.T) {
	t.Parallel()
	b := newLetterBox(t)
	b.want(0, "", "no dead letters", "ls")
	b.add("bad_json", "{", "\x00\xff", "line\nline")
	b.add("panic", "p")

	b.want(0, "0/1     2026-11-23T10:00:01Z  orders/0/1  copy     bad_json  open          0      2  no bad_json.[2J\n", "", "ls")
	b.want(0, "0/3 ", "", "ls", "--reason", "panic", "--handler", "copy,orders", "--topic", "orders", "--since", "2026-11-23", "--until", "2026-11-24")
	b.want(0, "", "no dead letters", "ls", "--until", "2026-11-23T10:00:00Z")
	b.want(0, "", "there are more than 2", "ls", "--max", "2")
	b.want(0, "      3  bad_json  copy", "", "ls", "--group")
	b.want(0, `"letters": 3`, "", "ls", "--group", "-o", "json")

	b.want(0, "error     no bad_json.[2J", "", "show", "0/0")
	b.want(0, `header    trace = 0x1b5b33316d726564`, "", "show", "0/0")
	b.want(0, "00000000  00 ff ", "", "show", "0/1")
	b.want(0, "value     9 bytes of text\n\nline\nline\n", "", "show", "0/2")
	b.want(0, "\nline\n... 4 bytes more", "", "show", "0/2", "--bytes", "5")
	b.want(0, "9 bytes more", "", "show", "0/2", "--bytes", "0")
	b.want(2, "", "--bytes is -1, want 0 or more", "show", "0/2", "--bytes", "-1")
	if got := b.dlq("show", "0/1", "--raw"); got.code != 0 || got.stdout != "\x00\xff" {
		t.Errorf("raw value is %q", got.stdout)
	}
	var shown []struct {
		Value   []byte  `json:"value"`
		Text    *string `json:"value_text"`
		Headers []struct {
			Key   string `json:"key"`
			Value []byte `json:"value"`
		} `json:"headers"`
	}
	if err := json.Unmarshal([]byte(b.dlq("show", "0/1", "0/2", "-o", "json").stdout), &shown); err != nil {
		t.Fatal(err)
	}
	if len(shown) != 2 || string(shown[0].Value) != "\x00\xff" || shown[0].Text != nil || shown[1].Text == nil || *shown[1].Text != "line\nline" || string(shown[0].Headers[0].Value) != "\x1b[31mred" || len(shown[0].Headers) != 1 {
		t.Errorf("shown as JSON: %+v", shown)
	}

	b.want(0, "would redrive  3 letters", "", "redrive", "--reason", "bad_json", "--dry-run", "--restamp")
	b.want(2, "", `nobody to ask "Redrive 3 dead letters?": standard input is no terminal: give --yes`, "redrive", "--because", "test", "--reason", "bad_json", "--restamp")
	b.want(0, "redriven  1 letter\n", "", "redrive", "--because", "test", "0/1", "--yes", "--restamp")
	b.want(0, "redriven  0 letters\n", "0/1 is redriven already", "redrive", "--because", "test", "0/1", "--yes", "--restamp")
	b.want(1, "", "there is no dead letter at 0/99: `processor dlq ls --all` lists them", "redrive", "--because", "test", "0/0", "0/99", "--yes", "--restamp")
	b.want(1, "", "there is no dead letter at 1/0", "discard", "0/0", "1/0", "--because", "test", "--yes")
	b.want(0, "0/0     2026-11-23T10:00:00Z  orders/0/0  copy     bad_json  open", "", "ls") // not even those that are there
	b.want(0, `"letters": 2`, "", "redrive", "--because", "test", "--reason", "bad_json", "--yes", "--restamp", "-o", "json")
	b.want(0, "redriven  0 letters", "", "redrive", "--because", "test", "--reason", "bad_json", "--yes", "--restamp")
	b.want(0, "0/1     2026-11-23T10:00:01Z  orders/0/1  copy     bad_json  redriven", "", "ls", "--all")

	b.want(0, "discarded  1 letter", "", "discard", "--everything", "--because", "test data", "--yes")
	b.want(0, "", "no dead letters", "ls")
	b.want(0, "would delete  4 letters", "", "purge", "--dry-run")
	b.want(2, "", `nobody to ask "Delete 4 settled dead letters for good?"`, "purge", "--because", "test")
	b.want(0, "deleted  4 letters\n         4 markers", "", "purge", "--because", "test", "--yes")
	b.want(0, "", "no dead letters", "ls", "--all")
}

// A letter that cannot go back is a finding: it is told, with what to do, and the exit code is 3.
func TestDLQRedriveTellsWhatItRefuses(t *testing.T) {
	t.Parallel()
	b := newLetterBox(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	b.add("r", "good", "bad")
	if err := b.client.ProduceSync(ctx, &kgo.Record{Topic: "shop.dead-letter", Value: []byte("no story")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	got := b.want(3, "refused: unreadable  1 letter", "", "redrive", "--because", "test", "--yes", "--restamp")
	if !strings.Contains(got.stdout, "redriven             2 letters") || !strings.Contains(got.stdout, "0/2") || !strings.Contains(got.stdout, "discard it") {
		t.Errorf("stdout is\n%s", got.stdout)
	}
	got = b.want(3, `"unreadable": 1`, "", "redrive", "--dry-run", "-o", "json")
	var result settled
	if err := json.Unmarshal([]byte(got.stdout), &result); err != nil || !result.DryRun || len(result.Refusals) != 1 || result.Refusals[0].Letter != "0/2" {
		t.Errorf("%+v, %v", result, err)
	}
}

func TestDLQRefusesWrongUsage(t *testing.T) {
	t.Parallel()
	b := newLetterBox(t)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"ls", "--since", "yesterday"}, `--since is "yesterday"`},
		{[]string{"ls", "--until", "-2h"}, `--until is "-2h"`},
		{[]string{"ls", "--max", "-1"}, "--max is -1"},
		{[]string{"show"}, "requires at least 1 arg"},
		{[]string{"show", "42"}, `"42" is no position`},
		{[]string{"show", "0/1", "0/2", "--raw"}, "--raw shows one letter"},
		{[]string{"redrive", "--because", "test", "--max-redrives", "0"}, "--max-redrives is 0"},
		{[]string{"redrive", "--yes", "--dry-run"}, "[dry-run yes]"},
		{[]string{"discard", "--reason", "x"}, `--because is empty`},
		{[]string{"discard", "--because", " ", "--everything"}, "--because is empty"},
		{[]string{"discard", "--because", "x"}, "--everything"},
		{[]string{"discard", "--because", "x", "--everything", "0/1"}, "either"},
	} {
		b.want(2, "", test.want, test.args...)
	}
	b.want(1, "", "no dead letter at 0/42", "show", "0/42")
	got := invoke(t, nil, "dlq", "-c", b.config, "ls", "--set", "application=other")
	if got.code != 1 || !strings.Contains(got.stderr, "topic other.dead-letter does not exist") {
		t.Errorf("wrong application: %+v", got)
	}
}

func TestParseMoment(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                          {},
		"2h":                        now.Add(-2 * time.Hour),
		"14d":                       now.Add(-14 * 24 * time.Hour),
		"0":                         now,
		"2026-11-23":                time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC),
		"2026-11-23 10:00:00":       time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC),
		"2026-11-23T10:00:00+02:00": time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC),
	} {
		if got, err := parseMoment("--since", text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q is %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"5", "23.11.2026", "-1h", strconv.Itoa(1 << 40)} {
		if got, err := parseMoment("--since", text, now); err == nil {
			t.Errorf("%q is %s", text, got)
		}
	}
}
