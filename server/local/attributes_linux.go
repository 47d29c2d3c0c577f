package local

import "syscall"

// attributes keep Ctrl-C from a process, which is stopped in order instead, and end
// it when this process is killed.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
