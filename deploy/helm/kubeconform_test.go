//go:build integration

package helm

import (
	"io"
	"strings"
	"testing"

	"github.com/yannh/kubeconform/pkg/validator"
)

// conform holds objects against the schemas of Kubernetes, which know what must be there and what may be chosen from; a strict reader knows
// neither. Kinds of the Prometheus operator and of KEDA are tested elsewhere.
func conform(t *testing.T, text string) []validator.Result {
	t.Helper()
	v, err := validator.New([]string{"testdata/schemas/{{ .ResourceKind }}{{ .KindSuffix }}.json"}, validator.Opts{
		Strict: true, SkipKinds: map[string]struct{}{"ServiceMonitor": {}, "PrometheusRule": {}, "ScaledObject": {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return v.Validate("chart", io.NopCloser(strings.NewReader(text)))
}

func TestObjectsPassKubeconform(t *testing.T) {
	t.Parallel()
	for set, want := range map[string]int{"minimal.yaml": 3, "defaults.yaml": 6, "everything.yaml": 9} {
		valid := 0
		for _, result := range conform(t, strings.Join(install(t, values(t, set)).documents(), "\n---\n")) {
			switch result.Status {
			case validator.Valid:
				valid++
			case validator.Skipped, validator.Empty:
			case validator.Error, validator.Invalid:
				text := strings.TrimSpace(string(result.Resource.Bytes))
				t.Errorf("%s: %v\n%v\n%s", set, result.Err, result.ValidationErrors, text)
			}
		}
		if valid != want {
			t.Errorf("%s: %d objects were looked at, want %d", set, valid, want)
		}
	}
}

// What kubeconform is for must not pass: a field that is missing, unknown, or of another type.
func TestKubeconformRefuses(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: a}\nspec:\n  serviceName: a\n  selector: {matchLabels: {a: b}}\n"
	const pod = "  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: b}]}}\n"
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"as it should be":         {head + pod, true},
		"no template":             {head, false},
		"a container unnamed":     {head + "  template: {spec: {containers: [{image: b}]}}\n", false},
		"an unknown field":        {head + "  replica: 3\n" + pod, false},
		"a number as a text":      {head + "  replicas: \"3\"\n" + pod, false},
		"a kind without a schema": {"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n", false},
	} {
		for _, result := range conform(t, c.text) {
			if (result.Status == validator.Valid) != c.ok {
				t.Errorf("%s: %v, %v", name, result.Status, result.Err)
			}
		}
	}
}
