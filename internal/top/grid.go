package top

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// color is an SGR parameter (ECMA-48).
type color string

const (
	plain   color = ""
	red     color = "31"
	green   color = "32"
	yellow  color = "33"
	gray    color = "90"
	bold    color = "1"
	reverse color = "7"
)

func if1(condition bool, c color) color {
	if condition {
		return c
	}
	return plain
}

// span is text in one colour; a line is made of them.
type span struct {
	text  string
	color color
}

type line []span

func text(s string) line { return line{{s, plain}} }

// draw cuts a line to a width.
func (l line) draw(width int, colored bool) string {
	var b strings.Builder
	for _, s := range l {
		cut := shorten(s.text, width)
		width -= utf8.RuneCountInString(cut)
		if colored && s.color != plain && cut != "" {
			cut = "\x1b[" + string(s.color) + "m" + cut + "\x1b[0m"
		}
		b.WriteString(cut)
	}
	if colored {
		return b.String()
	}
	return strings.TrimRight(b.String(), " ")
}

func (l line) width() (width int) {
	for _, s := range l {
		width += utf8.RuneCountInString(s.text)
	}
	return width
}

// right puts a text at the right edge, where there is room.
func (l line) right(text string, width int) line {
	if room := width - l.width() - utf8.RuneCountInString(text); room > 0 {
		return append(l, span{strings.Repeat(" ", room) + text, gray})
	}
	return l
}

// column is one of a grid. One without a width takes what is left.
type column struct {
	title string
	width int
	right bool
}

// grid is a table. Its columns do not move when its values change.
type grid struct {
	columns []column
	rows    [][]span
	note    string // behind the title of the column without a width
}

// rest is a row whose last cells are one text.
func (g *grid) rest(row []span, text string) {
	full := make([]span, 0, len(g.columns)+1)
	full = append(full, row...)
	for len(full) < len(g.columns) {
		full = append(full, span{})
	}
	g.rows = append(g.rows, append(full, span{text, gray}))
}

// flexibleMin is what the column without a width has at least; what does not fit then is cut at the right.
const flexibleMin = 8

func (g *grid) draw(width int) []line {
	gap := 1
	if width >= wide {
		gap = 2
	}
	flexible := width + gap
	for _, c := range g.columns {
		flexible -= c.width + gap
	}
	flexible = max(flexibleMin, flexible)
	header := make([]span, 0, len(g.columns))
	for _, c := range g.columns {
		title := c.title
		if c.width == 0 && g.note != "" {
			title += "  " + g.note
		}
		header = append(header, span{title, plain})
	}
	var bar strings.Builder
	for _, s := range g.row(header, flexible, gap) {
		bar.WriteString(s.text)
	}
	full := shorten(strings.TrimRight(bar.String(), " "), width)
	lines := make([]line, 0, 1+len(g.rows))
	lines = append(lines, line{{full + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(full))), reverse}})
	for _, row := range g.rows {
		lines = append(lines, g.row(row, flexible, gap))
	}
	return lines
}

// row pads cells. What a row has beyond its columns follows behind the last cell that says something.
func (g *grid) row(cells []span, flexible, gap int) line {
	var l line
	for i, c := range g.columns {
		if i > 0 {
			l = append(l, span{strings.Repeat(" ", gap), plain})
		}
		if len(cells) > len(g.columns) && rest(cells[i:len(g.columns)]) {
			return append(l, cells[len(cells)-1])
		}
		width := c.width
		if width == 0 {
			width = flexible
		}
		cell := cells[i]
		cell.text = shorten(cell.text, width)
		pad := span{strings.Repeat(" ", width-utf8.RuneCountInString(cell.text)), plain}
		switch {
		case c.right:
			l = append(l, pad, cell)
		case i == len(g.columns)-1:
			l = append(l, cell)
		default:
			l = append(l, cell, pad)
		}
	}
	return l
}

// rest tells that no cell says anything.
func rest(cells []span) bool {
	for _, cell := range cells {
		if cell.text != "" {
			return false
		}
	}
	return true
}

// shorten cuts text and shows that it did.
func shorten(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	if width < 1 {
		return ""
	}
	return string([]rune(text)[:width-1]) + "~"
}

// clean makes somebody else's text safe for a terminal, and each sign of it one cell wide.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '.'
		}
		return r
	}, text)
}

// amount writes 1234567 as 1,234,567, and what is larger than that shorter.
func amount(n float64) string {
	switch {
	case n >= 1e12:
		return fmt.Sprintf("%.1fT", n/1e12)
	case n >= 1e10:
		return fmt.Sprintf("%.1fG", n/1e9)
	case n >= 1e7:
		return fmt.Sprintf("%.1fM", n/1e6)
	}
	digits := strconv.FormatInt(int64(n), 10)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

// rate writes a rate: small ones have a decimal.
func rate(n float64) string {
	if n > 0 && n < 10 {
		return strconv.FormatFloat(n, 'f', 1, 64)
	}
	return amount(n + 0.5)
}

func percent(share *float64) string {
	if share == nil {
		return "-"
	}
	return strconv.FormatFloat(*share*100, 'f', 1, 64) + "%"
}

func seconds(s float64) string { return brief(duration(s)) }

// brief writes a duration to two places or so.
func brief(d time.Duration) string {
	switch {
	case d <= 0:
		return "0s"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + "s"
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + "s"
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
	}
}
