// Package balancer stands for the load balancer in front of primaries, where a benchmark
// needs one that it can restart: it takes connections, ends TLS if it is to, and passes
// on the bytes over a connection to one address after the other in turn.
//
// Those who dial it are in the same process, and their connections are in memory: ten
// thousand workers then need ten thousand open files, and not three times as many. What
// primaries see is the same. It knows nothing of what it carries, asks nobody whether
// they are well, and never tries again.
package balancer

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/test/bufconn"
)

// ErrDown is what those are told who dial while it is down.
var ErrDown = errors.New("connection refused: the balancer is down")

// Balancer is one that may be up or down. It is made by [New].
type Balancer struct {
	targets []string
	tls     *tls.Config // nil: without
	dial    func(ctx context.Context, address string) (net.Conn, error)
	next    atomic.Uint64 // whose turn it is
	wg      sync.WaitGroup

	mu       sync.Mutex        // guards what follows
	listener *bufconn.Listener // nil: it is down
	pairs    map[*pair]struct{}
}

// buffer is how many bytes may be on their way to or from who dialled. A pipe without
// room for any would stop both ends for good when each of them writes first.
const buffer = 4 << 10

// pair is a connection, and the one that its bytes go to.
type pair struct{ client, server net.Conn }

func (p *pair) close() {
	_ = p.client.Close() // whoever reads or writes is told
	_ = p.server.Close() // likewise
}

// New returns one that is up. With a TLS configuration it ends TLS. It dials by TCP, or by
// dial unless that is nil.
func New(targets []string, tls *tls.Config, dial func(ctx context.Context, address string) (net.Conn, error)) *Balancer {
	if dial == nil {
		dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	b := &Balancer{targets: targets, tls: tls, dial: dial, pairs: map[*pair]struct{}{}}
	b.Up()
	return b
}

// Dial connects to it.
func (b *Balancer) Dial(ctx context.Context, _ string) (net.Conn, error) {
	b.mu.Lock()
	l := b.listener
	b.mu.Unlock()
	if l == nil {
		return nil, ErrDown
	}
	return l.DialContext(ctx)
}

// Up lets connections through again, after [Balancer.Down].
func (b *Balancer) Up() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listener != nil {
		return
	}
	l := bufconn.Listen(buffer)
	b.listener = l
	b.wg.Go(func() { b.accept(l) })
}

// accept takes connections until the listener is closed.
func (b *Balancer) accept(l *bufconn.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		b.wg.Go(func() { b.carry(l, conn) })
	}
}

// Down cuts all connections at once and takes no more, as a balancer does that is killed.
// It returns when the last one is gone.
func (b *Balancer) Down() {
	b.mu.Lock()
	if b.listener != nil {
		_ = b.listener.Close() // who accepts is told
	}
	b.listener = nil
	for p := range b.pairs {
		p.close()
	}
	b.mu.Unlock()
	b.wg.Wait()
}

// carry passes on what a connection carries, both ways, until one end closes.
func (b *Balancer) carry(l *bufconn.Listener, client net.Conn) {
	target := b.targets[int(b.next.Add(1)-1)%len(b.targets)]
	server, err := b.dial(context.Background(), target)
	if err != nil {
		_ = client.Close() // that is what whoever dialled is told
		return
	}
	p := &pair{client: client, server: server}
	if !b.add(l, p) {
		p.close()
		return
	}
	defer b.remove(p)
	if b.tls != nil {
		client = tls.Server(client, b.tls)
	}
	var wg sync.WaitGroup
	wg.Go(func() { pour(p, client, server) })
	wg.Go(func() { pour(p, server, client) })
	wg.Wait()
}

// add notes a pair, unless the listener that it came from is closed.
func (b *Balancer) add(l *bufconn.Listener, p *pair) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listener != l {
		return false
	}
	b.pairs[p] = struct{}{}
	return true
}

func (b *Balancer) remove(p *pair) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.pairs, p)
}

// pour copies what comes until one end closes, and then closes both.
func pour(p *pair, to, from net.Conn) {
	defer p.close()
	for some := make([]byte, buffer); ; {
		n, err := from.Read(some)
		if n > 0 {
			if _, err := to.Write(some[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
