package yardstick

import (
	"fmt"
	"slices"
)

// Spread is the median of several runs and how far they lie apart.
type Spread struct {
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
}

// SpreadOf is that of values; all 0 where there are none.
func SpreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return Spread{Median: median, Least: sorted[0], Most: sorted[len(sorted)-1]}
}

// Figures picks one figure from the runs of one peer.
func Figures[T any](runs []T, mine func(T) bool, pick func(T) float64) Spread {
	var values []float64
	for _, run := range runs {
		if mine(run) {
			values = append(values, pick(run))
		}
	}
	return SpreadOf(values)
}

// Format writes "median (least..most)".
func (s Spread) Format(verb string) string {
	return fmt.Sprintf(verb+" ("+verb+".."+verb+")", s.Median, s.Least, s.Most)
}
