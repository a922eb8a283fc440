//go:build unix && !linux

package cluster

import (
	"os/exec"
	"syscall"
)

// dieWithParent cannot keep its promise here: only Linux signals children of a dead parent. It puts
// the process into a process group of its own, so that Ctrl-C in a terminal reaches only the caller,
// which then stops its children in order.
func dieWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
}
