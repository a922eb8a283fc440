package dev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// process is a child that dies with this program, even when this program is killed (on Linux).
type process struct {
	cmd  *exec.Cmd
	gone chan struct{} // closed when the process has ended and is reaped
	err  error         // how it ended; read only after gone is closed

	ending atomic.Bool // its end was asked for
}

// openProcess starts cmd.
func openProcess(cmd *exec.Cmd) (*process, error) {
	dieWithParent(cmd)
	p := &process{cmd: cmd, gone: make(chan struct{})}
	started := make(chan error)
	go func() {
		defer close(p.gone)
		// The kernel kills a child that asked for it when the thread that forked it ends, not the
		// program. So this goroutine keeps its thread until the child has gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		<-p.gone
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// alive tells whether the process has not ended yet.
func (p *process) alive() bool {
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

// signal sends sig. A process that has ended is an error that says how.
func (p *process) signal(sig syscall.Signal) error {
	err := p.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		<-p.gone
		return fmt.Errorf("process %d has ended: %w", p.pid(), p.howEnded())
	}
	if err != nil {
		return fmt.Errorf("send %s to process %d: %w", sig, p.pid(), err)
	}
	return nil
}

// howEnded says how a process that has gone ended, also when it ended well.
func (p *process) howEnded() error {
	if p.err != nil {
		return p.err
	}
	return errEnded
}

var errEnded = errors.New("exit status 0")

// kill ends the process at once and returns when it has gone. One that has gone is fine.
func (p *process) kill() {
	p.ending.Store(true)
	_ = p.cmd.Process.Kill() // it has ended, or it ends
	<-p.gone
}

// stop asks the process to end in good order and kills it when that takes longer than ctx or
// timeout allow. The error tells how it ended if not with exit code 0.
func (p *process) stop(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if p.alive() {
		p.ending.Store(true)
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		_ = p.cmd.Process.Signal(syscall.SIGCONT) // a frozen one cannot end
	}
	select {
	case <-p.gone:
		return p.err
	case <-ctx.Done():
		p.kill()
		return fmt.Errorf("process %d did not stop within %s and was killed", p.pid(), timeout)
	}
}
