//go:build unix

package runner_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/schedd/schedd/agent/runner"
)

// How a process ends by itself is reported as it was.
func TestExit(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		want         runner.Exit
	}{
		{"success", "exit 0", runner.Exit{}},
		{"a code", "exit 75", runner.Exit{Code: 75}},
		{"the largest code", "exit 255", runner.Exit{Code: 255}},
		{"a signal", "ulimit -c 0; kill -SEGV $$", runner.Exit{Code: 139, Signal: "SIGSEGV", Reason: "ended by SIGSEGV"}},
		{
			"SIGKILL from elsewhere", "kill -KILL $$",
			runner.Exit{Code: 137, Signal: "SIGKILL", Reason: "ended by SIGKILL, which the worker did not send: the kernel does when memory runs out"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPlace(t)
			got, _ := p.run(p.sh(tc.script))
			if got.Started.IsZero() || got.Finished.Before(got.Started) {
				t.Errorf("started %v, finished %v", got.Started, got.Finished)
			}
			got.Started, got.Finished, got.CPUTime, got.MaxRSS = time.Time{}, time.Time{}, 0, 0
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestExitIsZeroUntilDone(t *testing.T) {
	p := newPlace(t)
	proc := p.start(p.sh("exec sleep 1000"))
	if e := proc.Exit(); e != (runner.Exit{}) {
		t.Errorf("a running process has ended with %+v", e)
	}
	proc.Kill(0)
	if e := p.wait(proc); !e.Killed {
		t.Errorf("exit %+v", e)
	}
}

// Both streams are one file, so what was written first comes first, and it comes
// after what the file had before.
func TestOutputOrder(t *testing.T) {
	p := newPlace(t)
	s := p.sh("for i in 1 2 3; do echo out $i; echo err $i >&2; done")
	if err := os.WriteFile(s.Output, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, got := p.run(s)
	if want := "before\nout 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n"; got != want {
		t.Errorf("output %q, want %q", got, want)
	}
}

// me is the user that runs this test.
func me(t *testing.T) *user.User {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// A process sees the environment that it was given, in that order, what a login adds
// unless that is given, and no more.
func TestEnvironmentIsExact(t *testing.T) {
	t.Setenv("SCHEDD_AGENT_SECRET", "not for jobs")
	p := newPlace(t)
	for _, env := range [][]string{{"B=2", "A=1", "EMPTY=", "SPACE=a b=c", "UTF=ö", "SHELL=x"}, {"SHELL=x"}} {
		s := p.spec("/usr/bin/env")
		s.Env = env
		_, got := p.run(s)
		var want string
		for _, kv := range append(env, "HOME="+me(t).HomeDir, "USER="+me(t).Username, "LOGNAME="+me(t).Username) {
			want += kv + "\n"
		}
		if got != want {
			t.Errorf("environment %q, want %q", got, want)
		}
	}
}

func TestStdin(t *testing.T) {
	p := newPlace(t)
	s := p.spec("cat")
	if _, got := p.run(s); got != "" {
		t.Errorf("/dev/null held %q", got)
	}
	// Whatever one does with it, the next one is given nothing, too, and can't write to it.
	for range 2 {
		if _, got := p.run(p.sh("cat; echo x >&0; exec 0<&-")); strings.Contains(got, "x\n") || !strings.Contains(got, "rror") {
			t.Errorf("from, and to, /dev/null: %q", got)
		}
	}
	// More than any pipe holds, and read only after a while.
	s = p.sh("read -r first; echo \"$first\"; exec cat")
	s.Stdin = append([]byte("first line\n"), bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)...)
	if _, got := p.run(s); got != string(s.Stdin) {
		t.Errorf("read %d bytes, want the %d that were given", len(got), len(s.Stdin))
	}
	// A process that doesn't read it ends all the same.
	s = p.spec("true")
	s.Stdin = make([]byte, 1<<20)
	if e, _ := p.run(s); e.Code != 0 {
		t.Errorf("exit %+v", e)
	}
}

func TestScript(t *testing.T) {
	for _, tc := range []struct {
		name   string
		script string
		interp []string
		code   int
		want   string
	}{
		{"the default stops at the first error", "echo a\nfalse\necho b\n", nil, 1, "a\n"},
		{"an interpreter", "echo a\nfalse\necho b\n", []string{"sh"}, 0, "a\nb\n"},
		{"its arguments", "echo $-", []string{"/bin/sh", "-u"}, 0, "u\n"},
		{"a #! line wins", "#!/bin/sh\nfalse\necho b\n", []string{"/bin/false"}, 0, "b\n"},
		{"a #! line with spaces and arguments", "#! /usr/bin/env  sh\nfalse\necho b", nil, 0, "b\n"},
		{"a large one", strings.Repeat("# a comment\n", 1<<16) + "echo end", nil, 0, "end\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPlace(t)
			s := p.spec()
			s.Script, s.Interpreter = tc.script, tc.interp
			e, got := p.run(s)
			if e.Code != tc.code || got != tc.want {
				t.Errorf("code %d and output %q, want %d and %q (%s)", e.Code, got, tc.code, tc.want, e.Reason)
			}
			p.noScripts()
		})
	}
}

// noScripts fails when the file of a script was left behind.
func (p place) noScripts() {
	p.Helper()
	if left, _ := filepath.Glob(filepath.Join(p.dir, "schedd-*")); len(left) > 0 {
		p.Errorf("left behind: %v", left)
	}
}

// A script often holds what others should not read.
func TestScriptIsPrivate(t *testing.T) {
	p := newPlace(t)
	s := p.spec()
	s.Script = "stat -c %a \"$0\"; test -s \"$0\" && echo readable"
	if _, got := p.run(s); got != "700\nreadable\n" {
		t.Errorf("mode and presence: %q", got)
	}
	p.noScripts()
}

// ignored returns the signals that this process was started to ignore, as nohup
// does with SIGHUP. Its children ignore them too: whoever starts an agent so
// means that, and a Go program can't undo it.
func ignored(t *testing.T) string {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(status), "SigIgn:")
	if !ok {
		t.Fatalf("/proc/self/status without SigIgn: %s", status)
	}
	return strings.Fields(after)[0]
}

// Where a process starts in, and what it inherits, is the same wherever the
// agent was started from.
func TestSurroundings(t *testing.T) {
	t.Chdir(t.TempDir())
	p := newPlace(t)
	s := p.sh("pwd; umask; grep -E '^Sig(Blk|Ign)' /proc/self/status; ps -o tty= -p $$")
	_, got := p.run(s)
	want := []string{me(t).HomeDir, "0022", "SigBlk:", "0000000000000000", "SigIgn:", ignored(t), "?"}
	if d := cmp.Diff(want, strings.Fields(got)); d != "" {
		t.Error(d)
	}
	s = p.sh("pwd")
	s.Dir = p.dir
	if _, got := p.run(s); got != p.dir+"\n" {
		t.Errorf("started in %q, want %q", got, p.dir)
	}
}

func TestProgramIsLookedUp(t *testing.T) {
	p := newPlace(t)
	tool := filepath.Join(p.dir, "tool")
	if err := os.WriteFile(tool, []byte("#!/bin/sh\necho $0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, program, path, want string }{
		{"in PATH of Env", "tool", "PATH=/nowhere:" + p.dir, tool},
		{"relative to Dir", "./tool", "PATH=", "./tool"},
		{"an empty element of PATH is Dir", "tool", "PATH=:/bin", "./tool"},
	} {
		s := p.spec(tc.program)
		s.Dir, s.Env = p.dir, []string{tc.path}
		if _, got := p.run(s); got != tc.want+"\n" {
			t.Errorf("%s: ran %q, want %q", tc.name, got, tc.want)
		}
	}
	s := p.spec("true")
	s.Env = nil
	if e, _ := p.run(s); e.Code != 0 {
		t.Errorf("without PATH: %+v", e)
	}
}

// Whatever is missing is named, with what to do about it, and nothing is left.
func TestStartErrors(t *testing.T) {
	p := newPlace(t)
	file := func(name, content string, mode fs.FileMode) string {
		path := filepath.Join(p.dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := file("plain", "echo hello\n", 0o644)
	lost := file("lost", "#!/no/such/interpreter -x\n", 0o755)
	dos := file("dos", "#!/bin/sh\r\necho\r\n", 0o755)
	garbage := file("garbage", "\x01\x02\x03", 0o755)

	for _, tc := range []struct {
		name string
		spec func(*runner.Spec)
		want []string
		is   error
	}{
		{"not in PATH", func(s *runner.Spec) { s.Argv = []string{"no-such-program"} }, []string{`"no-such-program"`, "not found in PATH=/usr/local/sbin"}, fs.ErrNotExist},
		{"not executable in PATH", func(s *runner.Spec) { s.Argv = []string{"plain"}; s.Env = []string{"PATH=" + p.dir} }, []string{plain, "not an executable file"}, fs.ErrPermission},
		{"no such file", func(s *runner.Spec) { s.Argv = []string{"/no/such/program"} }, []string{`"/no/such/program"`, "no such file"}, fs.ErrNotExist},
		{"not executable", func(s *runner.Spec) { s.Argv = []string{plain} }, []string{plain, "not executable", "chmod +x"}, fs.ErrPermission},
		{"a directory", func(s *runner.Spec) { s.Argv = []string{p.dir} }, []string{p.dir, "is a directory"}, fs.ErrPermission},
		{"interpreter of a file missing", func(s *runner.Spec) { s.Argv = []string{lost} }, []string{lost, `its interpreter is not: "#!/no/such/interpreter -x"`}, fs.ErrNotExist},
		{"carriage returns", func(s *runner.Spec) { s.Argv = []string{dos} }, []string{dos, "carriage return"}, fs.ErrNotExist},
		{"not a program", func(s *runner.Spec) { s.Argv = []string{garbage} }, []string{garbage, "neither a program for this machine"}, nil},
		{"arguments too large", func(s *runner.Spec) { s.Argv = []string{"true", strings.Repeat("x", 1<<20)} }, []string{"larger than the kernel takes"}, nil},
		{"interpreter of a script missing", func(s *runner.Spec) { s.Argv = nil; s.Script = "#!/no/such/perl\n" }, []string{`"/no/such/perl"`, "no such file"}, fs.ErrNotExist},
		{"interpreter not in PATH", func(s *runner.Spec) { s.Argv = nil; s.Script = "x"; s.Interpreter = []string{"no-such-perl"} }, []string{`"no-such-perl"`, "not found in PATH="}, fs.ErrNotExist},
		{"script with carriage returns", func(s *runner.Spec) { s.Argv = nil; s.Script = "#!/bin/sh\r\necho\r\n" }, []string{"carriage return"}, fs.ErrNotExist},
		{"no such directory", func(s *runner.Spec) { s.Dir = "/no/such/dir" }, []string{`working directory "/no/such/dir" does not exist`}, fs.ErrNotExist},
		{"directory is a file", func(s *runner.Spec) { s.Dir = plain }, []string{plain, "is not a directory"}, nil},
		{"unknown user", func(s *runner.Spec) { s.User = "no-such-user" }, []string{`user "no-such-user" is not known on this worker`}, nil},
		{"unknown user number", func(s *runner.Spec) { s.User = "4123456789" }, []string{`user "4123456789" is not known`}, nil},
		{"output missing", func(s *runner.Spec) { s.Output = "/no/such/spool" }, []string{`"/no/such/spool" for the output`}, fs.ErrNotExist},
		{"nothing to run", func(s *runner.Spec) { s.Argv = nil }, []string{"nothing to run"}, nil},
		{"two things to run", func(s *runner.Spec) { s.Script = "x" }, []string{"both given"}, nil},
		{"no id", func(s *runner.Spec) { s.ID = "" }, []string{"no id"}, nil},
		{"empty program", func(s *runner.Spec) { s.Argv = []string{""} }, []string{"empty string"}, nil},
		{"zero byte in argv", func(s *runner.Spec) { s.Argv = []string{"true", "a\x00b"} }, []string{"element 1", "zero byte"}, nil},
		{"malformed environment", func(s *runner.Spec) { s.Env = []string{"NOVALUE"} }, []string{`"NOVALUE"`, "NAME=value"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := p.spec("true")
			tc.spec(&s)
			proc, err := p.runner.Start(s)
			if err == nil {
				<-proc.Done()
				t.Fatal("it started")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q doesn't say %q", err, want)
				}
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("error %q is not %q", err, tc.is)
			}
			p.noScripts()
		})
	}
}

// Each attempt's process exists once, and its ID is free again when it is done.
func TestIDIsTakenUntilDone(t *testing.T) {
	p := newPlace(t)
	s := p.spec("sleep", "1000")
	first := p.start(s)
	if _, err := p.runner.Start(s); !errors.Is(err, runner.ErrRunning) {
		t.Errorf("started twice: %v", err)
	}
	first.Kill(0)
	p.wait(first)
	s.Argv = []string{"true"}
	if e, _ := p.run(s); e.Code != 0 {
		t.Errorf("exit %+v", e)
	}
	s.Argv = []string{"/no/such/program"} // a failed start frees it too
	for range 2 {
		if _, err := p.runner.Start(s); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v", err)
		}
	}
}

// The agent's files are nobody else's: a process has three, whatever is open here.
func TestNoDescriptorLeaks(t *testing.T) {
	p := newPlace(t)
	secret, err := os.Create(filepath.Join(p.dir, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = secret.Close() }()
	s := p.sh("ls /proc/$$/fd; for i in 0 1 2; do readlink /proc/$$/fd/$i; done")
	s.Stdin = []byte("x")
	_, got := p.run(s)
	lines := strings.Fields(got)
	if !slices.Equal(lines[:3], []string{"0", "1", "2"}) || strings.Contains(got, "secret") || lines[len(lines)-1] != s.Output {
		t.Errorf("open files:\n%s", got)
	}
}

// Children read and write the spool with the descriptor they were given; a
// shell's "> /dev/stderr" opens the file anew and cuts it off. What is written
// after that is kept, from the beginning of the file.
func TestOutputCutOffByTheProcessItself(t *testing.T) {
	p := newPlace(t)
	e, got := p.run(p.sh("echo lost; echo again > /dev/stderr; echo end"))
	if e.Code != 0 || got != "again\nend\n" {
		t.Errorf("exit %+v, output %q", e, got)
	}
}

// What tells whose a process is is told by these names, and by the first of each: a process
// sees that one, too.
func TestMarks(t *testing.T) {
	env := []string{"SCHEDD_RUN_IDS=other", "SCHEDD_RUN=other", "SCHEDD_RUN_ID", "SCHEDD_RUN_ID=r=1", "SCHEDD_RUN_ID=later", "SCHEDD_ATTEMPT="}
	if got, want := runner.Marks(env), []string{"SCHEDD_RUN_ID=r=1", "SCHEDD_ATTEMPT="}; !slices.Equal(got, want) {
		t.Errorf("marks %q, want %q", got, want)
	}
	if got := runner.Marks(env[:5]); got != nil {
		t.Errorf("without an attempt there are marks: %q", got)
	}
}
