// Package faultnet is a network that is as bad as a test wants it to be: a TCP
// proxy through which bytes come late, or slowly, or not at all, and whose
// connections break, while it runs. With several places to dial it is a load
// balancer of the plainest kind.
//
// It is for tests: no program links it. It never looks at what it carries, and
// does nothing to a connection that a network could not do: bytes are neither
// changed nor reordered, and after a byte that is lost none follows.
package faultnet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// A Dialer connects to where a proxy's connections lead.
type Dialer func(ctx context.Context) (net.Conn, error)

// Random returns a dialer that takes one of the addresses at random, and another
// one when that can't be dialled. It fails when none can.
func Random(dial func(ctx context.Context, addr string) (net.Conn, error), addrs ...string) Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		var faults []error
		for _, i := range rand.Perm(len(addrs)) {
			conn, err := dial(ctx, addrs[i])
			if err == nil {
				return conn, nil
			}
			faults = append(faults, fmt.Errorf("dial %s: %w", addrs[i], err))
		}
		return nil, errors.Join(faults...)
	}
}

// Conditions are what a network is like. The zero value is a perfect one.
type Conditions struct {
	// Up is the way from who dialled to who was dialled, Down the way back.
	Up, Down Direction
	// IdleTimeout is how long a connection may carry nothing, either way, before
	// it is closed. 0 sets no limit.
	IdleTimeout time.Duration
}

// Proxy is a network between those who dial it and what it dials. Its methods
// may be called by many goroutines.
type Proxy struct {
	dial     Dialer
	up, down *lane

	mu      sync.Mutex
	idle    time.Duration
	changed chan struct{} // closed when idle changes
	pairs   map[*pair]struct{}
}

// New returns a proxy to what dial dials, under perfect conditions.
func New(dial Dialer) *Proxy {
	return &Proxy{dial: dial, up: newLane(), down: newLane(), changed: make(chan struct{}), pairs: map[*pair]struct{}{}}
}

// Set changes the conditions, for connections that are there as well.
func (p *Proxy) Set(c Conditions) {
	p.up.set(c.Up)
	p.down.set(c.Down)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = c.IdleTimeout
	close(p.changed)
	p.changed = make(chan struct{})
}

// Reset breaks all connections, so that both ends see it at once.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		c.cut(errReset)
	}
}

// Connections returns how many there are.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pairs)
}

// Serve carries the connections that l accepts until ctx is done or l fails.
// Before it returns, l and all of them are closed. The error is nil when ctx was
// done.
func (p *Proxy) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		<-ctx.Done()
		_ = l.Close() // to end Accept
	})
	for {
		near, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // we closed it
			}
			return fmt.Errorf("accept a connection to pass on: %w", err)
		}
		wg.Go(func() { p.connect(ctx, near) })
	}
}

// connect carries one connection to its end.
func (p *Proxy) connect(ctx context.Context, near net.Conn) {
	far, err := p.dial(ctx)
	if err != nil {
		_ = near.Close() // there is nobody to talk to
		return
	}
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	c := newPair(near, far, cut)
	p.mu.Lock()
	p.pairs[c] = struct{}{}
	p.mu.Unlock()
	c.carry(ctx, p)
	p.mu.Lock()
	delete(p.pairs, c)
	p.mu.Unlock()
}

// patience is the idle timeout, and what is closed when it changes.
func (p *Proxy) patience() (idle time.Duration, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.idle, p.changed
}
