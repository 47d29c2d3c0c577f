// Package harm does damage to a cluster that runs on this host: it kills and halts
// processes that somebody named, and cuts the links of a primary to others.
//
// What is done is always undone. A process of its own is started before a fault that
// lasts, and undoes it when its time is over, whatever becomes of this process by
// then. Nothing is signalled but what is a process of schedd at that moment. What was
// killed somebody else has to start again, as systemd does.
package harm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/schedd/schedd/server/torture"
)

// parts are our programs and commands, and what runs them is a part of.
var parts = map[string]torture.Part{
	"schedd serve":      torture.Primary,
	"schedagent run":    torture.Worker,
	"schedagent runner": torture.Runner,
}

// Process is a process that a file names by its id, as a pid file does, or
// cgroup.procs of a systemd unit. The file is read anew each time. It is a
// [torture.Process] and a [torture.Stranger].
type Process struct {
	path string
	part torture.Part
	// known is the process that was looked at last, and the only one to be harmed.
	known int
}

// Find returns the process that a file names at the moment.
func Find(path string) (*Process, error) {
	p := &Process{path: path}
	there, part, err := p.open()
	if err != nil {
		return nil, err
	}
	p.part, p.known = part, there.Pid
	return p, there.Release()
}

// Part says what the process is a part of.
func (p *Process) Part() torture.Part { return p.part }

// open returns the process by a handle that is of no other, also when its id is
// given away again.
func (p *Process) open() (*os.Process, torture.Part, error) {
	text, err := os.ReadFile(p.path)
	if err != nil {
		return nil, "", fmt.Errorf("look which process to harm: %w", err)
	}
	ids := strings.Fields(string(text))
	if len(ids) != 1 {
		return nil, "", fmt.Errorf("look which process to harm: %s names %d processes, want one", p.path, len(ids))
	}
	pid, err := strconv.Atoi(ids[0])
	if err != nil || pid <= 1 {
		return nil, "", fmt.Errorf("look which process to harm: %s has %q, want the id of a process", p.path, ids[0])
	}
	there, err := os.FindProcess(pid)
	if err != nil {
		return nil, "", fmt.Errorf("look at process %d, which %s names: %w", pid, p.path, err)
	}
	part, err := partOf(pid)
	if err == nil && p.part != "" && p.part != part {
		err = fmt.Errorf("it is a %s now, and was a %s", part, p.part)
	}
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("process %d, which %s names, is not harmed: %w", pid, p.path, err), there.Release())
	}
	return there, part, nil
}

// openKnown returns the process that was looked at last, if the file still names it.
func (p *Process) openKnown() (*os.Process, error) {
	there, _, err := p.open()
	if err != nil {
		return nil, err
	}
	if there.Pid != p.known {
		return nil, errors.Join(fmt.Errorf("process %d, which %s names, is not harmed: a moment ago it was process %d", there.Pid, p.path, p.known), there.Release())
	}
	return there, nil
}

// partOf says what a process is a part of. One that is none of ours is an error.
func partOf(pid int) (torture.Part, error) {
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return "", fmt.Errorf("look what it is: %w", err)
	}
	words := strings.Split(string(line), "\x00")
	if len(words) < 2 {
		return "", errors.New("it has ended")
	}
	command := filepath.Base(words[0]) + " " + words[1]
	part, ours := parts[command]
	if !ours {
		return "", fmt.Errorf("it is %q, and no schedd serve, schedagent run or schedagent runner", command)
	}
	return part, nil
}

// How long to wait until what was killed is started again, and how often to look.
const (
	comeback  = 2 * time.Minute
	lookAgain = 50 * time.Millisecond
)

// Kill implements [torture.Process]. Whoever watches over the process decides when
// it is started again.
func (p *Process) Kill(ctx context.Context, _ time.Duration) error {
	there, err := p.openKnown()
	if err != nil {
		return err
	}
	defer func() { _ = there.Release() }() // it is not ours to wait for
	if err := there.Signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill process %d: %w", there.Pid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, comeback)
	defer cancel()
	for {
		if there.Signal(syscall.Signal(0)) != nil { // it is gone
			if next, _, err := p.open(); err == nil {
				return next.Release()
			}
		}
		if !wait(ctx, lookAgain) {
			break
		}
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("process %d was killed, and %s names none that was started in its place within %v: start it, and have systemd do so (Restart=always)", there.Pid, p.path, comeback)
	}
	return nil // the torture ends
}

// Halt implements [torture.Process].
func (p *Process) Halt(ctx context.Context, span time.Duration) error {
	there, err := p.openKnown()
	if err != nil {
		return err
	}
	defer func() { _ = there.Release() }()                 // it is not ours to wait for
	resume := fmt.Sprintf("kill -CONT %d || :", there.Pid) // it may have been killed meanwhile
	return during(ctx, span, resume, func() error {
		if err := there.Signal(syscall.SIGSTOP); err != nil {
			return fmt.Errorf("halt process %d: %w", there.Pid, err)
		}
		return nil
	})
}

// wait waits, and tells whether ctx goes on.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
