//go:build linux

package cgroup_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/schedd/schedd/agent/runner/cgroup"
	"github.com/schedd/schedd/agent/runner/cgroup/cgrouptest"
)

// A process is in its group from the beginning, and nothing that it forks gets away
// from the runner, nor from the next one.
func TestFormerProcessesAreEnded(t *testing.T) {
	tree, err := cgroup.Take(cgrouptest.Dir(t))
	if err != nil {
		t.Fatal(err)
	}
	g, err := tree.New("run/1", cgroup.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if populated, err := g.Populated(); populated || err != nil {
		t.Errorf("a new group: %v, %v", populated, err)
	}
	// Each leaves its session, and its parent, and has no environment.
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "for i in 1 2 3; do (env -i setsid sleep 1000 &) ; done; echo up; exec sleep 1000")
	fd, err := g.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fd.Close() }()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(fd.Fd())}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	if pids, err := g.PIDs(); len(pids) < 4 || err != nil {
		t.Errorf("pids %v, %v", pids, err)
	}
	if populated, err := g.Populated(); !populated || err != nil {
		t.Errorf("populated %v, %v", populated, err)
	}
	if err := g.Remove(); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("removed with processes in it: %v", err)
	}
	// The next runner ends what this one leaves.
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := cgroup.Take(tree.Dir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = next.Close() }()
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the main process ended with %v", err)
	}
	if _, err := os.Stat(g.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the group is still there: %v", err)
	}
}

// A runner that is in the directory itself moves aside, and the next one knows the
// place by what systemd wrote to it.
func TestRunnerMovesAside(t *testing.T) {
	dir := cgrouptest.Dir(t)
	fd, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fd.Close() }()
	cmd := exec.CommandContext(t.Context(), "sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(fd.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	aside := filepath.Join(dir, "supervisor")
	t.Cleanup(func() {
		err := cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if err = errors.Join(err, syscall.Rmdir(aside)); err != nil {
			t.Error(err)
		}
	})
	tree, err := cgroup.Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tree.Close() }()
	want := strconv.Itoa(cmd.Process.Pid) + "\n"
	for name, want := range map[string]string{dir: "", aside: want} {
		if got, err := os.ReadFile(filepath.Join(name, "cgroup.procs")); string(got) != want || err != nil {
			t.Errorf("in %s is %q, %v; want %q", name, got, err, want)
		}
	}
}
