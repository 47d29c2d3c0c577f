package session

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// ErrLate says that a session was not opened in time.
var ErrLate = errors.New("no welcome")

// Rejected is the gateway's word that it does not want this session. Nothing but
// this message has that authority: a status may come from a load balancer.
type Rejected struct {
	Reason     string        // for people
	Permanent  bool          // trying again soon is of no use
	RetryAfter time.Duration // how long to wait at least, up to an hour; 0 means as usual
}

// Error returns the gateway's reason.
func (r *Rejected) Error() string { return "rejected by the gateway: " + r.Reason }

func isRejected(err error) bool {
	_, ok := errors.AsType[*Rejected](err)
	return ok
}

// longestWait bounds how long a gateway may tell a worker to stay away: for that it is lost
// to all primaries.
const longestWait = time.Hour

func rejected(r *agentv1.Reject) *Rejected {
	return &Rejected{
		Reason: r.GetReason(), Permanent: r.GetPermanent(), RetryAfter: min(max(0, r.GetRetryAfter().AsDuration()), longestWait),
	}
}

// Open opens a stream and introduces the worker on it. What it returns is a
// session that the gateway has welcomed; Run it, or the stream leaks. The error
// is [*Rejected] if the gateway said no, and wraps [ErrLate] if it said nothing
// within the given time, which includes that to connect, or took far too long after that.
//
// The context bounds the opening only. The stream outlives it, so that there is
// time for last words; connect gets a context of its own, and is called once.
// Revisions and PublicKey of hello are filled in here; it is not changed. By clock, which
// goes on while the host is suspended, it is seen how old a launch may be.
func Open(ctx context.Context, within time.Duration, connect func(context.Context) (Stream, error), hello *agentv1.Hello, key ed25519.PrivateKey, clock func() time.Duration, log *slog.Logger) (*Session, error) {
	begun := clock()
	streamCtx, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(within, func() { cancel(fmt.Errorf("%w within %v", ErrLate, (clock() - begun).Round(100*time.Millisecond))) })
	defer late.Stop()
	stop := context.AfterFunc(ctx, hangUp)

	stream, welcome, err := introduce(streamCtx, connect, hello, key, func() {
		if late.Stop() {
			late.Reset(max(within, wire.ProveWithin))
		}
	})
	if !stop() && err == nil {
		err = errors.New("it came too late")
	}
	if err != nil {
		hangUp()
		if ctx.Err() != nil && !isRejected(err) {
			err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
		return nil, err
	}
	s := newSession(stream, hangUp, welcome, log)
	s.pulse = newPulse(clock, begun)
	return s, nil
}

// introduce connects, and talks up to the welcome. It calls challenged when the gateway
// has asked for a proof.
func introduce(ctx context.Context, connect func(context.Context) (Stream, error), hello *agentv1.Hello, key ed25519.PrivateKey, challenged func()) (Stream, *agentv1.Welcome, error) {
	stream, err := connect(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("connect: %w", err)
	}
	h := proto.CloneOf(hello)
	h.MinRevision, h.MaxRevision = wire.MinRevision, wire.MaxRevision
	h.PublicKey = key.Public().(ed25519.PublicKey)
	challenge, err := exchange(stream, &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Hello{Hello: h}})
	if err != nil {
		return nil, nil, fmt.Errorf("say hello: %w", err)
	}
	nonce := challenge.GetChallenge().GetNonce()
	if len(nonce) < wire.NonceSize { // a short one might come twice
		return nil, nil, fmt.Errorf("say hello: want a challenge with %d bytes to sign, got a message %T with %d", wire.NonceSize, challenge.GetBody(), len(nonce))
	}
	challenged()
	signature := ed25519.Sign(key, wire.Proof(nonce, h.GetSessionEpoch()))
	answer, err := exchange(stream, &agentv1.AgentMessage{Body: &agentv1.AgentMessage_AuthProof{
		AuthProof: &agentv1.AuthProof{Signature: signature},
	}})
	if err != nil {
		return nil, nil, fmt.Errorf("prove the key: %w", err)
	}
	welcome := answer.GetWelcome()
	if welcome == nil {
		return nil, nil, fmt.Errorf("prove the key: want a welcome, got a message %T", answer.GetBody())
	}
	if r := welcome.GetRevision(); r < wire.MinRevision || r > wire.MaxRevision {
		return nil, nil, fmt.Errorf("the gateway wants to speak revision %d of the protocol, this agent knows %d to %d: update the older one", r, wire.MinRevision, wire.MaxRevision)
	}
	return stream, welcome, nil
}

// exchange sends one message and returns the next one.
func exchange(stream Stream, m *agentv1.AgentMessage) (*agentv1.GatewayMessage, error) {
	// When sending fails the stream has ended, and receiving tells why.
	sendErr := stream.Send(m)
	answer, err := stream.Recv()
	switch {
	case err != nil:
		return nil, err
	case answer.GetReject() != nil:
		return nil, rejected(answer.GetReject())
	}
	return answer, sendErr
}
