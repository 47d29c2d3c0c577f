package gateway_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/server/gateway"
	"github.com/schedd/schedd/server/peer"
	"github.com/schedd/schedd/server/runlog"
)

// primary is a gateway behind a listener, between a leader and logs that note
// what they are told.
type primary struct {
	*gateway.Server
	leader   *leader
	logs     *logs
	log      *buffer
	listener *bufconn.Listener
	conns    chan int        // numbers the connections: their addresses differ
	accepted []addressed     // all of them
	hold     <-chan struct{} // keeps those that are accepted while it is set from being closed
}

// story runs a test in a bubble, with a primary that is closed at its end: a
// goroutine that is left over then fails the test.
func story(t *testing.T, tell func(t *testing.T, p *primary), change ...func(*gateway.Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &primary{leader: &leader{}, logs: newLogs(), log: &buffer{}, listener: bufconn.Listen(64 << 10), conns: make(chan int, 1)}
		p.conns <- 1
		c := gateway.Config{
			PrimaryID: "p1", Leader: p.leader, Logs: p.logs,
			Log: slog.New(slog.NewTextHandler(p.log, nil)),
		}
		for _, f := range change {
			f(&c)
		}
		p.Server = gateway.New(c)
		server := grpc.NewServer(append(wire.ServerOptions(), grpc.WaitForHandlers(true), grpc.Creds(p.Credentials()))...)
		agentv1.RegisterAgentGatewayServer(server, p.Server)
		var serving sync.WaitGroup
		serving.Go(func() {
			if err := server.Serve(numbered{p.listener, p}); err != nil {
				t.Errorf("serve: %v", err)
			}
		})
		t.Cleanup(func() {
			p.logs.release()
			if err := p.Close(context.Background()); err != nil {
				t.Errorf("close: %v", err)
			}
			server.Stop()
			serving.Wait()
		})
		tell(t, p)
	})
}

// numbered gives each connection an address of its own.
type numbered struct {
	net.Listener
	of *primary
}

func (l numbered) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	n := <-l.of.conns
	l.of.conns <- n + 1
	a := addressed{c, &net.TCPAddr{IP: net.IPv4(192, 0, 2, byte(n)), Port: 4000 + n}, l.of.hold}
	l.of.accepted = append(l.of.accepted, a)
	return a, nil
}

type addressed struct {
	net.Conn
	remote net.Addr
	hold   <-chan struct{}
}

// Close is the first thing that gRPC does to clean up after a connection.
func (c addressed) Close() error {
	if c.hold != nil {
		<-c.hold
	}
	return c.Conn.Close()
}

func (c addressed) RemoteAddr() net.Addr { return c.remote }

// worker is the other end of a stream, made by hand.
type worker struct {
	t      *testing.T
	key    ed25519.PrivateKey
	hello  *agentv1.Hello
	stream talk
	id     string        // as welcomed
	leave  chan struct{} // ends the stream of one that was dialled
}

// talk is a worker's end of a stream, whoever opened it.
type talk interface {
	Send(*agentv1.AgentMessage) error
	Recv() (*agentv1.GatewayMessage, error)
	CloseSend() error
}

// dial opens a stream over a connection of its own, and says nothing yet. Workers
// of the same number have the same key.
func (p *primary) dial(t *testing.T, number byte) *worker {
	t.Helper()
	return p.carried(t)(number)
}

// carried makes a connection, and returns what opens a stream over it.
func (p *primary) carried(t *testing.T) func(number byte) *worker {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///primary", append(wire.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return p.listener.DialContext(ctx)
		}))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("close the connection: %v", err)
		}
	})
	return func(number byte) *worker {
		t.Helper()
		stream, err := agentv1.NewAgentGatewayClient(conn).Connect(t.Context(), wire.SessionOptions()...)
		if err != nil {
			t.Fatalf("dial: %v", err)
		}
		return newWorker(t, number, stream)
	}
}

func newWorker(t *testing.T, number byte, stream talk) *worker {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{number}, ed25519.SeedSize))
	return &worker{t: t, key: key, stream: stream, leave: make(chan struct{}), hello: &agentv1.Hello{
		MinRevision: 1, MaxRevision: 1,
		PublicKey:    key.Public().(ed25519.PublicKey),
		SessionEpoch: 1<<32 | 1,
		Instance:     fmt.Sprintf("instance-%d", number),
		Name:         fmt.Sprintf("host-%d", number),
		Labels:       map[string]string{"zone": "eu", "example.com/gpu": ""},
		Slots:        8,
	}}
}

// connect dials, shakes hands and is welcomed.
func (p *primary) connect(t *testing.T, number byte, change ...func(*agentv1.Hello)) *worker {
	t.Helper()
	w := p.dial(t, number)
	for _, f := range change {
		f(w.hello)
	}
	w.greet()
	welcome := w.expect("Welcome").GetWelcome()
	w.id = welcome.GetWorkerId()
	synctest.Wait() // for the leader to be told
	return w
}

func epoch(e uint64) func(*agentv1.Hello) { return func(h *agentv1.Hello) { h.SessionEpoch = e } }

// greet says Hello and proves the key, as well as it knows how to.
func (w *worker) greet() {
	w.t.Helper()
	w.say(w.hello)
	m, err := w.stream.Recv()
	if err != nil || m.GetChallenge() == nil {
		w.t.Fatalf("after Hello: %v, %v; want a Challenge", m, err)
	}
	w.say(&agentv1.AuthProof{Signature: w.sign(m.GetChallenge().GetNonce())})
}

func (w *worker) sign(nonce []byte) []byte {
	m := binary.BigEndian.AppendUint64([]byte("schedd agent session v1\n"+string(nonce)), w.hello.GetSessionEpoch())
	return ed25519.Sign(w.key, m)
}

// say sends a message. That the stream is over shows when receiving.
func (w *worker) say(body proto.Message) {
	w.t.Helper()
	if err := w.stream.Send(say(body)); err != nil {
		w.t.Logf("worker: send %T: %v", body, err)
	}
}

// say wraps a body.
func say(body proto.Message) *agentv1.AgentMessage {
	m := &agentv1.AgentMessage{}
	r := m.ProtoReflect()
	fields := r.Descriptor().Fields()
	for i := range fields.Len() {
		if f := fields.Get(i); f.Message().FullName() == body.ProtoReflect().Descriptor().FullName() {
			r.Set(f, protoreflect.ValueOfMessage(body.ProtoReflect()))
		}
	}
	return m
}

// hear receives the next message that is no Ping.
func (w *worker) hear() (*agentv1.GatewayMessage, error) {
	for {
		m, err := w.stream.Recv()
		if err != nil || m.GetPing() == nil {
			return m, err
		}
	}
}

// expect receives the next message that is no Ping, which has to be of a kind.
func (w *worker) expect(kind string) *agentv1.GatewayMessage {
	w.t.Helper()
	m, err := w.hear()
	if err != nil {
		w.t.Fatalf("want a %s, the stream ended: %v", kind, err)
	}
	if got := kindOf(m); got != kind {
		w.t.Fatalf("want a %s, got %v", kind, m)
	}
	return m
}

func kindOf(m *agentv1.GatewayMessage) string {
	_, kind, _ := strings.Cut(fmt.Sprintf("%T", m.GetBody()), "GatewayMessage_")
	return kind
}

// expectEnd receives until the stream ends, and returns the last message and
// how the stream ended.
func (w *worker) expectEnd() (last *agentv1.GatewayMessage, code codes.Code) {
	w.t.Helper()
	for {
		m, err := w.hear()
		if err != nil {
			if err.Error() == "EOF" {
				return last, codes.OK
			}
			return last, status.Code(err)
		}
		last = m
	}
}

// leader notes what it is told.
type leader struct {
	mu       sync.Mutex
	events   []string
	sessions []peer.Session
	reports  []*agentv1.AgentMessage
	seen     []time.Time
}

func (l *leader) note(format string, args ...any) {
	l.events = append(l.events, fmt.Sprintf(format, args...))
}

func (l *leader) Attach(s peer.Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions = append(l.sessions, s)
	l.note("attach %s %#x", s.Worker, s.Epoch)
}

func (l *leader) Detach(worker string, epoch uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note("detach %s %#x", worker, epoch)
}

func (l *leader) Report(worker string, epoch uint64, m *agentv1.AgentMessage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reports = append(l.reports, m)
	l.note("report %s %#x", worker, epoch)
}

func (l *leader) Seen(_ string, _ uint64, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, at)
}

// told returns what the leader was told up to now.
func (l *leader) told() []string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

// logs keeps output in memory. Its disk may be held up, and may be full.
type logs struct {
	mu     sync.Mutex
	bytes  map[runlog.Key][]byte
	safe   map[runlog.Key]int64
	calls  int           // of Append
	syncs  int           // calls of Sync
	failed error         // of Append
	gate   chan struct{} // Sync waits for it; nil: it need not
	stuck  bool          // Append waits for it, too
	late   bool          // Sync makes durable what came while it waited
}

func newLogs() *logs {
	return &logs{bytes: make(map[runlog.Key][]byte), safe: make(map[runlog.Key]int64)}
}

func (l *logs) Append(k runlog.Key, offset int64, data []byte, crc uint32) (int64, error) {
	l.mu.Lock()
	if gate := l.gate; l.stuck && gate != nil {
		l.mu.Unlock()
		<-gate
		l.mu.Lock()
	}
	defer l.mu.Unlock()
	l.calls++
	known := int64(len(l.bytes[k]))
	if checksum(data) != crc {
		return known, runlog.ErrChecksum
	}
	if l.failed != nil {
		return known, l.failed
	}
	if skip := known - offset; skip >= 0 && skip < int64(len(data)) {
		l.bytes[k] = append(l.bytes[k], data[skip:]...)
	}
	return int64(len(l.bytes[k])), nil
}

func (l *logs) Sync(ctx context.Context, k runlog.Key) (int64, error) {
	l.mu.Lock()
	l.syncs++
	gate, known := l.gate, int64(len(l.bytes[k]))
	l.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.late {
		known = int64(len(l.bytes[k]))
	}
	l.safe[k] = max(l.safe[k], known)
	return l.safe[k], nil
}

// hold makes Sync wait until release.
func (l *logs) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gate = make(chan struct{})
}

// stop makes Append wait as well.
func (l *logs) stop() {
	l.hold()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stuck = true
}

// eager has Sync make durable what comes while it waits.
func (l *logs) eager() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.late = true
}

// synced returns how often the disk was asked to keep something.
func (l *logs) synced() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.syncs
}

func (l *logs) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gate != nil {
		close(l.gate)
		l.gate = nil
	}
}

func (l *logs) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = err
}

func checksum(data []byte) uint32 { return crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)) }

// buffer is a log that may be written and read at the same time.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// with returns the lines that contain all of the words.
func (b *buffer) with(words ...string) []string {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []string
	for line := range strings.Lines(b.b.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			found = append(found, line)
		}
	}
	return found
}

func attempt(run string) *agentv1.AttemptKey { return &agentv1.AttemptKey{RunId: run, Attempt: 1} }

func output(run string, offset int64, data []byte) *agentv1.LogAppend {
	return &agentv1.LogAppend{Key: attempt(run), Offset: offset, Data: data, Crc32C: checksum(data)}
}
