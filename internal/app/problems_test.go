package app

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pawl/internal/testkit/golden"
)

func testHost() (string, error) { return "host-1.example.org", nil }

// Each file is a configuration that is wrong, with variables and --set values in its last comments;
// beside it stands everything that check says about it.
func TestLoadReportsEveryProblemAtItsPlace(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/problems/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			opts := LoadOptions{File: file, EnvKnown: []string{"PROCESSOR_CONFIG"}, Hostname: testHost}
			for line := range strings.Lines(string(text)) {
				line = strings.TrimSpace(line)
				if value, found := strings.CutPrefix(line, "#env "); found {
					opts.Env = append(opts.Env, value)
				}
				if value, found := strings.CutPrefix(line, "#set "); found {
					opts.Set = append(opts.Set, value)
				}
			}
			_, origins, err := Load(opts)
			problems, is := err.(Problems) //nolint:errorlint // exactly this type is promised
			if !is || len(problems) == 0 {
				t.Fatalf("got %v, want problems", err)
			}
			var got bytes.Buffer
			show := func(problems Problems) {
				for _, p := range problems {
					fmt.Fprintln(&got, p)
					if p.Excerpt != "" {
						fmt.Fprintln(&got, p.Excerpt)
					}
				}
			}
			show(problems)
			if warnings := origins.Warnings(); len(warnings) > 0 {
				fmt.Fprintln(&got, "--- warnings")
				show(warnings)
			}
			if strings.Contains(got.String(), "hunter2") {
				t.Errorf("a secret is in the report:\n%s", got.String())
			}
			golden.Is(t, strings.TrimSuffix(file, ".yaml")+".golden", got.Bytes())
		})
	}
}

func TestLoadReportsAFileThatIsNotThere(t *testing.T) {
	t.Parallel()
	_, _, err := Load(LoadOptions{File: "testdata/none.yaml", Set: []string{"txn.lanes=x"}, Hostname: testHost})
	want := "testdata/none.yaml: cannot be read: no such file or directory\n--set txn.lanes: is \"x\", want a whole number"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
