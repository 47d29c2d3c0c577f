package runner_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/schedd/schedd/agent/runner"
)

// Who asks for starts and is another user can have no file written to but its own:
// not root's, not by a link, and no pipe or device.
func TestOutputOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to have files of other users")
	}
	const agent = 54321
	p := newPlace(t)
	p.runner = runner.New(runner.Options{TempDir: p.dir, OutputOwner: &runner.Owner{UID: agent, GID: agent}})
	own := p.spec("/bin/echo", "hello")
	if err := os.Chown(own.Output, agent, agent); err != nil {
		t.Fatal(err)
	}
	if e, out := p.run(own); e.Code != 0 || out != "hello\n" {
		t.Errorf("its own: exit %+v, output %q", e, out)
	}
	nothing := p.spec("/bin/echo")
	nothing.Output = ""
	if e := p.wait(p.start(nothing)); e.Code != 0 {
		t.Errorf("no output: exit %+v", e)
	}

	roots := p.spec("/bin/echo", "hello")
	link, dir, pipe := filepath.Join(p.dir, "link"), filepath.Join(p.dir, "dir"), filepath.Join(p.dir, "pipe")
	if err := errors.Join(os.Symlink(own.Output, link), os.Mkdir(dir, 0o700), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, pipe, link} {
		if err := os.Lchown(name, agent, agent); err != nil {
			t.Fatal(err)
		}
	}
	for name, path := range map[string]string{"root's": roots.Output, "a link": link, "a directory": dir, "a pipe": pipe, "a device": "/dev/null"} {
		s := p.spec("/bin/echo", "hello")
		s.Output = path
		if proc, err := p.runner.Start(s); err == nil || !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v, %v; want that it is not permitted", name, proc, err)
		}
	}
	if got := p.read(roots.Output); got != "" {
		t.Errorf("root's file has %q", got)
	}
	// A file of the kernel's that is the agent's own, in which root may write what the
	// agent may not: who becomes whom in a namespace.
	if pid := p.namespaceOf(agent); pid != 0 {
		name := fmt.Sprintf("/proc/%d/uid_map", pid)
		s := p.spec("/bin/echo", "0 0 1")
		s.Output = name
		if proc, err := p.runner.Start(s); err == nil {
			p.wait(proc)
		}
		if got := p.read(name); got != "" {
			t.Errorf("the agent could make itself root: %q", got)
		}
	}
	missing := p.spec("/bin/echo")
	missing.Output += "-missing"
	if _, err := p.runner.Start(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// namespaceOf returns a process of a user in a user namespace of its own, 0 where there
// is no such thing.
func (p place) namespaceOf(user uint32) (pid int) {
	p.Helper()
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return 0
	}
	cmd := exec.CommandContext(p.Context(), unshare, "--user", "sleep", "1000")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	if err := cmd.Start(); err != nil {
		p.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	p.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	p.until("its namespace", func() bool {
		select {
		case <-ended: // not allowed here
			return true
		default:
		}
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
		return string(name) == "sleep\n"
	})
	select {
	case <-ended:
		p.Log("no user namespaces here, so that was not tried")
		return 0
	default:
		return cmd.Process.Pid
	}
}
