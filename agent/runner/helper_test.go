//go:build unix

package runner_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner"
)

// patience is how long a test waits for what must come. It decides nothing but
// how soon a broken test gives up.
const patience = 2 * time.Minute

var serial atomic.Int64

// place is where attempts are started.
type place struct {
	*testing.T
	runner *runner.Local
	dir    string
}

func newPlace(t *testing.T) place {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // for the tests that run as others
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	return place{t, runner.New(runner.Options{TempDir: dir, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}), dir}
}

// spec is an attempt with an identity and an output file of its own.
func (p place) spec(argv ...string) runner.Spec {
	p.Helper()
	n := serial.Add(1)
	out := filepath.Join(p.dir, fmt.Sprintf("out-%d", n))
	if err := os.WriteFile(out, nil, 0o600); err != nil {
		p.Fatal(err)
	}
	run := fmt.Sprintf("test-%d-%d", os.Getpid(), n)
	return runner.Spec{
		ID:   run + "/1",
		Argv: argv,
		Env: []string{
			"PATH=" + runner.DefaultPath,
			"SCHEDD_RUN_ID=" + run,
			"SCHEDD_ATTEMPT=1",
		},
		Output:    out,
		KillGrace: 10 * time.Second,
	}
}

func (p place) sh(script string) runner.Spec { p.Helper(); return p.spec("/bin/sh", "-c", script) }

func (p place) start(s runner.Spec) runner.Process {
	p.Helper()
	proc, err := p.runner.Start(s)
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() {
		proc.Kill(0)
		<-proc.Done()
	})
	return proc
}

func (p place) wait(proc runner.Process) runner.Exit {
	p.Helper()
	select {
	case <-proc.Done():
		return proc.Exit()
	case <-time.After(patience):
		p.Fatalf("process %d is not done", proc.PID())
		panic("unreachable")
	}
}

func (p place) run(s runner.Spec) (runner.Exit, string) {
	p.Helper()
	e := p.wait(p.start(s))
	return e, p.read(s.Output)
}

func (p place) read(path string) string {
	p.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		p.Fatal(err)
	}
	return string(b)
}

// until waits for ok, which something else brings about.
func (p place) until(what string, ok func() bool) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			p.Fatalf("waited in vain for %s", what)
		}
	}
}

// lines waits until the output has n whole lines, and returns them.
func (p place) lines(s runner.Spec, n int) []string {
	p.Helper()
	var b []byte
	p.until(fmt.Sprintf("%d lines of output", n), func() bool {
		b, _ = os.ReadFile(s.Output)
		return bytes.Count(b, []byte("\n")) >= n
	})
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// pids waits for n lines of output that are process ids.
func (p place) pids(s runner.Spec, n int) []int {
	p.Helper()
	var pids []int
	for _, l := range p.lines(s, n) {
		pid, err := strconv.Atoi(strings.TrimSpace(l))
		if err != nil {
			p.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// gone fails unless no process has this id, not even a zombie.
func (p place) gone(pids ...int) {
	p.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
			p.Errorf("process %d is still there: %v", pid, err)
		}
	}
}
