package systest

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"

	"google.golang.org/grpc/test/bufconn"
)

// network is all that lies between primaries, workers and people. Whoever dials
// the API gets any of the primaries that listen, as behind a load balancer.
type network struct {
	mu    sync.Mutex
	ports map[port]*bufconn.Listener
	links []*link
	walls map[[2]string]bool       // pairs of primaries that can't reach each other
	mutes map[way]chan struct{}    // what is lost on its way; closed when it arrives again
	halts map[string]chan struct{} // hosts that stand still; closed when they go on
	delay func()                   // bytes take so long to arrive; nil: no time
	late  int                      // pieces that were held up and came
	lost  int                      // and those that did not

	troubles troubles // of all hosts
}

// port is where a primary listens: for people and workers, or for the others.
type port struct{ host, service string }

// way is the direction from one host to another.
type way struct{ from, to string }

const (
	apiPort     = "7421"
	clusterPort = "7420"
	directPort  = "7422" // of a worker
)

var (
	errRefused = errors.New("connection refused")
	errNoRoute = errors.New("no route to host")
)

func newNetwork() *network {
	return &network{ports: map[port]*bufconn.Listener{}, walls: map[[2]string]bool{}, mutes: map[way]chan struct{}{}, halts: map[string]chan struct{}{}}
}

// listen lets a primary be dialled from now on.
func (n *network) listen(p port) *bufconn.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports[p] = bufconn.Listen(64 << 10)
	return n.ports[p]
}

// newLink returns the way of a host to the primaries.
func (n *network) newLink(host string) *link {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &link{net: n, host: host, cables: map[*cable]struct{}{}, flowing: closed()}
	n.links = append(n.links, l)
	return l
}

// find returns where a dial to an address leads.
func (n *network) find(from, address string) (port, *bufconn.Listener, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return port{}, nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p := port{host, service}
	if service == apiPort && n.ports[p] == nil {
		var any []port
		for q := range n.ports {
			if q.service == apiPort {
				any = append(any, q)
			}
		}
		if len(any) > 0 {
			p = any[rand.IntN(len(any))] // the load balancer
		}
	}
	switch l := n.ports[p]; {
	case n.walls[pairOf(from, p.host)]:
		return p, nil, errNoRoute
	case l == nil:
		return p, nil, errRefused
	default:
		return p, l, nil
	}
}

func pairOf(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

// part puts a wall between two primaries, or takes it away.
func (n *network) part(a, b string, apart bool) {
	n.mu.Lock()
	n.walls[pairOf(a, b)] = apart
	n.mu.Unlock()
	n.troubles.ends("parted", a, b)
	if apart {
		n.troubles.begins("parted", a, b)
		n.reset(func(from, to string) bool { return pairOf(from, to) == pairOf(a, b) })
	}
}

// mute has nothing arrive any more that one host sends to another, and says so to
// neither of them. What is sent meanwhile arrives when the way is free again.
func (n *network) mute(w way) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mutes[w] == nil {
		n.troubles.begins("muted", w.from, w.to)
		n.mutes[w] = make(chan struct{})
	}
}

// unmute frees all ways.
func (n *network) unmute() { n.free(func(way) bool { return true }) }

// free frees some ways.
func (n *network) free(these func(way) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for w, free := range n.mutes {
		if these(w) {
			close(free)
			delete(n.mutes, w)
			n.troubles.ends("muted", w.from, w.to)
		}
	}
}

// held counts a piece that came late, or one that was on its way when its connection
// broke.
func (n *network) held(arrived bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if arrived {
		n.late++
	} else {
		n.lost++
	}
}

// holdUps returns how many pieces came late, and how many never after all that.
func (n *network) holdUps() (late, lost int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.late, n.lost
}

// muted returns a channel that is closed when that way is free, nil if it is.
func (n *network) muted(w way) <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, free := range []chan struct{}{n.mutes[w], n.halts[w.from], n.halts[w.to]} {
		if free != nil {
			return free
		}
	}
	return nil
}

// halt has a host neither hear nor say anything, and nobody told, until resume, which
// closes the channel. What is sent meanwhile arrives then.
func (n *network) halt(host string) (gone <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.halts[host] == nil {
		n.troubles.begins("halted", host, "")
		n.halts[host] = make(chan struct{})
	}
	return n.halts[host]
}

// resume has a host that stands still go on.
func (n *network) resume(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if halt := n.halts[host]; halt != nil {
		close(halt)
		delete(n.halts, host)
		n.troubles.ends("halted", host, "")
	}
}

// vanish takes a host off the network: nothing that it sent and that nobody
// has read yet arrives any more, and nobody can dial it.
func (n *network) vanish(host string) {
	n.mu.Lock()
	for p := range n.ports {
		if p.host == host {
			delete(n.ports, p)
		}
	}
	n.mu.Unlock()
	n.reset(func(from, to string) bool { return from == host || to == host })
}

// reset breaks the connections between some hosts.
func (n *network) reset(these func(from, to string) bool) {
	n.mu.Lock()
	links := n.links
	n.mu.Unlock()
	for _, l := range links {
		l.breakSome(func(c *cable) bool { return these(l.host, c.to) })
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

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// link is the way from one host to the others.
type link struct {
	net  *network
	host string

	mu      sync.Mutex
	down    bool // dials fail
	cables  map[*cable]struct{}
	flowing chan struct{} // closed while bytes pass
}

// dial connects to an address.
func (l *link) dial(ctx context.Context, address string) (net.Conn, error) {
	l.mu.Lock()
	down := l.down
	l.mu.Unlock()
	if down {
		return nil, errNoRoute
	}
	p, listener, err := l.net.find(l.host, address)
	if err != nil {
		return nil, err
	}
	for _, w := range []way{{l.host, p.host}, {p.host, l.host}} { // a SYN, and its answer
		if free := l.net.muted(w); free != nil {
			select {
			case <-free:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
	conn, err := listener.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	c := &cable{Conn: conn, link: l, to: p.host, over: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down { // since it was looked at above
		return nil, errors.Join(errNoRoute, conn.Close())
	}
	l.cables[c] = struct{}{}
	return c, nil
}

// reset breaks all connections.
func (l *link) reset() { l.breakSome(func(*cable) bool { return true }) }

func (l *link) breakSome(these func(*cable) bool) {
	l.mu.Lock()
	var all []*cable
	for c := range l.cables {
		if these(c) {
			all = append(all, c)
		}
	}
	l.mu.Unlock()
	for _, c := range all {
		l.net.troubles.moment("broken", l.host, c.to)
		_ = c.Close() // an in-memory pipe
	}
}

// cut breaks all connections, and lets none be made until mend.
func (l *link) cut() {
	l.net.troubles.begins("cut", l.host, "")
	l.mu.Lock()
	l.down = true
	l.mu.Unlock()
	l.reset()
}

// freeze lets nothing pass on the connections that are there, in either
// direction, until thaw or until somebody gives them up. New ones work, unless
// the link is cut too: so a load balancer that forgot a flow behaves.
func (l *link) freeze() {
	l.net.troubles.begins("frozen", l.host, "")
	l.mu.Lock()
	defer l.mu.Unlock()
	if isClosed(l.flowing) {
		l.flowing = make(chan struct{})
	}
	for c := range l.cables {
		c.setGate(l.flowing)
	}
}

// strand freezes the connections that are there, and lets none be made until mend.
func (l *link) strand() {
	l.freeze()
	l.net.troubles.begins("cut", l.host, "")
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
}

// open returns how many connections there are.
func (l *link) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.cables)
}

// thaw lets everything pass that was held up.
func (l *link) thaw() {
	l.net.troubles.ends("frozen", l.host, "")
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.flowing:
	default:
		close(l.flowing)
	}
}

func (l *link) mend() {
	l.net.troubles.ends("cut", l.host, "")
	l.thaw()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}

// cable is one connection, at the end of who dialled it.
type cable struct {
	net.Conn
	link *link
	to   string // the host that was dialled
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

// pass waits while nothing passes in that direction, and tells whether it had to.
func (c *cable) pass(w way) (waited bool, err error) {
	c.mu.Lock()
	gate := (<-chan struct{})(c.gate)
	c.mu.Unlock()
	for _, free := range []<-chan struct{}{gate, c.link.net.muted(w)} {
		if free != nil {
			waited = waited || !isClosed(free)
			select {
			case <-free:
			case <-c.over:
			}
		}
	}
	if isClosed(c.over) {
		return waited, net.ErrClosed
	}
	return waited, nil
}

// Read holds up what had not arrived yet when the connection froze, and loses it
// when the connection breaks.
func (c *cable) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if d := c.link.net.delays(); d != nil {
		d()
	}
	waited, gone := c.pass(way{c.to, c.link.host})
	if waited && n > 0 {
		c.link.net.held(gone == nil)
	}
	if gone != nil {
		return 0, gone
	}
	return n, err
}

// Write waits while the connection is frozen, as one does whose buffers are full. When the
// other end is closed, so is this one: who reads is told that as well, whatever is held up.
func (c *cable) Write(p []byte) (int, error) {
	waited, err := c.pass(way{c.link.host, c.to})
	if waited {
		c.link.net.held(err == nil)
	}
	if err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	if err != nil {
		_ = c.Close() // an in-memory pipe
	}
	return n, err
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
