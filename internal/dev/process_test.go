package dev

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test binary plays the children of the tests below: they need a program that is always there.
const playVariable = "PAWL_DEV_TEST_PLAY"

func TestMain(m *testing.M) {
	switch os.Getenv(playVariable) {
	case "":
		goleak.VerifyTestMain(m)
	case "sleep":
		fmt.Println("asleep")
		select {} // until a signal
	case "parent":
		// Starts a child, tells its pid, and waits to be killed.
		child, err := openProcess(play("sleep"))
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(child.pid())
		select {}
	case "fail":
		fmt.Fprintln(os.Stderr, "no such topic: run `processor topics apply`")
		os.Exit(1)
	case "stubborn":
		ignore := make(chan os.Signal, 1)
		notify(ignore)
		fmt.Println("asleep")
		select {}
	}
}

func play(role string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), playVariable+"="+role)
	return cmd
}

// openChild starts a child of the given role and waits until it has said its first line.
func openChild(t *testing.T, role string) (*process, string) {
	t.Helper()
	cmd := play(role)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := openProcess(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return p, strings.TrimSpace(line)
}

// A child ends with its parent, even when the parent is killed: no processor outlives a killed demo.
func TestChildDiesWithItsParent(t *testing.T) {
	t.Parallel()
	parent, pid := openChild(t, "parent")
	var child int
	if _, err := fmt.Sscan(pid, &child); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(child, 0); err != nil {
		t.Fatalf("the child does not run: %v", err)
	}
	parent.kill()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := until(ctx, time.Millisecond, func() (bool, error) {
		// Nobody may have reaped it; a zombie is dead enough.
		stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(child), "stat"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) || strings.Contains(string(stat), ") Z ") {
			return true, nil
		}
		return false, err
	}); err != nil {
		t.Errorf("the child lives on: %v", err)
	}
}

// stop ends a child by SIGTERM, also one that is frozen.
func TestStopEndsAFrozenChild(t *testing.T) {
	t.Parallel()
	p, _ := openChild(t, "sleep")
	if err := p.signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := p.stop(t.Context(), 10*time.Second); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("stop = %v, want that SIGTERM ended it", err)
	}
	if p.alive() || !p.ending.Load() {
		t.Errorf("alive = %v, asked for = %v", p.alive(), p.ending.Load())
	}
	if err := p.signal(syscall.SIGCONT); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("signal to a dead child = %v, want how it ended", err)
	}
}

// A child that does not heed SIGTERM is killed in time, and that is an error.
func TestStopKillsAStubbornChild(t *testing.T) {
	t.Parallel()
	p, _ := openChild(t, "stubborn")
	if err := p.stop(t.Context(), 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("stop = %v, want that it was killed", err)
	}
	if p.alive() {
		t.Error("it lives on")
	}
}

func TestOpenProcessReportsAMissingProgram(t *testing.T) {
	t.Parallel()
	if _, err := openProcess(exec.Command(filepath.Join(t.TempDir(), "nothing"))); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("error = %v, want one that names the program", err)
	}
}
