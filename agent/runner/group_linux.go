package runner

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/schedd/schedd/agent/runner/cgroup"
)

// within has a process be started in a group; nil is none. The caller calls done
// after the start.
func within(g *cgroup.Group, sys *syscall.SysProcAttr) (_ *syscall.SysProcAttr, done func(), err error) {
	if g == nil {
		return sys, func() {}, nil
	}
	dir, err := g.Open()
	if err != nil {
		return nil, nil, err
	}
	sys.UseCgroupFD, sys.CgroupFD = true, int(dir.Fd())
	return sys, func() { _ = dir.Close() }, nil // nothing was written through it
}

// groupOf returns the path of the control group that a process is in, or was in when
// it ended, as /proc has it; empty when that can't be told.
func groupOf(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(b) {
		if path, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("0::")); ok {
			return string(bytes.TrimSuffix(path, []byte(" (deleted)")))
		}
	}
	return ""
}

// isInLocked reports whether a path of groupOf leads to p's group, or below it. Only
// names are compared: where this process's groups are in the kernel's eyes depends on
// its namespace, and p's group has a name of its own.
func (p *process) isInLocked(path string) bool {
	if p.group == nil || path == "" {
		return false
	}
	for name := filepath.Base(p.group.Dir()); path != "/" && path != "."; path = filepath.Dir(path) {
		if filepath.Base(path) == name {
			return true
		}
	}
	return false
}

// groupPIDs are the living processes in p's group.
func (p *process) groupPIDs() []int {
	if p.group == nil {
		return nil
	}
	pids, err := p.group.PIDs()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.local.log.Warn("a control group can't be read; what is left of the attempt is found by /proc alone", "attempt", p.id, "err", err)
	}
	return pids
}

// groupEmpty reports whether nothing lives in p's group.
func (p *process) groupEmpty() bool {
	if p.group == nil {
		return true
	}
	populated, err := p.group.Populated()
	return err != nil || !populated
}
