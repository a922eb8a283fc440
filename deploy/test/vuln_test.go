package deploy

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Where the database can't be read nobody has looked: that is neither "none" nor a mistake of the change.
func TestVulnWithoutDatabaseSaysThatNobodyLooked(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "hack", "vuln.sh"))
	cmd.Env = append(os.Environ(), "VULNDB=file://"+t.TempDir())
	text, err := cmd.CombinedOutput()
	exit, is := errors.AsType[*exec.ExitError](err)
	if !is || exit.ExitCode() != 4 {
		t.Errorf("it ended with %v, want exit code 4", err)
	}
	for _, want := range []string{"NOT CHECKED", "make vuln VULNDB=file:///FOLDER"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("it does not say %q: %s", want, text)
		}
	}
}
