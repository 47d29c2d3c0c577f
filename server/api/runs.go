package api

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
)

func (s runService) GetRun(ctx context.Context, req *schedv1.GetRunRequest) (*schedv1.GetRunResponse, error) {
	c := request()
	id := c.in("id").runID(req.GetId())
	if err := c.err(); err != nil {
		return nil, err
	}
	r, err := s.findRun(ctx, id)
	if err != nil {
		return nil, err
	}
	return &schedv1.GetRunResponse{Run: s.showWhole(ctx, r)}, nil
}

func noRun(id state.RunID) error {
	return fmt.Errorf("run %v: %w, or no longer kept", id, state.ErrNotFound)
}

// cancelNote is the reason of a cancelled run when nobody gave one.
const cancelNote = "cancelled by request"

func (s runService) CancelRun(ctx context.Context, req *schedv1.CancelRunRequest) (*schedv1.CancelRunResponse, error) {
	c := request()
	cancel := state.Cancel{Run: c.in("id").runID(req.GetId()), Note: c.in("note").text(req.GetNote(), maxNote)}
	if cancel.Note == "" {
		cancel.Note = cancelNote
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	past, err := s.pastRun(ctx, cancel.Run)
	if err != nil {
		return nil, err
	}
	r, _, err := s.agree(ctx, func(st *state.State, _ time.Time) (change, error) {
		switch {
		case st.Run(cancel.Run) != nil:
		case past != nil:
			return change{}, fmt.Errorf("cancel run %v: it is %v: %w", past.ID, past.Phase, state.ErrFinal)
		default:
			return change{}, noRun(cancel.Run)
		}
		return change{commands: []state.Command{cancel}}, nil
	})
	if err != nil {
		return nil, err
	}
	return &schedv1.CancelRunResponse{Run: s.showOne(r.Run)}, nil
}

func (s runService) RetryRun(ctx context.Context, req *schedv1.RetryRunRequest) (*schedv1.RetryRunResponse, error) {
	c := request()
	id := c.in("id").runID(req.GetId())
	// The NUL keeps it apart from what RunJob names: no request's id has one.
	unique := "retry\x00" + req.GetId() + "\x00" + requestID(c, req.GetRequestId())
	if err := c.err(); err != nil {
		return nil, err
	}
	past, err := s.pastRun(ctx, id)
	if err != nil {
		return nil, err
	}
	ask := plan.Ask{Name: unique}
	if ask.Origin, err = s.origin(ctx, id, past); err != nil {
		return nil, err
	}
	ask.Job, ask.UID = ask.Origin.Job, ask.Origin.UID
	if req.GetRequestId() != "" { // the run may have left the state before the one that it repeats
		if ask.Past, err = s.asked(ctx, state.RequestRunID(ask.UID, unique)); err != nil {
			return nil, err
		}
	}
	r, err := s.byHand(ctx, ask)
	if err != nil {
		return nil, err
	}
	return &schedv1.RetryRunResponse{Run: s.showOne(r)}, nil
}

// origin returns a run that is to be repeated. That it can't be is said only when it is
// confirmed that this primary leads, as in [Server.agree].
func (s *Server) origin(ctx context.Context, id state.RunID, past *state.Run) (*state.Run, error) {
	r, err := s.ended(id, past)
	if err != nil {
		if err := s.confirm(ctx); err != nil {
			return nil, err
		}
		r, err = s.ended(id, past)
	}
	return r, err
}

// ended returns a run that has ended. It is past if it has left the state.
func (s *Server) ended(id state.RunID, past *state.Run) (r *state.Run, err error) {
	s.Store.View(func(st *state.State) { r = st.Run(id) })
	if r == nil {
		r = past
	}
	switch {
	case r == nil:
		return nil, noRun(id)
	case !r.Phase.Final():
		return nil, status.Errorf(codes.FailedPrecondition, "run %v has not ended, it is %v: cancel it first, or wait", id, r.Phase)
	}
	return r, nil
}
