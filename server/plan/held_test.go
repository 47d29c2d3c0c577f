package plan

import (
	"testing"

	"github.com/schedd/schedd/raftstore/state"
)

// queued returns how a job queues its runs for some workers.
func queued(selector string, most int) func(*state.Definition) {
	return func(d *state.Definition) {
		d.Policy.Overlap, d.Policy.MaxConcurrent, d.Target.Selector = state.OverlapQueue, most, selector
	}
}

// A run is held for another of its job that is just coming, and is given away before it,
// since the line that has it is that of an older run. It never comes. The one that waits for
// it goes.
func TestHeldForARunThatNeverCame(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	ssd := w.worker(q, "ssd", 4, "disk", "ssd")
	w.worker(q, "tape", 4, "disk", "tape")
	q.SetLive(ssd, false)
	other := w.defineAs(state.JobKey{Namespace: "default", Name: "other"}, noon, queued("disk=ssd", 1))
	w.define(queued("disk=tape", 1))
	w.request(q, other.Key, "1") // its line is the first
	waits := w.request(q, jobKey, "1")
	w.define(queued("disk=ssd", 1))
	q.SetLive(ssd, true)

	j := w.Job(jobKey)
	q.Expect(w.State, state.Request{Key: jobKey, UID: j.UID, ID: state.RequestRunID(j.UID, "2"), Birth: state.Birth{Nominal: noon}}, noon)
	cmds := q.Place(w.State, 100)
	if len(cmds) != 2 {
		t.Fatalf("given away: %+v, want the other job's run, and the one that is just coming", cmds)
	}
	w.do(noon, cmds[0])
	q.Refused(cmds[1].(state.Assign).Run) // the job was paused, and with that the request refused
	if got := w.place(q); got != "tape" || w.Run(waits.ID).Phase != state.Assigned {
		t.Errorf("the run that waits went to %q, want tape", got)
	}
}

// Another run of the job is to go first, and its worker does not take it. Who waits for it
// and has another worker goes.
func TestHeldForARunThatStays(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	ssd := w.worker(q, "ssd", 4, "disk", "ssd")
	w.worker(q, "tape", 4, "disk", "tape")
	w.define(queued("disk=ssd", 1))
	stays := w.request(q, jobKey, "1")
	w.define(queued("disk=tape", 1))
	w.request(q, jobKey, "2")

	cmds := q.Place(w.State, 100)
	if len(cmds) != 1 || cmds[0].(state.Assign).Run != stays.ID {
		t.Fatalf("given away: %+v, want the older run", cmds)
	}
	w.do(noon, state.DrainWorker{ID: ssd}) // just before
	q.NoteWorker(ssd, w.Worker(ssd))
	q.Refused(stays.ID)
	q.Add(w.Run(stays.ID))
	if got := w.place(q); got != "tape" {
		t.Errorf("the run that has a worker went to %q, want tape", got)
	}
}

// Two runs wait for one of their job to end, and the older one has no worker then, or has to
// wait for more of them to end. The other one goes.
func TestReleasedInVain(t *testing.T) {
	for name, test := range map[string]struct {
		first  func(*state.Definition)
		second func(*state.Definition)
		before int // runs of the job that go first
	}{
		"no worker":       {queued("disk=ssd", 1), queued("disk=tape", 1), 1},
		"a stricter rule": {queued("disk=tape", 1), queued("disk=tape", 2), 2},
	} {
		t.Run(name, func(t *testing.T) {
			w, q := newWorld(t), NewQueue()
			ssd := w.worker(q, "ssd", 4, "disk", "ssd")
			w.worker(q, "tape", 4, "disk", "tape")
			w.define(queued("disk=tape", 2))
			var before []*state.Run
			for i := range test.before {
				before = append(before, w.request(q, jobKey, string(rune('a'+i))))
			}
			w.place(q)
			w.define(test.first)
			w.request(q, jobKey, "1")
			w.define(test.second)
			w.request(q, jobKey, "2")
			if got := w.place(q); got != "" {
				t.Fatalf("placed on %q, want both to be held", got)
			}
			q.SetLive(ssd, false)
			w.finish(before[0])
			q.NoteRun()
			q.Release(before[0].UID, 1)
			if got := w.place(q); got != "tape" {
				t.Errorf("the run that has a worker went to %q, want tape", got)
			}
		})
	}
}
