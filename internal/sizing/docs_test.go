package sizing

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pawl/internal/testkit/golden"
)

const (
	page       = "../../docs/scaling.md"
	tableBegin = "<!-- Written by the tests of internal/sizing: go test ./internal/sizing -run Documentation -update -->\n"
	tableEnd   = "<!-- end -->\n"
)

// The table of sizes in the documentation is what the function computes from what was measured.
func TestDocumentationShowsWhatIsComputed(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(text), tableBegin)
	_, after, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends {
		t.Fatalf("%s has no place for the table", page)
	}
	golden.Is(t, page, before+tableBegin+sizesTable(t)+tableEnd+after)
}

func sizesTable(t *testing.T) string {
	t.Helper()
	c, err := Measured()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nCosts of a lane, records of %d bytes: %.1f ms a transaction and %.2f us a record; of the cores %.2f ms and %.2f us.\n\n",
		c.Bytes, c.End/1e3, c.Record, c.EndCPU/1e3, c.RecordCPU)
	b.WriteString("| load | records/s | processes | cores | lanes, needed | partitions | records in a transaction | wait, mean and most, ms | transactions/s | markers/s | written, MB/s, before replicas |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	copies := Load{Bytes: c.Bytes, Outputs: 1, Cores: 1, Lanes: 2, Spare: 1, Interval: 5 * time.Millisecond}
	orders := copies
	orders.Outputs, orders.Handler = 3, 9*time.Microsecond
	large := orders
	large.Cores, large.Lanes = 4, 4
	for _, row := range []struct {
		name string
		load Load
	}{{"copy", copies}, {"orders", orders}, {"orders, 4 cores and 4 lanes", large}} {
		for _, rate := range []float64{10_000, 100_000, 1_000_000, 10_000_000} {
			row.load.Rate = rate
			s, err := Plan(c, row.load)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "| %s | %.0f | %d + %d | %.1f | %d, %d | %d | %.0f | %.0f, %.0f | %.0f | %.0f to %.0f | %.0f |\n",
				row.name, rate, s.Processes-row.load.Spare, row.load.Spare, s.Cores, s.Lanes, s.Busy, s.Partitions, s.Records,
				s.Middle, s.Longest, s.Transactions, s.MarkersLeast, s.MarkersMost, s.BytesIn/1e6)
		}
	}
	b.WriteByte('\n')
	return b.String()
}
