package golden

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatIsKeptIsWhatWasWritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "testdata", "kept")
	if err := compare(path, "text"); err == nil || !strings.Contains(err.Error(), "-update") {
		t.Errorf("a file that is not there gives %v", err)
	}
	if err := write(path, "text\n"); err != nil {
		t.Fatal(err)
	}
	if err := compare(path, "text\n"); err != nil {
		t.Error(err)
	}
	Is(t, path, []byte("text\n"))
	err := compare(path, "text")
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "-want +got") {
		t.Errorf("another text gives %v", err)
	}
	if err := write(path, "text"); err != nil {
		t.Fatal(err)
	}
	if err := compare(path, "text"); err != nil {
		t.Error(err)
	}
}
