package lead

import (
	"maps"

	"github.com/schedd/schedd/raftstore/state"
)

// A stray is an attempt that its worker still makes although it is no longer the run's:
// it was given up as lost, or the state knows nothing of it. It is ended once another one
// takes its place, or its run is over otherwise. Until then it may come to its end, and
// what its worker tells is kept as a late result: a process that works is not killed in
// favour of one that may not begin for long.
//
// It is told to end when its successor is given to a worker, and not when that is known to
// have started. The design has the latter (section 6). But that it has started is known only
// when its worker says so. Should that one be cut off just then, two processes of one run
// would go on side by side, unseen, until it is back or lost: for lost_after, which is
// minutes. So they overlap for the grace of the first at most, as long as that one is
// heard. The price is that what the first has done is lost for nothing when the second
// worker refuses, or can't start it: seldom, since one in trouble says so before, and then
// the run has another attempt, as it was to have anyway. That two work at once can't be
// undone by trying again.

// endStray has a stray ended, unless it may go on. Then it is remembered, to be looked at
// again when its run changes.
func (t *term) endStray(s *state.State, w state.WorkerID, a attempt) {
	switch {
	case !mayGoOn(s, a):
		t.send(w, killStray(a))
	case s.Run(a.run).Phase == state.Pending:
		t.strays[a.run] = stray{a, w}
	}
}

// stray is one that may go on until its run changes. Of a run it is always the latest
// attempt: those before it have had a successor.
type stray struct {
	attempt
	worker state.WorkerID
}

// lookAtStray looks at a run's stray again, if it has one.
func (t *term) lookAtStray(s *state.State, id state.RunID) {
	if x, there := t.strays[id]; there && !mayGoOn(s, x.attempt) {
		delete(t.strays, id)
		t.send(x.worker, killStray(x.attempt))
	}
}

// forgetStrays drops what is known of a worker's strays: it tells anew which it has.
func (t *term) forgetStrays(w state.WorkerID) {
	maps.DeleteFunc(t.strays, func(_ state.RunID, x stray) bool { return x.worker == w })
}

// strayEnded takes note that an attempt has ended.
func (t *term) strayEnded(id state.RunID, fence uint64) {
	if t.strays[id].fence == fence {
		delete(t.strays, id)
	}
}

// mayGoOn tells whether a stray may go on: it was its run's latest attempt but for some
// that were refused or not started, and the run is lost because of it, or waits for the next.
// Whoever asked for kill_after wants no two of them, and by then it should have ended itself.
func mayGoOn(s *state.State, a attempt) bool {
	r := s.Run(a.run)
	if r == nil || r.Phase != state.Lost && r.Phase != state.Pending || !r.CancelTime.IsZero() || killsItself(s, r) {
		return false
	}
	last := len(r.Attempts)
	for last > 0 && r.Attempts[last-1].NeverBegan() {
		last--
	}
	return last > 0 && last == a.number && r.Attempts[last-1].Fence == a.fence
}

// killsItself tells whether the attempts of a run need leases. A run that has ended does not
// know any more: then it is as its job says, if that is as it was. Of one whose job has changed
// since, or is gone, the worker still knows.
func killsItself(s *state.State, r *state.Run) bool {
	d := r.Definition
	if j := s.Job(r.Job); d == nil && j != nil && j.UID == r.UID && j.Version == r.Version {
		d = j.Definition
	}
	return d != nil && d.Policy.KillAfter > 0
}
