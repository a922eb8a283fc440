//go:build integration

package helm

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
)

// What the document says to write are values that work: the first block is defaults.yaml, from which the plain manifests are made,
// and the second, put over it, renders with each of its files named.
func TestDocumentedValuesAreTaken(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, document))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindAllSubmatch(text, -1)
	if len(blocks) != 2 {
		t.Fatalf("%s has %d blocks of YAML, want 2: look at the others here too", document, len(blocks))
	}
	block := func(i int) map[string]any {
		set, err := loader.LoadValues(bytes.NewReader(blocks[i][1]))
		if err != nil {
			t.Fatalf("block %d of %s: %v", i+1, document, err)
		}
		return set
	}
	if got, want := block(0), values(t, defaultsValues); !reflect.DeepEqual(got, want) {
		t.Errorf("the first block of %s is\n%v\nwant %s:\n%v", document, got, defaultsValues, want)
	}
	set := loader.MergeMaps(block(0), block(1))
	rendered := install(t, set)
	for _, want := range []string{
		"name: PROCESSOR_POSTGRES_DSN_FILE\n", "name: PROCESSOR_KAFKA_SASL_PASSWORD_FILE\n", "name: PROCESSOR_KAFKA_TLS_CA_FILE\n", "name: kafka-cluster-ca-cert\n", "path: payments-token\n",
	} {
		if !strings.Contains(rendered["statefulset.yaml"], want) {
			t.Errorf("the second block of %s makes a StatefulSet without %q:\n%s", document, want, rendered["statefulset.yaml"])
		}
	}
	if config := rendered["configmap.yaml"]; !strings.Contains(config, "https://payments.example.org/charges") || !strings.Contains(config, "/run/secrets/pawl/payments-token") {
		t.Errorf("the second block of %s does not reach the configuration:\n%s", document, config)
	}
}
