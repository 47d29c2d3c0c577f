package runner_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// another is a variable with the path of a program that becomes root, as sudo does.
const another = "SCHEDD_TEST_ANOTHER"

// A runner that is not root may not signal what runs as another user. Beside the main
// process it goes on when the attempt has ended, which says so. If it is the main process,
// the attempt does not end before that has.
func TestProgramOfAnotherUser(t *testing.T) {
	switch {
	case os.Getenv(another) == "become":
		if err := syscall.Setuid(0); err != nil {
			t.Skipf("become root: %v", err) // the runner could signal that
		}
		t.Fatal(syscall.Exec("/bin/sleep", []string{"sleep", "1000"}, nil))
	case os.Getenv(another) != "":
		endsAnother(t, os.Getenv(another))
		return
	case os.Geteuid() != 0:
		t.Skip("needs root, for a program that becomes root")
	}
	p := newPlace(t)
	program, becomes := filepath.Join(p.dir, "runner.test"), filepath.Join(p.dir, "another.test")
	self := []byte(p.read("/proc/self/exe"))
	for path, mode := range map[string]os.FileMode{program: 0o755, becomes: 0o755 | os.ModeSetuid} {
		if err := os.WriteFile(path, self, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // which the umask has no say in
			t.Fatal(err)
		}
	}
	s := p.spec(program, "-test.run=^TestProgramOfAnotherUser$", "-test.v")
	s.User, s.Env = other, append(s.Env, another+"="+becomes)
	proc := p.start(s)
	told := regexp.MustCompile(`(?m)^(left|asked) ([0-9]+)$`)
	p.until("both to be left", func() bool { return len(told.FindAllString(p.read(s.Output), -1)) == 2 || isDone(proc.Done()) })
	for _, m := range told.FindAllStringSubmatch(p.read(s.Output), -1) {
		pid, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Errorf("what was %s does not go on: %v", m[1], err)
		}
	}
	e := p.wait(proc)
	if e.Code == 0 && strings.Contains(p.read(s.Output), "--- SKIP: TestProgramOfAnotherUser") {
		t.Skip("needs a place where programs become root by their owner: no nosuid, no no_new_privs")
	}
	if e.Code != 0 || !strings.Contains(p.read(s.Output), "--- PASS: TestProgramOfAnotherUser") {
		t.Errorf("exit %+v\n%s", e, p.read(s.Output))
	}
}

// endsAnother is the runner that is not root.
func endsAnother(t *testing.T, becomes string) {
	t.Helper()
	p := newPlace(t)
	become := another + "=become exec " + becomes + " -test.run=^TestProgramOfAnotherUser$"
	beside := p.sh("(" + become + ") & echo $!; exec sleep 1000")
	proc := p.start(beside)
	pid := p.pids(beside, 1)[0]
	if !p.becomesRoot(pid) {
		t.Skip("where this runs no program becomes root by its owner")
	}
	proc.Kill(0)
	if e := p.wait(proc); !strings.Contains(e.Reason, "1 process could not be ended and may still run: the runner has no permission to signal a program that runs as another user") {
		t.Errorf("it is told %q", e.Reason)
	}
	main := p.sh("echo $$; " + become)
	proc = p.start(main)
	pid2 := p.pids(main, 1)[0]
	if !p.becomesRoot(pid2) {
		t.Fatal("what became root beside the main process does not as that")
	}
	proc.Kill(0)
	if isDone(proc.Done()) {
		t.Error("the attempt has ended, and its main process has not")
	}
	fmt.Printf("\nleft %d\nasked %d\n", pid, pid2) // until somebody who may ends them
	p.wait(proc)
}

// becomesRoot waits until a process runs as root, and reports false when it has ended instead.
func (p place) becomesRoot(pid int) (is bool) {
	p.Helper()
	p.until("it to be root, or to end", func() bool {
		is = isRoot(pid)
		return is || p.isZombie(pid) || syscall.Kill(pid, 0) == syscall.ESRCH
	})
	return is
}

// isRoot tells whether a process runs as root, in all respects.
func isRoot(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err == nil && strings.Contains(string(status), "\nUid:\t0\t0\t0\t0\n")
}

func isDone(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}
