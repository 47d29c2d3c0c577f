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
	broken  bool       // nobody hears of the set any more
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
	if err := e.put(int32(fd), waiting{pid, main}); err != nil {
		_ = unix.Close(fd)
		return err
	}
	return nil
}

// put begins to wait for a descriptor.
func (e *ends) put(fd int32, w waiting) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broken {
		return errors.ErrUnsupported
	}
	// Once only: a child that is being forked may have it open as well, and then it stays in
	// the set for a moment after it was closed here.
	err := unix.EpollCtl(e.set, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: fd})
	if err == nil {
		e.waiting[fd] = w
	}
	return err
}

// take ends the waiting for a descriptor, if there is any.
func (e *ends) take(fd int32) (w waiting, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if w, ok = e.waiting[fd]; ok {
		delete(e.waiting, fd)
		_ = unix.Close(int(fd))
	}
	return w, ok
}

func (e *ends) open() {
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return
	}
	if err := unix.SetNonblock(set, true); err != nil { // only then it is in the poller
		_ = unix.Close(set)
		return
	}
	e.use(set)
}

// use hears of a set from now on, for as long as this process. It does not learn at once
// whether the set is in the poller, which may have no room for it.
func (e *ends) use(set int) {
	file := os.NewFile(uintptr(set), "ends of processes")
	conn, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return
	}
	e.set, e.file = set, file
	go func() {
		_ = conn.Read(func(uintptr) bool { e.tell(); return false })
		e.giveUp()
	}()
}

// giveUp has a thread wait for each of those that nobody would hear of any more.
func (e *ends) giveUp() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.broken = true
	for fd, w := range e.waiting {
		_ = unix.Close(int(fd))
		go func() { w.main <- awaitInThread(w.pid) }()
	}
	clear(e.waiting)
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
			w, ok := e.take(event.Fd)
			if !ok {
				continue
			}
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
