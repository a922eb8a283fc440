//go:build integration

package helm

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// Where things are, seen from the root of the repository.
const (
	root           = "../.." // seen from this package
	chartFolder    = "deploy/helm/pawl"
	valuesFolder   = "deploy/helm/values"
	goldenFolder   = "deploy/helm/golden"
	plainFolder    = "deploy/kubernetes"
	rulesFolder    = "deploy/prometheus"
	configSchema   = "deploy/config.schema.json"
	document       = "docs/kubernetes.md"
	defaultsValues = "defaults.yaml" // what must be given and nothing else: the plain manifests are made of it
)

var update = flag.Bool("update", false, "write what is generated") //nolint:gochecknoglobals // a flag

// What follows from the chart is what is stored: nobody edits it, and nobody forgets `make chart`.
func TestGeneratedFilesAreThoseThatAreStored(t *testing.T) {
	t.Parallel()
	files, err := generated()
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range files {
		if *update {
			if err := os.WriteFile(filepath.Join(root, path), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		stored, err := os.ReadFile(filepath.Join(root, path))
		if err != nil || !bytes.Equal(stored, text) {
			t.Errorf("%s is not what the chart makes: run `make chart` and look at the difference (%v)", path, err)
		}
	}
	for _, folder := range []string{goldenFolder, plainFolder, chartFolder + "/rules"} {
		paths, err := filepath.Glob(filepath.Join(root, folder, "*.y*ml"))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s is empty: %v", folder, err)
		}
		for _, path := range paths {
			if _, known := files[filepath.Join(folder, filepath.Base(path))]; !known {
				t.Errorf("%s/%s is not made of the chart: delete it", folder, filepath.Base(path))
			}
		}
	}
}

// generated gives every file that follows from another one, by its path below the root. What is made first is part of
// the chart, so that the rest is rendered from the chart as it will be.
func generated() (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, step := range []func() (map[string][]byte, error){rules, schema, documented} {
		more, err := step()
		if err != nil {
			return nil, err
		}
		maps.Copy(files, more)
	}
	rendered, err := renderAll(files)
	if err != nil {
		return nil, err
	}
	maps.Copy(files, rendered)
	return files, nil
}

// rules are copies: a chart can take in only files of its own folder.
func rules() (map[string][]byte, error) {
	paths, err := filepath.Glob(filepath.Join(root, rulesFolder, "*.rules.yml"))
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read rules: %w", err)
		}
		files[filepath.Join(chartFolder, "rules", filepath.Base(path))] = text
	}
	return files, nil
}
