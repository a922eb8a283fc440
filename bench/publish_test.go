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
		"5000 records/s:", "1000.0 (1000.0..1000.0)", "### Targets", "| missed |",
	} {
		if !strings.Contains(string(text), part) {
			t.Errorf("the page lacks %q:\n%s", part, text)
		}
	}
	shown := regexp.MustCompile(`!\[.*\]\((.*\.svg)\)`).FindAllStringSubmatch(string(text), -1)
	if len(shown) != 5 {
		t.Errorf("%d charts are shown, want those of throughput, CPU, latency and two sweeps", len(shown))
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
	line := regexp.MustCompile(`^Benchmark[^ ]+/peer=[a-z-]+-2 [0-9]+( [0-9.e+-]+ [^ ]+)+$`)
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
	if lines != 6+6+2+1 {
		t.Errorf("%d lines, want one for each of 15 runs\n%s", lines, text)
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
