//go:build integration

package helm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// schema puts the schema of Pawl's configuration into that of the values, under config: a misspelt setting is then an
// error of `helm install`, not of a pod.
func schema() (map[string][]byte, error) {
	path := filepath.Join(chartFolder, "values.schema.json")
	values, err := readJSON(path)
	if err != nil {
		return nil, err
	}
	config, err := readJSON(configSchema)
	if err != nil {
		return nil, err
	}
	for _, key := range []string{"$schema", "$id", "title"} {
		delete(config, key)
	}
	properties, ok := values["properties"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s has no properties", path)
	}
	properties["config"] = config

	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // patterns stay readable
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(values); err != nil {
		return nil, fmt.Errorf("write schema: %w", err)
	}
	return map[string][]byte{path: text.Bytes()}, nil
}

func readJSON(path string) (map[string]any, error) {
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	var document map[string]any
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("read schema %s: %w", path, err)
	}
	return document, nil
}
