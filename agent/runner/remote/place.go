package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"

	"github.com/schedd/schedd/agent/runner/trust"
)

// ErrInUse is returned by [Serve] for a directory that another runner has.
var ErrInUse = errors.New("another runner uses it")

// How long a lock is tried for, and how often: a former runner that was killed
// amid a fork has it until its child has started.
const (
	lockPatience = time.Second
	lockAgain    = 20 * time.Millisecond
)

// makeOwn makes the directory. For root it must not be where somebody else could have
// put a link, or can: root would make, open and give away files through it.
func makeOwn(dir string) error {
	trusted := func() error { return nil }
	if os.Geteuid() == 0 {
		dir, err := filepath.Abs(dir)
		if err != nil {
			return fmt.Errorf("make the runner's directory: %w", err)
		}
		trusted = func() error {
			if err := trust.Path(dir); err != nil {
				return fmt.Errorf("runner's directory %q is no place for one that is root: %w", dir, err)
			}
			return nil
		}
	}
	if err := trusted(); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the runner's directory: %w", err)
	}
	return trusted() // in a directory such as /tmp another may have been faster
}

// occupy makes the directory, which is for its user alone and perhaps a guest, and
// locks it.
func occupy(ctx context.Context, dir string, guest *Guest) (*flock.Flock, error) {
	if err := makeOwn(dir); err != nil {
		return nil, err
	}
	if err := guest.admit(dir, guest.mode()); err != nil {
		return nil, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("look at the runner's directory: %w", err)
	}
	if info.Mode().Perm()&^guest.mode() != 0 {
		return nil, fmt.Errorf("others may enter the runner's directory %q (mode %v), and whoever can may run programs through it: chmod %o it", dir, info.Mode().Perm(), guest.mode())
	}
	lock := flock.New(filepath.Join(dir, lockFile))
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	ours, err := lock.TryLockContext(ctx, lockAgain)
	switch {
	case ours:
		return lock, nil
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("runner's directory %q: %w", dir, ErrInUse)
	}
	return nil, fmt.Errorf("lock the runner's directory %q: %w", dir, err)
}

// listen makes the socket in place of what a former runner left. The caller has
// the lock.
func listen(dir string, guest *Guest) (net.Listener, error) {
	if err := os.Remove(filepath.Join(dir, socketFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket of a former runner: %w", err)
	}
	var l *net.UnixListener
	err := within(dir, func(socket string) (err error) {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen for the agent: %w", err)
	}
	l.SetUnlinkOnClose(false) // the name may be the next runner's by then
	if err := guest.admit(filepath.Join(dir, socketFile), 0o660); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// dial connects to the runner in dir.
func dial(ctx context.Context, dir string) (c net.Conn, err error) {
	err = within(dir, func(socket string) error {
		c, err = new(net.Dialer).DialContext(ctx, "unix", socket)
		return err
	})
	return c, err
}

// within calls f with a name of the socket in dir. What the kernel takes is short,
// and a data directory may have a long name: then it is named by a descriptor.
func within(dir string, f func(socket string) error) error {
	const most = 100
	socket := filepath.Join(dir, socketFile)
	if len(socket) <= most || runtime.GOOS != "linux" {
		return f(socket)
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketFile))
}
