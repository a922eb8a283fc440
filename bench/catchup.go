package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"pawl/internal/load"
	"pawl/internal/yardstick"
)

const (
	// catchUpRecords is the default backlog of a catch-up, and what one must have at least to be judged.
	catchUpRecords = 5_000_000
	// catchUpSteady is how many records the throughput run copies that a catch-up is compared with, at most: enough
	// for its start to weigh little.
	catchUpSteady = 2_000_000
	// tenths is into how many parts of the same size a backlog is cut.
	tenths = 10
)

// catchUpRun is a backlog that this project copied, and the throughput run of the same round.
type catchUpRun struct {
	Round   int               `json:"round"`
	Steady  yardstick.CopyRun `json:"steady"`
	Backlog yardstick.CopyRun `json:"backlog"`
	Tenths  []tenth           `json:"tenths"`
}

// tenth is a tenth of what was copied after the first commit.
type tenth struct {
	Rate     float64 `json:"records_per_second"`
	Resident float64 `json:"rss_mib"` // of all processes together, the most that was seen
}

// By names who copied.
func (run catchUpRun) By() string { return run.Backlog.Peer }

// rates is the spread of the tenths.
func (run catchUpRun) rates() yardstick.Spread {
	return yardstick.Figures(run.Tenths, func(tenth) bool { return true }, func(one tenth) float64 { return one.Rate })
}

// bySteady is the rate by that of the throughput run.
func (run catchUpRun) bySteady() float64 { return quotient(run.Backlog.Rate, run.Steady.Rate) }

// lastByMedian is the rate of the last tenth by the median of all.
func (run catchUpRun) lastByMedian() float64 {
	if len(run.Tenths) == 0 {
		return 0
	}
	return quotient(run.Tenths[len(run.Tenths)-1].Rate, run.rates().Median)
}

// growth is the memory in the last tenth by that in the second: in the first, the processes still make the
// buffers that they keep.
func (run catchUpRun) growth() float64 {
	if len(run.Tenths) < 2 {
		return 0
	}
	return quotient(run.Tenths[len(run.Tenths)-1].Resident, run.Tenths[1].Resident)
}

// quotient is 0 where there is nothing to divide by.
func quotient(value, by float64) float64 {
	if by <= 0 {
		return 0
	}
	return value / by
}

// catchUp fills a backlog and one that is no longer, once each, and lets this project copy both in every round, in turn.
func (s *stage) catchUp(ctx context.Context, programs programs, report *report) error {
	run := uint64(time.Now().UnixNano()) // tells this run's records from others
	copies := []*catchUpCopy{{name: "backlog", count: s.settings.backlog}, {name: "steady", count: min(s.settings.backlog, catchUpSteady)}}
	for _, c := range copies {
		in := c.in()
		if err := s.createTopic(ctx, in, s.settings.parts); err != nil {
			return err
		}
		s.progress(fmt.Sprintf("filling %s with %d records of %d bytes", in, c.count, s.settings.bytes))
		if err := s.Fill(ctx, in, load.PlainConfig{Run: run, Bytes: s.settings.bytes}, c.count, func(int64) {}); err != nil {
			return err
		}
	}
	p := newProcessorPeer(s.settings, programs)
	// One round warms the broker up: it is longer than those of the other parts.
	for turn, c := range yardstick.Turns(min(1, s.settings.warmRounds), s.settings.rounds, copies) {
		here := *s
		here.settings.count = c.count
		j := job{name: "bench-" + c.name + "-" + turn.Name(), brokers: s.brokers, in: c.in(), out: "bench-" + c.name + "-out-" + turn.Name()}
		c.track = track{}
		var err error
		if c.done, err = here.copyOnce(ctx, p, j, run, c.track.note); err != nil {
			return err
		}
		c.done.Round = turn.Round
		s.progress(fmt.Sprintf("catch-up, %s: %s: %.0f records/s, %.0f MiB", turn, c.name, c.done.Rate, c.done.Peak))
		if turn.Counts() && turn.Place == len(copies)-1 {
			backlog, steady := copies[0], copies[1]
			report.CatchUps = append(report.CatchUps, catchUpRun{
				Round: turn.Round, Steady: steady.done, Backlog: backlog.done, Tenths: backlog.track.tenths(backlog.count),
			})
		}
	}
	for _, c := range copies {
		if err := s.deleteTopic(ctx, c.in()); err != nil {
			return err
		}
	}
	return nil
}

// catchUpCopy is one of the two copies of a round.
type catchUpCopy struct {
	name  string
	count int64
	done  yardstick.CopyRun
	track track
}

func (c *catchUpCopy) in() string { return "bench-" + c.name + "-in" }

// track is how far a copy was at what time, and how much memory it had.
type track struct{ sightings []sighting }

type sighting struct {
	at       time.Time
	records  int64
	resident float64 // MiB
}

// note takes a sighting. Before the first commit there is none, and none where the broker would not tell.
func (t *track) note(processes []*yardstick.Process, records int64) {
	t.add(sighting{time.Now(), records, float64(yardstick.ResidentKiB(processes)) / 1024})
}

func (t *track) add(seen sighting) {
	if seen.records > 0 {
		t.sightings = append(t.sightings, seen)
	}
}

// tenths cuts what was copied after the first commit. Between two sightings the records count as copied
// evenly; a commit has many more than come between two.
func (t *track) tenths(count int64) []tenth {
	if len(t.sightings) == 0 || t.sightings[0].records >= count {
		return nil
	}
	first := t.sightings[0]
	size := float64(count-first.records) / tenths
	parts := make([]tenth, 0, tenths)
	begun, next := first.at, 1
	for i := range tenths {
		bound := float64(first.records) + size*float64(i+1)
		most := t.sightings[next-1].resident
		for next < len(t.sightings)-1 && float64(t.sightings[next].records) < bound {
			most = max(most, t.sightings[next].resident)
			next++
		}
		reached := t.sightings[next].passed(t.sightings[next-1], bound)
		parts = append(parts, tenth{Rate: quotient(size, reached.Sub(begun).Seconds()), Resident: max(most, t.sightings[next].resident)})
		begun = reached
	}
	return parts
}

// passed is when a number of records was reached that lies between this sighting and the one before.
func (s sighting) passed(before sighting, records float64) time.Time {
	share := min(1, quotient(records-float64(before.records), float64(s.records-before.records)))
	return before.at.Add(time.Duration(share * float64(s.at.Sub(before.at))))
}

var catchUpColumns = []yardstick.Column[catchUpRun]{
	{Title: "records/s", Unit: "records/s", Verb: "%.0f", Pick: func(run catchUpRun) float64 { return run.Backlog.Rate }},
	{Title: "steady records/s", Unit: "steady-records/s", Verb: "%.0f", Pick: func(run catchUpRun) float64 { return run.Steady.Rate }},
	{Title: "by steady", Unit: "by-steady", Verb: "%.2f", Pick: catchUpRun.bySteady},
	{Title: "slowest tenth", Unit: "slowest-records/s", Verb: "%.0f", Pick: func(run catchUpRun) float64 { return run.rates().Least }},
	{Title: "median tenth", Unit: "median-records/s", Verb: "%.0f", Pick: func(run catchUpRun) float64 { return run.rates().Median }},
	{Title: "fastest tenth", Unit: "fastest-records/s", Verb: "%.0f", Pick: func(run catchUpRun) float64 { return run.rates().Most }},
	{Title: "last by median tenth", Unit: "last-by-median", Verb: "%.2f", Pick: catchUpRun.lastByMedian},
	{Title: "peak MiB a process", Unit: "peak-MiB", Verb: "%.0f", Pick: func(run catchUpRun) float64 { return run.Backlog.Peak }},
	{Title: "memory, last by second tenth", Unit: "growth", Verb: "%.2f", Pick: catchUpRun.growth},
}

// tenthsOf is the spread of a figure at each tenth, with its label.
func (r *report) tenthsOf(pick func(tenth) float64) []chartBar {
	bars := make([]chartBar, tenths)
	for i := range bars {
		runs := slices.DeleteFunc(slices.Clone(r.CatchUps), func(run catchUpRun) bool { return len(run.Tenths) <= i })
		figures := yardstick.Figures(runs, func(catchUpRun) bool { return true }, func(run catchUpRun) float64 { return pick(run.Tenths[i]) })
		bars[i] = chartBar{fmt.Sprintf("tenth %d", i+1), figures}
	}
	return bars
}

func tenthRate(one tenth) float64     { return one.Rate }
func tenthResident(one tenth) float64 { return one.Resident }

// tenthRows are a table of the tenths.
func (r *report) tenthRows() [][]string {
	rates, memory := r.tenthsOf(tenthRate), r.tenthsOf(tenthResident)
	rows := make([][]string, 1+tenths)
	rows[0] = []string{"tenth of the backlog", "records/s", "MiB, all processes"}
	for i := range rates {
		rows[1+i] = []string{rates[i].label, rates[i].Format("%.0f"), memory[i].Format("%.0f")}
	}
	return rows
}
