package telemetry

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// everyPass makes a series of every metric of the check.
func everyPass(v *Verify) {
	v.Pass(time.Unix(1000, 0), 2*time.Second, 500, nil, map[string]map[int32]int64{"in": {0: 700}})
}

func TestVerifyCountsWhatPassesFind(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	v := NewVerify(registry, []string{"LOST", "DUPLICATE"}, time.Unix(900, 0))
	want := func(name string, want float64, metric prometheus.Collector) {
		t.Helper()
		if got := testutil.ToFloat64(metric); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	want("the last clean pass, before any", 900, v.clean)
	everyPass(v)
	v.Pass(time.Unix(2000, 0), 3*time.Second, 40, map[string]int64{"LOST": 2}, map[string]map[int32]int64{"in": {0: 740}})
	v.Failed()
	want("the last clean pass", 1000, v.clean)
	want("inputs", 540, v.inputs)
	want("lost", 2, v.findings.WithLabelValues("LOST"))
	want("duplicates", 0, v.findings.WithLabelValues("DUPLICATE"))
	want("covered", 740, v.covered.WithLabelValues("0", "in"))
	want("duration", 3, v.took)
	for _, result := range []string{passClean, passFindings, passFailed} {
		want(result, 1, v.passes.WithLabelValues(result))
	}
}
