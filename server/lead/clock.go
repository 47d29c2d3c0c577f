package lead

import (
	"slices"
	"time"

	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
)

// A leader goes by two clocks. What is due is due by the wall clock, which may be set
// at any moment, forward or back, or show an hour later when the host was suspended.
// How long something has lasted is told by the time that elapses, which nobody can
// set: a run that waits has not waited longer because somebody has set a clock, and
// is not to wait longer either.
//
// The state has the instants at which a run was made, given to a worker and so on, as
// the state's clock showed them. The leader remembers what that showed when it learned
// of them, and by how much it has jumped since, the instants are moved along. A jump
// forward is put on record, for the leaders after this one.

// wall returns what the wall clock shows, without the monotonic reading by which Go
// would otherwise compare two instants: of a clock that was set that says nothing.
func (c *Config) wall() time.Time { return c.Clock().Round(0) }

// tolerance is how far the wall clock may be from the time that has elapsed before
// that counts as a jump: it is also slewed, and read a little later.
const tolerance = time.Second

// maxAhead is how far the state's clock may be ahead of the leader's before that is told.
const maxAhead = 2 * time.Second

// tellAhead says once when the state's clock is ahead of this one, and once when it is no
// more. What is decided ahead does not come due again, which looks as if jobs were
// forgotten.
func (t *term) tellAhead(s *state.State) {
	switch ahead := s.Now().Sub(t.wall); {
	case ahead > maxAhead && !t.ahead:
		t.ahead = true
		t.Log.Warn("a leader's clock was ahead of this primary's: what is decided until then does not come due again",
			"ahead", ahead, "until", s.Now(), "now", t.wall)
	case ahead <= 0 && t.ahead:
		t.ahead = false
		t.Log.Info("this primary's clock has caught up with that of the replicated state")
	}
}

// mark is a moment by both clocks.
type mark struct {
	elapsed time.Time // has a monotonic reading
	shown   time.Time // by the state's clock
}

// jumped returns by how much the state's clock has jumped from one moment to another.
func (m mark) jumped(until mark) time.Duration {
	d := until.shown.Sub(m.shown) - until.elapsed.Sub(m.elapsed)
	if d.Abs() <= tolerance {
		return 0
	}
	return d
}

// asShown returns what the state's clock would have shown at an earlier moment, had it
// gone as time does; zero for zero.
func (m mark) asShown(elapsed time.Time) time.Time {
	if elapsed.IsZero() {
		return time.Time{}
	}
	return m.shown.Add(-m.elapsed.Sub(elapsed))
}

// since returns the mark of something that has gone on since an instant of the state's
// clock, as if that had not jumped from then on: the leaders before have put that on
// record, and who learns of a run now has not seen it.
func (m mark) since(s *state.State, began time.Time) mark {
	if began.IsZero() {
		return m
	}
	return mark{m.elapsed, m.shown.Add(-s.Jumped(began, m.shown))}
}

// sighting is when the leader learned of a run, of its last change, and that it waits though
// workers have refused it; of the latter there is none until then. Nothing is counted from
// when it was asked to end.
type sighting struct{ born, changed, queued mark }

// mark returns the present moment. The state's clock does not go back: what was
// decided by a clock that went faster stays decided.
func (t *term) mark(s *state.State, now time.Time) mark {
	shown := t.wall
	if s.Now().After(shown) {
		shown = s.Now()
	}
	return mark{now, shown}
}

// see takes note that a run has changed.
func (t *term) see(s *state.State, r *state.Run, m mark) {
	seen, known := t.active.Get(r.ID)
	if seen.changed = m.since(s, plan.Since(r)); !known {
		seen.born = m.since(s, r.Created)
	}
	if seen.queued = (mark{}); plan.Refused(r) {
		seen.queued = m.since(s, plan.QueuedSince(r))
	}
	t.active.Set(r.ID, seen)
}

// minJump is the least jump of the clock that is put on record. Less makes no difference
// to anybody who waits, and a leader that was held up for a moment may seem to see it.
const minJump = 2 * time.Second

// jump returns the record of a jump forward of the state's clock from one moment to
// another, if there was one. A leader that comes later can't know otherwise that nobody
// has lived through that time. Of a step back there is nothing to tell: the state's clock
// stands still then.
func (m mark) jump(until mark) (j state.ClockJumped, is bool) {
	if m == (mark{}) || m.jumped(until) < minJump {
		return state.ClockJumped{}, false
	}
	return state.ClockJumped{Was: m.shown.Add(until.elapsed.Sub(m.elapsed)), Is: until.shown}, true
}

// moved returns a run with its instants moved by how much the state's clock has jumped
// since the leader learned of them.
func (t *term) moved(r *state.Run, m mark) *state.Run {
	seen, _ := t.active.Get(r.ID)
	born, changed := seen.born.jumped(m), seen.changed.jumped(m)
	var queued time.Duration
	if plan.Refused(r) {
		queued = seen.queued.jumped(m)
	}
	if born == 0 && changed == 0 && queued == 0 {
		return r
	}
	c := *r
	c.Created = c.Created.Add(born)
	if !c.NotBefore.IsZero() {
		c.NotBefore = c.NotBefore.Add(changed)
	}
	if n := len(c.Attempts); n > 0 {
		c.Attempts = slices.Clone(c.Attempts)
		latest, by := &c.Attempts[n-1], changed
		if plan.Refused(r) {
			latest, by = &c.Attempts[plan.FirstRefused(r)], queued
		}
		latest.Assigned = latest.Assigned.Add(by)
	}
	return &c
}
