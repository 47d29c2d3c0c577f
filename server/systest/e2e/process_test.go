//go:build e2e

package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what has to happen. It is no measure of
// anything: only a program that is broken takes as long.
const patience = 150 * time.Second

// look is how often a test looks for what no stream tells it.
const look = 25 * time.Millisecond

// TestMain finds the programs. The tests wait most of their time, so more of
// them run at once than there are CPUs.
func TestMain(m *testing.M) {
	if os.Getenv("E2E_BIN") == "" {
		fmt.Fprintln(os.Stderr, `e2e: E2E_BIN has to name the directory of schedd and schedagent: "make e2e" builds them and sets it`)
		os.Exit(2)
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// binary is the path of one of our programs.
func binary(name string) string { return filepath.Join(os.Getenv("E2E_BIN"), name) }

// process is one of our programs, running or ended.
type process struct {
	name   string // for people
	cmd    *exec.Cmd
	out    string        // file of standard output
	log    string        // file of standard error
	exited chan struct{} // closed when it has ended
	code   int           // its exit code then, -1 after a signal
}

// starts counts the programs that were started.
var starts atomic.Int64

// start starts a program with nothing in its environment that could be a
// setting, but for env. It is ended with the test, and its log is shown if that
// fails.
func start(t *testing.T, name string, env []string, argv ...string) *process {
	t.Helper()
	dir := filepath.Join(t.ArtifactDir(), fmt.Sprintf("%s-%d", strings.ReplaceAll(name, " ", "-"), starts.Add(1)))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p := &process{name: name, out: filepath.Join(dir, "stdout"), log: filepath.Join(dir, "stderr"), exited: make(chan struct{})}
	p.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), argv[0], argv[1:]...)
	p.cmd.Env = append(clean(os.Environ()), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the tests, which end it then
	p.cmd.Stdout, p.cmd.Stderr = create(t, p.out), create(t, p.log)
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		var exit *exec.ExitError
		if err := p.cmd.Wait(); errors.As(err, &exit) {
			p.code = exit.ExitCode()
		}
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.end()
		if t.Failed() {
			t.Logf("%s, process %d, the end of what it said:\n%s", p.name, p.cmd.Process.Pid, tail(p.log, 80))
		}
	})
	return p
}

func clean(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		return strings.HasPrefix(kv, "SCHEDD_") || strings.HasPrefix(kv, "SCHEDAGENT_")
	})
}

func create(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// tail is the last lines of a file.
func tail(name string, lines int) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	all := strings.SplitAfter(string(text), "\n")
	return strings.Join(all[max(0, len(all)-lines-1):], "")
}

// end ends the process at the end of a test, in order if it will.
func (p *process) end() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	grace := time.NewTimer(patience / 4)
	defer grace.Stop()
	select {
	case <-p.exited:
	case <-grace.C:
		p.kill()
	}
}

// kill is what the power switch does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.exited
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("send %v to %s: %v", s, p.name, err)
	}
}

// ended waits for the end of the process, and returns its exit code.
func (p *process) ended(t *testing.T) int {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		t.Fatalf("%s does not end", p.name)
	}
	return p.code
}

// running reports whether the process has not ended.
func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// said is all that the process has written to standard error.
func (p *process) said(t *testing.T) string { return readFile(t, p.log) }

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// await looks again and again until cond holds. What cond saw last is told when
// it never does.
func await(t *testing.T, what string, cond func() (holds bool, seen any)) {
	t.Helper()
	again := time.NewTicker(look)
	defer again.Stop()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		holds, seen := cond()
		if holds {
			return
		}
		select {
		case <-again.C:
		case <-deadline.C:
			t.Fatalf("waited in vain: %s\nlast seen: %v", what, seen)
		}
	}
}

// result is what a command left when it had ended.
type result struct {
	out, err string
	code     int
}

// oneLine reports whether the only thing on standard error is one line.
func (r result) oneLine() bool {
	return strings.HasSuffix(r.err, "\n") && strings.Count(r.err, "\n") == 1
}

// command runs a program to its end.
func command(t *testing.T, env []string, argv ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(clean(os.Environ()), env...)
	cmd.Dir = t.TempDir()
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %q: %v", argv, err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%q does not end; it said: %s%s", argv, &out, &said)
	}
	return result{out.String(), said.String(), cmd.ProcessState.ExitCode()}
}

// ports hands out ports that are free and stay so, since a primary that is
// started again needs the same one: on a loopback address of these tests alone,
// and below what the kernel gives to whoever dials.
var ports = struct {
	sync.Mutex
	next int
}{next: 10000 + os.Getpid()*61%20000}

// loopback is an address of this host that no other process is likely to use.
func loopback() string {
	pid := os.Getpid()
	return net.IPv4(127, byte(1+pid>>16%100), byte(pid>>8), byte(pid)).String()
}

// freeAddr is an address on loopback that nobody uses.
func freeAddr(t *testing.T) string {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for range 1000 {
		ports.next++
		addr := net.JoinHostPort(loopback(), strconv.Itoa(ports.next))
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}
