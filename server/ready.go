package server

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// catchUpTimeout bounds how long a call waits for a primary that has just
// started.
const catchUpTimeout = 10 * time.Second

// knowing returns what is closed once this primary knows all that was ever
// acknowledged: what it has in its log, or, when it begins without data in a group,
// what the leader has.
func (s *Server) knowing() <-chan struct{} {
	if s.empty {
		return s.uplink.CaughtUp()
	}
	return s.store.CaughtUp()
}

// caughtUp tells whether this primary knows all that was ever acknowledged.
func (s *Server) caughtUp() bool {
	select {
	case <-s.knowing():
		return true
	default:
		return false
	}
}

// unready returns why this primary should not be given calls or workers, "" when
// it should.
func (s *Server) unready() string {
	switch {
	case s.stopping.Load():
		return "stopping"
	case s.store.Err() != nil:
		return "the store has failed: " + s.store.Err().Error()
	case s.store.Stopped():
		return "the store has stopped"
	case s.store.DiskErr() != nil:
		return "the log can't be written: " + s.store.DiskErr().Error()
	case s.member.Removed():
		return "this primary was removed from the group"
	case !s.caughtUp():
		return s.behind()
	case s.cutOff():
		return "no link to the leader"
	}
	if err := s.keptElsewhere(); err != nil {
		return "output of runs can't be written, and others keep it: " + err.Error()
	}
	return ""
}

// answeredAtOnce are methods that tell how this primary is, which is not what it
// knows: whoever looks why it does not get ready calls them.
var answeredAtOnce = []string{schedv1.ClusterService_GetStatus_FullMethodName}

// untilCaughtUp lets calls, and workers' sessions, wait until this primary knows
// all that was ever acknowledged. Before, it would deny jobs and runs that there
// are. What tells how this primary is, and what is not ours, is answered at once.
func (s *Server) untilCaughtUp() []grpc.ServerOption {
	wait := func(ctx context.Context, method string) error {
		if s.caughtUp() || !strings.HasPrefix(method, "/schedd.") || slices.Contains(answeredAtOnce, method) {
			return nil
		}
		timeout := time.NewTimer(catchUpTimeout)
		defer timeout.Stop()
		select {
		case <-s.knowing():
			return nil
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-timeout.C:
			return status.Error(codes.Unavailable, "this primary has no leader yet and does not know what is agreed: try again")
		}
	}
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if err := wait(ctx, info.FullMethod); err != nil {
				return nil, err
			}
			return next(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if err := wait(stream.Context(), info.FullMethod); err != nil {
				return err
			}
			return next(srv, stream)
		}),
	}
}
