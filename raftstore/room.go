package raftstore

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// enough is how many times the room that the log is to have has to be free, so that others
// who are on the same disk do not run out of it.
const enough = 4

// makeRoom makes the log's file that long, with zeros behind what is there. Where nothing
// was ever written the file system has to find a place first, and fdatasync waits until
// that is noted, too. bbolt takes no notice of what is behind its last page, and writes
// there when it needs more. On a disk that has little room left the file stays as it is.
func makeRoom(path string, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("opening the log to make room in it: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("looking how long the log is: %w", err)
	}
	if info.Size() >= size {
		return nil
	}
	var disk unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &disk); err != nil || int64(disk.Bavail)*int64(disk.Bsize) < enough*(size-info.Size()) { //nolint:unconvert // of other types on other systems
		return nil // or it is not known
	}
	zeros := make([]byte, 1<<20)
	for at := info.Size(); at < size; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at); err != nil {
			if err := f.Truncate(info.Size()); err != nil {
				return fmt.Errorf("giving back the room that the log was to have: %w", err)
			}
			break
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("syncing the room that the log is to have: %w", err)
	}
	return nil
}
