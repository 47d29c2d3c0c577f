package server

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// hasLeft tells whether the other end of a connection has closed it already. Nobody who
// speaks HTTP/2 closes one half only. One that can't be asked is still there.
func hasLeft(conn net.Conn) bool {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	left := false
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		left = err == nil && (info.State == unix.BPF_TCP_CLOSE_WAIT || info.State == unix.BPF_TCP_CLOSE)
	})
	return err == nil && left
}
