package verdict

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// slack is how far apart the clocks of two processes on one host may seem, for
// what happens in one and is written down by another.
const slack = 2 * time.Second

// run judges one run that should have succeeded.
func (j *judge) run(v View, job Job, r Run) {
	broken := func(p Promise, attempt int, format string, args ...any) {
		j.broken(Violation{Promise: p, Server: v.Server, Job: job.Name, Run: r.ID, Attempt: attempt, Text: fmt.Sprintf(format, args...)})
	}
	successes := 0
	for i, a := range r.Attempts {
		if a.Number != i+1 {
			broken(OneSuccess, a.Number, "attempt %d stands in place %d", a.Number, i+1)
		}
		if a.Outcome == Succeeded {
			successes++
		}
		j.attempt(v, job, r, a)
	}
	switch r.Phase {
	case PhaseSucceeded:
		if successes != 1 || r.Attempts[len(r.Attempts)-1].Outcome != Succeeded {
			broken(OneSuccess, 0, "it has succeeded, and %d of its %d attempts have", successes, len(r.Attempts))
		}
	case PhasePending:
		j.doubt("run %s of %s still waits, so nobody knows how it ends: %s", r.ID, job.Name, r.Reason)
	case PhaseAssigned, PhaseRunning:
		broken(ItEnds, 0, "it is %s, and everything has been at peace", r.Phase)
	case Phase(Missed), Phase(Skipped): // the ledger told
	default:
		if why, never := neverStarted(r); never && !j.rec.Closed {
			j.neverStarted[why]++
			return
		}
		broken(OneSuccess, 0, "it has ended as %s: %s", r.Phase, r.Reason)
	}
}

// neverStarted tells whether a run has failed since no worker would start it, and why
// the last one would not. That is the right of a worker: its policy may allow no shell,
// or its user may be none that the host knows.
func neverStarted(r Run) (why string, never bool) {
	for _, a := range r.Attempts {
		if a.Outcome != NotStarted && a.Outcome != Refused {
			return "", false
		}
		why = fmt.Sprintf("%s by %s: %s", a.Outcome, a.WorkerName, a.Reason)
	}
	return why, r.Phase == PhaseFailed && len(r.Attempts) > 0
}

// unwilling has one doubt for all runs that were never started for the same reason.
func (j *judge) unwilling(v View) {
	for _, why := range slices.Sorted(maps.Keys(j.neverStarted)) {
		j.doubt("%d runs were never started, as %s tells it, %s. Let the worker's policy allow /bin/sh and the variable %s, or choose other workers with --selector", j.neverStarted[why], v.Server, why, EffectsVariable)
	}
	clear(j.neverStarted)
}

// attempt judges one attempt: how it ended, what it did, what is left of what it
// printed.
func (j *judge) attempt(v View, job Job, r Run, a Attempt) {
	broken := func(p Promise, format string, args ...any) {
		j.broken(Violation{Promise: p, Server: v.Server, Job: job.Name, Run: r.ID, Attempt: a.Number, Text: fmt.Sprintf(format, args...)})
	}
	switch a.Outcome {
	case Succeeded, Unfinished:
	case Failed:
		if a.Number > job.Work.Fails || a.ExitCode != ExitAgain {
			j.doubt("attempt %d of run %s of %s has failed with exit code %d %s, which the job does not by itself: see its log", a.Number, r.ID, job.Name, a.ExitCode, a.Reason)
		}
	case Lost, Interrupted, NotStarted, Refused:
		if a.Reason == "" {
			broken(OneSuccess, "it is %s, without a reason", a.Outcome)
		}
		if j.rec.Closed && a.Outcome != Refused && !j.excused(a, len(j.told[attemptKey{r.ID, a.Number}]) > 0) {
			broken(RunsSurvive, "it is %s (%s), and nothing was done to %s that explains it", a.Outcome, a.Reason, a.WorkerName)
		}
	default:
		broken(OneSuccess, "it has ended as %s: %s", a.Outcome, a.Reason)
	}
	j.effects(r, a, broken)
	if a.Log.Problem != "" {
		broken(OutputWhole, "the log of attempt %d: %s", a.Number, a.Log.Problem)
	}
}

// unread has one doubt for all logs that could not be read at one primary.
func (j *judge) unread(v View) {
	n := 0
	for _, r := range v.Runs {
		for _, a := range r.Attempts {
			if !a.Log.Read && a.Outcome != Unfinished {
				n++
			}
		}
	}
	if n > 0 {
		j.doubt("the logs of %d attempts could not be read at %s", n, v.Server)
	}
}

// untold has a doubt for each worker that ran attempts, and whose writing could not be
// read, although its jobs were told to write.
func (j *judge) untold(v View) {
	for _, r := range v.Runs {
		for _, a := range r.Attempts {
			if j.rec.Told && !j.rec.EffectsOf[a.Worker] && (a.Outcome == Succeeded || a.Outcome == Failed) {
				j.doubt("what the worker %s (%s) started could not be seen: it wrote nothing to the directory of the effects, which has to be one that it shares with this host", a.WorkerName, a.Worker)
			}
		}
	}
}

// excused tells whether a fault explains that an attempt did not come to its end.
// What had begun survives all but the death of its runner.
func (j *judge) excused(a Attempt, begun bool) bool {
	return slices.ContainsFunc(j.rec.Faults, func(f Fault) bool {
		over := a.Finished.IsZero() || f.At.Before(a.Finished.Add(slack))
		if f.Failed != "" || f.Name != a.WorkerName || !over || f.Until.Add(slack).Before(a.Assigned) {
			return false
		}
		return f.Role == Runner || f.Role == Worker && !begun
	})
}

// effects compares what an attempt wrote down with what is known of it.
func (j *judge) effects(r Run, a Attempt, broken func(p Promise, format string, args ...any)) {
	times := map[Stage]int{}
	for _, e := range j.told[attemptKey{r.ID, a.Number}] {
		times[e.Stage]++
		if e.Fence != a.Fence || !e.Nominal.Equal(r.Nominal) || e.Job != r.Job || e.Worker != a.Worker {
			broken(NoGhosts, "a process of worker %s ran with fence %d for %s at %s, and the attempt is for worker %s with fence %d at %s",
				e.Worker, e.Fence, e.Job, clock(e.Nominal), a.Worker, a.Fence, clock(r.Nominal))
		}
	}
	for _, stage := range []Stage{Begin, End} {
		if times[stage] > 1 {
			broken(StartedOnce, "its process wrote down its %s %d times", stage, times[stage])
		}
	}
	switch {
	case times[Begin] == 0 && times[End] > 0:
		broken(StartedOnce, "its process wrote down its end, and never its begin")
	case (a.Outcome == NotStarted || a.Outcome == Refused) && times[Begin] > 0:
		broken(NoGhosts, "it is said never to have been started, and its process wrote down its begin")
	case (a.Outcome == Succeeded || a.Outcome == Failed && a.ExitCode == ExitAgain) && j.rec.EffectsOf[a.Worker] && times[End] == 0:
		broken(NoGhosts, "it is said to have come to its end, and its process never wrote that down")
	}
}

// ghosts finds what ran and is no attempt.
func (j *judge) ghosts(v View) {
	known := map[attemptKey]bool{}
	for _, r := range v.Runs {
		for _, a := range r.Attempts {
			known[attemptKey{r.ID, a.Number}] = true
		}
	}
	for k, effects := range j.told {
		if !known[k] {
			j.broken(Violation{Promise: NoGhosts, Server: v.Server, Job: effects[0].Job, Run: k.run, Attempt: k.number, Text: fmt.Sprintf("a process of worker %s ran as attempt %d, and there is no such attempt", effects[0].Worker, k.number)})
		}
	}
}

// fences looks at the fences of all attempts: each once, and greater in a later
// attempt of the same run.
func (j *judge) fences(v View) {
	owner := map[uint64]string{}
	for _, r := range v.Runs {
		last := uint64(0)
		for _, a := range r.Attempts {
			broken := func(format string, args ...any) {
				j.broken(Violation{Promise: FencesGrow, Server: v.Server, Job: r.Job, Run: r.ID, Attempt: a.Number, Text: fmt.Sprintf(format, args...)})
			}
			if other, taken := owner[a.Fence]; taken {
				broken("its fence %d is that of an attempt of run %s as well", a.Fence, other)
			}
			if a.Fence <= last {
				broken("its fence %d is not greater than %d, which the attempt before it had", a.Fence, last)
			}
			owner[a.Fence], last = r.ID, a.Fence
		}
	}
	j.assigned(v)
}

// assigned looks whether who was assigned later has a greater fence.
func (j *judge) assigned(v View) {
	type given struct {
		run string
		Attempt
	}
	var all []given
	for _, r := range v.Runs {
		for _, a := range r.Attempts {
			all = append(all, given{r.ID, a})
		}
	}
	slices.SortFunc(all, func(a, b given) int { return cmp.Compare(a.Fence, b.Fence) })
	for i := 1; i < len(all); i++ {
		if all[i].Fence > all[i-1].Fence && all[i].Assigned.Before(all[i-1].Assigned) && !all[i].Assigned.IsZero() {
			j.broken(Violation{Promise: FencesGrow, Server: v.Server, Run: all[i].run, Attempt: all[i].Number, Text: fmt.Sprintf("it was assigned before an attempt of run %s, and has a greater fence (%d and %d)", all[i-1].run, all[i].Fence, all[i-1].Fence)})
		}
	}
}
