package yardstick

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// StopTimeout is how long a peer may take to end after SIGTERM.
const StopTimeout = 30 * time.Second

// Process is one running process of a peer.
type Process struct {
	command *exec.Cmd
	log     string
	ended   chan struct{}
	err     error // of the end; read after ended is closed
	peakKiB int64 // peak resident memory as last seen
	nowKiB  int64 // resident memory as last seen
}

// Usage is what processes of a peer took, all together but for the peak.
type Usage struct {
	CPU     time.Duration `json:"cpu_ns"`       // user and system, from start to end of the processes
	PeakKiB int64         `json:"peak_rss_kib"` // of the process that had most
}

// Run starts the processes of a peer, calls measure and ends them in order, whatever happens in between.
// Their logs go to folder, under name. The commands must not hang on a context that may end before
// measure does: processes end by SIGTERM, not in the midst of their work. The caller locks its goroutine
// to the thread, because the kernel ends the processes with the thread that started them.
func Run(commands []*exec.Cmd, folder, name string, measure func(processes []*Process) error) (Usage, error) {
	processes, err := startAll(commands, folder, name)
	if err == nil {
		err = measure(processes)
	}
	used, stopErr := stopAll(processes)
	return used, errors.Join(err, stopErr)
}

// RunToEnd runs one process that ends by itself and tells the peak of its memory. Its log goes to the
// file that is named.
func RunToEnd(command *exec.Cmd, log string) (peakKiB int64, err error) {
	p, err := start(command, log)
	if err != nil {
		return 0, err
	}
	ticker := time.NewTicker(PollEvery)
	defer ticker.Stop()
	for {
		select {
		case <-p.ended:
			if p.err != nil {
				return 0, fmt.Errorf("%w\n%s", p.err, p.tail())
			}
			return p.peakKiB, nil
		case <-ticker.C:
			p.noteMemory()
		}
	}
}

// startAll starts the processes of a job. The caller stops them, also when there was an error.
func startAll(commands []*exec.Cmd, folder, name string) ([]*Process, error) {
	var started []*Process
	for i, command := range commands {
		one, err := start(command, filepath.Join(folder, fmt.Sprintf("%s-%d.log", name, i)))
		if err != nil {
			return started, err
		}
		started = append(started, one)
	}
	return started, nil
}

func start(command *exec.Cmd, log string) (_ *Process, err error) {
	file, err := os.Create(log) //nolint:gosec // in our own temporary folder
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }() // the child has its own
	command.Stdout, command.Stderr = file, file
	dieWithParent(command)
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = StopTimeout
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", command.Path, err)
	}
	p := &Process{command: command, log: log, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		p.err = command.Wait()
	}()
	return p, nil
}

// check is an error if the process has ended before its time; else it notes its memory.
// The kernel's own figure at the end of a process would not do: it begins with that of the parent.
func (p *Process) check() error {
	select {
	case <-p.ended:
		return fmt.Errorf("process ended early: %w\n%s", errors.Join(p.err, errors.New("its last lines are")), p.tail())
	default:
	}
	p.noteMemory()
	return nil
}

// noteMemory notes its memory, now and the peak so far. Of one that is just ending nothing can be read.
func (p *Process) noteMemory() {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.command.Process.Pid), "status"))
	if err != nil {
		return
	}
	p.peakKiB = max(p.peakKiB, statusKiB(status, "VmHWM:"))
	if kib := statusKiB(status, "VmRSS:"); kib > 0 {
		p.nowKiB = kib
	}
}

// statusKiB reads one figure of proc_pid_status(5), 0 where it is not there.
func statusKiB(status []byte, name string) int64 {
	_, rest, _ := bytes.Cut(status, []byte(name))
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil {
		return 0
	}
	return kib
}

// ResidentKiB is the resident memory of processes, all together, as it was last seen: [Stage.Poll] looks each
// time, and so does whatever waits by it.
func ResidentKiB(processes []*Process) int64 {
	sum := int64(0)
	for _, p := range processes {
		sum += p.nowKiB
	}
	return sum
}

// CheckAll is an error if one of the processes has ended before its time.
func CheckAll(processes []*Process) error {
	errs := make([]error, 0, len(processes))
	for _, p := range processes {
		errs = append(errs, p.check())
	}
	return errors.Join(errs...)
}

// stopAll asks all processes to end, waits for them, and adds up what they took.
func stopAll(processes []*Process) (Usage, error) {
	errs := []error{CheckAll(processes)}
	for _, p := range processes {
		if err := p.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, fmt.Errorf("stop process %d: %w", p.command.Process.Pid, err))
		}
	}
	timer := time.NewTimer(StopTimeout)
	defer timer.Stop()
	var sum Usage
	for _, p := range processes {
		select {
		case <-p.ended:
		case <-timer.C:
			timer.Reset(0) // for those that follow
			errs = append(errs, fmt.Errorf("process %d did not end within %s of SIGTERM\n%s", p.command.Process.Pid, StopTimeout, p.tail()), p.command.Process.Kill())
			<-p.ended
		}
		if p.err != nil && !p.deaf() {
			errs = append(errs, fmt.Errorf("process %d: %w\n%s", p.command.Process.Pid, p.err, p.tail()))
		}
		state := p.command.ProcessState
		sum.CPU += state.UserTime() + state.SystemTime()
		sum.PeakKiB = max(sum.PeakKiB, p.peakKiB)
	}
	return sum, errors.Join(errs...)
}

// deaf tells that a process which has ended did so by SIGTERM itself: it had not got to where it says what the signal is to
// do, which is the first thing that a peer does, and so had nothing in hand.
func (p *Process) deaf() bool {
	status, ok := p.command.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGTERM
}

// tail is the end of the process's log.
func (p *Process) tail() string {
	const bytesMax = 2000
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-bytesMax):])
}
