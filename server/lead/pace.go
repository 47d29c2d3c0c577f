package lead

import (
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// company is for how long after an entry what nobody waits for waits for company: what
// workers report, and what comes due. An entry is synced to disk however little it has, and
// a few milliseconds after the one before there is soon more. After a pause nothing waits,
// nor does what somebody asks for, which takes along what has gathered; nor while runs wait
// for a slot, which what a worker reports may make free.
//
// What was agreed is sent to the workers at once in any case.
const company = 5 * time.Millisecond

// pace is when the leader writes entries.
type pace struct {
	proposed time.Time // the last one
	open     bool      // the present step takes what may wait
}

// patience is how long what may wait has to wait at now.
func (t *term) patience(now time.Time) time.Duration {
	if t.queue.Waiting() {
		return 0
	}
	return max(0, t.proposed.Add(company).Sub(now))
}

// opens is when what may wait from an instant on is taken; zero for zero.
func (t *term) opens(at time.Time) time.Time {
	if first := t.proposed.Add(company); !at.IsZero() && at.Before(first) && !t.queue.Waiting() {
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
	for _, c := range t.starts.due(m.elapsed) {
		t.told[c.Fence] = true
		t.propose(c, nil)
	}
}
