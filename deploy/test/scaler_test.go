package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// The lag that a scaler goes by leaves out what operators have paused, counts a partition once while its owner changes, and
// is 0 where all is paused: no answer would be taken for a Prometheus that is away.
func TestScalerLeavesOutPausedPartitions(t *testing.T) {
	t.Parallel()
	promtool := tool(t, "promtool")
	folder := t.TempDir()
	write := func(name string, content any) string {
		text, err := yaml.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	type m = map[string]any
	const job = "default/pawl"
	series := func(metric, job, pod string, partition, value int) m {
		return m{"series": fmt.Sprintf("%s{job=%q,instance=%q,topic=\"orders\",partition=\"%d\"}", metric, job, pod, partition), "values": fmt.Sprintf("%dx10", value)}
	}
	lag := func(job, pod string, partition, records int) m {
		return series("processor_consumer_lag_records", job, pod, partition, records)
	}
	paused := func(job, pod string, partition, is int) m {
		return series("processor_consumer_paused", job, pod, partition, is)
	}
	query := scalerQuery(t, "lag")
	test := func(name string, want []float64, input ...m) m {
		samples := []m{}
		for _, value := range want {
			samples = append(samples, m{"labels": "{}", "value": value})
		}
		return m{"name": name, "interval": "1m", "input_series": input, "promql_expr_test": []m{{"expr": query, "eval_time": "5m", "exp_samples": samples}}}
	}
	run(t, promtool, "test", "rules", write("tests.yml", m{"tests": []m{
		test("nothing is paused", []float64{7}, lag(job, "a", 0, 3), lag(job, "a", 1, 4), paused(job, "a", 0, 0), paused(job, "a", 1, 0)),
		test("two owners of one partition", []float64{5}, lag(job, "a", 0, 3), lag(job, "b", 0, 5), paused(job, "a", 0, 0), paused(job, "b", 0, 0)),
		test("one is paused", []float64{4}, lag(job, "a", 0, 3), lag(job, "a", 1, 4), paused(job, "a", 0, 1), paused(job, "a", 1, 0)),
		test("all are paused", []float64{0}, lag(job, "a", 0, 3), lag(job, "b", 1, 4), paused(job, "a", 0, 1), paused(job, "b", 1, 1)),
		test("paused in another application", []float64{3}, lag(job, "a", 0, 3), paused("else", "z", 0, 1)),
		test("nobody tells", nil, paused(job, "a", 0, 1)),
	}}))
}

// scalerQuery is what a trigger of the ScaledObject asks, as the chart renders it.
func scalerQuery(t *testing.T, trigger string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy/helm/golden/everything.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var object struct {
			Kind string
			Spec struct {
				Triggers []struct {
					Name     string
					Metadata struct{ Query string }
				}
			}
		}
		if !strings.Contains(document, "\nkind: ScaledObject\n") {
			continue
		}
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			t.Fatal(err)
		}
		for _, one := range object.Spec.Triggers {
			if one.Name == trigger {
				return one.Metadata.Query
			}
		}
	}
	t.Fatalf("no ScaledObject has the trigger %q", trigger)
	return ""
}
