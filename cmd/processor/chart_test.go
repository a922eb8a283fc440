package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// manifest is the part of a Kubernetes object that this program has a say in: configuration in a ConfigMap, and containers
// with their arguments, environment and hooks.
type manifest struct {
	Kind string
	Data map[string]string
	Spec struct {
		Template struct {
			Spec struct{ Containers []container }
		}
	}
}

type container struct {
	Args      []string
	Env       []struct{ Name, Value string }
	Lifecycle struct {
		PreStop struct {
			Exec struct{ Command []string }
		} `yaml:"preStop"`
	}
}

// manifests reads every object of a file. A field that manifest does not name is not our concern.
func manifests(t *testing.T, path string) (found []manifest) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for decoder := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var one manifest
		err := decoder.Decode(&one)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatalf("read %s: %v", path, err)
		}
		found = append(found, one)
	}
}

// What the Helm chart and the plain manifests give to the program passes its own check: the configuration in each
// ConfigMap, under the environment of each container, and every command that a container runs.
func TestManifestsFitTheProgram(t *testing.T) {
	t.Parallel()
	sets, err := filepath.Glob("../../deploy/helm/golden/*.yaml")
	if err != nil || len(sets) < 3 {
		t.Fatalf("the golden files of the chart are %v, %v", sets, err)
	}
	for _, path := range sets {
		checkManifests(t, path, manifests(t, path))
	}
	var plain []manifest
	paths, err := filepath.Glob("../../deploy/kubernetes/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		plain = append(plain, manifests(t, path)...)
	}
	checkManifests(t, "deploy/kubernetes", plain)
}

func checkManifests(t *testing.T, name string, all []manifest) {
	t.Helper()
	checked := 0
	for _, config := range all {
		if config.Kind != "ConfigMap" {
			continue
		}
		file := filepath.Join(t.TempDir(), "processor.yaml")
		if err := os.WriteFile(file, []byte(config.Data["processor.yaml"]), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, object := range all {
			for _, c := range object.Spec.Template.Spec.Containers {
				checked++
				checkContainer(t, name, file, c)
			}
		}
	}
	if checked == 0 {
		t.Errorf("%s has no container with a configuration", name)
	}
}

func checkContainer(t *testing.T, name, file string, c container) {
	t.Helper()
	var env []string
	for _, variable := range c.Env {
		if variable.Name == "PROCESSOR_CONFIG" {
			variable.Value = file
		}
		if variable.Value != "" {
			env = append(env, variable.Name+"="+variable.Value)
		}
	}
	if got := invoke(t, env, "check"); got.code != 0 || strings.Contains(got.stdout+got.stderr, "warning") {
		t.Errorf("%s: processor check: exit code %d\n%s%s", name, got.code, got.stdout, got.stderr)
	}
	commands := [][]string{c.Args}
	if hook := c.Lifecycle.PreStop.Exec.Command; hook != nil {
		if hook[0] != "processor" {
			t.Errorf("%s: the image has no %s", name, hook[0])
		}
		commands = append(commands, hook[1:])
	}
	for _, args := range commands {
		if got := invoke(t, nil, slices.Concat(args, []string{"--help"})...); got.code != 0 || !strings.Contains(got.stdout+got.stderr, "processor "+args[0]) {
			t.Errorf("%s: processor %v: exit code %d, %s", name, args, got.code, got.stderr)
		}
	}
}
