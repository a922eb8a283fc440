package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"pawl/internal/testkit/golden"
	"pawl/internal/txn"
)

// everything makes a series of every metric.
func everything(b *bench) {
	b.transaction(0, 2, 1, txn.Committed, txn.ReasonNone)
	b.facts.setLag([]LagSample{{Topic: "in", Records: 1, Held: 2, Waiting: time.Second}})
	b.facts.setHeld(map[string]time.Duration{"out": time.Second})
	b.facts.setBrokers(answered)
	b.hooks.Suspected(txn.Suspected{Why: txn.ReasonHandler})
	b.hooks.Fenced(0, errors.New("fenced"))
}

func newFullBench(t *testing.T) *bench {
	t.Helper()
	b := newBench(t, func(c *Config) {
		c.Status = func() txn.Status {
			return txn.Status{Lanes: []txn.LaneStatus{{Partitions: map[string][]int32{"in": {0}}}}}
		}
		c.Pauses = func() Pauses { return Pauses{Targets: []Pause{{Target: "input"}}} }
	})
	everything(b)
	l := newLedgerBench(t, b, twoEndpoints)
	l.askBacklog(t.Context())
	l.askWaiting(t.Context())
	everyPass(NewVerify(b.registry, []string{"LOST"}, time.Now()))
	return b
}

func TestMetricsAreLintClean(t *testing.T) {
	t.Parallel()
	problems, err := testutil.GatherAndLint(newFullBench(t).registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Errorf("%s: %s", problem.Metric, problem.Text)
	}
}

// docs/metrics.md is made from the registry: a metric that is renamed, added or dropped, and a label
// that changes, is seen in review, because dashboards and alerts live on them.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	b := newFullBench(t)
	path := filepath.Join("..", "..", "docs", "metrics.md")
	text := document(t, b.registry)
	golden.Is(t, path, text)
	if t.Failed() {
		t.Log("tell operators of it in the changelog")
	}

	// The document comes from series that exist. A metric that no hook made a series of would be
	// missing from it without this.
	described := regexp.MustCompile(`fqName: "([^"]+)"`)
	descs := make(chan *prometheus.Desc, 1024)
	b.registry.Describe(descs)
	close(descs)
	named := 0
	for desc := range descs {
		name := described.FindStringSubmatch(desc.String())[1]
		if !strings.HasPrefix(name, namespace+"_") {
			continue
		}
		named++
		if !bytes.Contains(text, []byte("| `"+name+"` |")) {
			t.Errorf("%s is registered and not documented", name)
		}
	}
	if rows := bytes.Count(text, []byte("| `"+namespace+"_")); rows != named {
		t.Errorf("%d metrics documented, %d registered", rows, named)
	}
}

func document(t *testing.T, registry *prometheus.Registry) []byte {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	text.WriteString(`# Metrics

What ` + "`/metrics`" + ` on the operations address shows. This list is made from the program and compared with it by a
test. Besides these there are the Go runtime's ` + "`go_*`" + ` and the process's ` + "`process_*`" + `. Those that begin with
` + "`processor_verify_`" + ` are shown by ` + "`processor verify --follow`" + ` on its own address, the others by ` + "`processor run`" + `.

Histograms have classic buckets and, for a Prometheus that scrapes them, native ones.

| Metric | Type | Labels | Meaning |
|---|---|---|---|
`)
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), namespace+"_") {
			continue
		}
		var labels []string
		for _, pair := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+pair.GetName()+"`")
		}
		fmt.Fprintf(&text, "| `%s` | %s | %s | %s |\n",
			family.GetName(), strings.ToLower(family.GetType().String()), strings.Join(labels, ", "), family.GetHelp())
	}

	var outcomes, reasons, fences, phases []string
	for _, fence := range txn.Fences() {
		fences = append(fences, string(fence))
	}
	for _, phase := range txn.Phases() {
		phases = append(phases, string(phase))
	}
	for _, outcome := range txn.Outcomes() {
		outcomes = append(outcomes, string(outcome))
	}
	for _, reason := range txn.Reasons() {
		reasons = append(reasons, reasonLabel(reason))
	}
	text.WriteString("\n## Label values\n\n| Label | Of | Values |\n|---|---|---|\n")
	for _, row := range []struct {
		label, of string
		values    []string
	}{
		{"outcome", "records", recordOutcomes()},
		{"outcome", "transactions", outcomes},
		{"reason", "transactions, session rebuilds, suspected batches", reasons},
		{"kind", "rebalances", rebalanceKinds()},
		{"kind", "fenced", fences},
		{"phase", "lanes", phases},
	} {
		values := slices.Clone(row.values)
		for i := range values {
			values[i] = "`" + values[i] + "`"
		}
		fmt.Fprintf(&text, "| `%s` | %s | %s |\n", row.label, row.of, strings.Join(values, ", "))
	}
	text.WriteString(`
` + "`topic`" + ` and ` + "`handler`" + ` are names from the configuration. The ` + "`reason`" + ` of a dead letter is the handler's own label;
where that is no short lower-case word, or there are too many of them, it is ` + "`other`" + `.

## Exemplars

A scrape in the OpenMetrics format has examples in its histograms, at most one a second: ` + "`source`" + ` is the oldest record
of a transaction as topic/partition/offset, ` + "`effect`" + ` an effect as ` + "`processor effects show`" + ` takes it, ` + "`trace_id`" + `
the trace of a transaction that is recorded (see [tracing](tracing.md)). What an exemplar has no room for, it does not name.
`)
	return text.Bytes()
}
