package harm

import (
	"context"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// What is cut is the port of the primary itself, and what it dials elsewhere; other
// primaries on its own host keep theirs.
func TestPorts(t *testing.T) {
	for own, test := range map[string]struct{ others, want []string }{
		"10.0.0.1:7420":  {[]string{"10.0.0.2:7420", "10.0.0.3:7420"}, []string{"7420"}},
		"p1.example:1":   {[]string{"p2.example:2", "p3.example:3", "p4.example:2"}, []string{"1", "2", "3"}},
		"127.0.0.1:1":    {[]string{"127.0.0.1:2", "127.0.0.1:3"}, []string{"1"}},
		"[2001:db8::]:7": {nil, []string{"7"}},
		"nonsense":       {nil, nil},
		"10.0.0.1:1":     {[]string{"nonsense"}, nil},
	} {
		got, err := portsOf(own, test.others)
		if !slices.Equal(got, test.want) || (err == nil) != (test.want != nil) {
			t.Errorf("%s and %v: %v, %v; want %v", own, test.others, got, err, test.want)
		}
	}
}

// A chain that is not ours is left alone, and so is one of a torture that goes on.
func TestLeftBehind(t *testing.T) {
	rules := "-P INPUT ACCEPT\n-N schedd-torture-7\n-N schedd-torture-8\n-N schedd-torture-x\n-N DOCKER\n-A INPUT -j schedd-torture-7\n"
	got := leftBehind([]byte(rules), func(pid string) bool { return pid == "8" })
	if !slices.Equal(got, []string{"schedd-torture-7"}) {
		t.Errorf("%v", got)
	}
}

// inside tells the test binary that it is in a network of its own.
const inside = "SCHEDD_TEST_INSIDE"

// In a network of its own, links are cut and mended: when it is time, when the
// torture is stopped, and, if it was killed, by its watchman or the next one.
func TestCut(t *testing.T) {
	if os.Getenv(inside) == "" {
		for _, name := range []string{"unshare", "ip", "iptables"} {
			if _, err := exec.LookPath(name); err != nil || os.Getuid() != 0 {
				t.Skipf("it needs root and the command %s", name)
			}
		}
		cmd := exec.CommandContext(t.Context(), "unshare", "-n", os.Args[0], "-test.run", "^TestCut$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=yes")
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v:\n%s", err, said)
		}
		return
	}
	if said, err := exec.CommandContext(t.Context(), "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Skipf("a network can't be made here: %v: %s", err, said)
	}
	if said, err := exec.CommandContext(t.Context(), "iptables", "-w", "-S").CombinedOutput(); err != nil {
		t.Skipf("iptables does not work here: %v: %s", err, said)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	own := listener.Addr().String()
	l, err := CutLinks(t.Context(), &Process{})
	if err != nil {
		t.Fatal(err)
	}
	reached := func() bool {
		c, err := (&net.Dialer{Timeout: 200 * time.Millisecond}).DialContext(t.Context(), "tcp", own)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}
	clean := func(when string) {
		t.Helper()
		if rules := allRules(t); strings.Contains(rules, chainPrefix) {
			t.Errorf("%s there is still:\n%s", when, rules)
		}
		await(t, "it is reached "+when, reached)
	}
	clean("before")
	ctx, stop := context.WithCancel(t.Context())
	cut := make(chan error)
	go func() { cut <- l.Cut(ctx, time.Hour, own, nil) }()
	await(t, "it is cut off", func() bool { return strings.Count(allRules(t), "-j schedd-torture-") == 4 })
	if reached() {
		t.Error("it is reached, and should be cut off")
	}
	stop()
	if err := <-cut; err != nil {
		t.Error(err)
	}
	clean("after it was stopped")
	if err := l.Cut(t.Context(), time.Millisecond, own, nil); err != nil {
		t.Error(err)
	}
	clean("when it was time")
	// No process has this id: it is more than the kernel gives.
	const gone = chainPrefix + "99999999"
	if said, err := shell(t.Context(), l.do(gone, []string{"1"})); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if _, err := CutLinks(t.Context(), &Process{}); err != nil {
		t.Error(err)
	}
	clean("after the next torture has begun")
}

// allRules is what the packet filter has.
func allRules(t *testing.T) string {
	t.Helper()
	four, err := exec.CommandContext(t.Context(), "iptables", "-w", "-S").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, four)
	}
	six, _ := exec.CommandContext(t.Context(), "ip6tables", "-w", "-S").CombinedOutput() // there may be none
	return string(four) + string(six)
}
