//go:build e2e && linux

package natlab_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	// namespaces is where the kernel's namespaces have their names.
	namespaces = "/run/netns"
	// prefix begins the names of ours; the process's id follows.
	prefix = "natlab-"
)

var names atomic.Int64

// newName is a name for a namespace that no other lab has, in this run or
// another one.
func newName(what string) string {
	return fmt.Sprintf("%s%d-%d-%s", prefix, os.Getpid(), names.Add(1), what)
}

// sweep removes the namespaces of runs whose process is gone, and could not do
// it itself.
func sweep() {
	entries, err := os.ReadDir(namespaces)
	if err != nil {
		return // there were none yet
	}
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), prefix)
		pid, _, _ := strings.Cut(rest, "-")
		if _, err := strconv.Atoi(pid); !ours || err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join("/proc", pid)); os.IsNotExist(err) {
			_ = exec.CommandContext(context.Background(), "ip", "netns", "del", e.Name()).Run() // the next run tries again
		}
	}
}

// host is a network namespace: to a process in it, a machine of its own.
type host struct {
	name string
	ns   *os.File
}

// newHost makes a host with nothing but a loopback. It is gone with the test.
func newHost(t *testing.T, what string) *host {
	t.Helper()
	h := &host{name: newName(what)}
	run(t, "ip", "netns", "add", h.name)
	t.Cleanup(func() {
		_ = h.ns.Close() // read-only
		if out, err := exec.CommandContext(context.Background(), "ip", "netns", "del", h.name).CombinedOutput(); err != nil {
			t.Errorf("remove namespace %s: %v: %s", h.name, err, out)
		}
	})
	ns, err := os.Open(filepath.Join(namespaces, h.name))
	if err != nil {
		t.Fatal(err)
	}
	h.ns = ns
	h.ip(t, "link set lo up mtu 1500") // packets as anywhere else
	return h
}

// run runs a command that has to succeed.
func run(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
}

// ip configures the network of h, in the words of ip(8).
func (h *host) ip(t *testing.T, words string) {
	t.Helper()
	run(t, append([]string{"ip", "-n", h.name}, strings.Fields(words)...)...)
}

// iptables changes the rules of h, in the words of iptables(8).
func (h *host) iptables(t *testing.T, words string) {
	t.Helper()
	run(t, append([]string{"ip", "netns", "exec", h.name, "iptables", "-w"}, strings.Fields(words)...)...)
}

// join lays a wire from an interface of h, which has the address, to one of the
// other host.
func (h *host) join(t *testing.T, iface, addr string, other *host, plug string) {
	t.Helper()
	h.ip(t, fmt.Sprintf("link add %s type veth peer name %s netns %s", iface, plug, other.name))
	h.ip(t, fmt.Sprintf("addr add %s dev %s", addr, iface))
	h.ip(t, fmt.Sprintf("link set %s up", iface))
	other.ip(t, fmt.Sprintf("link set %s up", plug))
}

// sysctl sets something of the network of h.
func (h *host) sysctl(t *testing.T, name, value string) {
	t.Helper()
	err := h.within(func() error {
		return os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0)
	})
	if err != nil {
		t.Fatalf("set %s on %s: %v", name, h.name, err)
	}
}

// within runs f on a thread that is in the namespace. Sockets that f makes stay
// in it.
func (h *host) within(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() { _ = home.Close() }() // read-only
	if err := unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter namespace %s: %w", h.name, err)
	}
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return fmt.Errorf("leave namespace %s: %w", h.name, back) // locked: the thread ends with the goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// dial connects from h.
func (h *host) dial(ctx context.Context, addr string) (conn net.Conn, err error) {
	err = h.within(func() error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "tcp", addr)
		return err
	})
	return conn, err
}

// listen accepts connections on h.
func (h *host) listen(ctx context.Context, addr string) (l net.Listener, err error) {
	err = h.within(func() error {
		var c net.ListenConfig
		l, err = c.Listen(ctx, "tcp", addr)
		return err
	})
	return l, err
}

// forget lets a router forget all flows that it translates, as "conntrack -F"
// does.
func (h *host) forget(t *testing.T) {
	t.Helper()
	err := h.within(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }() // nothing is written late
		// A netlink header (length, type, flags, sequence, port), and nfgenmsg: no
		// family, no version, no resource. Which flow is meant is not said: all are.
		const deleteFlow = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE
		m := make([]byte, unix.SizeofNlMsghdr+4)
		binary.NativeEndian.PutUint32(m[0:], uint32(len(m)))
		binary.NativeEndian.PutUint16(m[4:], deleteFlow)
		binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
		if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		answer := make([]byte, 4096)
		n, _, err := unix.Recvfrom(fd, answer, 0)
		switch {
		case err != nil:
			return err
		case n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR:
			return fmt.Errorf("an answer of %d bytes makes no sense", n)
		}
		if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
			return syscall.Errno(-code)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("flush the flows of %s: %v", h.name, err)
	}
}
