package spool

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// punch gives the blocks of f from from to to back to the file system.
func punch(f *os.File, from, to int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return ErrUnbounded
		}
		return err
	}
}

// seekData returns where the first data at or behind off begins, if there is
// any and the file system can tell.
func seekData(f *os.File, off int64) (int64, bool) {
	at, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	return at, err == nil
}
