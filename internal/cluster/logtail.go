package cluster

import (
	"io"
	"os"
	"strings"
)

const (
	tailBytes = 16 << 10
	tailLines = 12
)

// tail gives the last lines of the log at path, indented for quoting in an error.
func tail(path string) string {
	f, err := os.Open(path) //nolint:gosec // the paths are this package's own
	if err != nil {
		return "\n  (no log: " + err.Error() + ")"
	}
	defer f.Close() //nolint:errcheck // only read from
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, size-tailBytes), io.SeekStart)
	}
	text, _ := io.ReadAll(f)
	var b strings.Builder
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	for _, line := range lines[max(0, len(lines)-tailLines):] {
		b.WriteString("\n  | ")
		b.WriteString(line)
	}
	return b.String()
}
