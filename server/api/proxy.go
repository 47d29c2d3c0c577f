package api

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// forwardStream is as forwardUnary, for calls with a stream. One that has begun
// can't begin again, since nobody keeps what was sent: it is handed on to another
// leader only before that.
func (s *Server) forwardStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if _, ours := methods[info.FullMethod]; !ours {
		return next(srv, stream) // with little on the stack: sessions of workers last long
	}
	return s.forwardOurs(srv, stream, info.FullMethod, next)
}

func (s *Server) forwardOurs(srv any, stream grpc.ServerStream, name string, next grpc.StreamHandler) error {
	m, ctx := methods[name], stream.Context()
	w, err := wanted(ctx)
	if err != nil {
		return err
	}
	if m.home == local {
		if err := s.reach(ctx, w, s.readIndex); err != nil {
			return err
		}
		defer func() { stream.SetTrailer(s.indexHere()) }()
		return next(srv, stream)
	}
	w = m.streamed(w)
	return s.led(ctx, false, func() (fate, error) {
		if !s.Group.Leads() {
			return s.proxy(ctx, stream, m)
		}
		if err := s.reach(ctx, w, s.Group.ReadIndex); err != nil {
			return fateOf(err), err
		}
		t := &touched{ServerStream: stream}
		err := next(srv, t)
		if how := fateOf(err); how == untouched && !t.is {
			return how, err
		}
		stream.SetTrailer(s.indexHere())
		return answered, err
	})
}

// leadStream is as leadUnary. The header with the index tells whoever has handed
// the call on that it was taken.
func (s *Server) leadStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	m, ours := methods[info.FullMethod]
	if !ours {
		return next(srv, stream)
	}
	w, err := s.admit(stream.Context(), m)
	if err != nil {
		return err
	}
	if err := s.reach(stream.Context(), m.streamed(w), s.Group.ReadIndex); err != nil {
		return err
	}
	if err := stream.SendHeader(s.indexHere()); err != nil {
		return err
	}
	defer func() { stream.SetTrailer(s.indexHere()) }()
	return next(srv, stream)
}

// streamed returns what is asked for when the call has a stream: a leader that is
// to change something makes sure that it is one before it takes the call.
func (m method) streamed(w want) want {
	w.linearizable = w.linearizable || m.home == leaderWrites
	return w
}

// touched is a stream that knows whether anything went through it. It is for
// handlers that use it from one goroutine.
type touched struct {
	grpc.ServerStream
	is bool
}

// RecvMsg implements [grpc.ServerStream].
func (t *touched) RecvMsg(m any) error {
	t.is = true
	return t.ServerStream.RecvMsg(m)
}

// SendMsg implements [grpc.ServerStream].
func (t *touched) SendMsg(m any) error {
	t.is = true
	return t.ServerStream.SendMsg(m)
}

// SendHeader implements [grpc.ServerStream].
func (t *touched) SendHeader(md metadata.MD) error {
	t.is = true
	return t.ServerStream.SendHeader(md)
}

// proxy has the leader carry out a call with a stream of messages one way, and a
// single one the other. No message of the caller's is read before the leader has
// taken the call.
func (s *Server) proxy(ctx context.Context, stream grpc.ServerStream, m method) (fate, error) {
	id, conn, err := s.leader()
	if err != nil {
		return untouched, err
	}
	call, cancel, stop := s.whileLeads(s.outgoing(ctx), id)
	defer cancel() // which ends the stream to the leader, however this one ends
	to, header, err := open(call, conn, m)
	stop()
	if err != nil {
		return m.judge(call, id, false, err)
	}
	if err := stream.SendHeader(passed(header)); err != nil {
		return answered, err
	}
	if err := m.sendUp(stream, to); err != nil {
		return answered, err
	}
	end, err := m.sendDown(to, stream)
	if err != nil {
		return answered, err
	}
	_, end = m.judge(call, id, true, end)
	stream.SetTrailer(passed(to.Trailer()))
	if m.home == leaderWrites {
		s.promise.make(to.Trailer())
	}
	return answered, end
}

// open opens a stream to the leader, and returns when it has taken the call.
func open(ctx context.Context, conn grpc.ClientConnInterface, m method) (to grpc.ClientStream, header metadata.MD, err error) {
	if to, err = conn.NewStream(ctx, &m.stream, m.name); err != nil {
		return nil, nil, err
	}
	if header, err = to.Header(); err != nil {
		return nil, nil, err
	}
	if len(header.Get(indexKey)) > 0 {
		return to, header, nil
	}
	if err = to.RecvMsg(m.out.New().Interface()); err == nil || errors.Is(err, io.EOF) {
		err = status.Error(codes.Internal, "the leader answers before it has taken the call")
	}
	return nil, nil, err
}

// sendUp hands on what the caller sends, until that ends, or the leader has heard
// enough. The error is the caller's.
func (m method) sendUp(stream grpc.ServerStream, to grpc.ClientStream) error {
	for more := true; more; more = m.stream.ClientStreams {
		message := m.in.New().Interface()
		err := stream.RecvMsg(message)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := to.SendMsg(message); err != nil {
			return nil //nolint:nilerr // the leader has ended the call, and says why when it is heard
		}
	}
	_ = to.CloseSend() // likewise
	return nil
}

// sendDown hands on what the leader answers, and returns how it ended the call. The
// error is the caller's.
func (m method) sendDown(to grpc.ClientStream, stream grpc.ServerStream) (end, err error) {
	for more := true; more; more = m.stream.ServerStreams {
		message := m.out.New().Interface()
		if end := to.RecvMsg(message); end != nil {
			if errors.Is(end, io.EOF) {
				end = nil
			}
			return end, nil
		}
		if err := stream.SendMsg(message); err != nil {
			return nil, err
		}
	}
	return nil, nil
}
