package server

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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

// untilCaughtUp lets calls, and workers' sessions, wait until this primary knows
// all that was ever acknowledged. Before, it would deny jobs and runs that there
// are. What tells about the process itself is answered at once.
func (s *Server) untilCaughtUp() []grpc.ServerOption {
	wait := func(ctx context.Context, method string) error {
		if s.caughtUp() || !strings.HasPrefix(method, "/schedd.") {
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
