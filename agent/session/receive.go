package session

import (
	"fmt"
	"math/rand/v2"
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// receive hands on what the gateway says until the stream ends. It never waits
// for anything but the stream. When a launch may have lain there for longer than a
// session may be silent, as after a pause of this process or of the host, its run may be
// over: the session ends, and what is wanted still is said again in the next one.
func (s *Session) receive(attempts Attempts) error {
	for {
		m, err := s.stream.Recv()
		if err != nil {
			return err
		}
		s.silence.Reset(s.deadAfter())
		if r := m.GetReject(); r != nil {
			return rejected(r)
		}
		if m.GetLaunch() != nil && s.pulse.age() > s.deadAfter() {
			return fmt.Errorf("%w: a launch came that may be %v old", ErrSilent, s.pulse.age().Round(time.Second))
		}
		s.handle(m, attempts)
	}
}

// handle does what one message asks for. Messages without a body, and those that
// belong to the opening, are from a gateway that knows more than we do.
func (s *Session) handle(m *agentv1.GatewayMessage, attempts Attempts) {
	switch body := m.GetBody().(type) {
	case *agentv1.GatewayMessage_Ping:
		s.pong(body.Ping.GetSeq())
	case *agentv1.GatewayMessage_Pong:
		s.pulse.answered(body.Pong.GetSeq())
		s.pinger.ponged(body.Pong)
	case *agentv1.GatewayMessage_Launch, *agentv1.GatewayMessage_Kill, *agentv1.GatewayMessage_ResultAck:
		attempts.Handle(m)
	case *agentv1.GatewayMessage_Lease:
		s.pinger.answered(body.Lease)
	case *agentv1.GatewayMessage_LogAck:
		s.shipper.acked(body.LogAck, time.Now())
	case *agentv1.GatewayMessage_InventoryRequest:
		s.box.AskInventory()
	case *agentv1.GatewayMessage_Drain:
		s.drainWithin(body.Drain.GetSpread().AsDuration())
	case *agentv1.GatewayMessage_Move:
		s.offer(Replacement{Reason: "the gateway asked to move: " + body.Move.GetReason()})
	default:
		s.log.Debug("ignored an unexpected message")
	}
}

func (s *Session) pong(seq uint64) {
	m := &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Pong{Pong: &agentv1.Pong{Seq: seq}}}
	select {
	case s.urgent <- m:
	default: // the stream is stuck; the answers that wait will do
	}
}

// drainWithin chooses the moment to go, so that not all workers of a gateway go
// at once. The first choice stands.
func (s *Session) drainWithin(spread time.Duration) {
	if s.drain != nil {
		return
	}
	wait := time.Duration(rand.Float64() * float64(max(0, spread)))
	s.drain = time.AfterFunc(wait, func() { s.offer(Replacement{Reason: "the gateway is draining", Stops: true}) })
}
