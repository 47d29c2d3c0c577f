package api

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
	"github.com/schedd/schedd/server/runlog"
)

// statuses gives each error of ours its code. It is the whole of the mapping:
// handlers return plain errors, and the interceptor looks here. The code says
// what the caller should do next.
var statuses = []struct {
	err  error
	code codes.Code
}{
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},

	{state.ErrNotFound, codes.NotFound},
	{state.ErrVersion, codes.Aborted},          // read it again, then decide
	{state.ErrStale, codes.Aborted},            // try again
	{state.ErrFence, codes.Aborted},            // likewise
	{state.ErrFinal, codes.FailedPrecondition}, // don't, it has ended
	{state.ErrActive, codes.FailedPrecondition},
	{plan.ErrExists, codes.AlreadyExists},

	{raftstore.ErrNotLeader, codes.Unavailable}, // try again: another one leads
	{raftstore.ErrStopped, codes.Unavailable},
	{raftstore.ErrUnknown, codes.Unavailable}, // look first
	{raftstore.ErrTooLarge, codes.ResourceExhausted},

	{runlog.ErrRemoved, codes.NotFound},
	{runlog.ErrClosed, codes.Unavailable},
	{runlog.ErrUnavailable, codes.Unavailable},
	{runlog.ErrCorrupt, codes.DataLoss},

	{errClosing, codes.Unavailable},
}

// toStatus turns an error into what the caller sees. One that nobody gave a code
// is our bug: the caller learns only that, and the log learns the rest.
func toStatus(log *slog.Logger, method string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	if bad, ok := errors.AsType[*invalidError](err); ok {
		return bad.status().Err()
	}
	if forbidden, ok := errors.AsType[*plan.OverlapError](err); ok {
		return status.Error(codes.FailedPrecondition, forbidden.Error())
	}
	for _, s := range statuses {
		if errors.Is(err, s.err) {
			return status.Error(s.code, err.Error())
		}
	}
	log.Error("call failed for a reason that has no code", "method", method, "err", err)
	return status.Error(codes.Internal, "internal error")
}
