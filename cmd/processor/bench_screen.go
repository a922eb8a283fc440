package main

import (
	"fmt"
	"time"
)

// newBenchScreen shows where a run is: lines that stay and, on a terminal, one that moves.
func newBenchScreen(c *cli) *benchScreen {
	return &benchScreen{cli: c, moves: isTerminal(c.stderr) && c.getenv("TERM") != "dumb"}
}

type benchScreen struct {
	*cli
	moves bool
	shown bool // the line that moves
	last  time.Time
}

const (
	benchDrawEvery = 200 * time.Millisecond
	eraseLine      = "\r\x1b[K"
)

// step writes a line that stays.
func (s *benchScreen) step(text string) {
	if s.shown {
		fmt.Fprint(s.stderr, eraseLine)
		s.shown = false
	}
	fmt.Fprintln(s.stderr, s.paint(s.stderr, gray, text))
}

// live moves the last line on.
func (s *benchScreen) live(format string, args ...any) {
	if !s.moves || time.Since(s.last) < benchDrawEvery {
		return
	}
	s.last, s.shown = time.Now(), true
	fmt.Fprint(s.stderr, eraseLine+s.paint(s.stderr, gray, fmt.Sprintf(format, args...)))
}
