package spool

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// writeOut has the disk take what f holds from from to to, and with wait returns when it
// has. It may be told of an error then that fsync would have been told of otherwise. A
// file system that can't do it leaves all to fsync.
func writeOut(f *os.File, from, to int64, wait bool) error {
	flags := unix.SYNC_FILE_RANGE_WRITE
	if wait {
		flags |= unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	}
	for {
		err := unix.SyncFileRange(int(f.Fd()), from, to-from, flags)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPERM):
			return nil
		}
		return err
	}
}
