package remote

import (
	"fmt"
	"log/slog"
	"net"
	"os"
)

// Guest is a user other than the runner's who may be its agent.
type Guest struct {
	UID, GID int
}

// mode of the runner's directory: a guest's group may pass through it to the socket,
// and can't list it.
func (g *Guest) mode() os.FileMode {
	if g == nil {
		return 0o700
	}
	return 0o710
}

// admit lets a guest come to a directory that was made, or to the socket in it.
func (g *Guest) admit(name string, mode os.FileMode) error {
	if g == nil {
		return nil
	}
	if err := os.Chown(name, -1, g.GID); err != nil {
		return fmt.Errorf("let the agent's group come to %q: %w", name, err)
	}
	if err := os.Chmod(name, mode); err != nil {
		return fmt.Errorf("let the agent's group come to %q: %w", name, err)
	}
	return nil
}

// guarded takes connections of some users alone. Who may write to the socket is not
// enough to go by: a group may have more members than its administrator knows.
type guarded struct {
	net.Listener
	guest *Guest
	log   *slog.Logger
}

// Accept closes the connections of others, and leaves it at that: they are told
// nothing by a process that has more rights than they.
func (l guarded) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(c)
		if err == nil && l.mayEnter(uid) {
			return c, nil
		}
		l.log.Warn("refused somebody who is neither the agent nor root", "uid", uid, "err", err)
		_ = c.Close()
	}
}

// mayEnter reports whether a user may be served: the runner's own, root, who could be
// anybody, and the guest.
func (l guarded) mayEnter(uid int) bool {
	return uid == os.Geteuid() || uid == 0 || l.guest != nil && uid == l.guest.UID
}
