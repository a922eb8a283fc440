package sizing

import (
	"errors"
	"fmt"
	"math"
	"time"
)

const (
	// busyMost is how much of a lane's time and of a core's a steady load may take: the rest is for catching up.
	busyMost = 0.7
	// partitionsPerLane leaves room for more lanes, and each lane a fair share when they don't divide evenly.
	partitionsPerLane = 2
	partitionsUnit    = 12 // divided by 2, 3, 4 and 6
	// epochs is how many transactions a producer id lasts for (KIP-890): an epoch is a signed 16-bit number.
	epochs = math.MaxInt16 - 1
)

// Load is what is to be processed, and what with.
type Load struct {
	Rate     float64       // records read a second
	Bytes    int           // of a record
	Outputs  float64       // records written for each that is read
	Handler  time.Duration // that a record takes it, on one core
	Latency  time.Duration // that no record should wait for longer, by the arithmetic; 0: no matter
	Cores    float64       // of a process
	Lanes    int           // of a process
	Spare    int           // processes more than the load wants
	Interval time.Duration // txn.interval_min
}

// Validate names everything that is wrong, by the flags of the command.
func (l Load) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !(l.Rate >= 1 && l.Rate <= 1e9) { // so that NaN is refused too
		bad("--rate is %v, want 1..1000000000 records a second", l.Rate)
	}
	if l.Bytes < 1 || l.Bytes > 100<<20 {
		bad("--bytes is %d, want 1..%d", l.Bytes, 100<<20)
	}
	if !(l.Outputs >= 0 && l.Outputs <= 1000) {
		bad("--outputs is %v, want 0..1000 for each record", l.Outputs)
	}
	if !(l.Cores >= 0.1 && l.Cores <= 1000) {
		bad("--cores is %v, want 0.1..1000", l.Cores)
	}
	if l.Lanes < 1 || l.Lanes > 64 {
		bad("--lanes is %d, want 1..64", l.Lanes)
	}
	if l.Spare < 0 || l.Spare > 1000 {
		bad("--spare is %d, want 0..1000", l.Spare)
	}
	if l.Handler < 0 || l.Latency < 0 || l.Interval < 0 || l.Interval > time.Second {
		bad("--handler is %s, --latency %s and --interval %s, want 0s or more, and of the last at most 1s", l.Handler, l.Latency, l.Interval)
	}
	return errors.Join(errs...)
}

// Size is what a load wants.
type Size struct {
	Cores      float64 `json:"cores"`      // of all processes, busy for busyMost
	Busy       int     `json:"lanes_busy"` // lanes that the load needs
	Processes  int     `json:"processes"`  // with the spare ones
	Lanes      int     `json:"lanes"`      // of all processes
	Partitions int     `json:"partitions"` // to have of each input and output
	Bound      string  `json:"bound"`      // what decided the number of processes: cores or lanes

	// Of the brokers, a second.
	Transactions float64 `json:"transactions_per_second"`
	MarkersLeast float64 `json:"markers_per_second_least"` // each transaction writes to one partition
	MarkersMost  float64 `json:"markers_per_second_most"`  // to as many as it can
	ProducerIDs  float64 `json:"producer_ids_per_day"`     // used up by epochs
	BytesIn      float64 `json:"bytes_per_second_in"`      // of the brokers, before replicas: what is written
	BytesOut     float64 `json:"bytes_per_second_out"`     // what the lanes read

	// Of a transaction.
	Records float64 `json:"records_per_transaction"`
	Cycle   float64 `json:"cycle_ms"`
	Middle  float64 `json:"wait_ms_mean"` // from when a record can be read to its commit
	Longest float64 `json:"wait_ms_most"`
}

// Plan computes what a load wants by the costs of a lane.
func Plan(c Costs, l Load) (Size, error) {
	if err := l.Validate(); err != nil {
		return Size{}, err
	}
	end, record := c.End/1e6, c.lane(l)/1e6
	busy := busyMost
	if l.Latency > 0 {
		// A record waits for a cycle, which is end / (1 - busy) or longer, and an end.
		busy = min(busy, 1-end/(l.Latency.Seconds()-end))
		if shortest := 2*end + max(end, l.Interval.Seconds()); shortest > l.Latency.Seconds() {
			return Size{}, fmt.Errorf("--latency is %s, and a record may wait for %.0f ms where a lane has nothing else to do: no number of lanes makes that less", l.Latency, shortest*1e3)
		}
	}
	s := Size{Busy: ceil(l.Rate * record / busy)}
	// The cost of a transaction hangs on their number and that on the lanes: it is counted with the lanes that are
	// busy, whose transactions are full, and looked at again with all below.
	s.Cores = l.Rate * (c.RecordCPU*max(1, l.Outputs) + micros(l.Handler)) / 1e6 / busyMost
	byCores, byLanes := ceil(s.Cores/l.Cores), ceil(float64(s.Busy)/float64(l.Lanes))
	for {
		s.Processes, s.Bound = max(byCores, byLanes), "lanes"
		if byCores > byLanes {
			s.Bound = "cores"
		}
		s.Processes += l.Spare
		s.Lanes = s.Processes * l.Lanes
		s.Partitions = ceil(float64(s.Lanes*partitionsPerLane)/partitionsUnit) * partitionsUnit
		s.steady(l, end, record)
		s.Cores = (l.Rate*(c.RecordCPU*max(1, l.Outputs)+micros(l.Handler)) + s.Transactions*c.EndCPU) / 1e6 / busyMost
		if again := ceil(s.Cores / l.Cores); again > byCores && again > s.Processes-l.Spare {
			byCores = again // the transactions of more lanes cost more, by less each time: it ends
			continue
		}
		return s, nil
	}
}

// lane is what a lane takes for a record of this load: that was measured with one output and next to no handler,
// and handlers use all cores.
func (c Costs) lane(l Load) float64 { return c.Record*max(1, l.Outputs) + micros(l.Handler)/l.Cores }

// steady computes what all lanes do together when each has its share.
func (s *Size) steady(l Load, end, record float64) {
	share := l.Rate / float64(s.Lanes)
	// It gathers for as long as the records take, but no shorter than the last end took or the interval says.
	gather := max(share*record*end/(1-share*record), end, l.Interval.Seconds())
	cycle := gather + end
	s.Records = max(1, share*cycle)
	s.Cycle, s.Middle, s.Longest = cycle*1e3, (cycle/2+end)*1e3, (cycle+end)*1e3
	s.markers(min(float64(s.Lanes)/cycle, l.Rate), l, s.Records*l.Outputs) // none without a record
	s.ProducerIDs = s.Transactions * (24 * time.Hour).Seconds() / epochs
	s.BytesIn, s.BytesOut = l.Rate*l.Outputs*float64(l.Bytes), l.Rate*float64(l.Bytes)
}

// markers computes what transactions that write so many records each leave in the logs: one in each
// partition that they wrote to, and one with their offsets.
func (s *Size) markers(transactions float64, l Load, written float64) {
	s.Transactions = transactions
	topics := math.Ceil(l.Outputs)
	s.MarkersLeast = transactions * (min(topics, written) + 1)
	s.MarkersMost = transactions * (min(float64(s.Partitions)*topics, written) + 1)
}

func ceil(x float64) int { return max(1, int(math.Ceil(x-1e-9))) }

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
