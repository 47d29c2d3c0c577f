package plan

import (
	"fmt"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// Ask is a run that somebody asks for by hand.
type Ask struct {
	Job state.JobKey
	// UID is that of the job that is meant; 0: whichever has the name.
	UID uint64
	// Name tells the run from all others of its job: what is asked for twice by one name is
	// one run.
	Name string
	// Origin is the run that it repeats; nil: none.
	Origin *state.Run
	// Past is a run that has left the state; nil: none. When it has this name, it is the
	// one that is asked for.
	Past *state.Run
}

// OverlapError is why a run by hand is refused: the job's overlap policy
// forbids it beside the active runs.
type OverlapError struct {
	Job    state.JobKey
	Reason string
	Active []state.RunID
}

// Error says so in a sentence.
func (e *OverlapError) Error() string {
	return fmt.Sprintf("job %v can't run now: %s (active: %v); cancel them, wait, or set policy.overlap to OVERLAP_QUEUE or OVERLAP_ALLOW", e.Job, e.Reason, e.Active)
}

// Request returns the command for a run by hand, or the run if there is one already. The
// errors are [state.ErrNotFound], *[OverlapError] and *[FullError].
func Request(o *Outlook, a Ask, now time.Time) (c state.Request, there *state.Run, err error) {
	s := o.state
	j := s.Job(a.Job)
	if j == nil || a.UID != 0 && a.UID != j.UID {
		return state.Request{}, nil, a.noJob()
	}
	id := state.RequestRunID(j.UID, a.Name)
	if r := s.Run(id); r != nil {
		return state.Request{}, r, nil
	}
	if a.Past != nil && a.Past.ID == id {
		return state.Request{}, a.Past, nil
	}
	c = state.Request{
		Key: j.Key, UID: j.UID, Version: j.Version, ID: id,
		Birth: state.Birth{Phase: state.Pending, Nominal: now},
	}
	if a.Origin != nil {
		c.RetryOf, c.Trigger, c.Birth.Nominal = a.Origin.ID, a.Origin.Trigger, a.Origin.Nominal
	}
	b := o.of(j)
	c.Activity = b.activity
	if _, again := b.asked[id]; again {
		return c, nil, nil // the state answers it with the run of the command before
	}
	if reason := b.full(); reason != "" {
		return state.Request{}, nil, &FullError{Job: j.Key, Reason: reason}
	}
	if reason := b.admit(); reason != "" {
		return state.Request{}, nil, forbidden(s, j, reason)
	}
	c.Birth.Replaces = b.add(id)
	if b.asked == nil {
		b.asked = map[state.RunID]struct{}{}
	}
	b.asked[id] = struct{}{}
	return c, nil, nil
}

func (a *Ask) noJob() error {
	if a.Origin != nil {
		return fmt.Errorf("job %v, which run %v was of: %w, it was deleted", a.Job, a.Origin.ID, state.ErrNotFound)
	}
	return fmt.Errorf("job %v: %w", a.Job, state.ErrNotFound)
}

func forbidden(s *state.State, j *state.Job, reason string) error {
	e := &OverlapError{Job: j.Key, Reason: reason}
	for _, r := range s.ActiveRuns(j.UID) {
		e.Active = append(e.Active, r.ID)
	}
	return e
}
