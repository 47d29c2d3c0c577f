package fleet

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"runtime"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// member is one worker of the fleet.
type member struct {
	fleet  *Fleet
	number int
	name   string
	key    ed25519.PrivateKey
	server int // whose turn it is
	epoch  uint64
	late   int           // tries in a row that took too long
	took   time.Duration // to open the last session
	known  attempts
}

func newMember(f *Fleet, number int) (*member, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of a worker: %w", err)
	}
	const life = 1 << 32 // this is the first life of the worker
	const calm = 6       // the first session may take as long as any: what is measured begins when all are there
	return &member{
		late: calm, fleet: f, number: number, name: fmt.Sprintf("%s-%d", f.config.Name, number), key: private, server: number, epoch: life, known: attempts{},
	}, nil
}

// keep keeps a session until ctx is done: one after the other, with the pauses that
// agents make.
func (m *member) keep(ctx context.Context) {
	if !m.fleet.awaitTurn(ctx) {
		return
	}
	failures := 0
	left := m.fleet.leaveTurn()
	for ctx.Err() == nil {
		began := time.Now()
		err := m.attend(ctx, left)
		left() // if it never got so far
		if ctx.Err() != nil {
			return
		}
		m.fleet.failedWith(fmt.Errorf("%s: %w", m.name, err))
		switch {
		case time.Since(began) >= wire.BackoffReset:
			failures = 1
		case !errors.Is(err, context.DeadlineExceeded): // one that took too long has cost time enough
			failures++
		}
		rest(ctx, wire.Backoff(failures, mathrand.Float64()))
	}
}

// awaitTurn waits until the worker may open its first session.
func (f *Fleet) awaitTurn(ctx context.Context) bool {
	if f.turn == nil {
		return true
	}
	select {
	case f.turn <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// leaveTurn returns what lets the next worker open its first session, once.
func (f *Fleet) leaveTurn() func() {
	left := f.turn == nil
	return func() {
		if !left {
			left = true
			<-f.turn
		}
	}
}

func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// attend opens one session and keeps it to its end. It calls opened when the worker
// is welcome.
func (m *member) attend(ctx context.Context, opened func()) error {
	f := m.fleet
	server := f.config.Servers[m.server%len(f.config.Servers)]
	m.server++
	conn, err := m.dial(server)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the session has ended
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	s, err := m.open(ctx, hangUp, conn)
	if err != nil {
		f.failed.Add(1)
		return fmt.Errorf("open a session with %s: %w", server, err)
	}
	f.opened.Add(1)
	f.online.Add(1)
	defer f.online.Add(-1)
	opened()
	return s.talk()
}

// dial makes a connection for one session, as agents do, with smaller buffers: ten
// thousand of them are in this process.
func (m *member) dial(server string) (*grpc.ClientConn, error) {
	const buffer = 4 << 10
	secured := insecure.NewCredentials()
	if c := m.fleet.config.TLS; c != nil {
		secured = credentials.NewTLS(c)
	}
	conn, err := grpc.NewClient("passthrough:///"+server, append(wire.DialOptions(),
		grpc.WithTransportCredentials(secured),
		grpc.WithReadBufferSize(buffer), grpc.WithWriteBufferSize(buffer),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return m.fleet.config.Dial(ctx, address) }))...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", server, err)
	}
	return conn, nil
}

// open introduces the worker, up to the welcome.
func (m *member) open(ctx context.Context, hangUp context.CancelFunc, conn *grpc.ClientConn) (*session, error) {
	began, within := time.Now(), wire.Patience(m.late, m.took)
	late := time.AfterFunc(within, hangUp)
	s, err := m.introduce(ctx, conn, func() {
		if late.Stop() {
			late.Reset(max(within, wire.ProveWithin))
		}
	})
	if !late.Stop() {
		m.late++
		return nil, fmt.Errorf("%w after %v (%w)", context.DeadlineExceeded, within, errors.Join(err, ctx.Err()))
	}
	m.late = 0
	if err == nil {
		m.took = time.Since(began)
	}
	return s, err
}

// introduce says hello and proves the key. It calls challenged when it was asked to.
func (m *member) introduce(ctx context.Context, conn *grpc.ClientConn, challenged func()) (*session, error) {
	stream, err := agentv1.NewAgentGatewayClient(conn).Connect(ctx, wire.SessionOptions()...)
	if err != nil {
		return nil, err
	}
	m.epoch++
	challenge, err := exchange(stream, &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Hello{Hello: m.hello()}})
	if err != nil {
		return nil, err
	}
	nonce := challenge.GetChallenge().GetNonce()
	if len(nonce) != wire.NonceSize {
		return nil, fmt.Errorf("want a challenge, got a message %T", challenge.GetBody())
	}
	challenged()
	answer, err := exchange(stream, &agentv1.AgentMessage{Body: &agentv1.AgentMessage_AuthProof{
		AuthProof: &agentv1.AuthProof{Signature: ed25519.Sign(m.key, wire.Proof(nonce, m.epoch))},
	}})
	if err != nil {
		return nil, err
	}
	if answer.GetWelcome() == nil {
		return nil, fmt.Errorf("want a welcome, got a message %T", answer.GetBody())
	}
	return newSession(m, stream, answer.GetWelcome()), nil
}

func (m *member) hello() *agentv1.Hello {
	c := m.fleet.config
	return &agentv1.Hello{
		MinRevision: wire.MinRevision, MaxRevision: wire.MaxRevision, PublicKey: m.key.Public().(ed25519.PublicKey), SessionEpoch: m.epoch,
		Instance: m.name, BootId: c.Name, Name: m.name, Labels: c.Labels, Slots: uint32(c.Slots),
		AdvertiseHostname: m.name, AdvertiseIp: "127.0.0.1", Version: "bench", Os: runtime.GOOS, Arch: runtime.GOARCH,
	}
}

// exchange sends one message and returns the next one. When sending fails the stream
// has ended, and receiving tells why.
func exchange(stream agentv1.AgentGateway_ConnectClient, m *agentv1.AgentMessage) (*agentv1.GatewayMessage, error) {
	sendErr := stream.Send(m)
	answer, err := stream.Recv()
	switch {
	case err != nil:
		return nil, err
	case answer.GetReject() != nil:
		return nil, fmt.Errorf("the gateway refuses: %s", answer.GetReject().GetReason())
	}
	return answer, sendErr
}
