package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Runner is what has the processes of a worker's jobs. The worker's agent starts
// it, and starts another when it is gone.
type Runner struct {
	name    string // of the worker
	program string // schedagent
	dir     string // data directory of the worker
}

// How long to wait for the next runner, and how often to look for it.
const (
	comeback  = time.Minute
	lookAgain = 50 * time.Millisecond
)

// Name is that of its worker.
func (r *Runner) Name() string { return r.name }

// PID returns its process id, 0 when there is none.
func (r *Runner) PID() (int, error) {
	pid, err := r.find(proc)
	if errors.Is(err, errNoRunner) {
		return 0, nil
	}
	return pid, err
}

// proc is where the kernel tells of processes.
const proc = "/proc"

// errNoRunner is that there is nothing to harm.
var errNoRunner = errors.New("there is no runner")

// find looks for it among the processes that a directory tells of.
func (r *Runner) find(proc string) (int, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return 0, fmt.Errorf("look for the runner in %s: %w", r.dir, err)
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && r.is(proc, pid) {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("%w in %s at the moment", errNoRunner, r.dir)
}

// is tells whether a process is the runner, and none of a job that it has just forked: until
// that begins its own program, it looks like the runner.
func (r *Runner) is(proc string, pid int) bool {
	return r.looksLike(proc, pid) && !r.looksLike(proc, parent(proc, pid))
}

// looksLike tells whether a process has the runner's command line.
func (r *Runner) looksLike(proc string, pid int) bool {
	line, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "cmdline"))
	words := strings.Split(string(line), "\x00")
	return err == nil && len(words) > 2 && words[1] == "runner" && words[2] == "--data-dir="+r.dir
}

// parent returns the id of a process's parent, 0 when it has none or has ended.
func parent(proc string, pid int) int {
	text, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "status"))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(text), "\nPPid:")
	line, _, _ := strings.Cut(after, "\n")
	id, _ := strconv.Atoi(strings.TrimSpace(line)) // 0 if there is none
	return id
}

// open returns it by a handle that is of no other process, also when its id is given away
// again: what the id stands for is looked at once the handle is there.
func (r *Runner) open() (*os.Process, error) {
	pid, err := r.find(proc)
	if err != nil {
		return nil, err
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("look at the runner in %s, process %d: %w", r.dir, pid, err)
	}
	if !r.is(proc, pid) {
		return nil, errors.Join(fmt.Errorf("%w in %s any more", errNoRunner, r.dir), p.Release())
	}
	return p, nil
}

// Kill kills it with SIGKILL, and returns when another one is in its place. The agent
// decides when that is started; it may be killed itself at the same time.
func (r *Runner) Kill(ctx context.Context, _ time.Duration) error {
	p, err := r.open()
	if err != nil {
		return err
	}
	pid := p.Pid
	defer func() { _ = p.Release() }() // it is not ours to wait for
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill the runner in %s, process %d: %w", r.dir, pid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, comeback)
	defer cancel()
	for ctx.Err() == nil {
		if next, err := r.PID(); err == nil && next != 0 && next != pid {
			return nil
		}
		wait(ctx, lookAgain)
	}
	return nil // that none comes back the verdict tells, by what does not end
}

// Halt stops it with SIGSTOP, and lets it go on after the time given.
func (r *Runner) Halt(ctx context.Context, span time.Duration) error {
	p, err := r.open()
	if err != nil {
		return err
	}
	defer func() { _ = p.Release() }() // it is not waited for
	return halt(ctx, "the runner in "+r.dir, span, p.Signal)
}

// stop ends the runner and all that it runs, and so its agent.
func (r *Runner) stop(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, r.program, "stop", "--data-dir", r.dir)
	cmd.Env = environment(os.Environ())
	said, failed := cmd.CombinedOutput()
	p, err := r.open()
	if errors.Is(err, errNoRunner) {
		return nil // gone, or there never was one
	}
	if err != nil {
		return err
	}
	defer func() { _ = p.Release() }() // it is not ours to wait for
	if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end the runner in %s: %w; before that: %w: %s", r.dir, err, failed, said)
	}
	return nil
}
