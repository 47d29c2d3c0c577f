package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Daemon is a program that is kept running.
type Daemon struct {
	ctx  context.Context //nolint:containedctx // of the process that is started again; it is never done
	name string
	argv []string
	log  string // file of what it says

	// turn is held by whoever harms it.
	turn sync.Mutex

	mu      sync.Mutex // guards what follows
	cmd     *exec.Cmd
	exited  chan struct{} // closed when cmd has ended
	asked   bool          // that cmd ends
	retired bool          // it is not started again
	crashes []string
}

// restartDelay is how long after it ended by itself it is started again.
const restartDelay = 500 * time.Millisecond

// start starts the program, unless it is retired.
func (d *Daemon) start() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.retired {
		return nil
	}
	out, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", d.name, err)
	}
	defer func() { _ = out.Close() }() // the process has its own
	from, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("start %s: %w", d.name, err)
	}
	cmd := exec.CommandContext(d.ctx, d.argv[0], d.argv[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = environment(os.Environ()), out, out, attributes()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", d.name, err)
	}
	d.cmd, d.exited, d.asked = cmd, make(chan struct{}), false
	go d.watch(cmd, d.exited, from)
	return nil
}

// environment has no settings of ours: what is started is as the flags say.
func environment(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		return strings.HasPrefix(kv, "SCHEDD_") || strings.HasPrefix(kv, "SCHEDAGENT_")
	})
}

// watch waits for the end of a process, and starts the next one if nobody asked
// for that. It ends with the process, or with that of the last one of them.
func (d *Daemon) watch(cmd *exec.Cmd, exited chan struct{}, from int64) {
	_ = cmd.Wait() // what it ended with stands in the state
	state := cmd.ProcessState
	d.mu.Lock()
	again := !d.asked && !d.retired
	if again && !occupied(d.log, from, state.ExitCode()) {
		d.crashes = append(d.crashes, fmt.Sprintf("%s, process %d, ended by itself: %v; it says why in %s", d.name, state.Pid(), state, d.log))
	}
	d.mu.Unlock()
	close(exited)
	if !again {
		return
	}
	timer := time.NewTimer(restartDelay)
	defer timer.Stop()
	<-timer.C
	if err := d.start(); err != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.crashes = append(d.crashes, err.Error())
	}
}

// occupied tells whether a process found that its predecessor still had the
// directory: a process that a killed one was about to start has the lock for a
// moment. It says so in its last line, and exits by itself; what it wrote before that,
// and whatever a signal or a panic ended, is no excuse.
func occupied(log string, from int64, code int) bool {
	text, err := os.ReadFile(log)
	if err != nil || int64(len(text)) <= from || code != exitFailure {
		return false
	}
	lines := bytes.Split(bytes.TrimSpace(text[from:]), []byte("\n"))
	return bytes.Contains(lines[len(lines)-1], []byte("uses it"))
}

// exitFailure is what our programs exit with when they can't go on, and say why. The Go
// runtime exits with 2 after a panic.
const exitFailure = 1

func (d *Daemon) crashed() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.crashes)
}

// Name is that of the primary or worker.
func (d *Daemon) Name() string { return d.name }

// PID is the id of its process, which has ended if it is down.
func (d *Daemon) PID() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cmd.Process.Pid
}

// Kill kills it with SIGKILL, and starts another one after the time given.
func (d *Daemon) Kill(ctx context.Context, after time.Duration) error {
	d.turn.Lock()
	defer d.turn.Unlock()
	if err := d.down(); err != nil {
		return err
	}
	wait(ctx, after)
	return d.start()
}

// Down kills it with SIGKILL. It stays down until [Daemon.Up].
func (d *Daemon) Down() error {
	d.turn.Lock()
	defer d.turn.Unlock()
	return d.down()
}

// Up starts it again after [Daemon.Down].
func (d *Daemon) Up() error {
	d.turn.Lock()
	defer d.turn.Unlock()
	return d.start()
}

// Restart ends it in order, or with SIGKILL once ctx is done, and starts another one.
func (d *Daemon) Restart(ctx context.Context) error {
	d.turn.Lock()
	defer d.turn.Unlock()
	d.mu.Lock()
	d.asked = true
	d.mu.Unlock()
	d.stop(ctx)
	return d.start()
}

// down kills it, and waits for its end.
func (d *Daemon) down() error {
	d.mu.Lock()
	cmd, exited := d.cmd, d.exited
	d.asked = true
	d.mu.Unlock()
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s, process %d: %w", d.name, cmd.Process.Pid, err)
	}
	<-exited
	return nil
}

// Halt stops it with SIGSTOP, and lets it go on after the time given.
func (d *Daemon) Halt(ctx context.Context, span time.Duration) error {
	d.turn.Lock()
	defer d.turn.Unlock()
	d.mu.Lock()
	p := d.cmd.Process
	d.mu.Unlock()
	return halt(ctx, d.name, span, p.Signal)
}

// halt stops a process where it stands, and lets it go on.
func halt(ctx context.Context, name string, span time.Duration, signal func(os.Signal) error) error {
	if err := signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("halt %s: %w", name, err)
	}
	wait(ctx, span)
	if err := signal(syscall.SIGCONT); err != nil {
		return fmt.Errorf("let %s go on: %w", name, err)
	}
	return nil
}

// wait waits, or until ctx is done.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// retire lets what ends have no successor.
func (d *Daemon) retire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.retired = true
}

// stop ends the process, in order if it will until ctx is done. It has to be
// retired, or asked to end.
func (d *Daemon) stop(ctx context.Context) {
	d.mu.Lock()
	cmd, exited := d.cmd, d.exited
	d.mu.Unlock()
	if cmd == nil {
		return // it was never started
	}
	_ = cmd.Process.Signal(syscall.SIGCONT) // it may have ended
	_ = cmd.Process.Signal(syscall.SIGTERM) // likewise
	select {
	case <-exited:
	case <-ctx.Done():
		_ = cmd.Process.Kill() // likewise
		<-exited
	}
}
