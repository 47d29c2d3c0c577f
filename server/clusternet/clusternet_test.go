package clusternet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/schedd/schedd/server/clusternet"
)

// Three primaries, each of which reaches all in each way. To itself it talks by gRPC,
// but never for Raft.
func TestOnePortCarriesBoth(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			group := []*primary{startTCP(t, "a", mode.key), startTCP(t, "b/2 ü%", mode.key), startTCP(t, "c", mode.key)}
			for _, from := range group {
				for _, to := range group {
					if err := from.call(t, to.address); err != nil {
						t.Errorf("gRPC: %v", err)
					}
					if err := from.stream(to.address); from != to && err != nil {
						t.Errorf("Raft: %v", err)
					} else if from == to && (err == nil || !strings.Contains(err.Error(), "this primary's own address")) {
						t.Errorf("Raft, to itself: %v", err)
					}
				}
			}
			want := "a b/2 ü% c"
			if mode.key == nil {
				want = "nobody nobody nobody"
			}
			for _, p := range group {
				if got := p.calledBy(); got != want {
					t.Errorf("called by %q, want %q", got, want)
				}
				if got := p.log.String(); got != "" {
					t.Errorf("all is well, and the log says %s", got)
				}
			}
		})
	}
}

// Raft is led to where another primary is now, by where it was, until that is no
// longer so.
func TestRedirect(t *testing.T) {
	a, b := startTCP(t, "a", theKey), startTCP(t, "b", theKey)
	const before = "127.0.0.1:1" // nobody is there
	a.Streams().Redirect(map[string]string{before: b.address})
	for _, address := range []string{before, b.address} {
		if err := a.stream(address); err != nil {
			t.Errorf("to %s: %v", address, err)
		}
	}
	a.Streams().Redirect(map[string]string{before: a.address})
	if err := a.stream(before); err == nil {
		t.Error("it was led to itself")
	}
	a.Streams().Redirect(nil)
	if err := a.stream(before); err == nil {
		t.Error("it is led there for ever")
	}
}

// What people get wrong, and what they are told, at both ends, and how often.
func TestPrimariesThatDoNotFit(t *testing.T) {
	for _, test := range []struct {
		name         string
		dials, takes []byte
		err, log     string
	}{
		{"another key", theKey, otherKey, "it uses another cluster key", "another cluster key"},
		{"only the dialler has a key", theKey, nil, "it has no --cluster-key and speaks no TLS", "it speaks TLS, and this primary has no --cluster-key"},
		{"only the acceptor has a key", nil, theKey, "it speaks TLS, and this primary has no --cluster-key", "it has no --cluster-key and speaks no TLS"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, b := startTCP(t, "a", test.dials), startTCP(t, "b", test.takes)
			for range 3 {
				if err := a.stream(b.address); err == nil {
					t.Error("a connection for Raft was made")
				} else {
					wantText(t, "Raft", err.Error(), "connect to "+b.address+" for Raft: "+test.err)
				}
			}
			err := a.call(t, b.address)
			if status.Code(err) != codes.Unavailable {
				t.Errorf("a call ends with %v", err)
			}
			wantText(t, "gRPC", status.Convert(err).Message(), b.address+": "+test.err)

			b.log.await(t)
			wantText(t, "the log", b.log.String(), test.log)
			if n := strings.Count(b.log.String(), "\n"); n != 1 {
				t.Errorf("the log has %d lines for one address, want 1:\n%s", n, b.log)
			}
			if b.calledBy() != "" {
				t.Errorf("called by %s", b.calledBy())
			}
		})
	}
}

// The same address is complained of once a minute, however often it comes.
func TestComplainsOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := lan{}
		a, b := n.start(t, "a", nil), n.start(t, "b", theKey)
		for range 180 {
			if err := a.stream("b"); err == nil {
				t.Fatal("a connection was made")
			}
			time.Sleep(time.Second)
		}
		if n := strings.Count(b.log.String(), "\n"); n != 3 {
			t.Errorf("%d lines in three minutes, want 3", n)
		}
	})
}

// dialRaw makes a connection that says this, and no more.
func (n lan) dialRaw(t *testing.T, address, says string) net.Conn {
	t.Helper()
	conn, err := n.dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, says); err != nil {
		t.Fatal(err)
	}
	return conn
}

// ends returns how long a connection lasts.
func ends(conn net.Conn) time.Duration {
	start := time.Now()
	io.Copy(io.Discard, conn)
	return time.Since(start)
}

func TestGarbageIsHungUpOnAtOnce(t *testing.T) {
	for _, mode := range modes {
		for _, says := range []string{
			"GET / HTTP/1.1\r\n\r\n",
			"SSH-2.0-OpenSSH_9.9\r\n",
			"\x00\x00\x00\x00",
			"POST /schedd.v1.JobService HTTP/1.1\r\n\r\n",
			"schedd-raft/2\nand so on",
			"PRI * HTTP/2.0\r\n\r\nSM\r\n\r ", // one byte is wrong
		} {
			if mode.key != nil && strings.HasPrefix(says, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") {
				continue
			}
			t.Run(fmt.Sprintf("%s/%.8q", mode.name, says), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := lan{}
					a := n.start(t, "a", mode.key)
					if d := ends(n.dialRaw(t, "a", says)); d != 0 {
						t.Errorf("it lasts %v", d)
					}
					wantText(t, "the log", a.log.String(), "it speaks no protocol of this port")
				})
			})
		}
	}
}

// Whoever says nothing, or too little, is hung up on after five seconds.
func TestHalfOpenHandshakesEnd(t *testing.T) {
	hello := clientHello(t)
	for _, mode := range modes {
		for name, says := range map[string]string{
			"nothing":            "",
			"a part for Raft":    "schedd-",
			"a part for gRPC":    "PRI * HTTP",
			"a part of TLS":      "\x16\x03\x01\x00\xff",
			"a greeting of TLS":  hello,
			"gRPC, and no frame": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		} {
			t.Run(mode.name+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := lan{}
					n.start(t, "a", mode.key)
					if d := ends(n.dialRaw(t, "a", says)); d != 5*time.Second {
						t.Errorf("it lasts %v, want 5s", d)
					}
				})
			})
		}
	}
}

// One byte each second does not keep a handshake open either.
func TestSlowHandshakesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := lan{}
		a := n.start(t, "a", nil)
		conn, start := n.dialRaw(t, "a", ""), time.Now()
		for _, b := range []byte("schedd-raft/1\n") {
			if _, err := conn.Write([]byte{b}); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if d := time.Since(start); d > 6*time.Second {
			t.Errorf("it lasts %v", d)
		}
		wantText(t, "the log", a.log.String(), "the handshake took too long")
	})
}

// clientHello returns the first thing that a client of TLS says.
func clientHello(t *testing.T) string {
	t.Helper()
	l := bufconn.Listen(64 << 10)
	p := open(t, "hello", theKey, bufconn.Listen(1), "hello", func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Streams().Dial("nowhere", patience) // ends with the listener
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	<-done
	return string(buf[:n])
}

// Somebody who looks whether the port is open is no story.
func TestProbesAreNotLogged(t *testing.T) {
	a := startTCP(t, "a", theKey)
	for _, linger := range []int{-1, 0} { // 0: with a reset
		conn, err := net.Dial("tcp", a.address)
		if err != nil {
			t.Fatal(err)
		}
		conn.(*net.TCPConn).SetLinger(linger)
		conn.Close()
	}
	if err := a.call(t, a.address); err != nil {
		t.Fatal(err)
	}
	a.Listener().Close()
	if err := a.Close(); err != nil { // waits for what was begun
		t.Error(err)
	}
	if got := a.log.String(); got != "" {
		t.Errorf("the log says %s", got)
	}
}

// Hundreds that connect and say nothing keep no primary out.
func TestCrowdKeepsNobodyOut(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := lan{}
				a, b := n.start(t, "a", mode.key), n.start(t, "b", mode.key)
				var crowd []net.Conn
				for range 300 {
					crowd = append(crowd, n.dialRaw(t, "b", "s"))
				}
				synctest.Wait()
				start := time.Now()
				if err := a.stream("b"); err != nil {
					t.Errorf("Raft: %v", err)
				}
				if err := a.call(t, "b"); err != nil {
					t.Errorf("gRPC: %v", err)
				}
				if d := time.Since(start); d != 0 {
					t.Errorf("it took %v", d)
				}
				wantText(t, "the log", b.log.String(), "256 others began a handshake before it had ended its own")
				var early atomic.Int32
				var waiting sync.WaitGroup
				for _, conn := range crowd {
					waiting.Go(func() {
						if ends(conn) == 0 {
							early.Add(1)
						}
					})
				}
				waiting.Wait()
				if n := early.Load(); n != 300-256+1 {
					t.Errorf("%d were hung up on before their time, want 44 for the crowd and 1 for a", n)
				}
			})
		})
	}
}

// A primary whose Raft takes no connections is refused more of them, with a reason.
func TestRaftThatTakesNothing(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := lan{}
				a, b := n.start(t, "a", mode.key), n.open(t, "b", mode.key)
				b.serve(t)
				var waiting []net.Conn
				for range 64 {
					conn, err := a.Streams().Dial("b", patience)
					if err != nil {
						t.Fatal(err)
					}
					waiting = append(waiting, conn)
				}
				if _, err := a.Streams().Dial("b", patience); err == nil {
					t.Error("the 65th is taken")
				} else {
					wantText(t, "Raft", err.Error(), "too many connections wait there for Raft already")
				}
				b.echo(t)
				for _, conn := range waiting {
					if err := talk(conn); err != nil {
						t.Error(err)
					}
					conn.Close()
				}
				if err := a.stream("b"); err != nil {
					t.Errorf("after that: %v", err)
				}
			})
		})
	}
}

// gRPC clears the deadline of what it has accepted, but not that of Raft.
func TestDeadlinesOfRaftHold(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := lan{}
				a, b := n.start(t, "a", mode.key), n.open(t, "b", mode.key)
				b.serve(t)
				mine, err := a.Streams().Dial("b", patience)
				if err != nil {
					t.Fatal(err)
				}
				defer mine.Close()
				theirs, err := b.Streams().Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer theirs.Close()
				theirs.SetDeadline(time.Now().Add(time.Minute))
				synctest.Wait()
				if d := ends(theirs); d != time.Minute {
					t.Errorf("a read ends after %v, want a minute", d)
				}
				mine.SetReadDeadline(time.Now().Add(time.Hour))
				if d := ends(mine); d != time.Hour {
					t.Errorf("a read ends after %v, want an hour", d)
				}
			})
		})
	}
}

// Certificates live for a day. New handshakes never see the end of one, and what
// was connected stays so.
func TestTwoDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := lan{}
		a, b := n.start(t, "a", theKey), n.start(t, "b", theKey)
		old, err := a.Streams().Dial("b", patience)
		if err != nil {
			t.Fatal(err)
		}
		defer old.Close()
		conn, err := a.Conn("b")
		if err != nil {
			t.Fatal(err)
		}
		watch, err := grpc_health_v1.NewHealthClient(conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := watch.Recv(); err != nil {
			t.Fatal(err)
		}
		broken := make(chan error, 1)
		go func() {
			_, err := watch.Recv()
			broken <- err
		}()
		for range 48 {
			time.Sleep(time.Hour)
			if err := a.stream("b"); err != nil {
				t.Fatalf("after %v: %v", time.Now(), err)
			}
			fresh, err := b.Conn("a")
			if err != nil {
				t.Fatal(err)
			}
			if err := ask(t, fresh); err != nil {
				t.Fatalf("after %v: %v", time.Now(), err)
			}
			b.Forget("a")
		}
		if err := talk(old); err != nil {
			t.Errorf("the old connection for Raft: %v", err)
		}
		select {
		case err := <-broken:
			t.Errorf("the old stream of gRPC: %v", err)
		default:
		}
		if err := ask(t, conn); err != nil {
			t.Error(err)
		}
	})
}

func TestConnsAreKept(t *testing.T) {
	n := lan{}
	a := n.open(t, "a", theKey)
	conn := func(f func(string) (*grpc.ClientConn, error), address string) *grpc.ClientConn {
		t.Helper()
		c, err := f(address)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	control, bulk, other := conn(a.Conn, "b"), conn(a.BulkConn, "b"), conn(a.Conn, "c")
	if control == bulk || control == other {
		t.Error("two ways are one connection")
	}
	if conn(a.Conn, "b") != control || conn(a.BulkConn, "b") != bulk {
		t.Error("a connection is made twice")
	}
	a.Forget("b")
	if conn(a.Conn, "b") == control || conn(a.BulkConn, "b") == bulk {
		t.Error("what was forgotten is still there")
	}
	if err := ask(t, control); status.Code(err) != codes.Canceled {
		t.Errorf("a call on what was forgotten ends with %v", err)
	}
	if conn(a.Conn, "c") != other {
		t.Error("another was forgotten too")
	}
	if _, err := a.Conn(""); err == nil {
		t.Error("there is a connection to no address")
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if _, err := a.Conn("b"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close a connection ends with %v", err)
	}
}

// A message of 4 MiB passes, of control and of output; more does not.
func TestLimitOfMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := lan{}
		a := n.start(t, "a", theKey)
		n.start(t, "b", theKey)
		for name, open := range map[string]func(string) (*grpc.ClientConn, error){"control": a.Conn, "bulk": a.BulkConn} {
			conn, err := open("b")
			if err != nil {
				t.Fatal(err)
			}
			check := func(size int) codes.Code {
				_, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: strings.Repeat("x", size)})
				return status.Code(err)
			}
			if got := check(4<<20 - 16); got != codes.NotFound {
				t.Errorf("%s: a message of 4 MiB ends with %v", name, got)
			}
			if got := check(4<<20 + 1); got != codes.ResourceExhausted {
				t.Errorf("%s: a larger message ends with %v", name, got)
			}
		}
	})
}

// Close ends whatever is under way, at both ends; the bubble waits for the last
// goroutine.
func TestCloseEndsAll(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := lan{"deaf": bufconn.Listen(64 << 10)}
				a, b := n.open(t, "a", mode.key), n.open(t, "b", mode.key)
				b.serve(t)
				waiting, err := a.Streams().Dial("b", patience)
				if err != nil {
					t.Fatal(err)
				}
				silent := n.dialRaw(t, "b", "")
				accepted, dialled := make(chan error, 1), make(chan error, 2)
				go func() {
					_, err := a.Streams().Accept()
					accepted <- err
				}()
				for range 2 { // the first is taken in, and heard by nobody; the second is not
					go func() {
						_, err := a.Streams().Dial("deaf", time.Hour)
						dialled <- err
					}()
				}
				deaf, err := n["deaf"].Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer deaf.Close()
				synctest.Wait()
				start := time.Now()
				for _, p := range []*primary{a, b, a} {
					if err := p.Close(); err != nil {
						t.Error(err)
					}
				}
				if err := <-accepted; !errors.Is(err, net.ErrClosed) {
					t.Errorf("Accept ends with %v", err)
				}
				for range 2 {
					if err := <-dialled; !errors.Is(err, context.Canceled) {
						t.Errorf("Dial ends with %v", err)
					}
				}
				if _, err := a.Streams().Dial("b", time.Hour); !errors.Is(err, net.ErrClosed) {
					t.Errorf("Dial after Close ends with %v", err)
				}
				ends(waiting)
				ends(silent)
				if d := time.Since(start); d != 0 {
					t.Errorf("it takes %v", d)
				}
				if got := b.log.String(); got != "" {
					t.Errorf("the log says %s", got)
				}
			})
		})
	}
}

// What Raft has stays open when the streams are closed, and so does the port.
func TestClosedStreamsLeaveThePortOpen(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := lan{}
				a, b := n.start(t, "a", mode.key), n.open(t, "b", mode.key)
				b.serve(t)
				b.Streams().Close()
				if _, err := a.Streams().Dial("b", patience); err == nil {
					t.Error("a connection is made for Raft that is gone")
				} else {
					wantText(t, "Raft", err.Error(), "it is stopping")
				}
				if err := a.call(t, "b"); err != nil {
					t.Errorf("gRPC: %v", err)
				}
			})
		})
	}
}

// A server that is there and never answers costs a dial its timeout, and no more.
func TestDialGivesUp(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := lan{"deaf": bufconn.Listen(64 << 10)}
				a := n.open(t, "a", mode.key)
				go func() {
					deaf, err := n["deaf"].Accept()
					if err == nil {
						io.Copy(io.Discard, deaf)
						deaf.Close()
					}
				}()
				start := time.Now()
				_, err := a.Streams().Dial("deaf", 3*time.Second)
				if d := time.Since(start); d != 3*time.Second {
					t.Errorf("it takes %v", d)
				}
				if err == nil {
					t.Fatal("it is made")
				}
				wantText(t, "Raft", err.Error(), "the handshake took too long")
			})
		})
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	a := startTCP(t, "a", theKey)
	if err := a.stream(l.Addr().String()); err == nil {
		t.Error("a connection is made")
	} else {
		wantText(t, "Raft", err.Error(), "connection refused")
	}
}

// What answers is not always a primary.
func TestStrangersThatAnswer(t *testing.T) {
	for says, want := range map[string]string{
		"HTTP/1.1 400 Bad Request\r\n":         `it answers "HTTP/1.1 400 Bad Request\r\n", as no primary does`,
		"":                                     "it ended the connection in the handshake (EOF)",
		"schedd":                               "it ended the connection in the handshake (unexpected EOF)",
		"schedd: what?\n":                      `it answers "schedd: what?\n", as no primary does`,
		strings.Repeat("SSH", 100):             "as no primary does",
		"220 smtp.example.org ESMTP Postfix\n": "as no primary does",
	} {
		t.Run(fmt.Sprintf("%.8q", says), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := lan{"stranger": bufconn.Listen(64 << 10)}
				a := n.open(t, "a", nil)
				go func() {
					conn, err := n["stranger"].Accept()
					if err != nil {
						return
					}
					io.CopyN(io.Discard, conn, int64(len("schedd-raft/1\n")))
					io.WriteString(conn, says)
					conn.Close()
				}()
				_, err := a.Streams().Dial("stranger", patience)
				if err == nil {
					t.Fatal("it is taken for a primary")
				}
				wantText(t, "Raft", err.Error(), want)
			})
		})
	}
}

func TestOpenNeedsAllOfIt(t *testing.T) {
	for what, spoil := range map[string]func(*clusternet.Config){
		"no NodeID":    func(c *clusternet.Config) { c.NodeID = "" },
		"no Advertise": func(c *clusternet.Config) { c.Advertise = "" },
		"no Log":       func(c *clusternet.Config) { c.Log = nil },
		"a short key":  func(c *clusternet.Config) { c.Key = theKey[:31] },
		"an empty key": func(c *clusternet.Config) { c.Key = []byte{} }, // it must not mean none
	} {
		l := bufconn.Listen(1)
		c := clusternet.Config{NodeID: "a", Listener: l, Advertise: "a", Key: theKey, Log: slog.New(slog.DiscardHandler)}
		spoil(&c)
		if _, err := clusternet.Open(c); err == nil {
			t.Errorf("with %s it opens", what)
		}
		if _, err := l.Dial(); err == nil {
			t.Errorf("with %s the listener stays open", what)
		}
	}
	if _, err := clusternet.Open(clusternet.Config{NodeID: "a", Advertise: "a", Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("without a Listener it opens")
	}
}

func TestStreamsSayWhatOthersDial(t *testing.T) {
	a := lan{}.open(t, "a", nil)
	if got := a.Streams().Addr(); got.String() != "a" || got.Network() != "tcp" {
		t.Errorf("they say %s %s", got.Network(), got)
	}
}

func TestPeerIDOfNobody(t *testing.T) {
	if id, ok := clusternet.PeerID(t.Context()); ok || id != "" {
		t.Errorf("a call from nowhere is by %q, %v", id, ok)
	}
}
