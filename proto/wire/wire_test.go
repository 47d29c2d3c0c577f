package wire_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/schedd/schedd/proto/wire"
)

// A service by hand, with streams that behave like sessions do at their best
// and at their worst.
var service = grpc.ServiceDesc{
	ServiceName: "wire.Test",
	HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{
		{StreamName: "Echo", ServerStreams: true, ClientStreams: true, Handler: echo},
		{StreamName: "Deaf", ServerStreams: true, ClientStreams: true, Handler: deaf},
		{StreamName: "Flood", ServerStreams: true, ClientStreams: true, Handler: flood},
	},
}

// echo sends back what it gets, and tells when and why it ended.
func echo(srv any, stream grpc.ServerStream) error {
	for {
		var m wrapperspb.BytesValue
		if err := stream.RecvMsg(&m); err != nil {
			srv.(*pair).ended <- end{time.Now(), status.Code(err)}
			return err
		}
		if err := stream.SendMsg(&m); err != nil {
			return err
		}
	}
}

// deaf reads nothing.
func deaf(_ any, stream grpc.ServerStream) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}

// flood sends all that it can, whether it is read or not.
func flood(srv any, stream grpc.ServerStream) error {
	for {
		if err := stream.SendMsg(wrapperspb.Bytes(make([]byte, wire.LogChunk))); err != nil {
			return err
		}
		srv.(*pair).flooded.Add(wire.LogChunk)
	}
}

// pair is a server and a client, made as in production but for the wire.
type pair struct {
	client *grpc.ClientConn
	dials  atomic.Int32
	cut    atomic.Bool // bytes get lost on their way from now on, both ways
	// What the server saw.
	ended   chan end // of echo streams
	flooded atomic.Int64
}

type end struct {
	at  time.Time
	why codes.Code
}

func connect(t *testing.T) *pair {
	t.Helper()
	p := &pair{ended: make(chan end, 10)}
	listener := bufconn.Listen(64 << 10)
	server := grpc.NewServer(append(wire.ServerOptions(), grpc.WaitForHandlers(true))...)
	server.RegisterService(&service, p)

	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(lossy{listener, &p.cut}); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	client, err := grpc.NewClient("passthrough:///server", append(wire.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			p.dials.Add(1)
			conn, err := listener.DialContext(ctx)
			return leak{conn, &p.cut}, err
		}))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Errorf("close the client: %v", err)
		}
		server.Stop()
		wg.Wait()
	})
	p.client = client
	return p
}

func (p *pair) stream(t *testing.T) grpc.ClientStream {
	t.Helper()
	return p.open(t, "Echo", wire.SessionOptions()...)
}

func (p *pair) open(t *testing.T, method string, options ...grpc.CallOption) grpc.ClientStream {
	t.Helper()
	// Longer than any of these tests: one that waits in vain ends all the same.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
	t.Cleanup(cancel)
	both := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := p.client.NewStream(ctx, both, "/wire.Test/"+method, options...)
	if err != nil {
		t.Fatalf("open a stream: %v", err)
	}
	return stream
}

func exchange(stream grpc.ClientStream, size int) error {
	m := wrapperspb.Bytes(make([]byte, size))
	if err := stream.SendMsg(m); err != nil {
		return err
	}
	return stream.RecvMsg(m)
}

// An hour without one message: pings keep the connection open, and neither end
// takes the other's pings for a flood.
func TestIdleForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t)
		stream := p.stream(t)
		if err := exchange(stream, 1); err != nil {
			t.Fatalf("at the start: %v", err)
		}
		time.Sleep(time.Hour)
		if err := exchange(stream, 1); err != nil {
			t.Errorf("after an hour: %v", err)
		}
		if got := p.dials.Load(); got != 1 {
			t.Errorf("dialed %d times, want the one connection to last", got)
		}
	})
}

// A client between two streams pings too, and must not be hung up on for it.
// Past the half hour gRPC puts an unused connection to sleep by itself.
func TestIdleWithoutAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t)
		p.client.Connect()
		time.Sleep(25 * time.Minute)
		if got := p.client.GetState(); got != connectivity.Ready {
			t.Errorf("the connection is %v, want %v", got, connectivity.Ready)
		}
		if got := p.dials.Load(); got != 1 {
			t.Errorf("dialed %d times, want the one connection to last", got)
		}

		p.cut.Store(true)
		time.Sleep(noticed + time.Second)
		if got := p.client.GetState(); got == connectivity.Ready {
			t.Errorf("the connection is %v %v after it was lost", got, noticed)
		}
	})
}

// noticed is how long it may take to see that a connection is dead.
const noticed = 30 * time.Second

// A cable that is pulled says nothing. Both ends notice by themselves.
func TestSilentLossIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t)
		stream := p.stream(t)
		if err := exchange(stream, 1); err != nil {
			t.Fatalf("at the start: %v", err)
		}
		lost := time.Now()
		p.cut.Store(true)

		err := stream.RecvMsg(new(wrapperspb.BytesValue))
		if got := status.Code(err); got != codes.Unavailable {
			t.Errorf("the client's stream ended with %v, want %v: %v", got, codes.Unavailable, err)
		}
		if got := time.Since(lost); got > noticed {
			t.Errorf("the client noticed after %v, want %v at the latest", got, noticed)
		}
		if got := (<-p.ended).at.Sub(lost); got > noticed {
			t.Errorf("the server noticed after %v, want %v at the latest", got, noticed)
		}
	})
}

// What fits goes through, however much larger than a window it is; what does
// not fit fails before it is sent.
func TestMessageSizes(t *testing.T) {
	const envelope = 16 // what the message around the bytes may take
	for _, test := range []struct {
		name string
		size int
		want codes.Code
	}{
		{"a log chunk", wire.LogChunk, codes.OK},
		{"all the credit at once", wire.LogCredit, codes.OK},
		{"the largest definition", wire.MaxDefinition, codes.OK},
		{"the largest message", wire.MaxMessage - envelope, codes.OK},
		{"too large", wire.MaxMessage + 1, codes.ResourceExhausted},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := connect(t)
				if got := status.Code(exchange(p.stream(t), test.size)); got != test.want {
					t.Errorf("%d bytes: %v, want %v", test.size, got, test.want)
				}
				if test.want == codes.OK {
					return
				}
				if got := (<-p.ended).why; got != codes.Canceled {
					t.Errorf("the server saw %v, want the client to keep its message and hang up", got)
				}
			})
		})
	}
}

// A server does not rely on its clients' own limits.
func TestServerRefusesLargeMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream := connect(t).open(t, "Echo", grpc.MaxCallSendMsgSize(2*wire.MaxMessage))
		if got := status.Code(exchange(stream, wire.MaxMessage+1)); got != codes.ResourceExhausted {
			t.Errorf("got %v, want %v", got, codes.ResourceExhausted)
		}
	})
}

// An end that does not read stops the other soon: the window of a stream, plus
// what the sender's gRPC holds for itself.
func TestWindowsHold(t *testing.T) {
	const least, most = 256 << 10, 512 << 10
	t.Run("worker to gateway", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			stream := connect(t).open(t, "Deaf")
			var sent atomic.Int64
			var wg sync.WaitGroup
			wg.Go(func() {
				for stream.SendMsg(wrapperspb.Bytes(make([]byte, wire.LogChunk))) == nil {
					sent.Add(wire.LogChunk)
				}
			})
			synctest.Wait()
			if got := sent.Load(); got < least || got > most {
				t.Errorf("%d bytes were sent to an end that does not read, want %d to %d", got, least, most)
			}
			t.Cleanup(wg.Wait)
		})
	})
	t.Run("gateway to worker", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := connect(t)
			p.open(t, "Flood")
			synctest.Wait()
			if got := p.flooded.Load(); got < least || got > most {
				t.Errorf("%d bytes were sent to an end that does not read, want %d to %d", got, least, most)
			}
		})
	})
}

// lossy is a listener whose connections lose what the server writes.
type lossy struct {
	net.Listener
	cut *atomic.Bool
}

func (l lossy) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return leak{conn, l.cut}, nil
}

type leak struct {
	net.Conn
	cut *atomic.Bool
}

func (l leak) Write(b []byte) (int, error) {
	if l.cut.Load() {
		return len(b), nil
	}
	return l.Conn.Write(b)
}

// Close of a cut connection is not heard at the other end either.
func (l leak) Close() error {
	if l.cut.Load() {
		return l.SetDeadline(time.Now())
	}
	return l.Conn.Close()
}
