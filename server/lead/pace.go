package lead

import (
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// What nobody waits for waits for company after an entry: what workers report, what comes due,
// and what is judged by the clock, which has then heard all that was told. An entry is synced to
// disk however little it has, and a few milliseconds after the one before there is soon more.
// After a pause nothing waits, nor does what one alone asks for, which takes along what has
// gathered; nor while more is due than one entry holds.
//
// What was agreed is sent to the workers at once in any case.
const (
	// company is for how long.
	company = 10 * time.Millisecond
	// slotCompany is the same while runs wait for a slot, which what a worker reports may make
	// free. Then it waits only until so many have ended as are one in [share] of those of the
	// worker that has the fewest.
	slotCompany = 5 * time.Millisecond
)

// share is how many runs a worker goes on with for each slot that waits for its next one. A worker
// with few is given another one at once; one with many has enough to do meanwhile, and each
// entry that is not written leaves it more of the processors, if they are the same. If most of them
// are long, and short ones share what slots are left, those wait for [slotCompany] each time.
const share = 8

// Who asks for a run waits, too, for others who do: an entry costs nearly the same for eight
// of them as for one, here and in the journals of the workers that it goes to, and where
// there are many the next ones ask while it is written. So after an entry in which several
// asked the disk is left idle for twice as long as that took to write, and no longer: that
// is about what there is to save, and all that is lost when nobody comes.
const (
	// several is from how many on others are waited for.
	several = 3
	// longestWait bounds that where the disk is slow.
	longestWait = 4 * time.Millisecond
)

// pace is when the leader writes entries.
type pace struct {
	proposed time.Time // the last one
	taken    time.Time // the last one that took what may wait
	agreed   time.Time // when the last one was done
	askers   int       // who asked for runs in it
	open     bool      // the present step takes what may wait
	busy     int       // how many runs the worker with the fewest has, if runs wait
	behind   bool      // the last one that did left something that was due
}

// patience is how long what may wait has to wait at now, unless runs wait for a slot and
// [term.enough] attempts end before.
func (t *term) patience(now time.Time) time.Duration {
	if t.behind {
		return 0
	}
	return max(0, t.rested().Sub(now))
}

// enough is with how many attempts that have ended nobody waits for more of them, while runs
// wait for their slots.
func (t *term) enough() int { return max(1, t.busy/share) }

// early tells when what may wait need not any more, though its time has not come; nil: never.
func (t *term) early() <-chan struct{} {
	if !t.queue.Waiting() {
		return nil
	}
	return t.Inbox.await(t.enough())
}

// opensAt reports whether a step at now takes what may wait.
func (t *term) opensAt(now time.Time) bool {
	return len(t.wanted) > 0 || t.patience(now) == 0 ||
		t.queue.Waiting() && t.Inbox.ended() >= t.enough()
}

// rested is when what may wait has waited for long enough. Entries that took none of it do not
// count: there may always be another one.
func (t *term) rested() time.Time {
	wait := company
	if t.queue.Waiting() {
		wait = slotCompany
	}
	return latest(t.taken.Add(wait), t.gathered())
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// wrote takes note of what was agreed, if anything was.
func (p *pace) wrote(cmds []command, now time.Time) {
	if len(cmds) == 0 {
		return
	}
	p.agreed, p.askers = now, 0
	for i := range cmds {
		if cmds[i].failed != nil { // somebody waits for it
			p.askers++
		}
	}
}

// awaitAskers is how long who asks at now waits for others.
func (p *pace) awaitAskers(now time.Time) time.Duration { return max(0, p.gathered().Sub(now)) }

// gathered is when who asks has waited for others for long enough; zero when nobody does.
func (p *pace) gathered() time.Time {
	if p.askers < several {
		return time.Time{}
	}
	return p.agreed.Add(min(2*p.agreed.Sub(p.proposed), longestWait))
}

// opens is when what may wait from an instant on is taken; zero for zero.
func (t *term) opens(at time.Time) time.Time {
	if first := t.rested(); !at.IsZero() && at.Before(first) && !t.behind {
		return first
	}
	return at
}

// occur plans what comes due, and what of starts is to be on record.
func (t *term) occur(s *state.State, m mark) {
	for _, c := range t.agenda.Due(t.outlook, t.wall, maxDue) {
		t.propose(c, t.decided(c))
		t.queue.Expect(s, c, m.shown)
	}
	next := t.agenda.Next()
	t.behind = !next.IsZero() && !next.After(t.wall)
	for _, c := range t.starts.due(m.elapsed) {
		t.told[c.Fence] = true
		t.propose(c, nil)
	}
}

// overdue looks at the runs and workers for which it is time by the clock. All has been heard
// that was told: only here is a run judged by a limit.
func (t *term) overdue(s *state.State, now time.Time) {
	for id, ok := t.runs.Pop(now); ok; id, ok = t.runs.Pop(now) {
		if r := s.Run(id); r != nil && !r.Phase.Final() {
			t.look(s, r, now)
		}
	}
	for w, ok := t.workers.Pop(now); ok; w, ok = t.workers.Pop(now) {
		switch sess := t.sessions[w]; {
		case sess == nil:
			t.propose(state.SetOffline{ID: w}, nil)
		case !sess.synced:
			t.disown(s, sess, unsyncedReason, now)
		default:
			t.send(w, inventoryRequest) // it has rested
		}
	}
}
