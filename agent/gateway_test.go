package agent_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// gateway is a gateway of few words: it shakes hands, remembers all that workers
// say and answers what it was told to answer.
type gateway struct {
	agentv1.UnimplementedAgentGatewayServer
	t        *testing.T
	listener *bufconn.Listener
	server   *grpc.Server
	serving  sync.WaitGroup

	mu       sync.Mutex // guards all below
	manners  manners
	next     *gateway // takes the connections that come from now on
	sessions []*visit
	dials    int
	tries    []time.Time // when somebody said hello
	logs     map[string][]byte
}

// manners are what the gateway does by itself.
type manners struct {
	down       bool // can't be reached
	mute       bool // answers nothing at all
	deaf       bool // does not even shake hands
	stranger   bool // begins to, late, and never welcomes anybody
	ackResults bool
	unwanted   bool // of logs, in acks of results
	ackLogs    bool
	loseChunks int    // drop every n-th chunk of a log
	logError   string // instead of keeping logs
	refuses    uint64 // logs with this fence, for good; 0: none
	credit     int64
	lease      bool // gives what is asked for, at once, as a leader would
	reject     *agentv1.Reject
	code       codes.Code // of all streams, without a word
	streamLife time.Duration
}

// polite is how a gateway behaves when all is well.
var polite = manners{ackResults: true, ackLogs: true}

// talk is a gateway's end of a stream, whoever opened it.
type talk interface {
	Send(*agentv1.GatewayMessage) error
	Recv() (*agentv1.AgentMessage, error)
}

// visit is one session.
type visit struct {
	gateway *gateway
	stream  talk
	hello   *agentv1.Hello
	begun   time.Time
	cut     chan error // ends the stream

	sending sync.Mutex // a stream takes one message at a time

	mu    sync.Mutex // guards all below
	said  []*agentv1.AgentMessage
	ended time.Time // zero while it lasts
	chunk int
}

func newGateway(t *testing.T, m manners) *gateway {
	g := &gateway{
		t: t, listener: bufconn.Listen(1 << 20), manners: m, logs: map[string][]byte{},
		server: grpc.NewServer(append(wire.ServerOptions(), grpc.WaitForHandlers(true))...),
	}
	agentv1.RegisterAgentGatewayServer(g.server, g)
	g.serving.Go(func() {
		if err := g.server.Serve(g.listener); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return g
}

func (g *gateway) close() {
	g.server.Stop()
	g.serving.Wait()
}

func (g *gateway) dial(ctx context.Context, _ string) (net.Conn, error) {
	g.mu.Lock()
	g.dials++
	down, next := g.manners.down, g.next
	g.mu.Unlock()
	if next != nil {
		return next.dial(ctx, "")
	}
	if down {
		return nil, errors.New("connection refused")
	}
	return g.listener.DialContext(ctx)
}

// behave changes the gateway's manners.
func (g *gateway) behave(f func(*manners)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(&g.manners)
}

// handOver has another gateway take all new connections.
func (g *gateway) handOver(to *gateway) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next = to
}

func (g *gateway) how() manners {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.manners
}

func (g *gateway) visits() []*visit {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]*visit(nil), g.sessions...)
}

// dialled returns how many connections there were, tried how often somebody said
// hello.
func (g *gateway) dialled() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dials
}

func (g *gateway) tried() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.tries)
}

// last returns the latest session.
func (g *gateway) last() *visit {
	g.t.Helper()
	all := g.visits()
	if len(all) == 0 {
		g.t.Fatal("no worker has connected")
	}
	return all[len(all)-1]
}

func (g *gateway) log(run string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return string(g.logs[run])
}

// setLog has the gateway know just this of a log.
func (g *gateway) setLog(run string, data []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.logs[run] = bytes.Clone(data)
}

// Connect is one session.
func (g *gateway) Connect(stream agentv1.AgentGateway_ConnectServer) error { return g.converse(stream) }

func (g *gateway) converse(stream talk) error {
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	v := &visit{gateway: g, stream: stream, hello: m.GetHello(), begun: time.Now(), cut: make(chan error, 1)}
	g.mu.Lock()
	g.tries = append(g.tries, v.begun)
	g.mu.Unlock()
	if g.how().deaf {
		_, err := stream.Recv()
		return err
	}
	if g.how().stranger {
		return v.stringAlong()
	}
	if code := g.how().code; code != codes.OK {
		return status.Error(code, "made by a load balancer")
	}
	if r := g.how().reject; r != nil {
		v.send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Reject{Reject: r}})
		return status.Error(codes.PermissionDenied, "rejected")
	}
	if err := v.authenticate(); err != nil {
		g.t.Errorf("handshake: %v", err)
		return err
	}
	g.mu.Lock()
	g.sessions = append(g.sessions, v)
	g.mu.Unlock()
	received := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { v.listen(); received <- nil })
	select {
	case err = <-v.cut:
	case err = <-received:
	}
	v.mu.Lock()
	v.ended = time.Now()
	v.mu.Unlock()
	return err // the listener ends with the stream
}

// stringAlong asks for a proof as late as it can, and does nothing with it.
func (v *visit) stringAlong() error {
	<-time.After(9 * time.Second)
	v.send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Challenge{Challenge: &agentv1.Challenge{Nonce: make([]byte, 32)}}})
	for {
		if _, err := v.stream.Recv(); err != nil {
			return err
		}
	}
}

func (v *visit) authenticate() error {
	nonce := make([]byte, 32)
	nonce[0] = 7
	v.send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Challenge{Challenge: &agentv1.Challenge{Nonce: nonce}}})
	m, err := v.stream.Recv()
	if err != nil {
		return err
	}
	text := append([]byte("schedd agent session v1\n"), nonce...)
	text = binary.BigEndian.AppendUint64(text, v.hello.GetSessionEpoch())
	if !ed25519.Verify(v.hello.GetPublicKey(), text, m.GetAuthProof().GetSignature()) {
		return status.Error(codes.Unauthenticated, "wrong signature")
	}
	how := v.gateway.how()
	w := &agentv1.Welcome{
		Revision: wire.MaxRevision, WorkerId: wire.WorkerID(v.hello.GetPublicKey()), PrimaryId: "p1",
		PingInterval: durationpb.New(wire.PingInterval), LogCredit: how.credit,
	}
	if how.streamLife > 0 {
		w.StreamLife = durationpb.New(how.streamLife)
	}
	v.send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Welcome{Welcome: w}})
	return nil
}

// listen takes what the worker says until the stream ends.
func (v *visit) listen() {
	for {
		m, err := v.stream.Recv()
		if err != nil {
			return // the worker closed its half, or the stream broke
		}
		v.mu.Lock()
		v.said = append(v.said, m)
		v.mu.Unlock()
		how := v.gateway.how()
		if !how.mute {
			v.answer(m, how)
		}
	}
}

func (v *visit) answer(m *agentv1.AgentMessage, how manners) {
	switch body := m.GetBody().(type) {
	case *agentv1.AgentMessage_Ping:
		v.send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Pong{Pong: &agentv1.Pong{Seq: body.Ping.GetSeq()}}})
		if how.lease && len(body.Ping.GetFences()) > 0 {
			v.lease(body.Ping)
		}
	case *agentv1.AgentMessage_Result:
		if how.ackResults {
			v.ackResult(body.Result, how.unwanted)
		}
	case *agentv1.AgentMessage_LogAppend:
		v.chunk++
		lost := how.loseChunks > 0 && v.chunk%how.loseChunks == 0 && len(body.LogAppend.GetData()) > 0
		if how.ackLogs && !lost {
			v.send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_LogAck{LogAck: v.gateway.keep(body.LogAppend, how)}})
		}
	}
}

func (v *visit) ackResult(r *agentv1.Result, unwanted bool) {
	v.send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_ResultAck{
		ResultAck: &agentv1.ResultAck{Key: r.GetKey(), Fence: r.GetFence(), Unwanted: unwanted},
	}})
}

// keep is the positional append.
func (g *gateway) keep(m *agentv1.LogAppend, how manners) *agentv1.LogAck {
	g.mu.Lock()
	defer g.mu.Unlock()
	run := m.GetKey().GetRunId()
	if got := crc32.Checksum(m.GetData(), crc32.MakeTable(crc32.Castagnoli)); got != m.GetCrc32C() {
		g.t.Errorf("log of %s at %d: checksum %x, want %x", run, m.GetOffset(), m.GetCrc32C(), got)
	}
	if size := len(m.GetData()); size > wire.MaxLogChunk {
		g.t.Errorf("log of %s at %d: a chunk of %d bytes", run, m.GetOffset(), size)
	}
	ack := &agentv1.LogAck{Key: m.GetKey(), Error: how.logError, Refused: how.refuses > 0 && how.logError != ""}
	if ack.GetRefused() {
		ack.Key = &agentv1.AttemptKey{RunId: run, Attempt: m.GetKey().GetAttempt(), Fence: how.refuses}
	}
	known := int64(len(g.logs[run]))
	end := m.GetOffset() + int64(len(m.GetData()))
	if how.logError == "" && m.GetOffset() <= known && end > known {
		g.logs[run] = append(g.logs[run], m.GetData()[known-m.GetOffset():]...)
		known = end
	}
	ack.Known, ack.Durable = known, known
	return ack
}

func (v *visit) send(m *agentv1.GatewayMessage) {
	v.sending.Lock()
	defer v.sending.Unlock()
	_ = v.stream.Send(m) // a worker that is gone hears nothing
}

func (v *visit) launch(l *agentv1.Launch) {
	v.send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Launch{Launch: l}})
}

// lease gives all leases that a ping asks for.
func (v *visit) lease(p *agentv1.Ping) {
	v.send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Lease{Lease: &agentv1.Lease{Seq: p.GetSeq(), Fences: p.GetFences()}}})
}

// asks returns the pings that asked for leases.
func (v *visit) asks() (all []*agentv1.Ping) {
	for _, m := range v.words() {
		if p := m.GetPing(); len(p.GetFences()) > 0 {
			all = append(all, p)
		}
	}
	return all
}

func (v *visit) kill(l *agentv1.Launch, grace time.Duration) {
	v.send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Kill{Kill: &agentv1.Kill{
		Key: l.GetKey(), Fence: l.GetFence(), Grace: durationpb.New(grace), Reason: "somebody asked",
	}}})
}

// hangUp ends the stream as a load balancer does, without a word.
func (v *visit) hangUp() { v.cut <- status.Error(codes.Internal, "stream reset") }

// close ends the stream as other load balancers do: it looks as if all were well.
func (v *visit) close() { v.cut <- nil }

// over returns when the session ended; zero while it lasts.
func (v *visit) over() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ended
}

func (v *visit) words() []*agentv1.AgentMessage {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]*agentv1.AgentMessage(nil), v.said...)
}

// story returns what a session's worker said, in short, without pings and logs.
func (v *visit) story() []string {
	var lines []string
	for _, m := range v.words() {
		switch b := m.GetBody().(type) {
		case *agentv1.AgentMessage_Inventory:
			line := "inventory"
			for _, a := range b.Inventory.GetAttempts() {
				line += fmt.Sprintf(" %s/%d=%s", a.GetKey().GetRunId(), a.GetKey().GetAttempt(), short(a.GetPhase().String(), "ATTEMPT_PHASE_"))
			}
			lines = append(lines, line)
		case *agentv1.AgentMessage_Started:
			lines = append(lines, fmt.Sprintf("started %s/%d", b.Started.GetKey().GetRunId(), b.Started.GetKey().GetAttempt()))
		case *agentv1.AgentMessage_Result:
			lines = append(lines, fmt.Sprintf("result %s/%d %s", b.Result.GetKey().GetRunId(), b.Result.GetKey().GetAttempt(), short(b.Result.GetOutcome().String(), "OUTCOME_")))
		case *agentv1.AgentMessage_Goodbye:
			lines = append(lines, "goodbye")
		}
	}
	return lines
}

func short(name, prefix string) string { return name[len(prefix):] }

// result returns the last result of a run that any session brought.
func (g *gateway) result(run string) *agentv1.Result {
	var found *agentv1.Result
	for _, v := range g.visits() {
		for _, m := range v.words() {
			if r := m.GetResult(); r.GetKey().GetRunId() == run {
				found = r
			}
		}
	}
	return found
}
