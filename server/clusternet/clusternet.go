// Package clusternet is how primaries reach each other: one port, the cluster
// port, that carries Raft and gRPC, mutually authenticated.
//
// It knows neither Raft nor what is called by gRPC, decides nothing, and keeps
// nothing on disk. Workers and people never come here: they have a port of their
// own, and no load balancer stands in front of this one.
//
// # One port
//
// With a key, every connection is TLS, and ALPN says what it is for:
// "schedd-raft/1" or "h2". Without one, who dials for Raft first writes the same
// name as a line, and a client of gRPC begins with the preface of HTTP/2; so the
// first byte tells, and all of the preface is then held to it. Either way the
// gRPC server accepts all connections, and in its handshake those of Raft are
// taken out and handed to [Streams]. The acceptor answers a connection for Raft
// with that same line, so that a dial which succeeds has reached a primary that
// takes it. Refusals are a line too, which begins with "schedd: ".
//
// # One key
//
// All that a user has to give to the primaries is one file of 32 random bytes.
// From it each derives, by HKDF, the same authority: an Ed25519 key and a
// certificate that are alike to the bit. With it each issues to itself
// certificates that are good for a day, and renews them when two thirds of that
// are over. They live in memory: there are no files to distribute, to renew or to
// forget. A certificate says that its owner is a primary, and which; both ends
// ask for it, and check that.
//
// Who does not have the key, but reaches the port, can read and change nothing:
// TLS 1.3 it is, and a certificate of that authority is asked for before the first
// byte is heeded. It can make connections that say nothing, which cost little and
// end after five seconds. It can see who talks with whom, how much and when, and
// cut that; Raft stands it.
//
// Who has the key is a primary: it can call itself by any id, vote, lead, and so
// run programs on all workers. It cannot read what was recorded from the wire
// before, since each connection has fresh secrets. A certificate alone, without
// the key, is worth a day at most. To change the key, stop all primaries and
// start them with the new one.
//
// Without a key all this is void: whoever reaches the port is a primary.
package clusternet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/peer"

	"github.com/schedd/schedd/proto/wire"
)

// maxMessage is the largest message on the cluster port, in bytes, in either
// direction: what one primary hands on for another may be an answer of the API.
const maxMessage = wire.MaxResponse

// How primaries redial one another: sooner than workers and people redial them.
// They are few, and what waits for them is the whole group. One that nothing was
// heard of is given up soon, since a network that is mended answers at once, and a
// SYN that was lost is repeated ever more rarely.
const (
	redialBase   = 100 * time.Millisecond
	redialMax    = time.Second
	redialGiveUp = 3 * time.Second
)

// Config is what a network is made of. All of it but Key and Dial is required.
type Config struct {
	// NodeID is this primary's id: what its certificates say that it is.
	NodeID string
	// Listener is the cluster port. The network closes it, also when it can't be
	// opened.
	Listener net.Listener
	// Advertise is the address, host:port, that the others dial. Nothing here
	// dials it; it is what Addr of [Streams] says.
	Advertise string
	// Key is the cluster's key, 32 bytes, see [ParseKey]. nil: no TLS, and whoever
	// reaches the port is a primary.
	Key []byte
	// Dial connects to another primary, and gives up when ctx is done; for tests.
	// nil: TCP, and never through a proxy.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Log is told which connections were refused, and why.
	Log *slog.Logger
}

// check returns what is wrong with the configuration.
func (c Config) check() error {
	switch {
	case c.NodeID == "" || c.Listener == nil || c.Advertise == "" || c.Log == nil:
		return errors.New("it needs a NodeID, a Listener, an Advertise and a Log")
	case c.Key != nil && len(c.Key) != keySize:
		return fmt.Errorf("the key has %d bytes and must have %d", len(c.Key), keySize)
	}
	return nil
}

// Network is this primary's end of the cluster port, and its way to those of the
// others. Its methods may be called by several goroutines at once.
type Network struct {
	listener   *listener
	streams    *Streams
	handshakes *handshakes
	complaints *complaints
	tls        *tlsConfigs // nil: no TLS
	dial       func(ctx context.Context, address string) (net.Conn, error)
	log        *slog.Logger

	mu     sync.Mutex // guards what follows
	conns  map[way]*grpc.ClientConn
	closed bool
}

// way is a connection that is kept: where to, and what for.
type way struct {
	address string
	bulk    bool
}

// Open makes a network. Nothing is accepted before a gRPC server, made with its
// ServerOptions, serves its Listener. Whoever opens a network has to Close it.
func Open(c Config) (*Network, error) {
	n, err := open(c)
	if err != nil && c.Listener != nil {
		err = errors.Join(err, c.Listener.Close())
	}
	return n, err
}

func open(c Config) (*Network, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("opening the cluster port: %w", err)
	}
	n := &Network{
		handshakes: &handshakes{}, complaints: &complaints{}, dial: c.Dial, log: c.Log,
		conns: map[way]*grpc.ClientConn{},
	}
	if n.dial == nil {
		n.dial = dialTCP
	}
	if c.Key != nil {
		id, err := newIdentity(c.Key, c.NodeID)
		if err != nil {
			return nil, fmt.Errorf("opening the cluster port: %w", err)
		}
		n.tls = newTLSConfigs(id)
	}
	n.listener = &listener{Listener: c.Listener, handshakes: n.handshakes}
	n.streams = newStreams(c.Advertise, n.openRaft)
	return n, nil
}

// ServerOptions returns the options of the gRPC server that serves Listener.
func (n *Network) ServerOptions() []grpc.ServerOption {
	return append(wire.ServerOptions(),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.Creds(&creds{network: n}),
	)
}

// Listener returns what the gRPC server serves on. Closing it ends handshakes
// that are under way.
func (n *Network) Listener() net.Listener { return n.listener }

// Streams returns the connections for Raft.
func (n *Network) Streams() *Streams { return n.streams }

// Conn returns the connection for control to the primary at address, host:port.
// It is one and the same each time, and connects when it is used. Nobody but the
// network closes it.
func (n *Network) Conn(address string) (*grpc.ClientConn, error) {
	return n.conn(way{address: address})
}

// BulkConn returns another connection to that primary, for the output of jobs, so
// that a flood of it never delays control.
func (n *Network) BulkConn(address string) (*grpc.ClientConn, error) {
	return n.conn(way{address: address, bulk: true})
}

func (n *Network) conn(w way) (*grpc.ClientConn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, fmt.Errorf("connect to %s: %w", w.address, net.ErrClosed)
	}
	if c := n.conns[w]; c != nil {
		return c, nil
	}
	c, err := n.newConn(w.address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", w.address, err)
	}
	n.conns[w] = c
	return c, nil
}

// newConn makes a connection, which does not connect yet. Its dialer is ours, so
// that a proxy that the environment names is not asked: Raft would not be either.
func (n *Network) newConn(address string) (*grpc.ClientConn, error) {
	if address == "" {
		return nil, errors.New("no address was given")
	}
	options := append(wire.DialOptions(),
		grpc.WithTransportCredentials(&creds{network: n, address: address}),
		grpc.WithContextDialer(n.dial),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: redialBase, Multiplier: 2, Jitter: 0.2, MaxDelay: redialMax},
			MinConnectTimeout: redialGiveUp,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
	)
	return grpc.NewClient("passthrough:///"+address, options...)
}

// Forget closes the connections to an address that has left the group. What is
// being called on them fails as canceled.
func (n *Network) Forget(address string) {
	var old []*grpc.ClientConn
	n.mu.Lock()
	for _, w := range []way{{address: address}, {address: address, bulk: true}} {
		if c := n.conns[w]; c != nil {
			old = append(old, c)
			delete(n.conns, w)
		}
	}
	n.mu.Unlock()
	closeAll(old)
}

// PeerID returns the id of the primary that calls: what its certificate proves.
// ok is false where there is none: without TLS, and for calls that did not come
// through a [Network].
func PeerID(ctx context.Context) (id string, ok bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", false
	}
	info, ok := p.AuthInfo.(authInfo)
	return info.primary, ok
}

// Close closes the port, all connections that were made here, those that Raft has
// not taken yet, and waits until nothing is under way any more. Connections that
// Raft has are its own; so are those of the gRPC server, which is stopped first.
// Closing again does nothing.
func (n *Network) Close() error {
	n.mu.Lock()
	conns, again := n.conns, n.closed
	n.conns, n.closed = nil, true
	n.mu.Unlock()
	if again {
		return nil
	}
	err := n.listener.Close()
	_ = n.streams.Close() // it has nothing to say
	for _, c := range conns {
		_ = c.Close()
	}
	n.handshakes.wait()
	if err != nil {
		return fmt.Errorf("closing the cluster port: %w", err)
	}
	return nil
}

func closeAll(conns []*grpc.ClientConn) {
	for _, c := range conns {
		_ = c.Close() // it only ever says that it was closed before
	}
}
