package runner

import "golang.org/x/sys/unix"

// anonymous returns a descriptor of a file in memory that has no name.
func (l *Local) anonymous() (int, error) {
	return unix.MemfdCreate("schedd-stdin", unix.MFD_CLOEXEC)
}
