package runner_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/schedd/schedd/agent/runner"
)

// The file system of scripts is full. That is no fault of the job's; a probe says the same,
// until there is room.
func TestNoRoomForScripts(t *testing.T) {
	p := newPlace(t)
	dir := filepath.Join(p.dir, "scripts")
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mount a small tmpfs, which only root can: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	p.runner = runner.New(runner.Options{TempDir: dir})
	script := p.spec()
	script.Argv, script.Script = nil, "exit 3\n"
	full := filepath.Join(dir, "full")
	if err := os.WriteFile(full, make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if _, err := p.runner.Start(script); !errors.Is(err, runner.ErrUnable) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a script: %v", err)
	}
	if err := p.runner.Probe(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a probe: %v", err)
	}
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	if err := p.runner.Probe(); err != nil {
		t.Errorf("a probe with room: %v", err)
	}
	proc, err := p.runner.Start(script)
	if err != nil {
		t.Fatal(err)
	}
	if exit := p.wait(proc); exit.Code != 3 {
		t.Errorf("it ended with %+v", exit)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
