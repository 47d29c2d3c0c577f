package clusternet

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// maxWaiting is how many connections may wait for Raft to accept them. Raft has a
// few with each other primary; more wait only when it accepts none any more.
const maxWaiting = 64

// Streams are the connections for Raft: those that others have made, and those to
// others. It is a [net.Listener], and dials too. Its methods may be called by
// several goroutines at once.
type Streams struct {
	addr advertised
	open func(ctx context.Context, address string) (net.Conn, error)

	dialling sync.WaitGroup

	mu       sync.Mutex // guards what follows
	arrived  *sync.Cond // of mu: waiting or closed has changed
	waiting  []net.Conn // the first that came first
	reserved int        // places for more, which are being answered
	dials    map[*context.CancelFunc]struct{}
	moved    map[string]string // see Redirect
	closed   bool
}

func newStreams(advertise string, open func(context.Context, string) (net.Conn, error)) *Streams {
	s := &Streams{addr: advertised(advertise), open: open, dials: map[*context.CancelFunc]struct{}{}}
	s.arrived = sync.NewCond(&s.mu)
	return s
}

// advertised is an address that others dial.
type advertised string

// Network implements [net.Addr].
func (a advertised) Network() string { return "tcp" }

// String implements [net.Addr].
func (a advertised) String() string { return string(a) }

// Addr returns the address that the others dial.
func (s *Streams) Addr() net.Addr { return s.addr }

// Accept waits for a connection that another primary has made for Raft; who it is
// has been checked. After Close the error is [net.ErrClosed].
func (s *Streams) Accept() (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.waiting) == 0 && !s.closed {
		s.arrived.Wait()
	}
	if s.closed {
		return nil, fmt.Errorf("accept a connection for Raft: %w", net.ErrClosed)
	}
	conn := s.waiting[0]
	s.waiting = s.waiting[1:]
	return conn, nil
}

// reserve keeps a place for a connection, which put or release has to be called
// for. Without one it returns a refusal.
func (s *Streams) reserve() (refused string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return refuseClosed
	case len(s.waiting)+s.reserved >= maxWaiting:
		return refuseFull
	}
	s.reserved++
	return ""
}

// release gives back the place of a connection that does not come.
func (s *Streams) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved--
}

// put has a connection that has a place wait for Accept, and reports whether there
// will be one.
func (s *Streams) put(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved--
	if s.closed {
		return false
	}
	s.waiting = append(s.waiting, conn)
	s.arrived.Signal()
	return true
}

// Redirect has Dial connect to what is mapped to the address that it is given, where
// there is something. It takes the place of what was said before.
func (s *Streams) Redirect(moved map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved = moved
}

// redirected returns where to connect to for an address.
func (s *Streams) redirected(address string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.moved[address], address)
}

// Dial connects to the primary at address, host:port, for Raft. When it succeeds,
// the other end is a primary that takes the connection. It fails when that takes
// longer than timeout, and when the streams are closed meanwhile. It never leads to
// this primary itself, which may be where another one was: Raft would count its own
// voice as that one's.
func (s *Streams) Dial(address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if !s.beginDial(&cancel) {
		return nil, fmt.Errorf("connect to %s for Raft: %w", address, net.ErrClosed)
	}
	defer s.endDial(&cancel)
	to := s.redirected(address)
	if to == string(s.addr) {
		return nil, fmt.Errorf("connect to %s for Raft: that is this primary's own address", address)
	}
	conn, err := s.open(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("connect to %s for Raft: %w", address, err)
	}
	return conn, nil
}

func (s *Streams) beginDial(cancel *context.CancelFunc) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.dialling.Add(1)
	s.dials[cancel] = struct{}{}
	return true
}

func (s *Streams) endDial(cancel *context.CancelFunc) {
	defer s.dialling.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.dials, cancel)
}

// Close ends Accept and all dials, and closes the connections that nobody has
// accepted. Those that Accept and Dial have returned are their owner's. The
// cluster port stays open. Closing again does nothing.
func (s *Streams) Close() error {
	s.mu.Lock()
	waiting := s.waiting
	s.waiting, s.closed = nil, true
	for cancel := range s.dials {
		(*cancel)()
	}
	s.arrived.Broadcast()
	s.mu.Unlock()
	for _, conn := range waiting {
		_ = conn.Close() // nobody has used it
	}
	s.dialling.Wait()
	return nil
}
