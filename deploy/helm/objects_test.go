//go:build integration

package helm

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/santhosh-tekuri/jsonschema/v6"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	kubernetes "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// values reads one set of values.
func values(t *testing.T, name string) map[string]any {
	t.Helper()
	set, err := readValues(filepath.Join(root, valuesFolder, name))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// valueSets are the names of all.
func valueSets(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, valuesFolder, "*.yaml"))
	if err != nil || len(paths) < 3 {
		t.Fatalf("there are the sets of values %v, %v", paths, err)
	}
	for i := range paths {
		paths[i] = filepath.Base(paths[i])
	}
	return paths
}

// install renders the chart with these values.
func install(t *testing.T, set map[string]any) manifests {
	t.Helper()
	loaded, err := loadChart(nil)
	if err != nil {
		t.Fatal(err)
	}
	rendered, err := render(loaded, set)
	if err != nil {
		t.Fatal(err)
	}
	return rendered
}

// documents are the objects of all templates as text.
func (m manifests) documents() (texts []string) {
	for _, name := range m.templates() {
		texts = append(texts, strings.Split(m[name], "\n---\n")...)
	}
	return texts
}

// reader decodes objects strictly into the types of Kubernetes and of the Prometheus operator: an unknown field, one
// given twice, or one of the wrong type is an error.
func reader(t *testing.T) runtime.Decoder {
	t.Helper()
	types := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{kubernetes.AddToScheme, monitoring.AddToScheme} {
		if err := add(types); err != nil {
			t.Fatal(err)
		}
	}
	return json.NewSerializerWithOptions(json.DefaultMetaFactory, types, types, json.SerializerOptions{Yaml: true, Strict: true})
}

// objects decodes everything but what belongs to KEDA, whose types would bring half of a controller with them.
func objects(t *testing.T, rendered manifests) (found []runtime.Object) {
	t.Helper()
	decoder := reader(t)
	for _, text := range rendered.documents() {
		if strings.Contains(text, "\nkind: ScaledObject\n") {
			continue
		}
		object, _, err := decoder.Decode([]byte(text), nil, nil)
		if err != nil {
			t.Errorf("decode: %v in\n%s", err, text)
			continue
		}
		found = append(found, object)
	}
	return found
}

// only gives the objects of one type.
func only[T runtime.Object](all []runtime.Object) (found []T) {
	for _, object := range all {
		if one, is := object.(T); is {
			found = append(found, one)
		}
	}
	return found
}

// one gives the only object of a type.
func one[T runtime.Object](t *testing.T, all []runtime.Object) T {
	t.Helper()
	found := only[T](all)
	if len(found) != 1 {
		t.Fatalf("there are %d objects of type %T, want 1", len(found), found)
	}
	return found[0]
}

func TestObjectsAreWhatKubernetesTakes(t *testing.T) {
	t.Parallel()
	want := map[string][]string{
		"minimal.yaml":    {"ConfigMap", "Service", "StatefulSet"},
		"defaults.yaml":   {"ConfigMap", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount", "StatefulSet"},
		"everything.yaml": {"ConfigMap", "ConfigMap", "Job", "Job", "NetworkPolicy", "PodDisruptionBudget", "PrometheusRule", "Service", "ServiceAccount", "ServiceMonitor", "StatefulSet"},
	}
	for _, set := range valueSets(t) {
		var kinds []string
		for _, object := range objects(t, install(t, values(t, set))) {
			kinds = append(kinds, object.GetObjectKind().GroupVersionKind().Kind)
		}
		slices.Sort(kinds)
		if !slices.Equal(kinds, want[set]) {
			t.Errorf("%s makes %v, want %v", set, kinds, want[set])
		}
	}
}

// scaledObject is the schema that KEDA gives to the API server, with every object closed: the server drops unknown fields
// without a word.
func scaledObject(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile("testdata/keda.sh_scaledobjects.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var definition struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					OpenAPI map[string]any `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &definition); err != nil || len(definition.Spec.Versions) != 1 {
		t.Fatalf("read the definition of ScaledObject: %v, %d versions", err, len(definition.Spec.Versions))
	}
	const url = "scaledobject.json"
	compiler := jsonschema.NewCompiler()
	object := definition.Spec.Versions[0].Schema.OpenAPI
	closeObjects(object)
	if properties, is := object["properties"].(map[string]any); is {
		properties["metadata"] = map[string]any{"type": "object"} // of Kubernetes itself
	}
	if err := compiler.AddResource(url, object); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile(url)
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

func closeObjects(schema any) {
	switch node := schema.(type) {
	case map[string]any:
		if _, open := node["additionalProperties"]; node["properties"] != nil && !open {
			node["additionalProperties"] = false
		}
		for _, below := range node {
			closeObjects(below)
		}
	case []any:
		for _, below := range node {
			closeObjects(below)
		}
	}
}

// scaler is the rendered ScaledObject.
func scaler(t *testing.T, rendered manifests) map[string]any {
	t.Helper()
	var object map[string]any
	if err := yaml.Unmarshal([]byte(rendered["scaledobject.yaml"]), &object); err != nil || object == nil {
		t.Fatalf("no ScaledObject: %v", err)
	}
	return object
}

func TestScaledObjectIsWhatKEDATakes(t *testing.T) {
	t.Parallel()
	schema, object := scaledObject(t), scaler(t, install(t, values(t, "everything.yaml")))
	if err := schema.Validate(object); err != nil {
		t.Error(err)
	}
	// The check itself: what it is for must not pass.
	spec, _ := object["spec"].(map[string]any)
	spec["maxReplicas"] = 3
	if err := schema.Validate(object); err == nil {
		t.Error("an unknown field passes")
	}
	delete(spec, "maxReplicas")
	spec["minReplicaCount"] = "2"
	if err := schema.Validate(object); err == nil {
		t.Error("a number as a string passes")
	}
}

// An unknown field must not pass, otherwise the other tests prove nothing.
func TestStrictReaderRefusesUnknownFields(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIp: None}\n",
		"apiVersion: monitoring.coreos.com/v1\nkind: ServiceMonitor\nmetadata: {name: a}\nspec: {selector: {}, endpoint: []}\n",
		"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: None, clusterIP: None}\n",
		"apiVersion: extensions/v1beta1\nkind: NoSuchKind\nmetadata: {name: a}\n",
	} {
		if object, _, err := reader(t).Decode([]byte(text), nil, nil); err == nil {
			t.Errorf("this passes as %T:\n%s", object, text)
		}
	}
}

// podSpecs are those of the StatefulSet and of the jobs, with their labels.
func podSpecs(t *testing.T, all []runtime.Object) map[string]core.PodTemplateSpec {
	t.Helper()
	set := statefulSet(t, all)
	specs := map[string]core.PodTemplateSpec{"StatefulSet " + set.Name: set.Spec.Template}
	for _, job := range only[*batch.Job](all) {
		specs["Job "+job.Name] = job.Spec.Template
	}
	return specs
}
