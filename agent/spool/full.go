package spool

import (
	"os"

	"golang.org/x/sys/unix"
)

// fullBelow is how many free bytes count for none: a process writes a piece of
// some size at a time, and loses it when it does not fit as a whole.
const fullBelow = 128 << 10

// Full tells whether the disk has no room left: what processes write then is
// lost, and only they are told. False also when it can't be told.
func (s *Spool) Full() bool {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return false
	}
	free := uint64(st.Bavail) //nolint:unconvert // it is signed on some systems
	if os.Geteuid() == 0 {
		free = st.Bfree // root may use what is reserved
	}
	return free*uint64(st.Bsize) < fullBelow
}
