package plan

import (
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// expectedSerial is where the serial numbers of expected runs begin: all that are there
// go first.
const expectedSerial = 1 << 63

// Expect takes note of the runs that a command will make, a decision or a request, and
// that may begin by now. The next [Queue.Place] gives them to workers as if they were
// there, after all that are: so what is decided and what is assigned are agreed together.
// Those that it gives to nobody are forgotten then, and come back as changes of the state.
//
// Should the command be refused, so is the assignment, as there is no such run.
func (q *Queue) Expect(s *state.State, c state.Command, now time.Time) {
	switch c := c.(type) {
	case state.Decide:
		for i := range c.Decisions {
			if b := c.Decisions[i].Run; b != nil {
				q.expect(s, c.Key, state.OccurrenceRunID(c.UID, c.Trigger, b.Nominal), b, now)
			}
		}
	case state.Request:
		q.expect(s, c.Key, c.ID, &c.Birth, now)
	}
}

func (q *Queue) expect(s *state.State, k state.JobKey, id state.RunID, b *state.Birth, now time.Time) {
	j := s.Job(k)
	if j == nil || b.Phase != state.Pending || b.NotBefore.After(now) || s.Run(id) != nil || q.expected[id] != nil {
		return
	}
	r := &state.Run{
		ID: id, Job: k, UID: j.UID, Created: now, Phase: state.Pending,
		Definition: j.Definition, Serial: expectedSerial + uint64(len(q.expected)),
	}
	q.expected[r.ID] = r
	q.Add(r)
}

// forgetExpected takes out the expected runs that nobody was given.
func (q *Queue) forgetExpected() {
	for id, r := range q.expected {
		q.Forget(id, r.UID)
	}
	if len(q.expected) > many {
		q.expected = map[state.RunID]*state.Run{}
	}
	clear(q.expected)
}
