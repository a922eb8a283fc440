// Command schemas writes the JSON schemas that kubeconform holds the chart's objects against, into testdata/schemas. They are made of
// the OpenAPI definitions of a release of Kubernetes, which comes as a Go module: nothing else has to be reachable, and go.sum's
// database vouches for it. Run it in deploy/helm when the release moves:
//
//	go run ./schemas
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// module is the release; that of the types in go.mod is the same but for the major version.
const module = "k8s.io/kubernetes@v1.37.2"

const folder = "testdata/schemas"

// kinds are those that the chart renders and Kubernetes defines.
var kinds = []kind{
	{"", "v1", "ConfigMap"},
	{"", "v1", "Service"},
	{"", "v1", "ServiceAccount"},
	{"apps", "v1", "StatefulSet"},
	{"batch", "v1", "Job"},
	{"networking.k8s.io", "v1", "NetworkPolicy"},
	{"policy", "v1", "PodDisruptionBudget"},
}

type kind struct{ group, version, name string }

// file is the name by which kubeconform looks for a kind.
func (k kind) file() string {
	group, _, _ := strings.Cut(k.group, ".")
	if group != "" {
		group = "-" + group
	}
	return strings.ToLower(k.name) + group + "-" + k.version + ".json"
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run() error {
	all, err := definitions()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return err
	}
	for _, k := range kinds {
		schema, err := all.schema(k)
		if err != nil {
			return err
		}
		text, err := json.Marshal(schema)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, k.file()), append(text, '\n'), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// api is all definitions by name.
type api map[string]any

// definitions are those of the release.
func definitions() (api, error) {
	text, err := exec.CommandContext(context.Background(), "go", "mod", "download", "-json", module).Output()
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", module, err)
	}
	var found struct{ Dir string }
	if err := json.Unmarshal(text, &found); err != nil {
		return nil, fmt.Errorf("fetch %s: %w", module, err)
	}
	if text, err = os.ReadFile(filepath.Join(found.Dir, "api/openapi-spec/swagger.json")); err != nil {
		return nil, err
	}
	var document struct{ Definitions api }
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("read the definitions of %s: %w", module, err)
	}
	return document.Definitions, nil
}

// schema is that of one kind, with what it refers to.
func (a api) schema(k kind) (map[string]any, error) {
	const reference = "#/definitions/"
	for name := range a {
		if !a.is(name, k) {
			continue
		}
		used := map[string]any{}
		var use func(name string) error
		walk := func(node any) (err error) {
			each(node, func(below map[string]any) {
				if to, is := below["$ref"].(string); is && err == nil {
					err = use(strings.TrimPrefix(to, reference))
				}
			})
			return err
		}
		use = func(name string) error {
			if used[name] != nil {
				return nil
			}
			definition, is := a[name].(map[string]any)
			if !is {
				return fmt.Errorf("%s refers to %s, which is not defined", k.name, name)
			}
			used[name] = plain(name, definition)
			return walk(used[name])
		}
		if err := use(name); err != nil {
			return nil, err
		}
		return map[string]any{"$ref": reference + name, "definitions": used}, nil
	}
	return nil, fmt.Errorf("%s defines no %s of %s/%s", module, k.name, k.group, k.version)
}

func (a api) is(name string, k kind) bool {
	definition, _ := a[name].(map[string]any)
	names, _ := definition["x-kubernetes-group-version-kind"].([]any)
	for _, one := range names {
		if gvk, _ := one.(map[string]any); gvk["group"] == k.group && gvk["version"] == k.version && gvk["kind"] == k.name {
			return len(names) == 1
		}
	}
	return false
}

// plain is a definition as a schema: without prose, closed against unknown fields as a strict server is, and with what may be a number as well as a text.
func plain(name string, definition map[string]any) any {
	if strings.HasSuffix(name, "resource.Quantity") || strings.HasSuffix(name, "intstr.IntOrString") {
		return map[string]any{"type": []any{"string", "number"}}
	}
	schema := map[string]any{}
	for key, value := range definition {
		if key == "description" || key == "format" || strings.HasPrefix(key, "x-kubernetes-") {
			continue
		}
		schema[key] = value
	}
	if properties, is := definition["properties"].(map[string]any); is {
		closed := map[string]any{}
		for field, value := range properties {
			below, _ := value.(map[string]any)
			closed[field] = plain("", below)
		}
		schema["properties"] = closed
		if definition["additionalProperties"] == nil {
			schema["additionalProperties"] = false
		}
	}
	for _, key := range []string{"items", "additionalProperties"} {
		if below, is := definition[key].(map[string]any); is {
			schema[key] = plain("", below)
		}
	}
	return schema
}

// each visits all objects of a document.
func each(node any, visit func(map[string]any)) {
	switch node := node.(type) {
	case map[string]any:
		visit(node)
		for _, below := range node {
			each(below, visit)
		}
	case []any:
		for _, below := range node {
			each(below, visit)
		}
	}
}
