package deploy

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

const root = "../.." // of the repository, seen from this package

// dockerfile is the Dockerfile's two stages: the one that builds and the one that ships.
type dockerfile struct {
	build, final instructions.Stage
}

func readDockerfile(t *testing.T) dockerfile {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("parse Dockerfile: %v", err)
	}
	for _, warning := range tree.Warnings {
		t.Errorf("Dockerfile: %s %s", warning.Short, warning.Detail)
	}
	stages, _, err := instructions.Parse(tree.AST, nil)
	if err != nil {
		t.Fatalf("parse the instructions of Dockerfile: %v", err)
	}
	if len(stages) != 2 {
		t.Fatalf("Dockerfile has %d stages, want a build and a final one", len(stages))
	}
	return dockerfile{build: stages[0], final: stages[1]}
}

// find returns the instructions of one kind, in order.
func find[T instructions.Command](stage instructions.Stage) []T {
	var found []T
	for _, command := range stage.Commands {
		if one, ok := command.(T); ok {
			found = append(found, one)
		}
	}
	return found
}

func TestImageRunsAsNobodyWithoutShell(t *testing.T) {
	t.Parallel()
	final := readDockerfile(t).final
	if got, want := pinned(t, final), "gcr.io/distroless/static-debian13:nonroot"; got != want {
		t.Errorf("final image is based on %s, want %s", got, want)
	}
	users := find[*instructions.UserCommand](final)
	if len(users) != 1 || users[0].User != "65532:65532" {
		t.Errorf("USER is %v, want 65532:65532 once: as a number, so that an orchestrator can see that it is not root", users)
	}
	for _, command := range final.Commands {
		if run, ok := command.(*instructions.RunCommand); ok {
			t.Errorf("the final stage has no shell to run %q", run.CmdLine)
		}
	}
}

func TestImageStartsAndStopsTheService(t *testing.T) {
	t.Parallel()
	final := readDockerfile(t).final
	entrypoints := find[*instructions.EntrypointCommand](final)
	if len(entrypoints) != 1 || entrypoints[0].PrependShell || !slices.Equal(entrypoints[0].CmdLine, []string{"processor"}) {
		t.Errorf(`ENTRYPOINT is %v, want ["processor"] in exec form: a shell in between would swallow SIGTERM`, entrypoints)
	}
	commands := find[*instructions.CmdCommand](final)
	if len(commands) != 1 || commands[0].PrependShell || !slices.Equal(commands[0].CmdLine, []string{"run"}) {
		t.Errorf(`CMD is %v, want ["run"]`, commands)
	}
	signals := find[*instructions.StopSignalCommand](final)
	if len(signals) != 1 || signals[0].Signal != "SIGTERM" {
		t.Errorf("STOPSIGNAL is %v, want SIGTERM: it begins the drain", signals)
	}
	checks := find[*instructions.HealthCheckCommand](final)
	if len(checks) != 1 || !slices.Equal(checks[0].Health.Test, []string{"CMD", "processor", "healthcheck"}) {
		t.Fatalf("HEALTHCHECK is %v, want CMD processor healthcheck in exec form", checks)
	}
	if checks[0].Health.StartPeriod == 0 || checks[0].Health.Timeout == 0 {
		t.Errorf("HEALTHCHECK %+v: give it a start period and a timeout", checks[0].Health)
	}
}

func TestImageSaysWhatItIs(t *testing.T) {
	t.Parallel()
	var labels []string
	for _, command := range find[*instructions.LabelCommand](readDockerfile(t).final) {
		for _, label := range command.Labels {
			labels = append(labels, label.Key)
		}
	}
	for _, want := range []string{"title", "description", "licenses", "version", "revision", "created"} {
		if !slices.Contains(labels, "org.opencontainers.image."+want) {
			t.Errorf("label org.opencontainers.image.%s is missing", want)
		}
	}
}

// The builder's Go must be the one that go.mod asks for: the go command of an older one would try to
// fetch a toolchain in the middle of the build.
func TestBuilderHasTheGoOfTheModule(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\ngo ")
	if !found {
		t.Fatal("go.mod has no go line")
	}
	version, _, _ := strings.Cut(rest, "\n")
	if got, want := pinned(t, readDockerfile(t).build), "golang:"+version+"-trixie"; got != want {
		t.Errorf("the build stage is based on %s, go.mod wants %s", got, want)
	}
}

// pinned returns the base of a stage without its digest, which it must have: a tag is moved by whoever owns it.
func pinned(t *testing.T, stage instructions.Stage) string {
	t.Helper()
	base, digest, _ := strings.Cut(stage.BaseName, "@")
	if !regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).MatchString(digest) {
		t.Errorf("%s is not pinned by digest", stage.BaseName)
	}
	return base
}

// shell returns the command line of a RUN instruction as its shell gets it.
func shell(run *instructions.RunCommand) string { return strings.Join(run.CmdLine, " ") }

// versionOf is a part of what `processor version -o json` prints.
type versionOf struct {
	Version, Commit, Date string
}

func decodeVersion(t *testing.T, text []byte) versionOf {
	t.Helper()
	var version versionOf
	if err := json.Unmarshal(text, &version); err != nil {
		t.Fatalf("read the output of processor version: %v\n%s", err, text)
	}
	return version
}
