package harm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/schedd/schedd/server/torture"
)

// chainPrefix begins the names of our chains; the id of the process that made it
// follows, so that what one left that is gone can be told.
const chainPrefix = "schedd-torture-"

// Links is a primary of this host whose links to other primaries can be cut, by
// rules of the packet filter in a chain of their own. It is a [torture.Cutter].
type Links struct {
	torture.Process
	tables []string // iptables, and ip6tables where there is one
}

// CutLinks lets the links of a primary be cut. It needs root and the command
// iptables, and removes what a torture left that was killed together with its
// watchman.
func CutLinks(ctx context.Context, p torture.Process) (*Links, error) {
	l := &Links{Process: p}
	if os.Getuid() != 0 {
		return nil, errors.New("to cut links one has to be root")
	}
	for _, name := range []string{"iptables", "ip6tables"} {
		if _, err := exec.LookPath(name); err == nil {
			l.tables = append(l.tables, name)
		}
	}
	if !slices.Contains(l.tables, "iptables") {
		return nil, errors.New("to cut links there has to be the command iptables: install it")
	}
	rules, err := exec.CommandContext(ctx, "iptables", "-w", "-S").Output()
	if err != nil {
		return nil, fmt.Errorf("look for rules that a former torture left: %w", err)
	}
	for _, chain := range leftBehind(rules, alive) {
		if said, err := shell(ctx, l.undo(chain)); err != nil {
			return nil, fmt.Errorf("remove the rules that a former torture left: %w: %s", err, said)
		}
	}
	return l, nil
}

// alive tells whether there is a process.
func alive(pid string) bool {
	_, err := os.Stat(filepath.Join("/proc", pid))
	return err == nil
}

// leftBehind returns our chains whose process is gone, out of what iptables -S says.
func leftBehind(rules []byte, alive func(pid string) bool) (chains []string) {
	for line := range bytes.Lines(rules) {
		chain, ours := strings.CutPrefix(strings.TrimSpace(string(line)), "-N "+chainPrefix)
		if _, err := strconv.Atoi(chain); ours && err == nil && !alive(chain) {
			chains = append(chains, chainPrefix+chain)
		}
	}
	return chains
}

// Cut implements [torture.Cutter].
func (l *Links) Cut(ctx context.Context, span time.Duration, own string, others []string) error {
	ports, err := portsOf(own, others)
	if err != nil {
		return err
	}
	chain := chainPrefix + strconv.Itoa(os.Getpid())
	return during(ctx, span, l.undo(chain), func() error {
		if said, err := shell(context.WithoutCancel(ctx), l.do(chain, ports)); err != nil {
			return fmt.Errorf("cut the links of %s: %w: %s", own, err, said)
		}
		return nil
	})
}

// portsOf returns the ports that nothing may come from or go to on this host: that
// of the primary, at own, and those that it dials on other hosts.
func portsOf(own string, others []string) ([]string, error) {
	host, port, err := net.SplitHostPort(own)
	if err != nil {
		return nil, fmt.Errorf("cut the links of %q: %w", own, err)
	}
	ports := []string{port}
	for _, other := range others {
		h, p, err := net.SplitHostPort(other)
		if err != nil {
			return nil, fmt.Errorf("cut the links to %q: %w", other, err)
		}
		if h != host && !slices.Contains(ports, p) {
			ports = append(ports, p)
		}
	}
	return ports, nil
}

// do is what the shell runs to cut links.
func (l *Links) do(chain string, ports []string) string {
	var b strings.Builder
	b.WriteString("set -e\n")
	for _, table := range l.tables {
		fmt.Fprintf(&b, "%s -w -N %s\n", table, chain)
		for _, port := range ports {
			fmt.Fprintf(&b, "%s -w -A %s -p tcp --dport %s -j DROP\n", table, chain, port)
			fmt.Fprintf(&b, "%s -w -A %s -p tcp --sport %s -j DROP\n", table, chain, port)
		}
		fmt.Fprintf(&b, "%s -w -I INPUT -j %s\n%[1]s -w -I OUTPUT -j %[2]s\n", table, chain)
	}
	return b.String()
}

// undo is what the shell runs to mend them, however many were cut. It fails when
// something is left.
func (l *Links) undo(chain string) string {
	var b strings.Builder
	for _, table := range l.tables {
		fmt.Fprintf(&b, "{ %s -w -D INPUT -j %s; %[1]s -w -D OUTPUT -j %[2]s; %[1]s -w -F %[2]s; %[1]s -w -X %[2]s; } >/dev/null 2>&1\n", table, chain)
	}
	for _, table := range l.tables {
		fmt.Fprintf(&b, "if %s -w -S %s >/dev/null 2>&1; then echo the chain %[2]s is still there; exit 1; fi\n", table, chain)
	}
	return b.String()
}

func shell(ctx context.Context, script string) ([]byte, error) {
	return exec.CommandContext(ctx, "/bin/sh", "-c", script).CombinedOutput()
}
