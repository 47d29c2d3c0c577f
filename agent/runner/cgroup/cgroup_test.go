package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// machine is a directory with the files that the kernel would have there. The kernel
// makes them with each group; what a test wants them to say it writes itself.
type machine struct {
	*testing.T
	dir string
}

// files of a group, with what is in them at first.
var files = map[string]string{
	"cgroup.controllers": "cpuset cpu io memory pids\n", "cgroup.subtree_control": "", "cgroup.procs": "", "cgroup.kill": "",
	"cgroup.type": "domain\n", "cgroup.events": "populated 0\nfrozen 0\n",
	"cpu.stat": "usage_usec 0\nuser_usec 0\n", "cpu.max": "max 100000\n",
	"memory.max": "max\n", "memory.swap.max": "max\n", "memory.oom.group": "0\n", "memory.peak": "0\n", "memory.events": "low 0\noom 0\noom_kill 0\n",
	"pids.max": "max\n", "pids.events": "max 0\n",
}

func newMachine(t *testing.T) machine {
	t.Helper()
	m := machine{t, filepath.Join(t.TempDir(), "delegated")}
	if err := m.mkdir(m.dir); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m machine) mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// rmdir refuses a group with a group in it, as the kernel does.
func (m machine) rmdir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			return &fs.PathError{Op: "rmdir", Path: dir, Err: errors.New("device or resource busy")}
		}
	}
	return os.RemoveAll(dir)
}

func (m machine) take() (*Tree, error) { return take(m.dir, kernel{m.mkdir, m.rmdir}) }

func (m machine) tree() *Tree {
	m.Helper()
	t, err := m.take()
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() { _ = t.Close() })
	return t
}

// set writes what the kernel would say.
func (m machine) set(name, text string) {
	m.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o600); err != nil {
		m.Fatal(err)
	}
}

func (m machine) read(name string) string {
	m.Helper()
	b, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil {
		m.Fatal(err)
	}
	return string(b)
}

// What is asked for is written before there is a process, and what is not is left to
// the kernel.
func TestLimitsAreWritten(t *testing.T) {
	untouched := map[string]string{}
	for _, name := range []string{"memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max"} {
		untouched[name] = files[name]
	}
	for _, test := range []struct {
		name   string
		limits Limits
		want   map[string]string
	}{
		{"none", Limits{}, nil},
		{"memory", Limits{Memory: 64 << 20}, map[string]string{"memory.max": "67108864", "memory.oom.group": "1", "memory.swap.max": "0"}},
		{"cpu", Limits{CPUMillis: 1500}, map[string]string{"cpu.max": "150000 100000"}},
		{"least cpu", Limits{CPUMillis: 1}, map[string]string{"cpu.max": "1000 100000"}},
		{"pids", Limits{PIDs: 1024}, map[string]string{"pids.max": "1024"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			g, err := m.tree().New("run/1", test.limits)
			if err != nil {
				t.Fatal(err)
			}
			for name, was := range untouched {
				want, asked := test.want[name]
				if !asked {
					want = was
				}
				if got := m.read("job-run-1/" + name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if err := g.Remove(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(g.Dir()); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the group is still there: %v", err)
			}
		})
	}
}

// Controllers are enabled for the groups below; the one that was not delegated is
// named, and a limit of it is refused and leaves nothing behind.
func TestControllersThatAreMissing(t *testing.T) {
	m := newMachine(t)
	m.set("cgroup.controllers", "cpu pids\n")
	tree := m.tree()
	if d := cmp.Diff(Controllers{CPU: true, PIDs: true}, tree.Controllers()); d != "" {
		t.Error(d)
	}
	if !strings.Contains(tree.Note(), "has no controller memory: the group above has to delegate it") {
		t.Errorf("note %q", tree.Note())
	}
	if got := m.read("cgroup.subtree_control"); got != "+pids" { // the last that was written
		t.Errorf("subtree_control %q", got)
	}
	_, err := tree.New("a", Limits{Memory: 1})
	if err == nil || !strings.Contains(err.Error(), "memory.max can't be kept here: control group") {
		t.Errorf("err %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(m.dir, "job-*")); left != nil {
		t.Errorf("left: %v", left)
	}
}

// A runner takes nothing that is no group, and no tree that another has.
func TestTakeRefuses(t *testing.T) {
	if _, err := Take(t.TempDir()); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "none of cgroup v2") {
		t.Errorf("a plain directory: %v", err)
	}
	m := newMachine(t)
	first := m.tree()
	if _, err := m.take(); !errors.Is(err, ErrInUse) {
		t.Errorf("a second one: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	m.tree()
}

// What a former runner left is ended and removed, with the groups that jobs made
// below theirs. What is none of a runner's stays.
func TestFormerGroupsAreRemoved(t *testing.T) {
	m := newMachine(t)
	for _, dir := range []string{"job-a-1", "job-a-1/box", "job-a-1/box/inner", "job-b-1", "others"} {
		if err := m.mkdir(filepath.Join(m.dir, dir)); err != nil {
			t.Fatal(err)
		}
	}
	m.tree()
	left, err := filepath.Glob(filepath.Join(m.dir, "*", "cgroup.type"))
	if err != nil || len(left) != 1 || !strings.Contains(left[0], "others") {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Groups of the same attempt, whose former one can't be removed, do not meet.
func TestNamesDoNotMeet(t *testing.T) {
	m := newMachine(t)
	tree := m.tree()
	seen := map[string]bool{}
	for range 3 {
		g, err := tree.New("../../run 1/\n"+strings.Repeat("x", 300), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if seen[g.Dir()] || filepath.Dir(g.Dir()) != m.dir {
			t.Errorf("group in %q", g.Dir())
		}
		seen[g.Dir()] = true
	}
}

// The kernel's counts are read as they are, and what it does not have is zero.
func TestUsage(t *testing.T) {
	for _, test := range []struct {
		name   string
		limits Limits
		files  map[string]string
		want   Usage
	}{
		{"nothing", Limits{}, nil, Usage{}},
		{"time and memory", Limits{}, map[string]string{"cpu.stat": "usage_usec 1500000\n", "memory.peak": "4096\n"}, Usage{CPU: 1500 * time.Millisecond, Memory: 4096}},
		{
			"over its limit",
			Limits{Memory: 1 << 20},
			map[string]string{"memory.events": "low 0\nhigh 0\nmax 9\noom 1\noom_kill 3\noom_group_kill 1\n"},
			Usage{OOMKills: 3, OverLimit: true},
		},
		{"the host was out of memory", Limits{Memory: 1 << 20}, map[string]string{"memory.events": "oom 0\noom_kill 1\n"}, Usage{OOMKills: 1}},
		{"too many processes", Limits{PIDs: 5}, map[string]string{"pids.events": "max 7\n"}, Usage{PIDsRefused: 7}},
		{"of others above", Limits{}, map[string]string{"pids.events": "max 7\n"}, Usage{}},
		{"nonsense", Limits{PIDs: 5}, map[string]string{"pids.events": "max\n\nmax x\n", "cpu.stat": "", "memory.peak": "max\n"}, Usage{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			g, err := m.tree().New("a", test.limits)
			if err != nil {
				t.Fatal(err)
			}
			for name, text := range test.files {
				m.set("job-a/"+name, text)
			}
			got, err := g.Usage()
			if d := cmp.Diff(test.want, got); d != "" || err != nil {
				t.Errorf("%v\n%s", err, d)
			}
		})
	}
}

// A kernel that keeps no peak is asked now and then.
func TestSample(t *testing.T) {
	m := newMachine(t)
	g, err := m.tree().New("a", Limits{})
	if err != nil {
		t.Fatal(err)
	}
	m.set("job-a/memory.current", "4096\n")
	if n := g.Sample(); n != 0 {
		t.Errorf("sampled %d where the kernel keeps the peak", n)
	}
	if err := os.Remove(filepath.Join(g.Dir(), "memory.peak")); err != nil {
		t.Fatal(err)
	}
	if n := g.Sample(); n != 4096 {
		t.Errorf("sampled %d", n)
	}
	if u, err := g.Usage(); u != (Usage{}) || err != nil {
		t.Errorf("usage %+v, %v", u, err)
	}
}

// Where this process is, in the words of the kernel.
func TestLocate(t *testing.T) {
	const (
		v2     = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
		hybrid = "29 23 0:25 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n" +
			"30 29 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n31 29 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
	)
	for _, test := range []struct{ name, own, mounts, want string }{
		{"systemd", "0::/system.slice/a.service\n", v2, "/sys/fs/cgroup/system.slice/a.service"},
		{"hybrid", "5:memory:/x\n0::/a\n", hybrid, "/sys/fs/cgroup/unified/a"},
		{"a container with a namespace", "0::/\n", v2, "/sys/fs/cgroup"},
		{"a container that sees a part", "0::/docker/c/job\n", "30 23 0:26 /docker/c /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "/sys/fs/cgroup/job"},
		{"another part than it sees", "0::/docker/ca\n", "30 23 0:26 /docker/c /sys/fs/cgroup ro - cgroup2 cgroup rw\n", ""},
		{"with a space", "0::/a b\n", strings.ReplaceAll(v2, "/sys/fs/cgroup", `/sys/fs/c\040g`), "/sys/fs/c g/a b"},
		{"version 1 alone", "5:memory:/x\n", "31 29 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", ""},
		{"nothing", "", "", ""},
	} {
		if got, err := locate(test.own, test.mounts); got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %q, %v; want %q", test.name, got, err, test.want)
		}
	}
}

// Only what was delegated is taken: a group that can be written to is another's.
func TestChoose(t *testing.T) {
	m := newMachine(t)
	inner := filepath.Join(m.dir, supervisor)
	if err := m.mkdir(inner); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, in  string
		delegated string
		first     bool
		want      string
	}{
		{"its own", m.dir, m.dir, false, m.dir},
		{"after a runner that moved aside, or with DelegateSubgroup", inner, m.dir, false, m.dir},
		{"a group of that name", inner, inner, false, inner},
		{"of another", m.dir, "", false, ""},
		{"of a container", m.dir, "", true, m.dir},
	} {
		got, err := choose(test.in, test.first, func(dir string) bool { return dir == test.delegated })
		if got != test.want || (test.want == "") != errors.Is(err, ErrNone) {
			t.Errorf("%s: %q, %v; want %q", test.name, got, err, test.want)
		}
	}
}

// What others named can't make a mount of nothing, nor lead out of one.
func FuzzLocate(f *testing.F) {
	f.Add("0::/a\n", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
	f.Add("0::/../..\n", "30 23 0:26 /a /m rw - cgroup2 c rw\n")
	f.Fuzz(func(t *testing.T, own, mounts string) {
		dir, err := locate(own, mounts)
		if err == nil && !strings.Contains(mounts, "cgroup2") {
			t.Errorf("found %q without a mount", dir)
		}
	})
}

// Ids become one name each below the tree, whatever is in them.
func TestPlainNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := jobPrefix + plain(rapid.String().Draw(t, "id"))
		if filepath.Base(name) != name || len(name) > 255 || strings.Contains(name, ".") {
			t.Errorf("%q is no plain name", name)
		}
	})
}

// What a former runner left hangs in the kernel. It is waited for once, whatever there
// is of it, and stays; all others get their groups and limits.
func TestWhatDoesNotEndIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		for _, name := range []string{"job-a-1", "job-b-1", "job-c-1"} {
			if err := m.mkdir(filepath.Join(m.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"job-a-1", "job-b-1"} {
			m.set(name+"/cgroup.events", "populated 1\n")
		}
		began := time.Now()
		tree := m.tree()
		if took := time.Since(began); took < patience || took > patience+time.Second {
			t.Errorf("it took %v, want %v for all together", took, patience)
		}
		if left := tree.Remains(); len(left) != 2 || !strings.Contains(left[0].Error(), "job-a-1") || !strings.Contains(left[1].Error(), "job-b-1") {
			t.Errorf("left is %v", left)
		}
		if _, err := os.Stat(filepath.Join(m.dir, "job-c-1")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("what has ended is still there: %v", err)
		}
		if d := cmp.Diff(Controllers{Memory: true, CPU: true, PIDs: true}, tree.Controllers()); d != "" {
			t.Error(d)
		}
		g, err := tree.New("a/1", Limits{})
		if err != nil || filepath.Base(g.Dir()) == "job-a-1" {
			t.Errorf("the attempt of the same name: %v, %v", g, err)
		}
	})
}

// A tree that can't be taken is an error, and free for who comes after.
func TestTreeThatCannotBeTaken(t *testing.T) {
	m := newMachine(t)
	m.set("cgroup.procs", "1\n")
	broken := errors.New("no room for a group")
	if tree, err := take(m.dir, kernel{func(string) error { return broken }, m.rmdir}); !errors.Is(err, broken) {
		t.Fatalf("taken: %v, %v", tree, err)
	}
	m.set("cgroup.procs", "")
	m.tree()
}
