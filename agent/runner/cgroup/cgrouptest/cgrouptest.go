// Package cgrouptest gives tests a control group of the kernel's, for what no
// imitation of it can show. It is linked into no program.
package cgrouptest

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/schedd/schedd/agent/runner/cgroup"
)

// Dir makes a control group below the one that this process is in, with the
// controllers that can be had, and removes it at the end of the test: what is in it
// has to be gone by then. Where that can't be done the test is skipped, by name and
// with the reason.
func Dir(t testing.TB) string {
	t.Helper()
	own, err := cgroup.Own()
	if err != nil {
		t.Skip("needs cgroup v2:", err)
	}
	for _, name := range []string{"memory", "cpu", "pids"} {
		enable(own, name)
	}
	dir, err := os.MkdirTemp(own, "schedd-test-") //nolint:usetesting // it has to be in the kernel's file system
	if err != nil {
		t.Skip("needs a control group in which others can be made:", err)
	}
	t.Cleanup(func() {
		if err := syscall.Rmdir(dir); err != nil {
			t.Error(err)
		}
	})
	if _, err := os.Stat(filepath.Join(dir, "cgroup.kill")); err != nil {
		t.Skip("needs Linux 5.14:", err)
	}
	// A directory that can be made may yet take no processes from here.
	fd, err := os.OpenFile(filepath.Join(own, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		t.Skip("needs a control group that can be written to:", err)
	}
	_ = fd.Close() // nothing was written
	return dir
}

// enable asks for a controller. The kernel refuses one that it has in version 1, and
// any in a group with processes, unless that is the root of all.
func enable(dir, name string) {
	f, err := os.OpenFile(filepath.Join(dir, "cgroup.subtree_control"), os.O_WRONLY, 0)
	if err != nil {
		return
	}
	_, _ = f.WriteString("+" + name)
	_ = f.Close() // the test sees what it got
}

// Take takes a Dir, and gives it back at the end of the test, with the group that
// this process was moved to.
func Take(t testing.TB) *cgroup.Tree {
	t.Helper()
	tree, err := cgroup.Take(Dir(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("controllers %+v; %s", tree.Controllers(), tree.Note())
	return tree
}
