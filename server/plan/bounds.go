package plan

import (
	"fmt"

	"github.com/schedd/schedd/raftstore/state"
)

// Bounds limit the runs that have not ended. Each is in the memory of all primaries
// for as long as it waits, and a trigger without an end, or somebody who asks for runs in a
// loop, would fill it while no worker comes. What is beyond them is refused, or, when it
// comes due, skipped with the reason. The leader's count.
//
// They are exact for each job, and for all that a leader decides in its steps. A call that
// changes a job decides what has come due of it before, and does not see what others decide in
// that moment, so that in all there may be a few more.
type Bounds struct {
	RunsPerJob int // of each job
	Runs       int // of all jobs
}

// DefaultBounds are what a primary goes by when it isn't told otherwise. A run that waits
// takes about a kilobyte: all together may take a hundred megabytes, and one job a
// tenth of that, so that it does not take the room of all others.
var DefaultBounds = Bounds{RunsPerJob: 10_000, Runs: 100_000}

// room is how many runs there may still be, as the commands of one step are put together.
type room struct {
	bounds Bounds
	active int // runs of all jobs that have not ended
}

func roomIn(s *state.State, b Bounds) *room { return &room{bounds: b, active: s.NumAllActive()} }

// full says why there can't be another run of a job that has so many: "" when there can.
// It does not say how many there are, so that what is skipped for it is alike in the ledger.
func (r *room) full(ofJob int) (reason string) {
	switch {
	case ofJob >= r.bounds.RunsPerJob:
		return fmt.Sprintf("limit: %d runs of the job have not ended, which is the most", r.bounds.RunsPerJob)
	case r.active >= r.bounds.Runs:
		return fmt.Sprintf("limit: %d runs of all jobs have not ended, which is the most", r.bounds.Runs)
	}
	return ""
}

// FullError is why a run by hand is refused: too many have not ended.
type FullError struct {
	Job    state.JobKey
	Reason string
}

// Error says so in a sentence, and what to do.
func (e *FullError) Error() string {
	return fmt.Sprintf("job %v can't run now: %s; see by ListRuns why they wait, bring workers for them or cancel some, and try again; "+
		"--active-runs and --active-runs-per-job of the primaries set how many there may be", e.Job, e.Reason)
}

// Unwrap returns [state.ErrFull].
func (e *FullError) Unwrap() error { return state.ErrFull }
