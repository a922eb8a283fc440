//go:build integration

package helm

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
)

// manifests are what one set of values makes of the chart, by the name of the template. Empty ones are left out.
type manifests map[string]string

// loadChart reads the chart, with files of it replaced: those that are generated and not yet written.
func loadChart(replaced map[string][]byte) (*chart.Chart, error) {
	folder := filepath.Join(root, chartFolder)
	var files []*archive.BufferedFile
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		text, known := replaced[filepath.Join(chartFolder, name)]
		if !known {
			if text, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		files = append(files, &archive.BufferedFile{Name: filepath.ToSlash(name), Data: text})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read chart: %w", err)
	}
	loaded, err := loader.LoadFiles(files)
	if err != nil {
		return nil, fmt.Errorf("load chart: %w", err)
	}
	return loaded, nil
}

// render does what `helm template pawl CHART` does for an installation in the namespace default.
func render(from *chart.Chart, values map[string]any) (manifests, error) {
	release := common.ReleaseOptions{Name: "pawl", Namespace: "default", Revision: 1, IsInstall: true}
	all, err := util.ToRenderValues(from, values, release, common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	texts, err := engine.Render(from, all)
	if err != nil {
		return nil, err
	}
	rendered := manifests{}
	for path, text := range texts {
		name := filepath.Base(path)
		if strings.TrimSpace(text) != "" && !strings.HasPrefix(name, "_") {
			rendered[name] = strings.TrimSpace(text) + "\n"
		}
	}
	return rendered, nil
}

func readValues(path string) (map[string]any, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read values: %w", err)
	}
	values, err := loader.LoadValues(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read values %s: %w", path, err)
	}
	return values, nil
}

// renderAll renders every set of values into a golden file, and the defaults into the plain manifests as well.
func renderAll(replaced map[string][]byte) (map[string][]byte, error) {
	loaded, err := loadChart(replaced)
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(root, valuesFolder, "*.yaml"))
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, path := range paths {
		values, err := readValues(path)
		if err != nil {
			return nil, err
		}
		rendered, err := render(loaded, values)
		if err != nil {
			return nil, fmt.Errorf("render %s: %w", path, err)
		}
		files[filepath.Join(goldenFolder, filepath.Base(path))] = rendered.golden()
		if filepath.Base(path) == defaultsValues {
			maps.Copy(files, rendered.plain())
		}
	}
	return files, nil
}

// golden is all of it in one file, the notes first.
func (m manifests) golden() []byte {
	var text strings.Builder
	for line := range strings.Lines(m["NOTES.txt"]) {
		text.WriteString(strings.TrimRight("# "+line, " \n") + "\n")
	}
	for _, name := range m.templates() {
		fmt.Fprintf(&text, "---\n# Source: %s\n%s", name, m[name])
	}
	return []byte(text.String())
}

// templates are the names of those that make objects.
func (m manifests) templates() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(m)), func(name string) bool { return name == "NOTES.txt" })
}

// plain is a file for each template, and the list of them that `kubectl apply -k` reads. Nobody manages these objects by
// Helm, so the labels that say so are left out.
func (m manifests) plain() map[string][]byte {
	files := map[string][]byte{}
	var list strings.Builder
	list.WriteString("# Written by `make chart`, like the files beside it.\napiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n")
	for _, name := range m.templates() {
		var text strings.Builder
		for line := range strings.Lines(m[name]) {
			if label := strings.TrimSpace(line); !strings.HasPrefix(label, "helm.sh/chart:") && !strings.HasPrefix(label, "app.kubernetes.io/managed-by:") {
				text.WriteString(line)
			}
		}
		files[filepath.Join(plainFolder, name)] = []byte(text.String())
		fmt.Fprintf(&list, "  - %s\n", name)
	}
	files[filepath.Join(plainFolder, "kustomization.yaml")] = []byte(list.String())
	return files
}
