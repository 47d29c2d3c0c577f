//go:build e2e && linux

package natlab_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// process is a program on a host, running or ended.
type process struct {
	name   string // for people
	cmd    *exec.Cmd
	log    string        // file of standard output and error
	exited chan struct{} // closed when it has ended
	code   int           // its exit code then, -1 after a signal
	halted atomic.Bool   // by SIGSTOP
}

// starts counts the programs that were started.
var starts atomic.Int64

// start starts a program on h, with nothing in its environment that could be a
// setting. It is ended with the test, and its log is shown if that fails.
func (h *host) start(t *testing.T, name string, argv ...string) *process {
	t.Helper()
	dir := filepath.Join(t.ArtifactDir(), fmt.Sprintf("%s-%d", name, starts.Add(1)))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p := &process{name: name, log: filepath.Join(dir, "log"), exited: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }() // the process has its own
	argv = append([]string{"ip", "netns", "exec", h.name}, argv...)
	p.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), argv[0], argv[1:]...)
	p.cmd.Env = clean(os.Environ())
	// Ctrl-C is for the tests, which end it then; if they can't, it is ended all
	// the same.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		var exit *exec.ExitError
		if err := p.cmd.Wait(); errors.As(err, &exit) {
			p.code = exit.ExitCode()
		}
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.end()
		if t.Failed() {
			t.Logf("%s, process %d, the end of what it said:\n%s", p.name, p.cmd.Process.Pid, tail(p.log, 60))
		}
	})
	return p
}

func clean(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		return strings.HasPrefix(kv, "SCHEDD_") || strings.HasPrefix(kv, "SCHEDAGENT_")
	})
}

// tail is the last lines of a file.
func tail(name string, lines int) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	all := strings.SplitAfter(string(text), "\n")
	return strings.Join(all[max(0, len(all)-lines-1):], "")
}

// end ends the process, in order if it will.
func (p *process) end() {
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // it may have ended
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // likewise
	grace := time.NewTimer(patience / 3)
	defer grace.Stop()
	select {
	case <-p.exited:
	case <-grace.C:
		p.kill()
	}
}

// kill is what the power switch does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.exited
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("send %v to %s: %v", s, p.name, err)
	}
}

// halt stops the process where it stands, as a machine does that is paused, until
// resume.
func (p *process) halt(t *testing.T) {
	t.Helper()
	p.halted.Store(true)
	p.signal(t, syscall.SIGSTOP)
}

func (p *process) resume(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGCONT)
	p.halted.Store(false)
}

// running reports whether the process has neither ended nor been halted.
func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return !p.halted.Load()
	}
}
