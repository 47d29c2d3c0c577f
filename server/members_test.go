package server

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/schedd/schedd/raftstore"
)

// port is one that nobody ever comes to.
type port struct {
	address net.TCPAddr
	once    sync.Once
	closed  chan struct{}
}

func newPort(string) (net.Listener, error) {
	return &port{address: net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7}, closed: make(chan struct{})}, nil
}

func (p *port) Accept() (net.Conn, error) {
	<-p.closed
	return nil, net.ErrClosed
}

func (p *port) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *port) Addr() net.Addr { return &p.address }

// bubbled tells a story of one primary whom nobody reaches, and which reaches
// nobody, in a bubble.
func bubbled(t *testing.T, tell func(t *testing.T, s *Server, disk *raftstore.Memory)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		disk := raftstore.NewMemory()
		s, err := Open(localConfig(t), Seams{
			Memory: disk, Listen: newPort, ListenCluster: newPort,
			DialCluster: func(context.Context, string) (net.Conn, error) { return nil, errors.New("nobody is there") },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(10 * time.Second)
		tell(t, s, disk)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A primary that has left the group, or has another address now, is not dialled for
// ever at the one that it had.
func TestConnectionsToWhoLeftAreClosed(t *testing.T) {
	bubbled(t, func(t *testing.T, s *Server, _ *raftstore.Memory) {
		conns := func(address string) []*grpc.ClientConn {
			control, err := s.net.Conn(address)
			bulk, err2 := s.net.BulkConn(address)
			if err := errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			return []*grpc.ClientConn{control, bulk}
		}
		is := func(when string, conns []*grpc.ClientConn, closed bool) {
			t.Helper()
			time.Sleep(2 * lookEvery)
			for i, c := range conns {
				if (c.GetState() == connectivity.Shutdown) != closed {
					t.Errorf("%s: connection %d is closed: %v, want %v", when, i, !closed, closed)
				}
			}
		}
		do := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		do(s.store.AddServer(t.Context(), raftstore.Server{ID: "b", Address: "b:1"}))
		do(s.store.AddServer(t.Context(), raftstore.Server{ID: "c", Address: "c:1"}))
		old, other := conns("b:1"), conns("c:1")
		is("all are in the group", old, false)

		do(s.store.AddServer(t.Context(), raftstore.Server{ID: "b", Address: "b:2"}))
		is("it has moved", old, true)
		old = conns("b:2")
		is("where it is now", old, false)

		do(s.store.RemoveServer(t.Context(), "b"))
		is("it was removed", old, true)
		is("the other one is still there", other, false)
	})
}
