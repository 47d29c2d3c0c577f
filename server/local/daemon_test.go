package local

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what has to happen: only what is broken
// takes as long.
const patience = 2 * time.Minute

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain: " + what)
		}
		wait(t.Context(), lookAgain)
	}
}

// program is a daemon that runs a script, in a directory of its own.
func program(t *testing.T, script string) *Daemon {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\ncd "+dir+"\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	d := &Daemon{ctx: t.Context(), name: "d", argv: []string{path}, log: filepath.Join(dir, "log")}
	t.Cleanup(func() {
		d.retire()
		d.stop(t.Context()) // it is done by then, so at once
	})
	return d
}

func (d *Daemon) said() string {
	text, _ := os.ReadFile(d.log) // nothing yet
	return string(text)
}

// What ends by itself is remembered, with its last words, and started again.
func TestCrashIsRemembered(t *testing.T) {
	d := program(t, "[ -e crashed ] && { echo well; exec sleep 1000; }\ntouch crashed; echo bad; exit 3\n")
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	await(t, "it is started again", func() bool { return strings.HasSuffix(d.said(), "bad\nwell\n") })
	if c := d.crashed(); len(c) != 1 || !strings.Contains(c[0], "exit status 3") || !strings.Contains(c[0], d.log) {
		t.Errorf("%q", c)
	}
}

// What is killed on purpose has not crashed, and neither has one that found its
// predecessor's lock.
func TestKillIsNoCrash(t *testing.T) {
	d := program(t, "echo started\n[ -e locked ] || exec sleep 1000\nrm locked; echo another schedagent uses it; exit 1\n")
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	await(t, "it runs", func() bool { return d.said() == "started\n" })
	if err := os.WriteFile(filepath.Join(filepath.Dir(d.log), "locked"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	first := d.PID()
	if err := d.Kill(t.Context(), time.Millisecond); err != nil {
		t.Fatal(err)
	}
	await(t, "the third one runs", func() bool { return strings.Count(d.said(), "started") == 3 })
	if d.PID() == first || len(d.crashed()) > 0 {
		t.Errorf("process %d after %d, crashes %q", d.PID(), first, d.crashed())
	}
}

// "uses it" is an excuse in the last line of one that gave up, and nowhere else.
func TestOccupied(t *testing.T) {
	const before = "data directory /d: another schedagent uses it\n"
	const held = "schedagent: data directory /d: another schedagent uses it; stop that one, or give this one its own --data-dir\n"
	for name, test := range map[string]struct {
		said string
		code int
		want bool
	}{
		"its last word":                 {"starting\n" + held, 1, true},
		"and some empty lines":          {held + "\n\n", 1, true},
		"a line of before":              {held + "starting\nfatal: no space left\n", 1, false},
		"of the predecessor":            {"starting\n", 1, false},
		"nothing was said":              {"", 1, false},
		"it panicked":                   {"panic: boom\n" + held, 2, false},
		"a signal ended it":             {held, -1, false},
		"it ended as if all was well":   {held, 0, false},
		"the ones before, a real crash": {held + held + "panic: boom\n\ngoroutine 1 [running]:\n", 2, false},
	} {
		log := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(log, []byte(before+test.said), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := occupied(log, int64(len(before)), test.code); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if occupied(filepath.Join(t.TempDir(), "none"), 0, 1) {
		t.Error("without a log")
	}
}

// A retired one is not started again, neither after its end nor after a kill.
func TestRetired(t *testing.T) {
	d := program(t, "echo started; exec sleep 1000\n")
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	await(t, "it runs", func() bool { return d.said() == "started\n" })
	d.retire()
	if err := d.Kill(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	d.stop(t.Context())
	if said := d.said(); said != "started\n" || len(d.crashed()) > 0 {
		t.Errorf("it said %q, crashes %q", said, d.crashed())
	}
}

// What was taken down stays down until it is started again, and has not crashed.
func TestDown(t *testing.T) {
	d := program(t, "echo started; exec sleep 1000\n")
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	await(t, "it runs", func() bool { return d.said() == "started\n" })
	first := d.PID()
	if err := d.Down(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(first, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("it is still there: %v", err)
	}
	if err := d.Up(); err != nil {
		t.Fatal(err)
	}
	await(t, "the next one runs", func() bool { return d.said() == "started\nstarted\n" })
	if d.PID() == first || len(d.crashed()) > 0 {
		t.Errorf("process %d after %d, crashes %q", d.PID(), first, d.crashed())
	}
}

// What is restarted ends in order, and is no crash.
func TestRestart(t *testing.T) {
	d := program(t, "trap 'echo heard; exit 0' TERM\necho started\nwhile :; do sleep 0.1; done\n")
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	await(t, "it runs", func() bool { return d.said() == "started\n" })
	first := d.PID()
	if err := d.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, "the second one runs", func() bool { return d.said() == "started\nheard\nstarted\n" })
	if d.PID() == first || len(d.crashed()) > 0 {
		t.Errorf("process %d after %d, crashes %q", d.PID(), first, d.crashed())
	}
}

// What is halted goes on.
func TestHalt(t *testing.T) {
	d := program(t, "trap 'echo heard; exit' TERM\necho started\nwhile :; do sleep 0.1; done\n")
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	await(t, "it runs", func() bool { return d.said() == "started\n" })
	if err := d.Halt(t.Context(), time.Millisecond); err != nil {
		t.Fatal(err)
	}
	d.retire()
	if err := syscall.Kill(d.PID(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await(t, "it hears a signal", func() bool { return strings.HasSuffix(d.said(), "heard\n") })
}

// The settings of whoever tortures are not those of what is tortured.
func TestEnvironment(t *testing.T) {
	got := environment([]string{"PATH=/bin", "SCHEDD_API_ADDR=x", "SCHEDAGENT_SLOTS=1", "HOME=/"})
	if !slices.Equal(got, []string{"PATH=/bin", "HOME=/"}) {
		t.Errorf("%q", got)
	}
}

func TestFreeAddresses(t *testing.T) {
	free, err := freeAddresses(t.Context(), 9)
	if err != nil || len(free) != 9 {
		t.Fatalf("%v, %v", free, err)
	}
	slices.Sort(free)
	if len(slices.Compact(free)) != 9 {
		t.Errorf("the same twice: %v", free)
	}
}
