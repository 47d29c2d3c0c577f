package local

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// It is the runner that is signalled, and no process that it has forked.
func TestRunnerIsSignalled(t *testing.T) {
	dir := t.TempDir()
	// A shell that runs a script called "runner"; its child is one that never begins a program.
	const script = "( while :; do read line < wait; done ) &\necho $! > child\nread line < wait\n"
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "runner"), []byte(script), 0o600), syscall.Mkfifo(filepath.Join(dir, "wait"), 0o600)); err != nil {
		t.Fatal(err)
	}
	r := &Runner{name: "worker-1", program: "/bin/true", dir: dir}
	if pid, err := r.PID(); pid != 0 || err != nil {
		t.Fatalf("before there is one it is process %d, %v", pid, err)
	}
	if err := r.Halt(t.Context(), 0); !errors.Is(err, errNoRunner) {
		t.Errorf("before there is one a halt says %v", err)
	}
	cmd := exec.Command("/bin/sh", "runner", "--data-dir="+dir)
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child := 0
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		if child != 0 {
			_ = syscall.Kill(child, syscall.SIGKILL) // likewise
		}
	})
	await(t, "it has a child", func() bool {
		text, _ := os.ReadFile(filepath.Join(dir, "child")) // not yet
		child, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return bytes.HasSuffix(text, []byte("\n"))
	})
	if !r.looksLike(proc, child) {
		t.Fatal("its child does not look like it, so the test says nothing")
	}
	if pid, err := r.PID(); pid != cmd.Process.Pid || err != nil {
		t.Errorf("it is process %d, %v; want %d, and not %d", pid, err, cmd.Process.Pid, child)
	}
	if err := r.Halt(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if err := r.stop(t.Context()); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // what it ended with is looked at below
	if st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || st.Signal() != syscall.SIGKILL {
		t.Errorf("it ended with %v", cmd.ProcessState)
	}
	if err := syscall.Kill(child, 0); err != nil {
		t.Errorf("its child: %v", err)
	}
}
