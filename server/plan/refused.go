package plan

import (
	"math"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// A worker that refuses an attempt takes none at present: the run goes back to
// the queue, where another worker may be found. It is never dropped for that, and that does
// not prolong its queue_timeout. Each refusal is on record as an attempt, and so the pauses
// grow: each is an eighth of all before it, at least a second. In ten years a run is
// refused 160 times, and what can be started again is within an eighth of the time that it
// was refused for.
func refusedPause(n int) time.Duration { return refusedFor(n) - refusedFor(n-1) }

// refusedFor is the sum of the pauses after n refusals in a row.
func refusedFor(n int) time.Duration {
	const even = 8 // of a second each
	seconds := float64(n)
	if n > even {
		seconds = even * math.Pow(1+1./even, float64(n-even))
	}
	const most = 100 * 365 * 24 * time.Hour
	return time.Duration(min(seconds, most.Seconds()) * float64(time.Second))
}

// refusals is how many attempts of a run were refused by their workers. They are
// none that the job has made.
func refusals(r *state.Run) (n int) {
	for i := range r.Attempts {
		if r.Attempts[i].Outcome == state.OutcomeRefused {
			n++
		}
	}
	return n
}

// Refused tells whether a run waits since a worker has refused it.
func Refused(r *state.Run) bool { return r.Live() == nil && FirstRefused(r) < len(r.Attempts) }

// FirstRefused is the index of the first of the latest attempts that were refused one
// after the other, not counting one that a worker has now. When there is none, it is how
// many attempts there are without that one.
func FirstRefused(r *state.Run) int {
	i := len(r.Attempts)
	if r.Live() != nil {
		i--
	}
	for i > 0 && r.Attempts[i-1].Outcome == state.OutcomeRefused {
		i--
	}
	return i
}

// QueuedSince returns from when, by the state's clock, a pending run counts its
// queue_timeout: when it could begin first, or again after an attempt that was made.
// Refusals don't move that. Only the first one after an attempt does, once: the state has
// no better trace of when that wait began than when the run was given away then.
func QueuedSince(r *state.Run) time.Time {
	switch first := FirstRefused(r); {
	case !Refused(r):
		return later(r.Created, r.NotBefore)
	case first > 0:
		return r.Attempts[first].Assigned
	}
	if t := r.Definition.Trigger(r.Trigger); t != nil && t.Jitter > 0 {
		if c, err := Compile(r.Job, t); err == nil {
			return later(r.Created, jittered(c, r.Nominal))
		}
	}
	return r.Created
}
