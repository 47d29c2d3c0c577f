// Package plan decides. Given what the primaries agree on, who is connected,
// and the time, it says what the leader should propose now and when to look
// again. It proposes nothing, sends nothing and reads no clock; package lead
// does what it says.
//
// The questions it answers, each in a file:
//
//	due.go      which occurrences came due, and what becomes of each
//	request.go  what becomes of a run that is asked for by hand
//	overlap.go  whether a run may come beside the active ones
//	bounds.go   whether there is room for another one
//	agenda.go   when to look at which trigger again
//	queue.go    which run goes to which worker
//	attempt.go  what becomes of a run when its attempt ended, or is overdue
//	refused.go  how long a run waits that workers refuse
//	lease.go    which attempts may go on, and when one has ended for want of a lease
//	verify.go   whether the ledger agrees with the schedule
//	prune.go    what of the past to forget
package plan

import (
	"time"

	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/schedule"
)

// Grace is how late an occurrence may be decided and still just run. What is
// later is caught up with, as the job's policy says.
const Grace = 60 * time.Second

// MaxCatchUp bounds the runs that one catch-up makes under CatchUpAll.
const MaxCatchUp = 100

// maxDecided bounds the decisions in one command, give or take those of one
// catch-up, so that it fits in a proposal whatever the reasons are.
const maxDecided = 400

// MaxQueued bounds the runs of one job that wait under OverlapQueue.
const MaxQueued = 100

// Compile returns the schedule of a job's trigger. Its error joins a
// *schedule.FieldError for each field that is wrong.
func Compile(k state.JobKey, t *state.Trigger) (*schedule.Trigger, error) {
	spec := schedule.Spec{
		At: t.At, Start: t.Start, End: t.End, Jitter: t.Jitter,
		Seed: k.Namespace + "/" + k.Name + "/" + t.ID,
	}
	if c := t.Cron; c != nil {
		spec.Cron = &schedule.CronSpec{
			Expression: c.Expression, TimeZone: c.TimeZone,
			Gap: gaps[c.Gap], Overlap: dstOverlaps[c.Overlap],
		}
	}
	if e := t.Every; e != nil {
		spec.Every = &schedule.EverySpec{Interval: e.Interval, Phase: e.Phase}
	}
	for _, x := range t.Exclude {
		spec.Exclude = append(spec.Exclude, schedule.Exclusion{Date: x.Date, From: x.From, To: x.To})
	}
	return schedule.Compile(spec)
}

var gaps = map[state.Gap]schedule.Gap{
	state.GapRunAfter: schedule.GapRunAfter,
	state.GapSkip:     schedule.GapSkip,
}

var dstOverlaps = map[state.DSTOverlap]schedule.Overlap{
	state.DSTOverlapFirst:  schedule.OverlapFirst,
	state.DSTOverlapSecond: schedule.OverlapSecond,
	state.DSTOverlapBoth:   schedule.OverlapBoth,
}

// NextTime returns the first nominal instant after now of any of the job's
// triggers that is not decided yet and will not be skipped by its pause; zero when
// there is none. decided returns up to when a trigger is decided: that lies ahead of
// now after a clock that was ahead, and nothing comes due before it.
func NextTime(j *state.Job, decided func(trigger string) time.Time, now time.Time) time.Time {
	if p := j.Pause; p != nil {
		if p.Until.IsZero() {
			return time.Time{}
		}
		if p.Until.After(now) {
			now = p.Until
		}
	}
	var next time.Time
	for _, t := range j.Definition.Triggers {
		if t.Disabled {
			continue
		}
		c, err := Compile(j.Key, t)
		if err != nil {
			continue // quarantined: it has none
		}
		next = earlier(next, c.Next(later(now, decided(t.ID))))
	}
	return next
}

// earlier returns the earlier of two instants, where the zero time is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// later returns the later of two instants.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
