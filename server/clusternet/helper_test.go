package clusternet_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/schedd/schedd/server/clusternet"
)

var (
	theKey   = bytes.Repeat([]byte{7}, 32)
	otherKey = bytes.Repeat([]byte{8}, 32)
)

// primary is a primary as far as the cluster port goes: a gRPC server that says
// that it is well, and, for Raft, an echo.
type primary struct {
	*clusternet.Network
	address string
	log     *journal
	callers chan string // ids of who called, as their certificates say; "": none
}

// start starts a primary on that listener, and stops it with the test.
func start(t *testing.T, id string, key []byte, l net.Listener, dial func(context.Context, string) (net.Conn, error)) *primary {
	t.Helper()
	p := &primary{address: l.Addr().String(), log: &journal{}, callers: make(chan string, 16)}
	var err error
	p.Network, err = clusternet.Open(clusternet.Config{
		NodeID: id, Listener: l, Advertise: l.Addr().String(), Key: key, Dial: dial,
		Log: slog.New(slog.NewTextHandler(p.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(append(p.ServerOptions(), grpc.UnaryInterceptor(p.note))...)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	var running sync.WaitGroup
	running.Go(func() {
		if err := server.Serve(p.Listener()); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	running.Go(func() { echo(p.Streams()) })
	t.Cleanup(func() {
		server.Stop()
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		running.Wait()
	})
	return p
}

// startTCP starts a primary on a port of this machine.
func startTCP(t *testing.T, id string, key []byte) *primary {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return start(t, id, key, l, nil)
}

func (p *primary) note(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	id, _ := clusternet.PeerID(ctx)
	p.callers <- id
	return next(ctx, req)
}

// echo sends back what comes for Raft, until the streams are closed.
func echo(s *clusternet.Streams) {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		conn, err := s.Accept()
		if err != nil {
			return
		}
		running.Go(func() {
			defer conn.Close()
			io.Copy(conn, conn)
		})
	}
}

// call asks the primary at an address how it is.
func (p *primary) call(t *testing.T, address string) error {
	t.Helper()
	conn, err := p.Conn(address)
	if err != nil {
		t.Fatal(err)
	}
	return ask(t, conn)
}

func ask(t *testing.T, conn grpc.ClientConnInterface) error {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	return err
}

// stream opens a connection for Raft, and sends a word there and back.
func (p *primary) stream(t *testing.T, address string) error {
	t.Helper()
	conn, err := p.Streams().Dial(address, 20*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	return talk(conn, "ping")
}

func talk(conn net.Conn, word string) error {
	if _, err := io.WriteString(conn, word); err != nil {
		return err
	}
	got := make([]byte, len(word))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != word {
		return io.ErrNoProgress
	}
	return nil
}

// journal is a log to read.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}
