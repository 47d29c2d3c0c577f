// Package raftstoretest draws random histories of the replicated state, for the
// property tests of what applies, stores or reads it. It is for tests only, and
// knows no rule: what it draws may be accepted or rejected.
package raftstoretest

import (
	"fmt"
	"math"
	"time"

	"pgregory.net/rapid"

	"github.com/schedd/schedd/raftstore/state"
)

// Start is when every walk begins.
var Start = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// Walk draws entries that a leader might have proposed, and now and then some
// that it should not have: from a stale view, twice, or for what isn't there.
// There are few names, so that things meet.
type Walk struct {
	t     *rapid.T
	state *state.State
	now   time.Time
	count int
	uids  uint64 // drawn for jobs
}

// NewWalk returns a walk that looks at s. Whoever walks applies each entry to s
// before drawing the next.
func NewWalk(t *rapid.T, s *state.State) *Walk { return &Walk{t: t, state: s, now: Start} }

// Entry draws the next entry.
func (w *Walk) Entry() state.Entry {
	w.now = w.now.Add(time.Duration(w.number("seconds", -10, 90)) * time.Second)
	e := state.Entry{Now: w.now}
	for range w.number("commands", 1, 4) {
		e.Commands = append(e.Commands, w.commands()...)
	}
	return e
}

func (w *Walk) number(label string, from, to int) int {
	return rapid.IntRange(from, to).Draw(w.t, label)
}

// seldom is true once in eight times.
func (w *Walk) seldom(label string) bool { return w.number(label, 0, 7) == 7 }

func pick[T any](w *Walk, label string, from []T) (T, bool) {
	var none T
	if len(from) == 0 {
		return none, false
	}
	return from[w.number(label, 0, len(from)-1)], true
}

func (w *Walk) commands() []state.Command {
	switch n := w.number("what", 0, 16); n {
	case 0, 1:
		return w.putJob()
	case 2, 3, 4, 5:
		return w.settle(w.jobKey())
	case 6:
		return []state.Command{w.request()}
	case 7, 8, 9:
		return []state.Command{w.assign()}
	case 10, 11, 12:
		return []state.Command{w.report()}
	case 13:
		return []state.Command{w.worker()}
	case 14:
		return w.jobChange()
	case 15:
		return []state.Command{w.group()}
	default:
		return []state.Command{w.ending()}
	}
}

func (w *Walk) jobKey() state.JobKey {
	return state.JobKey{Namespace: "default", Name: rapid.SampledFrom([]string{"backup", "report"}).Draw(w.t, "job")}
}

func (w *Walk) workerID() state.WorkerID {
	return rapid.SampledFrom([]state.WorkerID{"w1", "w2"}).Draw(w.t, "worker")
}

// putJob draws a definition, after what has come due is settled, as it should be.
func (w *Walk) putJob() []state.Command {
	k := w.jobKey()
	d := &state.Definition{Policy: &state.Policy{}, Description: rapid.SampledFrom([]string{"", "old", "new"}).Draw(w.t, "description")}
	for _, id := range []string{"t1", "t2"} {
		if minutes := w.number("minutes", 0, 2); minutes > 0 {
			d.Triggers = append(d.Triggers, &state.Trigger{ID: id, Every: &state.Every{Interval: time.Duration(minutes) * time.Minute}})
		}
	}
	c := state.PutJob{Key: k, Definition: d, Effective: w.now}
	if !w.seldom("counted uid") {
		// Of the whole range, and never twice, as far from what is counted.
		w.uids++
		c.UID = uint64(w.number("uid", 1<<20, math.MaxInt32))<<32 | w.uids
	}
	if j := w.state.Job(k); j != nil && w.seldom("expect") {
		expected := j.Version - uint64(w.number("behind", 0, 1))
		c.Expected = &expected
	}
	return append(w.maybeSettle(k), c)
}

func (w *Walk) maybeSettle(k state.JobKey) []state.Command {
	if w.seldom("unsettled") {
		return nil
	}
	return w.settle(k)
}

// settle decides up to now what each trigger of a job has named. Of a job with
// several triggers the later decisions may be stale: a run was born meanwhile.
func (w *Walk) settle(k state.JobKey) []state.Command {
	j := w.state.Job(k)
	if j == nil {
		return nil
	}
	var commands []state.Command
	for i := range j.Definition.Triggers {
		t := w.state.Track(j.UID, j.Definition.Triggers[i].ID)
		c := state.Decide{
			Key: k, UID: j.UID, Version: j.Version, Activity: w.state.Activity(j.UID),
			Trigger: t.Trigger.ID, After: t.DecidedUntil, Until: w.now,
		}
		c.Decisions = w.decisions(t, c.After)
		if w.seldom("stale decision") {
			c.Activity++
		}
		commands = append(commands, c)
	}
	return commands
}

func (w *Walk) decisions(t *state.Track, after time.Time) (all []state.Decided) {
	every := t.Trigger.Every.Interval
	for n := after.Truncate(every).Add(every); !n.After(w.now) && len(all) < 20; n = n.Add(every) {
		d := state.Decided{
			Decision: state.Decision(w.number("decision", int(state.DecidedRun), int(state.DecidedMissed))),
			First:    n, Last: n, Count: 1, Digest: state.Mix(n),
		}
		switch {
		case d.Decision == state.DecidedRun:
			d.Run = &state.Birth{Phase: state.Pending, Nominal: n}
		case w.seldom("on record"):
			d.Run = &state.Birth{Phase: state.Skipped, Nominal: n, Reason: "overlap"}
			d.Decision, d.Reason = state.DecidedSkipped, "overlap"
		default:
			d.Reason = "late"
		}
		all = append(all, d)
	}
	return all
}

func (w *Walk) request() state.Command {
	k := w.jobKey()
	w.count++
	c := state.Request{Key: k, Trigger: "", Birth: state.Birth{Phase: state.Pending, Nominal: w.now}}
	if j := w.state.Job(k); j != nil {
		c.UID, c.Version, c.Activity = j.UID, j.Version, w.state.Activity(j.UID)
	}
	if w.seldom("same request") {
		w.count--
	}
	if r := w.run("retry of", ended); r != nil && w.seldom("retry") {
		c.RetryOf, c.Trigger = r.ID, r.Trigger
	}
	c.ID = state.RequestRunID(c.UID, fmt.Sprint(w.count))
	return c
}

func ended(r *state.Run) bool   { return r.Phase.Final() }
func pending(r *state.Run) bool { return r.Phase == state.Pending }
func tried(r *state.Run) bool   { return len(r.Attempts) > 0 }
func whichever(*state.Run) bool { return true }

// run draws one of the runs; nil when there is none.
func (w *Walk) run(label string, which func(*state.Run) bool) *state.Run {
	var runs []*state.Run
	for r := range w.state.RunsByBirth() {
		if which(r) {
			runs = append(runs, r)
		}
	}
	r, _ := pick(w, label, runs)
	return r
}

func (w *Walk) assign() state.Command {
	c := state.Assign{Worker: w.workerID(), Attempt: 1}
	if r := w.run("to assign", pending); r != nil {
		c.Run, c.Attempt = r.ID, len(r.Attempts)+1
	}
	if w.seldom("wrong attempt") {
		c.Attempt++
	}
	return c
}

// report draws what a worker says, of the last attempt or of an older one.
func (w *Walk) report() state.Command {
	r := w.run("to report", tried)
	if r == nil {
		return state.Start{Fence: 1, Time: w.now}
	}
	fence := r.Attempts[len(r.Attempts)-1].Fence
	if w.seldom("old attempt") {
		a, _ := pick(w, "attempt", r.Attempts)
		fence = a.Fence
	}
	if w.number("report", 0, 2) == 0 {
		return state.Start{Run: r.ID, Fence: fence, Time: w.now}
	}
	c := state.Finish{Run: r.ID, Fence: fence, Attempt: state.Attempt{Started: w.now, Finished: w.now, LogBytes: int64(w.number("log", 0, 99))}}
	switch w.number("how", 0, 3) {
	case 0:
		c.Attempt.Outcome, c.Phase = state.OutcomeSucceeded, state.Succeeded
	case 1:
		c.Attempt.Outcome, c.Phase, c.Reason = state.OutcomeFailed, state.Failed, "exit status 1"
	case 2:
		c.Attempt.Outcome, c.Phase, c.Reason = state.OutcomeLost, state.Lost, "worker gone"
	case 3:
		c.Attempt.Outcome, c.Phase, c.NotBefore = state.OutcomeLost, state.Pending, w.now.Add(time.Second)
	}
	return c
}

func (w *Walk) worker() state.Command {
	id := w.workerID()
	switch w.number("worker change", 0, 9) {
	default:
		return state.PutWorker{ID: id, PublicKey: []byte(id), Says: state.WorkerInfo{Name: string(id), Slots: w.number("slots", 1, 3)}}
	case 4:
		return state.SetOffline{ID: id}
	case 5:
		return state.UpdateWorker{ID: id, SetLabels: map[string]string{"zone": "eu", "disk": "ssd"}}
	case 6:
		slots := w.number("extra slots", 0, 2)
		return state.UpdateWorker{ID: id, RemoveLabels: []string{"zone"}, Slots: &slots}
	case 7:
		return state.DrainWorker{ID: id, Undo: w.number("undo", 0, 2) > 0, Note: "disk"}
	case 8:
		return state.RemoveWorker{ID: id}
	case 9:
		return state.SetEnforcement{ID: id, Enforcement: state.Enforcement{Memory: state.Means(w.number("memory", 0, 3)), Note: "why"}}
	}
}

func (w *Walk) group() state.Command {
	if w.number("jump", 0, 3) == 0 {
		was := w.now.Add(time.Duration(w.number("was", -2, 0)) * time.Minute)
		return state.ClockJumped{Was: was, Is: was.Add(time.Duration(w.number("by", 0, 2)) * time.Minute)}
	}
	name := rapid.SampledFrom([]string{"", "p1", "p2"}).Draw(w.t, "primary or address")
	if w.number("table", 0, 1) == 0 {
		return state.SetStandby{ID: name, Standby: w.number("standby", 0, 2) > 0}
	}
	return state.SetDirect{Address: name, Remove: w.number("remove", 0, 2) == 0}
}

func (w *Walk) jobChange() []state.Command {
	k := w.jobKey()
	switch w.number("job change", 0, 4) {
	case 0:
		return append(w.maybeSettle(k), state.DeleteJob{Key: k, Effective: w.now})
	case 1:
		return append(w.maybeSettle(k), state.PauseJob{Key: k, Note: "holiday", Until: w.now.Add(time.Hour), Effective: w.now})
	case 2:
		return append(w.maybeSettle(k), state.ResumeJob{Key: k, Effective: w.now})
	case 3:
		return []state.Command{state.InitCluster{ClusterID: "c1"}}
	}
	c := state.Quarantine{Key: k, Reason: rapid.SampledFrom([]string{"", "no such zone"}).Draw(w.t, "reason")}
	if j := w.state.Job(k); j != nil {
		c.UID, c.Version = j.UID, j.Version
	}
	return []state.Command{c}
}

// ending draws what ends runs, and what forgets them.
func (w *Walk) ending() state.Command {
	r := w.run("to end", whichever)
	if r == nil {
		return state.Cancel{}
	}
	switch w.number("ending", 0, 3) {
	case 0:
		return state.Cancel{Run: r.ID, Note: "enough"}
	case 1:
		return state.GiveUp{Run: r.ID, Phase: state.TimedOut, Reason: "no worker"}
	}
	c := state.Prune{}
	for r := range w.state.RunsByBirth() {
		if w.seldom("prune") {
			c.Runs = append(c.Runs, r.ID)
		}
	}
	if w.seldom("old ledger") {
		c.LedgerBefore = w.now.Add(-time.Duration(w.number("age", 0, 10)) * time.Minute)
	}
	return c
}
