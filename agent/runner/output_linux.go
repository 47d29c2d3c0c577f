package runner

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// openOwned opens a file to append to it, if it is a plain file of that user. It
// looks at the file before it opens it for writing, and opens the very one that it
// looked at: whoever named it may put another in its place at any moment.
func openOwned(path string, owner int) (fd int, err error) {
	at, err := open(path, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return -1, err
	}
	defer func() { err = errors.Join(err, syscall.Close(at)) }()
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != owner {
		return -1, fmt.Errorf("it is no plain file of user number %d, who asks to have it written to: %w", owner, syscall.EPERM)
	}
	return open(fmt.Sprintf("/proc/self/fd/%d", at), syscall.O_WRONLY|syscall.O_APPEND)
}
