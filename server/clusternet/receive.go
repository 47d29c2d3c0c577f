package clusternet

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// maxUnread is how much of a connection that was refused is read and dropped.
const maxUnread = 64 << 10

// arrival is an accepted connection of which is known what it is for.
type arrival struct {
	conn     net.Conn
	protocol string
	info     credentials.AuthInfo
}

// receive does the acceptor's part of a handshake. A connection that is for Raft
// is given to Raft. The error is io.EOF for one that ends without a word.
func (n *Network) receive(raw net.Conn) (arrival, error) {
	conn := raw
	in, wrapped := raw.(*incoming)
	if wrapped {
		conn = in.Conn
	}
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return arrival{}, fmt.Errorf("set a deadline: %w", err)
	}
	a, err := n.identify(conn)
	if err != nil || a.protocol == protocolGRPC {
		return a, err // gRPC has its own part to do before it clears the deadline
	}
	if wrapped {
		in.taken.Store(true)
	}
	return a, n.giveToRaft(a.conn)
}

// identify finds out what a connection is for, and, with TLS, whose it is.
func (n *Network) identify(conn net.Conn) (arrival, error) {
	begins, read, err := readBeginning(conn)
	switch {
	case err != nil && len(read) == 0 && !timedOut(err):
		return arrival{}, io.EOF // also when it ended harshly, as those end that look whether a port is open
	case err != nil:
		return arrival{}, explain(err)
	}
	again := &replayed{Conn: conn, again: read}
	switch {
	case begins == beginsTLS && n.tls != nil:
		return n.identifyTLS(again)
	case begins == beginsTLS:
		return arrival{}, refuse(conn, refuseNoTLS, errTheySpeakTLS)
	case n.tls != nil:
		return arrival{}, refuse(conn, refuseTLS, errTheyHaveNoTLS)
	case begins == beginsRaft:
		return arrival{conn: conn, protocol: protocolRaft}, nil
	}
	_, info, err := insecure.NewCredentials().ServerHandshake(conn)
	return arrival{conn: again, protocol: protocolGRPC, info: info}, err
}

func (n *Network) identifyTLS(raw net.Conn) (arrival, error) {
	conn := tls.Server(raw, n.tls.accept)
	if err := conn.Handshake(); err != nil { //nolint:noctx // it has a deadline
		drain(raw)
		return arrival{}, explain(err)
	}
	state := conn.ConnectionState()
	info, err := newAuthInfo(state)
	return arrival{conn: conn, protocol: state.NegotiatedProtocol, info: info}, err
}

// giveToRaft answers a connection for Raft, and has it wait for Raft to accept
// it. On success the error is [credentials.ErrConnDispatched].
func (n *Network) giveToRaft(conn net.Conn) error {
	switch n.streams.reserve() {
	case refuseFull:
		return refuse(conn, refuseFull, errFullHere)
	case refuseClosed:
		return refuse(conn, refuseClosed, errStoppingHere)
	}
	_, err := io.WriteString(conn, raftPreface)
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		n.streams.release()
		return explain(err)
	}
	if !n.streams.put(conn) {
		return errStoppingHere
	}
	return credentials.ErrConnDispatched
}

// refuse writes a refusal to a connection, and returns the reason.
func refuse(conn net.Conn, line string, reason error) error {
	if _, err := io.WriteString(conn, line); err == nil {
		drain(conn)
	}
	return reason
}

// drain reads what the other end of a refused connection had sent, until it has
// understood and closes, or the deadline is there. TCP throws away what we said
// last when a connection is closed with bytes that nobody has read.
func drain(conn net.Conn) {
	_, _ = io.CopyN(io.Discard, conn, maxUnread)
}

// host returns an address without its port, which is another each time.
func host(a net.Addr) string {
	h, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return h
}
