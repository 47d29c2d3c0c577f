package raftstore

import (
	"context"
	"errors"
	"fmt"
)

// AppliedIndex returns how far the state here has come: the index of the last
// entry that it was given. Raft has entries of its own, which the state never
// sees, so this may stay behind [Status.AppliedIndex] while all is well.
func (s *Store) AppliedIndex() uint64 { return s.fsm.index() }

// WaitApplied waits until the state here has come to index, which another primary
// or this one told by [Store.AppliedIndex] or [Store.ReadIndex]: then [Store.View]
// shows all that it showed there. It returns [ErrStopped] when the store is closed
// or has failed, and else ctx's error.
func (s *Store) WaitApplied(ctx context.Context, index uint64) error {
	reached, cancel := s.fsm.await(index)
	defer cancel()
	select {
	case <-reached:
		return nil
	default:
	}
	select {
	case <-reached:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for log entry %d to be applied: %w", index, ctx.Err())
	case <-s.stopping:
		return fmt.Errorf("waiting for log entry %d to be applied: %w", index, ErrStopped)
	case <-s.fsm.failed:
		return fmt.Errorf("waiting for log entry %d to be applied: %w: %w", index, ErrStopped, s.Err())
	}
}

// ReadIndex returns how far the state has to have come, on any primary, for a read
// that begins now to see all that anybody was told to be agreed. Only the leader
// knows: the others return [ErrNotLeader], and so does one that can't confirm that
// it still leads.
//
// The majority confirms it by agreeing on an entry without commands, which shares
// its place in the log with what is proposed at the time. Raft has a cheaper way,
// that counts answers of primaries without a vote, and answers that had been
// waiting here while this process was stopped: a leader that was replaced in the
// meantime would believe that it still leads.
func (s *Store) ReadIndex(ctx context.Context) (uint64, error) {
	a, err := s.propose(ctx, &proposal{cancelled: ctx.Done(), answer: make(chan answer, 1)})
	if errors.Is(err, ErrUnknown) {
		err = fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	if err != nil {
		return 0, fmt.Errorf("finding out how far a read must see: %w", err)
	}
	return a.index, nil
}
