//go:build integration

package helm

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
)

// What `helm lint --strict` says, with each set of values.
func TestChartPassesHelmLint(t *testing.T) {
	t.Parallel()
	for _, set := range valueSets(t) {
		result := lint.RunAll(filepath.Join(root, chartFolder), values(t, set), "default")
		for _, message := range result.Messages {
			if message.Severity >= support.WarningSev {
				t.Errorf("%s: %v", set, message)
			}
		}
	}
}

// What would go wrong quietly is refused before anything is installed, with what to do about it.
func TestChartRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		path  []string
		value any
		want  string // the part of the message that names the value or says what to do
	}{
		"no configuration":                {[]string{"config"}, nil, "at '/config': missing properties 'application', 'routes'"},
		"value that is not there":         {[]string{"replica"}, 3, "additional properties 'replica' not allowed"},
		"setting that is not there":       {[]string{"config", "txn", "lane"}, 3, "at '/config/txn': additional properties 'lane' not allowed"},
		"setting of the wrong type":       {[]string{"config", "txn", "lanes"}, "two", "at '/config/txn/lanes': got string, want integer"},
		"one name for all pods":           {[]string{"config", "instance"}, "a", "config.instance would give every pod one name"},
		"secret in the configuration":     {[]string{"config", "postgres", "dsn"}, "postgres://a:b@c/d", "name that in secrets.postgresDsn"},
		"status page of the pod alone":    {[]string{"config", "admin", "listen"}, "127.0.0.1:9090", "give a port alone"},
		"grace period too short":          {[]string{"terminationGracePeriodSeconds"}, 25, "give the pod more, or 0"},
		"more lanes than partitions":      {[]string{"partitions"}, 3, "2 pods of 2 lanes are more than the 3 partitions"},
		"leaving without the right to":    {[]string{"leaveOnStop"}, true, "name its Secret in secrets.adminToken"},
		"scaling to none":                 {[]string{"keda", "minReplicas"}, 0, "at '/keda/minReplicas': minimum: got 0, want 1"},
		"digest that is none":             {[]string{"image", "digest"}, "latest", "at '/image/digest'"},
		"secret without a key":            {[]string{"secrets", "files"}, map[string]any{"token": map[string]any{"name": "a"}}, "missing property 'key'"},
		"file that leads elsewhere":       {[]string{"secrets", "files"}, map[string]any{"../token": map[string]any{"name": "a", "key": "b"}}, "at '/secrets/files': additional properties '../token' not allowed"},
		"budget that forbids every drain": {[]string{"podDisruptionBudget", "maxUnavailable"}, 0, "at '/podDisruptionBudget/maxUnavailable'"},
		"migration without a database":    {[]string{"jobs", "migrate", "enabled"}, true, ""},
		"fewest pods above the most pods": {[]string{"keda"}, map[string]any{"enabled": true, "minReplicas": 9}, "keda.minReplicas is 9, above keda.maxReplicas, which is 6"},
	}
	loaded, err := loadChart(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range tests {
		set := values(t, "defaults.yaml")
		if name == "migration without a database" {
			delete(set, "secrets")
			test.want = "jobs.migrate.enabled needs a database"
		}
		change(set, test.value, test.path...)
		if test.value == nil {
			delete(set, test.path[0])
		}
		if _, err := render(loaded, set); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q in it", name, err, test.want)
		}
	}
}

// Helm reads numbers as floating point where it is not told otherwise: 1000000 became 1e+06.
func TestNumbersReachTheConfigurationAsTheyWere(t *testing.T) {
	t.Parallel()
	set, err := readValues(filepath.Join("testdata", "numbers.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if text := install(t, set)["configmap.yaml"]; !strings.Contains(text, "attempts_max: 1000000\n") {
		t.Errorf("the configuration has another number:\n%s", text)
	}
}

// What KEDA asks Prometheus for is told by the pods, under the job that the ServiceMonitor gives them.
func TestScalerAsksForMetricsThatAreThere(t *testing.T) {
	t.Parallel()
	list, err := os.ReadFile(filepath.Join(root, "docs/metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	rendered := install(t, values(t, "everything.yaml"))
	spec, _ := scaler(t, rendered)["spec"].(map[string]any)
	triggers, _ := spec["triggers"].([]any)
	if len(triggers) != 2 {
		t.Fatalf("the ScaledObject has %d triggers, want 2", len(triggers))
	}
	const job = "default/pawl"
	if !strings.Contains(rendered["servicemonitor.yaml"], "replacement: "+job+"\n") {
		t.Errorf("the ServiceMonitor does not give the job %s", job)
	}
	for _, one := range triggers {
		trigger, _ := one.(map[string]any)
		metadata, _ := trigger["metadata"].(map[string]any)
		query, _ := metadata["query"].(string)
		metrics := regexp.MustCompile(`processor_[a-z_]+`).FindAllString(query, -1)
		if len(metrics) == 0 {
			t.Errorf("%q asks for no metric of ours", query)
		}
		for _, metric := range metrics {
			if !strings.Contains(string(list), "| `"+metric+"` |") {
				t.Errorf("%q asks for %s, which docs/metrics.md does not know", query, metric)
			}
		}
		if !strings.Contains(query, `job="`+job+`"`) {
			t.Errorf("%q asks for other jobs than %s too", query, job)
		}
	}
}

// A scaler takes pods away, and each one waits out the session timeout where nobody told it to leave.
func TestNotesSayThatScalingDownIsSlow(t *testing.T) {
	t.Parallel()
	for leave, want := range map[bool]int{false: 1, true: 0} {
		set := values(t, "everything.yaml")
		change(set, leave, "leaveOnStop")
		notes := install(t, set)["NOTES.txt"]
		if strings.Count(notes, "until kafka.session_timeout has passed. KEDA takes pods away: set leaveOnStop") != want {
			t.Errorf("with leaveOnStop %t the notes should say %d times that scaling down is slow:\n%s", leave, want, notes)
		}
	}
}
