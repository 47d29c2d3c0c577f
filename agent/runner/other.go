//go:build unix && !linux

package runner

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"github.com/schedd/schedd/agent/crew"
	"github.com/schedd/schedd/agent/runner/cgroup"
)

// ref names a process group: without /proc and subreapers the session's own
// group is all of the tree that can be found.
type ref struct{ pid int }

type nursery struct{}

func newHousehold() *household {
	return &household{crew: crew.New(crewSize), byID: map[string]*process{}, bySession: map[int]*process{}}
}

func (h *household) settle() error {
	syscall.Umask(0o022)
	return fmt.Errorf("finding orphans on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

func awaitEnd(pid int, main chan<- ending) { go func() { main <- await(pid) }() }

func await(pid int) (e ending) {
	for {
		_, e.err = syscall.Wait4(pid, &e.status, 0, &e.usage)
		if e.err != syscall.EINTR {
			return e
		}
	}
}

func (h *household) reap(p *process, e ending) ending {
	h.mu.Lock()
	defer h.mu.Unlock()
	p.kin.reaped = true
	return e
}

func (h *household) apart(f func()) { f() }

func within(_ *cgroup.Group, sys *syscall.SysProcAttr) (_ *syscall.SysProcAttr, done func(), err error) {
	return sys, func() {}, nil
}

func (h *household) sight() int { return 0 }

func (h *household) clean(p *process) bool { return syscall.Kill(-p.pid, 0) == syscall.ESRCH }

func (h *household) tree(p *process) []ref {
	if h.clean(p) {
		return nil
	}
	return []ref{{pid: p.pid}}
}

func (h *household) disclaimLocked(*process) {}

func (r ref) signal(sig syscall.Signal) error { return syscall.Kill(-r.pid, sig) }

func peakRSS(int) int64 { return 0 }

// maxRSS is the usage's peak in bytes; all but Darwin count in KiB.
func maxRSS(u syscall.Rusage) int64 {
	if runtime.GOOS == "darwin" || runtime.GOOS == "ios" {
		return int64(u.Maxrss)
	}
	return int64(u.Maxrss) << 10
}

// EndStrays removes what an earlier life of the agent left of an attempt's
// script. Finding its processes needs Linux.
func (l *Local) EndStrays(id string, _ []string) (int, error) {
	if home.running(id) {
		return 0, fmt.Errorf("ending strays of attempt %q: %w", id, ErrRunning)
	}
	return 0, errors.Join(l.removeScripts(id), fmt.Errorf("finding strays of attempt %q on %s: %w", id, runtime.GOOS, errors.ErrUnsupported))
}

// anonymous returns a descriptor of a file that has lost its name.
func (l *Local) anonymous() (int, error) {
	f, err := os.CreateTemp(l.temp, "schedd-stdin-*")
	if err != nil {
		return -1, err
	}
	defer func() { _ = f.Close() }()
	syscall.ForkLock.RLock() // no fork may come between the two
	fd, err := syscall.Dup(int(f.Fd()))
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return -1, errors.Join(err, os.Remove(f.Name()))
	}
	return fd, os.Remove(f.Name())
}
