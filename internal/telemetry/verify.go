package telemetry

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Values of the label result of processor_verify_passes_total.
const (
	passClean    = "clean"
	passFindings = "findings"
	passFailed   = "failed" // it could not look
)

// Verify shows what `processor verify --follow` finds. Its methods are called from one goroutine.
type Verify struct {
	findings *prometheus.CounterVec
	passes   *prometheus.CounterVec
	inputs   prometheus.Counter
	covered  *prometheus.GaugeVec
	clean    prometheus.Gauge
	took     prometheus.Gauge
}

// ServeVerify makes the metrics of a process that does nothing but verify, with those that every process shows of
// itself, and what serves them.
func ServeVerify(verdicts []string, begun time.Time) (*Verify, http.Handler) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return NewVerify(registry, verdicts, begun), promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// NewVerify registers the metrics. All series are there from the start; without a clean pass the last one counts
// as having been at begun, so that an alert on its age rings also for a check that was never clean.
func NewVerify(registry *prometheus.Registry, verdicts []string, begun time.Time) *Verify {
	v := &Verify{
		findings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "processor_verify_findings_total", Help: "Violations of exactly-once that were found, by verdict; docs/verify.md says what each means.",
		}, []string{"verdict"}),
		passes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "processor_verify_passes_total", Help: "Passes over the logs by result: clean, findings, or failed where they could not be read.",
		}, []string{"result"}),
		inputs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "processor_verify_inputs_total", Help: "Input records whose outcomes were judged.",
		}),
		covered: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "processor_verify_covered_offset", Help: "Offset of an input partition below which everything was judged.",
		}, []string{"partition", "topic"}),
		clean: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "processor_verify_last_clean_pass_timestamp_seconds", Help: "Unix time at which the last pass without a finding began; before the first, when the process began.",
		}),
		took: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "processor_verify_pass_duration_seconds", Help: "Time that the last pass took.",
		}),
	}
	registry.MustRegister(v.findings, v.passes, v.inputs, v.covered, v.clean, v.took)
	for _, verdict := range verdicts {
		v.findings.WithLabelValues(verdict)
	}
	for _, result := range []string{passClean, passFindings, passFailed} {
		v.passes.WithLabelValues(result)
	}
	v.clean.Set(float64(begun.Unix()))
	return v
}

// Pass counts a pass that looked at everything. findings are by verdict, covered is by topic and partition.
func (v *Verify) Pass(begun time.Time, took time.Duration, inputs int64, findings map[string]int64, covered map[string]map[int32]int64) {
	v.took.Set(took.Seconds())
	v.inputs.Add(float64(inputs))
	for topic, partitions := range covered {
		for partition, offset := range partitions {
			v.covered.WithLabelValues(strconv.Itoa(int(partition)), topic).Set(float64(offset))
		}
	}
	if len(findings) == 0 {
		v.passes.WithLabelValues(passClean).Inc()
		v.clean.Set(float64(begun.Unix()))
		return
	}
	v.passes.WithLabelValues(passFindings).Inc()
	for verdict, count := range findings {
		v.findings.WithLabelValues(verdict).Add(float64(count))
	}
}

// Failed counts a pass that could not be made.
func (v *Verify) Failed() { v.passes.WithLabelValues(passFailed).Inc() }
