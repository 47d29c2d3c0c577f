package plan

import (
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// expectedSerial is where the serial numbers of expected runs begin: all that are there
// go first.
const expectedSerial = 1 << 63

// Expect takes note of the runs that a command will make, a decision or a request, and
// that may begin by now, and of the slot that one frees which ends an attempt. The next
// [Queue.Place] goes by that as if it had happened, and gives such runs to workers after all
// that are there: so what is decided, what has ended and what is assigned are agreed together.
// Runs that it gives to nobody are forgotten then, and come back as changes of the state.
//
// Should the command be refused, so is the assignment, as there is no such run, or no such slot.
//
// A slot is not given away before its time if another run of the job waits for that end: that
// one may go only when it is agreed, and somebody who came later would have the slot by then.
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
	case state.Finish:
		if r := s.Run(c.Run); r != nil && r.Live() != nil && r.Live().Fence == c.Fence {
			q.ending[c.Fence], q.changed = r, true
		}
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

// leave takes off the load of workers what is ending there, but for runs that another one of
// their job may wait for.
func (p *placing) leave() {
	if len(p.q.ending) == 0 {
		return
	}
	expected := map[uint64]bool{} // by job uid
	for _, r := range p.q.expected {
		expected[r.UID] = true
	}
	for _, r := range p.q.ending {
		waitedFor := expected[r.UID] || p.s.NumActive(r.UID) > p.s.NumLive(r.UID)
		if !waitedFor || !p.mayHold(r) {
			p.load[r.Live().Worker]--
		}
	}
}

// mayHold reports whether runs of a run's job may have to wait for it, by how the job is
// defined now, and was when those were made.
func (p *placing) mayHold(r *state.Run) bool {
	j := p.s.Job(r.Job)
	return r.Definition.Policy.Overlap != state.OverlapAllow || len(p.q.held[r.UID]) > 0 ||
		j != nil && j.UID == r.UID && j.Definition.Policy.Overlap != state.OverlapAllow
}

// forgetExpected takes out the expected runs that nobody was given, and the slots that are
// free by now.
func (q *Queue) forgetExpected() {
	clear(q.ending)
	for id, r := range q.expected {
		q.Forget(id, r.UID)
	}
	if len(q.expected) > many {
		q.expected = map[state.RunID]*state.Run{}
	}
	clear(q.expected)
}
