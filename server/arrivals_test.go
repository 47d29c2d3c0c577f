package server

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// crowded is a listener in front of which so many wait.
type crowded struct {
	net.Listener
	left int
}

func (c *crowded) Accept() (net.Conn, error) {
	if c.left == 0 {
		return nil, net.ErrClosed
	}
	c.left--
	near, far := net.Pipe()
	return near, errors.Join(far.Close())
}

// However many wait, those who were let in are served before the next one is. Without
// that all of them would be let in before the first is served.
func TestArrivalsWaitForTheirTurn(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const many, steps = 500, 5
	var wg sync.WaitGroup
	var inside atomic.Int64
	most := int64(0)
	for l := (arrivals{&crowded{left: many}}); ; {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, inside.Add(1))
		wg.Go(func() {
			for range steps {
				runtime.Gosched() // as one that waits for the other end
			}
			_ = conn.Close()
			inside.Add(-1)
		})
	}
	wg.Wait()
	if most > 5*steps {
		t.Errorf("%d of %d were inside at the same time", most, many)
	}
}

// Who has given up while it waited for its turn costs no more than to find that out.
func TestArrivalsThatHaveLeft(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("other systems tell it only when the connection is read")
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	dial := func() net.Conn {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("PRI * HTTP/2.0\r\n")); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	for range 5 {
		if err := dial().Close(); err != nil {
			t.Fatal(err)
		}
	}
	stays := dial()
	defer func() { _ = stays.Close() }()
	conn, err := arrivals{l}.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if got, want := conn.RemoteAddr().String(), stays.LocalAddr().String(); got != want {
		t.Errorf("%s was let in, want the one that is still there, %s", got, want)
	}
}
