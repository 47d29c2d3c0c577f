// Package balancer stands for the load balancer in front of primaries, where a benchmark
// needs one that it can restart: it takes connections, ends TLS if it is to, and passes
// on the bytes over a connection to one address after the other in turn.
//
// Those who dial it are in the same process, and their connections are in memory: ten
// thousand workers then need ten thousand open files, and not three times as many. What
// primaries see is the same. It knows nothing of what it carries, asks nobody whether
// they are well, and never tries again.
//
// TLS hands are shaken with a few clients at a time, and the others wait for their turn
// without using a processor, as in the backlog of a listener. If all got a share at
// once, each of ten thousand would take as long as all of them together, which is longer
// than any of them waits.
package balancer

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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
	turns   chan struct{} // holds one for each client that hands are shaken with
	wg      sync.WaitGroup
	exit    sync.Mutex // held by who closes a pair
	closed  int        // how many were; guarded by exit

	mu       sync.Mutex        // guards what follows
	listener *bufconn.Listener // nil: it is down
	pairs    map[*pair]struct{}
}

// buffer is how many bytes may be on their way to or from who dialled. A pipe without
// room for any would stop both ends for good when each of them writes first.
const buffer = 4 << 10

// handshakeWithin is how long a client may take to shake hands: one that says nothing
// keeps others waiting.
const handshakeWithin = 5 * time.Second

// atOnce is how many clients hands are shaken with at the same time: enough to keep the
// processors busy while some of them wait for the other end.
func atOnce() int { return 2 * runtime.GOMAXPROCS(0) }

// pair is a connection, and the one that its bytes go to.
type pair struct {
	client net.Conn
	server net.Conn // nil: it is not yet there
	closed bool     // guarded by exit of the balancer
}

func (p *pair) close() {
	p.closed = true
	_ = p.client.Close() // whoever reads or writes is told
	if p.server != nil {
		_ = p.server.Close() // likewise
	}
}

// hangUp tells the primary that nothing comes any more, and wakes nobody here.
func (p *pair) hangUp() {
	if tcp, ok := p.server.(interface{ CloseWrite() error }); ok {
		_ = tcp.CloseWrite() // close follows
	}
}

// New returns one that is up. With a TLS configuration it ends TLS. It dials by TCP, or by
// dial unless that is nil.
func New(targets []string, tls *tls.Config, dial func(ctx context.Context, address string) (net.Conn, error)) *Balancer {
	if dial == nil {
		dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	b := &Balancer{targets: targets, tls: tls, dial: dial, turns: make(chan struct{}, atOnce()), pairs: map[*pair]struct{}{}}
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

// accept takes connections until the listener is closed, each when it has its turn: who
// dials waits until then, and costs nothing.
func (b *Balancer) accept(l *bufconn.Listener) {
	for {
		b.turns <- struct{}{}
		conn, err := l.Accept()
		if err != nil {
			<-b.turns
			return
		}
		b.wg.Go(func() { b.serve(l, conn) })
	}
}

// Down cuts all connections at once and takes no more, as a balancer does that is killed: then
// it is the kernel that closes them, ten thousand within some hundredths of a second. So
// primaries are told of all of them first, and then those who dialled, a few at a time. It does
// not wait for that: told is closed when it is done.
func (b *Balancer) Down() (told <-chan struct{}) {
	all, done := b.hangUp(), make(chan struct{})
	b.wg.Go(func() {
		defer close(done)
		for _, p := range all {
			b.close(p)
		}
	})
	return done
}

// hangUp takes no more connections, tells primaries of the end of all, and returns them.
func (b *Balancer) hangUp() []*pair {
	b.exit.Lock()
	defer b.exit.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listener != nil {
		_ = b.listener.Close() // who accepts is told
	}
	b.listener = nil
	for p := range b.pairs {
		p.hangUp()
	}
	return slices.Collect(maps.Keys(b.pairs))
}

// Close is [Balancer.Down] for good. It returns when the last connection is gone.
func (b *Balancer) Close() {
	b.Down()
	b.wg.Wait()
}

// serve has a connection for as long as it lasts. It lets the next one in when hands are
// shaken and there is a connection to a primary.
func (b *Balancer) serve(l *bufconn.Listener, conn net.Conn) {
	p := &pair{client: conn}
	defer b.close(p)
	client, err := b.open(l, p)
	<-b.turns
	defer b.remove(p)
	if err != nil {
		return // that it is closed is what whoever dialled is told
	}
	b.carry(p, client)
}

// toldAtOnce is how many of those who dialled are told that they were cut before all others
// have had their turn.
const toldAtOnce = 8

// close closes both ends of a pair, if nobody has, when many before it have had their turn.
// Whoever dialled has much to do then. Elsewhere workers have processors of their own; here, who
// asks for runs would wait behind ten thousand of them, and that is not what is to be measured.
func (b *Balancer) close(p *pair) {
	b.exit.Lock()
	defer b.exit.Unlock()
	if p.closed {
		return
	}
	if b.closed++; b.closed%toldAtOnce == 0 {
		runtime.Gosched()
	}
	p.close()
}

// open shakes hands with the client of a pair, and connects to the next address. It
// returns what the client's bytes are read from.
func (b *Balancer) open(l *bufconn.Listener, p *pair) (client net.Conn, err error) {
	if !b.join(l, p, nil) {
		return nil, ErrDown
	}
	client = p.client
	if b.tls != nil {
		secured := tls.Server(client, b.tls)
		within, cancel := context.WithTimeout(context.Background(), handshakeWithin)
		defer cancel()
		if err := secured.HandshakeContext(within); err != nil {
			return nil, err
		}
		client = secured
	}
	target := b.targets[int(b.next.Add(1)-1)%len(b.targets)]
	server, err := b.dial(context.Background(), target)
	if err != nil {
		return nil, err
	}
	if !b.join(l, p, server) {
		_ = server.Close() // nobody has used it
		return nil, ErrDown
	}
	return client, nil
}

// carry passes on what a connection carries, both ways, until one end closes.
func (b *Balancer) carry(p *pair, client net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() { defer b.close(p); pour(client, p.server) })
	wg.Go(func() { defer b.close(p); pour(p.server, client) })
	wg.Wait()
}

// join notes what a pair has, unless the listener that it came from is closed.
func (b *Balancer) join(l *bufconn.Listener, p *pair, server net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listener != l {
		return false
	}
	p.server = server
	b.pairs[p] = struct{}{}
	return true
}

func (b *Balancer) remove(p *pair) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.pairs, p)
}

// pour copies what comes until one end closes.
func pour(to, from net.Conn) {
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
