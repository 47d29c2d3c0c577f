package spool

import (
	"os"

	"golang.org/x/sys/unix"
)

// isUnused reports whether a file is as it was made, and nobody has it open, or mapped,
// or knows it by another name: the kernel grants a lease for writing to no one else.
func isUnused(path string) bool {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }() // and with it the lease
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Size == 0 && st.Blocks == 0 && st.Nlink == 1 &&
		st.Mode == unix.S_IFREG|0o600 && int(st.Uid) == os.Geteuid()
}
