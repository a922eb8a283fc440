// Package golden holds what a program makes against files that are kept: golden files of tests, and pages of docs/ that
// nobody writes by hand. The tests of a package that imports it take the flag -update, which writes them anew.
package golden

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the files that are kept, instead of comparing with them")

// Is fails a test whose file does not hold this text. Under -update it writes the file.
func Is[T string | []byte](tb testing.TB, path string, got T) {
	tb.Helper()
	keep := compare
	if *update {
		keep = write
	}
	if err := keep(path, string(got)); err != nil {
		tb.Error(err)
	}
}

func write(path, got string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return fmt.Errorf("make the folder of %s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
		return fmt.Errorf("write what is kept: %w", err)
	}
	return nil
}

func compare(path, got string) error {
	want, err := os.ReadFile(path) //nolint:gosec // a test says which
	if err != nil {
		return fmt.Errorf("read what is kept (go test -update writes it): %w", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		return fmt.Errorf("%s is not what the code makes; if the code is right, run this test with -update (-want +got):\n%s", path, diff)
	}
	return nil
}
