//go:build integration

package deploy

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// TestDockerfileBuildsTheProgram does what the build stage does, without an engine: it copies what the
// Dockerfile copies into an empty folder, runs its go build line there, and runs the result. So a file
// that the build needs but the Dockerfile or .dockerignore forgets is missed here, not in a release.
func TestDockerfileBuildsTheProgram(t *testing.T) {
	t.Parallel()
	build := readDockerfile(t).build
	source, out := t.TempDir(), t.TempDir()
	for _, command := range find[*instructions.CopyCommand](build) {
		for _, path := range command.SourcePaths {
			target := filepath.Join(source, command.DestPath)
			if strings.HasSuffix(command.DestPath, "/") {
				target = filepath.Join(target, path)
			}
			copyTree(t, filepath.Join(root, path), target)
		}
	}
	line := buildLine(t, build)
	const destination = "/out/processor"
	if !strings.Contains(line, "-o "+destination+" ") {
		t.Fatalf("the build line writes elsewhere than %s: %s", destination, line)
	}
	binary := filepath.Join(out, "processor")
	stamp := versionOf{Version: "v9.8.7-test", Commit: "0123456789abcdef", Date: "2026-11-23T00:00:00Z"}
	command := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(line, destination, binary))
	command.Dir = source
	command.Env = append(os.Environ(), "TARGETOS="+runtime.GOOS, "TARGETARCH="+runtime.GOARCH,
		"VERSION="+stamp.Version, "COMMIT="+stamp.Commit, "DATE="+stamp.Date)
	if text, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, text)
	}

	text, err := exec.CommandContext(t.Context(), binary, "version", "-o", "json").Output()
	if err != nil {
		t.Fatalf("processor version: %v", err)
	}
	if got := decodeVersion(t, text); got != stamp {
		t.Errorf("processor version says %+v, the build was given %+v", got, stamp)
	}
	checkStatic(t, binary)
	checkComposeConfig(t, binary)
}

// buildLine is the RUN instruction that calls go build.
func buildLine(t *testing.T, stage instructions.Stage) string {
	t.Helper()
	for _, run := range find[*instructions.RunCommand](stage) {
		if line := shell(run); strings.Contains(line, "go build") {
			return line
		}
	}
	t.Fatal("no RUN instruction of the build stage calls go build")
	return ""
}

// checkStatic: the final image has no loader and no libraries.
func checkStatic(t *testing.T, binary string) {
	t.Helper()
	file, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, part := range file.Progs {
		if part.Type == elf.PT_INTERP {
			t.Error("the binary wants a dynamic loader; the final image has none")
		}
	}
}

// checkComposeConfig: the processors of docker-compose.yml must accept their configuration file.
func checkComposeConfig(t *testing.T, binary string) {
	t.Helper()
	for _, service := range processors(readCompose(t)) {
		command := exec.CommandContext(t.Context(), binary, "check", "-c", filepath.Join(root, "deploy/compose/processor.yaml"))
		command.Env = []string{"PATH=" + os.Getenv("PATH")}
		for name, value := range service.Environment {
			if value != nil {
				command.Env = append(command.Env, name+"="+*value)
			}
		}
		if text, err := command.CombinedOutput(); err != nil {
			t.Errorf("service %s: processor check: %v\n%s", service.Name, err, text)
		}
	}
}

// copyTree copies a file or a folder, less what .dockerignore keeps from the builder.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if err != nil {
		t.Fatalf("the Dockerfile copies what is not there: %v", err)
	}
	allowed := contextOf(t)
	relative, err := filepath.Rel(root, from)
	if err != nil {
		t.Fatal(err)
	}
	if !allowed(relative) {
		t.Fatalf("the Dockerfile copies %s, which .dockerignore keeps from the builder", relative)
	}
	if !info.IsDir() {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// contextOf reads .dockerignore: everything is left out but what a line takes back by "!".
func contextOf(t *testing.T) func(path string) bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	var taken []string
	for line := range strings.Lines(string(text)) {
		if path, found := strings.CutPrefix(strings.TrimSpace(line), "!"); found {
			taken = append(taken, path)
		}
	}
	return func(path string) bool { return slices.Contains(taken, path) }
}
