package fleet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// errLeft ends a session that the gateway asked the worker to leave.
var errLeft = errors.New("the gateway asked to come back through another connection")

// session is a session that the gateway has welcomed. One goroutine receives and
// answers; besides it only pings are sent.
type session struct {
	member *member
	stream agentv1.AgentGateway_ConnectClient
	every  time.Duration // between two pings, before the spread

	mu   sync.Mutex // held by who sends
	seq  uint64
	ping *time.Timer
}

func newSession(m *member, stream agentv1.AgentGateway_ConnectClient, w *agentv1.Welcome) *session {
	every := w.GetPingInterval().AsDuration()
	if every < time.Second {
		every = wire.PingInterval
	}
	return &session{member: m, stream: stream, every: every}
}

// talk answers until the stream ends.
func (s *session) talk() error {
	s.keepPinging()
	defer s.stopPinging()
	if err := s.say(s.member.known.inventory()...); err != nil {
		return err
	}
	for {
		m, err := s.stream.Recv()
		if err != nil {
			return fmt.Errorf("the session ended: %w", err)
		}
		s.pingNext(m.GetPong())
		answer, err := s.member.answer(m)
		if err != nil {
			return err
		}
		if err := s.say(answer...); err != nil {
			return err
		}
	}
}

// answer returns what is to be said to a message.
func (m *member) answer(said *agentv1.GatewayMessage) ([]*agentv1.AgentMessage, error) {
	switch b := said.GetBody().(type) {
	case *agentv1.GatewayMessage_Ping:
		return []*agentv1.AgentMessage{{Body: &agentv1.AgentMessage_Pong{Pong: &agentv1.Pong{Seq: b.Ping.GetSeq()}}}}, nil
	case *agentv1.GatewayMessage_Launch:
		return m.launch(b.Launch), nil
	case *agentv1.GatewayMessage_ResultAck:
		m.acked(b.ResultAck)
	case *agentv1.GatewayMessage_Kill:
		return []*agentv1.AgentMessage{m.known.kill(b.Kill)}, nil
	case *agentv1.GatewayMessage_InventoryRequest:
		return m.known.inventory(), nil
	case *agentv1.GatewayMessage_Reject:
		return nil, fmt.Errorf("the gateway refuses: %s", b.Reject.GetReason())
	case *agentv1.GatewayMessage_Drain, *agentv1.GatewayMessage_Move:
		return nil, errLeft
	}
	return nil, nil
}

func (m *member) launch(l *agentv1.Launch) []*agentv1.AgentMessage {
	f, now := m.fleet, time.Now()
	answer, begun := m.known.launch(l, now)
	if !begun {
		f.again.Add(1)
		return answer
	}
	f.launched.Add(1)
	if f.config.Launched != nil {
		f.config.Launched(l, now)
	}
	return answer
}

func (m *member) acked(a *agentv1.ResultAck) {
	if !m.known.acked(a) {
		return
	}
	m.fleet.acked.Add(1)
	if m.fleet.config.Acked != nil {
		m.fleet.config.Acked(a, time.Now())
	}
}

func (s *session) say(messages ...*agentv1.AgentMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range messages {
		if err := s.stream.Send(m); err != nil {
			return fmt.Errorf("the session ended: %w", err)
		}
	}
	return nil
}

// keepPinging pings the gateway from now on, as agents do.
func (s *session) keepPinging() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ping = time.AfterFunc(s.pause(), s.sendPing)
}

func (s *session) pause() time.Duration { return wire.Spread(s.every, wire.PingSpread, rand.Float64()) }

// sendPing sends a ping, and arranges for the next. One that can't be sent is the
// last: the receiver is told why.
func (s *session) sendPing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ping == nil {
		return
	}
	s.seq++
	if s.stream.Send(&agentv1.AgentMessage{Body: &agentv1.AgentMessage_Ping{Ping: &agentv1.Ping{Seq: s.seq}}}) == nil {
		s.ping.Reset(s.pause())
	}
}

// pingNext puts the next ping to where the gateway would like it, as agents do.
func (s *session) pingNext(p *agentv1.Pong) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := p.GetNextPing().AsDuration()
	if p.GetSeq() == s.seq && next >= wire.Spread(s.every, wire.PingSpread, 0) && next <= wire.Spread(s.every, wire.PingSpread, 1) {
		s.ping.Reset(next)
	}
}

func (s *session) stopPinging() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ping.Stop()
	s.ping = nil
}
