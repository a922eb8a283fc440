package top

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Sort is the order of the partitions.
type Sort string

// The orders. Of what is a number, the largest comes first.
const (
	ByLag     Sort = "lag"
	ByOldest  Sort = "oldest"
	ByName    Sort = "name"
	ByProcess Sort = "process"
)

// Sorts lists them in the order in which a key goes through them.
func Sorts() []Sort { return []Sort{ByLag, ByOldest, ByName, ByProcess} }

// Screen says how a snapshot is shown.
type Screen struct {
	Width, Height int
	Color         bool
	Title         string // of the application, where that is known
	Every         time.Duration
	Since         time.Time // when looking began
	Sort          Sort
	Offset        int // of the first partition that is shown
	Paused        bool
	Help          bool
}

const (
	widthMin   = 40
	heightMin  = 12
	versionMax = 20  // a version between releases is long, and the time behind it is wanted more
	wide       = 112 // from here on there is room for names and lanes
)

// Draw gives exactly Height lines, none wider than Width.
func (sc Screen) Draw(s Snapshot) string {
	if sc.Width < widthMin || sc.Height < heightMin {
		return sc.fit([]line{text(fmt.Sprintf("%dx%d is too small, want %dx%d or more", sc.Width, sc.Height, widthMin, heightMin))})
	}
	if sc.Help {
		return sc.fit(sc.help())
	}
	return sc.fit(sc.body(s))
}

// fit cuts lines to the screen and fills it up, the last line at the bottom.
func (sc Screen) fit(lines []line) string {
	if last := len(lines) - 1; len(lines) < sc.Height && last > 0 {
		lines = slices.Concat(lines[:last], make([]line, sc.Height-len(lines)), lines[last:])
	}
	drawn := make([]string, sc.Height)
	for i := range drawn {
		if i < len(lines) {
			drawn[i] = lines[i].draw(sc.Width, sc.Color)
		}
	}
	return strings.Join(drawn, "\n")
}

// layout says how many rows each table has.
type layout struct{ processes, partitions, endpoints, aborts int }

// body gives all lines, the keys last.
func (sc Screen) body(s Snapshot) []line {
	lines := sc.head(s)
	lines = append(lines, sc.tables(s, sc.layout(s, sc.Height-len(lines)-1))...)
	return append(lines, sc.keyLine())
}

// Print gives all there is to see, for somebody who has no terminal: as many lines as it takes, Width wide.
func (sc Screen) Print(s Snapshot) string {
	all := layout{processes: len(s.Processes), partitions: len(s.Partitions), endpoints: len(s.Endpoints), aborts: max(1, len(s.Aborts))}
	var b strings.Builder
	for _, l := range slices.Concat(sc.head(s), sc.tables(s, all)) {
		b.WriteString(l.draw(sc.Width, sc.Color) + "\n")
	}
	return b.String()
}

func (sc Screen) head(s Snapshot) []line {
	return append([]line{sc.titleLine(s), rateLine(s), lagLine(s)}, sc.warnings(s)...)
}

func (sc Screen) tables(s Snapshot, l layout) []line {
	lines := sc.processTable(s, l.processes)
	lines = append(lines, sc.partitionTable(s, l.partitions)...)
	if l.endpoints > 0 {
		lines = append(lines, sc.endpointTable(s, l.endpoints)...)
	}
	if l.aborts > 0 {
		lines = append(lines, sc.abortTable(s, l.aborts)...)
	}
	return lines
}

// layout gives room away: everybody has a few rows, the partitions what is left, and what they do not need the aborts.
func (sc Screen) layout(s Snapshot, room int) layout {
	few := max(2, sc.Height/8)
	l := layout{processes: min(len(s.Processes), max(2, sc.Height/6)), endpoints: min(len(s.Endpoints), few), aborts: min(max(1, len(s.Aborts)), few)}
	left := func() int {
		used := 1 + l.processes + 1
		for _, rows := range []int{l.endpoints, l.aborts} {
			if rows > 0 {
				used += 1 + rows
			}
		}
		return room - used
	}
	const partitionsMin = 3
	if left() < partitionsMin {
		l.aborts = 0
	}
	if left() < partitionsMin {
		l.endpoints = 0
	}
	l.partitions = max(1, min(left(), max(1, len(s.Partitions))))
	if spare := left() - l.partitions; l.aborts > 0 && spare > 0 {
		l.aborts += min(spare, max(0, len(s.Aborts)-l.aborts))
	}
	return l
}

// partitionRows is how many partitions the screen shows.
func (sc Screen) partitionRows(s Snapshot) int {
	return sc.layout(s, sc.Height-len(sc.head(s))-1).partitions
}

func (sc Screen) titleLine(s Snapshot) line {
	ready := 0
	for _, p := range s.Processes {
		if p.State == StateReady {
			ready++
		}
	}
	state := green
	if ready < len(s.Processes) {
		state = red
	}
	left := line{{"pawl top", bold}}
	if sc.Title != "" {
		left = append(left, span{"  " + sc.Title, bold})
	}
	left = append(left, span{fmt.Sprintf("  %d of %d ready", ready, len(s.Processes)), state}, span{"  " + shorten(clean(cmp.Or(s.Version, "-")), versionMax), plain})
	if sc.Paused {
		left = append(left, span{"  PAUSED", yellow})
	}
	right := s.At.Format(time.TimeOnly) + "  every " + sc.Every.String()
	return left.right(right, sc.Width)
}

func rateLine(s Snapshot) line {
	return line{
		{"in ", gray},
		{rate(s.In) + "/s", plain},
		{"  out ", gray},
		{rate(s.Out) + "/s", plain},
		{"  transactions ", gray},
		{rate(s.Committed) + "/s", plain},
		{"  aborted ", gray},
		{percent(s.AbortRatio), if1(s.AbortRatio != nil && *s.AbortRatio > 0.1, red)},
		{"  rejected ", gray},
		{rate(s.Rejected) + "/s", if1(s.Rejected > 0, yellow)},
	}
}

func lagLine(s Snapshot) line {
	lag := amount(s.Lag)
	if s.LagUnknown > 0 {
		lag += fmt.Sprintf(" +%d unknown", s.LagUnknown)
	}
	last := "never"
	if !s.LastCommit.IsZero() {
		last = brief(s.At.Sub(s.LastCommit)) + " ago"
	}
	return line{
		{"lag ", gray},
		{lag, plain},
		{"  oldest ", gray},
		{seconds(s.Seconds), if1(s.Seconds > 60, red)},
		{"  held ", gray},
		{amount(s.Held), if1(s.Held > 0, yellow)},
		{"  open ", gray},
		{seconds(s.Open), plain},
		{"  commit ", gray},
		{last, plain},
	}
}

const warningsMax = 2

// warnings are what no number shows.
func (sc Screen) warnings(s Snapshot) []line {
	var told []string
	for _, p := range s.Partitions {
		if p.Halted != "" {
			told = append(told, p.Name()+" is halted: "+p.Halted)
		}
	}
	away := 0
	for _, p := range s.Processes {
		if (p.State == StateReady || p.State == StateNotReady) && !p.KafkaUp {
			away++
		}
	}
	if away > 0 {
		told = append(told, fmt.Sprintf("the brokers do not answer %d of %d processes", away, len(s.Processes)))
	}
	if s.Ledger == Down {
		since := ""
		if s.LedgerDown > 0 {
			since = " for " + strings.TrimSpace(seconds(s.LedgerDown))
		}
		told = append(told, "no ledger"+since+": effects wait; see `processor migrate status`")
	}
	if s.Version == mixed {
		told = append(told, "the processes run different versions")
	}
	if s.Config == mixed {
		told = append(told, "the processes run with different configurations")
	}
	if len(told) > warningsMax {
		told = append(told[:warningsMax-1], fmt.Sprintf("%s; and %d more", told[warningsMax-1], len(told)-warningsMax))
	}
	lines := make([]line, 0, len(told)+1)
	if len(s.Pauses) > 0 {
		lines = append(lines, line{{"! " + clean(pausesLine(s)), yellow}})
	}
	for _, one := range told {
		lines = append(lines, line{{"! " + clean(one), red}})
	}
	return lines
}

// pausesLine names what operators have stopped: the targets first, then since when and for how long, because the line
// may be cut and people write much.
func pausesLine(s Snapshot) string {
	names, whys := make([]string, len(s.Pauses)), make([]string, len(s.Pauses))
	for i, p := range s.Pauses {
		names[i] = p.Target
		whys[i] = "since " + brief(s.At.Sub(p.Since))
		switch {
		case !p.Until.IsZero():
			whys[i] += ", ends by itself in " + brief(p.Until.Sub(s.At))
		case !p.Expected.IsZero() && s.At.After(p.Expected):
			whys[i] += ", overdue by " + brief(s.At.Sub(p.Expected))
		}
		whys[i] += ", " + p.Actor + ": " + p.Reason
	}
	return "paused by operators: " + strings.Join(names, ", ") + " (" + strings.Join(whys, "; ") + ")"
}

// holds reports whether operators hold an endpoint.
func (s Snapshot) holds(endpoint string) bool {
	return slices.ContainsFunc(s.Pauses, func(p Pause) bool { return p.Target == "endpoint/"+endpoint })
}

func (sc Screen) processTable(s Snapshot, rows int) []line {
	numbers := make([]int, len(s.Processes))
	for i := range numbers {
		numbers[i] = i
	}
	if rows < len(numbers) { // trouble is not to be among those that are left out
		slices.SortStableFunc(numbers, func(a, b int) int {
			return cmp.Compare(calm(s.Processes[a]), calm(s.Processes[b]))
		})
	}
	t := grid{columns: []column{{"#", 2, true}, {"PROCESS", 0, false}, {"STATE", 11, false}, {"PART", 4, true}, {"IN/S", 9, true}, {"TXN/S", 7, true}, {"ABORTED", 7, true}, {"LAG", 9, true}}}
	if sc.Width >= wide {
		t.columns = append(t.columns, column{"LANES", 26, false})
	}
	if rows < len(s.Processes) {
		t.note = fmt.Sprintf("%d of %d", rows, len(s.Processes))
	}
	for _, i := range numbers[:rows] {
		p := s.Processes[i]
		states := map[string]color{StateReady: green, StateNotReady: yellow, StateUnreachable: red}
		row := []span{{strconv.Itoa(i + 1), plain}, {clean(p.Process), plain}, {p.State, states[p.State]}}
		if p.State != StateReady {
			t.rest(row, clean(p.Why))
			continue
		}
		row = append(row, span{strconv.Itoa(p.Partitions), plain}, span{rate(p.In), plain}, span{rate(p.Committed), plain},
			span{percent(p.AbortRatio), if1(p.AbortRatio != nil && *p.AbortRatio > 0.1, red)}, span{amount(p.Lag), plain})
		if sc.Width >= wide {
			row = append(row, span{phases(p.Phases), plain})
		}
		t.rows = append(t.rows, row)
	}
	return t.draw(sc.Width)
}

func calm(p ProcessView) int {
	return slices.Index([]string{StateUnreachable, StateNotReady, StateAsking, StateReady}, p.State)
}

// phases gives "3 polling 1 working".
func phases(counts map[string]int) string {
	var told []string
	for _, phase := range []string{"opening", "polling", "working", "ending", "backoff", "stopped"} {
		if counts[phase] > 0 {
			told = append(told, fmt.Sprintf("%d %s", counts[phase], phase))
		}
	}
	return strings.Join(told, " ")
}

func (sc Screen) partitionTable(s Snapshot, rows int) []line {
	mark := func(title string, sort Sort) string {
		if sc.Sort == sort {
			return title + "*"
		}
		return title
	}
	t := grid{columns: []column{
		{mark("TOPIC/PARTITION", ByName), 0, false},
		{mark("LAG", ByLag), 10, true},
		{mark("OLDEST", ByOldest), 8, true},
		{"HELD", 8, true},
		{mark("#", ByProcess), 3, true},
		{"LANE", 4, true},
		{"PHASE", 8, false},
	}}
	sorted := slices.Clone(s.Partitions)
	sc.Sort.order(s, sorted)
	from := min(sc.Offset, max(0, len(sorted)-rows))
	to := min(from+rows, len(sorted))
	if len(sorted) > rows {
		t.note = fmt.Sprintf("%d-%d of %d", from+1, to, len(sorted))
	}
	for _, p := range sorted[from:to] {
		lag, oldest, phase := "?", "?", span{p.Phase, plain}
		if p.Lag != nil {
			lag = amount(*p.Lag)
		}
		late := false
		if p.Seconds != nil {
			oldest, late = seconds(*p.Seconds), *p.Seconds > 60
		}
		switch {
		case p.Halted != "":
			phase = span{"halted", red}
		case p.Paused:
			phase = span{"paused", yellow}
		}
		t.rows = append(t.rows, []span{
			{clean(p.Name()), plain},
			{lag, plain},
			{oldest, if1(late, red)},
			{amount(p.Held), if1(p.Held > 0, yellow)},
			{strconv.Itoa(s.number(p.Process)), plain},
			{strconv.Itoa(p.Lane), plain},
			phase,
		})
	}
	if len(sorted) == 0 {
		t.rest(nil, "no partition is owned by the processes that answer")
	}
	return t.draw(sc.Width)
}

// number is that of a process in its table.
func (s Snapshot) number(process string) int {
	return 1 + slices.IndexFunc(s.Processes, func(p ProcessView) bool { return p.Process == process })
}

// order sorts partitions. What is not known comes first: it may be anything.
func (sort Sort) order(s Snapshot, partitions []Partition) {
	known := func(v *float64) float64 {
		if v == nil {
			return math.Inf(1)
		}
		return *v
	}
	slices.SortFunc(partitions, func(a, b Partition) int {
		by := 0
		switch sort {
		case ByLag:
			by = cmp.Compare(known(b.Lag), known(a.Lag))
		case ByOldest:
			by = cmp.Compare(known(b.Seconds), known(a.Seconds))
		case ByProcess:
			by = cmp.Compare(s.number(a.Process), s.number(b.Process))
		case ByName:
		}
		return cmp.Or(by, cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
}

func (sc Screen) endpointTable(s Snapshot, rows int) []line {
	t := grid{columns: []column{{"ENDPOINT", 0, false}, {"PENDING", 9, true}, {"OLDEST", 8, true}, {"PARKED", 8, true}, {"DEAD", 8, true}, {"CALLS/S", 7, true}, {"IN/MAX", 9, true}, {"BREAKER", 9, false}}}
	if rows < len(s.Endpoints) {
		t.note = fmt.Sprintf("%d of %d", rows, len(s.Endpoints))
	}
	sorted := slices.Clone(s.Endpoints)
	slices.SortStableFunc(sorted, func(a, b EndpointSum) int { return cmp.Compare(b.Oldest, a.Oldest) })
	for _, e := range sorted[:rows] {
		pending, parked, dead, oldest := amount(e.Pending), amount(e.Parked), amount(e.Dead), seconds(e.Oldest)
		if !e.Known {
			pending, parked, dead, oldest = "?", "?", "?", "?"
		}
		breakers := map[string]color{"closed": green, "half-open": yellow, "open": red}
		breaker := span{cmp.Or(e.Breaker, "-"), breakers[e.Breaker]}
		if s.holds(e.Endpoint) {
			breaker = span{"held", yellow}
		}
		t.rows = append(t.rows, []span{
			{clean(e.Endpoint), plain},
			{pending, plain},
			{oldest, plain},
			{parked, if1(e.Parked > 0, yellow)},
			{dead, if1(e.Dead > 0, red)},
			{rate(e.Calls), plain},
			{amount(e.InFlight) + "/" + amount(e.Limit), if1(e.Limit > 0 && e.InFlight >= e.Limit, yellow)},
			breaker,
		})
	}
	return t.draw(sc.Width)
}

func (sc Screen) abortTable(s Snapshot, rows int) []line {
	t := grid{columns: []column{{"ABORTS", 8, false}, {"#", 2, true}, {"COUNT", 7, true}, {"WHY", 0, false}}}
	totals := make([]string, 0, len(s.Totals))
	for _, one := range s.Totals {
		totals = append(totals, strings.TrimPrefix(one.Outcome+" "+one.Reason, "aborted ")+" "+strconv.FormatInt(one.Count, 10))
	}
	if len(totals) > 0 {
		t.note = "all: " + clean(strings.Join(totals, ", "))
	}
	for _, one := range s.Aborts[:min(rows, len(s.Aborts))] {
		t.rows = append(t.rows, []span{
			{one.At.Format(time.TimeOnly), plain},
			{strconv.Itoa(s.number(one.Process)), plain},
			{strconv.FormatInt(one.Count, 10), plain},
			{clean(one.Outcome + " " + one.Reason), if1(one.Outcome == "unknown", yellow)},
		})
	}
	if len(s.Aborts) == 0 {
		t.rest(nil, "none since "+sc.Since.Format(time.TimeOnly))
	}
	return t.draw(sc.Width)
}

func (sc Screen) keyLine() line {
	pause := "p pause"
	if sc.Paused {
		pause = "p go on"
	}
	return line{{fmt.Sprintf("q quit  up/down scroll  s sort: %s  %s  ? help", sc.Sort, pause), gray}}
}

func (sc Screen) help() []line {
	lines := []line{{{"pawl top: help", bold}}, nil}
	for one := range strings.SplitSeq(`up, down, k, j        scroll the partitions by one
page up, page down    by a page; home, end: to the first, the last
s, right / left       sort by the next / the last: lag, oldest, name, process
p, space              hold the display still; the numbers go on behind it
?, h                  this help; q, esc, Ctrl-C: quit; Ctrl-Z: suspend
Ctrl-L                draw the screen anew

in, out               input records committed, output records, over 5 s
aborted               share of transactions that did not commit, over 1 min
lag, oldest           readable records that wait, and for how long the first
held                  records that an open transaction upstream holds back
open                  age of the oldest transaction that is in work
ABORTS                seen while you look, newest first; all: since the
                      processes began
IN/MAX                calls under way, and how many may be
BREAKER               the worst of all processes; held: by operators
?                     the brokers or the database do not tell`, "\n") {
		lines = append(lines, text(one))
	}
	return append(lines, line{{"any key: back", gray}})
}
