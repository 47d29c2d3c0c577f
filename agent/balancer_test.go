package agent_test

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// balancer is a load balancer that knows bytes and nothing else, in front of
// gateways of which some may be dead.
type balancer struct {
	backends []*gateway    // in turn; nil is a host that is gone. See put
	hang     bool          // it takes connections to a dead one and keeps them; else it closes them
	idle     time.Duration // cuts connections on which nothing came for so long; 0: it does not
	age      time.Duration // cuts connections of this age; 0: it does not

	mu    sync.Mutex // guards all below
	dials int
	lines map[*line]struct{}
}

func (b *balancer) dial(ctx context.Context, addr string) (net.Conn, error) {
	b.mu.Lock()
	backend := b.backends[b.dials%len(b.backends)]
	b.dials++
	b.mu.Unlock()
	if backend != nil {
		conn, err := backend.dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		return b.carry(conn), nil
	}
	here, there := net.Pipe()
	if b.hang {
		go func() { _, _ = io.Copy(io.Discard, there) }() // ends with here
		return here, nil
	}
	return here, there.Close()
}

// put has the balancer use another gateway in the place of one, nil for none.
func (b *balancer) put(at int, g *gateway) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backends[at] = g
}

// line is a connection through the balancer, as the worker has it.
type line struct {
	net.Conn
	balancer *balancer
	idle     *time.Timer
}

func (b *balancer) carry(conn net.Conn) net.Conn {
	l := &line{Conn: conn, balancer: b}
	cut := func() { _ = conn.Close() }
	if b.age > 0 {
		time.AfterFunc(b.age, cut)
	}
	l.idle = time.AfterFunc(never, cut)
	l.touch()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lines == nil {
		b.lines = make(map[*line]struct{})
	}
	b.lines[l] = struct{}{}
	return l
}

// never is longer than any test.
const never = 1000 * time.Hour

func (l *line) touch() {
	if l.balancer.idle > 0 {
		l.idle.Reset(l.balancer.idle)
	}
}

func (l *line) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if n > 0 {
		l.touch()
	}
	return n, err
}

func (l *line) Write(p []byte) (int, error) {
	l.touch()
	return l.Conn.Write(p)
}

func (l *line) Close() error {
	l.idle.Stop()
	l.balancer.mu.Lock()
	delete(l.balancer.lines, l)
	l.balancer.mu.Unlock()
	return l.Conn.Close()
}

// restart cuts all connections.
func (b *balancer) restart() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for l := range b.lines {
		_ = l.Conn.Close()
	}
}

// behind lets the world's workers dial through a load balancer.
func (w *world) behind(b *balancer) *balancer {
	w.dial = b.dial
	return b
}
