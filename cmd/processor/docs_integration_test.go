//go:build integration

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Who follows first-handler.md to the letter has a handler that passes its test and a configuration without problems. Its files are laid over
// the real ones, so that nothing is written into the tree.
func TestFirstHandlerOfTheDocumentsWorks(t *testing.T) {
	t.Parallel()
	page := string(readFile(t, filepath.Join(root, "docs", "first-handler.md")))
	folder := t.TempDir()
	tree, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	replace := map[string]string{}
	lay := func(path, text string) {
		replace[filepath.Join(tree, path)] = filepath.Join(folder, filepath.Base(path))
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(path)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	line, config := "", ""
	for _, fenced := range regexp.MustCompile("(?s)```(go|yaml)\n(.*?)```").FindAllStringSubmatch(page, -1) {
		name, rest, _ := strings.Cut(fenced[2], "\n")
		switch path, is := strings.CutPrefix(name, "// "); {
		case fenced[1] == "yaml":
			config = writeFile(t, fenced[2])
		case is && path == "registry":
			line = strings.Trim(rest, "\n")
		case is:
			lay(path, rest)
		}
	}
	const registry = "internal/handlers/handlers.go"
	const before = "\treturn map[string]func(*options) Handler{\n"
	text := string(readFile(t, filepath.Join(tree, registry)))
	if len(replace) != 2 || line == "" || config == "" || strings.Count(text, before) != 1 {
		t.Fatalf("the page or the registry can't be read right: files %v, line %q, configuration %q", replace, line, config)
	}
	lay(registry, strings.Replace(text, before, before+line+"\n", 1))
	overlay := filepath.Join(folder, "overlay.json")
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		t.Fatal(err)
	}

	run := func(want, name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = tree
		if text, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(text), want) {
			t.Fatalf("%s: %v, want %q: %s", cmd, err, want, text)
		}
	}
	run("--- PASS: TestMaskHidesCardNumbers", "go", "test", "-v", "-overlay", overlay, "./internal/handlers", "-run", "TestMask")
	binary := filepath.Join(folder, "processor")
	run("", "go", "build", "-overlay", overlay, "-o", binary, "./cmd/processor")
	run("", binary, "check", "-c", config)
}
