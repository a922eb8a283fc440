//go:build chaos && linux

package e2e

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"pawl/internal/testkit"
)

var (
	long = flag.Bool("long", false, "run the tests at their long size")
	seed = flag.Uint64("seed", 0, "seed of the order of faults; 0 draws one")
)

func TestMain(m *testing.M) {
	os.Exit(testkit.Main(m, removePrograms, func() error { return goleak.Find() }))
}

// program is the binary, built at its first use in this test process.
type program struct {
	tags   string
	commit string // whose sources; empty: those that lie here

	mu     sync.Mutex
	folder string
	path   string
	err    error
}

var (
	shipped   = &program{}
	breakable = &program{tags: "failpoint"} // dies where it is told to
)

// older is the program of the commit before this one.
var older = &program{commit: "HEAD~1"}

// previous returns it, or skips the test where the clone has no such commit: hack/history.sh, a stage of CI, fetches it or says so.
func previous(t testing.TB) *program {
	t.Helper()
	if text, err := exec.Command("git", "cat-file", "-e", older.commit).CombinedOutput(); err != nil {
		t.Skipf("there is no commit before this one in this clone: %v %s", err, text)
	}
	return older
}

func (p *program) String() string { return cmp.Or(p.commit, "today's") }

// build returns the path of the binary as it is shipped.
func build(t testing.TB) string {
	t.Helper()
	return shipped.build(t)
}

func (p *program) build(t testing.TB) string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.path == "" && p.err == nil {
		p.path, p.err = p.compile()
	}
	if p.err != nil {
		t.Fatal(p.err)
	}
	return p.path
}

func (p *program) compile() (string, error) {
	if err := observeSources(); err != nil {
		return "", err
	}
	folder, err := os.MkdirTemp("", "pawl-e2e-")
	if err != nil {
		return "", fmt.Errorf("build the program: %w", err)
	}
	p.folder = folder
	sources := "../.."
	if p.commit != "" {
		sources = filepath.Join(folder, "sources")
		if err := checkOut(p.commit, sources); err != nil {
			return "", err
		}
	}
	path := filepath.Join(folder, "processor")
	cmd := exec.Command("go", "build", "-tags", p.tags, "-o", path, "./cmd/processor")
	cmd.Dir = sources
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, text)
	}
	return path, nil
}

// checkOut puts the sources of a commit into a new folder.
func checkOut(commit, folder string) error {
	if err := os.Mkdir(folder, 0o700); err != nil {
		return fmt.Errorf("check out %s: %w", commit, err)
	}
	archive := folder + ".tar"
	for _, command := range [][]string{
		{"git", "-C", "../..", "archive", "--output", archive, commit},
		{"tar", "-x", "-f", archive, "-C", folder},
	} {
		if text, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("check out %s: %w\n%s", commit, err, text)
		}
	}
	return nil
}

// observeSources looks at every source of the module. The go command repeats a passed test only when
// a file that the test process itself looked at has changed; what its child `go build` reads does not
// count. Without this, a broken program would stay green out of the cache.
func observeSources() error {
	const root = "../.."
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".git"):
			return filepath.SkipDir
		case entry.IsDir(), !slices.Contains([]string{".go", ".mod", ".sum", ".json", ".yaml"}, filepath.Ext(path)):
			return nil
		}
		_, err = os.Stat(path) // what the walk has looked at does not count either
		return err
	})
	// A test that runs beside us may remove a file of its own while we look.
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at the sources: %w", err)
	}
	return nil
}

func removePrograms() error { return errors.Join(shipped.remove(), breakable.remove(), older.remove()) }

func (p *program) remove() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.folder == "" {
		return nil
	}
	return os.RemoveAll(p.folder)
}

// chance makes the source of all choices of a test and says how to have the same ones again.
func chance(t testing.TB) *rand.Rand {
	t.Helper()
	number := *seed
	if number == 0 {
		number = rand.Uint64()
	}
	t.Logf("choices are those of -seed %d", number)
	return rand.New(rand.NewPCG(number, 0))
}

var errGone = errors.New("the process has ended")
