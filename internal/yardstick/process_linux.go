package yardstick

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes the kernel end the process with us, however we end; and Ctrl-C reaches us alone.
func dieWithParent(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
