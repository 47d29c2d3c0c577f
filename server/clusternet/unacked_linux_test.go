package clusternet

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// Both ends of a connection notice when the other one is gone.
func TestKernelWatchesConnections(t *testing.T) {
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{Listener: port, handshakes: &handshakes{}}
	defer l.Close()
	dialled, err := dialTCP(t.Context(), port.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialled.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	for name, conn := range map[string]net.Conn{"dialled": dialled, "accepted": accepted.(*incoming).Conn} {
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			for _, o := range []struct {
				what              string
				level, name, want int
			}{
				{"keepalive", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
				{"idle seconds", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},
				{"seconds between", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 5},
				{"probes", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
				{"unacked milliseconds", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 20000},
			} {
				if got, err := unix.GetsockoptInt(int(fd), o.level, o.name); err != nil || got != o.want {
					t.Errorf("%s, %s: %d, %v; want %d", name, o.what, got, err, o.want)
				}
			}
		})
	}
}
