package deploy

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A shallow clone gets the commit that the test of mixed versions needs; where there is none, nobody takes that for a pass.
func TestHistoryFetchesTheCommitBefore(t *testing.T) {
	t.Parallel()
	script, err := filepath.Abs(filepath.Join(root, "hack", "history.sh"))
	if err != nil {
		t.Fatal(err)
	}
	whole, shallow := t.TempDir(), filepath.Join(t.TempDir(), "shallow")
	git := func(arguments ...string) {
		t.Helper()
		run(t, "git", append([]string{"-C", whole, "-c", "user.name=a", "-c", "user.email=a@example.org"}, arguments...)...)
	}
	commit := func() { git("commit", "--quiet", "--allow-empty", "--message", "one") }
	git("init", "--quiet")
	commit()
	text, err := exec.CommandContext(t.Context(), script, whole).CombinedOutput()
	if exit, is := errors.AsType[*exec.ExitError](err); !is || exit.ExitCode() != 4 || !strings.Contains(string(text), "NOT CHECKED") {
		t.Errorf("where there is one commit it ends with %v, want exit code 4 and NOT CHECKED: %s", err, text)
	}
	commit()
	run(t, script, whole)
	git("clone", "--quiet", "--depth=1", "file://"+whole, shallow)
	if err := exec.CommandContext(t.Context(), "git", "-C", shallow, "cat-file", "-e", "HEAD~1").Run(); err == nil {
		t.Fatal("the clone is not shallow: the test shows nothing")
	}
	run(t, script, shallow)
	run(t, "git", "-C", shallow, "cat-file", "-e", "HEAD~1")
}
