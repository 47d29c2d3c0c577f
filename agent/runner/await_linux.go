package runner

import (
	"errors"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// await blocks until the process has ended, and leaves it to be reaped. It holds no
// thread meanwhile, of which there is a limited number, where the kernel tells of the
// end as it does of a file that can be read (Linux 5.10).
func await(pid int) ending {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return awaitInThread(pid)
	}
	f := os.NewFile(uintptr(fd), "process "+strconv.Itoa(pid))
	defer func() { _ = f.Close() }() // nothing was written through it
	conn, err := f.SyscallConn()
	if err == nil {
		var over bool
		var failed error
		err = conn.Read(func(uintptr) bool {
			over, failed = hasEnded(pid)
			return over || failed != nil
		})
		if err == nil {
			return ending{err: failed}
		}
	}
	return awaitInThread(pid)
}

// hasEnded reports whether a child waits to be reaped.
func hasEnded(pid int) (bool, error) {
	var info unix.Siginfo
	err := waitID(pid, &info, unix.WNOHANG)
	return info.Signo != 0, err
}

func awaitInThread(pid int) ending { return ending{err: waitID(pid, nil, 0)} }

func waitID(pid int, info *unix.Siginfo, how int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, info, unix.WEXITED|unix.WNOWAIT|how, nil)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
