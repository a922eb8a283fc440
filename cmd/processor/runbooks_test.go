package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// An operator copies what stands in a runbook and has no time to correct it: every command and every flag in it
// exists.
func TestRunbooksNameCommandsThatExist(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("../../deploy/runbooks/*.md")
	if err != nil || len(paths) == 0 {
		t.Fatalf("there are no runbooks: %v", err)
	}
	commands := regexp.MustCompile("(?m)^    processor (.*)$|`processor ([^`]*)`")
	seen := 0
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range commands.FindAllStringSubmatch(string(text), -1) {
			seen++
			// The help of a command is shown only where everything before the word is understood.
			args := append(strings.Fields(match[1]+match[2]), "--help")
			if got := invoke(t, nil, args...); got.code != 0 || !strings.Contains(got.stdout+got.stderr, "processor "+args[0]) {
				t.Errorf("%s: processor %s: exit code %d, %s", filepath.Base(path), strings.Join(args, " "), got.code, got.stderr)
			}
		}
	}
	if seen < 30 {
		t.Errorf("the runbooks name %d commands: they can't be read right", seen)
	}
}
