package faultnet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/schedd/schedd/server/systest/natlab/faultnet"
)

// exchange is where conns are dialled and accepted, in memory.
type exchange struct {
	calls chan net.Conn
	once  sync.Once
	over  chan struct{}
}

func newExchange() *exchange { return &exchange{calls: make(chan net.Conn), over: make(chan struct{})} }

func (x *exchange) dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case x.calls <- there:
		return here, nil
	case <-x.over:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (x *exchange) Accept() (net.Conn, error) {
	select {
	case c := <-x.calls:
		return c, nil
	case <-x.over:
		return nil, net.ErrClosed
	}
}

func (x *exchange) Close() error {
	x.once.Do(func() { close(x.over) })
	return nil
}

func (x *exchange) Addr() net.Addr { return &net.UnixAddr{} }

// world is a proxy with somewhere to dial it, and where it dials.
type world struct {
	*faultnet.Proxy
	front, back *exchange
}

// in runs a test in a bubble.
func in(t *testing.T, test func(*testing.T, *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{front: newExchange(), back: newExchange()}
		w.Proxy = faultnet.New(w.back.dial)
		ctx, cancel := context.WithCancel(t.Context())
		var serving sync.WaitGroup
		serving.Go(func() {
			if err := w.Serve(ctx, w.front); err != nil {
				t.Errorf("serve: %v", err)
			}
		})
		test(t, w)
		cancel()
		serving.Wait()
		if n := w.Connections(); n > 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

// connect returns both ends of a connection through the proxy.
func (w *world) connect(t *testing.T) (near, far net.Conn) {
	t.Helper()
	near, err := w.front.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if far, err = w.back.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	synctest.Wait() // until it is carried
	return near, far
}

// send writes, and does not wait for it to be taken.
func send(t *testing.T, conn net.Conn, data []byte) {
	t.Helper()
	go func() { _, _ = conn.Write(data) }() // whoever cares looks at the other end
}

// takes returns how long it takes until n bytes have been read.
func takes(t *testing.T, conn net.Conn, n int) time.Duration {
	t.Helper()
	start := time.Now()
	if _, err := io.ReadFull(conn, make([]byte, n)); err != nil {
		t.Fatalf("read %d bytes: %v", n, err)
	}
	return time.Since(start)
}

// silent reports whether nothing can be read for d.
func silent(t *testing.T, conn net.Conn, d time.Duration) bool {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(d))
	defer func() { _ = conn.SetReadDeadline(time.Time{}) }()
	_, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestBytesPass(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		near, far := w.connect(t)
		for _, ends := range [][2]net.Conn{{near, far}, {far, near}} {
			want := bytes.Repeat([]byte("to and fro "), 10_000)
			send(t, ends[0], want)
			got := make([]byte, len(want))
			if _, err := io.ReadFull(ends[1], got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("other bytes came out: %v", err)
			}
		}
		_ = near.Close()
		if rest, err := io.ReadAll(far); len(rest) > 0 || err != nil {
			t.Errorf("after the end come %d bytes, %v", len(rest), err)
		}
	})
}

func TestDelay(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.Set(faultnet.Conditions{Up: faultnet.Direction{Delay: 20 * time.Millisecond}, Down: faultnet.Direction{Delay: time.Second}})
		near, far := w.connect(t)
		send(t, near, []byte("a"))
		if d := takes(t, far, 1); d != 20*time.Millisecond {
			t.Errorf("up takes %v", d)
		}
		send(t, far, []byte("b"))
		if d := takes(t, near, 1); d != time.Second {
			t.Errorf("down takes %v", d)
		}
		// Much is late by the same, not by more.
		send(t, near, make([]byte, 200_000))
		if d := takes(t, far, 200_000); d != 20*time.Millisecond {
			t.Errorf("much takes %v", d)
		}
	})
}

// A link of 10 Mbit/s carries as much, however many share it, and what stands in
// its queue is never more than a router's.
func TestRate(t *testing.T) {
	const rate = 1_250_000
	in(t, func(t *testing.T, w *world) {
		w.Set(faultnet.Conditions{Up: faultnet.Direction{Rate: rate}})
		start := time.Now()
		var readers sync.WaitGroup
		for range 2 {
			near, far := w.connect(t)
			send(t, near, make([]byte, rate))
			readers.Go(func() { takes(t, far, rate) })
		}
		readers.Wait()
		if d := time.Since(start); d < 1990*time.Millisecond || d > 2010*time.Millisecond {
			t.Errorf("2.5 MB take %v, want 2 s", d)
		}

		flood, sink := w.connect(t)
		send(t, flood, make([]byte, 10*rate))
		go func() { _, _ = io.Copy(io.Discard, sink) }()
		near, far := w.connect(t)
		time.Sleep(time.Second)
		send(t, near, []byte("!"))
		if d := takes(t, far, 1); d < 20*time.Millisecond || d > 50*time.Millisecond {
			t.Errorf("a byte waits for %v behind a flood, want about as long as 48 KiB take", d)
		}
		send(t, far, []byte("!"))
		if d := takes(t, near, 1); d != 0 {
			t.Errorf("the way back is free, and takes %v", d)
		}
		_, _ = flood.Close(), sink.Close()
	})
}

// Who waits for room sees that there is more of it.
func TestRateIsLifted(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.Set(faultnet.Conditions{Up: faultnet.Direction{Rate: 1}})
		near, far := w.connect(t)
		send(t, near, make([]byte, 100_000))
		_ = takes(t, far, 1)
		w.Set(faultnet.Conditions{})
		if d := takes(t, far, 99_999); d > 20*time.Hour {
			t.Errorf("the rest takes %v", d)
		}
	})
}

// In a black hole bytes vanish, the end of a connection does so too, and nobody
// is told. What has lost something is lost for good; what has not goes on.
func TestBlackhole(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		near, far := w.connect(t)
		quiet, still := w.connect(t)
		w.Set(faultnet.Conditions{Up: faultnet.Direction{Blackhole: true}})
		if _, err := near.Write([]byte("gone")); err != nil {
			t.Errorf("a write into a black hole says %v", err)
		}
		send(t, far, []byte("b"))
		_ = takes(t, near, 1) // only up is black
		w.Set(faultnet.Conditions{})
		if _, err := near.Write([]byte("gone too")); err != nil {
			t.Errorf("a write behind a hole says %v", err)
		}
		if !silent(t, far, time.Hour) {
			t.Error("something came out of a black hole")
		}
		send(t, quiet, []byte("a"))
		_ = takes(t, still, 1)

		_ = near.Close()
		if !silent(t, far, time.Hour) {
			t.Error("the end of a connection came out of a black hole")
		}
		if n := w.Connections(); n != 2 {
			t.Errorf("there are %d connections, want 2", n)
		}
	})
}

func TestReset(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		near, far := w.connect(t)
		w.Reset()
		for _, end := range []net.Conn{near, far} {
			if _, err := end.Read(make([]byte, 1)); err == nil {
				t.Error("a connection outlived its reset")
			}
		}
		near, far = w.connect(t)
		send(t, near, []byte("a"))
		_ = takes(t, far, 1)
	})
}

// Silence ends a connection, and a byte either way keeps it.
func TestIdleTimeout(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		near, far := w.connect(t)
		time.Sleep(time.Hour)
		w.Set(faultnet.Conditions{IdleTimeout: 15 * time.Second}) // for those that are there as well
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("a connection that was idle for an hour ends with %v", err)
		}
		_ = far.Close()
		near, far = w.connect(t)
		for range 10 {
			time.Sleep(14 * time.Second)
			send(t, near, []byte("a"))
			_ = takes(t, far, 1)
			time.Sleep(14 * time.Second)
			send(t, far, []byte("b"))
			_ = takes(t, near, 1)
		}
		if n := w.Connections(); n != 1 {
			t.Errorf("there are %d connections, want the one that is used", n)
		}
		start := time.Now()
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("an idle connection ends with %v", err)
		}
		if d := time.Since(start); d != 15*time.Second {
			t.Errorf("it was idle for %v", d)
		}
	})
}

// A balancer takes any of its backends, and one that is there if another is not.
func TestRandom(t *testing.T) {
	asked := map[string]int{}
	dead := map[string]bool{"b": true}
	dial := faultnet.Random(func(_ context.Context, addr string) (net.Conn, error) {
		asked[addr]++
		if dead[addr] {
			return nil, errors.New("connection refused")
		}
		conn, _ := net.Pipe()
		return conn, nil
	}, "a", "b", "c")
	for range 200 {
		if _, err := dial(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, addr := range []string{"a", "b", "c"} {
		if asked[addr] < 20 {
			t.Errorf("%s was asked %d times of 200", addr, asked[addr])
		}
	}
	dead["a"], dead["c"] = true, true
	if _, err := dial(t.Context()); err == nil {
		t.Error("nobody is there, and somebody was dialled")
	}
}

// Who can't be passed on is hung up on, and the next one is served.
func TestNobodyThere(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		_ = w.back.Close()
		for range 2 {
			near, err := w.front.dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("the end of the connection is wanted, got %v", err)
			}
		}
	})
}

// Whatever the conditions are and become, what comes out of a connection is what
// went in, up to where it was cut or lost.
func TestBytesStayInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		conditions := rapid.SliceOfN(rapid.Custom(drawConditions), 1, 6).Draw(rt, "conditions")
		sizes := rapid.SliceOfN(rapid.IntRange(1, 20_000), 1, 20).Draw(rt, "sizes")
		lossless := !slices.ContainsFunc(conditions, func(c faultnet.Conditions) bool { return c.Up.Blackhole })
		in(t, func(t *testing.T, w *world) {
			near, far := w.connect(t)
			var sent []byte
			for _, n := range sizes {
				for range n {
					sent = append(sent, byte(rand.IntN(256)))
				}
			}
			var others sync.WaitGroup
			defer others.Wait()
			others.Go(func() {
				rest := sent
				for _, n := range sizes {
					_, _ = near.Write(rest[:n])
					rest = rest[n:]
				}
				_ = near.Close()
			})
			others.Go(func() {
				for _, c := range conditions {
					w.Set(c)
					time.Sleep(10 * time.Millisecond)
				}
			})
			_ = far.SetReadDeadline(time.Now().Add(24 * time.Hour))
			got, err := io.ReadAll(far)
			if !bytes.HasPrefix(sent, got) {
				t.Errorf("what came out is not what went in")
			}
			if lossless && (err != nil || len(got) != len(sent)) {
				t.Errorf("%d of %d bytes came out, %v", len(got), len(sent), err)
			}
		})
	})
}

func drawConditions(t *rapid.T) faultnet.Conditions {
	return faultnet.Conditions{Up: faultnet.Direction{
		Delay:     time.Duration(rapid.IntRange(0, 50).Draw(t, "delay")) * time.Millisecond,
		Rate:      rapid.SampledFrom([]int{0, 0, 1000, 1_000_000}).Draw(t, "rate"),
		Blackhole: rapid.IntRange(0, 9).Draw(t, "black") == 0,
	}}
}

// Over real sockets a reset is seen as one, the end in order as such, and one
// side may say all before the other does.
func TestOverTCP(t *testing.T) {
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = back.Close() }()
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var d net.Dialer
	p := faultnet.New(func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", back.Addr().String()) })
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel()
	serving.Go(func() {
		if err := p.Serve(ctx, front); err != nil {
			t.Error(err)
		}
	})
	connect := func() (near, far *net.TCPConn) {
		conn, err := d.DialContext(t.Context(), "tcp", front.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		other, err := back.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return conn.(*net.TCPConn), other.(*net.TCPConn)
	}

	near, far := connect()
	_, _ = fmt.Fprint(near, "a question")
	_ = near.CloseWrite()
	if text, err := io.ReadAll(far); string(text) != "a question" || err != nil {
		t.Errorf("%q came through, %v", text, err)
	}
	_, _ = fmt.Fprint(far, "an answer")
	_ = far.Close()
	if text, err := io.ReadAll(near); string(text) != "an answer" || err != nil {
		t.Errorf("%q came back, %v", text, err)
	}
	_ = near.Close()

	near, far = connect()
	_, _ = fmt.Fprint(near, "!")
	_, _ = far.Read(make([]byte, 1)) // then it is carried
	p.Reset()
	for _, end := range []*net.TCPConn{near, far} {
		if _, err := end.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("a reset is wanted, got %v", err)
		}
		_ = end.Close()
	}
}
