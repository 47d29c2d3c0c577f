package runner

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// openOwned opens a file to append to it as its owner would, if it is a plain file of
// that user. It is the kernel that judges, and that goes by who opened a file when it is
// written to: what root opened, such as the uid_map of a process, may be given what
// its owner could not write there.
func openOwned(path string, owner *Owner) (fd int, err error) {
	aside(func() {
		if err = owner.become(); err == nil {
			fd, err = openPlain(path, owner.UID)
		}
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// openPlain looks at the file before it opens it for writing, and opens the very one
// that it looked at: whoever named it may put another in its place at any moment.
func openPlain(path string, owner int) (fd int, err error) {
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

// become makes this thread, and no other, act as another user without any rights. To the
// kernel users are a thread's; that they are a process's is what libraries make of it.
// The thread must not be used for anything else. It stays root's, so that the user can't
// send it signals.
func (o *Owner) become() error {
	const same = ^uintptr(0)
	const short = 1<<16 - 1 // these calls take no more on 32-bit machines
	if strconv.IntSize == 32 && (o.UID > short || o.GID > short) {
		return fmt.Errorf("become user number %d: %w", o.UID, errors.ErrUnsupported)
	}
	for _, call := range [][4]uintptr{
		{unix.SYS_SETGROUPS, 0, 0, 0},
		{unix.SYS_SETRESGID, same, uintptr(o.GID), same},
		{unix.SYS_SETRESUID, same, uintptr(o.UID), same},
	} {
		if _, _, errno := syscall.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
			return fmt.Errorf("become user number %d: %w", o.UID, errno)
		}
	}
	return nil
}

// aside calls f on a thread that ends with it. That of main never ends, and what others
// see of this process is that one.
func aside(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			aside(f) // on another: this one is locked to this goroutine
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}
