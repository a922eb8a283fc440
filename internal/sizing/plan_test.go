package sizing

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var costs = Costs{End: 12_000, Record: 2.5, EndCPU: 800, RecordCPU: 1.8, Bytes: 500}

// chart is a process as the chart has it.
func chart(rate float64) Load {
	return Load{Rate: rate, Bytes: 500, Outputs: 1, Cores: 1, Lanes: 2, Spare: 1, Interval: 5 * time.Millisecond}
}

func plan(t *testing.T, l Load) Size {
	t.Helper()
	s, err := Plan(costs, l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// played is what a lane has done.
type played struct {
	cycle, wait, longest, records float64 // means but for the longest; seconds
}

// simulate plays one lane record by record, as internal/txn has it: records come by chance (Poisson); the lane
// handles each that has come, and when it has none left and the pause since its last commit is over it ends
// the transaction.
func simulate(c Costs, rate, interval float64, transactions int, random *rand.Rand) played {
	var p played
	var waiting, batch []float64
	end, record := c.End/1e6, c.Record/1e6
	now, last, next := 0.0, 0.0, random.ExpFloat64()/rate
	for commits := 0; commits < transactions; {
		for next <= now {
			waiting = append(waiting, next)
			next += random.ExpFloat64() / rate
		}
		pause := last + max(end, interval)
		switch {
		case len(waiting) > 0:
			batch, waiting = append(batch, waiting[0]), waiting[1:]
			now += record
		case len(batch) == 0:
			now = next
		case now < pause:
			now = min(next, pause)
		default:
			now += end
			commits++
			p.cycle += now - last
			last = now
			for _, at := range batch {
				p.wait += now - at
				p.longest = max(p.longest, now-at)
			}
			p.records += float64(len(batch))
			batch = batch[:0]
		}
	}
	p.wait /= p.records
	p.records /= float64(transactions)
	p.cycle /= float64(transactions)
	return p
}

// The formulas say what a lane does that is played record by record, from nearly idle to as busy as it may be.
func TestArithmeticAgreesWithASimulation(t *testing.T) {
	t.Parallel()
	seed := uint64(1)
	random := rand.New(rand.NewPCG(seed, 2))
	near := func(what string, got, want, share float64) {
		t.Helper()
		if math.Abs(got-want) > want*share {
			t.Errorf("%s is %.4g, the simulation has %.4g: want them within %.0f%%", what, got, want, 100*share)
		}
	}
	for _, rate := range []float64{2_000, 20_000, 100_000, 280_000} {
		l := chart(rate)
		l.Lanes, l.Spare, l.Cores = 1, 0, 100
		s := Size{Lanes: 1, Partitions: 12}
		s.steady(l, costs.End/1e6, costs.Record/1e6)
		want := simulate(costs, rate, l.Interval.Seconds(), 2000, random)
		near("the cycle in ms", s.Cycle, want.cycle*1e3, 0.03)
		near("the transactions a second", s.Transactions, 1/want.cycle, 0.03)
		near("the records of a transaction", s.Records, want.records, 0.03)
		near("the mean wait in ms", s.Middle, want.wait*1e3, 0.05)
		if rate <= 100_000 { // above it chance lengthens some cycles
			near("the longest wait in ms", s.Longest, want.longest*1e3, 0.1)
		}
	}
}

// Lanes of the plan keep up in the simulation with the share of the rate that each has, and a record waits no
// longer than was asked for, but for what chance adds.
func TestPlannedLanesKeepUpAndKeepTheLatency(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	for _, latency := range []time.Duration{0, 40 * time.Millisecond, 100 * time.Millisecond} {
		for _, rate := range []float64{10_000, 100_000, 1_000_000, 10_000_000} {
			l := chart(rate)
			l.Latency = latency
			s := plan(t, l)
			got := simulate(costs, rate/float64(s.Lanes), l.Interval.Seconds(), 300, random)
			if share := got.records / (rate / float64(s.Lanes) * got.cycle); math.Abs(share-1) > 0.05 {
				t.Errorf("%v/s within %s: a lane takes %.3f of what comes", rate, latency, share)
			}
			if latency > 0 && got.wait > latency.Seconds() {
				t.Errorf("%v/s within %s: a record waits for %.1f ms on the average", rate, latency, got.wait*1e3)
			}
		}
	}
}

// What wants more gets more, and what is asked for is kept.
func TestPlanFollowsTheLoad(t *testing.T) {
	t.Parallel()
	small, large := plan(t, chart(10_000)), plan(t, chart(1_000_000))
	if small.Processes != 2 || small.Busy != 1 || small.Lanes != 4 || small.Partitions != 12 {
		t.Errorf("10,000/s want %+v", small)
	}
	if large.Processes <= small.Processes || large.Partitions < 2*large.Lanes || large.Bound != "cores" {
		t.Errorf("1,000,000/s want %+v, want more of everything, and partitions for all lanes", large)
	}
	orders := chart(1_000_000)
	orders.Outputs, orders.Handler = 3, 9*time.Microsecond
	if s := plan(t, orders); s.Cores < 3*large.Cores || s.BytesIn != 3*large.BytesIn || s.BytesOut != large.BytesOut {
		t.Errorf("orders want %+v, copies %+v", s, large)
	}
	wide := chart(1_000_000)
	wide.Cores = 64
	if s := plan(t, wide); s.Bound != "lanes" {
		t.Errorf("processes of 64 cores and 2 lanes are %+v: want that lanes decide", s)
	}
	if s := plan(t, chart(1)); s.Transactions != 1 || s.Records != 1 || s.MarkersMost != 2 {
		t.Errorf("one record a second makes %+v, want one transaction with two markers", s)
	}
	silent := chart(10_000)
	silent.Outputs = 0
	if s := plan(t, silent); s.MarkersMost != s.Transactions || s.BytesIn != 0 {
		t.Errorf("without outputs %+v, want the markers of offsets alone", s)
	}
}

// A latency that no number of lanes can keep is refused, and so is every load that is none.
func TestPlanRefusesWhatCannotBe(t *testing.T) {
	t.Parallel()
	l := chart(1000)
	l.Latency = 20 * time.Millisecond
	if _, err := Plan(costs, l); err == nil || !strings.Contains(err.Error(), "36 ms") {
		t.Errorf("error %v, want that it takes 36 ms", err)
	}
	_, err := Plan(costs, Load{Rate: math.NaN(), Outputs: -1, Handler: -1})
	for _, want := range []string{"--rate", "--bytes", "--outputs", "--cores", "--lanes", "--handler"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
}

// The costs that runs were made of are found again.
func TestFitFindsTheCosts(t *testing.T) {
	t.Parallel()
	var runs []Observation
	for _, n := range []float64{500, 2000, 16_000} {
		runs = append(runs, Observation{Records: n, Cycle: costs.End + costs.Record*n, CPU: costs.EndCPU + costs.RecordCPU*n, Bytes: costs.Bytes})
	}
	got, err := Fit(runs)
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2]float64{{got.End, costs.End}, {got.Record, costs.Record}, {got.EndCPU, costs.EndCPU}, {got.RecordCPU, costs.RecordCPU}} {
		if math.Abs(pair[0]-pair[1]) > 1e-6*pair[1] {
			t.Errorf("fitted %+v, want %+v", got, costs)
		}
	}
	for what, wrong := range map[string][]Observation{
		"another size": runs[:1], "one size": append(runs[:1:1], Observation{Records: 1000, Cycle: 1, CPU: 1, Bytes: 100}), "nothing": nil,
		"no sense": {{Records: 100, Cycle: 2e4, CPU: 1, Bytes: 500}, {Records: 1000, Cycle: 1e4, CPU: 2, Bytes: 500}},
	} {
		if _, err := Fit(wrong); err == nil || !strings.Contains(err.Error(), what) && what != "nothing" {
			t.Errorf("%s: error %v", what, err)
		}
	}
}

// What bench prints is read: the runs of this program, by lanes of all processes.
func TestReadTakesRunsOfBench(t *testing.T) {
	t.Parallel()
	found, err := Read([]byte(`{"processes": 2, "lanes": 3, "bytes": 500, "throughput": [
		{"peer": "pawl", "records_per_second": 60000, "cpu_s_per_million": 2, "transactions": 10, "tally": {"seen": 1000}},
		{"peer": "loop", "records_per_second": 90000, "cpu_s_per_million": 1, "tally": {"seen": 1000}}]}`))
	if err != nil || len(found) != 1 {
		t.Fatalf("read %+v, %v, want one run", found, err)
	}
	if got, want := found[0], (Observation{Records: 100, Cycle: 10_000, CPU: 200, Bytes: 500}); got != want {
		t.Errorf("read %+v, want %+v", got, want)
	}
	for _, text := range []string{`{`, `{}`} {
		if _, err := Read([]byte(text)); err == nil {
			t.Errorf("%s is read", text)
		}
	}
}

// What stands in the program is what was measured.
func TestMeasuredCostsAreThere(t *testing.T) {
	t.Parallel()
	c, err := Measured()
	if err != nil {
		t.Fatal(err)
	}
	if c.End < 1000 || c.Record > 20 || c.Bytes != 500 {
		t.Errorf("costs %+v, want those of records of 500 bytes", c)
	}
}
