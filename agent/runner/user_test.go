//go:build linux

package runner_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const other = "daemon" // a user that every Linux has

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can switch users")
	}
}

func TestUser(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	s := p.sh("id -un; id -gn; id -Gn; env | grep -E '^(HOME|USER|LOGNAME|SHELL)=' | sort")
	s.User = other
	s.Env = append(s.Env, "HOME=/given")
	_, got := p.run(s)
	groups, err := exec.Command("id", "-Gn", other).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := "daemon\ndaemon\n" + string(groups) + "HOME=/given\nLOGNAME=daemon\nSHELL=/usr/sbin/nologin\nUSER=daemon\n"
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	s = p.sh("id -u")
	s.User = "1" // daemon's number
	if _, got := p.run(s); got != "1\n" {
		t.Errorf("by number: %q", got)
	}
}

// A script belongs to its user, and so does the way to it.
func TestScriptOfUser(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	s := p.spec()
	s.User, s.Script = other, "stat -c '%U %a' $0; cat"
	s.Stdin = []byte("input\n")
	if _, got := p.run(s); got != "daemon 700\ninput\n" {
		t.Errorf("got %q", got)
	}
	p.noScripts()
	if err := os.Chmod(p.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := p.runner.Start(s); err == nil || !strings.Contains(err.Error(), "can't pass through") || !strings.Contains(err.Error(), p.dir) {
		t.Errorf("error %v", err)
	}
}

// The tree of another user's attempt is ended like any other.
func TestKillOfUser(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	s := p.sh("sleep 1000 & echo $!; exec sleep 1000")
	s.User = other
	proc := p.start(s)
	pids := p.pids(s, 1)
	proc.Kill(0)
	if e := p.wait(proc); !e.Killed {
		t.Errorf("exit %+v", e)
	}
	p.gone(pids...)
}

// What the user may not do is said in a sentence.
func TestUserIsDenied(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	locked := filepath.Join(p.dir, "locked")
	if err := os.Mkdir(locked, 0o700); err != nil {
		t.Fatal(err)
	}
	tool := filepath.Join(locked, "tool")
	private := filepath.Join(p.dir, "private")
	for _, f := range []string{tool, private} {
		if err := os.WriteFile(f, []byte("#!/bin/sh\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s := p.spec("true")
	s.User, s.Dir = other, locked
	if _, err := p.runner.Start(s); err == nil || !strings.Contains(err.Error(), `can't be entered by user "daemon"`) {
		t.Errorf("directory: %v", err)
	}
	s = p.spec(tool)
	s.User = other
	if _, err := p.runner.Start(s); err == nil || !strings.Contains(err.Error(), `may not pass through "`+locked+`"`) {
		t.Errorf("program out of reach: %v", err)
	}
	s = p.spec(private)
	s.User = other
	if _, err := p.runner.Start(s); err == nil || !strings.Contains(err.Error(), `user "daemon" may not execute it`) {
		t.Errorf("program not executable: %v", err)
	}
}

// Without root there is one user only, and the error says what to do.
func TestUserNeedsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		p := newPlace(t)
		s := p.spec("true")
		s.User = "root"
		if _, err := p.runner.Start(s); err == nil || !strings.Contains(err.Error(), "start schedagent as root, or leave the job's user empty") {
			t.Errorf("error %v", err)
		}
		return
	}
	// As root: run this very test again as somebody who isn't.
	p := newPlace(t)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(p.dir, "runner.test")
	if err := os.WriteFile(copied, self, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(p.dir, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(p.dir, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	s := p.spec(copied, "-test.run=^(TestUserNeedsRoot|TestLeftovers|TestKillReachesTheWholeTree|TestEndStrays)$", "-test.v")
	s.User, s.Env = other, append(s.Env, "TMPDIR="+filepath.Join(p.dir, "tmp"))
	if e, got := p.run(s); e.Code != 0 || !strings.Contains(got, "--- PASS: TestUserNeedsRoot") {
		t.Errorf("exit %+v\n%s", e, got)
	}
}
