package raftstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// leadAgain is how long a leader waits whom Raft, amid a handing over that may
// yet fail, did not let in the log.
const leadAgain = 100 * time.Millisecond

// Lead calls f once for each term that this primary leads, after it has applied
// all that was agreed before. f's context ends with the term, and Lead waits for
// f to return before it calls it for the next one.
//
// Lead returns nil when ctx is done, [ErrStopped] when the store is closed, and
// [Store.Err] when it has failed. When f returns an error before its term is
// over, Lead returns that: who called it closes the store, so that another
// primary takes over. What f returns once its context is done does not count.
// When f returns nil early, this primary goes on leading without it until the
// next term. Only one Lead may be called at a time.
func (s *Store) Lead(ctx context.Context, f func(ctx context.Context) error) error {
	leading := false
	for {
		if leading {
			var err error
			if leading, err = s.term(ctx, f); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.stopping:
			return fmt.Errorf("leading: %w", ErrStopped)
		case <-s.fsm.failed:
			return s.Err()
		case leading = <-s.raft.LeaderCh():
		}
	}
}

// term leads one term, and reports whether the next one has begun.
func (s *Store) term(ctx context.Context, f func(context.Context) error) (again bool, err error) {
	for {
		err := s.barrierUntil(ctx)
		if err == nil {
			break
		}
		if !errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			return false, nil // lost before it began
		}
		if again, over := s.handingOver(ctx); over {
			return again, nil
		}
	}
	s.catchUp()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()

	select {
	case err := <-done:
		if ctx.Err() != nil {
			return false, nil
		}
		return false, err
	case again = <-s.raft.LeaderCh():
		// Raft keeps only the latest news, so true means lost and won back: the
		// term is over either way.
	case <-ctx.Done():
	case <-s.stopping:
	case <-s.fsm.failed:
	}
	cancel()
	<-done //nolint:errcheck // its term is over: what it says of that does not count
	return again, nil
}

// handingOver waits for a little, or until the term is over.
func (s *Store) handingOver(ctx context.Context) (again, over bool) {
	timer := time.NewTimer(leadAgain)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false, false
	case again = <-s.raft.LeaderCh():
	case <-ctx.Done():
	case <-s.stopping:
	case <-s.fsm.failed:
	}
	return again, true
}

// barrierUntil is barrier, but for no longer than ctx lasts and the store is open: the others
// may have no room for it.
func (s *Store) barrierUntil(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- s.barrier() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stopping:
		return ErrStopped
	}
}

// barrier waits until all that came before it in the log is applied, here and,
// before long, everywhere. It is an entry without commands, not Raft's own barrier:
// that is not given to the state, so that the others could not tell when they have
// come that far.
func (s *Store) barrier() error {
	if !s.enter() {
		return ErrStopped
	}
	defer s.leave()
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	return s.mark()
}

// mark puts an entry without commands in the log, and waits until it is applied.
// The caller has the turn.
func (s *Store) mark() error {
	entry, err := joinEntry(s.clock(), nil)
	if err != nil {
		return err
	}
	future, err := s.put(entry)
	if err != nil {
		return err
	}
	_, err = future.Response().(response).get()
	return err
}

// ask has Raft do something, and waits for it no longer than ctx lasts. It may
// yet be done after that.
func (s *Store) ask(ctx context.Context, what string, f func() error) error {
	if !s.enter() {
		return fmt.Errorf("%s: %w", what, ErrStopped)
	}
	done := make(chan error, 1)
	go func() {
		defer s.leave()
		done <- f()
	}()
	select {
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", what, ctx.Err())
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%s: %w", what, ours(err))
		}
		return nil
	}
}

// ours returns the error of this package that says what Raft's says.
func ours(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrNotLeader
	case errors.Is(err, raft.ErrLeadershipLost):
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	case errors.Is(err, raft.ErrRaftShutdown), errors.Is(err, raft.ErrEnqueueTimeout):
		return ErrStopped
	}
	return err
}
