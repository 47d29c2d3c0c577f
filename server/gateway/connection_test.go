package gateway

import (
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/mem"

	"github.com/schedd/schedd/server/peer"
)

// cut is a connection that has ended.
type cut struct{ net.Conn }

func (cut) Read([]byte) (int, error) { return 0, io.EOF }

// However many connections end at once, gRPC cleans up after a few at a time: what else is
// there to be done does not wait for all of them.
func TestOneEndAfterTheOther(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const many, steps = 500, 5
	var wg sync.WaitGroup
	var inside, most atomic.Int64
	exit := &turnstile{}
	for range many {
		wg.Go(func() {
			c := &connection{Conn: cut{}, exit: exit}
			if _, err := c.Read(nil); err != io.EOF { //nolint:errorlint // it is handed on as it is
				t.Errorf("an end is read as %v", err)
			}
			if n := inside.Add(1); n > most.Load() {
				most.Store(n)
			}
			for range steps {
				runtime.Gosched() // as gRPC, which wakes one goroutine by the other
			}
			inside.Add(-1)
		})
	}
	wg.Wait()
	if n := most.Load(); n > 5*steps*few/2 {
		t.Errorf("%d of %d were cleaned up after at the same time", n, many)
	}
}

// listener is a leader that counts what it is told.
type listener struct {
	peer.Leader
	told int
}

func (l *listener) Attach(peer.Session) { l.told++ }

func (l *listener) Detach(string, uint64) { l.told++ }

// A session whose connection ends in the moment in which its worker is welcomed never begins,
// as far as the leader is concerned.
func TestNoBeginningAfterTheEnd(t *testing.T) {
	l := &listener{}
	s := New(Config{Leader: l, Log: slog.New(slog.DiscardHandler)})
	n := s.newSession(nil, "")
	c := &connection{Conn: cut{}, exit: &turnstile{}}
	c.join(n)
	if _, err := c.Read(nil); err == nil {
		t.Fatal("there is no end")
	}
	n.attach()
	n.tell(func(peer.Leader) { l.told++ })
	n.detach()
	c.leave(n)
	if l.told != 0 {
		t.Errorf("the leader was told %d things, want nothing", l.told)
	}
}

// Sockets are read without a buffer that waits, up to their end.
func TestReadOnReady(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	far, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = far.Close() }()
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = near.Close() }()
	c := &connection{Conn: near, readable: newReadable(near), exit: &turnstile{}}
	reader, ok := any(c).(interface {
		ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error)
	})
	if !ok {
		t.Skip("this system has no such thing")
	}
	const size = 1 << 10
	pool := &counted{BufferPool: mem.DefaultBufferPool()}
	for _, word := range []string{"hello", "again"} {
		come := make(chan struct{})
		go func() {
			defer close(come)
			buf, n, err := reader.ReadOnReady(size, pool)
			if err != nil || string((*buf)[:n]) != word {
				t.Errorf("read %d bytes, %v; want %q", n, err, word)
				return
			}
			pool.Put(buf)
		}()
		for pool.gets.Load() == 0 || pool.lent.Load() != 0 {
			runtime.Gosched() // until it waits
		}
		if _, err := io.WriteString(far, word); err != nil {
			t.Fatal(err)
		}
		<-come
		pool.gets.Store(0)
	}
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	if buf, n, err := reader.ReadOnReady(size, pool); buf != nil || n != 0 || err != io.EOF { //nolint:errorlint // gRPC compares it
		t.Errorf("the end is read as %d bytes, %v", n, err)
	}
	if n := pool.lent.Load(); n != 0 {
		t.Errorf("%d buffers were not given back", n)
	}
	if !c.ended {
		t.Error("the end was not noted")
	}
}

// counted counts the buffers that are lent.
type counted struct {
	mem.BufferPool
	gets, lent atomic.Int64
}

func (c *counted) Get(size int) *[]byte {
	c.lent.Add(1)
	c.gets.Add(1)
	return c.BufferPool.Get(size)
}

func (c *counted) Put(b *[]byte) {
	c.BufferPool.Put(b)
	c.lent.Add(-1)
}
