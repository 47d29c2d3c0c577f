package plan

import (
	"container/heap"
	"iter"
	"time"

	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/schedule"
)

// pausedLook is how often the occurrences of a paused job are decided, so that
// a long pause does not end in a long computation.
const pausedLook = time.Hour

// keepWithin is how soon a trigger has to come due to have its schedule kept. To
// compute one takes two microseconds, and to keep one takes as much memory as the rest
// of its alarm: of a million jobs most are due but once a day.
const keepWithin = time.Minute

// Agenda knows when to look at which trigger again: one alarm for each, so that
// a tick costs by what is due and not by how many jobs there are. All of it is
// derived from the state; it belongs to one leader for one term.
type Agenda struct {
	alarms alarms
	jobs   map[state.JobKey]*alarm // the first trigger's; the others come after it
}

// alarm is one trigger of one job.
type alarm struct {
	job     state.JobKey
	trigger *state.Trigger
	c       *schedule.Trigger // nil: it has no occurrences, or none soon
	next    *alarm            // of the same job
	at      time.Time         // zero: not set
	place   int               // among the alarms that are set
}

// NewAgenda returns an empty agenda: [Agenda.Note] puts jobs on it.
func NewAgenda() *Agenda {
	return &Agenda{jobs: map[state.JobKey]*alarm{}}
}

// Next returns when to look again; zero when there is nothing to look at.
func (a *Agenda) Next() time.Time {
	if len(a.alarms) == 0 {
		return time.Time{}
	}
	return a.alarms[0].at
}

// Note takes note that a job was made, changed or deleted, or that what was
// decided about it was refused. It returns the command that quarantines the job
// if it can't be scheduled.
func (a *Agenda) Note(s *state.State, k state.JobKey, now time.Time) []state.Command {
	old := a.jobs[k]
	for al := range old.all() {
		a.alarms.set(al, time.Time{})
	}
	delete(a.jobs, k)
	j := s.Job(k)
	if j == nil {
		return nil
	}
	first, reason := alarmsOf(j, old)
	if first != nil {
		a.jobs[k] = first
	}
	if reason != j.Quarantine {
		return []state.Command{state.Quarantine{Key: k, UID: j.UID, Version: j.Version, Reason: reason}}
	}
	for al := range first.all() {
		if t := s.Track(j.UID, al.trigger.ID); t != nil && reason == "" {
			a.set(j, al, t.DecidedUntil, now)
		}
	}
	return nil
}

// alarmsOf returns an alarm for each trigger of a job, and why the job can't be
// scheduled, "" when it can. What old ones have computed it takes from them.
func alarmsOf(j *state.Job, old *alarm) (first *alarm, reason string) {
	last := &first
	for _, t := range j.Definition.Triggers {
		al := &alarm{job: j.Key, trigger: t, c: compiledBefore(old, t)}
		if al.c == nil && !t.Disabled {
			var err error
			if al.c, err = Compile(j.Key, t); err != nil {
				reason = "trigger " + t.ID + ": " + err.Error()
			}
		}
		*last, last = al, &al.next
	}
	return first, reason
}

func compiledBefore(old *alarm, t *state.Trigger) *schedule.Trigger {
	for al := range old.all() {
		if al.trigger == t {
			return al.c
		}
	}
	return nil
}

// all yields an alarm and those of the job's triggers that follow.
func (al *alarm) all() iter.Seq[*alarm] {
	return func(yield func(*alarm) bool) {
		for ; al != nil; al = al.next {
			if !yield(al) {
				return
			}
		}
	}
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
	a.alarms.set(al, next)
	if next.IsZero() || next.Sub(now) > keepWithin {
		al.c = nil
	}
}

// maxWalked is with how many occurrences a look at what is due ends, give or take those of
// one trigger: some milliseconds, for which the state is held. After an outage a trigger may
// have missed a day of them.
const maxWalked = 1 << 14

// Due returns the commands that decide what has come due, at most about limit of them, and
// takes it for decided: whoever proposes them calls [Agenda.Note] for those that are refused.
// After an outage many triggers that have missed much take many calls.
func (a *Agenda) Due(o *Outlook, now time.Time, limit int) []state.Command {
	s := o.state
	var cmds []state.Command
	decided := map[*alarm]time.Time{} // set again at the end, so that each rings once
	for n := 0; len(cmds) < limit && n < maxWalked; {
		al := a.alarms.pop(now)
		if al == nil {
			break
		}
		j := s.Job(al.job)
		if j == nil || j.Definition.Trigger(al.trigger.ID) != al.trigger {
			continue // it changed meanwhile: Note is about to be called
		}
		if p := j.Pause; p != nil && !p.Until.IsZero() && !p.Until.After(now) {
			ends := a.endPause(o, j, now)
			cmds, n = append(cmds, ends...), n+occurrences(ends...)
			continue
		}
		decided[al] = now
		if al.c == nil {
			al.c = compiled(j, al.trigger)
		}
		if d, ok := decide(s, o.of(j), al.c, al.trigger.ID, now); ok {
			cmds, n = append(cmds, d), n+occurrences(d)
			decided[al] = d.Until
		}
	}
	for al, until := range decided {
		a.set(s.Job(al.job), al, until, now)
	}
	return cmds
}

// occurrences returns how many commands decide; one that decides none counts as one.
func occurrences(cmds ...state.Command) (n int) {
	for _, c := range cmds {
		of := 0
		if d, ok := c.(state.Decide); ok {
			for _, decided := range d.Decisions {
				of += int(decided.Count)
			}
		}
		n += max(1, of)
	}
	return n
}

// endPause decides what the pause covered and lets the job go on. Its alarms
// come back with the change.
func (a *Agenda) endPause(o *Outlook, j *state.Job, now time.Time) []state.Command {
	for al := range a.jobs[j.Key].all() {
		a.alarms.set(al, time.Time{})
	}
	cmds, err := settle(o, j.Key, now)
	if err != nil {
		return nil // it was deleted
	}
	return append(cmds, state.ResumeJob{Key: j.Key, Until: j.Pause.Until, Effective: now})
}

// alarms are those that are set, as a heap: the earliest first. Each knows its place,
// since an index beside it would take as much memory again.
type alarms []*alarm

// set sets or moves an alarm. The zero time takes it out.
func (h *alarms) set(al *alarm, at time.Time) {
	if !al.at.IsZero() {
		heap.Remove(h, al.place)
	}
	if al.at = at; !at.IsZero() {
		heap.Push(h, al)
	}
}

// pop takes out the earliest alarm if it is due at now; nil when none is.
func (h *alarms) pop(now time.Time) *alarm {
	if len(*h) == 0 || (*h)[0].at.After(now) {
		return nil
	}
	al := (*h)[0]
	h.set(al, time.Time{})
	return al
}

// Len, Less, Swap, Push and Pop implement [heap.Interface].
func (h alarms) Len() int           { return len(h) }
func (h alarms) Less(i, j int) bool { return h[i].at.Before(h[j].at) }

func (h alarms) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *alarms) Push(x any) {
	al := x.(*alarm) //nolint:forcetypeassert // only set pushes
	al.place = len(*h)
	*h = append(*h, al)
}

func (h *alarms) Pop() any {
	last := len(*h) - 1
	al := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return al
}
