package state

import (
	"errors"
	"fmt"
)

// ErrInvalid is returned for a command that contradicts itself. It is a fault of
// its proposer, who can't have it accepted by asking again.
var ErrInvalid = errors.New("invalid command")

// check refuses what no state could take in. The proposer has looked before; but
// what is in the log is applied by all, and must not end them all.
func check(c Command) error {
	switch c := c.(type) {
	case PutJob:
		return checkTriggers(c.Definition)
	case Decide:
		return c.check()
	case Request:
		return c.Birth.check()
	case Finish:
		if !c.Phase.Final() && c.Phase != Pending {
			return fmt.Errorf("finish run %v: it would be %v: %w", c.Run, c.Phase, ErrInvalid)
		}
	case GiveUp:
		if !c.Phase.Final() {
			return fmt.Errorf("give up run %v: it would be %v: %w", c.Run, c.Phase, ErrInvalid)
		}
	case SetStandby:
		return ValidStandby(c.ID)
	case SetDirect:
		return ValidDirect(c.Address)
	}
	return nil
}

func checkTriggers(d *Definition) error {
	if d == nil {
		return fmt.Errorf("put a job without a definition: %w", ErrInvalid)
	}
	if d.Policy == nil {
		return fmt.Errorf("put a job without a policy: %w", ErrInvalid)
	}
	seen := make(map[string]bool, len(d.Triggers))
	for _, t := range d.Triggers {
		if seen[t.ID] {
			return fmt.Errorf("put a job with two triggers %q: %w", t.ID, ErrInvalid)
		}
		seen[t.ID] = true
	}
	return nil
}

// check sees that the decisions are in order and within (After, Until].
func (c *Decide) check() error {
	last := c.After
	for _, d := range c.Decisions {
		ordered := d.First.After(last) && !d.Last.Before(d.First) && !d.Last.After(c.Until)
		counted := d.Count > 0 && (d.Count == 1) == d.First.Equal(d.Last)
		if !ordered || !counted || d.Decision < DecidedRun || d.Decision > DecidedMissed {
			return fmt.Errorf("decide %v trigger %q: %d occurrences from %v to %v after %v: %w", c.Key, c.Trigger, d.Count, d.First, d.Last, last, ErrInvalid)
		}
		if d.Run != nil {
			if err := d.Run.check(); err != nil {
				return fmt.Errorf("decide %v trigger %q: %w", c.Key, c.Trigger, err)
			}
		}
		last = d.Last
	}
	return nil
}

// check sees that a run is born pending or ended: it has no attempt yet.
func (b *Birth) check() error {
	if b.Phase != Pending && b.Phase != Skipped && b.Phase != Missed {
		return fmt.Errorf("a run that is born %v: %w", b.Phase, ErrInvalid)
	}
	return nil
}
