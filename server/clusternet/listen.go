package clusternet

import (
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// handshakeTimeout is how long an accepted connection may take to show whose it
	// is and what it is for, and a dialled one of gRPC to learn the same.
	handshakeTimeout = 5 * time.Second
	// maxHandshakes is how many accepted connections may be about it at a time.
	maxHandshakes = 256
)

// listener is the cluster port as the gRPC server sees it.
type listener struct {
	net.Listener
	handshakes *handshakes
	closed     atomic.Bool
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tune(conn)
	return &incoming{Conn: conn}, nil
}

// Close implements [net.Listener]. The gRPC server waits for its handshakes after
// it has closed its listener, so they are ended here. Closing again does nothing.
func (l *listener) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	err := l.Listener.Close()
	l.handshakes.close()
	return err
}

// incoming is an accepted connection as the gRPC server sees it, which clears the
// deadline after the handshake: also of a connection that is Raft's by then, and
// may have a deadline of Raft's.
type incoming struct {
	net.Conn
	taken atomic.Bool // it is Raft's
}

// SetDeadline implements [net.Conn].
func (c *incoming) SetDeadline(t time.Time) error {
	if c.taken.Load() {
		return nil
	}
	return c.Conn.SetDeadline(t)
}

// handshakes are the accepted connections that have not yet shown whose they are.
// The zero value has none.
type handshakes struct {
	running sync.WaitGroup

	mu     sync.Mutex // guards what follows
	open   []net.Conn // the oldest first
	closed bool
}

// begin counts a connection in, and reports whether there is time for it. When
// there are too many, the oldest has to go: an honest handshake takes
// milliseconds, so that the oldest are those of nobody.
func (h *handshakes) begin(c net.Conn) bool {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return false
	}
	h.running.Add(1)
	var oldest net.Conn
	if len(h.open) >= maxHandshakes {
		oldest = h.open[0]
		h.open = slices.Delete(h.open, 0, 1)
	}
	h.open = append(h.open, c)
	h.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close() // its handshake fails, and says so
	}
	return true
}

// end counts it out. The error says why the connection was closed by begin or
// close, if it was.
func (h *handshakes) end(c net.Conn) error {
	defer h.running.Done()
	h.mu.Lock()
	defer h.mu.Unlock()
	switch i := slices.Index(h.open, c); {
	case h.closed:
		return net.ErrClosed
	case i < 0:
		return errCrowd
	default:
		h.open = slices.Delete(h.open, i, i+1)
		return nil
	}
}

// close ends all, and lets none begin.
func (h *handshakes) close() {
	h.mu.Lock()
	open := h.open
	h.open, h.closed = nil, true
	h.mu.Unlock()
	for _, c := range open {
		_ = c.Close() // likewise
	}
}

// wait returns when all have ended, which close has asked of them.
func (h *handshakes) wait() { h.running.Wait() }
