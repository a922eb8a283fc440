package sizing

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path"
)

// Costs are what a lane takes, in microseconds.
type Costs struct {
	End       float64 `json:"end_us"`        // for a transaction, whatever is in it
	Record    float64 `json:"record_us"`     // for each record that it reads and writes
	EndCPU    float64 `json:"end_cpu_us"`    // of its process's cores for a transaction
	RecordCPU float64 `json:"record_cpu_us"` // and for each record
	Bytes     int     `json:"bytes"`         // of the records that were measured
}

// Observation is a run in which a lane was never without work.
type Observation struct {
	Records float64 // in a transaction
	Cycle   float64 // from one transaction of a lane to its next, us
	CPU     float64 // for a transaction, us
	Bytes   int     // of a record
}

// Read takes the observations out of what `processor bench -o json` printed.
func Read(text []byte) ([]Observation, error) {
	var report struct {
		Processes, Lanes, Bytes int
		Throughput              []struct {
			Peer         string
			Rate         float64 `json:"records_per_second"`
			CPU          float64 `json:"cpu_s_per_million"`
			Transactions float64
			Tally        struct{ Seen float64 }
		}
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return nil, fmt.Errorf("read what bench measured: %w", err)
	}
	var found []Observation
	for _, run := range report.Throughput {
		if run.Transactions < 1 || run.Rate <= 0 {
			continue // the loop's, or a cluster that does not tell
		}
		records := run.Tally.Seen / run.Transactions
		found = append(found, Observation{
			Records: records,
			Cycle:   records / run.Rate * float64(report.Processes*report.Lanes) * 1e6,
			CPU:     records * run.CPU, // s per million is us each
			Bytes:   report.Bytes,
		})
	}
	if len(found) == 0 {
		return nil, errors.New("no throughput run with a number of transactions in it: want what `processor bench -o json` prints without --latency, of brokers with transaction.version 2")
	}
	return found, nil
}

// Fit finds the costs behind observations: the line of least squares through transactions of different
// sizes. They have to differ by half at least, or there is nothing to tell the two costs apart by. Each
// counts by its size: what matters is by how much of itself a cycle is off.
func Fit(observations []Observation) (Costs, error) {
	if len(observations) == 0 {
		return Costs{}, errors.New("nothing was observed")
	}
	least, most := math.Inf(1), 0.0
	for _, o := range observations {
		least, most = min(least, o.Records), max(most, o.Records)
		if o.Bytes != observations[0].Bytes {
			return Costs{}, fmt.Errorf("records of %d and of %d bytes were measured: want one size", observations[0].Bytes, o.Bytes)
		}
	}
	if most < 1.5*least {
		return Costs{}, fmt.Errorf("all transactions were of %.0f to %.0f records: measure once more with another size, such as --set txn.records_max=500", least, most)
	}
	c := Costs{Bytes: observations[0].Bytes}
	c.End, c.Record = line(observations, func(o Observation) float64 { return o.Cycle })
	c.EndCPU, c.RecordCPU = line(observations, func(o Observation) float64 { return o.CPU })
	if c.End <= 0 || c.Record <= 0 || c.RecordCPU <= 0 {
		return Costs{}, fmt.Errorf("what was measured makes no sense, %+v: the runs differ too much, measure again where nothing else runs", c)
	}
	c.EndCPU = max(0, c.EndCPU)
	return c, nil
}

// line fits y = a + b x Records, each point weighed by 1/y^2.
func line(observations []Observation, y func(Observation) float64) (a, b float64) {
	var w, wx, wy, wxx, wxy float64
	for _, o := range observations {
		weight := 1 / (y(o) * y(o))
		w += weight
		wx += weight * o.Records
		wy += weight * y(o)
		wxx += weight * o.Records * o.Records
		wxy += weight * o.Records * y(o)
	}
	b = (w*wxy - wx*wy) / (w*wxx - wx*wx)
	return (wy - b*wx) / w, b
}

// measured is what `processor bench -o json` printed here, at several sizes of transactions.
//
//go:embed measured/*.json
var measured embed.FS

// Measured are our own costs, for whoever has none yet.
func Measured() (Costs, error) {
	const folder = "measured"
	files, err := measured.ReadDir(folder)
	if err != nil {
		return Costs{}, fmt.Errorf("read what was measured: %w", err)
	}
	var all []Observation
	for _, file := range files {
		text, err := measured.ReadFile(path.Join(folder, file.Name()))
		if err != nil {
			return Costs{}, fmt.Errorf("read what was measured: %w", err)
		}
		found, err := Read(text)
		if err != nil {
			return Costs{}, fmt.Errorf("%s: %w", file.Name(), err)
		}
		all = append(all, found...)
	}
	return Fit(all)
}
