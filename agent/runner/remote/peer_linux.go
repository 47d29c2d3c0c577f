package remote

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peerUID returns the user of the process at the other end, as it was when that
// connected: the kernel says it, and not the peer.
func peerUID(c net.Conn) (uid int, err error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return -1, fmt.Errorf("a connection of kind %T has no user", c)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return -1, err
	}
	var who *unix.Ucred
	cerr := raw.Control(func(fd uintptr) {
		who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(cerr, err); err != nil {
		return -1, fmt.Errorf("ask who has connected: %w", err)
	}
	return int(who.Uid), nil
}
