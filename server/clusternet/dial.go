package clusternet

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"time"
)

// How connections notice that the other end has gone without a word. Raft sets no
// deadline on those that it has accepted, so the kernel has to tell.
const (
	keepaliveIdle     = 15 * time.Second // silence after which the kernel asks
	keepaliveInterval = 5 * time.Second  // and asks again
	keepaliveCount    = 3                // so often
	// unackedTimeout is how long what was sent may stay unacknowledged, on Linux.
	unackedTimeout = 20 * time.Second
)

var keepalive = net.KeepAliveConfig{
	Enable: true, Idle: keepaliveIdle, Interval: keepaliveInterval, Count: keepaliveCount,
}

// dialTCP connects to an address.
func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: keepalive}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	tune(conn)
	return conn, nil
}

// tune has the kernel watch a connection. It is best effort: a connection that
// can't be watched is one all the same.
func tune(conn net.Conn) {
	if c, ok := conn.(*net.TCPConn); ok {
		_ = c.SetKeepAliveConfig(keepalive)
		_ = setUnackedTimeout(c, unackedTimeout)
	}
}

// openRaft makes a connection for Raft.
func (n *Network) openRaft(ctx context.Context, address string) (net.Conn, error) {
	raw, err := n.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	conn, err := n.greetRaft(ctx, raw)
	if err != nil {
		_ = raw.Close() // the other error says why
		return nil, explain(err)
	}
	return conn, nil
}

// greetRaft does the dialler's part of the handshake of a connection for Raft.
func (n *Network) greetRaft(ctx context.Context, raw net.Conn) (net.Conn, error) {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = raw.Close() // what waits for it then ends
		close(ended)
	})
	conn, err := n.greet(ctx, raw)
	if !stop() {
		<-ended
		return nil, ctx.Err()
	}
	return conn, err
}

func (n *Network) greet(ctx context.Context, raw net.Conn) (net.Conn, error) {
	conn := raw
	if n.tls != nil {
		secured := tls.Client(raw, n.tls.dialRaft)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = secured
	} else if _, err := io.WriteString(raw, raftPreface); err != nil {
		return nil, err
	}
	if err := readAnswer(conn); err != nil {
		return nil, err
	}
	return conn, nil
}
