package local

import (
	"context"
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
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, fmt.Errorf("look for the runner in %s: %w", r.dir, err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil {
			continue // it has ended
		}
		if words := strings.Split(string(line), "\x00"); len(words) > 2 && words[1] == "runner" && words[2] == "--data-dir="+r.dir {
			return pid, nil
		}
	}
	return 0, nil
}

// there returns the process id, or why there is nothing to harm.
func (r *Runner) there() (int, error) {
	pid, err := r.PID()
	if err == nil && pid == 0 {
		err = fmt.Errorf("there is no runner in %s at the moment", r.dir)
	}
	return pid, err
}

// Kill kills it with SIGKILL, and returns when another one is in its place. The agent
// decides when that is started; it may be killed itself at the same time.
func (r *Runner) Kill(ctx context.Context, _ time.Duration) error {
	pid, err := r.there()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
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
	pid, err := r.there()
	if err != nil {
		return err
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("halt the runner in %s: %w", r.dir, err)
	}
	defer func() { _ = p.Release() }() // it is not waited for
	return halt(ctx, "the runner in "+r.dir, span, p.Signal)
}

// stop ends the runner and all that it runs, and so its agent.
func (r *Runner) stop(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, r.program, "stop", "--data-dir", r.dir)
	cmd.Env = environment(os.Environ())
	said, failed := cmd.CombinedOutput()
	pid, err := r.PID()
	if err != nil || pid == 0 {
		return err // gone, or there never was one
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("end the runner in %s: %w; before that: %w: %s", r.dir, err, failed, said)
	}
	return nil
}
