package cluster

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A program was killed and left its folder behind; another one still runs. The next one to open a
// folder removes the first and leaves the second alone.
func TestFolderOfDeadProgramIsSwept(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	dead, err := openFolder("", "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.lock.Close(); err != nil { // as the kernel does
		t.Fatal(err)
	}
	living, err := openFolder("", "test")
	if err != nil {
		t.Fatal(err)
	}
	third, err := openFolder("", "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("folder of the dead program: %v", err)
	}
	if _, err := os.Stat(living.path); err != nil {
		t.Errorf("folder of the living program: %v", err)
	}
	if err := errors.Join(living.close(), third.close()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(living.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("closed temporary folder: %v", err)
	}
}

// A folder without a lock may be in the making, unless it is old.
func TestFolderWithoutLockIsSweptWhenOld(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	fresh, old := filepath.Join(os.TempDir(), prefix("test")+"1"), filepath.Join(os.TempDir(), prefix("test")+"2")
	for _, path := range []string{fresh, old} {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-2 * unlockedAge)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}
	sweep("test")
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("fresh folder: %v", err)
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("old folder: %v", err)
	}
}

func TestNamedFolderIsKeptAndNotShared(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data")
	f, err := openFolder(path, "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openFolder(path, "test"); !errors.Is(err, errLocked) {
		t.Errorf("a folder in use opened: %v", err)
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("a named folder is gone after close: %v", err)
	}
}

func TestLockWaitsForItsHolder(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	held, err := tryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*lockRetry)
	defer cancel()
	if _, err := lock(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("lock that is held: %v", err)
	}
	got := make(chan error, 1)
	go func() {
		f, err := lock(t.Context(), path)
		if err == nil {
			err = f.Close()
		}
		got <- err
	}()
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// While a broker is down its port must not go to anybody else, neither to another broker nor to an
// outgoing connection. Not beside other tests: a child that one of them starts holds every socket of
// this process between its fork and its exec, the closed probe of a port too.
func TestPortsAreKept(t *testing.T) {
	seen := map[int]bool{}
	for range 20 {
		p, err := openPort(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.close() })
		if seen[p.number] {
			t.Errorf("port %d given twice", p.number)
		}
		seen[p.number] = true
		if p.number >= portMax {
			t.Errorf("port %d is in the range of outgoing connections", p.number)
		}
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", p.address())
		if err != nil {
			t.Errorf("port is not free: %v", err)
			continue
		}
		_ = listener.Close()
	}
}

func TestTailQuotesTheLastLines(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	text := strings.Repeat("noise\n", tailBytes) + strings.Repeat("before\n", tailLines-1) + "reason\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat("\n  | before", tailLines-1) + "\n  | reason"
	if got := tail(path); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := tail(path + "x"); !strings.Contains(got, "no log") {
		t.Errorf("of a missing log: %q", got)
	}
}
