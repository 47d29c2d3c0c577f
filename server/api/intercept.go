package api

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Observe is told of each call that has ended: its method as in
// "/schedd.v1.JobService/PutJob", its code, and how long it took. It must not
// block.
type Observe func(method string, code codes.Code, took time.Duration)

// ServerOptions returns the options of the gRPC server that [Server.Register] is
// called with: they turn errors into statuses, keep a panic in one handler from
// ending the program, tell observe of each call, and log it at debug. They go
// well with other services on the same server.
func ServerOptions(log *slog.Logger, observe Observe) []grpc.ServerOption {
	w := interceptor{log: log, observe: observe}
	caught := recovery.WithRecoveryHandlerContext(w.caught)
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(w.unary, recovery.UnaryServerInterceptor(caught)),
		grpc.ChainStreamInterceptor(w.stream, recovery.StreamServerInterceptor(caught)),
	}
}

// interceptor stands around all handlers.
type interceptor struct {
	log     *slog.Logger
	observe Observe
}

func (w interceptor) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	began := time.Now()
	answer, err := next(ctx, req)
	return answer, w.ended(ctx, info.FullMethod, began, err)
}

func (w interceptor) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	began := time.Now()
	return w.ended(stream.Context(), info.FullMethod, began, next(srv, stream))
}

// ended takes note of a call that has ended, and returns what the caller sees.
func (w interceptor) ended(ctx context.Context, method string, began time.Time, err error) error {
	err = toStatus(w.log, method, err)
	code, took := status.Code(err), time.Since(began)
	w.observe(method, code, took)
	if w.log.Enabled(ctx, slog.LevelDebug) {
		w.log.DebugContext(ctx, "call", "method", method, "code", code.String(), "took", took, "err", err)
	}
	return err
}

// caught makes an answer of a panic.
func (w interceptor) caught(ctx context.Context, p any) error {
	method, _ := grpc.Method(ctx)
	w.log.ErrorContext(ctx, "panic in a handler", "method", method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	return status.Error(codes.Internal, "internal error")
}
