//go:build integration

package deploy

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// stamp is what the releases of these tests are made of.
var stamp = versionOf{Version: "v0.0.0-test", Commit: "0123456789abcdef", Date: "2026-01-02T03:04:05Z"}

// Who doubts a release builds it again, elsewhere, and gets the same bytes. What others have written lies in one place for both builds, so only
// our packages are compiled twice. The compiler's cache does not look at the folder: a comment at the end of each file, which changes no
// line's number and no code, keeps it from answering with what the first build has made.
func TestReleaseIsReproducible(t *testing.T) {
	t.Parallel()
	first, _ := release(t, root)
	elsewhere := filepath.Join(t.TempDir(), "another", "place")
	copyProject(t, elsewhere)
	second, compiled := release(t, elsewhere)
	for _, part := range []string{"app", "kafka", "outbox/ledger", "txn"} {
		if !strings.Contains(compiled, "\npawl/internal/"+part+"\n") {
			t.Errorf("the second build took %s from the first: %s", part, compiled)
		}
	}

	name := "processor_" + stamp.Version + "_linux_" + runtime.GOARCH
	files, err := os.ReadDir(first)
	if err != nil || len(files) != 6 {
		t.Fatalf("a release has a binary, its materials, the chart, the image, its digest and the checksums, not %v: %v", files, err)
	}
	for _, file := range files {
		one, another := read(t, filepath.Join(first, file.Name())), read(t, filepath.Join(second, file.Name()))
		if !bytes.Equal(one, another) {
			t.Errorf("%s differs between two builds: %d and %d bytes", file.Name(), len(one), len(another))
		}
	}

	checkStatic(t, filepath.Join(first, name))
	checkMaterials(t, filepath.Join(first, name+".cdx.json"))
	checkImage(t, first)
	check := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "SHA256SUMS")
	check.Dir = first
	if text, err := check.CombinedOutput(); err != nil {
		t.Errorf("checksums: %v: %s", err, text)
	}
}

// checkMaterials: the list has what is linked in, of modules and of Go itself.
func checkMaterials(t *testing.T, path string) {
	t.Helper()
	var materials struct {
		BOMFormat  string `json:"bomFormat"`
		Components []struct {
			Name string `json:"name"`
		} `json:"components"`
	}
	if err := json.Unmarshal(read(t, path), &materials); err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, component := range materials.Components {
		listed = append(listed, component.Name)
	}
	for _, want := range []string{"github.com/twmb/franz-go", "github.com/jackc/pgx/v5", "std"} {
		if materials.BOMFormat != "CycloneDX" || !slices.Contains(listed, want) {
			t.Errorf("the bill of materials, of format %q, lacks %s: %s", materials.BOMFormat, want, listed)
		}
	}
}

// release makes one for this machine's architecture and returns its folder and what was said: the packages that were compiled.
func release(t *testing.T, folder string) (out, said string) {
	t.Helper()
	out = filepath.Join(t.TempDir(), "dist")
	cmd := exec.CommandContext(t.Context(), filepath.Join(folder, "hack", "release.sh"), out)
	cmd.Env = append(os.Environ(), "VERSION="+stamp.Version, "COMMIT="+stamp.Commit, "DATE="+stamp.Date, "ARCHS="+runtime.GOARCH)
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return out, string(text)
}

// copyProject copies what is of the project, as a clone would have it, and ends each Go file of internal with a comment. Not those of the main package:
// the binary's build ID has theirs in it.
func copyProject(t *testing.T, to string) {
	t.Helper()
	list, err := exec.CommandContext(t.Context(), "git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		info, err := os.Stat(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // deleted and not committed
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		text := read(t, filepath.Join(root, name))
		if strings.HasPrefix(name, "internal/") && strings.HasSuffix(name, ".go") {
			text = append(text, "// "+to+"\n"...) // never the same
		}
		if err := os.WriteFile(path, text, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
