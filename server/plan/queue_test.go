package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// worker adds a connected worker.
func (w *world) worker(q *Queue, name string, slots int, kv ...string) state.WorkerID {
	w.t.Helper()
	l := map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		l[kv[i]] = kv[i+1]
	}
	id := state.WorkerID("w-" + name)
	w.do(noon, state.PutWorker{ID: id, Says: state.WorkerInfo{Name: name, Slots: slots, Labels: l}})
	q.NoteWorker(id, w.Worker(id))
	q.SetLive(id, true)
	q.SetLeases(id, true)
	return id
}

// request makes a run by hand and queues it.
func (w *world) request(q *Queue, k state.JobKey, name string) *state.Run {
	w.t.Helper()
	j := w.Job(k)
	r := w.do(noon, state.Request{
		Key: k, UID: j.UID, Version: j.Version, Activity: w.Activity(j.UID), ID: state.RequestRunID(j.UID, name),
		Birth: state.Birth{Nominal: noon},
	}).Run
	q.Add(r)
	return r
}

// place does what Place says, and tells which workers were chosen.
func (w *world) place(q *Queue) string {
	w.t.Helper()
	var names []string
	for _, c := range q.Place(w.State, 1000) {
		r := w.do(noon, c).Run
		names = append(names, r.Live().WorkerName)
	}
	return strings.Join(names, " ")
}

func (w *world) finish(r *state.Run) {
	w.t.Helper()
	r = w.Run(r.ID)
	w.do(noon, Ended(r, r.Live().Fence, state.Attempt{Outcome: state.OutcomeSucceeded}, noon))
}

func TestPlace(t *testing.T) {
	type tt struct {
		name     string
		selector string
		strategy state.Strategy
		want     string // where six runs go
	}
	tests := []tt{
		{"least loaded by share of slots", "", state.LeastLoaded, "a b c b a b"},
		{"in turn", "", state.RoundRobin, "b c b a b a"},
		{"the first one that has room", "", state.PreferFirst, "a a b b b b"},
		{"spread over workers", "", state.Spread, "a b c a b b"},
		{"those that match", "disk=ssd", state.PreferFirst, "b b b b"},
		{"those that don't", "!disk", state.PreferFirst, "a a c"},
		{"nobody", "disk=tape", state.PreferFirst, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, q := newWorld(t), NewQueue()
			w.worker(q, "a", 2)
			w.worker(q, "b", 4, "disk", "ssd")
			w.worker(q, "c", 1)
			w.define(func(d *state.Definition) {
				d.Policy.Overlap = state.OverlapAllow
				d.Target = state.Target{Selector: tt.selector, Strategy: tt.strategy}
			})
			for i := range 6 {
				w.request(q, jobKey, fmt.Sprint(i))
			}
			if got := w.place(q); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// A run waits for a slot, oldest first, and nobody is forgotten.
func TestQueueIsFirstInFirstOut(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	w.worker(q, "a", 1)
	w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapAllow })
	var runs []*state.Run
	for i := range 5 {
		runs = append(runs, w.request(q, jobKey, fmt.Sprint(i)))
	}
	for _, r := range runs {
		if got := w.place(q); got != "a" {
			t.Fatalf("placed on %q, want a", got)
		}
		if w.Run(r.ID).Phase != state.Assigned {
			t.Fatalf("run %v is %v, want assigned before those that came later", r.ID, w.Run(r.ID).Phase)
		}
		w.finish(r)
		q.NoteRun()
	}
}

// Runs that were made together and come due one after the other, each by its jitter, wait
// in the order in which they came due: none waits for those that came later.
func TestQueueGoesByWhenRunsCameDue(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	w.worker(q, "a", 1)
	w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapAllow })
	var runs []*state.Run
	for i, late := range []time.Duration{900, 100, 500, 300} {
		j := w.Job(jobKey)
		runs = append(runs, w.do(noon, state.Request{
			Key: jobKey, UID: j.UID, Version: j.Version, Activity: w.Activity(j.UID), ID: state.RequestRunID(j.UID, fmt.Sprint(i)),
			Birth: state.Birth{Nominal: noon, NotBefore: noon.Add(late * time.Millisecond)},
		}).Run)
	}
	for _, i := range []int{1, 3, 0, 2} {
		q.Add(runs[i])
	}
	for _, i := range []int{1, 3, 2, 0} {
		w.place(q)
		if got := w.Run(runs[i].ID).Phase; got != state.Assigned {
			t.Fatalf("the run that came due after %v is %v, want assigned before those that came later", runs[i].NotBefore.Sub(noon), got)
		}
		w.finish(runs[i])
		q.NoteRun()
	}
}

// A job that runs one at a time holds only its own runs back.
func TestHeldRunsLetOthersPass(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	w.worker(q, "a", 8)
	w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapQueue })
	other := state.JobKey{Namespace: "default", Name: "other"}
	w.defineAs(other, noon, nil)
	first, second := w.request(q, jobKey, "1"), w.request(q, jobKey, "2")
	third := w.request(q, other, "3")

	w.place(q)
	if got := w.phases(first, second, third); got != "assigned pending assigned" {
		t.Fatalf("phases %q", got)
	}
	if got, want := WhyPending(w.State, w.Run(second.ID), noon), "waits for 1 active run of the job to end"; got != want {
		t.Errorf("reason %q, want %q", got, want)
	}
	w.finish(first)
	q.Release(first.UID, 1)
	w.place(q)
	if got := w.phases(second); got != "assigned" {
		t.Errorf("phase %q after the first has ended, want assigned", got)
	}
}

func (w *world) phases(runs ...*state.Run) string {
	var p []string
	for _, r := range runs {
		p = append(p, w.Run(r.ID).Phase.String())
	}
	return strings.Join(p, " ")
}

// A worker that drains, is offline or has no session is given nothing.
func TestWhoIsGivenNothing(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	w.define(nil)
	r := w.request(q, jobKey, "1")
	why := func() string { return WhyPending(w.State, w.Run(r.ID), noon) }

	if got, want := why(), "waits for a worker: none has ever connected"; got != want {
		t.Errorf("reason %q, want %q", got, want)
	}
	a := w.worker(q, "a", 1)
	w.do(noon, state.DrainWorker{ID: a})
	if got := w.place(q); got != "" {
		t.Errorf("a draining worker was given a run")
	}
	if got, want := why(), "waits for a worker: of the workers, 1 are draining and the others are offline"; got != want {
		t.Errorf("reason %q, want %q", got, want)
	}
	w.do(noon, state.DrainWorker{ID: a, Undo: true}, state.SetOffline{ID: a})
	if got := w.place(q); got != "" {
		t.Errorf("an offline worker was given a run")
	}
	w.worker(q, "a", 1)
	q.SetLive(a, false)
	if got := w.place(q); got != "" {
		t.Errorf("a worker without a session was given a run")
	}
	q.SetLive(a, true)
	if got := w.place(q); got != "a" {
		t.Errorf("placed on %q, want a", got)
	}
}

// After a failure another worker is preferred, and the same one is better than
// none.
func TestRetryPrefersAnotherWorker(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	w.worker(q, "a", 4)
	b := w.worker(q, "b", 4)
	w.define(func(d *state.Definition) { d.Policy.Retry.MaxAttempts = 3 })
	r := w.request(q, jobKey, "1")
	fail := func() {
		r = w.Run(r.ID)
		r = w.do(noon, Ended(r, r.Live().Fence, state.Attempt{Outcome: state.OutcomeFailed, ExitCode: 1}, noon)).Run
		q.Add(r)
	}
	got := []string{w.place(q)}
	fail()
	got = append(got, w.place(q))
	fail()
	q.SetLive(b, false)
	q.SetLive("w-a", got[1] == "a")
	q.SetLive(b, got[1] == "b") // only the one it was tried on last is left
	got = append(got, w.place(q))
	if got[0] == got[1] || got[2] != got[1] {
		t.Errorf("went to %v, want another worker, then the only one", got)
	}
}

// Whatever is set, moved and removed: what pops is due, and in order.
func TestTimersPopInOrder(t *testing.T) {
	tm := NewTimers[int]()
	want := map[int]time.Time{}
	x := uint64(1)
	next := func(n int) int { x = x*6364136223846793005 + 1442695040888963407; return int(x>>33) % n }
	for range 20000 {
		k, d := next(200), noon.Add(time.Duration(next(10000))*time.Second)
		switch next(4) {
		case 0:
			tm.Remove(k)
			delete(want, k)
		case 1:
			now := noon.Add(time.Duration(next(10000)) * time.Second)
			if k, ok := tm.Pop(now); ok {
				if want[k].IsZero() || want[k].After(now) {
					t.Fatalf("popped %d, due at %v, at %v", k, want[k], now)
				}
				delete(want, k)
			}
		default:
			tm.Set(k, d)
			want[k] = d
		}
		if tm.Len() != len(want) {
			t.Fatalf("%d timers, want %d", tm.Len(), len(want))
		}
	}
	var popped []time.Time
	for k, ok := tm.Pop(noon.Add(time.Hour * 1e4)); ok; k, ok = tm.Pop(noon.Add(time.Hour * 1e4)) {
		popped = append(popped, want[k])
	}
	if !slices.IsSortedFunc(popped, time.Time.Compare) || len(popped) != len(want) {
		t.Errorf("%d popped, in order %v", len(popped), slices.IsSortedFunc(popped, time.Time.Compare))
	}
}

// A run with limits goes only where they are kept. Which they are counts, and not how
// large; one that is asked for nowhere says so.
func TestLimits(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	a, b := w.worker(q, "a", 9), w.worker(q, "b", 9)
	w.define(func(d *state.Definition) {
		d.Policy.Overlap, d.Target.Strategy = state.OverlapAllow, state.PreferFirst
		d.Task.Limits = state.Limits{Memory: 1 << 30, PIDs: 64}
	})
	r := w.request(q, jobKey, "1")
	why := func() string { return WhyPending(w.State, w.Run(r.ID), noon) }
	for _, s := range []struct {
		by   state.WorkerID
		e    state.Enforcement
		want string
	}{
		{a, state.Enforcement{}, "waits for a worker: none of the workers can keep the job's limits (memory_bytes, pids); what each can, its enforcement tells"},
		{a, state.Enforcement{Memory: state.MeansCgroupV2, PIDs: state.MeansProc, CPU: state.MeansCgroupV2}, "waits for a worker: none of the workers can keep"},
	} {
		w.do(noon, state.SetEnforcement{ID: s.by, Enforcement: s.e})
		q.NoteWorker(s.by, w.Worker(s.by))
		if got := w.place(q); got != "" {
			t.Errorf("placed on %q with %+v", got, s.e)
		}
		if got := why(); !strings.HasPrefix(got, s.want) {
			t.Errorf("reason %q, want %q", got, s.want)
		}
	}
	w.do(noon, state.SetEnforcement{ID: b, Enforcement: state.Enforcement{Memory: state.MeansCgroupV2, PIDs: state.MeansCgroupV2}})
	q.NoteWorker(b, w.Worker(b))
	w.do(noon, state.DrainWorker{ID: b})
	if got, want := why(), "waits for a worker: of the workers that can keep the job's limits, 1 are draining and the others are offline"; got != want {
		t.Errorf("reason %q, want %q", got, want)
	}
	w.do(noon, state.DrainWorker{ID: b, Undo: true})
	if got := w.place(q); got != "b" {
		t.Errorf("placed on %q, want b", got)
	}

	// One without limits goes to the first.
	w.define(func(d *state.Definition) {
		d.Policy.Overlap, d.Target.Strategy = state.OverlapAllow, state.PreferFirst
	})
	w.request(q, jobKey, "2")
	if got := w.place(q); got != "a" {
		t.Errorf("without limits placed on %q, want a", got)
	}
}

// A run that failed goes to another worker than the one on which it did, also when others
// refuse it in between; and not to the one that refused it last. If no other is there, it goes
// to one that refused, and else to where it failed.
func TestAnotherWorker(t *testing.T) {
	const failed, refused, notStarted = state.OutcomeFailed, state.OutcomeRefused, state.OutcomeNotStarted
	type tried struct {
		on string
		as state.Outcome
	}
	for _, test := range []struct {
		name    string
		workers string // in the order of preference
		tried   []tried
		want    string
	}{
		{"failed", "a b c", []tried{{"a", failed}}, "b"},
		{"failed, then refused", "a b c", []tried{{"a", failed}, {"b", refused}}, "c"},
		{"failed, then refused twice", "a b c", []tried{{"a", failed}, {"b", refused}, {"c", refused}}, "b"},
		{"failed, then not started", "a b c", []tried{{"a", failed}, {"b", notStarted}}, "c"},
		{"failed twice", "a b c", []tried{{"a", failed}, {"b", failed}}, "a"},
		{"refused", "a b c", []tried{{"a", refused}}, "b"},
		{"failed, and the other refused", "a b", []tried{{"a", failed}, {"b", refused}}, "a"},
		{"failed, and no other is there", "a", []tried{{"a", failed}}, "a"},
		{"refused by the only other one", "b", []tried{{"a", failed}, {"b", refused}}, "b"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, q := newWorld(t), NewQueue()
			w.define(func(d *state.Definition) {
				d.Policy.Retry.MaxAttempts, d.Target.Strategy = 9, state.PreferFirst
			})
			r := w.request(q, jobKey, "1")
			q.Forget(r.ID, r.UID)
			for _, name := range []string{"a", "b", "c"} {
				w.worker(q, name, 1)
			}
			for i, x := range test.tried {
				w.do(noon, state.Assign{Run: r.ID, Attempt: i + 1, Worker: state.WorkerID("w-" + x.on)})
				r := w.Run(r.ID)
				w.do(noon, Ended(r, r.Live().Fence, state.Attempt{Outcome: x.as}, noon))
			}
			for _, name := range []string{"a", "b", "c"} {
				q.SetLive(state.WorkerID("w-"+name), strings.Contains(test.workers, name))
			}
			q.Add(w.Run(r.ID))
			if got := w.place(q); got != test.want {
				t.Errorf("placed on %q, want %q", got, test.want)
			}
		})
	}
}
