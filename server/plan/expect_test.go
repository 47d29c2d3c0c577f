package plan

import (
	"testing"

	"github.com/schedd/schedd/raftstore/state"
)

// expecting plans a tick as the leader does: what is due, and who gets it.
func (w *world) expecting(a *Agenda, q *Queue, clock string) (cmds []state.Command) {
	cmds = a.Due(NewOutlook(w.State, DefaultBounds), at(clock), 100)
	for _, c := range cmds {
		q.Expect(w.State, c, at(clock))
	}
	return append(cmds, q.Place(w.State, 100)...)
}

// What comes due is decided and assigned in one entry.
func TestDueIsAssignedAtOnce(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	worker := w.worker(q, "a", 4)
	j := w.define(nil)
	a, _ := agendaOf(w, at("11:59:30"))

	cmds := w.expecting(a, q, "12:00:00")
	if len(cmds) != 2 {
		t.Fatalf("%d commands, want a decision and an assignment: %+v", len(cmds), cmds)
	}
	w.do(at("12:00:00"), cmds...)
	runs := w.ActiveRuns(j.UID)
	if len(runs) != 1 || runs[0].Phase != state.Assigned || runs[0].Live().Worker != worker {
		t.Fatalf("runs %+v, want one on its worker", runs)
	}
	if q.wishes.Len() != 0 || len(q.lines) != 0 {
		t.Errorf("the queue still has %v", q.wishes.all)
	}
}

// A decision that is refused takes its assignment with it.
func TestRefusedDecideAssignsNothing(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	w.worker(q, "a", 4)
	j := w.define(nil)
	a, _ := agendaOf(w, at("11:59:30"))
	cmds := w.expecting(a, q, "12:00:00")

	w.settle(at("12:00:00")) // somebody else was faster
	w.end(at("12:00:00"))
	w.index++
	for i, r := range w.Apply(w.index, state.Entry{Now: at("12:00:00"), Commands: cmds}) {
		if r.Err == nil {
			t.Errorf("%T was not refused", cmds[i])
		}
	}
	if n := w.NumActive(j.UID); n != 0 {
		t.Errorf("%d runs are active, want none", n)
	}
}

// Those that wait go before those that are just coming, which are not remembered when
// there is no room: they come as changes of the state.
func TestExpectedGoLast(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	w.worker(q, "a", 1)
	old := w.defineAs(state.JobKey{Namespace: "default", Name: "old"}, at("11:59:00"), func(d *state.Definition) { d.Triggers = nil })
	w.define(nil)
	a, _ := agendaOf(w, at("11:59:30"))
	waits := w.request(q, old.Key, "by-hand")

	cmds := w.expecting(a, q, "12:00:00")
	if len(cmds) != 2 || cmds[1].(state.Assign).Run != waits.ID {
		t.Fatalf("%+v, want a decision, and the run that waits assigned", cmds)
	}
	if q.wishes.Len() != 0 {
		t.Errorf("the queue still has %v", q.wishes.all)
	}
	w.do(at("12:00:00"), cmds...)
	q.Add(w.ActiveRuns(w.Job(jobKey).UID)[0])
	w.finish(waits)
	q.NoteRun()
	if got := w.place(q); got != "a" {
		t.Errorf("placed on %q, want a", got)
	}
}

// The overlap policy holds for runs that are expected, too.
func TestExpectedWaitForTheirJob(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	w.worker(q, "a", 4)
	j := w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapQueue })
	a, _ := agendaOf(w, at("11:59:30"))
	w.do(at("12:00:00"), w.expecting(a, q, "12:00:00")...)

	cmds := w.expecting(a, q, "12:01:00")
	if len(cmds) != 1 {
		t.Fatalf("%+v, want a decision alone: the run before is active", cmds)
	}
	w.do(at("12:01:00"), cmds...)
	if n := w.NumLive(j.UID); n != 1 {
		t.Errorf("%d runs are on a worker, want 1", n)
	}
}
