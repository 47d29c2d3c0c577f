package plan

import (
	"time"

	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/schedule"
)

// pausedLook is how often the occurrences of a paused job are decided, so that
// a long pause does not end in a long computation.
const pausedLook = time.Hour

// Agenda knows when to look at which trigger again: one timer for each, so that
// a tick costs by what is due and not by how many jobs there are. All of it is
// derived from the state; it belongs to one leader for one term.
type Agenda struct {
	timers *Timers[*alarm]
	jobs   map[state.JobKey][]*alarm
}

// alarm is one trigger of one job.
type alarm struct {
	job     state.JobKey
	trigger *state.Trigger
	c       *schedule.Trigger // nil: it has no occurrences
}

// NewAgenda returns an empty agenda: [Agenda.Note] puts jobs on it.
func NewAgenda() *Agenda {
	return &Agenda{timers: NewTimers[*alarm](), jobs: map[state.JobKey][]*alarm{}}
}

// Next returns when to look again; zero when there is nothing to look at.
func (a *Agenda) Next() time.Time { return a.timers.Next() }

// Note takes note that a job was made, changed or deleted, or that what was
// decided about it was refused. It returns the command that quarantines the job
// if it can't be scheduled.
func (a *Agenda) Note(s *state.State, k state.JobKey, now time.Time) []state.Command {
	old := a.jobs[k]
	for _, al := range old {
		a.timers.Remove(al)
	}
	j := s.Job(k)
	if j == nil {
		delete(a.jobs, k)
		return nil
	}
	alarms := make([]*alarm, 0, len(j.Definition.Triggers))
	reason := ""
	for i := range j.Definition.Triggers {
		t := &j.Definition.Triggers[i]
		al := &alarm{job: k, trigger: t}
		if c, known := compiledBefore(old, t); known {
			al.c = c
		} else if !t.Disabled {
			var err error
			if al.c, err = Compile(k, t); err != nil {
				reason = "trigger " + t.ID + ": " + err.Error()
			}
		}
		alarms = append(alarms, al)
	}
	a.jobs[k] = alarms
	if reason != j.Quarantine {
		return []state.Command{state.Quarantine{Key: k, UID: j.UID, Version: j.Version, Reason: reason}}
	}
	for _, al := range alarms {
		if t := s.Track(j.UID, al.trigger.ID); t != nil && reason == "" {
			a.set(j, al, t.DecidedUntil, now)
		}
	}
	return nil
}

func compiledBefore(old []*alarm, t *state.Trigger) (c *schedule.Trigger, known bool) {
	for _, al := range old {
		if al.trigger == t && al.c != nil {
			return al.c, true
		}
	}
	return nil, false
}

// set sets an alarm to the first occurrence that is not decided.
func (a *Agenda) set(j *state.Job, al *alarm, decided, now time.Time) {
	if al.c == nil {
		return
	}
	next := al.c.Next(decided)
	if p := j.Pause; p != nil && !next.IsZero() {
		next = later(next, now.Add(pausedLook))
		next = earlier(next, p.Until)
	}
	a.timers.Set(al, next)
}

// Due returns the commands that decide what has come due, at most about limit
// of them, and takes it for decided: whoever proposes them calls [Agenda.Note]
// for those that are refused.
func (a *Agenda) Due(s *state.State, now time.Time, limit int) []state.Command {
	var cmds []state.Command
	beside := map[state.JobKey]*beside{}
	decided := map[*alarm]time.Time{} // set again at the end, so that each rings once
	for len(cmds) < limit {
		al, ok := a.timers.Pop(now)
		if !ok {
			break
		}
		j := s.Job(al.job)
		if j == nil || j.Definition.Trigger(al.trigger.ID) != al.trigger {
			continue // it changed meanwhile: Note is about to be called
		}
		if p := j.Pause; p != nil && !p.Until.IsZero() && !p.Until.After(now) {
			cmds = append(cmds, a.endPause(s, j, now)...)
			continue
		}
		if beside[al.job] == nil {
			beside[al.job] = besideOf(s, j)
		}
		decided[al] = now
		if d, ok := decide(s, beside[al.job], al.c, al.trigger.ID, now); ok {
			cmds = append(cmds, d)
			decided[al] = d.Until
		}
	}
	for al, until := range decided {
		a.set(s.Job(al.job), al, until, now)
	}
	return cmds
}

// endPause decides what the pause covered and lets the job go on. Its alarms
// come back with the change.
func (a *Agenda) endPause(s *state.State, j *state.Job, now time.Time) []state.Command {
	for _, al := range a.jobs[j.Key] {
		a.timers.Remove(al)
	}
	cmds, err := Settle(s, j.Key, now)
	if err != nil {
		return nil // it was deleted
	}
	return append(cmds, state.ResumeJob{Key: j.Key, Until: j.Pause.Until, Effective: now})
}
