package main

import (
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pawl/internal/load"
	"pawl/internal/yardstick"
)

const docs = "../docs"

// The published page and its charts are what the kept results say, and nobody has edited them.
func TestPerformancePageIsWhatTheResultsSay(t *testing.T) {
	t.Parallel()
	p, err := makePage(docs)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"performance.md": p.text.String()}
	charts, err := filepath.Glob(filepath.Join(docs, "performance", "*.svg"))
	if err != nil || len(charts) != len(p.charts) {
		t.Errorf("%d charts are kept, %v, want %d: run make performance and remove the others", len(charts), err, len(p.charts))
	}
	maps.Copy(want, p.charts)
	for path, text := range want {
		if got, err := os.ReadFile(filepath.Join(docs, path)); err != nil || string(got) != text {
			t.Errorf("%s is not what the results say (%v): run make performance", path, err)
		}
	}
}

// full is a report with runs of every kind that the page shows.
func full() *report {
	r := sample([3]float64{10, 20, 30}, [3]float64{40, 50, 60}, 100, 12*time.Millisecond, 10*time.Millisecond)
	r.Command, r.Began, r.Cores, r.LoadBefore = "bench -rounds 3", time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC), 2, "0.1"
	r.Points = []point{
		{Sweep: "sizes", Value: 100, Unit: "bytes a record", Records: 7, Copies: []yardstick.CopyRun{{Peer: processorName, Copied: yardstick.Copied{Rate: 70}, CPU: 1.5, Broker: 2.5}, {Peer: loopName, Copied: yardstick.Copied{Rate: 80}}}},
		{Sweep: "rates", Value: 5000, Unit: "records/s", Waits: []yardstick.WaitRun{{Peer: processorName, Latency: load.Summary{Count: 9, P99: time.Second}}}},
	}
	r.Backlog, r.CatchUps = catchUpRecords, []catchUpRun{caughtUp(90, 100, 45, 1.25)}
	r.StepLength, r.Steps = 2*time.Second, stepsOf()
	r.Tracings = traced(96)
	r.OrderCount, r.Orders = orderRecords, ordersOf(100_000, 0.5, 0.25)
	return r
}

func TestPageShowsEveryPartOfAResult(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, "performance"), 0o700); err != nil {
		t.Fatal(err)
	}
	saved, err := full().save(filepath.Join(folder, "performance"))
	if err == nil {
		err = os.Rename(saved, filepath.Join(folder, "performance", "quiet.json"))
	}
	if code := run([]string{"-report", folder}, io.Discard, io.Discard); err != nil || code != 0 {
		t.Fatalf("%v, exit code %d", err, code)
	}
	text, err := os.ReadFile(filepath.Join(folder, "performance.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		"## quiet", "`bench -rounds 3`", "2026-11-30", "load average before it 0.1", "| processor | 20 (10..30) |",
		"| loop | 0.0 (0.0..0.0) | 10.0 (10.0..10.0) |", "p99 scheduled", "100 bytes a record:", "| processor | 70 (70..70) | 1.50 (1.50..1.50) | 2.50 (2.50..2.50) |",
		"### Catch-up", "| tenth 10 | 45 (45..45) | 125 (125..125) |", "| 90 (90..90) | 100 (100..100) | 0.90 (0.90..0.90) | 45 (45..45) |",
		"### Orders", "1000000 orders", "| processor-no-ledger | 200000 (200000..200000) |", "Effects are behind", "### Steps", "| step-2-at-1000 | 1000 (1000..1000) | 4.0 (4.0..4.0) | 6.0 (6.0..6.0) |", "| 20.0 (20.0..20.0) |", "(+Inf..+Inf)",
		"| resident memory in the last tenth of a catch-up by that in the second, the worst | 1.250 | at most 1.10 | missed | [quiet](#quiet) |",
		"| client CPU per record by that of Kafka Streams at its best | - | at most 0.167 | not measured |  |",
		"### Tracing", "| records-1-percent | 96 (96..96) | 0.960 (0.960..0.960) | 3.00 (3.00..3.00) | 1.500 (1.500..1.500) |", "| 4.0 (4.0..4.0) | 50.0 (50.0..50.0) |",
		"5000 records/s:", "1000.0 (1000.0..1000.0)", "### Targets", "| missed |",
	} {
		if !strings.Contains(string(text), part) {
			t.Errorf("the page lacks %q:\n%s", part, text)
		}
	}
	shown := regexp.MustCompile(`!\[.*\]\((.*\.svg)\)`).FindAllStringSubmatch(string(text), -1)
	if len(shown) != 9 {
		t.Errorf("%d charts are shown, want those of throughput, CPU, latency, two sweeps, catch-up, steps, tracing and orders", len(shown))
	}
	for _, match := range shown {
		wellFormed(t, filepath.Join(folder, match[1]))
	}
}

func wellFormed(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for decoder := xml.NewDecoder(strings.NewReader(string(text))); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
	}
}

// The longest bar ends where its figures begin, whatever the figures are; a line goes from least to most.
func TestBarsAreDrawnToScale(t *testing.T) {
	t.Parallel()
	c := chart{title: "a < b", verb: "%.0f", groups: []chartGroup{{bars: []chartBar{
		{"half", yardstick.Spread{Median: 50, Least: 25, Most: 100}}, {"none", yardstick.Spread{}},
	}}}}
	text := c.svg()
	for _, part := range []string{`x="150" y="44" width="210"`, "M255 53H570", ">50 (25..100)<", `width="0"`, "a &lt; b"} {
		if !strings.Contains(text, part) {
			t.Errorf("the chart lacks %q:\n%s", part, text)
		}
	}
	if empty := (chart{groups: []chartGroup{{bars: []chartBar{{"nothing", yardstick.Spread{}}}}}}).svg(); strings.Contains(empty, "NaN") || strings.Contains(empty, "Inf") {
		t.Errorf("a chart of nothing: %s", empty)
	}
}

// Figures of different kinds share a picture: the longest bar of each group is as long, and no colour tells peers apart
// where there is one.
func TestGroupsApartHaveTheirOwnScale(t *testing.T) {
	t.Parallel()
	bars := func(n float64) []chartBar {
		return []chartBar{{"a", yardstick.Spread{Median: n, Least: n, Most: n}}, {"b", yardstick.Spread{Median: n / 2, Least: n / 2, Most: n / 2}}}
	}
	text := chart{verb: "%.0f", apart: true, groups: []chartGroup{{"large", bars(1e6)}, {"small", bars(10)}}}.svg()
	for _, part := range []string{`width="420" height="18" fill="#0072b2"`, `width="210" height="18" fill="#0072b2"`} {
		if strings.Count(text, part) != 2 {
			t.Errorf("the chart has %q %d times, want it in both groups:\n%s", part, strings.Count(text, part), text)
		}
	}
}

func TestResultWithoutItsOriginIsRefused(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*report){
		"no command": func(r *report) { r.Command = "" },
		"no date":    func(r *report) { r.Began = time.Time{} },
	} {
		folder := t.TempDir()
		r := full()
		spoil(r)
		if _, err := r.save(filepath.Join(folder, "performance")); err != nil {
			t.Fatal(err)
		}
		var problems strings.Builder
		if code := run([]string{"-report", folder}, io.Discard, &problems); code != 1 || !strings.Contains(problems.String(), "no date or no command") {
			t.Errorf("%s: exit code %d, %s", name, code, &problems)
		}
	}
}

// Every run has its line in the format that benchstat reads: a name, a count, and pairs of figure and
// unit.
func TestReportIsWrittenAsBenchmarks(t *testing.T) {
	t.Parallel()
	line := regexp.MustCompile(`^Benchmark[^ ]+/peer=[a-z0-9-]+-2 [0-9]+( [0-9.e+-]+ [^ ]+| \+Inf [^ ]+)+$`)
	lines := 0
	text := full().benchmarks()
	for one := range strings.Lines(text) {
		if strings.HasPrefix(one, "Benchmark") {
			lines++
			if !line.MatchString(strings.TrimSpace(one)) {
				t.Errorf("not in the format: %s", one)
			}
		}
	}
	if lines != 6+6+2+1+1+3+4+2 {
		t.Errorf("%d lines, want one for each of 25 runs\n%s", lines, text)
	}
	if part := "BenchmarkSweep/sizes=100/peer=processor-2 7 70 records/s 1.5 client-cpu-s/Mrec 2.5 broker-cpu-s/Mrec"; !strings.Contains(text, part) {
		t.Errorf("lacks %q\n%s", part, text)
	}
}

func TestSweepIsBounded(t *testing.T) {
	t.Parallel()
	s, err := parseFlags([]string{"-only", "sizes", "-sweep-bytes", "1000000"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[int]int64{100: 10_000, 100_000: 10, 10_000_000: 1} {
		if at := sweeps[0].at(s, value); at.bytes != value || at.count != want || at.warmRounds != 1 {
			t.Errorf("at %d bytes: %d records of %d bytes, %d rounds to warm up; want %d records and 1", value, at.count, at.bytes, at.warmRounds, want)
		}
	}
	if s.bytes == 100 {
		t.Error("a point of the sweep changed the settings of the others")
	}
}
