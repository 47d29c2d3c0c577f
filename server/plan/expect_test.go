package plan

import (
	"fmt"
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

// An attempt that ends and the run that takes its slot share an entry. The slot is counted
// once, however often its end is told, and is nobody's if there is no such attempt any more.
func TestEndedSlotIsGivenAtOnce(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	w.worker(q, "a", 1)
	j := w.define(func(d *state.Definition) { d.Triggers, d.Policy.Overlap = nil, state.OverlapAllow })
	first := w.request(q, j.Key, "first")
	w.place(q)
	first = w.Run(first.ID)
	second, third := w.request(q, j.Key, "second"), w.request(q, j.Key, "third")
	ended := Ended(first, first.Live().Fence, state.Attempt{Outcome: state.OutcomeSucceeded}, noon)

	other := ended
	other.Fence++
	q.Expect(w.State, other, noon)
	if cmds := q.Place(w.State, 100); len(cmds) != 0 {
		t.Errorf("%+v, and its only slot is taken", cmds)
	}

	q.Expect(w.State, ended, noon)
	q.Expect(w.State, ended, noon)
	cmds := q.Place(w.State, 100)
	if len(cmds) != 1 || cmds[0].(state.Assign).Run != second.ID {
		t.Fatalf("%+v, want the run that has waited longest, in the one slot", cmds)
	}
	w.index++
	if r := w.Apply(w.index, state.Entry{Now: noon, Commands: cmds}); r[0].Err == nil {
		t.Error("it was assigned, and the one before has not ended")
	}
	w.do(noon, ended, cmds[0])
	q.NoteRun()
	if cmds := q.Place(w.State, 100); len(cmds) != 0 {
		t.Errorf("%+v, and the slot is taken again: that the first has ended was counted twice", cmds)
	}
	if q.wishes.Len() != 1 || w.Run(third.ID).Phase != state.Pending {
		t.Errorf("%d runs wait, want the third", q.wishes.Len())
	}
}

// A run that waits for another one of its job has the slot of that, and not who came later and
// waits for nobody, though that one could have it at once.
func TestEndedSlotIsLeftToItsJob(t *testing.T) {
	for name, waits := range map[string]func(w *world, q *Queue, j *state.Job){
		"in a line": func(w *world, q *Queue, j *state.Job) { w.request(q, j.Key, "second") },
		"held": func(w *world, q *Queue, j *state.Job) {
			w.request(q, j.Key, "second")
			q.SetLive("w-b", true)
			w.place(q)
			q.SetLive("w-b", false)
		},
		"redefined": func(w *world, q *Queue, j *state.Job) {
			d := *j.Definition
			d.Policy.Overlap = state.OverlapQueue
			w.do(noon, state.PutJob{Key: j.Key, Definition: &d, Effective: noon})
			w.request(q, j.Key, "second")
		},
		"expected": func(w *world, q *Queue, j *state.Job) {
			q.Expect(w.State, state.Request{Key: j.Key, UID: j.UID, ID: state.RequestRunID(j.UID, "second"), Birth: state.Birth{Nominal: noon}}, noon)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, q := newWorld(t), NewQueue()
			w.worker(q, "a", 1)
			w.worker(q, "b", 1)
			q.SetLive("w-b", false)
			overlap := state.OverlapQueue
			if name == "redefined" {
				overlap = state.OverlapAllow
			}
			j := w.define(func(d *state.Definition) { d.Triggers, d.Policy.Overlap = nil, overlap })
			other := w.defineAs(state.JobKey{Namespace: "default", Name: "other"}, noon, func(d *state.Definition) {
				d.Triggers, d.Policy.Overlap = nil, state.OverlapAllow
			})
			first := w.request(q, j.Key, "first")
			w.place(q)
			first = w.Run(first.ID)
			waits(w, q, j)
			w.request(q, other.Key, "later")
			q.Expect(w.State, Ended(first, first.Live().Fence, state.Attempt{Outcome: state.OutcomeSucceeded}, noon), noon)
			if cmds := q.Place(w.State, 100); len(cmds) != 0 {
				t.Errorf("%+v, want the slot kept until the end is agreed", cmds)
			}
		})
	}
}

// Where runs of a job are to be spread, one that ends counts no more.
func TestEndedSlotOfSpread(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	w.worker(q, "a", 2)
	w.worker(q, "b", 2)
	j := w.define(func(d *state.Definition) {
		d.Triggers, d.Policy.Overlap, d.Target.Strategy = nil, state.OverlapAllow, state.Spread
	})
	all := []*state.Run{w.request(q, j.Key, "1"), w.request(q, j.Key, "2"), w.request(q, j.Key, "3")}
	if got := w.place(q); got != "a b a" {
		t.Fatalf("placed on %s, and not what is meant here", got)
	}
	w.request(q, j.Key, "4")
	for _, i := range []int{0, 2} {
		r := w.Run(all[i].ID)
		q.Expect(w.State, Ended(r, r.Live().Fence, state.Attempt{Outcome: state.OutcomeSucceeded}, noon), noon)
	}
	if cmds := q.Place(w.State, 100); len(cmds) != 1 || cmds[0].(state.Assign).Worker != "w-a" {
		t.Errorf("%+v, want it on a, which has none any more", cmds)
	}
}

func TestLeastBusy(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapAllow })
	if n := q.LeastBusy(w.State); n != 0 {
		t.Errorf("%d without a worker", n)
	}
	for name, slots := range map[string]int{"a": 7, "b": 3, "idle": 100} {
		w.worker(q, name, slots)
	}
	q.SetLive("w-idle", false)
	for i := range 20 {
		w.request(q, jobKey, fmt.Sprint(i))
	}
	w.place(q)
	q.SetLive("w-idle", true)
	if n := q.LeastBusy(w.State); n != 3 {
		t.Errorf("%d, want those of b: one that has nothing to do does not count", n)
	}
	q.SetLive("w-b", false)
	if n := q.LeastBusy(w.State); n != 7 {
		t.Errorf("%d, want those of a: one that is not connected does not count", n)
	}
	for i := range manyWorkers {
		q.SetLive(state.WorkerID(fmt.Sprint(i)), true)
	}
	if n := q.LeastBusy(w.State); n != 1 {
		t.Errorf("%d with very many workers, want 1", n)
	}
}
