//go:build e2e && linux

package natlab_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	// patience is how long a test waits for what has to happen. It is no measure
	// of anything: only a program that is broken takes as long.
	patience = 4 * time.Minute
	// callWithin is how long one of the tests' own calls may take before they try again.
	callWithin = 10 * time.Second
	// look is how often a test looks for what no stream tells it.
	look = 100 * time.Millisecond
)

// TestMain finds the programs, and clears up behind a run that was killed. The
// tests wait most of their time, so all labs run at once.
func TestMain(m *testing.M) {
	if os.Getenv("E2E_BIN") == "" {
		fmt.Fprintln(os.Stderr, `natlab: E2E_BIN has to name the directory of schedd and schedagent: "make e2e" builds them and sets it`)
		os.Exit(2)
	}
	flag.Parse()
	if err := flag.Set("test.parallel", fmt.Sprint(len(kinds)*len(rounds))); err != nil {
		fmt.Fprintln(os.Stderr, "natlab:", err)
		os.Exit(2)
	}
	sweep()
	ctx, quit := context.WithCancel(context.Background())
	watched := make(chan error, 1)
	go func() { watched <- machine.watch(ctx) }()
	code := m.Run()
	quit()
	if err := <-watched; err != nil {
		fmt.Fprintln(os.Stderr, "natlab: look how slow the machine is:", err)
		code = 1
	}
	os.Exit(code)
}

// needs skips a test that can't run here, and says what it would need. Where
// everything has to be tested, in CI, that is a failure.
func needs(t *testing.T, commands ...string) {
	t.Helper()
	var lacks []string
	if os.Geteuid() != 0 {
		lacks = append(lacks, "root")
	}
	for _, c := range commands {
		if _, err := exec.LookPath(c); err != nil {
			lacks = append(lacks, "the command "+c)
		}
	}
	if len(lacks) == 0 {
		lacks = probe(t)
	}
	switch {
	case len(lacks) == 0:
	case os.Getenv("CI") == "true":
		t.Fatalf("this machine lacks %s; CI has to have it", strings.Join(lacks, " and "))
	default:
		t.Skipf("needs %s (Debian: apt-get install iproute2 iptables haproxy nginx; then run as root)", strings.Join(lacks, " and "))
	}
}

// probe tries whether namespaces and address translation work here: root in a
// container may not do all.
func probe(t *testing.T) (lacks []string) {
	t.Helper()
	name := newName("probe")
	for _, c := range [][]string{
		{"ip", "netns", "add", name},
		{"ip", "-n", name, "link", "add", "br0", "type", "bridge"},
		{"ip", "netns", "exec", name, "iptables", "-w", "-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE"},
	} {
		if out, err := exec.CommandContext(t.Context(), c[0], c[1:]...).CombinedOutput(); err != nil {
			lacks = append(lacks, fmt.Sprintf("to be allowed %q, which says %s", strings.Join(c, " "), strings.TrimSpace(string(out))))
			break
		}
	}
	_ = exec.CommandContext(t.Context(), "ip", "netns", "del", name).Run() // it may not be there
	return lacks
}

// built is the path of one of our programs.
func built(name string) string { return filepath.Join(os.Getenv("E2E_BIN"), name) }

// measured tells a figure: "make e2e" shows these lines.
func measured(t *testing.T, format string, args ...any) {
	t.Helper()
	_, where, _ := strings.Cut(t.Name(), "/")
	t.Logf("measured: %s: %s", where, fmt.Sprintf(format, args...))
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
		case <-t.Context().Done():
			t.Fatalf("the test is over, and still: %s\nlast seen: %v", what, seen)
		case <-deadline.C:
			t.Fatalf("waited in vain: %s\nlast seen: %v", what, seen)
		}
	}
}

// pass lets time pass: for faults that last, and silence that has to be long.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
		t.Fatalf("the test is over while it waits for %v", d)
	}
}
