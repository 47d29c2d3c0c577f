//go:build unix

package runner_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/policy"
)

// governed returns a place whose runner has a policy.
func governed(t *testing.T, allowed policy.Policy, err error) place {
	p := newPlace(t)
	p.runner = runner.New(runner.Options{TempDir: p.dir, Policy: func() (policy.Policy, error) { return allowed, err }})
	return p
}

// What the policy of a host does not allow is refused with a sentence, and leaves
// nothing behind; what it allows runs.
func TestPolicy(t *testing.T) {
	mine, home := me(t).Username, me(t).HomeDir
	p := governed(t, policy.Policy{Users: []string{mine}, Programs: []string{"/bin/true", "/usr/bin/env", "/bin/echo"}, Env: []string{"A"}}, nil)
	link := filepath.Join(p.dir, "true")
	if err := os.Symlink("/bin/sh", link); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*runner.Spec)
		want   string // empty: it runs
	}{
		"allowed":              {func(*runner.Spec) {}, ""},
		"found in PATH":        {func(s *runner.Spec) { s.Argv, s.Env = []string{"env"}, []string{"PATH=" + runner.DefaultPath} }, ""},
		"another program":      {func(s *runner.Spec) { s.Argv = []string{"/bin/ls"} }, `does not let "/bin/ls" be started`},
		"by a detour":          {func(s *runner.Spec) { s.Argv = []string{"/bin/../bin/true"} }, ""},
		"by a relative detour": {func(s *runner.Spec) { s.Argv, s.Dir = []string{"./sh"}, "/bin" }, `"/bin/sh"`},
		"one of the same name": {func(s *runner.Spec) { s.Argv, s.Dir = []string{"./true"}, p.dir }, link},
		"by another PATH":      {func(s *runner.Spec) { s.Argv, s.Env = []string{"true"}, []string{"PATH=" + p.dir} }, `variable "PATH"`},
		"a script":             {func(s *runner.Spec) { s.Argv, s.Script = nil, "exit 0" }, `"/bin/sh"`},
		"a script of another":  {func(s *runner.Spec) { s.Argv, s.Script = nil, "#!/usr/bin/perl\n" }, `"/usr/bin/perl"`},
		"a script of ours":     {func(s *runner.Spec) { s.Argv, s.Script, s.Interpreter = nil, "x", []string{"/bin/echo"} }, ""},
		"another user":         {func(s *runner.Spec) { s.User = other }, `as user "daemon", only as ` + mine},
		"a variable":           {func(s *runner.Spec) { s.Env = append(s.Env, "A=1") }, ""},
		"a home of its own":    {func(s *runner.Spec) { s.Env = append(s.Env, "HOME="+home) }, ""},
		"another home":         {func(s *runner.Spec) { s.Env = append(s.Env, "HOME=/tmp/evil") }, `"HOME"`},
		"two homes":            {func(s *runner.Spec) { s.Env = append(s.Env, "HOME="+home, "HOME=/tmp/evil") }, `"HOME"`},
		"another shell":        {func(s *runner.Spec) { s.Env = append(s.Env, "SHELL=/tmp/evil") }, `"SHELL"`},
		"another name":         {func(s *runner.Spec) { s.Env = append(s.Env, "LOGNAME=evil") }, `"LOGNAME"`},
		"another variable":     {func(s *runner.Spec) { s.Env = append(s.Env, "LD_PRELOAD=/tmp/x") }, `"LD_PRELOAD"`},
	} {
		if os.Geteuid() != 0 && strings.Contains(name, "user") {
			continue // only root gets so far
		}
		s := p.spec("/bin/true")
		test.change(&s)
		proc, err := p.runner.Start(s)
		if err == nil {
			p.wait(proc)
		}
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	p.noScripts()
}

// A policy that can't be read allows nothing, which is no job's fault. What one that can be
// read does not allow is.
func TestUnreadablePolicy(t *testing.T) {
	broken := errors.New("line 3: what is this")
	p := governed(t, policy.Policy{}, broken)
	if _, err := p.runner.Start(p.spec("/bin/true")); !errors.Is(err, broken) || !errors.Is(err, runner.ErrUnable) {
		t.Errorf("it says %v", err)
	}
	if err := p.runner.Probe(); !errors.Is(err, broken) {
		t.Errorf("a probe says %v", err)
	}
	p = governed(t, policy.Policy{Programs: []string{}}, nil)
	if _, err := p.runner.Start(p.spec("/bin/true")); err == nil || errors.Is(err, runner.ErrUnable) {
		t.Errorf("one that allows nothing says %v", err)
	}
	if err := p.runner.Probe(); err != nil {
		t.Errorf("a probe with it says %v", err)
	}
}

// Who names nobody runs as whom the policy says, at home there; nothing runs longer
// than it says.
func TestPolicyNarrows(t *testing.T) {
	needRoot(t)
	p := governed(t, policy.Policy{Users: []string{}, DefaultUser: other, MaxTimeout: 100 * time.Millisecond}, nil)
	s := p.sh(`id -un; echo "$HOME $USER"; exec sleep 1000`)
	s.Timeout = time.Hour
	e, got := p.run(s)
	if want := "daemon\n/usr/sbin daemon\n"; got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
	if !e.TimedOut || !strings.Contains(e.Reason, "timed out after 50ms") { // the other half is its grace's
		t.Errorf("it ended as %+v", e)
	}
	s = p.sh("true")
	s.User = "root"
	if _, err := p.runner.Start(s); err == nil || !strings.Contains(err.Error(), "only as daemon") {
		t.Errorf("root: %v", err)
	}
}

// What does not heed SIGTERM is over by max_timeout as well, however long its job, or who asks
// for its end, would spare it.
func TestPolicyEndsWhatIsDeaf(t *testing.T) {
	const deaf = "trap '' TERM; echo deaf; "
	const waits = "while :; do sleep 1; done"
	for name, test := range map[string]struct {
		script string
		kill   bool
		ends   func(runner.Exit) bool
		whole  bool // it is spared until max_timeout
	}{
		"its time is over":  {deaf + waits, false, func(e runner.Exit) bool { return e.TimedOut && e.Signal == "SIGKILL" }, true},
		"it is killed":      {deaf + waits, true, func(e runner.Exit) bool { return e.Killed && e.Signal == "SIGKILL" }, true},
		"it leaves a child": {"(" + deaf + waits + ") & exit 0", false, func(e runner.Exit) bool { return e.Code == 0 && e.Leftover > 0 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for most := 2 * time.Second; ; most *= 2 {
				p := governed(t, policy.Policy{MaxTimeout: most}, nil)
				s := p.sh(test.script)
				s.KillGrace = 1<<63 - 1
				proc := p.start(s)
				if test.kill {
					p.lines(s, 1)
					proc.Kill(1<<63 - 1)
				}
				e := p.wait(proc)
				if p.read(s.Output) == "" || test.kill && !e.Killed {
					if most >= 64*time.Second {
						t.Fatalf("with at most %v it was not deaf in time, and ended as %+v", most, e)
					}
					continue // on a machine that is as busy as that
				}
				if took := e.Finished.Sub(e.Started); !test.ends(e) || test.whole && took < most {
					t.Errorf("with at most %v it ended after %v as %+v", most, took, e)
				}
				return
			}
		})
	}
}
