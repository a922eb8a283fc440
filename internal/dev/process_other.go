//go:build unix && !linux

package dev

import (
	"os/exec"
	"syscall"
)

// dieWithParent cannot keep its promise here: only Linux signals the children of a dead parent. It
// puts the process into a process group of its own: Ctrl-C in a terminal reaches this program only,
// which then stops its children in order.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}
