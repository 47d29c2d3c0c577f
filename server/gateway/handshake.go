package gateway

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// handshake makes the stream the live session of the worker at its other end,
// or returns why not, after telling the worker.
func (n *session) handshake() *ending {
	spoken, refused := n.authenticate()
	if refused == nil {
		refused = n.admit()
	}
	if refused == nil {
		refused = n.welcome(spoken)
	}
	if refused != nil && refused.word != nil {
		n.say(refused.word)
	}
	return refused
}

// authenticate learns who the worker is, and lets it prove that.
func (n *session) authenticate() (spoken uint32, refused *ending) {
	m, err := n.stream.Recv()
	if err != nil {
		return 0, broken(err)
	}
	hello := m.GetHello()
	if hello == nil {
		return 0, violation(codes.InvalidArgument, "%T first, want a Hello", m.GetBody())
	}
	spoken, err = revision(hello)
	if err != nil {
		return 0, reject(codes.FailedPrecondition, true, 0, err.Error())
	}
	if err := checkHello(hello); err != nil {
		return 0, reject(codes.InvalidArgument, true, 0, "hello: "+err.Error())
	}
	n.server.spoke(n)
	if refused := n.challenge(hello); refused != nil {
		return 0, refused
	}
	hello.ProtoReflect().SetUnknown(nil) // kept as long as the session, and nobody has checked that
	n.Worker, n.Epoch, n.Hello, n.Connected = wire.WorkerID(hello.GetPublicKey()), hello.GetSessionEpoch(), hello, time.Now()
	return spoken, nil
}

// challenge lets the worker prove that it has the key it names.
func (n *session) challenge(hello *agentv1.Hello) *ending {
	nonce := make([]byte, wire.NonceSize)
	rand.Read(nonce) // never fails
	err := n.stream.Send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Challenge{
		Challenge: &agentv1.Challenge{Nonce: nonce},
	}})
	if err != nil {
		return broken(err)
	}
	m, err := n.stream.Recv()
	if err != nil {
		return broken(err)
	}
	auth := m.GetAuthProof()
	if auth == nil {
		return violation(codes.InvalidArgument, "%T after the Challenge, want an AuthProof", m.GetBody())
	}
	if !ed25519.Verify(hello.GetPublicKey(), wire.Proof(nonce, hello.GetSessionEpoch()), auth.GetSignature()) {
		return reject(codes.Unauthenticated, true, 0,
			"the signature does not prove the worker's key: its identity is damaged, or something on the way changes its messages")
	}
	return nil
}

// admit makes n the worker's live session if the worker may have one.
func (n *session) admit() *ending {
	if refused := n.askAdmit(); refused != nil {
		return refused
	}
	if refuse := n.server.config.Refuse; refuse != nil {
		if why := refuse(); why != "" {
			return reject(codes.Unavailable, false, 0, why)
		}
	}
	old, err := n.server.claim(n)
	switch {
	case errors.Is(err, errOldEpoch):
		return n.tooOld(old)
	case err != nil: // there are other primaries, and the worker has its own pauses
		return reject(codes.Unavailable, false, 0, err.Error())
	case old != nil && !old.leaving():
		n.server.counts.superseded.Add(1)
		old.end(move(codes.Aborted, fmt.Sprintf("superseded by the worker's session of epoch %#x from %s", n.Epoch, n.ObservedAddress)))
	}
	// Once more: who revokes a worker now finds this session and cuts it, but
	// who did so since we asked found nothing to cut.
	return n.askAdmit()
}

func (n *session) askAdmit() *ending {
	if n.server.config.Admit == nil {
		return nil
	}
	if err := n.server.config.Admit(n.Worker); err != nil {
		return reject(codes.PermissionDenied, true, 0, err.Error())
	}
	return nil
}

// tooOld refuses a session while one that is as new or newer is live. Either its
// stream was overtaken by the worker's next one, or two agents have the same
// key, which people have to know: they would cut each other off for ever.
func (n *session) tooOld(live *session) *ending {
	if live.leaving() {
		return reject(codes.Unavailable, false, 0, fmt.Sprintf("the worker's session of epoch %#x is just ending, and this one is of %#x", live.Epoch, n.Epoch))
	}
	reason := fmt.Sprintf("a session of this worker of epoch %#x is live, and this one is of %#x", live.Epoch, n.Epoch)
	if live.Hello.GetInstance() != n.Hello.GetInstance() {
		n.server.counts.duplicates.Add(1)
		n.log.Warn("duplicate identity: two agents have the same key; give one of them a data directory of its own",
			"worker", n.Worker,
			"name", n.Hello.GetName(), "epoch", n.Epoch, "instance", n.Hello.GetInstance(),
			"other_address", live.ObservedAddress, "other_name", live.Hello.GetName(),
			"other_epoch", live.Epoch, "other_instance", live.Hello.GetInstance())
		reason = fmt.Sprintf("duplicate identity: another agent with the same key is connected from %s; if that is a copy of this host, "+
			"remove the agent's data directory on one of them", live.ObservedAddress)
	}
	return reject(codes.Aborted, false, wire.PingInterval, reason)
}

// welcome opens the session. From here on only send sends.
func (n *session) welcome(spoken uint32) *ending {
	err := n.stream.Send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Welcome{Welcome: &agentv1.Welcome{
		Revision:     spoken,
		WorkerId:     n.Worker,
		PrimaryId:    n.server.config.PrimaryID,
		PingInterval: durationpb.New(wire.PingInterval),
		StreamLife:   durationpb.New(wire.StreamLife),
		LogCredit:    wire.LogCredit,
	}}})
	if err != nil {
		return broken(err)
	}
	n.heard.Store(int64(time.Since(n.born)))
	return nil
}
