package plan

import (
	"fmt"

	"github.com/schedd/schedd/raftstore/state"
)

// beside is what a job's active runs will be, as the commands of one step are
// put together: what the state says, and what the commands before will add.
type beside struct {
	job      *state.Job
	activity uint64        // what Decide and Request will find
	active   int           // runs that have not ended
	pending  int           // those of them that no worker has
	replace  []replaceable // those that a new run may take the place of, oldest first
}

// replaceable is a run that has not ended, and has not been asked to.
type replaceable struct {
	id      state.RunID
	pending bool // cancelling it ends it
}

func besideOf(s *state.State, j *state.Job) *beside {
	b := &beside{job: j, activity: s.Activity(j.UID), active: s.NumActive(j.UID)}
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
	return ""
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
				b.pending--
				b.activity++
			}
			replaces = append(replaces, old.id)
		}
		b.replace = append(b.replace, replaceable{id, true})
	}
	b.active++
	b.pending++
	b.activity++
	return replaces
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
