package spool

import "golang.org/x/sys/unix"

// fullBelow is how many free bytes count for none: a process writes a piece of
// some size at a time, and loses it when it does not fit as a whole.
const fullBelow = 128 << 10

// Full tells whether the disk has no room left: what processes write then is
// lost, and only they are told. False also when it can't be told.
//
// What a disk keeps for root counts for none, whoever asks: it is not who asks that
// writes, and root's processes may lack the right to it as well.
func (s *Spool) Full() bool {
	var st unix.Statfs_t
	if err := s.disk.Statfs(s.dir, &st); err != nil {
		return false
	}
	free := uint64(st.Bavail) //nolint:unconvert // it is signed on some systems
	return free*uint64(st.Bsize) < fullBelow
}
