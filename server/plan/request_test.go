package plan

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/schedd/schedd/raftstore/state"
)

// requests asks for runs by hand, one step for all.
func (w *world) requests(o *Outlook, k state.JobKey, names ...string) (cmds []state.Command, errs []error) {
	for _, name := range names {
		c, _, err := Request(o, Ask{Job: k, Name: name}, noon)
		if errs = append(errs, err); err == nil {
			cmds = append(cmds, c)
		}
	}
	return cmds, errs
}

// By hand, the overlap policy holds as for any other run, and who is refused is told which
// runs are in the way.
func TestRequestBesideAnActiveRun(t *testing.T) {
	w := newWorld(t)
	j := w.define(nil)
	cmds, _ := w.requests(NewOutlook(w.State, DefaultBounds), j.Key, "a")
	r := w.do(noon, cmds...).Run
	_, errs := w.requests(NewOutlook(w.State, DefaultBounds), j.Key, "b")
	if errs[0] == nil || !strings.Contains(errs[0].Error(), r.ID.String()) {
		t.Errorf("%v, want an error that names it", errs[0])
	}
}

// Runs that are asked for in one step are decided one after the other, as if each were
// there when the next is asked for. All are accepted in one entry.
func TestRequestsOfOneStep(t *testing.T) {
	for _, tt := range []struct {
		overlap           state.Overlap
		active, cancelled int
		refused           string
	}{
		{state.OverlapAllow, 4, 0, ""},
		{state.OverlapQueue, 4, 0, ""},
		{state.OverlapReplace, 2, 2, ""},
		{state.OverlapSkip, 2, 0, "2 runs are active, and the job allows 2 at a time"},
	} {
		t.Run(fmt.Sprint(tt.overlap), func(t *testing.T) {
			w := newWorld(t)
			j := w.define(func(d *state.Definition) { d.Triggers, d.Policy.Overlap, d.Policy.MaxConcurrent = nil, tt.overlap, 2 })
			cmds, errs := w.requests(NewOutlook(w.State, DefaultBounds), j.Key, "a", "b", "a", "c", "d")
			w.do(noon, cmds...)
			if n := w.NumActive(j.UID); n != tt.active {
				t.Errorf("%d runs are active, want %d", n, tt.active)
			}
			cancelled := 0
			for r := range w.RunsByBirth() {
				if r.Phase == state.Cancelled {
					cancelled++
				}
			}
			if cancelled != tt.cancelled {
				t.Errorf("%d runs were replaced, want %d", cancelled, tt.cancelled)
			}
			for i, err := range errs {
				var forbidden *OverlapError
				refused := errors.As(err, &forbidden)
				if want := tt.refused != "" && i > 2; refused != want || refused && !strings.Contains(forbidden.Reason, tt.refused) || !refused && err != nil {
					t.Errorf("request %d: %v", i, err)
				}
			}
		})
	}
}

// What comes due and what is asked for goes by the runs that end in the same step.
func TestDecidedBesideWhatEnds(t *testing.T) {
	for _, o := range []state.Overlap{state.OverlapSkip, state.OverlapAllow, state.OverlapQueue, state.OverlapReplace} {
		t.Run(fmt.Sprint(o), func(t *testing.T) {
			w, q := newWorld(t), NewQueue()
			w.worker(q, "a", 9)
			j := w.define(func(d *state.Definition) { d.Policy.Overlap, d.Policy.MaxConcurrent = o, 2 })
			a, _ := agendaOf(w, at("11:59:30"))
			runs := []*state.Run{w.request(q, j.Key, "ends"), w.request(q, j.Key, "waits")}
			w.place(q)
			w.place(q)

			look := NewOutlook(w.State, DefaultBounds)
			var cmds []state.Command
			for i, phase := range []state.Phase{state.Succeeded, state.Pending} {
				r := w.Run(runs[i].ID)
				f := state.Finish{Run: r.ID, Fence: r.Live().Fence, Attempt: state.Attempt{Outcome: state.OutcomeSucceeded}, Phase: phase}
				cmds = append(cmds, f, f) // said twice
				look.Note(f)
				look.Note(f)
			}
			cmds = append(cmds, a.Due(look, noon, 100)...)
			made, errs := w.requests(look, j.Key, "x")
			cmds = append(cmds, made...)
			w.do(noon, cmds...) // nothing is stale
			if err := errs[0]; (err != nil) != (o == state.OverlapSkip) {
				t.Errorf("the request: %v", err)
			}
			var due *state.Run
			for r := range w.RunsByBirth() {
				if r.Trigger == "m" {
					due = r
				}
			}
			if due == nil || due.Phase == state.Skipped {
				t.Errorf("what came due is %+v, want it to have room", due)
			}
			if r := w.Run(runs[1].ID); (r.Phase == state.Cancelled) != (o == state.OverlapReplace) {
				t.Errorf("the run that waits again is %v", r.Phase)
			}
		})
	}
}

// A run by hand repeats another one only of the same job, and is there if it has been.
func TestRequestOfWhatThereIs(t *testing.T) {
	w := newWorld(t)
	j := w.define(func(d *state.Definition) { d.Triggers = nil })
	look := NewOutlook(w.State, DefaultBounds)
	past := &state.Run{ID: state.RequestRunID(j.UID, "past"), Job: j.Key, UID: j.UID, Trigger: "m", Nominal: noon, Phase: state.Failed}

	c, there, err := Request(look, Ask{Job: j.Key, Name: "past", Past: past}, noon)
	if err != nil || there != past {
		t.Errorf("%+v, %v, %v; want the run that has left the state", c, there, err)
	}
	c, there, err = Request(look, Ask{Job: j.Key, UID: j.UID, Name: "again", Origin: past, Past: past}, at("13:00:00"))
	if err != nil || there != nil || c.RetryOf != past.ID || c.Trigger != "m" || !c.Birth.Nominal.Equal(noon) {
		t.Errorf("%+v, %v, %v; want one that repeats it", c, there, err)
	}
	w.do(noon, c)
	if _, there, err = Request(NewOutlook(w.State, DefaultBounds), Ask{Job: j.Key, Name: "again"}, noon); err != nil || there == nil || there.ID != c.ID {
		t.Errorf("%v, %v; want the run that is there", there, err)
	}
	for _, a := range []Ask{{Job: j.Key, UID: j.UID + 1, Origin: past}, {Job: state.JobKey{Name: "none"}}} {
		if _, _, err := Request(look, a, noon); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("%+v: %v", a, err)
		}
	}
}
