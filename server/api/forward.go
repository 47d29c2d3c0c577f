package api

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	grpcpeer "google.golang.org/grpc/peer"

	"github.com/schedd/schedd/raftstore"
)

// statusWithin is how long the leader may take to answer what a primary can also
// answer itself.
const statusWithin = 2 * time.Second

// Forwarding returns the options of the server for people and workers: what only
// the leader can do is handed on to it, and nobody notices when it changes. They
// come after those of [ServerOptions], and leave other services alone.
func (s *Server) Forwarding() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(s.forwardUnary), grpc.ChainStreamInterceptor(s.forwardStream)}
}

// Leading returns the options of the server on the cluster port, where only other
// primaries call: what only the leader can do is refused by one that does not
// lead. Nothing is handed on from there, so no call goes round in circles. They
// come after those of [ServerOptions], and leave other services alone.
func (s *Server) Leading() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(s.leadUnary), grpc.ChainStreamInterceptor(s.leadStream)}
}

// reply is the answer to a call, and what goes with it.
type reply struct {
	message         any
	header, trailer metadata.MD
}

// send returns what an interceptor returns.
func (r reply) send(ctx context.Context, err error) (any, error) {
	_ = grpc.SetHeader(ctx, r.header) // fails only without a call
	_ = grpc.SetTrailer(ctx, r.trailer)
	return r.message, err
}

func (s *Server) forwardUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	m, ours := methods[info.FullMethod]
	if !ours {
		return next(ctx, req)
	}
	w, err := wanted(ctx)
	if err != nil {
		return nil, err
	}
	var r reply
	switch m.home {
	case leaderWrites, leaderReads:
		err = s.led(ctx, m.repeatable(req), func() (how fate, err error) {
			if s.Group.Leads() {
				r, err = s.answer(ctx, w, s.Group.ReadIndex, req, next)
				return fateOf(err), err
			}
			r, how, err = s.handOn(ctx, m, req)
			return how, err
		})
		return r.send(ctx, err)
	case either:
		if r, told := s.leaderTells(ctx, m, req); told {
			return r.send(ctx, nil)
		}
	case local:
	}
	r, err = s.answer(ctx, w, s.readIndex, req, next)
	return r.send(ctx, err)
}

func (s *Server) leadUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	m, ours := methods[info.FullMethod]
	if !ours {
		return next(ctx, req)
	}
	w, err := s.admit(ctx, m)
	if err != nil {
		return nil, err
	}
	r, err := s.answer(ctx, w, s.Group.ReadIndex, req, next)
	return r.send(ctx, err)
}

// admit checks a call that another primary has handed on.
func (s *Server) admit(ctx context.Context, m method) (want, error) {
	if m.home != local && !s.Group.Leads() {
		return want{}, fmt.Errorf("%s is %w", s.NodeID, raftstore.ErrNotLeader)
	}
	return wanted(ctx)
}

// answer carries a call out here.
func (s *Server) answer(ctx context.Context, w want, now func(context.Context) (uint64, error), req any, next grpc.UnaryHandler) (reply, error) {
	if err := s.reach(ctx, w, now); err != nil {
		return reply{header: s.indexHere()}, err
	}
	message, err := next(ctx, req)
	return reply{message: message, header: s.indexHere()}, err
}

// leaderTells has the leader answer, if there is one, it is not this primary, and
// it answers soon.
func (s *Server) leaderTells(ctx context.Context, m method, req any) (reply, bool) {
	if s.Group.Leads() {
		return reply{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, statusWithin)
	defer cancel()
	r, _, err := s.handOn(ctx, m, req)
	return r, err == nil
}

// handOn has the leader carry a call out.
func (s *Server) handOn(ctx context.Context, m method, req any) (reply, fate, error) {
	id, conn, err := s.leader()
	if err != nil {
		return reply{}, untouched, err
	}
	call, cancel, stop := s.whileLeads(s.outgoing(ctx), id)
	defer stop()
	defer cancel()
	message := m.out.New().Interface()
	var header, trailer metadata.MD
	var to grpcpeer.Peer // set once the call is on its way
	err = conn.Invoke(call, m.name, req, message, grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&to))
	how, err := m.judge(call, id, to.Addr != nil, err)
	r := reply{header: passed(header), trailer: passed(trailer)}
	if err == nil {
		r.message = message
	}
	if how == answered && m.home == leaderWrites {
		s.promise.make(header)
	}
	return r, how, err
}

// outgoing returns the context of a call that is handed on: with its deadline and
// its metadata. The leader is to answer from a state that has come as far as what
// was seen or done through this primary: a new one may not have, for a moment.
func (s *Server) outgoing(ctx context.Context) context.Context {
	in, _ := metadata.FromIncomingContext(ctx)
	out := passed(in)
	least := max(s.Group.AppliedIndex(), s.promise.made())
	if w, err := wanted(ctx); err == nil {
		least = max(least, w.index)
	}
	out.Set(minIndexKey, strconv.FormatUint(least, 10))
	return metadata.NewOutgoingContext(ctx, out)
}

// passed returns the metadata that goes along when a call or an answer is handed
// on: all but what is about one connection.
func passed(md metadata.MD) metadata.MD {
	out := metadata.MD{}
	for k, v := range md {
		if !strings.HasPrefix(k, ":") && !strings.HasPrefix(k, "grpc-") && k != "content-type" && k != "user-agent" {
			out[k] = v
		}
	}
	return out
}
