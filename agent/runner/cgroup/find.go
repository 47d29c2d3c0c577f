package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ErrNone is returned by [Delegated] when there is nothing to take, with the reason.
var ErrNone = errors.New("no delegated control group")

// Delegated returns the directory that this process may take: the control group that
// it was started in, if that was delegated to it, as systemd does for a unit with
// Delegate=yes, or if this is process 1 of a container that may write to its own.
// A group that merely can be written to is none: another manages it.
func Delegated() (dir string, err error) {
	dir, err = Own()
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNone, err)
	}
	return choose(dir, os.Getpid() == 1, delegated)
}

// Own returns the directory of the control group that this process is in.
func Own() (dir string, err error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("find the own control group: %w", err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find the own control group: %w", err)
	}
	return locate(string(own), string(mounts))
}

// choose decides which directory to take of a process that is in dir. A runner that
// was started in the place of one that moved aside is there as well.
func choose(dir string, first bool, delegated func(dir string) bool) (string, error) {
	if above := filepath.Dir(dir); filepath.Base(dir) == supervisor && delegated(above) {
		return above, nil
	}
	if delegated(dir) {
		return dir, nil
	}
	// The root of all groups has no type. What looks like the root and has one is
	// that of a container.
	if _, err := os.Stat(filepath.Join(dir, "cgroup.type")); err == nil && first && writable(dir) {
		return dir, nil
	}
	return "", fmt.Errorf("%w: the runner is in control group %s, which nobody has delegated to it (with systemd: Delegate=yes in its unit)", ErrNone, dir)
}

// writable reports whether this process may move others into a group.
func writable(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// locate returns the directory of a process's control group, from what is in its
// /proc/PID/cgroup and /proc/PID/mountinfo.
func locate(own, mounts string) (dir string, err error) {
	group, found := "", false
	for line := range strings.Lines(own) {
		if rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			group, found = rest, true
		}
	}
	if !found || !strings.HasPrefix(group, "/") {
		return "", errors.New("this host has no cgroup v2")
	}
	for line := range strings.Lines(mounts) {
		m, ok := parseMount(line)
		if !ok {
			continue
		}
		if rel, err := filepath.Rel(m.root, group); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return filepath.Join(m.point, rel), nil
		}
	}
	return "", fmt.Errorf("control group %s is not mounted anywhere: cgroup v2 belongs on /sys/fs/cgroup", group)
}

// mount is where a part of the cgroup v2 hierarchy can be seen.
type mount struct{ root, point string }

// parseMount reads a line of mountinfo; false when it is of another file system.
func parseMount(line string) (mount, bool) {
	mounted, super, ok := strings.Cut(line, " - ")
	f := strings.Fields(mounted)
	if !ok || len(f) < 6 || !strings.HasPrefix(super, "cgroup2 ") {
		return mount{}, false
	}
	return mount{root: unescape.Replace(f[3]), point: unescape.Replace(f[4])}, true
}

// unescape reads names as mountinfo has them.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
