package clusternet_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"

	"github.com/schedd/schedd/server/clusternet"
)

var (
	theKey   = bytes.Repeat([]byte{7}, 32)
	otherKey = bytes.Repeat([]byte{8}, 32)
)

// modes are how a cluster port can be.
var modes = []struct {
	name string
	key  []byte
}{{"with a key", theKey}, {"without a key", nil}}

type dialer = func(ctx context.Context, address string) (net.Conn, error)

// primary is a primary as far as the cluster port goes: a gRPC server that says
// that it is well, and, for Raft, an echo.
type primary struct {
	*clusternet.Network
	address string
	log     *journal

	mu      sync.Mutex
	callers []string // who called, as their certificates say; "nobody" without one
}

// open opens the network of a primary, which serves nothing yet.
func open(t *testing.T, id string, key []byte, l net.Listener, address string, dial dialer) *primary {
	t.Helper()
	p := &primary{address: address, log: &journal{}}
	var err error
	p.Network, err = clusternet.Open(clusternet.Config{
		NodeID: id, Listener: l, Advertise: address, Key: key, Dial: dial,
		Log: slog.New(slog.NewTextHandler(p.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close %s: %v", id, err)
		}
	})
	return p
}

// serve lets it answer gRPC, until the test ends.
func (p *primary) serve(t *testing.T) {
	server := grpc.NewServer(append(p.ServerOptions(), grpc.UnaryInterceptor(p.note))...)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	var running sync.WaitGroup
	running.Go(func() { server.Serve(p.Listener()) }) // the error is that the listener was closed, if there is one
	t.Cleanup(func() {
		server.Stop()
		running.Wait()
	})
}

// echo lets it send back what comes for Raft, until the test ends.
func (p *primary) echo(t *testing.T) {
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := p.Streams().Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			running.Go(func() {
				defer conn.Close()
				io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		p.Streams().Close()
		running.Wait()
	})
}

func (p *primary) note(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	id, ok := clusternet.PeerID(ctx)
	if !ok {
		id = "nobody" + id
	}
	p.mu.Lock()
	p.callers = append(p.callers, id)
	p.mu.Unlock()
	return next(ctx, req)
}

func (p *primary) calledBy() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.callers, " ")
}

// listenTCP opens the network of a primary on a port of this machine.
func listenTCP(t *testing.T, id string, key []byte) *primary {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return open(t, id, key, l, l.Addr().String(), nil)
}

// startTCP starts a primary there.
func startTCP(t *testing.T, id string, key []byte) *primary {
	t.Helper()
	p := listenTCP(t, id, key)
	p.serve(t)
	p.echo(t)
	return p
}

// lan is a network in memory, for bubbles: a listener for each address.
type lan map[string]*bufconn.Listener

func (n lan) dial(ctx context.Context, address string) (net.Conn, error) {
	l := n[address]
	if l == nil {
		return nil, errors.New("no route to " + address)
	}
	return l.DialContext(ctx)
}

// open opens the network of a primary, whose id is its address, and that serves
// nothing yet.
func (n lan) open(t *testing.T, id string, key []byte) *primary {
	t.Helper()
	n[id] = bufconn.Listen(64 << 10)
	return open(t, id, key, n[id], id, n.dial)
}

func (n lan) start(t *testing.T, id string, key []byte) *primary {
	t.Helper()
	p := n.open(t, id, key)
	p.serve(t)
	p.echo(t)
	return p
}

// patience bounds what is expected to work, or to fail, at once.
const patience = time.Minute

// call asks the primary at an address how it is.
func (p *primary) call(t *testing.T, address string) error {
	t.Helper()
	conn, err := p.Conn(address)
	if err != nil {
		return err
	}
	return ask(t, conn)
}

func ask(t *testing.T, conn grpc.ClientConnInterface) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	return err
}

// stream opens a connection for Raft, and has a word sent there and back.
func (p *primary) stream(address string) error {
	conn, err := p.Streams().Dial(address, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	return talk(conn)
}

func talk(conn net.Conn) error {
	const word = "so what"
	if _, err := io.WriteString(conn, word); err != nil {
		return err
	}
	got := make([]byte, len(word))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != word {
		return errors.New("the echo is " + string(got))
	}
	return nil
}

// journal is a log to read.
type journal struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{} // closed when there is more; nil: nobody waits
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.grown != nil {
		close(j.grown)
		j.grown = nil
	}
	return j.text.Write(p)
}

// await waits until the log is not empty: an acceptor writes it only after the
// dialler has understood.
func (j *journal) await(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.text.Len() == 0 && ctx.Err() == nil {
		grown := make(chan struct{})
		j.grown = grown
		j.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
		}
		j.mu.Lock()
	}
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func wantText(t *testing.T, what, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("%s says %q, want in it %q", what, got, want)
	}
}
