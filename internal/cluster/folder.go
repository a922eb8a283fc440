package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// lockName is the file whose lock says that the folder around it is in use.
const lockName = ".lock"

// unlockedAge is how old a folder without a lock file must be to count as left behind: a younger one
// may be in the making.
const unlockedAge = time.Hour

// folder is a place for data, locked for as long as it is in use.
type folder struct {
	path      string
	temporary bool
	lock      *os.File
}

// openFolder makes and locks the folder at path, or a temporary one named kind when path is empty.
// It first removes temporary folders of the same kind that killed programs left behind.
func openFolder(path, kind string) (*folder, error) {
	f := &folder{path: path, temporary: path == ""}
	if f.temporary {
		sweep(kind)
		var err error
		if f.path, err = os.MkdirTemp("", prefix(kind)+"*"); err != nil {
			return nil, fmt.Errorf("make data folder: %w", err)
		}
	} else if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	var err error
	if f.lock, err = tryLock(filepath.Join(f.path, lockName)); err != nil {
		return nil, fmt.Errorf("use data folder %s: %w", f.path, err)
	}
	return f, nil
}

// close unlocks the folder and removes it if it is temporary.
func (f *folder) close() error {
	var err error
	if f.temporary {
		err = os.RemoveAll(f.path)
	}
	return errors.Join(err, f.lock.Close())
}

func prefix(kind string) string { return fmt.Sprintf("pawl-%s-%d-", kind, os.Getuid()) }

// sweep removes temporary folders whose owner died. It does what it can: a folder that resists is
// left to the next sweep.
func sweep(kind string) {
	found, err := filepath.Glob(filepath.Join(os.TempDir(), prefix(kind)+"*"))
	if err != nil {
		return
	}
	for _, path := range found {
		name := filepath.Join(path, lockName)
		if _, err := os.Stat(name); err != nil {
			if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > unlockedAge {
				_ = os.RemoveAll(path)
			}
			continue
		}
		if lock, err := tryLock(name); err == nil {
			_ = os.RemoveAll(path)
			_ = lock.Close()
		}
	}
}
