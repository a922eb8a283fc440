package top

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	rateSpan   = 5 * time.Second // rates are means over so long
	abortSpan  = time.Minute     // and the share of aborts over so long, because they are rare
	abortsMax  = 50              // remembered
	samplesMax = 120             // of one process
)

// Fleet is what several processes told over the last minute. It belongs to one goroutine.
type Fleet struct {
	processes []string
	samples   map[string][]Facts // of each process, oldest first; without those that failed
	last      map[string]Facts   // what each told last, or why it did not
	aborts    []Abort            // newest first
}

// NewFleet watches these processes.
func NewFleet(processes []string) *Fleet {
	return &Fleet{processes: processes, samples: map[string][]Facts{}, last: map[string]Facts{}}
}

// Abort is an end of transactions other than a commit, seen between two looks at a process.
type Abort struct {
	At      time.Time `json:"at"`
	Process string    `json:"process"`
	Outcome string    `json:"outcome"` // aborted or unknown
	Reason  string    `json:"reason"`
	Count   int64     `json:"count"`
}

// Add takes what a process told.
func (f *Fleet) Add(facts Facts) {
	f.last[facts.Process] = facts
	if facts.Err != nil {
		return
	}
	samples := f.samples[facts.Process]
	if len(samples) > 0 {
		before := samples[len(samples)-1]
		if restarted(before, facts) {
			samples = nil
		} else {
			f.notice(before, facts)
		}
	}
	samples = append(samples, facts)
	for len(samples) > 2 && (facts.At.Sub(samples[1].At) >= abortSpan || len(samples) > samplesMax) {
		samples = samples[1:]
	}
	f.samples[facts.Process] = samples
}

// restarted tells that counters began anew.
func restarted(before, now Facts) bool {
	return now.Committed < before.Committed || now.Records < before.Records || now.Outputs < before.Outputs || total(now.Aborts) < total(before.Aborts)
}

func total(counts map[string]float64) (sum float64) {
	for _, count := range counts {
		sum += count
	}
	return sum
}

// notice remembers aborts since the last look.
func (f *Fleet) notice(before, now Facts) {
	for _, name := range slices.Sorted(maps.Keys(now.Aborts)) {
		if more := now.Aborts[name] - before.Aborts[name]; more > 0 {
			outcome, reason, _ := strings.Cut(name, " ")
			f.aborts = slices.Insert(f.aborts, 0, Abort{now.At, now.Process, outcome, reason, int64(more)})
		}
	}
	f.aborts = f.aborts[:min(len(f.aborts), abortsMax)]
}

// Snapshot is what a Fleet comes to at one time. It is what -o json prints.
type Snapshot struct {
	At         time.Time     `json:"at"`
	In         float64       `json:"in_per_second"` // input records, committed
	Out        float64       `json:"out_per_second"`
	Rejected   float64       `json:"rejected_per_second"`
	Committed  float64       `json:"transactions_per_second"`
	AbortRatio *float64      `json:"abort_ratio"` // of the last minute; null where no transaction ended
	Lag        float64       `json:"lag_records"`
	Seconds    float64       `json:"lag_seconds"` // of the record that has been waiting longest
	LagUnknown int           `json:"lag_unknown"` // partitions of which the brokers do not tell
	Held       float64       `json:"held_records"`
	Open       float64       `json:"transaction_open_seconds"` // the oldest in work
	LastCommit time.Time     `json:"last_commit,omitzero"`
	Version    string        `json:"version"` // of all processes, or "mixed"
	Config     string        `json:"config"`  // hash, or "mixed"
	Ledger     Tristate      `json:"ledger,omitempty"`
	LedgerDown float64       `json:"ledger_down_seconds,omitempty"` // how long no process has reached it
	Processes  []ProcessView `json:"processes"`
	Partitions []Partition   `json:"partitions"`
	Endpoints  []EndpointSum `json:"endpoints"`
	Pauses     []Pause       `json:"pauses"`       // by operators, of the whole application
	Aborts     []Abort       `json:"aborts"`       // seen since this program began, newest first
	Totals     []AbortTotal  `json:"abort_totals"` // since the processes began, most first
}

// ProcessView is one process of a snapshot.
type ProcessView struct {
	Process    string         `json:"process"`
	State      string         `json:"state"` // ready, not ready, unreachable or asking
	Why        string         `json:"why,omitempty"`
	Version    string         `json:"version,omitempty"`
	Phases     map[string]int `json:"lanes,omitempty"` // by phase
	Partitions int            `json:"partitions"`
	In         float64        `json:"in_per_second"`
	Committed  float64        `json:"transactions_per_second"`
	AbortRatio *float64       `json:"abort_ratio"`
	Lag        float64        `json:"lag_records"`
	KafkaUp    bool           `json:"kafka_up"`
}

// The states of a process.
const (
	StateAsking      = "asking"
	StateReady       = "ready"
	StateNotReady    = "not ready"
	StateUnreachable = "unreachable"
)

// EndpointSum is an endpoint over all processes.
type EndpointSum struct {
	Endpoint string  `json:"endpoint"`
	Known    bool    `json:"known"` // a process could ask the ledger
	Pending  float64 `json:"pending"`
	Parked   float64 `json:"parked"`
	Dead     float64 `json:"dead"`
	Oldest   float64 `json:"oldest_seconds"`
	InFlight float64 `json:"in_flight"`
	Limit    float64 `json:"limit"`
	Calls    float64 `json:"calls_per_second"`
	Breaker  string  `json:"breaker"` // the worst of all processes
}

// AbortTotal counts ends other than a commit.
type AbortTotal struct {
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
	Count   int64  `json:"count"`
}

// Snapshot sums up.
func (f *Fleet) Snapshot(now time.Time) Snapshot {
	s := Snapshot{At: now, Processes: []ProcessView{}, Partitions: []Partition{}, Endpoints: []EndpointSum{}, Pauses: []Pause{}, Aborts: append([]Abort{}, f.aborts...), Totals: []AbortTotal{}}
	totals := map[string]float64{}
	endpoints := map[string]*EndpointSum{}
	var ended, aborted float64
	for _, process := range f.processes {
		last, asked := f.last[process]
		if !asked || last.Err != nil {
			view := ProcessView{Process: process, State: StateAsking}
			if asked {
				view.State, view.Why = StateUnreachable, last.Err.Error()
			}
			s.Processes = append(s.Processes, view)
			continue
		}
		view := f.view(last)
		s.In, s.Committed, s.Lag = s.In+view.In, s.Committed+view.Committed, s.Lag+view.Lag
		s.Processes = append(s.Processes, view)
		s.add(last)
		s.Out += f.rate(process, func(facts Facts) float64 { return facts.Outputs })
		s.Rejected += f.rate(process, func(facts Facts) float64 { return facts.Rejected })
		e, a := f.ends(process)
		ended, aborted = ended+e, aborted+a
		for name, count := range last.Aborts {
			totals[name] += count
		}
		f.sumEndpoints(endpoints, last)
	}
	s.AbortRatio = ratio(aborted, ended)
	for _, name := range slices.Sorted(maps.Keys(endpoints)) {
		s.Endpoints = append(s.Endpoints, *endpoints[name])
	}
	for _, name := range slices.Sorted(maps.Keys(totals)) {
		if totals[name] > 0 {
			outcome, reason, _ := strings.Cut(name, " ")
			s.Totals = append(s.Totals, AbortTotal{outcome, reason, int64(totals[name])})
		}
	}
	slices.SortStableFunc(s.Totals, func(a, b AbortTotal) int { return cmp.Compare(b.Count, a.Count) })
	return s
}

// add takes in what needs no rate.
func (s *Snapshot) add(facts Facts) {
	s.Open = max(s.Open, facts.Open.Seconds())
	if facts.LastCommit.After(s.LastCommit) {
		s.LastCommit = facts.LastCommit
	}
	s.Version, s.Config = agree(s.Version, facts.Version), agree(s.Config, facts.Config)
	if facts.Ledger == Up || s.Ledger == Absent { // one that can reach it is enough
		s.Ledger = facts.Ledger
	}
	switch down := facts.LedgerDown.Seconds(); {
	case s.Ledger != Down:
		s.LedgerDown = 0
	case facts.Ledger == Down && (s.LedgerDown == 0 || down < s.LedgerDown): // the last one that reached it
		s.LedgerDown = down
	}
	for _, p := range facts.Pauses { // all processes tell the same, but for a moment
		if !slices.ContainsFunc(s.Pauses, func(known Pause) bool { return known.Target == p.Target }) {
			s.Pauses = append(s.Pauses, p)
		}
	}
	for _, p := range facts.Partitions {
		s.Partitions = append(s.Partitions, p)
		s.Held += p.Held
		if p.Seconds != nil {
			s.Seconds = max(s.Seconds, *p.Seconds)
		}
		if p.Lag == nil {
			s.LagUnknown++
		}
	}
}

const mixed = "mixed"

func agree(all, one string) string {
	if all == "" || all == one {
		return one
	}
	return mixed
}

func ratio(part, whole float64) *float64 {
	if whole <= 0 {
		return nil
	}
	share := part / whole
	return &share
}

func (f *Fleet) view(facts Facts) ProcessView {
	view := ProcessView{
		Process: facts.Process, State: StateReady, Version: facts.Version, Phases: facts.Phases, Partitions: len(facts.Partitions), KafkaUp: facts.KafkaUp,
		In:        f.rate(facts.Process, func(facts Facts) float64 { return facts.Records }),
		Committed: f.rate(facts.Process, func(facts Facts) float64 { return facts.Committed }),
	}
	if facts.NotReady != "" {
		view.State, view.Why = StateNotReady, facts.NotReady
	}
	for _, p := range facts.Partitions {
		if p.Lag != nil {
			view.Lag += *p.Lag
		}
	}
	ended, aborted := f.ends(facts.Process)
	view.AbortRatio = ratio(aborted, ended)
	return view
}

// rate is the growth of a counter per second over the last seconds.
func (f *Fleet) rate(process string, of func(Facts) float64) float64 {
	samples := f.samples[process]
	if len(samples) < 2 {
		return 0
	}
	last := samples[len(samples)-1]
	first := samples[len(samples)-2]
	for _, sample := range slices.Backward(samples[:len(samples)-1]) {
		if last.At.Sub(sample.At) > rateSpan {
			break
		}
		first = sample
	}
	if span := last.At.Sub(first.At).Seconds(); span > 0 {
		return (of(last) - of(first)) / span
	}
	return 0
}

// ends counts transactions of the last minute, and those of them that did not commit.
func (f *Fleet) ends(process string) (ended, aborted float64) {
	samples := f.samples[process]
	if len(samples) < 2 {
		return 0, 0
	}
	first, last := samples[0], samples[len(samples)-1]
	aborted = total(last.Aborts) - total(first.Aborts)
	return last.Committed - first.Committed + aborted, aborted
}

// sumEndpoints adds what one process told. All read one database, at different times: the largest counts.
func (f *Fleet) sumEndpoints(sums map[string]*EndpointSum, facts Facts) {
	for _, e := range facts.Endpoints {
		sum := sums[e.Endpoint]
		if sum == nil {
			sum = &EndpointSum{Endpoint: e.Endpoint}
			sums[e.Endpoint] = sum
		}
		sum.Known = sum.Known || e.Known
		sum.Pending, sum.Parked, sum.Dead = max(sum.Pending, e.Pending), max(sum.Parked, e.Parked), max(sum.Dead, e.Dead)
		sum.Oldest = max(sum.Oldest, e.Oldest.Seconds())
		sum.InFlight, sum.Limit = sum.InFlight+e.InFlight, sum.Limit+e.Limit
		if severity(e.Breaker) > severity(sum.Breaker) {
			sum.Breaker = e.Breaker
		}
		sum.Calls += f.rate(facts.Process, func(facts Facts) float64 {
			for _, one := range facts.Endpoints {
				if one.Endpoint == e.Endpoint {
					return one.Attempts
				}
			}
			return 0
		})
	}
}

// severity orders breakers: one process that does not call is worth seeing.
func severity(breaker string) int {
	return slices.Index([]string{"closed", "half-open", "open"}, breaker)
}
