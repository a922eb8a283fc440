package dev

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	drawEvery  = 100 * time.Millisecond // on a terminal
	tellEvery  = 2 * time.Second        // elsewhere: a stage that is still at work says so
	rateWindow = 2 * time.Second        // over which a meter's rate is taken
	nameWidth  = 11
	barWidth   = 24
)

// state of a stage.
type state int

const (
	pending state = iota
	working
	done
	failed
)

// display shows the stages of a run and its meters: as a block that moves on a terminal, as lines
// with the time of day elsewhere. Its methods may be called from any goroutine.
type display struct {
	out      io.Writer
	terminal bool
	color    bool
	size     func() (width, height int)
	now      func() time.Time

	mutex  sync.Mutex
	stages []*stage
	meters []*meter
	drawn  int       // lines of the block on the screen
	turn   int       // of the spinner
	told   time.Time // of the last line about a stage at work

	stop chan struct{}
	wait sync.WaitGroup
}

// stage is one step of a run.
type stage struct {
	display *display
	name    string
	detail  string
	state   state
	began   time.Time
	ended   time.Time
}

// meter is a number that grows, shown below the stages.
type meter struct {
	display *display
	name    string
	unit    string // of the rate; empty for a meter without one
	value   int64
	total   int64 // 0 where there is none
	samples []sample
}

type sample struct {
	at    time.Time
	value int64
}

// openDisplay begins to show. Names are all stages there will be, so that a person sees what is to
// come. Close it in any case.
func openDisplay(screen Screen, now func() time.Time, names ...string) *display {
	d := &display{
		out: screen.Out, terminal: screen.Size != nil, color: screen.Color, size: screen.Size,
		now: now, stop: make(chan struct{}), told: now(),
	}
	for _, name := range names {
		d.stages = append(d.stages, &stage{display: d, name: name})
	}
	d.wait.Go(d.run)
	return d
}

// run redraws until close.
func (d *display) run() {
	every := tellEvery
	if d.terminal {
		every = drawEvery
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			d.mutex.Lock()
			d.turn++
			if d.terminal {
				d.draw()
			} else {
				d.tellMeters()
			}
			d.mutex.Unlock()
		case <-d.stop:
			return
		}
	}
}

// close shows the last state and leaves it on the screen.
func (d *display) close() {
	close(d.stop)
	d.wait.Wait()
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.terminal {
		d.draw()
	}
}

// stage begins a stage by its name.
func (d *display) begin(name, detail string) *stage {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	at := slices.IndexFunc(d.stages, func(s *stage) bool { return s.name == name })
	if at < 0 {
		at = len(d.stages)
		d.stages = append(d.stages, &stage{display: d, name: name})
	}
	s := d.stages[at]
	s.state, s.detail, s.began = working, detail, d.now()
	d.tell(name, detail)
	return s
}

// say tells what a stage is doing now.
func (s *stage) say(detail string) {
	s.display.mutex.Lock()
	defer s.display.mutex.Unlock()
	if s.detail != detail {
		s.detail = detail
		s.display.tell(s.name, detail)
	}
}

// done ends a stage well.
func (s *stage) done(detail string) { s.end(done, detail, "") }

// fail ends a stage badly. The error itself is the caller's to print.
func (s *stage) fail(detail string) { s.end(failed, detail, "FAILED ") }

func (s *stage) end(to state, detail, mark string) {
	s.display.mutex.Lock()
	defer s.display.mutex.Unlock()
	s.state, s.detail, s.ended = to, detail, s.display.now()
	s.display.tell(s.name, fmt.Sprintf("%s%s (%s)", mark, detail, seconds(s.ended.Sub(s.began))))
}

// meter adds a number to show.
func (d *display) meter(name, unit string, total int64) *meter {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	m := &meter{display: d, name: name, unit: unit, total: total}
	d.meters = append(d.meters, m)
	return m
}

// set gives a meter its value.
func (m *meter) set(value int64) {
	m.display.mutex.Lock()
	defer m.display.mutex.Unlock()
	now := m.display.now()
	m.value = value
	m.samples = append(m.samples, sample{now, value})
	for len(m.samples) > 2 && now.Sub(m.samples[1].at) > rateWindow {
		m.samples = m.samples[1:]
	}
}

// rate is the growth per second over the last samples.
func (m *meter) rate() float64 {
	if len(m.samples) < 2 {
		return 0
	}
	first, last := m.samples[0], m.samples[len(m.samples)-1]
	if span := last.at.Sub(first.at).Seconds(); span > 0 {
		return max(float64(last.value-first.value)/span, 0)
	}
	return 0
}

// tell writes a line where there is no terminal. The mutex is held.
func (d *display) tell(name, text string) {
	d.told = d.now()
	if !d.terminal {
		fmt.Fprintf(d.out, "%s %-*s %s\n", d.now().Format(time.TimeOnly), nameWidth, name, text)
	}
}

// tellMeters writes the meters, or which stage is still at work, where there is no terminal and
// nothing was told for a while. The mutex is held.
func (d *display) tellMeters() {
	parts := make([]string, 0, len(d.meters))
	for _, m := range d.meters {
		parts = append(parts, m.text())
	}
	if len(parts) > 0 {
		d.tell("progress", strings.Join(parts, ", "))
		return
	}
	if d.now().Sub(d.told) < tellEvery {
		return
	}
	for _, s := range d.stages {
		if s.state == working {
			d.tell(s.name, fmt.Sprintf("%s ... %s", s.detail, seconds(d.now().Sub(s.began))))
			return
		}
	}
}

func (m *meter) text() string {
	text := m.name + " " + thousands(m.value)
	if m.total > 0 {
		text += " of " + thousands(m.total)
	}
	if m.unit != "" && (m.total == 0 || m.value < m.total) {
		text += fmt.Sprintf(" (%s %s)", thousands(int64(m.rate())), m.unit)
	}
	return text
}

// draw writes the block over the last one. The mutex is held.
func (d *display) draw() {
	width, height := d.size()
	lines := d.block(width)
	// A block that is higher than the screen could not be drawn over: its end is what moves.
	lines = lines[max(0, len(lines)-max(height-1, 1)):]
	var b bytes.Buffer
	if d.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", d.drawn) // up to its first line
	}
	for _, line := range lines {
		b.WriteString("\r\x1b[K") // clear the line
		b.WriteString(line)
		b.WriteByte('\n')
	}
	b.WriteString("\x1b[J") // and whatever is left of a higher block
	d.drawn = len(lines)
	_, _ = d.out.Write(b.Bytes()) // a terminal that is gone has nobody to tell
}

// The colours of ECMA-48.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	gray   = "90"
)

func (d *display) paint(color, text string) string {
	if !d.color || text == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// block gives the lines of stages and meters, none wider than width.
func (d *display) block(width int) []string {
	var lines []string
	for _, s := range d.stages {
		lines = append(lines, d.stageLine(s, width))
	}
	meters := make([]string, 0, len(d.meters))
	for _, m := range d.meters {
		meters = append(meters, d.meterLine(m, width))
	}
	if len(meters) > 0 {
		lines = append(append(lines, ""), meters...)
	}
	return lines
}

func (d *display) stageLine(s *stage, width int) string {
	var mark, color, took string
	switch s.state {
	case working:
		mark, color, took = string(`|/-\`[d.turn%4]), yellow, seconds(d.now().Sub(s.began))
	case done:
		mark, color, took = "*", green, seconds(s.ended.Sub(s.began))
	case failed:
		mark, color, took = "!", red, seconds(s.ended.Sub(s.began))
	default:
		return d.paint(gray, fit("  "+s.name, width))
	}
	const gaps = 1 + 1 + 1 + 1 // mark, space, space before the detail, space before the time
	room := width - nameWidth - len(took) - gaps
	if room < 1 {
		return fit(mark+" "+s.name, width)
	}
	return d.paint(color, mark) + fmt.Sprintf(" %-*s ", nameWidth, s.name) + pad(fit(oneLine(s.detail), room), room) + " " + d.paint(gray, took)
}

func (d *display) meterLine(m *meter, width int) string {
	line := fmt.Sprintf("  %-*s ", nameWidth, m.name)
	if m.total == 0 {
		return fit(line+m.text()[len(m.name)+1:], width)
	}
	full := int(min(m.value, m.total) * barWidth / m.total)
	bar := strings.Repeat("#", full) + strings.Repeat(".", barWidth-full)
	rest := " " + m.text()[len(m.name)+1:]
	if len(line)+barWidth+2+utf8.RuneCountInString(rest) > width {
		return fit(line+rest[1:], width)
	}
	return line + "[" + d.paint(green, bar[:full]) + bar[full:] + "]" + rest
}

// oneLine makes any text one line.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// fit cuts text to width runes.
func fit(text string, width int) string {
	if width < 1 {
		return ""
	}
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	runes := []rune(text)
	if width <= 3 {
		return string(runes[:width])
	}
	return string(runes[:width-3]) + "..."
}

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

// seconds writes a duration as 0.1 s.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// thousands writes 1234567 as 1,234,567.
func thousands(n int64) string {
	text := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, text = "-", text[1:]
	}
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return sign + text
}
