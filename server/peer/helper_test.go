package peer

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
)

// ear is a leader that writes down what it is told.
type ear struct {
	mu       sync.Mutex
	sessions map[string]Session
	reports  []string // "worker what"
	seen     map[string]time.Time
	wrong    []string
}

func newEar() *ear { return &ear{sessions: map[string]Session{}, seen: map[string]time.Time{}} }

func (e *ear) Attach(s Session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if old, ok := e.sessions[s.Worker]; ok && old.Epoch > s.Epoch {
		e.wrong = append(e.wrong, "an older session of "+s.Worker+" took the place of a newer")
	}
	e.sessions[s.Worker] = s
}

func (e *ear) Detach(worker string, epoch uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.sessions[worker].Epoch != epoch {
		e.wrong = append(e.wrong, "a session of "+worker+" was detached that was not attached")
	}
	delete(e.sessions, worker)
}

func (e *ear) Report(worker string, epoch uint64, m *agentv1.AgentMessage) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.sessions[worker].Epoch != epoch {
		e.wrong = append(e.wrong, "a report came in a session of "+worker+" that is not attached")
	}
	e.reports = append(e.reports, worker+" "+m.GetResult().GetReason())
}

func (e *ear) Seen(worker string, _ uint64, at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen[worker] = at
}

// has returns the gateway and epoch of each worker's session.
func (e *ear) has() map[string]Session {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.sessions)
}

// hand is a gateway that writes down what it is told.
type hand struct {
	mu         sync.Mutex
	delivered  []string
	asked      []string // whose inventory was asked for
	superseded []string
	duplicates []string
	cut        []string
	shed       int
	dials      []string
}

func (h *hand) Send(worker string, _ uint64, m *agentv1.GatewayMessage) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.GetInventoryRequest() != nil {
		h.asked = append(h.asked, worker)
		return true
	}
	h.delivered = append(h.delivered, worker+" "+m.GetKill().GetReason())
	return true
}

func (h *hand) Cut(worker, _ string, _ bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut = append(h.cut, worker)
}

func (h *hand) Supersede(worker string, _ uint64, _ string, duplicate bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if duplicate {
		h.duplicates = append(h.duplicates, worker)
	} else {
		h.superseded = append(h.superseded, worker)
	}
}

func (h *hand) Shed(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shed += n
}

func (h *hand) Dial(addresses []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dials = addresses
}

// look calls f while nothing changes.
func (h *hand) look(f func(*hand)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h)
}

// world is some primaries, of which one may lead.
type world struct {
	*testing.T
	mu     sync.Mutex
	leader string
	news   map[chan struct{}]struct{}
	nodes  map[string]*node

	applied atomic.Uint64 // by all but the leader, which has applied 100
}

// node is a primary, as far as links go.
type node struct {
	w    *world
	id   string
	hub  *Hub
	ear  *ear
	up   *Uplink
	hand *hand

	is Condition // guarded by w.mu

	conns  conns
	server *grpc.Server
	stop   context.CancelFunc // of its term
	term   chan struct{}      // closed when it is over
	tasks  sync.WaitGroup
}

// story tells a story of primaries in a bubble.
func story(t *testing.T, tell func(w *world), ids ...string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, news: map[chan struct{}]struct{}{}, nodes: map[string]*node{}}
		ctx, stop := context.WithCancel(t.Context())
		for _, id := range ids {
			w.nodes[id] = w.start(ctx, id)
		}
		defer func() {
			w.lead("")
			stop()
			for _, n := range w.nodes {
				n.conns.cut() // Stop waits for handshakes, of frozen connections too
				n.server.Stop()
				n.tasks.Wait()
			}
		}()
		tell(w)
		for id, n := range w.nodes {
			for _, wrong := range n.ear.wrong {
				t.Errorf("%s as leader: %s", id, wrong)
			}
		}
	})
}

func (w *world) start(ctx context.Context, id string) *node {
	n := &node{w: w, id: id, ear: newEar(), hand: &hand{}}
	log := slog.New(slog.DiscardHandler)
	n.hub = NewHub(HubConfig{
		PrimaryID: id, Leader: n.ear, Log: log,
		Admit: func(context.Context, string) error { return nil },
		Term:  func() uint64 { return 7 }, Applied: func() uint64 { return 100 },
	})
	n.server = grpc.NewServer(grpc.MaxRecvMsgSize(4 << 20))
	peerv1.RegisterLinkServiceServer(n.server, n.hub)
	n.conns.listener = bufconn.Listen(64 << 10)
	n.tasks.Go(func() { _ = n.server.Serve(&n.conns) })
	n.up = NewUplink(UplinkConfig{
		PrimaryID: id, Version: "v-" + id, Log: log, Applied: w.applied.Load,
		Leader: w.leads, Watch: w.watch, Condition: n.condition,
		Open: func(ctx context.Context, leader string) (Stream, error) {
			if leader == id {
				return n.hub.Open(ctx)
			}
			return w.nodes[leader].dial(ctx)
		},
	})
	n.tasks.Go(func() { n.up.Run(ctx, n.hand) })
	return n
}

func (n *node) condition() Condition {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.is
}

// dial opens a link to n over a connection that ends with it.
func (n *node) dial(ctx context.Context) (Stream, error) {
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return n.conns.listener.DialContext(ctx) }))
	if err != nil {
		return nil, err
	}
	stream, err := peerv1.NewLinkServiceClient(conn).Link(ctx)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	return stream, nil
}

// conns are the connections that a primary has accepted, which can be frozen or
// cut.
type conns struct {
	listener *bufconn.Listener
	mu       sync.Mutex
	all      []*conn
}

// conn is one of them.
type conn struct {
	net.Conn
	mu   sync.Mutex
	gate chan struct{} // nil, or closed when bytes pass again
	over chan struct{}
	once sync.Once
}

func (c *conns) Accept() (net.Conn, error) {
	k, err := c.listener.Accept()
	if err != nil {
		return nil, err
	}
	x := &conn{Conn: k, over: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, x)
	return x, nil
}
func (c *conns) Close() error   { return c.listener.Close() }
func (c *conns) Addr() net.Addr { return c.listener.Addr() }

// cut breaks all connections.
func (c *conns) cut() {
	c.mu.Lock()
	all := c.all
	c.all = nil
	c.mu.Unlock()
	for _, x := range all {
		_ = x.Close()
	}
}

// freeze lets nothing pass on the present connections any more.
func (c *conns) freeze() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.all {
		x.mu.Lock()
		x.gate = make(chan struct{})
		x.mu.Unlock()
	}
}

func (c *conn) pass() {
	c.mu.Lock()
	gate := c.gate
	c.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-c.over:
		}
	}
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.pass()
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	c.pass()
	return c.Conn.Write(p)
}

func (c *conn) Close() error {
	c.once.Do(func() { close(c.over) })
	return c.Conn.Close()
}

func (w *world) leads() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.leader
}

func (w *world) watch() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.news[c] = struct{}{}
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.news, c)
	}
}

// lead ends the term there is, and begins one of id; "": nobody leads.
func (w *world) lead(id string) {
	w.mu.Lock()
	old := w.nodes[w.leader]
	w.leader = id
	for c := range w.news {
		signal(c)
	}
	w.mu.Unlock()
	if old != nil {
		old.stop()
		<-old.term
	}
	if n := w.nodes[id]; n != nil {
		ctx, stop := context.WithCancel(w.Context())
		n.stop, n.term = stop, make(chan struct{})
		go func() {
			defer close(n.term)
			n.hub.During(ctx, func(ctx context.Context) { <-ctx.Done() })
		}()
	}
}

// wait lets time pass.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func session(worker string, epoch uint64, gateway string) Session {
	return Session{
		Worker: worker, Epoch: epoch, Gateway: gateway, ObservedAddress: "10.0.0.1:4", Connected: time.Now().UTC(),
		Hello: &agentv1.Hello{Name: worker, Instance: "first"},
	}
}

func result(reason string) *agentv1.AgentMessage {
	return &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Result{Result: &agentv1.Result{Reason: reason}}}
}

func kill(reason string) *agentv1.GatewayMessage {
	return &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Kill{Kill: &agentv1.Kill{Reason: reason}}}
}
