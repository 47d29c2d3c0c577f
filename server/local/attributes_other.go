//go:build !linux

package local

import "syscall"

// attributes keep Ctrl-C from a process, which is stopped in order instead.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
