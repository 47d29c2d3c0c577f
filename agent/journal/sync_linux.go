package journal

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// datasync has what is in a file stay when the power fails, and what is needed to find it
// there. When it was written to last nobody asks.
func datasync(f *os.File) error {
	err := unix.Fdatasync(int(f.Fd()))
	for errors.Is(err, unix.EINTR) {
		err = unix.Fdatasync(int(f.Fd()))
	}
	if err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}
