package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"

	"pawl/internal/yardstick"
)

// chart is a picture of bars, in groups where there are several, each with a line from the least to the
// most of its runs. It is written by hand: a plotting library would bring fonts and three file formats
// for a few rectangles, and other bytes with each of its releases.
type chart struct {
	title  string
	verb   string // of a figure
	groups []chartGroup
	// apart: each group is of another figure and has its own scale; all its bars are of one peer.
	apart bool
}

type chartGroup struct {
	label string // empty where there is one group
	bars  []chartBar
}

type chartBar struct {
	label string
	yardstick.Spread
}

// The measures of a chart, in pixels.
const (
	chartWidth, chartLabels, chartFigures = 760, 150, 190
	barHeight, barGap, groupGap, titleTop = 18, 6, 26, 44
)

// colours of peers, by their place: told apart by colour-blind people too (Okabe and Ito).
var chartColours = []string{"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00"}

// svg draws the chart. The background is white, so that it can be read on a dark page.
func (c chart) svg() string {
	height := titleTop
	for _, group := range c.groups {
		height += len(group.bars)*(barHeight+barGap) + groupGap
	}
	scale := scaleOf(c.groups...)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" font-family="sans-serif" font-size="13">`+"\n", chartWidth, height)
	fmt.Fprintf(&b, `<title>%[1]s</title>`+"\n"+`<rect width="100%%" height="100%%" fill="#fff"/>`+"\n"+`<text x="10" y="24" font-size="15">%[1]s</text>`+"\n", escape(c.title))
	y := titleTop
	for _, group := range c.groups {
		if group.label != "" {
			fmt.Fprintf(&b, `<text x="10" y="%d" font-weight="bold">%s</text>`+"\n", y+10, escape(group.label))
			y += groupGap - barGap
		}
		if c.apart {
			scale = scaleOf(group)
		}
		for i, bar := range group.bars {
			if c.apart {
				i = 0
			}
			bar.draw(&b, y, scale, chartColours[i%len(chartColours)], c.verb)
			y += barHeight + barGap
		}
		y += barGap
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// scaleOf is the pixels of one, such that the longest bar fits.
func scaleOf(groups ...chartGroup) float64 {
	most := 0.0
	for _, group := range groups {
		for _, bar := range group.bars {
			most = max(most, bar.Most)
		}
	}
	return quotient(chartWidth-chartLabels-chartFigures, most)
}

func (bar chartBar) draw(b *strings.Builder, y int, scale float64, colour, verb string) {
	x := func(value float64) int { return chartLabels + int(math.Round(value*scale)) }
	middle := y + barHeight/2
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", chartLabels-8, y+barHeight-4, escape(bar.label))
	fmt.Fprintf(b, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`+"\n", chartLabels, y, x(bar.Median)-chartLabels, barHeight, colour)
	fmt.Fprintf(b, `<path d="M%[1]d %[2]dH%[3]dM%[1]d %[4]dV%[5]dM%[3]d %[4]dV%[5]d" stroke="#000"/>`+"\n", x(bar.Least), middle, x(bar.Most), middle-4, middle+4)
	fmt.Fprintf(b, `<text x="%d" y="%d">%s</text>`+"\n", x(bar.Most)+8, y+barHeight-4, escape(bar.Format(verb)))
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a strings.Builder takes everything
	return b.String()
}
