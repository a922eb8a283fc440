//go:build unix && !linux

package yardstick

import (
	"os/exec"
	"syscall"
)

// dieWithParent cannot keep its promise here: only Linux signals the children of a dead parent. Ctrl-C
// reaches us alone all the same, and we end them in order.
func dieWithParent(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}
