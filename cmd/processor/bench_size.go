package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"pawl/internal/app"
	"pawl/internal/sizing"
)

// sizeAnswer is what `bench size -o json` prints.
type sizeAnswer struct {
	Rate  float64      `json:"rate"`
	Costs sizing.Costs `json:"costs"`
	sizing.Size
}

func (c *cli) newBenchSizeCommand() *cobra.Command {
	load := sizing.Load{Interval: app.Default().Txn.IntervalMin.Std()}
	var files []string
	cmd := &cobra.Command{
		Use:   "size",
		Short: "Compute how many partitions, lanes and processes a load wants, from what bench has measured",
		Long: `Compute what a load wants: lanes, processes and partitions, and what that asks of the brokers: transactions, markers,
bytes. It asks no cluster. The costs of a lane come from --measured, at least two results of "processor bench -o json"
with transactions of different sizes, else from what was measured for the documentation, on two cores. How it is
computed is in docs/scaling.md.`,
		Example: `  processor bench size --rate 100000
  processor bench size --rate 1000000 --bytes 1000 --outputs 3 --handler 9us --cores 4 --lanes 5 --latency 100ms
  processor bench -c config.yaml -o json > full.json
  processor bench -c config.yaml -o json --set txn.records_max=500 > small.json
  processor bench size --rate 100000 --measured full.json,small.json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return c.benchSize(load, files) },
	}
	f := cmd.Flags()
	f.Float64Var(&load.Rate, "rate", 0, "records read a second, `NUMBER`")
	f.IntVar(&load.Bytes, "bytes", benchBytes, "size of a record, in `BYTES`")
	f.Float64Var(&load.Outputs, "outputs", 1, "records written for each that is read, effects too, `NUMBER`")
	f.DurationVar(&load.Handler, "handler", 0, "`TIME` that a record takes the handler on one core, such as 9us")
	f.DurationVar(&load.Latency, "latency", 0, "`TIME` that no record should wait for longer; 0 is no matter")
	f.Float64Var(&load.Cores, "cores", 1, "cores of a process, `NUMBER`")
	f.IntVar(&load.Lanes, "lanes", 2, "lanes of a process, `NUMBER`")
	f.IntVar(&load.Spare, "spare", 1, "processes more than the load wants, to lose, `NUMBER`")
	f.DurationVar(&load.Interval, "interval", load.Interval, "txn.interval_min, `TIME`")
	f.StringSliceVar(&files, "measured", nil, "`FILES` with what bench -o json printed, separated by commas")
	cobra.CheckErr(cmd.MarkFlagRequired("rate"))
	return cmd
}

func (c *cli) benchSize(load sizing.Load, files []string) error {
	costs, err := costsOf(files)
	if err != nil {
		return err
	}
	size, err := sizing.Plan(costs, load)
	if err != nil {
		return usage(err)
	}
	if costs.Bytes != load.Bytes {
		fmt.Fprintf(c.stderr, "%s the costs are of records of %d bytes, not of %d: measure yours with processor bench --bytes %d\n",
			c.paint(c.stderr, yellow, "warning:"), costs.Bytes, load.Bytes, load.Bytes)
	}
	number := func(x float64) string { return fmt.Sprintf("%.0f", x) }
	ms := func(x float64) string { return fmt.Sprintf("%.1f ms", x) }
	bound := fmt.Sprintf("%s of %g cores and %d lanes; %s decide, %d of them to lose", count(size.Processes, "process", "processes"), load.Cores, load.Lanes, size.Bound, load.Spare)
	return c.render(sizeAnswer{load.Rate, costs, size}, table{rows: [][]string{
		{"costs of a lane", fmt.Sprintf("%.1f ms a transaction, %.2f us a record; of the cores %.2f ms and %.2f us", costs.End/1e3, costs.Record, costs.EndCPU/1e3, costs.RecordCPU)},
		{"processes", bound},
		{"cores", fmt.Sprintf("%.2f", size.Cores)},
		{"lanes", fmt.Sprintf("%d, of which the load needs %d", size.Lanes, size.Busy)},
		{"partitions", number(float64(size.Partitions)) + " of each input and output"},
		{"a transaction", fmt.Sprintf("%.0f records, every %s of a lane", size.Records, ms(size.Cycle))},
		{"a record waits", ms(size.Middle) + " on the average, " + ms(size.Longest) + " at most"},
		{"transactions/s", number(size.Transactions) + ", all their offsets with one broker"},
		{"markers/s", number(size.MarkersLeast) + " to " + number(size.MarkersMost)},
		{"producer ids", fmt.Sprintf("%.0f a day", size.ProducerIDs)},
		{"network", humanBytes(int64(size.BytesIn)) + "/s into the brokers before replicas, " + humanBytes(int64(size.BytesOut)) + "/s out"},
	}})
}

// costsOf reads results of bench, or takes our own where none are named.
func costsOf(files []string) (sizing.Costs, error) {
	if len(files) == 0 {
		return sizing.Measured()
	}
	var all []sizing.Observation
	for _, file := range files {
		text, err := os.ReadFile(file) //nolint:gosec // the operator names it
		if err != nil {
			return sizing.Costs{}, usage(fmt.Errorf("read --measured: %w", err))
		}
		found, err := sizing.Read(text)
		if err != nil {
			return sizing.Costs{}, usage(fmt.Errorf("--measured %s: %w", file, err))
		}
		all = append(all, found...)
	}
	costs, err := sizing.Fit(all)
	if err != nil {
		return sizing.Costs{}, usage(fmt.Errorf("--measured %s: %w", strings.Join(files, ","), err))
	}
	return costs, nil
}
