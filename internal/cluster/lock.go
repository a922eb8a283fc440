package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lockRetry is how often a lock that another process holds is tried again.
const lockRetry = 50 * time.Millisecond

// errLocked is returned by tryLock while another process holds the lock.
var errLocked = errors.New("locked by another process")

// tryLock takes the lock of the file at path, which it creates. The kernel releases the lock when
// the file is closed or the process dies, however it dies.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the paths are this package's own
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// lock is tryLock that waits for the holder until ctx ends.
func lock(ctx context.Context, path string) (*os.File, error) {
	ticker := time.NewTicker(lockRetry)
	defer ticker.Stop()
	for {
		f, err := tryLock(path)
		if !errors.Is(err, errLocked) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for lock %s: %w", path, ctx.Err())
		case <-ticker.C:
		}
	}
}
