package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Group is the control group of one attempt. It may be used by many goroutines, but
// for Remove, after which it must not be used.
type Group struct {
	tree   *Tree
	dir    string
	limits Limits
}

// limit writes what the processes that are going to be here may use.
func (g *Group) limit() error {
	c, l := g.tree.controllers, g.limits
	for _, x := range []struct {
		asked int64
		kept  bool
		files [][2]string
	}{
		// Without memory.oom.group the kernel would end one process, of its choice,
		// and leave the others to find out.
		{l.Memory, c.Memory, [][2]string{{"memory.max", strconv.FormatInt(l.Memory, 10)}, {"memory.oom.group", "1"}}},
		{l.CPUMillis, c.CPU, [][2]string{{"cpu.max", fmt.Sprintf("%d %d", max(l.CPUMillis*cpuPeriod/1000, minQuota), cpuPeriod)}}},
		{l.PIDs, c.PIDs, [][2]string{{"pids.max", strconv.FormatInt(l.PIDs, 10)}}},
	} {
		if x.asked <= 0 {
			continue
		}
		if !x.kept {
			return fmt.Errorf("%s can't be kept here: %s", x.files[0][0], g.tree.note)
		}
		for _, f := range x.files {
			if err := write(g.file(f[0]), f[1]); err != nil {
				return err
			}
		}
	}
	if l.Memory > 0 {
		// What goes beyond would be swapped out, and the job be slow for no reason
		// that anybody sees. A kernel without swap accounting has no such file.
		if err := write(g.file("memory.swap.max"), "0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (g *Group) file(name string) string { return filepath.Join(g.dir, name) }

// Open opens the group for clone3: a process that is started by that descriptor is in
// the group from its first instruction on. The caller closes it.
func (g *Group) Open() (*os.File, error) { return os.Open(g.dir) }

// Dir is the group's directory; its base name is in /proc/PID/cgroup of all in it.
func (g *Group) Dir() string { return g.dir }

// Populated reports whether a process is in the group or in one below it, but for
// those that wait to be reaped.
func (g *Group) Populated() (bool, error) {
	events, err := keys(g.file("cgroup.events"))
	if err != nil {
		return false, fmt.Errorf("look whether control group %q is empty: %w", g.dir, err)
	}
	return events["populated"] != 0, nil
}

// PIDs are the processes in the group and in those below it, as this process's
// namespace has them; without those that wait to be reaped.
func (g *Group) PIDs() (all []int, err error) {
	err = g.each(func(dir string) error {
		pids, err := readPIDs(dir)
		if gone(err) {
			return nil
		}
		all = append(all, pids...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the processes in control group %q: %w", g.dir, err)
	}
	return all, nil
}

// gone tells of a group that was removed while one looked: who is in it may make
// others below it and remove them.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) }

// each calls f for the group and for all below it, those above first.
func (g *Group) each(f func(dir string) error) error {
	return filepath.WalkDir(g.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case gone(err):
			return nil
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		}
		return f(path)
	})
}

// Kill sends SIGKILL to all in the group and below it at once: none can fork away
// from it. It returns before they are gone.
func (g *Group) Kill() error {
	if err := write(g.file("cgroup.kill"), "1"); err != nil {
		return fmt.Errorf("kill control group %q: %w", g.dir, err)
	}
	return nil
}

// Usage returns what was used so far, by those that have ended too.
func (g *Group) Usage() (u Usage, err error) {
	read := func(name string) map[string]int64 {
		all, kerr := keys(g.file(name))
		err = errors.Join(err, kerr)
		return all
	}
	u.CPU = time.Duration(read("cpu.stat")["usage_usec"]) * time.Microsecond
	memory := read("memory.events")
	u.OOMKills, u.OverLimit = memory["oom_kill"], g.limits.Memory > 0 && memory["oom"] > 0
	if g.limits.PIDs > 0 {
		u.PIDsRefused = read("pids.events")["max"]
	}
	peak, rerr := readNumber(g.file("memory.peak"))
	u.Memory = peak
	if err = errors.Join(err, rerr); err != nil {
		return u, fmt.Errorf("measure control group %q: %w", g.dir, err)
	}
	return u, nil
}

// Sample returns how much memory is used now, where the kernel does not keep the peak
// itself, as it does since Linux 5.19; there it returns 0.
func (g *Group) Sample() int64 {
	if _, err := os.Stat(g.file("memory.peak")); err == nil {
		return 0
	}
	n, err := readNumber(g.file("memory.current"))
	if err != nil {
		return 0 // the next sample, or none
	}
	return n
}

// readNumber reads a file with a number in it; 0 when there is none.
func readNumber(name string) (int64, error) {
	text, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, nil //nolint:nilerr // "max", or nothing
	}
	return n, nil
}

// Remove removes the group, and those that its processes made below it. It fails
// when a process is left in one of them.
func (g *Group) Remove() error {
	var dirs []string
	err := g.each(func(dir string) error { dirs = append(dirs, dir); return nil })
	for _, dir := range slices.Backward(dirs) {
		if rerr := g.tree.kernel.rmdir(dir); rerr != nil && !gone(rerr) {
			err = errors.Join(err, rerr)
		}
	}
	if err != nil {
		return fmt.Errorf("remove control group %q: %w", g.dir, err)
	}
	return nil
}

// clear removes the group, which was killed, once it is empty.
func (g *Group) clear(until time.Time) error {
	for {
		populated, err := g.Populated()
		if err != nil {
			return err
		}
		if !populated {
			return g.Remove()
		}
		if time.Now().After(until) {
			return fmt.Errorf("processes in control group %q do not end after SIGKILL", g.dir)
		}
		rest()
	}
}
