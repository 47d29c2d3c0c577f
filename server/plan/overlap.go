package plan

import (
	"fmt"
	"slices"

	"github.com/schedd/schedd/raftstore/state"
)

// Outlook is what the jobs' active runs will be, as the commands of one step are put
// together: what the state says, and what the commands before will change. What is
// decided by it can be agreed in one entry, however many runs of a job begin and end in
// that.
type Outlook struct {
	state *state.State
	room  *room
	jobs  map[uint64]*beside // by uid
	left  map[state.RunID]struct{}
}

// NewOutlook returns that of a step in which nothing is decided yet, by these bounds. It is
// good for as long as the state may be looked at.
func NewOutlook(s *state.State, b Bounds) *Outlook {
	return &Outlook{state: s, room: roomIn(s, b), jobs: map[uint64]*beside{}, left: map[state.RunID]struct{}{}}
}

// of returns what a job's active runs will be.
func (o *Outlook) of(j *state.Job) *beside {
	b := o.jobs[j.UID]
	if b == nil {
		b = besideOf(o.state, j, o.room)
		o.jobs[j.UID] = b
	}
	return b
}

// Note takes note of a command that will be applied before those that are decided next:
// it may end a run, or have it wait again.
func (o *Outlook) Note(c state.Command) {
	switch c := c.(type) {
	case state.Finish:
		if r := o.state.Run(c.Run); r != nil && r.Live() != nil && r.Live().Fence == c.Fence {
			o.leave(r, c.Phase.Final())
		}
	case state.GiveUp:
		if r := o.state.Run(c.Run); r != nil && r.Phase == state.Pending {
			o.leave(r, true)
		}
	}
}

// leave takes note that a run leaves its worker or its line: it ends, or waits again.
func (o *Outlook) leave(r *state.Run, ends bool) {
	j := o.state.Job(r.Job)
	if _, known := o.left[r.ID]; known || j == nil || j.UID != r.UID {
		return
	}
	o.left[r.ID] = struct{}{}
	o.of(j).leave(r, ends)
}

// beside is an outlook on the active runs of one job.
type beside struct {
	job      *state.Job
	room     *room                    // for runs of all jobs
	activity uint64                   // what Decide and Request will find
	active   int                      // runs that have not ended
	pending  int                      // those of them that no worker has
	replace  []replaceable            // those that a new run may take the place of, oldest first
	asked    map[state.RunID]struct{} // runs that will have been made by hand; nil: none
}

// replaceable is a run that has not ended, and has not been asked to.
type replaceable struct {
	id      state.RunID
	pending bool // cancelling it ends it
}

func besideOf(s *state.State, j *state.Job, r *room) *beside {
	b := &beside{job: j, room: r, activity: s.Activity(j.UID), active: s.NumActive(j.UID)}
	if o := j.Definition.Policy.Overlap; o == state.OverlapQueue || o == state.OverlapReplace {
		for _, r := range s.ActiveRuns(j.UID) {
			if r.Phase == state.Pending {
				b.pending++
			}
			if r.CancelTime.IsZero() {
				b.replace = append(b.replace, replaceable{r.ID, r.Phase == state.Pending})
			}
		}
	}
	return b
}

// admit says whether another run may be made: "" when it may, else why not.
// What it lets in under OverlapQueue and OverlapReplace waits in the queue for
// its turn; see [Queue].
func (b *beside) admit() (reason string) {
	p := b.job.Definition.Policy
	full := b.active >= p.MaxConcurrent
	switch {
	case p.Overlap == state.OverlapSkip && full:
		return fmt.Sprintf("overlap: %s, and the job allows %d at a time", count(b.active, "run is active", "runs are active"), p.MaxConcurrent)
	case p.Overlap == state.OverlapQueue && b.pending >= MaxQueued:
		return fmt.Sprintf("overlap: %d runs wait already, which is the most", MaxQueued)
	}
	return b.full()
}

// full says why there can't be another run, whatever the overlap policy is: "" when there
// can. One that takes the place of one that waits needs no room of its own.
func (b *beside) full() (reason string) {
	if n := len(b.replace); b.job.Definition.Policy.Overlap == state.OverlapReplace && n >= b.job.Definition.Policy.MaxConcurrent && b.replace[0].pending {
		return ""
	}
	return b.room.full(b.active)
}

// add takes note that a run will be made, and returns the runs that it takes the
// place of: the oldest ones, as many as there are too many.
func (b *beside) add(id state.RunID) (replaces []state.RunID) {
	p := b.job.Definition.Policy
	if p.Overlap == state.OverlapReplace {
		for len(b.replace) >= p.MaxConcurrent {
			old := b.replace[0]
			b.replace = b.replace[1:]
			if old.pending {
				b.active--
				b.room.active--
				b.pending--
				b.activity++
			}
			replaces = append(replaces, old.id)
		}
		b.replace = append(b.replace, replaceable{id, true})
	}
	b.active++
	b.room.active++
	b.pending++
	b.activity++
	return replaces
}

// leave takes note that a run that the state has will have ended, or wait again.
func (b *beside) leave(r *state.Run, ends bool) {
	i := slices.IndexFunc(b.replace, func(x replaceable) bool { return x.id == r.ID })
	switch {
	case !ends:
		b.pending++
		if i >= 0 {
			b.replace[i].pending = true
		}
		return
	case i >= 0:
		b.replace = slices.Delete(b.replace, i, i+1)
	}
	if r.Phase == state.Pending {
		b.pending--
	}
	b.active--
	b.room.active--
	b.activity++
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
