package runner

import (
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// Go's poller does not take the set of those that are waited for, or drops it later. How
// children end is told all the same: of those that were waited for by then, and of others.
func TestEndsWithoutThePoller(t *testing.T) {
	for name, test := range map[string]struct {
		nonblock bool // only then it is in the poller
		lost     func(*ends) error
	}{
		"not taken": {false, func(*ends) error { return nil }},
		"dropped":   {true, func(e *ends) error { return e.file.Close() }},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
			if err == nil {
				err = unix.SetNonblock(set, test.nonblock)
			}
			if err != nil {
				t.Fatal(err)
			}
			e := &ends{waiting: map[int32]waiting{}}
			e.once.Do(func() { e.use(set) })
			before, over := sleeper(t)
			first := make(chan ending, 1)
			if err := e.add(before, first); err != nil {
				go func() { first <- awaitInThread(before) }()
			}
			if err := test.lost(e); err != nil {
				t.Fatal(err)
			}
			over()
			heard(t, "the first", first)
			eventually(t, "it to be given up", func() bool {
				e.mu.Lock()
				defer e.mu.Unlock()
				return e.broken && len(e.waiting) == 0
			})
			after, _ := sleeper(t)
			if err := e.add(after, make(chan ending, 1)); err == nil {
				t.Error("another one is waited for by a set that nobody hears of")
			}
		})
	}
}

// sleeper starts a child, and returns what ends it.
func sleeper(t *testing.T) (pid int, over func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // killed by then
	return cmd.Process.Pid, func() { _ = cmd.Process.Kill() }
}

// heard waits until an end is told.
func heard(t *testing.T, who string, main <-chan ending) {
	t.Helper()
	eventually(t, who, func() bool {
		select {
		case end := <-main:
			if end.err != nil {
				t.Error(end.err)
			}
			return true
		default:
			return false
		}
	})
}
