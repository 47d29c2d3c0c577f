package api

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/history"
	"github.com/schedd/schedd/server/plan"
	"github.com/schedd/schedd/server/runlog"
)

// What Unavailable means, for programs: the reason in its ErrorInfo. One without
// does not come from a primary but from what lies between.
const (
	domain          = "schedd"
	reasonNotLeader = "NOT_LEADER"         // nothing was done: try again
	reasonUnknown   = "OUTCOME_UNKNOWN"    // look first
	reasonBehind    = "BEHIND"             // nothing was done: try again, or elsewhere
	reasonStopping  = "STOPPING"           // call again, elsewhere
	reasonLog       = "LOG_UNAVAILABLE"    // try again
	reasonHistory   = "HISTORY_INCOMPLETE" // try again later, or elsewhere
)

// statuses gives each error of ours its code, and its reason if that says more.
// It is the whole of the mapping: handlers return plain errors, and the interceptor
// looks here. The code says what the caller should do next.
var statuses = []struct {
	err    error
	code   codes.Code
	reason string
}{
	{context.DeadlineExceeded, codes.DeadlineExceeded, ""},
	{context.Canceled, codes.Canceled, ""},

	{state.ErrNotFound, codes.NotFound, ""},
	{state.ErrVersion, codes.Aborted, ""},          // read it again, then decide
	{state.ErrStale, codes.Aborted, ""},            // try again
	{state.ErrFence, codes.Aborted, ""},            // likewise
	{state.ErrFinal, codes.FailedPrecondition, ""}, // don't, it has ended
	{state.ErrActive, codes.FailedPrecondition, ""},
	{state.ErrFull, codes.ResourceExhausted, ""},

	{raftstore.ErrNotLeader, codes.Unavailable, reasonNotLeader}, // before ErrUnknown: it knows better
	{raftstore.ErrStopped, codes.Unavailable, reasonNotLeader},
	{errNoLeader, codes.Unavailable, reasonNotLeader},
	{raftstore.ErrUnknown, codes.Unavailable, reasonUnknown},
	{raftstore.ErrTooLarge, codes.ResourceExhausted, ""},
	{raftstore.ErrOldPrimary, codes.FailedPrecondition, ""}, // upgrade it first
	{raftstore.ErrUnknownServer, codes.NotFound, ""},
	{raftstore.ErrDamaged, codes.InvalidArgument, ""},
	{raftstore.ErrNewer, codes.InvalidArgument, ""},
	{raftstore.ErrSnapshotTooLarge, codes.ResourceExhausted, ""},
	{raftstore.ErrRestoring, codes.Aborted, ""}, // try again

	{runlog.ErrRemoved, codes.NotFound, ""},
	{runlog.ErrClosed, codes.Unavailable, reasonLog},
	{runlog.ErrUnavailable, codes.Unavailable, reasonLog},
	{runlog.ErrCorrupt, codes.DataLoss, ""},

	{errNoCopy, codes.Unavailable, reasonLog},
	{history.ErrUnavailable, codes.Unavailable, reasonHistory},
	{state.ErrLost, codes.DataLoss, ""},
	{errBehind, codes.Unavailable, reasonBehind},
	{errClosing, codes.Unavailable, reasonStopping},
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
			return withReason(status.New(s.code, err.Error()), s.reason)
		}
	}
	log.Error("call failed for a reason that has no code", "method", method, "err", err)
	return status.Error(codes.Internal, "internal error")
}

// withReason adds the reason, if there is one.
func withReason(st *status.Status, reason string) error {
	if reason == "" {
		return st.Err()
	}
	detailed, err := st.WithDetails(protoadapt.MessageV1Of(&errdetails.ErrorInfo{Reason: reason, Domain: domain}))
	if err != nil {
		return st.Err() // the message says it too
	}
	return detailed.Err()
}

// reasonOf returns the reason that a primary gave; "" when it was none of ours, or
// gave none.
func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == domain {
			return info.GetReason()
		}
	}
	return ""
}
