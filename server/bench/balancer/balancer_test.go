package balancer_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/server/bench/balancer"
)

// echo is a server that says its name and then whatever it hears.
func echo(t *testing.T, name string) (address string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = conn.Close() }()
				_, _ = io.WriteString(conn, name)
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// say says a word, and returns what is heard of it, the name of the server before it.
func say(t *testing.T, conn net.Conn, word string) string {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, word); err != nil {
		t.Fatal(err)
	}
	heard := make([]byte, len("a")+len(word))
	if _, err := io.ReadFull(conn, heard); err != nil {
		t.Fatal(err)
	}
	return string(heard)
}

func dial(t *testing.T, b *balancer.Balancer, config *tls.Config) net.Conn {
	t.Helper()
	conn, err := b.Dial(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if config != nil {
		return tls.Client(conn, config)
	}
	return conn
}

// Bytes go both ways, to one after the other, and what is longer than a buffer is whole.
func TestCarries(t *testing.T) {
	b := balancer.New([]string{echo(t, "a"), echo(t, "b")}, nil, nil)
	t.Cleanup(b.Close)
	var first []string
	for range 4 {
		word := strings.Repeat("0123456789", 5000)
		heard := say(t, dial(t, b, nil), word)
		if heard[1:] != word {
			t.Error("what came back is not what was said")
		}
		first = append(first, heard[:1])
	}
	slices.Sort(first)
	if !slices.Equal(first, []string{"a", "a", "b", "b"}) {
		t.Errorf("they went to %v, want two to each", first)
	}
}

// A restart cuts all, and then connections are taken again.
func TestRestart(t *testing.T) {
	b := balancer.New([]string{echo(t, "a")}, nil, nil)
	t.Cleanup(b.Close)
	old := dial(t, b, nil)
	say(t, old, "hello")
	b.Down()
	if _, err := old.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlived it")
	}
	if _, err := b.Dial(t.Context(), ""); !errors.Is(err, balancer.ErrDown) {
		t.Errorf("who dials while it is down is told %v", err)
	}
	b.Up()
	say(t, dial(t, b, nil), "again")
}

// Who can't be let through to anybody is told.
func TestNobodyThere(t *testing.T) {
	b := balancer.New([]string{"127.0.0.1:1"}, nil, nil)
	if _, err := dial(t, b, nil).Read(make([]byte, 1)); err == nil {
		t.Error("a connection leads nowhere")
	}
	b.Close()
}

// It ends TLS, as gRPC needs it.
func TestEndsTLS(t *testing.T) {
	server, client, err := balancer.NewTLS(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b := balancer.New([]string{echo(t, "a")}, server, nil)
	t.Cleanup(b.Close)
	conn := dial(t, b, client)
	if got := say(t, conn, "hello"); got != "ahello" {
		t.Errorf("heard %q", got)
	}
	if s := conn.(*tls.Conn).ConnectionState(); s.Version != tls.VersionTLS13 || s.NegotiatedProtocol != "h2" {
		t.Errorf("it is %x and %q, want TLS 1.3 and h2", s.Version, s.NegotiatedProtocol)
	}
}

// Hands are shaken with a few at a time. Those who wait for their turn can give up, which
// costs nobody anything, and those who say nothing can't keep it.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client, err := balancer.NewTLS(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		reached := 0
		b := balancer.New([]string{"a"}, server, func(context.Context, string) (net.Conn, error) {
			reached++
			near, far := net.Pipe()
			go func() { _, _ = io.WriteString(far, "a"); _, _ = io.Copy(far, far) }()
			return near, nil
		})
		defer b.Close()
		for range 2 * runtime.GOMAXPROCS(0) {
			dial(t, b, nil)
		}
		hasty, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.Dial(hasty, ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who waited for a second is told %v, want that it was too long", err)
		}
		begin := time.Now()
		if got := say(t, dial(t, b, client), "hello"); got != "ahello" || time.Since(begin) != 4*time.Second || reached != 1 {
			t.Errorf("heard %q after %v, and the primary of %d connections; want it as soon as those who are silent were cut", got, time.Since(begin), reached)
		}
	})
}

// target is a connection to a primary that hangs up as soon as it is told that nothing comes
// any more.
type target struct {
	net.Conn
	told *atomic.Int64
}

func (c target) CloseWrite() error {
	c.told.Add(1)
	return c.Close()
}

// Primaries are told of the end of all connections before anybody else is, however soon they
// answer to that.
func TestTellsPrimariesFirst(t *testing.T) {
	const many = 500
	var told atomic.Int64
	b := balancer.New([]string{"a"}, nil, func(context.Context, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() { _, _ = io.WriteString(far, "a"); _, _ = io.Copy(far, far) }()
		return target{near, &told}, nil
	})
	t.Cleanup(b.Close)
	var wg sync.WaitGroup
	var early atomic.Int64
	for range many {
		conn := dial(t, b, nil)
		say(t, conn, "hello")
		wg.Go(func() {
			if _, err := conn.Read(make([]byte, 1)); err == nil || told.Load() < many {
				early.Add(1)
			}
		})
	}
	b.Down()
	wg.Wait()
	if n := early.Load(); n != 0 {
		t.Errorf("%d of %d were told before all connections to primaries were cut", n, many)
	}
}
