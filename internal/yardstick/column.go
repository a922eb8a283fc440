package yardstick

import "time"

// Column is one figure of the runs of a part: in tables, benchmarks and charts.
type Column[R Measured] struct {
	Title string // in a table
	Unit  string // in a benchmark; per-second units count as better when higher
	Verb  string
	Pick  func(R) float64
}

// Measured is a run of a peer.
type Measured interface{ By() string }

// Rows are the titles and then a row for each peer: its name and its figures.
func Rows[R Measured](peers []string, runs []R, columns []Column[R]) [][]string {
	all := make([][]string, 1+len(peers))
	all[0] = []string{"peer"}
	for i, peer := range peers {
		all[1+i] = []string{peer}
	}
	for _, c := range columns {
		all[0] = append(all[0], c.Title)
		for i, peer := range peers {
			all[1+i] = append(all[1+i], SpreadFor(runs, peer, c.Pick).Format(c.Verb))
		}
	}
	return all
}

// SpreadFor picks one figure from the runs of one peer.
func SpreadFor[R Measured](runs []R, peer string, pick func(R) float64) Spread {
	return Figures(runs, func(run R) bool { return run.By() == peer }, pick)
}

// Milliseconds is how latencies are shown.
func Milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
