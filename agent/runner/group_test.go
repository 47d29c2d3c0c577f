//go:build linux

package runner_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/cgroup"
	"github.com/schedd/schedd/agent/runner/cgroup/cgrouptest"
	"github.com/schedd/schedd/agent/runner/policy"
)

// grouped is a place where each attempt has a control group.
type grouped struct {
	place
	tree *cgroup.Tree
}

func newGrouped(t *testing.T) grouped {
	t.Helper()
	g := grouped{newPlace(t), cgrouptest.Take(t)}
	g.runner = runner.New(runner.Options{TempDir: g.dir, Groups: g.tree, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if e, _ := g.runner.Enforcement(); e.Tree != runner.MeansCgroupV2 {
		t.Skip("processes can't be started in control groups here:", e.Note)
	}
	return g
}

// groups are those of attempts that are there.
func (g grouped) groups() []string {
	g.Helper()
	all, err := filepath.Glob(filepath.Join(g.tree.Dir(), "job-*"))
	if err != nil {
		g.Fatal(err)
	}
	return all
}

// An attempt is in a group of its own from its first instruction on, and the group
// goes with it.
func TestGroupOfAnAttempt(t *testing.T) {
	g := newGrouped(t)
	s := g.sh("cat /proc/self/cgroup; while test $((i += 1)) -lt 20000; do :; done")
	e, out := g.run(s)
	want := "/job-" + strings.ReplaceAll(s.ID, "/", "-") + "\n"
	if e.Code != 0 || !strings.Contains(out, want) {
		t.Errorf("exit %+v, in %q, want %q", e, out, want)
	}
	if e.CPUTime <= 0 || e.Reason != "" {
		t.Errorf("exit %+v", e)
	}
	if left := g.groups(); left != nil {
		t.Errorf("left: %v", left)
	}
}

// What could not be started leaves no group.
func TestNoGroupWithoutAProcess(t *testing.T) {
	g := newGrouped(t)
	for _, argv := range []string{"/no/such/program", "/etc/passwd"} {
		if _, err := g.runner.Start(g.spec(argv)); err == nil {
			t.Errorf("%s was started", argv)
		}
	}
	if left := g.groups(); left != nil {
		t.Errorf("left: %v", left)
	}
}

// A process that has left its session, has no parent and no environment can't be told
// from that of another attempt by /proc. By its group it can: it is ended with its own
// attempt, while another one runs.
func TestGroupTellsWhoseAProcessIs(t *testing.T) {
	g := newGrouped(t)
	other := g.start(g.sh("exec sleep 1000"))
	s := g.sh("")
	s.Argv[2] = fmt.Sprintf(daemon, "env -i") + "; while ! test -s " + s.Output + "; do :; done; exit 3"
	e := g.wait(g.start(s))
	if e.Code != 3 || e.Leftover != 1 {
		t.Errorf("exit %+v, want code 3 and one leftover", e)
	}
	g.gone(g.pids(s, 1)...)
	select {
	case <-other.Done():
		t.Error("another attempt was ended too")
	default:
	}
}

// Attempts begin and end while it is looked whose the orphans of others are. Each
// leaves one that counts, whoever reaps it; and the race detector has to find nothing.
func TestStartsBesideOrphans(t *testing.T) {
	g := newGrouped(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				s := g.sh("(setsid true &); (setsid sleep 1000 &); :")
				proc, err := g.runner.Start(s)
				if err != nil {
					t.Error(err)
					return
				}
				<-proc.Done()
				if e := proc.Exit(); e.Code != 0 || e.Leftover == 0 {
					t.Errorf("exit %+v", e)
				}
			}
		})
	}
	wg.Wait()
	if left := g.groups(); left != nil {
		t.Errorf("left: %v", left)
	}
}

// A kill ends whatever the tree has become, groups within the group too.
func TestKillEndsTheGroup(t *testing.T) {
	for _, grace := range []time.Duration{0, time.Hour} {
		g := newGrouped(t)
		s := g.sh("echo $$; env -i setsid sh -c 'echo $$; sleep 1000' & " + fmt.Sprintf(daemon, "env -i") + "; wait")
		proc := g.start(s)
		pids := g.pids(s, 3)
		inner := filepath.Join(g.groups()[0], "inner")
		if err := os.Mkdir(inner, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(inner, "cgroup.procs"), fmt.Append(nil, pids[2]), 0); err != nil {
			t.Fatal(err)
		}
		proc.Kill(grace)
		if e := g.wait(proc); !e.Killed || e.Leftover != 0 {
			t.Errorf("grace %v: exit %+v", grace, e)
		}
		g.gone(pids...)
		if left := g.groups(); left != nil {
			t.Errorf("left: %v", left)
		}
	}
}

// A limit that can't be kept keeps the attempt from being started, be it the job's or
// the host's own.
func TestLimitsThatCantBeKept(t *testing.T) {
	p := newPlace(t)
	p.runner = runner.New(runner.Options{TempDir: p.dir, NoGroups: "this is a test"})
	s := p.spec("/bin/true")
	s.Limits = runner.Limits{Memory: 1 << 30, PIDs: 10}
	_, err := p.runner.Start(s)
	if !errors.Is(err, runner.ErrUnenforced) || !strings.Contains(err.Error(), "can't be kept here: memory, pids (this is a test)") {
		t.Errorf("err %v", err)
	}
	strict := policy.Policy{MaxLimits: runner.Limits{CPUMillis: 1000}}
	p = governed(t, strict, nil)
	if _, err := p.runner.Start(p.spec("/bin/true")); !errors.Is(err, runner.ErrUnenforced) || !strings.Contains(err.Error(), "cpus") {
		t.Errorf("by policy: %v", err)
	}
}

// limited returns a place where all limits can be kept.
func limited(t *testing.T) grouped {
	t.Helper()
	g := newGrouped(t)
	if c := g.tree.Controllers(); c != (cgroup.Controllers{Memory: true, CPU: true, PIDs: true}) {
		t.Skip("needs the controllers memory, cpu and pids:", g.tree.Note())
	}
	return g
}

// A job that needs more memory than its limit is ended whole, and told why.
func TestOverTheMemoryLimit(t *testing.T) {
	g := limited(t)
	s := g.sh("sleep 1000 & echo $!; ulimit -v 4000000; exec tail /dev/zero") // which looks for the end of a line
	s.Limits.Memory = 32 << 20
	e := g.wait(g.start(s))
	if e.Signal != "SIGKILL" || e.Killed || !strings.Contains(e.Reason, "ended by the kernel: the job was at its memory limit of 32 MiB") {
		t.Errorf("exit %+v", e)
	}
	if e.MaxRSS < 16<<20 || e.MaxRSS > 33<<20 {
		t.Errorf("%d bytes at the most, of 32 MiB", e.MaxRSS)
	}
	g.gone(g.pids(s, 1)...)
}

// One that makes more processes than its limit is told how often it could not.
func TestOverThePIDsLimit(t *testing.T) {
	g := limited(t)
	s := g.sh("for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; :")
	s.Limits.PIDs = 4
	e := g.wait(g.start(s))
	if !strings.Contains(e.Reason, ": its limit is 4") || e.Leftover > 3 {
		t.Errorf("exit %+v", e)
	}
}

// What the kernel was told for the group is what was asked for; a job within its
// limits is told nothing.
func TestWithinTheLimits(t *testing.T) {
	g := limited(t)
	s := g.sh("cd " + g.tree.Dir() + "/job-* && cat memory.max memory.swap.max memory.oom.group cpu.max pids.max 2>/dev/null")
	s.Limits = runner.Limits{Memory: 256 << 20, CPUMillis: 500, PIDs: 64}
	e, out := g.run(s)
	want := []string{"268435456", "0", "1", "50000 100000", "64"}
	if got := strings.Split(strings.TrimSpace(out), "\n"); e.Reason != "" || strings.Join(got, ",") != strings.Join(want, ",") {
		t.Errorf("exit %+v, files %q, want %q", e, got, want)
	}
}
