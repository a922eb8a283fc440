package txn

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// DESIGN.md says for every rule which tests keep it. A test that it names is there.
func TestDesignNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	design, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	var code bytes.Buffer
	for _, folder := range []string{".", "../app", "../kafka"} {
		files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			code.Write(text)
		}
	}
	names := regexp.MustCompile("`(Test[A-Z][A-Za-z0-9]*)`").FindAllSubmatch(design, -1)
	if len(names) < 50 {
		t.Errorf("DESIGN.md names %d tests, want those of twelve rules", len(names))
	}
	for _, name := range names {
		if !bytes.Contains(code.Bytes(), []byte("\nfunc "+string(name[1])+"(t *testing.T) {")) {
			t.Errorf("DESIGN.md names %s, which is not there", name[1])
		}
	}
}
