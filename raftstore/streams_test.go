package raftstore

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// tcp is a stream layer of bare TCP on loopback. It counts connections that are
// not closed.
type tcp struct {
	net.Listener
	mu   sync.Mutex // guards open
	open int
}

func newTCP(t *testing.T) *tcp {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &tcp{Listener: l}
}

func (l *tcp) Dial(address string, timeout time.Duration) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", address, timeout)
	return l.count(conn, err)
}

func (l *tcp) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return l.count(conn, err)
}

func (l *tcp) count(conn net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	l.add(1)
	return &counted{Conn: conn, of: l}, nil
}

func (l *tcp) add(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open += n
}

type counted struct {
	net.Conn
	of   *tcp
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.of.add(-1) })
	return c.Conn.Close()
}

// onTCP opens a primary in a directory, reached by TCP. No bubble: its sockets and
// its disk are real.
func onTCP(t *testing.T, id, dir string) (*Store, *tcp) {
	t.Helper()
	l := newTCP(t)
	s := open(t, Config{NodeID: id, Dir: dir, Streams: l, Join: true, TrailingLogs: 5})
	return s, l
}

// awaitNews waits, in real time, until ok says so, and looks with each news.
func awaitNews(t *testing.T, s *Store, ok func() bool) {
	t.Helper()
	news, cancel := s.WatchLeader()
	defer cancel()
	for !ok() {
		select {
		case <-news:
		case <-t.Context().Done():
			t.Fatal("it does not come")
		}
	}
}

// leads proposes until it is let in: that is when Raft's own first entry is agreed.
func leads(t *testing.T, stores ...*Store) *Store {
	t.Helper()
	found := make(chan *Store, len(stores))
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for _, s := range stores {
		all.Go(func() {
			_ = s.Lead(ctx, func(ctx context.Context) error {
				found <- s
				<-ctx.Done()
				return nil
			})
		})
	}
	select {
	case s := <-found:
		return s
	case <-t.Context().Done():
		t.Fatal("nobody leads")
		return nil
	}
}

// Three primaries, each with a directory and a port of its own, form a group, agree,
// go on when one is stopped, and take it back under another address.
func TestGroupOverTCP(t *testing.T) {
	root := t.TempDir()
	stores, layers := map[string]*Store{}, map[string]*tcp{}
	var group []Server
	for _, id := range three {
		stores[id], layers[id] = onTCP(t, id, filepath.Join(root, id))
		group = append(group, Server{id, layers[id].Addr().String(), true})
	}
	if err := stores["a"].Form(t.Context(), group); err != nil {
		t.Fatal(err)
	}
	l := leads(t, stores["a"], stores["b"], stores["c"])
	if id, address := l.Leader(); id != l.id || address != layers[id].Addr().String() {
		t.Errorf("the leader is %s at %s", id, address)
	}
	large(t, l, 3000)
	for i := range 100 {
		propose(t, l, putWorker(i))
	}
	var gone *Store
	for _, s := range stores {
		if err := s.WaitApplied(t.Context(), l.AppliedIndex()); err != nil {
			t.Fatal(err)
		}
		if hashIn(t, s) != hashIn(t, l) {
			t.Errorf("%s has another state", s.id)
		}
		if s != l {
			gone = s
		}
	}

	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	propose(t, l, putWorker(100))
	if err := l.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	back, layer := onTCP(t, gone.id, filepath.Join(root, gone.id))
	if err := l.AddServer(t.Context(), Server{back.id, layer.Addr().String(), true}); err != nil {
		t.Fatal(err)
	}
	if err := back.WaitApplied(t.Context(), l.AppliedIndex()); err != nil {
		t.Fatal(err)
	}
	if err := l.TransferTo(t.Context(), back.id); err != nil {
		t.Fatal(err)
	}
	awaitNews(t, back, back.Leads)
	propose(t, leads(t, back), putWorker(101))

	// A fresh one gets a snapshot over the wire.
	d, layerD := onTCP(t, "d", filepath.Join(root, "d"))
	if err := back.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := back.AddServer(t.Context(), Server{"d", layerD.Addr().String(), false}); err != nil {
		t.Fatal(err)
	}
	if err := d.WaitApplied(t.Context(), back.AppliedIndex()); err != nil {
		t.Fatal(err)
	}
	if hashIn(t, d) != hashIn(t, back) {
		t.Error("the fourth has another state")
	}

	stores[back.id], layers[back.id], stores["d"], layers["d"] = back, layer, d, layerD
	for id, s := range stores {
		if err := s.Close(); err != nil {
			t.Errorf("close %s: %v", id, err)
		}
	}
	for id, l := range layers {
		l.mu.Lock()
		if l.open != 0 {
			t.Errorf("%s has left %d connections open", id, l.open)
		}
		l.mu.Unlock()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s still listens: %v", id, err)
		}
	}
}

// Whatever keeps a store from being opened, its stream layer is closed.
func TestStreamsAreClosedWhenNotOpened(t *testing.T) {
	taken := t.TempDir()
	s := open(t, Config{NodeID: "a", Dir: taken})
	for name, c := range map[string]Config{
		"no node id":       {Dir: t.TempDir()},
		"in use":           {NodeID: "a", Dir: taken},
		"two ways":         {NodeID: "a", Dir: t.TempDir(), Transport: NewNetwork().Transport("a")},
		"a group of wrong": {NodeID: "a", Dir: t.TempDir(), Bootstrap: []Server{{}}},
	} {
		l := newTCP(t)
		c.Streams, c.Log = l, quiet()
		if s, err := Open(c); err == nil {
			_ = s.Close()
			t.Errorf("%s: it was opened", name)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: it still listens: %v", name, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// pipes is a switchboard of stream layers in memory.
type pipes struct {
	mu     sync.Mutex // guards what follows
	layers map[string]*pipeLayer
}

// pipeLayer is the one of an address.
type pipeLayer struct {
	of      *pipes
	address string
	calls   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (p *pipes) listen(address string) *pipeLayer {
	l := &pipeLayer{of: p, address: address, calls: make(chan net.Conn), closed: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.layers[address] = l
	return l
}

func (l *pipeLayer) Network() string { return "pipe" }
func (l *pipeLayer) String() string  { return l.address }
func (l *pipeLayer) Addr() net.Addr  { return l }

func (l *pipeLayer) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeLayer) Accept() (net.Conn, error) {
	select {
	case conn := <-l.calls:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeLayer) Dial(address string, timeout time.Duration) (net.Conn, error) {
	l.of.mu.Lock()
	to := l.of.layers[address]
	l.of.mu.Unlock()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	here, there := net.Pipe()
	select {
	case to.calls <- there:
		return here, nil
	case <-timer.C:
	case <-to.closed:
	case <-l.closed:
	}
	return nil, errors.Join(os.ErrDeadlineExceeded, here.Close(), there.Close())
}

// In a bubble, where nothing may be left running: a group over stream layers goes on
// when one of them is closed, and ends when all are, within no time.
func TestStreamsEndWithTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{layers: map[string]*pipeLayer{}}
		stores := map[string]*Store{}
		start := func(id string, m *Memory) {
			stores[id] = open(t, Config{NodeID: id, Memory: m, Streams: p.listen(id), Join: true})
		}
		for _, id := range three {
			start(id, NewMemory())
		}
		if err := stores["b"].Form(t.Context(), NewNetwork().Group(three...)); err != nil {
			t.Fatal(err)
		}
		l := awaitLeader(t, stores["a"], stores["b"], stores["c"])
		for i := range 100 {
			propose(t, l, putWorker(i))
		}
		// One that is there and answers nobody must not hold up the end of others.
		silent := p.listen("d")
		go func() {
			for range 10 {
				conn, err := silent.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
			}
		}()
		if err := l.AddServer(t.Context(), Server{"d", "d", false}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		begin := time.Now()
		for _, s := range stores {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("closing took %v", took)
		}
		_ = silent.Close()
	})
}
