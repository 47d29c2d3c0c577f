// Package cgroup gives each attempt a control group of its own, by version 2 of the
// kernel's interface: it holds the attempt to limits, measures all of its processes
// together, and ends all of them, wherever they have gone.
//
//	DIR                 delegated to the runner: it alone writes there
//	DIR/supervisor      the runner itself, if it was started in DIR: a group with
//	                    controllers may have groups in it, or processes, not both
//	DIR/job-...         one attempt
//
// It is plain reads and writes of the kernel's files, and that is on purpose: what
// else there is asks systemd over D-Bus, and the runner must not depend on that to
// start a job or to end one. It starts no process, and decides no limit.
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

// Limits are what a group may use, all of its processes together. Zero is no limit.
type Limits struct {
	// Memory in bytes, with the page cache that it fills. There is no swap beyond it.
	Memory int64
	// CPUMillis are thousandths of one processor: 1500 is one and a half.
	CPUMillis int64
	// PIDs are processes and threads at the same time.
	PIDs int64
}

// Usage is what a group has used so far. What the kernel does not tell is zero.
type Usage struct {
	// CPU is user and system time.
	CPU time.Duration
	// Memory is the most that was used at one time, in bytes, page cache included.
	Memory int64
	// OOMKills counts processes that the kernel ended for want of memory, and
	// OverLimit says that the want was the group's own: it was at its limit.
	OOMKills  int64
	OverLimit bool
	// PIDsRefused counts how often a process or thread was not made because of the
	// group's limit.
	PIDsRefused int64
}

// Controllers are the limits that can be kept.
type Controllers struct{ Memory, CPU, PIDs bool }

// ErrInUse is returned by [Take] for a directory that another runner has.
var ErrInUse = errors.New("another runner uses it")

// Names in a delegated directory.
const (
	supervisor = "supervisor"
	jobPrefix  = "job-"
)

const (
	// patience is how long a group that was killed may take to be empty.
	patience = 5 * time.Second
	// lockPatience is for a former runner that was killed amid a fork: its child
	// has the lock until it has started.
	lockPatience = time.Second
	lookAgain    = 5 * time.Millisecond
)

// Tree is a delegated directory. It may be used by many goroutines.
type Tree struct {
	dir         string
	lock        *os.File // on dir, for as long as this process lives
	controllers Controllers
	note        string
	remains     []error
	kernel      kernel
}

// kernel is what making and removing a directory does in the cgroup file system: the
// files in it come and go by themselves. Tests bring their own.
type kernel struct{ mkdir, rmdir func(dir string) error }

func realKernel() kernel {
	return kernel{mkdir: func(dir string) error { return os.Mkdir(dir, 0o755) }, rmdir: syscall.Rmdir}
}

// Take makes dir, a directory of the cgroup v2 file system that is delegated to this
// process, the place of attempts' groups. It ends what a former runner left there,
// moves the processes that are in dir itself aside, this one among them, and has the
// kernel enable the controllers that it can. Those that it can't are told by
// [Tree.Controllers], and why by [Tree.Note]. What does not end within 5 s is left where
// it is, and told by [Tree.Remains]. It fails with [ErrInUse] when another
// process has taken dir. The tree is taken until this process ends, or [Tree.Close].
func Take(dir string) (*Tree, error) { return take(dir, realKernel()) }

func take(dir string, k kernel) (_ *Tree, err error) {
	t := &Tree{dir: dir, kernel: k}
	if _, err := os.Stat(t.file("cgroup.kill")); err != nil {
		return nil, fmt.Errorf("take control group %q: it is none of cgroup v2, or the kernel is older than 5.14: %w", dir, err)
	}
	if t.lock, err = lock(dir); err != nil {
		return nil, fmt.Errorf("take control group %q: %w", dir, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	if err := t.clear(); err != nil {
		return nil, fmt.Errorf("end what a former runner left in control group %q: %w", dir, err)
	}
	if err := t.moveAside(); err != nil {
		return nil, fmt.Errorf("move the runner out of control group %q, so that there can be others in it: %w", dir, err)
	}
	t.enable()
	return t, nil
}

// lock takes dir for this process.
func lock(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for until := time.Now().Add(lockPatience); ; {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return nil, errors.Join(fmt.Errorf("lock it: %w", err), f.Close())
		case time.Now().After(until):
			return nil, errors.Join(ErrInUse, f.Close())
		}
		rest()
	}
}

// rest waits a moment: the kernel tells nobody when a lock is free, and of a group
// that is empty only in a way that needs a descriptor for each.
func rest() {
	timer := time.NewTimer(lookAgain)
	defer timer.Stop()
	<-timer.C
}

// Close lets another process take the tree. Groups in it stay.
func (t *Tree) Close() error { return t.lock.Close() }

// Controllers returns which limits can be kept here.
func (t *Tree) Controllers() Controllers { return t.controllers }

// Remains tells what is left of a former runner, each group with the reason. Its
// processes hang in the kernel; new attempts get groups of other names.
func (t *Tree) Remains() []error { return t.remains }

// Note says in a sentence why not all limits can be kept; empty when they can.
func (t *Tree) Note() string { return t.note }

// Dir is the directory that was taken.
func (t *Tree) Dir() string { return t.dir }

func (t *Tree) file(name string) string { return filepath.Join(t.dir, name) }

// clear ends and removes what a former runner left. One process that can't be ended
// must not cost all attempts their limits, so that is only noted.
func (t *Tree) clear() error {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return err
	}
	var killed []*Group
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), jobPrefix) {
			continue
		}
		g := &Group{tree: t, dir: t.file(e.Name())}
		if err := g.Kill(); err != nil {
			t.remains = append(t.remains, err)
			continue
		}
		killed = append(killed, g)
	}
	until := time.Now().Add(patience)
	for _, g := range killed {
		if err := g.clear(until); err != nil {
			t.remains = append(t.remains, err)
		}
	}
	return nil
}

// moveAside moves the processes in the directory itself to a group of their own.
func (t *Tree) moveAside() error {
	aside := t.file(supervisor)
	for {
		pids, err := readPIDs(t.dir)
		if err != nil || len(pids) == 0 {
			return err
		}
		if err := t.kernel.mkdir(aside); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		for _, pid := range pids { // one that forks meanwhile has its child moved in the next turn
			err := write(filepath.Join(aside, "cgroup.procs"), strconv.Itoa(pid))
			if err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
	}
}

// enable has groups in the tree get the controllers that there are.
func (t *Tree) enable() {
	offered, err := os.ReadFile(t.file("cgroup.controllers"))
	if err != nil {
		t.note = fmt.Sprintf("which controllers there are can't be read: %v", err)
		return
	}
	var missing []string
	on := func(name string) bool {
		if !slices.Contains(strings.Fields(string(offered)), name) {
			missing = append(missing, name)
			return false
		}
		if err := write(t.file("cgroup.subtree_control"), "+"+name); err != nil {
			missing = append(missing, fmt.Sprintf("%s (%v)", name, err))
			return false
		}
		return true
	}
	t.controllers = Controllers{Memory: on("memory"), CPU: on("cpu"), PIDs: on("pids")}
	if len(missing) > 0 {
		t.note = fmt.Sprintf("control group %s has no controller %s: the group above has to delegate it", t.dir, strings.Join(missing, ", "))
	}
}

// cpuPeriod is over how long the kernel counts a group's processor time, in
// microseconds; minQuota is the least that it takes.
const (
	cpuPeriod = 100_000
	minQuota  = 1_000
)

// New makes a group for the attempt of that id, with its limits in force. A limit
// that can't be kept is an error. The caller removes the group.
func (t *Tree) New(id string, l Limits) (*Group, error) {
	g, err := t.make(id)
	if err != nil {
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	g.limits = l
	if err := g.limit(); err != nil {
		return nil, errors.Join(fmt.Errorf("limit a control group: %w", err), g.Remove())
	}
	return g, nil
}

// make makes a directory. A former one of the same attempt may still be there, if
// something in it can't be ended.
func (t *Tree) make(id string) (*Group, error) {
	const tries = 100
	for n := range tries {
		dir := t.file(jobPrefix + plain(id))
		if n > 0 {
			dir += "." + strconv.Itoa(n)
		}
		err := t.kernel.mkdir(dir)
		if err == nil {
			return &Group{tree: t, dir: dir}, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%d groups of attempt %q are left and can't be removed: %w", tries, id, fs.ErrExist)
}

// plain makes a name of an id that people find again.
func plain(id string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-':
			return r
		}
		return '-'
	}, id[:min(len(id), 100)])
}

// write writes to a file of the kernel's, which has to be there.
func write(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// readPIDs returns the processes in a group itself, not in groups below it.
func readPIDs(dir string) (pids []int, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	for word := range strings.FieldsSeq(string(text)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, "cgroup.procs"), err)
		}
		if pid != 0 { // of another pid namespace
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// keys reads a file of lines "name value". A file that is not there has none.
func keys(name string) (map[string]int64, error) {
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			all[key] = n
		}
	}
	return all, nil
}
