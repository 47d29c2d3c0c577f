package harm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/schedd/schedd/server/torture"
)

// pretend starts a process that looks like one of ours, and writes down its id.
func pretend(t *testing.T, file, program string, args ...string) *exec.Cmd {
	t.Helper()
	return pretendWith(t, nil, file, program, args...)
}

// pretendWith gives it open files as well.
func pretendWith(t *testing.T, held []*os.File, file, program string, args ...string) *exec.Cmd {
	t.Helper()
	path := filepath.Join(t.TempDir(), program)
	if err := os.Symlink("/bin/sh", path); err != nil {
		t.Fatal(err)
	}
	// The shell takes the name of the command for that of a script.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, args[0]), []byte("while :; do sleep 1; done\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir, cmd.ExtraFiles = dir, held
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	name(t, file, cmd.Process.Pid)
	return cmd
}

func name(t *testing.T, file string, pids ...int) {
	t.Helper()
	text := strings.Trim(strings.ReplaceAll(fmt.Sprint(pids), " ", "\n"), "[]") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// state is the letter that the kernel has for what a process does: T is halted.
func state(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return rest[:1]
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(comeback); !holds(); {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain: " + what)
		}
		wait(t.Context(), lookAgain)
	}
}

// A process is known by what it runs, and none that is not ours is touched.
func TestFind(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	for command, want := range map[string]torture.Part{"serve": torture.Primary, "run": "", "dev": ""} {
		pretend(t, file, "schedd", command)
		p, err := Find(file)
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "is not harmed") {
				t.Errorf("schedd %s: %v", command, err)
			}
			continue
		}
		if err != nil || p.Part() != want {
			t.Errorf("schedd %s: %v, %v", command, p, err)
		}
	}
	other := pretend(t, file, "postgres", "run")
	if _, err := Find(file); err == nil {
		t.Error("a process that is none of ours was taken")
	}
	for _, pids := range [][]int{{}, {1}, {-1}, {other.Process.Pid, other.Process.Pid}, {1 << 30}} {
		name(t, file, pids...)
		if _, err := Find(file); err == nil {
			t.Errorf("%v was taken", pids)
		}
	}
	if _, err := Find(file + ".none"); err == nil {
		t.Error("a file that is not there was taken")
	}
}

// The process that was named is killed, and the one that takes its place is waited
// for; a file that names another kind of process by then is not believed.
func TestKill(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	first := pretend(t, file, "schedagent", "run")
	p, err := Find(file)
	if err != nil {
		t.Fatal(err)
	}
	killed := make(chan error)
	go func() { killed <- p.Kill(t.Context(), 0) }()
	if err := first.Wait(); err == nil || first.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the first one ended with %v", err)
	}
	pretend(t, file, "schedagent", "runner")
	pretend(t, file, "schedagent", "run")
	if err := <-killed; err != nil {
		t.Error(err)
	}
	if err := p.Kill(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "a moment ago it was process") {
		t.Errorf("the next one, which nobody has looked at: %v", err)
	}
	pretend(t, file, "schedagent", "runner")
	if err := p.Kill(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "it is a runner now, and was a worker") {
		t.Errorf("a runner in its place: %v", err)
	}
}

// A process is halted, and goes on when the time is over, when the torture is
// stopped, and when it is killed.
func TestHalt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	pid := pretend(t, file, "schedd", "serve").Process.Pid
	p, err := Find(file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	halted := make(chan error)
	go func() { halted <- p.Halt(ctx, time.Hour) }()
	await(t, "it is halted", func() bool { return state(t, pid) == "T" })
	stop()
	if err := <-halted; err != nil || state(t, pid) == "T" {
		t.Errorf("after the torture was stopped it is %s, %v", state(t, pid), err)
	}
	if err := p.Halt(t.Context(), time.Millisecond); err != nil || state(t, pid) == "T" {
		t.Errorf("after its time it is %s, %v", state(t, pid), err)
	}
	// What is left of a torture that was killed is the watchman.
	dismiss, err := post(t.Context(), 0, fmt.Sprintf("kill -CONT %d", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer dismiss()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	await(t, "it goes on", func() bool { return state(t, pid) != "T" })
}
