package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pawl/internal/load"
	"pawl/internal/yardstick"
)

// sample is a report with three rounds of both peers.
func sample(rates, loopRates [3]float64, peak float64, p99, loopP99 time.Duration) *report {
	r := newReport(settings{count: 1000, bytes: 500, parts: 8, processes: 2, lanes: 2, rate: 5000},
		[]peer{&processorPeer{}, &loopPeer{}})
	for i := range rates {
		r.addCopy(yardstick.CopyRun{Peer: processorName, Round: i + 1, Copied: yardstick.Copied{Rate: rates[i]}, Peak: peak - float64(i)})
		r.addCopy(yardstick.CopyRun{Peer: loopName, Round: i + 1, Copied: yardstick.Copied{Rate: loopRates[i]}, Peak: 1000})
		r.addWait(yardstick.WaitRun{Peer: processorName, Round: i + 1, Latency: load.Summary{P99: p99}})
		r.addWait(yardstick.WaitRun{Peer: loopName, Round: i + 1, Latency: load.Summary{P99: loopP99}})
	}
	return r
}

func TestTargetsAreJudgedByMediansAndTheWorstPeak(t *testing.T) {
	t.Parallel()
	good := sample([3]float64{10, 90, 100}, [3]float64{100, 1000, 1}, 149, 13*time.Millisecond, 10*time.Millisecond)
	var table bytes.Buffer
	good.print(&table)
	if !good.met() || len(good.measured()) != 5 || strings.Contains(table.String(), "missed") {
		t.Errorf("targets %+v, want five met\n%s", good.measured(), &table)
	}
	bad := sample([3]float64{84, 84, 900}, [3]float64{100, 100, 100}, 150, 26*time.Millisecond, 10*time.Millisecond)
	table.Reset()
	bad.print(&table)
	if bad.met() || strings.Count(table.String(), "missed") != 5 {
		t.Errorf("targets %+v, want five missed\n%s", bad.measured(), &table)
	}
}

func TestReportIsSavedAsJSON(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "new", "results")
	found := sample([3]float64{1, 2, 3}, [3]float64{1, 2, 3}, 1, time.Second, time.Second)
	path, err := found.save(folder)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back struct {
		Throughput []yardstick.CopyRun
		Targets    []verdict
	}
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if len(back.Throughput) != 6 || len(back.Targets) != len(found.Verdicts) {
		t.Errorf("read back %d runs and %d targets, want 6 and all %d", len(back.Throughput), len(back.Targets), len(found.Verdicts))
	}
}

func TestWrongFlagsAreRefused(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-rounds", "0"}, {"-rate", "0"}, {"-wire-rate", "0"}, {"-duration", "-1s"}, {"-only", "speed"}, {"-points", "8"}, {"-only", "sizes,lanes", "-points", "8"}, {"-only", "sizes", "-points", "0"}, {"-only", "steps", "-points", "0"}, {"-only", "steps,rates", "-points", "8"}, {"-only", "steps", "-peers", "loop"}, {"-only", "catch-up", "-peers", "loop"}, {"-only", "tracing", "-peers", "loop"}, {"-only", "orders", "-peers", "loop"}, {"-only", "sizes", "-sweep-bytes", "0"}, {"-effect-peers", "nobody"}, {"-effect-targets", "mars"}, {"-effect-bytes", "1"}, {"-nonsense"}, {"stray"}} {
		var out, problems bytes.Buffer
		if code := run(args, &out, &problems); code != 2 || problems.Len() == 0 {
			t.Errorf("bench %v: exit code %d, want 2 and a message", args, code)
		}
	}
}
