package gateway

import (
	"context"
	"net"
	"runtime"
	"slices"
	"sync"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	grpcpeer "google.golang.org/grpc/peer"
)

// A load balancer that restarts ends ten thousand connections in one moment. What is to be
// done about each is much for gRPC and for a session: to close a file, and to wake five
// goroutines, one by the other. What came a moment later, as the call of somebody who wants a
// run, would wait behind all of that; and the leader would hear of the last end when all
// others are cleaned up, and give runs to workers that are gone.
//
// So the end of a connection is known in the moment in which it is read. The leader hears of
// it at once, which costs next to nothing; then it waits for its turn to be cleaned up.

// Credentials are for the gRPC server that the gateway is registered with. They secure
// nothing: by them the gateway knows connections. Without them it hears of an end when
// gRPC is done with it.
func (s *Server) Credentials() credentials.TransportCredentials {
	return knowing{insecure.NewCredentials(), &turnstile{}}
}

// knowing are credentials that have each stream know its connection.
type knowing struct {
	credentials.TransportCredentials
	exit *turnstile
}

// ServerHandshake implements [credentials.TransportCredentials].
func (k knowing) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	raw, info, err := k.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	c := &connection{Conn: raw, readable: newReadable(raw), exit: k.exit}
	return c, knownBy{info, c}, nil
}

// Clone implements [credentials.TransportCredentials].
func (k knowing) Clone() credentials.TransportCredentials {
	return knowing{k.TransportCredentials.Clone(), k.exit}
}

// knownBy is what a stream knows of its connection.
type knownBy struct {
	credentials.AuthInfo
	connection *connection
}

// connectionOf returns the connection of a stream, or nil if it is not known.
func connectionOf(ctx context.Context) *connection {
	if p, ok := grpcpeer.FromContext(ctx); ok {
		if k, ok := p.AuthInfo.(knownBy); ok {
			return k.connection
		}
	}
	return nil
}

// connection is one of gRPC's, and the sessions that it carries: one, or those of many
// workers that come through one load balancer.
type connection struct {
	net.Conn
	readable *readable // nil: by Read alone
	exit     *turnstile

	mu       sync.Mutex // guards what follows
	ended    bool
	sessions []*session
}

// Read implements [net.Conn]. An error is the end.
func (c *connection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.over()
	}
	return n, err
}

// over is the end, up to where gRPC may clean up.
func (c *connection) over() {
	for _, with := range c.end() {
		with.detach()
	}
	c.exit.pass()
}

// end takes note of the end, and returns the sessions that end with it.
func (c *connection) end() []*session {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.sessions
	c.ended, c.sessions = true, nil
	return all
}

// join notes a session that the connection carries.
func (c *connection) join(n *session) {
	if c == nil {
		return
	}
	if !c.carries(n) {
		n.detach()
	}
}

// carries notes a session, unless the connection has ended.
func (c *connection) carries(n *session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.sessions = append(c.sessions, n)
	}
	return !c.ended
}

// leave forgets a session that has ended by itself.
func (c *connection) leave(n *session) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.sessions, n); i >= 0 {
		c.sessions = slices.Delete(c.sessions, i, i+1)
	}
}

// turnstile lets a few pass in each turn, and begins the next one when all that was ready to
// run has had its own: also what had to be done for those who have passed.
type turnstile struct {
	mu     sync.Mutex
	passed int // guarded by mu
}

// few is how many pass in a turn. In one turn of a listener a single connection comes in, so
// that those that have ended never become more and more.
const few = 4

func (t *turnstile) pass() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.passed++; t.passed%few == 0 {
		runtime.Gosched()
	}
}
