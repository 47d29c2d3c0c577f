package state

import (
	"fmt"
	"slices"
	"time"
)

// MaxJumps is how many jumps of its clock the state remembers. The oldest are forgotten
// first: runs that are older than so many count as having waited for what they jumped.
const MaxJumps = 100

// Jump is a jump of the state's clock, forward: nobody has lived through (Was, Is].
type Jump struct {
	Was time.Time // what the clock would have shown
	Is  time.Time // what it showed
}

// Jumps returns the jumps that are remembered, the oldest first.
func (s *State) Jumps() []Jump { return slices.Clone(s.jumps) }

// Jumped returns by how much the state's clock has jumped between two instants that it
// showed: who has waited from one to the other has waited for that much less.
func (s *State) Jumped(from, to time.Time) (by time.Duration) {
	for _, j := range s.jumps {
		if !from.After(j.Was) && !to.Before(j.Is) {
			by += j.Is.Sub(j.Was)
		}
	}
	return by
}

// Valid tells what is wrong with a jump after another one; nil when nothing is.
func (j Jump) Valid(after Jump) error {
	switch {
	case j.Was.IsZero() || !j.Is.After(j.Was):
		return fmt.Errorf("a jump from %v to %v: %w", j.Was, j.Is, ErrInvalid)
	case j.Was.Before(after.Is):
		return fmt.Errorf("a jump from %v after one to %v: %w", j.Was, after.Is, ErrStale)
	}
	return nil
}

func (s *State) clockJumped(j Jump) error {
	var last Jump
	if n := len(s.jumps); n > 0 {
		last = s.jumps[n-1]
	}
	if err := j.Valid(last); err != nil {
		return err
	}
	s.jumps = append(s.jumps, j)
	if over := len(s.jumps) - MaxJumps; over > 0 {
		s.jumps = slices.Delete(s.jumps, 0, over)
	}
	return nil
}
