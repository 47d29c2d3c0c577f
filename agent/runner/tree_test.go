//go:build linux

package runner_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner"
)

// daemon is a shell fragment that leaves a process in a session of its own,
// whose parent is gone; it prints its pid. With "env -i" in front it has no
// environment either.
const daemon = `(%s setsid sh -c 'echo $$; exec sleep 1000' &) `

// Children that outlive the main process are ended, wherever they have gone.
func TestLeftovers(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		n            int
	}{
		{"a child in the background", "sleep 1000 & echo $!", 1},
		{"several", "for i in 1 2 3; do sleep 1000 & echo $!; done", 3},
		{"a grandchild whose parent is there", "sh -c 'echo $$; sleep 1000 & echo $!; wait' & while ! test -s %[1]s || test $(wc -l <%[1]s) -lt 2; do :; done", 2},
		{"in a process group of its own", "bash -c 'set -m; sleep 1000 & echo $!'", 1},
		{"in a session of its own", fmt.Sprintf(daemon, "") + "; while ! test -s %[1]s; do :; done", 1},
		{"without an environment", fmt.Sprintf(daemon, "env -i") + "; while ! test -s %[1]s; do :; done", 1},
		{"stopped", "sleep 1000 & echo $!; kill -STOP $!", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPlace(t)
			s := p.sh("")
			s.Argv[2] = strings.ReplaceAll(tc.script, "%[1]s", s.Output) + "; exit 3"
			e := p.wait(p.start(s))
			if e.Code != 3 || e.Leftover != tc.n || e.Killed || e.TimedOut || !strings.Contains(e.Reason, "outlived the main process") {
				t.Errorf("exit %+v, want code 3 and %d leftover", e, tc.n)
			}
			p.gone(p.pids(s, tc.n)...)
		})
	}
}

// What outlives the main process and will not hear SIGTERM gets SIGKILL.
func TestStubbornLeftover(t *testing.T) {
	p := newPlace(t)
	s := p.sh("")
	s.Argv[2] = "(trap '' TERM; exec sleep 1000) & echo $!; while ! grep -q sleep /proc/$!/comm; do :; done"
	s.KillGrace = 20 * time.Millisecond
	e := p.wait(p.start(s))
	if e.Code != 0 || e.Leftover != 1 || e.Finished.Sub(e.Started) < s.KillGrace {
		t.Errorf("exit %+v", e)
	}
	p.gone(p.pids(s, 1)...)
}

// What has ended by itself, waited for by nobody, is no leftover.
func TestZombiesAreNoLeftover(t *testing.T) {
	p := newPlace(t)
	gates := [2]string{filepath.Join(p.dir, "child"), filepath.Join(p.dir, "main")}
	for _, gate := range gates {
		if err := syscall.Mkfifo(gate, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// cat waits for no child, but the shell does: the child must end after exec.
	s := p.sh(fmt.Sprintf("(read x <%s) & echo $!; exec cat %s", gates[0], gates[1]))
	proc := p.start(s)
	child := p.pids(s, 1)[0]
	p.until("exec", func() bool { return p.read(fmt.Sprintf("/proc/%d/comm", proc.PID())) == "cat\n" })
	for i, gate := range gates {
		if err := os.WriteFile(gate, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			p.until("the child to end", func() bool { return p.isZombie(child) })
		}
	}
	e := p.wait(proc)
	p.gone(child)
	if e.Code != 0 || e.Leftover != 0 || e.Reason != "" {
		t.Errorf("exit %+v", e)
	}
}

// A kill reaches the whole tree, also what has left the session, with its
// parent gone or not, and what has thrown its environment away.
func TestKillReachesTheWholeTree(t *testing.T) {
	for _, grace := range []time.Duration{0, 10 * time.Second} {
		p := newPlace(t)
		s := p.sh("echo $$; sleep 1000 & echo $!; env -i setsid sh -c 'echo $$; sleep 1000' & " + fmt.Sprintf(daemon, "") + "; wait")
		proc := p.start(s)
		pids := p.pids(s, 4)
		// Another attempt is none of its business.
		other := p.start(p.sh("exec sleep 1000"))
		proc.Kill(grace)
		e := p.wait(proc)
		want, why := "SIGTERM", "killed on request, ended after SIGTERM"
		if grace == 0 {
			want, why = "SIGKILL", "killed on request, ended with SIGKILL"
		}
		if e.Signal != want || !e.Killed || e.TimedOut || e.Leftover != 0 || e.Reason != why {
			t.Errorf("grace %v: exit %+v", grace, e)
		}
		p.gone(pids...)
		select {
		case <-other.Done():
			t.Error("another attempt was ended too")
		default:
		}
	}
}

func TestTermIsHeard(t *testing.T) {
	p := newPlace(t)
	s := p.sh("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.01; done")
	proc := p.start(s)
	p.lines(s, 1)
	proc.Kill(time.Hour)
	e := p.wait(proc)
	if e.Code != 7 || e.Signal != "" || !e.Killed || e.Reason != "killed on request, ended after SIGTERM" {
		t.Errorf("exit %+v", e)
	}
	if got := p.read(s.Output); !strings.Contains(got, "bye") {
		t.Errorf("output %q", got)
	}
}

const deaf = "trap '' TERM; echo up; while :; do sleep 0.01; done"

func TestKillAfterGrace(t *testing.T) {
	p := newPlace(t)
	s := p.sh(deaf)
	proc := p.start(s)
	p.lines(s, 1)
	began := time.Now()
	proc.Kill(50 * time.Millisecond)
	e := p.wait(proc)
	if e.Signal != "SIGKILL" || e.Code != 137 || e.Finished.Sub(began) < 50*time.Millisecond ||
		e.Reason != "killed on request, did not end after SIGTERM and was ended with SIGKILL" {
		t.Errorf("exit %+v", e)
	}
}

// A later, shorter grace wins; a longer one, and a kill after the end, change
// nothing.
func TestShorterGraceWins(t *testing.T) {
	p := newPlace(t)
	s := p.sh(deaf)
	proc := p.start(s)
	p.lines(s, 1)
	proc.Kill(time.Hour)
	proc.Kill(2 * time.Hour)
	proc.Kill(time.Millisecond)
	proc.Kill(time.Hour)
	e := p.wait(proc)
	if e.Signal != "SIGKILL" || !e.Killed {
		t.Errorf("exit %+v", e)
	}
	proc.Kill(0)
	proc.Kill(time.Hour)
	if again := proc.Exit(); again != e {
		t.Errorf("exit was %+v and is %+v", e, again)
	}
}

// A kill as soon as there is anything to kill, from many sides.
func TestKillAtOnce(t *testing.T) {
	p := newPlace(t)
	for i := range 50 {
		proc := p.start(p.sh("sleep 1000 & sleep 1000"))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { proc.Kill(time.Duration(i%2) * time.Second) })
		}
		wg.Wait()
		if e := p.wait(proc); !e.Killed || e.Signal == "" {
			t.Fatalf("exit %+v", e)
		}
	}
}

func TestTimeout(t *testing.T) {
	for _, tc := range []struct {
		name, script, signal, reason string
	}{
		{"ends when told", "exec sleep 1000", "SIGTERM", "timed out after 50ms, ended after SIGTERM"},
		{"ends when made", "exec sleep 1000", "SIGKILL", "timed out after 50ms, did not end after SIGTERM and was ended with SIGKILL"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPlace(t)
			s := p.sh(tc.script)
			s.Timeout, s.KillGrace = 50*time.Millisecond, 100*time.Millisecond
			if tc.signal == "SIGTERM" {
				s.KillGrace = time.Hour
			} else { // what is ignored here is ignored there from the first moment
				signal.Ignore(syscall.SIGTERM)
				defer heed(syscall.SIGTERM)
			}
			e, _ := p.run(s)
			if !e.TimedOut || e.Killed || e.Signal != tc.signal || e.Finished.Sub(e.Started) < s.Timeout {
				t.Errorf("exit %+v", e)
			}
			if e.Reason != tc.reason {
				t.Errorf("reason %q, want %q", e.Reason, tc.reason)
			}
		})
	}
	p := newPlace(t)
	s := p.sh("exit 4")
	s.Timeout = time.Hour
	if e, _ := p.run(s); e.TimedOut || e.Code != 4 {
		t.Errorf("in time: exit %+v", e)
	}
}

// heed undoes signal.Ignore, which signal.Reset does not.
func heed(s os.Signal) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, s)
	signal.Stop(c)
}

// Orphans that end while their attempt goes on leave no zombie behind.
func TestOrphansAreReapedMeanwhile(t *testing.T) {
	p := newPlace(t)
	s := p.sh("(setsid sh -c 'echo $$' &); echo $$; exec sleep 1000")
	proc := p.start(s)
	var orphan int
	for _, pid := range p.pids(s, 2) {
		if pid != proc.PID() {
			orphan = pid
		}
	}
	p.until("the orphan to be reaped", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", orphan))
		return err != nil
	})
	proc.Kill(0)
	if e := p.wait(proc); e.Leftover != 0 {
		t.Errorf("exit %+v", e)
	}
}

// An orphan that gives no hint whose it is goes with the last attempt that it
// can belong to, and no earlier.
func TestOrphanOfUnknownOwner(t *testing.T) {
	p := newPlace(t)
	other := p.start(p.sh("exec sleep 1000"))
	s := p.sh("")
	s.Argv[2] = fmt.Sprintf(daemon, "env -i") + "; while ! test -s " + s.Output + "; do :; done"
	if e := p.wait(p.start(s)); e.Leftover != 0 {
		t.Errorf("an orphan that may be another's was ended: %+v", e)
	}
	orphan := p.pids(s, 1)
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", orphan[0])); err != nil {
		t.Fatal(err)
	}
	other.Kill(0)
	p.wait(other)
	p.gone(orphan...)
}

// Thousands of attempts, some with orphans, leave neither zombies nor open
// files, and each gets its own exit code: nobody steals another's.
func TestManyQuickStarts(t *testing.T) {
	p := newPlace(t)
	p.run(p.spec("true")) // whatever is opened once is open now
	files := len(p.files())
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 250 {
				code := (w*250 + i) % 200
				script := "exit " + strconv.Itoa(code)
				if i%10 == 0 {
					script = "(setsid true &); " + script
				}
				proc, err := p.runner.Start(p.sh(script))
				if err != nil {
					t.Error(err)
					return
				}
				if e := p.wait(proc); e.Code != code || e.Signal != "" {
					t.Errorf("exit %+v, want code %d", e, code)
				}
			}
		})
	}
	wg.Wait()
	if now := len(p.files()); now > files {
		t.Errorf("%d open files, were %d: %v", now, files, p.files())
	}
	if kids := p.childrenOf(os.Getpid()); len(kids) > 0 {
		t.Errorf("children left: %v", kids)
	}
}

func (p place) files() []string {
	p.Helper()
	names, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		p.Fatal(err)
	}
	return names
}

func (p place) isZombie(pid int) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return strings.Contains(string(b), "State:\tZ")
}

func (p place) childrenOf(pid int) (kids []string) {
	p.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil || len(lists) == 0 {
		p.Fatal("no list of children", err)
	}
	for _, l := range lists {
		b, _ := os.ReadFile(l) // a thread may end meanwhile, childless
		kids = append(kids, strings.Fields(string(b))...)
	}
	return kids
}

func TestUsage(t *testing.T) {
	p := newPlace(t)
	// The shell's own work, and that of an orphan which ends before it does.
	e, _ := p.run(p.sh("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"))
	if e.CPUTime < time.Millisecond || e.CPUTime > time.Minute {
		t.Errorf("CPU time %v", e.CPUTime)
	}
	// Larger than this test ever was, so that it shows.
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		t.Fatal(err)
	}
	size := self.Maxrss<<10 + 100<<20
	e, _ = p.run(p.spec("dd", "if=/dev/zero", "of=/dev/null", fmt.Sprint("bs=", size), "count=1"))
	if e.MaxRSS < size || e.MaxRSS > size+100<<20 {
		t.Errorf("peak RSS %d of a process that has %d at least", e.MaxRSS, size)
	}
	// A small one isn't said to be as large as its parent.
	room := make([]byte, 64<<20)
	for i := range room {
		room[i] = 1
	}
	if e, _ = p.run(p.spec("true")); e.MaxRSS > 8<<20 {
		t.Errorf("peak RSS of true: %d, beside %d of this process", e.MaxRSS, len(room))
	}
}

// Somebody else in this process may start and wait for processes too, if not in
// sessions of their own.
func TestOthersChildrenAreLeftAlone(t *testing.T) {
	p := newPlace(t)
	cmd := exec.Command("/bin/sh", "-c", "read x; exit 5")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if e := p.wait(p.start(p.sh("sleep 1000 & exit 0"))); e.Leftover != 1 {
		t.Errorf("exit %+v", e)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	p.until("it to be a zombie", func() bool { return p.isZombie(cmd.Process.Pid) })
	if e := p.wait(p.start(p.sh("sleep 1000 & exit 0"))); e.Leftover != 1 {
		t.Errorf("exit %+v", e)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 5 {
		t.Errorf("its status was stolen: %v", err)
	}
}

// The next life of an agent finds what the last one left of an attempt, and
// only that.
func TestEndStrays(t *testing.T) {
	p := newPlace(t)
	out := filepath.Join(p.dir, "strays")
	run := fmt.Sprintf("stray-%d", os.Getpid())
	env := func(attempt int, worker string) []string {
		return []string{"PATH=" + runner.DefaultPath, "SCHEDD_RUN_ID=" + run, fmt.Sprintf("SCHEDD_ATTEMPT=%d", attempt), "SCHEDD_WORKER=" + worker}
	}
	// An earlier life: it starts processes for two attempts and is gone. And
	// another worker on this host, of another cluster.
	life := func(attempt int, worker string) {
		cmd := exec.Command("/bin/sh", "-c", "(setsid sh -c 'echo $$; env -i sleep 1000' >>"+out+" 2>/dev/null </dev/null &)\n"+
			"(env -i setsid sh -c 'echo $$; exec sleep 1000' >>"+out+".unmarked 2>/dev/null </dev/null &)") // has no mark, and no parent that has one
		cmd.Env = env(attempt, worker)
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
	}
	life(1, "w-1")
	first := p.pids(runner.Spec{Output: out}, 1)[0]
	life(12, "w-1")
	second := p.pids(runner.Spec{Output: out}, 2)[1]
	life(1, "w-2")
	others := p.pids(runner.Spec{Output: out}, 3)[2]
	p.until("the strays to have children", func() bool {
		return len(p.childrenOf(first)) == 1 && len(p.childrenOf(second)) == 1 && len(p.childrenOf(others)) == 1
	})
	unmarked := p.pids(runner.Spec{Output: out + ".unmarked"}, 3)
	script := filepath.Join(p.dir, "schedd-script-"+run+"-1-4711")
	if err := os.WriteFile(script, nil, 0o700); err != nil {
		t.Fatal(err)
	}

	if n, err := p.runner.EndStrays(run+"/1", env(1, "w-1")); n != 2 || err != nil {
		t.Errorf("ended %d, %v; want 2", n, err)
	}
	if n, err := p.runner.EndStrays(run+"/1", env(1, "w-1")); n != 0 || err != nil {
		t.Errorf("once more: ended %d, %v", n, err)
	}
	p.noScripts()
	if len(p.childrenOf(second)) != 1 {
		t.Error("the other attempt was ended too")
	}
	if len(p.childrenOf(others)) != 1 {
		t.Error("the other worker's attempt was ended too")
	}
	if n, err := p.runner.EndStrays(run+"/1", env(1, "w-2")); n != 2 || err != nil {
		t.Errorf("the other worker ended %d, %v; want 2", n, err)
	}
	for _, pid := range unmarked {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Errorf("what has thrown its environment away can't be told to be of the attempt, and is gone: %v", err)
		}
	}
	if n, err := p.runner.EndStrays(run+"/12", env(12, "w-1")); n != 2 || err != nil {
		t.Errorf("ended %d, %v; want 2", n, err)
	}
	p.run(p.spec("true"))
	p.until("the zombies to be reaped", func() bool {
		p.run(p.sh("true & exit"))
		return len(p.childrenOf(os.Getpid())) == 0
	})
}
