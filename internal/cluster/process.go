package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// errNotRunning is returned for a signal to a process that has ended.
var errNotRunning = errors.New("the process is not running")

// spawner starts processes that the kernel kills when this program ends, however it ends. The
// kernel ties that promise to the thread that forked, not to the process, so one goroutine holds
// one thread for as long as the spawner is open and does all the forking.
type spawner struct {
	starts chan func()
	ended  chan struct{}
}

func openSpawner() *spawner {
	s := &spawner{starts: make(chan func()), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		// Never unlocked: the thread ends with this goroutine, and with it every child that
		// Close forgot.
		runtime.LockOSThread()
		for start := range s.starts { // ends with close
			start()
		}
	}()
	return s
}

// close ends the thread; children that are still running get SIGKILL (on Linux).
func (s *spawner) close() {
	close(s.starts)
	<-s.ended
}

// start runs cmd and reaps it when it ends.
func (s *spawner) start(cmd *exec.Cmd) (*process, error) {
	dieWithParent(cmd)
	started := make(chan error)
	s.starts <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p := &process{cmd: cmd, gone: make(chan struct{})}
	go func() {
		defer close(p.gone)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// process is a started child.
type process struct {
	cmd  *exec.Cmd
	gone chan struct{} // closed when the process has ended and is reaped
	err  error         // how it ended; read only after gone is closed
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// signal sends sig; errNotRunning when the process has ended.
func (p *process) signal(sig syscall.Signal) error {
	err := p.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return errNotRunning
	}
	if err != nil {
		return fmt.Errorf("send %v to process %d: %w", sig, p.pid(), err)
	}
	return nil
}

// kill sends SIGKILL and waits until the process has gone. A process that ended before is fine.
func (p *process) kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil && !errors.Is(err, errNotRunning) {
		return err
	}
	<-p.gone
	return nil
}

// stop sends sig, which asks the process to end in good order, and waits for at most timeout; after
// that it kills the process and says so. A paused process is woken first.
func (p *process) stop(sig syscall.Signal, timeout time.Duration) error {
	for _, s := range []syscall.Signal{sig, syscall.SIGCONT} {
		if err := p.signal(s); errors.Is(err, errNotRunning) {
			return nil
		} else if err != nil {
			return err
		}
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.gone:
		return nil
	case <-timer.C:
		return errors.Join(fmt.Errorf("process %d did not stop within %v and was killed", p.pid(), timeout), p.kill())
	}
}

// alive tells whether the process has not ended yet.
func (p *process) alive() bool {
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}
