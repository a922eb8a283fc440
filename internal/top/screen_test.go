package top

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pawl/internal/testkit/golden"
)

// busy is three processes, of which one is starting and one is away, with trouble of each kind.
func busy(partitions int) Snapshot {
	s := Snapshot{
		At: noon, In: 12345.4, Out: 24690.2, Rejected: 1.24, Committed: 41.23, AbortRatio: new(0.0123), Lag: 1_234_567, Seconds: 75.3, LagUnknown: 1, Held: 12, Open: 0.42,
		LastCommit: noon.Add(-300 * time.Millisecond), Version: "v1.2.3", Config: mixed, Ledger: Up,
		Processes: []ProcessView{
			{Process: "pawl-0.pawl.svc:9090", State: StateReady, Phases: map[string]int{"polling": 3, "working": 1}, Partitions: 6, In: 6000, Committed: 20.5, AbortRatio: new(0.0003), Lag: 1234, KafkaUp: true},
			{Process: "pawl-1.pawl.svc:9090", State: StateNotReady, Why: "group: not every lane is in the consumer group yet", KafkaUp: true},
			{Process: "pawl-2.pawl.svc:9090", State: StateUnreachable, Why: "ask http://pawl-2.pawl.svc:9090: dial tcp: connect: connection refused"},
			{Process: "pawl-3.pawl.svc:9090", State: StateReady, Phases: map[string]int{"working": 4}, Partitions: 6, In: 6345.4, Committed: 20.7, AbortRatio: new(0.2), Lag: 1_233_333, KafkaUp: false},
		},
		Endpoints: []EndpointSum{
			{Endpoint: "mail", Known: false, Limit: 8, Breaker: "closed"},
			{Endpoint: "payments", Known: true, Pending: 100_000, Parked: 12, Dead: 1, Oldest: 3725, InFlight: 64, Limit: 64, Calls: 0.4, Breaker: "open"},
			{Endpoint: "refunds", Known: true},
		},
		Pauses: []Pause{
			{Target: "input/orders/5", Actor: "ann@host-1", Reason: "bad \x1b[2J data", Since: noon.Add(-3 * time.Hour), Expected: noon.Add(-2 * time.Hour)},
			{Target: "endpoint/refunds", Actor: "bob@10.0.0.7", Reason: "maintenance", Since: noon.Add(-5 * time.Minute), Until: noon.Add(time.Hour), Expected: noon.Add(time.Hour)},
		},
		Aborts: []Abort{{noon.Add(-time.Second), "pawl-3.pawl.svc:9090", "aborted", "rebalance", 2}, {noon.Add(-70 * time.Second), "pawl-0.pawl.svc:9090", "unknown", "offsets", 1}},
		Totals: []AbortTotal{{"aborted", "rebalance", 12}, {"unknown", "offsets", 1}},
	}
	for i := range partitions {
		p := Partition{Topic: "orders", Partition: int32(i), Lag: new(float64(i * i * 100)), Seconds: new(float64(i)), Process: s.Processes[3*(i%2)].Process, Lane: i % 4, Phase: "working"}
		switch i {
		case 2:
			p.Halted = "offset out of range: \x1b[2J see `processor offsets show`"
		case 3:
			p.Lag, p.Seconds = nil, nil
		case 4:
			p.Held, p.Seconds = 12, new(75.3)
		case 5:
			p.Paused = true
		}
		s.Partitions = append(s.Partitions, p)
	}
	return s
}

// away is two processes without a ledger, of which the second reached it last.
func away() Snapshot {
	f := NewFleet([]string{"a", "b", "c"})
	for i, down := range []time.Duration{time.Hour, 754 * time.Second, 2 * time.Hour} {
		one := told([]string{"a", "b", "c"}[i], 0, 0)
		one.Ledger, one.LedgerDown = Down, down
		f.Add(one)
	}
	return f.Snapshot(noon)
}

func screen(width, height int) Screen {
	return Screen{Width: width, Height: height, Title: "shop", Every: time.Second, Since: noon.Add(-5 * time.Minute), Sort: ByLag}
}

func TestScreensLookLikeThis(t *testing.T) {
	t.Parallel()
	quiet := NewFleet([]string{"127.0.0.1:9090"})
	quiet.Add(told("127.0.0.1:9090", 0, 0))
	for name, test := range map[string]struct {
		screen   Screen
		snapshot Snapshot
	}{
		"busy-80x24.txt":  {screen(80, 24), busy(12)},
		"busy-120x40.txt": {screen(120, 40), busy(12)},
		"few-120x40.txt":  {screen(120, 40), busy(3)},
		"quiet-80x24.txt": {screen(80, 24), quiet.Snapshot(noon)},
		"away-80x24.txt":  {screen(80, 24), away()},
		"help-80x24.txt":  {func() Screen { sc := screen(80, 24); sc.Help = true; return sc }(), busy(12)},
		"scrolled-80x24.txt": {func() Screen {
			sc := screen(80, 24)
			sc.Sort, sc.Offset, sc.Paused = ByName, 5, true
			return sc
		}(), busy(12)},
	} {
		golden.Is(t, filepath.Join("testdata", name), test.screen.Draw(test.snapshot)+"\n")
	}
}

// How long a pause has lasted and will last is seen on a terminal of 80 columns, however much was written about it.
func TestPauseTellsWhenItEnds(t *testing.T) {
	t.Parallel()
	for want, one := range map[string]Pause{
		"! paused by operators: input/orders/5 (since 5m00s, ends by itself in 12m00s, ":  {Until: noon.Add(12 * time.Minute), Expected: noon.Add(12 * time.Minute)},
		"! paused by operators: input/orders/5 (since 5m00s, ends by itself in 0s, ann: ": {Until: noon.Add(-time.Second), Expected: noon.Add(-time.Second)},
		"! paused by operators: input/orders/5 (since 5m00s, overdue by 2m00s, ann: ":     {Expected: noon.Add(-2 * time.Minute)},
		"! paused by operators: input/orders/5 (since 5m00s, ann: a long story":           {Expected: noon.Add(time.Minute)},
	} {
		one.Target, one.Actor, one.Reason, one.Since = "input/orders/5", "ann", strings.Repeat("a long story, ", 20), noon.Add(-5*time.Minute)
		s := busy(3)
		s.Pauses = []Pause{one}
		drawn := screen(80, 24).Draw(s)
		if !strings.Contains(drawn, "\n"+want) {
			t.Errorf("drawn is\n%s\nwant in it: %s", drawn, want)
		}
	}
}

// Without a terminal nothing is left out, and no key is offered.
func TestPrintLeavesNothingOut(t *testing.T) {
	t.Parallel()
	printed := screen(120, 0).Print(busy(40))
	for i := range 40 {
		if !strings.Contains(printed, fmt.Sprintf("\norders/%d ", i)) {
			t.Errorf("orders/%d is not there", i)
		}
	}
	golden.Is(t, "testdata/print-120.txt", screen(120, 0).Print(busy(4)))
}

var sgr = regexp.MustCompile("\x1b\\[[0-9]+m")

// Whatever the size: exactly as many lines as there are, none wider, and nothing in them that moves the cursor.
func TestScreensFitEverySize(t *testing.T) {
	t.Parallel()
	for _, size := range [][2]int{{1, 1}, {39, 24}, {40, 12}, {60, 15}, {80, 11}, {80, 20}, {80, 24}, {81, 25}, {112, 30}, {132, 43}, {300, 100}} {
		for _, partitions := range []int{0, 1, 12, 1000} {
			for _, help := range []bool{false, true} {
				sc := screen(size[0], size[1])
				sc.Help, sc.Color, sc.Offset = help, true, 5000
				drawn := sc.Draw(busy(partitions))
				lines := strings.Split(drawn, "\n")
				if len(lines) != sc.Height {
					t.Errorf("%v, %d partitions: %d lines", size, partitions, len(lines))
				}
				for _, line := range lines {
					bare := sgr.ReplaceAllString(line, "")
					if utf8.RuneCountInString(bare) > sc.Width || strings.ContainsAny(bare, "\x1b\r\t") {
						t.Errorf("%v, %d partitions: %q", size, partitions, line)
					}
				}
			}
		}
	}
}

// Colour says nothing that the text does not say.
func TestColourOnlyColours(t *testing.T) {
	t.Parallel()
	sc := screen(100, 30)
	bare := sc.Draw(busy(12))
	sc.Color = true
	painted := sc.Draw(busy(12))
	if painted == bare || !strings.Contains(painted, "\x1b[31m") {
		t.Error("nothing is painted")
	}
	var stripped []string
	for line := range strings.SplitSeq(sgr.ReplaceAllString(painted, ""), "\n") {
		stripped = append(stripped, strings.TrimRight(line, " "))
	}
	if strings.Join(stripped, "\n") != bare {
		t.Errorf("the painted screen reads\n%s\nthe plain one\n%s", strings.Join(stripped, "\n"), bare)
	}
}

func TestPartitionsAreSorted(t *testing.T) {
	t.Parallel()
	s := busy(6)
	for sort, want := range map[Sort]string{
		ByLag: "[3 5 4 2 1 0]", ByOldest: "[3 4 5 2 1 0]", ByName: "[0 1 2 3 4 5]", ByProcess: "[0 2 4 1 3 5]",
	} {
		var got []int32
		sort.order(s, s.Partitions)
		for _, p := range s.Partitions {
			got = append(got, p.Partition)
		}
		if fmt.Sprint(got) != want {
			t.Errorf("%s: %v, want %s", sort, got, want)
		}
	}
}

func TestNumbersAreShort(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]string{
		"0": amount(0), "999": amount(999), "1,000": amount(1000), "1,234,567": amount(1234567), "12.3M": amount(12345678), "12.3G": amount(12345678901), "1.2T": amount(1234567890123),
		"0.4": rate(0.44), "9.9": rate(9.94), "12": rate(12.3), "-": percent(nil), "1.2%": percent(new(0.0123)), "0s": seconds(0), "0.3s": seconds(0.3), "42s": seconds(42.9),
		"2m05s": seconds(125), "1h02m": seconds(3725), "3d04h": seconds(3*86400 + 4*3600),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
