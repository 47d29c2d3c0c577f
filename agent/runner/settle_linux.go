package runner

import (
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// settle prepares this process to have children.
func (h *household) settle() error {
	h.once.Do(func() {
		syscall.Umask(0o022)
		heedHangups()
		keepFiles()
		h.self = os.Getpid()
		h.sid, _ = unix.Getsid(0)
		h.kids, _ = os.Open(fmt.Sprintf("/proc/self/task/%d/children", h.self)) // without CONFIG_PROC_CHILDREN there is none
		pids, _ := h.children()
		for _, pid := range pids {
			h.orphans[pid] = &orphan{ref: ref{pid: pid}, foreign: true}
		}
	})
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming a child subreaper: %w", err)
	}
	return nil
}

// heedHangups gives SIGHUP and SIGINT their default meaning in children when
// this process was started without it: a signal that is ignored stays so across
// exec, one that is caught does not.
func heedHangups() {
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}

// apart calls f on another thread than main's: what is forked there stays off the
// list of that thread's children, which is then that of the orphans alone.
func (h *household) apart(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if unix.Gettid() != h.self {
		f()
		return
	}
	done := make(chan struct{})
	go func() { f(); close(done) }() // main's thread is locked to this goroutine, so not there
	<-done
}

// keepFiles keeps from children the files that this process was started with:
// what Go opened itself is closed on exec, what a careless parent left open isn't.
func keepFiles() {
	const first = 3
	if unix.CloseRange(first, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	entries, err := os.ReadDir("/proc/self/fd") // before Linux 5.11
	if err != nil {
		return
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= first {
			syscall.CloseOnExec(fd)
		}
	}
}
