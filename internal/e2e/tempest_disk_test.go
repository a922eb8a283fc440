//go:build chaos && linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// diskPrefix begins the names of mount points; the number of the process that made them follows.
const diskPrefix = "pawl-disk-"

// mountDisk makes a disk of a limited size, in memory, until the test ends. Where the test may not mount
// anything it returns nothing and says why.
func mountDisk(t testing.TB, megabytes int) string {
	t.Helper()
	unmountLeft()
	if os.Getuid() != 0 {
		t.Log("no disk of its own for the database: only root may mount one")
		return ""
	}
	folder, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", diskPrefix, os.Getpid())) //nolint:usetesting // the next test must find what a killed one left
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=755", megabytes)); err != nil {
		t.Logf("no disk of its own for the database: mount: %v", err)
		_ = os.Remove(folder)
		return ""
	}
	t.Cleanup(func() {
		if err := unmount(folder); err != nil {
			t.Errorf("unmount %s: %v", folder, err)
		}
	})
	return folder
}

func unmount(folder string) error {
	if err := syscall.Unmount(folder, syscall.MNT_DETACH); err != nil {
		return err
	}
	return os.Remove(folder)
}

// unmountLeft removes disks that killed test processes have left behind.
func unmountLeft() {
	found, err := filepath.Glob(filepath.Join(os.TempDir(), diskPrefix+"*"))
	if err != nil {
		return
	}
	for _, folder := range found {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(folder), diskPrefix), "-")
		pid, err := strconv.Atoi(owner)
		if err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			_ = unmount(folder) // what resists is left to the next test
		}
	}
}
