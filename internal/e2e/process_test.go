//go:build chaos && linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a child that the kernel kills when this test process ends, however it ends.
type process struct {
	cmd  *exec.Cmd
	gone chan struct{} // closed when it has ended and is reaped
	err  error         // how it ended; read only after gone is closed
}

// openProcess starts cmd with its output appended to the file at log, and kills it when the test ends.
func openProcess(t testing.TB, cmd *exec.Cmd, log string) *process {
	t.Helper()
	file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p := &process{cmd: cmd, gone: make(chan struct{})}
	started := make(chan error)
	go func() {
		defer close(p.gone)
		// The kernel keeps that promise when the thread that forked ends, not the process. So this
		// goroutine holds its thread until the child has gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
	t.Cleanup(p.kill)
	return p
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) alive() bool {
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

// signal sends sig; errGone when the process has ended.
func (p *process) signal(sig syscall.Signal) error {
	err := p.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return errGone
	}
	return err
}

// kill ends the process at once (SIGKILL) and returns when it has gone; one that has gone is fine.
func (p *process) kill() {
	_ = p.signal(syscall.SIGKILL) // it has ended, or it ends
	<-p.gone
}

// terminate asks the process to end (SIGTERM) and fails the test unless it does so within timeout
// and with exit code 0.
func (p *process) terminate(t testing.TB, timeout time.Duration) {
	t.Helper()
	if err := p.signal(syscall.SIGTERM); err != nil {
		t.Fatalf("terminate process %d: %v", p.pid(), err)
	}
	p.awaitEnd(t, timeout)
}

// awaitEnd fails the test unless the process ends within timeout with exit code 0.
func (p *process) awaitEnd(t testing.TB, timeout time.Duration) {
	t.Helper()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.gone:
		if p.err != nil {
			t.Fatalf("%s ended with: %v", p.cmd, p.err)
		}
	case <-timer.C:
		t.Fatalf("process %d (%s) has not ended within %s", p.pid(), p.cmd.Path, timeout)
	}
}

// ticksPerSecond is the unit of times in /proc: USER_HZ, 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// cpu returns the processor time that a process has used (proc_pid_stat(5): utime and stime, the
// 14th and 15th field).
func (p *process) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid()))
	if err != nil {
		return 0, err
	}
	// The second field is a name that may hold anything, in parentheses.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("read /proc/%d/stat: %d fields", p.pid(), len(fields))
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read /proc/%d/stat: %w", p.pid(), err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// memoryPeak returns the most bytes that a process has had in memory (VmHWM).
func (p *process) memoryPeak() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("read /proc/%d/status: no VmHWM", p.pid())
}

// tail returns the last lines of a file, indented.
func tail(path string, lines int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "  | " + err.Error()
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return "  | " + strings.Join(all[max(0, len(all)-lines):], "\n  | ")
}
