package systest

import (
	"context"
	"errors"
	"net"
	"sync"

	"google.golang.org/grpc/test/bufconn"
)

// network is all that lies between the primary and the others.
type network struct {
	mu       sync.Mutex
	listener *bufconn.Listener // nil: nobody listens
	links    []*link
	delay    func() // bytes take so long to arrive; nil: no time
}

var (
	errRefused = errors.New("connection refused")
	errNoRoute = errors.New("no route to host")
)

// listen lets a primary be dialled from now on.
func (n *network) listen() *bufconn.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listener = bufconn.Listen(64 << 10)
	return n.listener
}

// newLink returns somebody's way to the primary.
func (n *network) newLink() *link {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &link{net: n, cables: map[*cable]struct{}{}, flowing: closed()}
	n.links = append(n.links, l)
	return l
}

// vanish takes the primary off the network: nothing that it sent and that nobody
// has read yet arrives any more, and nobody can dial it.
func (n *network) vanish() {
	n.mu.Lock()
	n.listener = nil
	links := n.links
	n.mu.Unlock()
	for _, l := range links {
		l.reset()
	}
}

// takes has all bytes take as long as d takes, at the dialling end.
func (n *network) takes(d func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = d
}

func (n *network) delays() func() {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.delay
}

func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// link is the way from one host to the primary.
type link struct {
	net *network

	mu      sync.Mutex
	down    bool // dials fail
	cables  map[*cable]struct{}
	flowing chan struct{} // closed while bytes pass
}

// dial connects to the primary that listens at present.
func (l *link) dial(ctx context.Context, _ string) (net.Conn, error) {
	l.net.mu.Lock()
	listener := l.net.listener
	l.net.mu.Unlock()
	l.mu.Lock()
	down := l.down
	l.mu.Unlock()
	switch {
	case down:
		return nil, errNoRoute
	case listener == nil:
		return nil, errRefused
	}
	conn, err := listener.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	c := &cable{Conn: conn, link: l, over: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cables[c] = struct{}{}
	return c, nil
}

// reset breaks all connections.
func (l *link) reset() {
	l.mu.Lock()
	var all []*cable
	for c := range l.cables {
		all = append(all, c)
	}
	l.mu.Unlock()
	for _, c := range all {
		_ = c.Close() // an in-memory pipe
	}
}

// cut breaks all connections, and lets none be made until mend.
func (l *link) cut() {
	l.mu.Lock()
	l.down = true
	l.mu.Unlock()
	l.reset()
}

// freeze lets nothing pass on the connections that are there, in either
// direction, until thaw or until somebody gives them up. New ones work, unless
// the link is cut too: so a load balancer that forgot a flow behaves.
func (l *link) freeze() {
	l.mu.Lock()
	defer l.mu.Unlock()
	gate := make(chan struct{})
	for c := range l.cables {
		c.setGate(gate)
	}
	l.flowing = gate
}

// thaw lets everything pass that was held up.
func (l *link) thaw() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.flowing:
	default:
		close(l.flowing)
	}
}

func (l *link) mend() {
	l.thaw()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}

// cable is one connection, at the end of who dialled it.
type cable struct {
	net.Conn
	link *link
	once sync.Once
	over chan struct{} // closed by Close

	mu   sync.Mutex
	gate chan struct{} // nil or closed: bytes pass
}

func (c *cable) setGate(gate chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gate = gate
}

// pass waits while nothing passes.
func (c *cable) pass() error {
	c.mu.Lock()
	gate := c.gate
	c.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-c.over:
		}
	}
	select {
	case <-c.over:
		return net.ErrClosed
	default:
		return nil
	}
}

// Read holds up what had not arrived yet when the connection froze, and loses it
// when the connection breaks.
func (c *cable) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if d := c.link.net.delays(); d != nil {
		d()
	}
	if gone := c.pass(); gone != nil {
		return 0, gone
	}
	return n, err
}

// Write waits while the connection is frozen, as one does whose buffers are full.
func (c *cable) Write(p []byte) (int, error) {
	if err := c.pass(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *cable) Close() error {
	c.once.Do(func() {
		close(c.over)
		c.link.mu.Lock()
		delete(c.link.cables, c)
		c.link.mu.Unlock()
	})
	return c.Conn.Close()
}
