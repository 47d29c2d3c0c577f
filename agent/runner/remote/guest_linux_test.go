package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	"github.com/schedd/schedd/agent/runner/remote"
)

// Users that need no name. The guest's group has another member.
const (
	guest    = 54321
	group    = 54322
	stranger = 54323
)

// as calls f in a thread that is another user, and that ends with it: to the kernel
// users are a thread's, whatever libraries make of it.
func as(uid, gid int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never again unlocked
		for _, call := range [][4]uintptr{
			{unix.SYS_SETGROUPS, 0, 0, 0},
			{unix.SYS_SETRESGID, ^uintptr(0), uintptr(gid), ^uintptr(0)},
			{unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)},
		} {
			if _, _, errno := syscall.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
				done <- fmt.Errorf("become user %d: %w", uid, errno)
				return
			}
		}
		done <- f()
	}()
	return <-done
}

// dialAs connects to the runner in dir as another user.
func dialAs(uid, gid int, dir string) (c net.Conn, err error) {
	err = as(uid, gid, func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "socket")
		defer func() { _ = f.Close() }() // c has another
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, "socket")}); err != nil {
			return err
		}
		c, err = net.FileConn(f)
		return err
	})
	return c, err
}

// told is a log that can be read while it is written.
type told struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *told) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *told) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// guarded is a runner of root's that has a guest.
func guarded(t *testing.T) (dir string, said *told) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be other users")
	}
	top := t.TempDir()
	for _, d := range []string{top, filepath.Dir(top)} {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	dir, said = filepath.Join(top, "runner"), new(told)
	o := remote.ServeOptions{
		Dir: dir, Runner: fakerunner.New(func(runner.Spec) fakerunner.Behaviour { return fakerunner.Behaviour{} }),
		Log: slog.New(slog.NewTextHandler(said, nil)), Guest: &remote.Guest{UID: guest, GID: group},
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := remote.Serve(ctx, o); err != nil {
			t.Errorf("the runner ended with %v", err)
		}
	})
	t.Cleanup(func() { stop(); wg.Wait() })
	// It is there when root, who may always, has been served.
	r, err := remote.Open(t.Context(), remote.Options{Dir: dir, Life: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	return dir, said
}

// The agent's user is served, though the runner is another's.
func TestGuestIsServed(t *testing.T) {
	dir, _ := guarded(t)
	r, err := remote.Open(t.Context(), remote.Options{
		Dir: dir, Life: 2, Log: slog.New(slog.DiscardHandler),
		Dial: func(context.Context) (net.Conn, error) { return dialAs(guest, group, dir) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := r.Start(runner.Spec{ID: "a/1"})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	// It passes through the directory, and sees or makes nothing there.
	for name, f := range map[string]func() error{
		"list":   func() error { _, err := os.ReadDir(dir); return err },
		"make":   func() error { return os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600) },
		"read":   func() error { _, err := os.ReadFile(filepath.Join(dir, "journal")); return err },
		"remove": func() error { return os.Remove(filepath.Join(dir, "socket")) },
	} {
		if err := as(guest, group, f); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("to %s: %v, want that it is not permitted", name, err)
		}
	}
}

// Nobody else is: not a stranger, who does not even come to the socket, and not one of
// the guest's group, who does.
func TestOthersAreRefused(t *testing.T) {
	dir, said := guarded(t)
	if _, err := dialAs(stranger, stranger, dir); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a stranger: %v, want that it is not permitted", err)
	}
	c, err := dialAs(stranger, group, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("one of the group is told something: %d bytes, %v", n, err)
	}
	if want := fmt.Sprintf("uid=%d", stranger); !strings.Contains(said.String(), want) {
		t.Errorf("the log has no %q:\n%s", want, said)
	}
}

// In a directory of the agent's a link can be where the runner's should be. Root does
// not follow it: it would give away what is behind.
func TestRootKeepsOutOfTheAgentsDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to have directories of other users")
	}
	top := t.TempDir()
	victim, data := filepath.Join(top, "etc"), filepath.Join(top, "data")
	dir := filepath.Join(data, "runner")
	err := errors.Join(os.Chmod(top, 0o755), os.Mkdir(victim, 0o755), os.Mkdir(data, 0o755), os.Symlink(victim, dir),
		os.Lchown(dir, guest, group), os.Chown(data, guest, group))
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range []*remote.Guest{nil, {UID: guest, GID: group}} {
		err := remote.Serve(t.Context(), remote.ServeOptions{
			Dir: dir, Guest: g, Log: slog.New(slog.DiscardHandler),
			Runner: fakerunner.New(func(runner.Spec) fakerunner.Behaviour { return fakerunner.Behaviour{} }),
		})
		if err == nil || !strings.Contains(err.Error(), "belongs to user number 54321") {
			t.Errorf("guest %v: %v, want whose it is", g, err)
		}
	}
	info, err := os.Stat(victim)
	if err != nil || info.Mode().Perm() != 0o755 || info.Sys().(*syscall.Stat_t).Gid == group {
		t.Errorf("behind the link: %v, %v", info, err)
	}
	if in, err := os.ReadDir(victim); err != nil || len(in) > 0 {
		t.Errorf("behind the link there is %v, %v", in, err)
	}
}
