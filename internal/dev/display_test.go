package dev

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

// terminal keeps a screen as a person sees it: it knows the few sequences that display writes.
type terminal struct {
	lines []string
	row   int
	shown []int // height of the picture after each write
}

var sequence = regexp.MustCompile(`^\x1b\[(\d*)([A-Za-z])`)

func (s *terminal) Write(p []byte) (int, error) {
	text := string(p)
	for text != "" {
		if match := sequence.FindStringSubmatch(text); match != nil {
			text = text[len(match[0]):]
			switch match[2] {
			case "A":
				var up int
				if _, err := fmt.Sscan(match[1], &up); err != nil {
					return 0, err
				}
				s.row -= up
				if s.row < 0 {
					return 0, errors.New("above the first line")
				}
			case "K":
				s.at(s.row)
				s.lines[s.row] = ""
			case "J":
				s.lines = s.lines[:min(s.row, len(s.lines))]
			case "m":
			default:
				return 0, fmt.Errorf("unknown sequence %q", match[0])
			}
			continue
		}
		switch text[0] {
		case '\r':
		case '\n':
			s.row++
		default:
			s.at(s.row)
			s.lines[s.row] += text[:1]
		}
		text = text[1:]
	}
	s.shown = append(s.shown, len(s.lines))
	return len(p), nil
}

func (s *terminal) at(row int) {
	for len(s.lines) <= row {
		s.lines = append(s.lines, "")
	}
}

func size(width, height int) func() (int, int) {
	return func() (int, int) { return width, height }
}

// A run on a terminal of 80x24: the block is redrawn in place, and its last state stays.
func TestDisplayMovesOnATerminal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var screen terminal
		d := openDisplay(Screen{Out: &screen, Size: size(80, 24)}, time.Now, "broker", "orders", "proof")
		broker := d.begin("broker", "choosing")
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		broker.say("starting\nApache Kafka")
		time.Sleep(1500 * time.Millisecond) //nolint:forbidigo // virtual time
		broker.done("Apache Kafka at 127.0.0.1:9092")
		orders := d.begin("orders", "20,000 in all")
		meter := d.meter("produced", "a second", 20_000)
		for n := range int64(20) {
			meter.set(n * 250)
			time.Sleep(100 * time.Millisecond) //nolint:forbidigo // virtual time
		}
		orders.fail("no broker")
		d.close()
		want := []string{
			"* broker      Apache Kafka at 127.0.0.1:9092                               2.5 s",
			"! orders      no broker                                                    2.0 s",
			"  proof",
			"",
			"  produced    [#####...................] 4,750 of 20,000 (2,500 a second)",
		}
		if got := strings.Join(screen.lines, "\n"); got != strings.Join(want, "\n") {
			t.Errorf("screen:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
		}
		if len(screen.shown) < 40 {
			t.Errorf("drawn %d times in 4.5 s, want ten times a second", len(screen.shown))
		}
	})
}

// Elsewhere each change is a line with the time of day, a long silence is broken, and no escape
// sequence is written.
func TestDisplayTellsLinesWithoutATerminal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		d := openDisplay(Screen{Out: &out, Color: true}, time.Now, "broker", "orders")
		broker := d.begin("broker", "choosing")
		broker.say("fetching the jars")
		broker.say("fetching the jars")
		time.Sleep(5 * time.Second) //nolint:forbidigo // virtual time
		broker.done("Apache Kafka")
		meter := d.meter("produced", "a second", 100)
		meter.set(0)
		time.Sleep(500 * time.Millisecond) //nolint:forbidigo // virtual time
		meter.set(50)
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		d.close()
		want := `00:00:00 broker      choosing
00:00:00 broker      fetching the jars
00:00:02 broker      fetching the jars ... 2.0 s
00:00:04 broker      fetching the jars ... 4.0 s
00:00:05 broker      Apache Kafka (5.0 s)
00:00:06 progress    produced 50 of 100 (100 a second)
`
		if out.String() != want {
			t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
		}
	})
}

// No line is wider than the terminal and no block higher, however small it is and whatever is told.
func TestDisplayFitsAnyTerminal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, dimensions := range [][2]int{{80, 24}, {40, 10}, {20, 5}, {8, 3}, {1, 1}, {300, 100}} {
			width, height := dimensions[0], dimensions[1]
			var screen terminal
			d := openDisplay(Screen{Out: &screen, Size: size(width, height), Color: true}, time.Now, "broker", "topics", "processors", "orders", "restart", "proof")
			d.begin("broker", strings.Repeat("a long story ", 20)).done(strings.Repeat("ünïcödé ", 40))
			d.begin("orders", "x").fail(strings.Repeat("bad ", 40))
			d.begin("proof", strings.Repeat("word", 100))
			d.meter("produced", "a second", 20_000_000).set(19_999_999)
			d.meter("lag", "", 0).set(1_234_567)
			time.Sleep(time.Second) //nolint:forbidigo // virtual time
			d.close()
			for _, line := range screen.lines {
				// screen keeps bytes; what it has is UTF-8
				if n := utf8.RuneCountInString(line); n > width {
					t.Errorf("%dx%d: a line of %d: %q", width, height, n, line)
				}
			}
			for _, lines := range screen.shown {
				if lines > max(height-1, 1) {
					t.Errorf("%dx%d: a block of %d lines", width, height, lines)
				}
			}
		}
	})
}

// NO_COLOR is honoured: without colour there is no SGR sequence.
func TestDisplayWritesNoColourUnasked(t *testing.T) {
	t.Parallel()
	for _, color := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			d := openDisplay(Screen{Out: &out, Size: size(80, 24), Color: color}, time.Now, "broker", "proof")
			d.begin("broker", "x").done("y")
			d.close()
			if got := regexp.MustCompile(`\x1b\[\d+m`).MatchString(out.String()); got != color {
				t.Errorf("colour %v: escape sequences %v: %q", color, got, out.String())
			}
		})
	}
}

func TestThousandsAreSeparated(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 7: "7", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234", -100: "-100"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %q, want %q", n, got, want)
		}
	}
}
