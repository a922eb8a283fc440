package top

import (
	"errors"
	"math"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// told is a process that has committed n transactions of ten records each.
func told(process string, at time.Duration, n float64) Facts {
	return Facts{
		Process: process, At: noon.Add(at), Version: "v1", Config: "c1", KafkaUp: true, Committed: n, Records: 10 * n, Outputs: 20 * n, Rejected: n / 10,
		Aborts: map[string]float64{}, Ledger: Up, LastCommit: noon.Add(at),
		Endpoints: []Endpoint{{Endpoint: "payments", Known: true, Pending: 5, Oldest: 3 * time.Second, InFlight: 1, Limit: 8, Attempts: n, Breaker: "closed"}},
	}
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-6 {
		t.Errorf("%s is %g, want %g", what, got, want)
	}
}

func TestRatesAreMeansOfTheLastSeconds(t *testing.T) {
	t.Parallel()
	f := NewFleet([]string{"a", "b"})
	for second := range 31 { // 10 transactions a second, from the 20th second on 30
		n := float64(10 * second)
		if second > 20 {
			n = float64(200 + 30*(second-20))
		}
		f.Add(told("a", time.Duration(second)*time.Second, n))
		f.Add(told("b", time.Duration(second)*time.Second, 7))
	}
	s := f.Snapshot(noon.Add(30 * time.Second))
	near(t, "transactions", s.Committed, 30)
	near(t, "in", s.In, 300)
	near(t, "out", s.Out, 600)
	near(t, "rejected", s.Rejected, 3)
	near(t, "in of a", s.Processes[0].In, 300)
	near(t, "in of b", s.Processes[1].In, 0)
	near(t, "calls", s.Endpoints[0].Calls, 30)
	near(t, "share of aborts", *s.AbortRatio, 0)
	if s.Processes[1].AbortRatio != nil {
		t.Error("b ended no transaction and has a share of aborts")
	}
	// The ledger is one, calls are each process's own.
	near(t, "pending", s.Endpoints[0].Pending, 5)
	near(t, "in flight", s.Endpoints[0].InFlight, 2)
	near(t, "limit", s.Endpoints[0].Limit, 16)
}

func TestAbortsAreNoticedAndCounted(t *testing.T) {
	t.Parallel()
	f := NewFleet([]string{"a"})
	first := told("a", 0, 10)
	first.Aborts = map[string]float64{"aborted rebalance": 4}
	f.Add(first)
	if s := f.Snapshot(noon); len(s.Aborts) != 0 || s.Totals[0] != (AbortTotal{"aborted", "rebalance", 4}) {
		t.Errorf("what was before is no news: %+v", s)
	}
	second := told("a", time.Second, 16)
	second.Aborts = map[string]float64{"aborted rebalance": 5, "unknown offsets": 3}
	f.Add(second)
	s := f.Snapshot(noon.Add(time.Second))
	want := []Abort{{noon.Add(time.Second), "a", "unknown", "offsets", 3}, {noon.Add(time.Second), "a", "aborted", "rebalance", 1}}
	if len(s.Aborts) != 2 || s.Aborts[0] != want[0] || s.Aborts[1] != want[1] {
		t.Errorf("aborts %+v", s.Aborts)
	}
	near(t, "share", *s.AbortRatio, 0.4)
	near(t, "share of a", *s.Processes[0].AbortRatio, 0.4)
	for i := range 2 * abortsMax {
		next := told("a", time.Duration(i+2)*time.Second, 16)
		next.Aborts = map[string]float64{"aborted rebalance": float64(6 + i), "unknown offsets": 3}
		f.Add(next)
	}
	if s := f.Snapshot(noon.Add(time.Hour)); len(s.Aborts) != abortsMax {
		t.Errorf("%d aborts are remembered", len(s.Aborts))
	}
	if samples := len(f.samples["a"]); samples > samplesMax || f.samples["a"][samples-1].At.Sub(f.samples["a"][1].At) > abortSpan {
		t.Errorf("%d samples are kept", samples)
	}
}

// Counters of a process that was started again begin at 0: that is no rate, and what it aborted before is over.
func TestRestartBeginsAnew(t *testing.T) {
	t.Parallel()
	f := NewFleet([]string{"a"})
	f.Add(told("a", 0, 1000))
	f.Add(told("a", time.Second, 2000))
	f.Add(told("a", 2*time.Second, 5))
	near(t, "rate", f.Snapshot(noon).Committed, 0)
	f.Add(told("a", 3*time.Second, 15))
	near(t, "rate", f.Snapshot(noon).Committed, 10)
}

func TestProcessThatDoesNotAnswerIsSeen(t *testing.T) {
	t.Parallel()
	f := NewFleet([]string{"a", "b", "c"})
	with := told("a", 0, 1)
	with.Partitions = []Partition{{Topic: "orders", Lag: new(5.0), Seconds: new(2.0), Held: 1, Process: "a"}, {Topic: "orders", Partition: 1, Process: "a"}}
	f.Add(with)
	f.Add(told("b", 0, 1))
	f.Add(Facts{Process: "b", At: noon, Err: errors.New("refused")})
	s := f.Snapshot(noon)
	if a, b, c := s.Processes[0], s.Processes[1], s.Processes[2]; a.State != StateReady || b.State != StateUnreachable || b.Why != "refused" || c.State != StateAsking {
		t.Errorf("processes %+v", s.Processes)
	}
	near(t, "lag", s.Lag, 5)
	near(t, "oldest", s.Seconds, 2)
	near(t, "held", s.Held, 1)
	if s.LagUnknown != 1 || len(s.Partitions) != 2 {
		t.Errorf("partitions %+v", s.Partitions)
	}
}

func TestWhatProcessesDisagreeAboutIsSeen(t *testing.T) {
	t.Parallel()
	f := NewFleet([]string{"a", "b"})
	one, other := told("a", 0, 1), told("b", 0, 1)
	other.Version, other.Config, other.Ledger = "v2", "c2", Down
	other.Endpoints[0].Breaker = "open"
	one.Endpoints = append(one.Endpoints, Endpoint{Endpoint: "mail"})
	f.Add(one)
	f.Add(other)
	s := f.Snapshot(noon)
	if s.Version != mixed || s.Config != mixed || s.Ledger != Up || s.LedgerDown != 0 {
		t.Errorf("snapshot %+v", s)
	}
	if len(s.Endpoints) != 2 || s.Endpoints[0].Endpoint != "mail" || s.Endpoints[0].Known || s.Endpoints[0].Breaker != "" || s.Endpoints[1].Breaker != "open" {
		t.Errorf("endpoints %+v", s.Endpoints)
	}
}
