package runner

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// hungStart does what a start does that hangs in its fork, since the file system of its
// directory does not answer, until the function that it returns is called.
func hungStart() (over func()) {
	home.forking.RLock()
	return sync.OnceFunc(home.forking.RUnlock)
}

// ofShell starts a shell that leaves an orphan in a session of its own, and returns
// once that is there.
func ofShell(t *testing.T, l *Local, s Spec) Process {
	t.Helper()
	pid := filepath.Join(t.TempDir(), "pid")
	s.Argv = []string{"/bin/sh", "-c", "(setsid sh -c 'echo $$ >" + pid + "; exec sleep 1000' &); exec sleep 1000"}
	s.Dir = "/"
	p, err := l.Start(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill(0); <-p.Done() })
	eventually(t, "the orphan", func() bool { b, _ := os.ReadFile(pid); return len(b) > 0 })
	return p
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !ok() {
		select {
		case <-look.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func ended(p Process) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// One start hangs for as long as a file system does. Timeouts, leases and kills of all
// others are kept, orphans included, and others are started.
func TestAHungStartHoldsUpNobody(t *testing.T) {
	l := New(Options{TempDir: t.TempDir()})
	defer hungStart()()
	now, ok := l.Uptime()
	if !ok || home.kids == nil {
		t.Skip("this system has no clock that counts a suspend, or no list of children")
	}
	late := ofShell(t, l, Spec{ID: "late/1", Timeout: 2 * time.Second})
	leased := ofShell(t, l, Spec{ID: "leased/1", LeaseEnd: now + time.Hour})
	killed := ofShell(t, l, Spec{ID: "killed/1"})
	killed.Kill(0)
	eventually(t, "what was killed", func() bool { return ended(killed) })
	eventually(t, "what has a timeout", func() bool { return ended(late) && late.Exit().TimedOut })
	p := home.of("leased/1")
	p.mu.Lock()
	p.leaseEnd = now
	p.mu.Unlock()
	eventually(t, "what has no lease any more", func() bool { return ended(leased) && leased.Exit().LeaseExpired })
}

// Where the kernel has no list of children, what an orphan is can't be told while a
// start hangs: the main process is ended all the same, the orphan when the start is over.
func TestAHungStartWithoutAListOfChildren(t *testing.T) {
	l := New(Options{TempDir: t.TempDir()})
	kids := home.kids
	home.kids = nil
	t.Cleanup(func() { home.kids = kids })
	over := hungStart()
	defer over()
	p := ofShell(t, l, Spec{ID: "killed/1"})
	p.Kill(0)
	eventually(t, "the main process to be gone", func() bool { return syscall.Kill(p.PID(), 0) == syscall.ESRCH })
	over()
	eventually(t, "the orphan to be gone", func() bool { return ended(p) })
}

// A start took longer than its lease: what it started is ended at once, and not when
// somebody looks.
func TestAStartThatOutlastsItsLease(t *testing.T) {
	p := newProcess(&Local{uptime: func() (time.Duration, bool) { return 2 * time.Hour, true }}, Spec{ID: "x/1", LeaseEnd: time.Hour})
	if why := p.watch(nil); why != leaseExpired {
		t.Errorf("it ends by cause %d", why)
	}
}

// A file does not open for as long as its file system does not answer, or here, nobody
// reads a pipe. The start is given up, with a sentence, and what was begun is taken back.
func TestAStartIsGivenUp(t *testing.T) {
	dir := t.TempDir()
	l := New(Options{TempDir: dir})
	l.answer = time.Millisecond
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	s := Spec{ID: "hangs/1", Script: "exit 0", Dir: "/", Output: pipe}
	p, err := l.Start(s)
	if err == nil || !strings.Contains(err.Error(), "does not answer within 1ms") || errors.Is(err, ErrUnable) {
		t.Fatalf("it is %v, %v", p, err)
	}
	l.patience, l.probing = time.Millisecond, make(chan struct{}) // as if a probe hung as well
	if _, err := l.Start(s); !errors.Is(err, ErrUnable) {
		t.Errorf("where this worker's own directory does not answer: %v", err)
	}
	if home.running(s.ID) {
		t.Error("its name is not free")
	}
	r, err := os.Open(pipe) // which lets it go
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("whoever wrote to it was not closed: %v", err)
	}
	eventually(t, "its script to be gone", func() bool { in, err := os.ReadDir(dir); return err == nil && len(in) == 0 })
}
