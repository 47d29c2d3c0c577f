package clusternet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// creds are the credentials of one end of gRPC on the cluster port: of the
// server, or of the client of one address. In the server's handshake the
// connections for Raft are taken out.
type creds struct {
	network *Network
	address string // "": the server's
}

// authInfo is what is known of the other end of a connection of gRPC with TLS.
type authInfo struct {
	credentials.TLSInfo
	primary string // its id
}

func newAuthInfo(s tls.ConnectionState) (authInfo, error) {
	id, err := primaryOf(s.PeerCertificates[0])
	if err != nil {
		return authInfo{}, err
	}
	return authInfo{credentials.TLSInfo{
		State:          s,
		SPIFFEID:       s.PeerCertificates[0].URIs[0],
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, id}, nil
}

// ClientHandshake implements [credentials.TransportCredentials]. All primaries
// have one name in certificates, so the authority does not matter.
func (c *creds) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	because := func(err error) error { return fmt.Errorf("%s: %w", c.address, explain(err)) }
	if c.network.tls == nil {
		conn, info, err := insecure.NewCredentials().ClientHandshake(ctx, authority, raw)
		return &greeting{Conn: conn, explain: because}, info, err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn := tls.Client(raw, c.network.tls.dialGRPC)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, nil, because(err)
	}
	info, err := newAuthInfo(conn.ConnectionState())
	return &greeting{Conn: conn, explain: because}, info, err
}

// ServerHandshake implements [credentials.TransportCredentials]. The error is
// [credentials.ErrConnDispatched] for a connection that is Raft's now.
func (c *creds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	n, from := c.network, host(raw.RemoteAddr())
	if !n.handshakes.begin(raw) {
		return nil, nil, net.ErrClosed
	}
	a, err := n.receive(raw)
	if cut := n.handshakes.end(raw); cut != nil && err != nil {
		err = cut
	}
	if err == nil {
		return a.conn, a.info, nil
	}
	if !expected(err) && n.complaints.due(from, time.Now()) {
		n.log.Warn("refused a connection to the cluster port", "from", from, "err", err)
	}
	return nil, nil, err
}

// expected tells an end of a handshake that nobody has to hear of: it is Raft's,
// somebody only looked whether the port is open, or this primary stops.
func expected(err error) bool {
	return errors.Is(err, credentials.ErrConnDispatched) || errors.Is(err, io.EOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, errStoppingHere)
}

// Info implements [credentials.TransportCredentials].
func (c *creds) Info() credentials.ProtocolInfo {
	if c.network.tls == nil {
		return insecure.NewCredentials().Info()
	}
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements [credentials.TransportCredentials]. They never change.
func (c *creds) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements [credentials.TransportCredentials].
func (c *creds) OverrideServerName(string) error {
	return errors.New("primaries have one name in certificates, and it can't be overridden")
}
