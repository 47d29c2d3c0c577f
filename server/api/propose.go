package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// maxTries bounds how often a change is prepared anew because what it assumed
// had changed meanwhile: the leader decides beside us, at each tick.
const maxTries = 10

// change is what a call wants agreed.
type change struct {
	commands []state.Command
	answer   int           // which of the commands answers the call
	done     *state.Result // the answer, when nothing has to change
}

// prepare makes a change of what is agreed at that time.
type prepare func(s *state.State, now time.Time) (change, error)

// agree prepares a change and proposes it, again when it was stale. The answer is
// one that was not rejected, and now is the time that it was prepared at.
//
// When there is nothing to propose, the answer is as good as the state that it was
// made from. That of a new leader may be a moment behind what another one has
// acknowledged, and who led before may not know yet that it does no longer; so it
// is confirmed first.
func (s *Server) agree(ctx context.Context, p prepare) (state.Result, time.Time, error) {
	confirmed := false
	var answer state.Result
	for range maxTries {
		c, now, err := s.prepared(p)
		if (err != nil || c.done != nil) && !confirmed {
			if err := s.confirm(ctx); err != nil {
				return state.Result{}, now, err
			}
			confirmed = true
			c, now, err = s.prepared(p)
		}
		if err != nil {
			return state.Result{}, now, err
		}
		if c.done != nil {
			return *c.done, now, nil
		}
		results, err := s.Store.Propose(ctx, c.commands...)
		if err != nil {
			return state.Result{}, now, err
		}
		answer = results[c.answer]
		if !errors.Is(answer.Err, state.ErrStale) && !errors.Is(answer.Err, state.ErrActive) {
			return answer, now, answer.Err
		}
	}
	return state.Result{}, s.wallClock(), fmt.Errorf("it changed %d times while this was tried, try again: %w", maxTries, answer.Err)
}

// prepared prepares a change now, by this primary's clock. That of the state may be ahead
// of it: what was decided by a clock that went faster stays decided, since deciding is
// compare-and-set; but nothing more is decided by it.
func (s *Server) prepared(p prepare) (c change, now time.Time, err error) {
	s.Store.View(func(st *state.State) {
		now = s.wallClock()
		c, err = p(st, now)
	})
	return c, now, err
}

// confirm returns when the state here has all that anybody was told to be agreed.
func (s *Server) confirm(ctx context.Context) error {
	index, err := s.Group.ReadIndex(ctx)
	if err != nil {
		return err
	}
	return s.Group.WaitApplied(ctx, index)
}

// stateTime returns the time by the state's clock, which does not go back: how long a run
// waits is told by that one, also after a clock that went faster.
func (s *Server) stateTime(st *state.State) time.Time { return latest(s.wallClock(), st.Now()) }

// latest returns the later of two instants.
func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// wallClock returns the time as the state keeps it.
func (s *Server) wallClock() time.Time { return s.Clock().UTC().Round(0) }
