package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pawl/internal/txn"
)

func TestEventsThatMatterHaveOneLineEach(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		message, level string
		tell           func(txn.Hooks)
		want           map[string]any
	}{
		{
			"partitions assigned", "INFO", func(h txn.Hooks) { h.Assigned(1, map[string][]int32{"b": {4}, "a": {3, 0, 1, 5}}) },
			map[string]any{"lane": 1.0, "count": 5.0, "partitions": "a/0-1,3,5 b/4"},
		},
		{
			"partitions revoked", "INFO", func(h txn.Hooks) { h.Revoked(1, map[string][]int32{"a": {0}}) },
			map[string]any{"count": 1.0, "partitions": "a/0"},
		},
		{
			"partitions lost", "WARN", func(h txn.Hooks) { h.Lost(1, map[string][]int32{"a": {0, 1, 2}}) },
			map[string]any{"count": 3.0, "partitions": "a/0-2"},
		},
		{"transaction aborted", "INFO", func(h txn.Hooks) {
			h.Ended(txn.Ended{Lane: 1, Outcome: txn.Aborted, Reason: txn.ReasonRebalance, Records: 3, Bytes: 9, Duration: time.Second})
		}, map[string]any{"lane": 1.0, "reason": "rebalance", "records": 3.0, "bytes": 9.0, "seconds": 1.0}},
		{"transaction aborted", "WARN", func(h txn.Hooks) {
			h.Ended(txn.Ended{Outcome: txn.Aborted, Reason: txn.ReasonProduce, Err: errors.New("dial: refused")})
		}, map[string]any{"reason": "produce", "err": "dial: refused"}},
		{"transaction outcome unknown", "WARN", func(h txn.Hooks) {
			h.Ended(txn.Ended{Outcome: txn.Unknown, Reason: txn.ReasonOffsets})
		}, map[string]any{"reason": "offsets"}},
		{
			"lane fenced", "ERROR", func(h txn.Hooks) { h.Fenced(2, errors.New("producer fenced")) },
			map[string]any{"lane": 2.0, "err": "producer fenced"},
		},
		{
			"session rebuilt", "WARN", func(h txn.Hooks) { h.Rebuilt(2, txn.ReasonUnknown) },
			map[string]any{"lane": 2.0, "reason": "unknown"},
		},
		{"partition halted", "ERROR", func(h txn.Hooks) {
			h.Halted(txn.Halted{Lane: 1, Topic: "a", Partition: 7, Err: errors.New("run processor offsets set")})
		}, map[string]any{"lane": 1.0, "topic": "a", "partition": 7.0, "err": "run processor offsets set"}},
		{"a broker gave aborted input as committed: none was handled", "WARN", func(h txn.Hooks) {
			h.Unlisted(txn.Unlisted{Lane: 1, Topic: "a", Partition: 7, Records: 3})
		}, map[string]any{"lane": 1.0, "topic": "a", "partition": 7.0, "records": 3.0}},
		{"batch suspected", "WARN", func(h txn.Hooks) {
			h.Suspected(txn.Suspected{Lane: 1, Records: 64, Crashes: 2, Why: txn.ReasonHandler})
		}, map[string]any{"records_max": 64.0, "crashes": 2.0, "reason": "handler"}},
		{
			"batch suspected", "WARN", func(h txn.Hooks) { h.Suspected(txn.Suspected{Crashes: 3}) },
			map[string]any{"reason": "none"},
		},
		{
			"retrying", "WARN", func(h txn.Hooks) { h.Retrying(1, errors.New("dial: refused")) },
			map[string]any{"lane": 1.0, "err": "dial: refused"},
		},
		{
			"record dead-lettered", "INFO", func(h txn.Hooks) { h.Rejected(rejection("bad_json", 12)) },
			map[string]any{"lane": 1.0, "source": "in/3/12", "handler": "orders", "reason": "bad_json"},
		},
	} {
		t.Run(test.message, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, nil)
			test.tell(b.hooks)
			lines := b.log.lines(t, test.message)
			if len(lines) != 1 || strings.Count(b.log.String(), "\n") != 1 {
				t.Fatalf("log:\n%s", b.log)
			}
			line := lines[0]
			if line["level"] != test.level {
				t.Errorf("level %v, want %s", line["level"], test.level)
			}
			for key, want := range test.want {
				if line[key] != want {
					t.Errorf("%s is %v, want %v", key, line[key], want)
				}
			}
			if _, there := line["suppressed"]; there {
				t.Error("nothing was suppressed")
			}
			if strings.Contains(b.log.String(), payload) {
				t.Errorf("payload in the log:\n%s", b.log)
			}
		})
	}
}

// The normal course of things is silent.
func TestCommitsAndEmptyRebalancesHaveNoLine(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.transaction(0, 5, 0, txn.Committed, txn.ReasonNone)
	b.hooks.Assigned(0, nil)
	b.hooks.Revoked(0, map[string][]int32{"in": {}})
	if b.log.String() != "" {
		t.Errorf("log:\n%s", b.log)
	}
	if got := b.value(t, "processor_rebalances_total", "kind", "assigned"); got != 0 {
		t.Errorf("%v rebalances counted, want 0", got)
	}
}

func TestCommitsHaveALineAtDebug(t *testing.T) {
	t.Parallel()
	log := &logBuffer{}
	b := newBench(t, func(c *Config) {
		c.Log = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	b.transaction(0, 5, 0, txn.Committed, txn.ReasonNone)
	if lines := log.lines(t, "transaction committed"); len(lines) != 1 || lines[0]["records"] != 5.0 || lines[0]["level"] != "DEBUG" {
		t.Errorf("log:\n%s", log)
	}
}

func TestFloodsAreThinnedOutAndCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		end := b.run(t)
		for i := range 1000 {
			b.hooks.Rejected(rejection("bad_json", int64(i)))
		}
		b.hooks.Rejected(rejection("unknown_version", 1)) // another sort is not held back by the first
		if lines := b.log.lines(t, "record dead-lettered"); len(lines) != linesMax+1 {
			t.Fatalf("%d lines, want %d", len(lines), linesMax+1)
		}
		if got := b.value(t, "processor_dead_letter_records_total", "reason", "bad_json"); got != 1000 {
			t.Errorf("%v counted, want 1000", got)
		}
		// The flood goes on: the next line that passes tells of the others.
		time.Sleep(linesPeriod - time.Nanosecond) //nolint:forbidigo // virtual time
		synctest.Wait()
		time.Sleep(time.Nanosecond) //nolint:forbidigo // virtual time
		b.hooks.Rejected(rejection("bad_json", 1000))
		synctest.Wait()
		lines := b.log.lines(t, "record dead-lettered")
		accounted := len(lines)
		for _, line := range append(lines, b.log.lines(t, "log lines suppressed")...) {
			if count, is := line["suppressed"].(float64); is {
				accounted += int(count)
			}
		}
		if accounted != 1002 {
			t.Errorf("%d of 1002 dead letters accounted for:\n%s", accounted, b.log)
		}
		end()
	})
}

// The flood ends: nothing follows that could tell of the suppressed lines.
func TestSuppressedLinesAreReportedAfterTheFlood(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(stop func()){
		"in time": func(stop func()) {
			time.Sleep(linesPeriod + lagInterval) //nolint:forbidigo // virtual time
			stop()
		},
		"at the end": func(stop func()) { stop() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				stop := b.run(t)
				synctest.Wait()
				for range 100 {
					b.hooks.Retrying(0, errors.New("dial: refused"))
				}
				end(stop)
				lines := b.log.lines(t, "log lines suppressed")
				if len(lines) != 1 || lines[0]["suppressed"] != 90.0 || lines[0]["line"] != "retrying" {
					t.Errorf("log:\n%s", b.log)
				}
			})
		})
	}
}

func TestLoggerHasFormatAndLevel(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	log, level, err := NewLogger(&text, "warn", FormatJSON)
	if err != nil {
		t.Fatal(err)
	}
	log.LogAttrs(t.Context(), slog.LevelInfo, "quiet")
	level.Set(slog.LevelDebug)
	log.LogAttrs(t.Context(), slog.LevelDebug, "loud", slog.Int("lane", 1))
	var line map[string]any
	if err := json.Unmarshal(text.Bytes(), &line); err != nil {
		t.Fatalf("%v in %s", err, text.Bytes())
	}
	if line["msg"] != "loud" || line["lane"] != 1.0 {
		t.Errorf("line %v", line)
	}

	text.Reset()
	if log, _, err = NewLogger(&text, "INFO", FormatText); err != nil {
		t.Fatal(err)
	}
	log.LogAttrs(t.Context(), slog.LevelInfo, "hello")
	if !strings.Contains(text.String(), "level=INFO msg=hello") {
		t.Errorf("text %q", text.String())
	}

	for _, bad := range [][2]string{{"loud", FormatJSON}, {"", FormatJSON}, {"info", "xml"}} {
		if _, _, err := NewLogger(&text, bad[0], bad[1]); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}
