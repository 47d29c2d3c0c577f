package plan

import (
	"fmt"
	"testing"

	"github.com/schedd/schedd/raftstore/state"
)

// Who comes into question is not sorted out anew for workers that go offline and come
// back, and is for all that wishes go by.
func TestChoicesOutliveAbsence(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(id state.WorkerID) state.Command
		stays  bool
	}{
		{"offline", func(id state.WorkerID) state.Command { return state.SetOffline{ID: id} }, true},
		{"draining", func(id state.WorkerID) state.Command { return state.DrainWorker{ID: id} }, true},
		{"another version", func(id state.WorkerID) state.Command {
			return state.PutWorker{ID: id, Says: state.WorkerInfo{Name: "b", Slots: 4, Version: "2"}}
		}, true},
		{"another name", func(id state.WorkerID) state.Command {
			return state.PutWorker{ID: id, Says: state.WorkerInfo{Name: "z", Slots: 4}}
		}, false},
		{"labels of its own", func(id state.WorkerID) state.Command {
			return state.PutWorker{ID: id, Says: state.WorkerInfo{Name: "b", Slots: 4, Labels: map[string]string{"disk": "ssd"}}}
		}, false},
		{"labels of an operator", func(id state.WorkerID) state.Command {
			return state.UpdateWorker{ID: id, SetLabels: map[string]string{"disk": "ssd"}}
		}, false},
		{"enforcement", func(id state.WorkerID) state.Command {
			return state.SetEnforcement{ID: id, Enforcement: state.Enforcement{Memory: state.MeansProc}}
		}, false},
		{"removed", func(id state.WorkerID) state.Command { return state.RemoveWorker{ID: id} }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, q := newWorld(t), NewQueue()
			w.worker(q, "a", 4)
			b := w.worker(q, "b", 4)
			w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapAllow })
			w.request(q, jobKey, "1")
			w.place(q)
			for range 2 {
				w.do(noon, test.change(b))
				q.NoteWorker(b, w.Worker(b))
				if stays := len(q.choices) == 1; stays != test.stays {
					t.Fatalf("there are %d choices left", len(q.choices))
				}
				if w.Worker(b) == nil {
					return
				}
				w.request(q, jobKey, "2")
				w.place(q)
				test.stays = true // what is done again changes nothing
			}
		})
	}
}

// A worker is removed and is back as it was, and the queue is told only of how it is then. Who
// was chosen from in between does not count.
func TestChoiceAmidARemoval(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	w.worker(q, "a", 1)
	b := w.worker(q, "b", 1)
	w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapAllow })
	w.do(noon, state.RemoveWorker{ID: b})
	w.request(q, jobKey, "1")
	if got := w.place(q); got != "a" {
		t.Fatalf("placed on %q, want a, which is alone", got)
	}
	w.do(noon, state.PutWorker{ID: b, Says: state.WorkerInfo{Name: "b", Slots: 1, Labels: map[string]string{}}})
	q.NoteWorker(b, w.Worker(b))
	w.request(q, jobKey, "2")
	if got := w.place(q); got != "b" {
		t.Errorf("placed on %q, want b, which is back", got)
	}
}

// What it costs to give a run to one of 10,000 workers while others go offline.
func BenchmarkPlaceAmongMany(b *testing.B) {
	const workers = 10_000
	w, q := newWorld(b), NewQueue()
	w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapAllow })
	for i := range workers {
		w.worker(q, fmt.Sprint(i), 1_000_000)
	}
	n := 0
	for b.Loop() {
		n++
		away := state.WorkerID(fmt.Sprint("w-", n%workers))
		w.do(noon, state.SetOffline{ID: away})
		q.NoteWorker(away, w.Worker(away))
		w.request(q, jobKey, fmt.Sprint(n))
		if len(q.Place(w.State, 10)) == 0 {
			b.Fatal("no run was given to anybody")
		}
	}
}
