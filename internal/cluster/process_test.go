package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// parentFlag makes this test binary play the parent in TestChildDiesWithKilledParent.
const parentFlag = "PAWL_TEST_PARENT"

func testSpawner(t *testing.T) *spawner {
	t.Helper()
	s := openSpawner()
	t.Cleanup(s.close)
	return s
}

// run starts a shell script that says when it is ready.
func run(t *testing.T, script string) *process {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	cmd.Stdout = w
	p, err := testSpawner(t).start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("script says %q, %v", line, err)
	}
	return p
}

func TestProcessEndsInGoodOrderOrByForce(t *testing.T) {
	t.Parallel()
	const obeys, refuses = "echo ready; exec sleep 60", "trap '' TERM; echo ready; while :; do sleep 1; done"
	pause := func(p *process) error { return p.signal(syscall.SIGSTOP) }
	for name, test := range map[string]struct {
		script string
		end    func(*process) error
		want   string // part of the error
	}{
		"asked":             {obeys, func(p *process) error { return p.stop(syscall.SIGTERM, time.Minute) }, ""},
		"asked, paused":     {obeys, func(p *process) error { return errors.Join(pause(p), p.stop(syscall.SIGTERM, time.Minute)) }, ""},
		"asked, unwilling":  {refuses, func(p *process) error { return p.stop(syscall.SIGTERM, time.Millisecond) }, "did not stop within 1ms"},
		"killed":            {obeys, (*process).kill, ""},
		"killed, unwilling": {refuses, (*process).kill, ""},
		"killed, paused":    {obeys, func(p *process) error { return errors.Join(pause(p), p.kill()) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := run(t, test.script)
			if err := test.end(p); err == nil && test.want != "" || err != nil && (test.want == "" || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if p.alive() {
				t.Error("the process is alive")
			}
			if err := errors.Join(p.kill(), p.stop(syscall.SIGTERM, time.Minute)); err != nil {
				t.Errorf("end of an ended process: %v", err)
			}
			if err := p.signal(syscall.SIGSTOP); !errors.Is(err, errNotRunning) {
				t.Errorf("signal to an ended process: %v", err)
			}
		})
	}
}

// The caller is killed with SIGKILL and can clean nothing up. Its child's standard output is a pipe
// to here: that it closes shows the child's end.
func TestChildDiesWithKilledParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("SKIPPED: only Linux signals children of a dead parent")
	}
	if os.Getenv(parentFlag) != "" {
		cmd := exec.CommandContext(t.Context(), "sleep", "60")
		cmd.Stdout = os.Stdout
		p, err := testSpawner(t).start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("started", p.pid())
		<-p.gone
		return
	}
	t.Parallel()
	parent := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildDiesWithKilledParent$")
	parent.Env = append(os.Environ(), parentFlag+"=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "started") {
		t.Fatalf("parent says %q, %v", line, err)
	}
	begin := time.Now()
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(lines); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("the child outlived its parent by %v", took)
	}
	_ = parent.Wait() // it was killed
}
