package clusternet

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// setUnackedTimeout ends the connection when what was sent stays unacknowledged
// for so long.
func setUnackedTimeout(conn *net.TCPConn, d time.Duration) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
	return errors.Join(err, set)
}
