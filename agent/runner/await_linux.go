package runner

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ends tells of children that have ended. Where the kernel tells of that as it does of a
// file that can be read (Linux 5.3), it does so by one descriptor for each of them, and all
// of these are in a set, which is a file in Go's poller itself. So neither a thread, of
// which there is a limited number, nor a goroutine waits for any one of them.
type ends struct {
	once sync.Once
	file *os.File // the set; nil: there is none
	set  int

	mu      sync.Mutex // guards what follows
	waiting map[int32]waiting
}

// waiting is who is to be told of a child's end.
type waiting struct {
	pid  int
	main chan<- ending
}

var allEnds = &ends{waiting: map[int32]waiting{}}

// awaitEnd tells main, which has room for it, when the process has ended. It leaves it to
// be reaped, and returns at once.
func awaitEnd(pid int, main chan<- ending) {
	if err := allEnds.add(pid, main); err != nil {
		go func() { main <- awaitInThread(pid) }()
	}
}

func (e *ends) add(pid int, main chan<- ending) error {
	e.once.Do(e.open)
	if e.file == nil {
		return errors.ErrUnsupported
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.waiting[int32(fd)] = waiting{pid, main}
	e.mu.Unlock()
	// Once only: a child that is being forked may have it open as well, and then it stays in
	// the set for a moment after it was closed here.
	err = unix.EpollCtl(e.set, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(fd)})
	if err != nil {
		e.take(int32(fd))
	}
	return err
}

// take ends the waiting for a descriptor.
func (e *ends) take(fd int32) waiting {
	e.mu.Lock()
	w := e.waiting[fd]
	delete(e.waiting, fd)
	e.mu.Unlock()
	_ = unix.Close(int(fd))
	return w
}

func (e *ends) open() {
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return
	}
	err = unix.SetNonblock(set, true) // only then it is in the poller
	file := os.NewFile(uintptr(set), "ends of processes")
	conn, cerr := file.SyscallConn()
	if err != nil || cerr != nil {
		_ = file.Close()
		return
	}
	e.set, e.file = set, file
	go func() { _ = conn.Read(func(uintptr) bool { e.tell(); return false }) }() // as long as this process
}

// tell tells of those that have ended by now.
func (e *ends) tell() {
	var events [32]unix.EpollEvent
	for {
		n, err := unix.EpollWait(e.set, events[:], 0)
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			return
		}
		for _, event := range events[:n] {
			w := e.take(event.Fd)
			over, err := hasEnded(w.pid)
			if !over && err == nil {
				go func() { w.main <- awaitInThread(w.pid) }()
				continue
			}
			w.main <- ending{err: err}
		}
	}
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
