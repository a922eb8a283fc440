package dispatch

import "time"

// Bound is what can hold a call up that an endpoint would be given otherwise.
type Bound string

// The bounds.
const (
	ByConcurrency Bound = "concurrency" // Endpoint.Concurrency
	ByRate        Bound = "rate"        // Endpoint.Rate
	ByWorkers     Bound = "workers"     // Config.Workers, over all endpoints
)

// Bounds lists them all, for metrics.
func Bounds() []Bound { return []Bound{ByConcurrency, ByRate, ByWorkers} }

// Saturation is for how long calls to an endpoint could not begin for each bound, since the dispatcher was made. It is the
// time in which at least one waited, not the sum over those that did: it grows by a second in a second at most.
type Saturation map[Bound]time.Duration

// shortage measures saturation. A call that is refused starts the clock, and whatever may have mended that stops it: a call
// that ended, or another question, which starts it again if it is refused too.
type shortage struct {
	took  Saturation
	by    Bound // for which the clock runs; empty where it stands
	since time.Time
	most  time.Duration // the clock stops by itself then; 0: it does not
}

func newShortage() shortage { return shortage{took: make(Saturation)} }

// begin starts the clock, which must stand.
func (s *shortage) begin(by Bound, most time.Duration) { s.by, s.since, s.most = by, time.Now(), most }

func (s *shortage) end() {
	if s.by != "" {
		s.took[s.by] += s.running(time.Now())
		s.by = ""
	}
}

// freed is told that a call has ended. That makes a place, but no token: whoever waits for one does not ask before its time.
func (s *shortage) freed() {
	if s.by != ByRate {
		s.end()
	}
}

func (s *shortage) running(now time.Time) time.Duration {
	took := max(0, now.Sub(s.since))
	if s.most > 0 {
		took = min(took, s.most) // who waits for a token asks again before, if he still wants it
	}
	return took
}

// until gives what was measured until now.
func (s *shortage) until(now time.Time) Saturation {
	all := make(Saturation, len(Bounds()))
	for _, by := range Bounds() {
		all[by] = s.took[by]
	}
	if s.by != "" {
		all[s.by] += s.running(now)
	}
	return all
}
