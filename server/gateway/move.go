package gateway

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

const (
	// shedWithin is the time over which workers that are to go elsewhere are asked
	// to.
	shedWithin = time.Minute
	// shedAfter is how old a session has to be to be asked: a worker that was sent
	// here a moment ago would only go round.
	shedAfter = time.Minute
)

// Supersede ends a session, since the worker has a newer one on another primary;
// without effect when that session is gone. With duplicate, the newer one is of
// another agent with the same key, which people have to know: this one is refused
// for a while, so that the two do not push each other out without end, and the
// log says so.
func (s *Server) Supersede(worker string, epoch uint64, reason string, duplicate bool) {
	n := s.session(worker)
	if n == nil || n.Epoch != epoch {
		return
	}
	if !duplicate {
		s.counts.superseded.Add(1)
		n.end(move(codes.Aborted, reason))
		return
	}
	s.counts.duplicates.Add(1)
	s.config.Log.Warn("duplicate identity: two agents have the same key; give one of them a data directory of its own",
		"worker", n.Worker, "name", n.Hello.GetName(), "address", n.ObservedAddress, "epoch", n.Epoch, "instance", n.Hello.GetInstance(), "reason", reason)
	n.end(reject(codes.Aborted, false, wire.PingInterval, reason))
}

// Shed asks n workers, chosen at random, to come back through another connection,
// one after the other over a minute. Their sessions go on until they have. Those
// that have just come, that were asked before, or that can't dial are left alone.
// It returns at once.
func (s *Server) Shed(n int) {
	old := s.movable(shedAfter)
	rand.Shuffle(len(old), func(i, j int) { old[i], old[j] = old[j], old[i] })
	old = old[:min(max(0, n), len(old))]
	for i, m := range old {
		m.moveAfter(shedWithin*time.Duration(i)/time.Duration(len(old)), "another primary has room")
	}
}

// movable returns the live sessions, at least so old, of workers that can be asked
// to move.
func (s *Server) movable(age time.Duration) []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*session
	for _, n := range s.live {
		if !n.leaving() && !n.Direct && !n.asked.Load() && time.Since(n.born) >= age {
			all = append(all, n)
		}
	}
	return all
}

// Evacuate asks all workers to come back through another connection, however
// young their sessions are, within the spread, and tells them the reason why they are
// better off there. Their sessions go on until then. It returns how many it asked, and
// at once.
func (s *Server) Evacuate(spread time.Duration, reason string) int {
	all := s.movable(0)
	for _, n := range all {
		n.moveAfter(time.Duration(rand.Float64()*float64(spread)), reason)
	}
	return len(all)
}

// moveAfter asks the worker to come back through another connection, in a while.
func (n *session) moveAfter(wait time.Duration, reason string) {
	if n.asked.Swap(true) {
		return
	}
	timer := time.AfterFunc(wait, func() {
		n.put(urgent, &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Move{
			Move: &agentv1.Move{Reason: reason},
		}})
	})
	context.AfterFunc(n.stream.Context(), func() { timer.Stop() })
}

// AwaitEmpty returns when no session is left that its worker can leave, or ctx is
// done. Workers that were dialled stay until they are dialled by another primary,
// which may be only when this one has stopped.
func (s *Server) AwaitEmpty(ctx context.Context) {
	for {
		left, empty := s.emptied()
		if empty {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-left:
		}
	}
}

// emptied reports whether all workers that can leave have left, and returns what
// is closed when the next one does.
func (s *Server) emptied() (left <-chan struct{}, empty bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.live {
		if !n.Direct {
			return s.left, false
		}
	}
	return s.left, true
}
