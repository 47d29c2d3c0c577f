package plan

import (
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// expectedSerial is where the serial numbers of expected runs begin: all that are there
// go first.
const expectedSerial = 1 << 63

// Expect takes note of the runs that a decision will make, and that may begin by now.
// The next [Queue.Place] gives them to workers as if they were there, after all that
// are: so what is decided and what is assigned are agreed together. Those that it gives
// to nobody are forgotten then, and come back as changes of the state.
//
// Should the decision be refused, so is the assignment, as there is no such run.
func (q *Queue) Expect(s *state.State, d state.Decide, now time.Time) {
	j := s.Job(d.Key)
	if j == nil {
		return
	}
	for i := range d.Decisions {
		b := d.Decisions[i].Run
		if b == nil || b.Phase != state.Pending || b.NotBefore.After(now) {
			continue
		}
		r := &state.Run{
			ID: state.OccurrenceRunID(d.UID, d.Trigger, b.Nominal), Job: d.Key, UID: d.UID, Created: now, Phase: state.Pending,
			Definition: j.Definition, Serial: expectedSerial + uint64(len(q.expected)),
		}
		if s.Run(r.ID) == nil {
			q.expected[r.ID] = r
			q.Add(r)
		}
	}
}

// forgetExpected takes out the expected runs that nobody was given.
func (q *Queue) forgetExpected() {
	for id, r := range q.expected {
		q.Forget(id, r.UID)
	}
	clear(q.expected)
}
