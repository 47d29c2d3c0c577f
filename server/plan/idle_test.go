package plan

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/schedd/schedd/raftstore/state"
)

// A step in which nothing has changed, such as one for a ping, looks at no worker. What
// the queue is told of has it look again.
func TestPlaceLooksWhenSomethingChanged(t *testing.T) {
	for name, change := range map[string]func(w *world, q *Queue){
		"a run changed":              func(_ *world, q *Queue) { q.NoteRun() },
		"a worker changed":           func(w *world, q *Queue) { q.NoteWorker("w-a", w.Worker("w-a")) },
		"a worker came":              func(_ *world, q *Queue) { q.SetLive("w-a", true) },
		"a worker came to know more": func(_ *world, q *Queue) { q.SetLeases("w-a", true) },
		"a run came":                 func(w *world, q *Queue) { w.request(q, jobKey, "3") },
	} {
		t.Run(name, func(t *testing.T) {
			w, q := newWorld(t), NewQueue()
			w.worker(q, "a", 1)
			w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapAllow })
			first := w.request(q, jobKey, "1")
			w.request(q, jobKey, "2")
			w.place(q)
			if got := w.place(q); got != "" {
				t.Fatalf("the only slot is in use, and a run went to %q", got)
			}
			w.finish(first)
			if got := w.place(q); got != "" {
				t.Errorf("without being told of anything it looked, and gave a run to %q", got)
			}
			change(w, q)
			if got := w.place(q); got != "a" {
				t.Errorf("the run that waits went to %q, want a", got)
			}
			if got := w.place(q); got != "" {
				t.Errorf("one more went to %q", got)
			}
		})
	}
}

// However much is given at a time, what was left for want of a limit goes the next time.
func TestPlaceGoesOnAfterItsLimit(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	w.worker(q, "a", 10)
	w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapAllow })
	for i := range 7 {
		w.request(q, jobKey, fmt.Sprint(i))
	}
	var given []int
	for range 5 {
		cmds := q.Place(w.State, 3)
		given = append(given, len(cmds))
		if len(cmds) > 0 {
			w.do(noon, cmds...)
		}
	}
	if want := []int{3, 3, 1, 0, 0}; !slices.Equal(given, want) {
		t.Errorf("%v were given, want %v", given, want)
	}
}

// Whatever happens, and in whatever order: once Place gives nothing, there is nothing to
// give. A queue that is made anew of the same state finds nothing either.
func TestNothingPlaceableIsLeftWaiting(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newPlacement(t)
		for range rapid.IntRange(20, 100).Draw(rt, "steps") {
			m.happen(rt)
			limit := rapid.SampledFrom([]int{1, 2, 1000}).Draw(rt, "limit")
			for range rapid.IntRange(0, 2).Draw(rt, "places") {
				m.place(rt, limit, rapid.SliceOfN(rapid.IntRange(0, 3), 0, 2).Draw(rt, "asked for just now"))
			}
			if rapid.Bool().Draw(rt, "until nothing goes") {
				for m.place(rt, limit, nil) {
				}
				if left := m.anew().Place(m.State, 1000); len(left) > 0 {
					rt.Fatalf("nothing goes any more, and yet this could: %+v", left)
				}
			}
		}
	})
}

// placement is a state and a queue that is told of its changes as by a leader.
type placement struct {
	*world
	q       *Queue
	workers []state.WorkerID
	live    map[state.WorkerID]bool
	leases  map[state.WorkerID]bool
	runs    int
}

func newPlacement(t *testing.T) *placement {
	m := &placement{world: newWorld(t), q: NewQueue(), live: map[state.WorkerID]bool{}, leases: map[state.WorkerID]bool{}}
	for i, selector := range []string{"", "", "", "disk=ssd"} {
		m.setJob(i, selector, max(i, 1))
	}
	for i := range 3 {
		m.workers = append(m.workers, state.WorkerID(fmt.Sprint("w-", i)))
		m.putWorker(m.workers[i], 1)
		m.setLive(m.workers[i], true)
	}
	return m
}

func (m *placement) job(i int) state.JobKey {
	return state.JobKey{Namespace: "default", Name: fmt.Sprint("j", i)}
}

// setJob defines a job, or defines it anew: its runs that wait stay as they are.
func (m *placement) setJob(i int, selector string, most int) {
	m.defineAs(m.job(i), noon, func(d *state.Definition) {
		d.Policy.OnLost, d.Policy.Retry.MaxAttempts = state.OnLostRetry, 100
		d.Target.Selector = selector
		switch d.Policy.Overlap, d.Policy.MaxConcurrent = state.OverlapQueue, most; i {
		case 0:
			d.Policy.Overlap = state.OverlapAllow
		case 3:
			killAfter(d)
			d.Policy.Overlap = state.OverlapAllow
		}
	})
}

func (m *placement) putWorker(id state.WorkerID, slots int) {
	m.changeWorker(state.PutWorker{ID: id, Says: state.WorkerInfo{Name: string(id), Slots: slots}})
}

func (m *placement) setLive(id state.WorkerID, live bool) {
	m.live[id] = live
	m.q.SetLive(id, live)
}

func (m *placement) changeWorker(c state.Command) {
	m.do(noon, c)
	for _, w := range m.workers {
		m.q.NoteWorker(w, m.Worker(w))
	}
}

// changeRun does to a run what a command says, and tells the queue, as followRun of the
// leader does.
func (m *placement) changeRun(id state.RunID, c state.Command) {
	m.do(noon, c)
	r := m.Run(id)
	m.q.NoteRun()
	if r.Phase == state.Pending {
		m.q.Add(r)
	}
	if r.Phase.Final() {
		m.q.Forget(r.ID, r.UID)
	}
	if r.Live() == nil && (r.Phase.Final() || len(r.Attempts) > 0) {
		m.q.Release(r.UID, max(1, m.Job(r.Job).Definition.Policy.MaxConcurrent-m.NumLive(r.UID)))
	}
}

// happen has one thing happen.
func (m *placement) happen(rt *rapid.T) {
	worker := rapid.SampledFrom(m.workers).Draw(rt, "worker")
	bit := rapid.Bool().Draw(rt, "bit")
	switch op := rapid.IntRange(0, 12).Draw(rt, "op"); op {
	case 0:
		m.putWorker(worker, rapid.IntRange(1, 3).Draw(rt, "slots"))
	case 1:
		m.setLive(worker, bit)
	case 2:
		m.leases[worker] = bit
		m.q.SetLeases(worker, bit)
	case 3:
		m.changeWorker(state.DrainWorker{ID: worker, Undo: bit})
	case 4:
		m.changeWorker(state.UpdateWorker{ID: worker, SetLabels: map[string]string{"disk": map[bool]string{true: "ssd", false: "tape"}[bit]}})
	case 5, 6, 7, 8:
		m.runs++
		m.request(m.q, m.job(rapid.IntRange(0, 3).Draw(rt, "job")), fmt.Sprint(m.runs))
	case 9:
		m.setJob(rapid.IntRange(0, 3).Draw(rt, "job"), rapid.SampledFrom([]string{"", "disk=ssd", "disk=tape"}).Draw(rt, "selector"), rapid.IntRange(1, 3).Draw(rt, "most"))
	default:
		m.touch(rt, bit)
	}
}

// touch ends a run, or its attempt.
func (m *placement) touch(rt *rapid.T, retry bool) {
	var active []*state.Run
	for r := range m.RunsByBirth() {
		if !r.Phase.Final() {
			active = append(active, r)
		}
	}
	if len(active) == 0 {
		return
	}
	r := rapid.SampledFrom(active).Draw(rt, "run")
	switch {
	case r.Live() == nil:
		m.changeRun(r.ID, state.GiveUp{Run: r.ID, Phase: state.TimedOut})
	case retry:
		m.changeRun(r.ID, Ended(r, r.Live().Fence, state.Attempt{Outcome: state.OutcomeLost}, noon.Add(-time.Hour)))
	default:
		m.changeRun(r.ID, Ended(r, r.Live().Fence, state.Attempt{Outcome: state.OutcomeSucceeded}, noon))
	}
}

// place gives what Place says, and reports whether there was anything. Jobs are asked for
// runs just then. Some of what that decides is refused, and some of what Place says.
func (m *placement) place(rt *rapid.T, limit int, jobs []int) bool {
	var asked []state.Request
	for _, i := range jobs {
		m.runs++
		j := m.Job(m.job(i))
		asked = append(asked, state.Request{Key: j.Key, UID: j.UID, ID: state.RequestRunID(j.UID, fmt.Sprint(m.runs)), Birth: state.Birth{Nominal: noon}})
		m.q.Expect(m.State, asked[len(asked)-1], noon)
	}
	cmds := m.q.Place(m.State, limit)
	var born []state.RunID
	for _, c := range asked {
		if rapid.Bool().Draw(rt, "decided") {
			c.Version, c.Activity = m.Job(c.Key).Version, m.Activity(c.UID) // as one after the other
			born = append(born, m.do(noon, c).Run.ID)
		}
	}
	for _, c := range cmds {
		id := c.(state.Assign).Run
		if m.Run(id) != nil && rapid.IntRange(0, 9).Draw(rt, "refused") > 0 {
			m.changeRun(id, c)
			continue
		}
		m.q.Refused(id)
		if r := m.Run(id); r != nil {
			m.q.Add(r) // it is looked at again
		}
	}
	for _, id := range born {
		if r := m.Run(id); r.Phase == state.Pending {
			m.q.Add(r)
		}
	}
	return len(cmds) > 0
}

// anew returns a queue as a new leader would make it.
func (m *placement) anew() *Queue {
	q := NewQueue()
	for _, w := range m.workers {
		q.NoteWorker(w, m.Worker(w))
		q.SetLive(w, m.live[w])
		q.SetLeases(w, m.leases[w])
	}
	for r := range m.RunsByBirth() {
		if r.Phase == state.Pending {
			q.Add(r)
		}
	}
	return q
}

// All of 10,000 workers are full, and a run waits: what a step costs in which nothing has
// changed, as for a ping, and one in which a run has.
func BenchmarkFull(b *testing.B) {
	const workers = 10_000
	w, q := newWorld(b), NewQueue()
	j := w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapAllow })
	for i := range workers {
		w.worker(q, fmt.Sprint(i), 1)
		r := w.request(q, jobKey, fmt.Sprint(i))
		w.do(noon, state.Assign{Run: r.ID, Attempt: 1, Worker: state.WorkerID(fmt.Sprint("w-", i))})
		q.Forget(r.ID, j.UID)
	}
	w.request(q, jobKey, "waits")
	for name, step := range map[string]func(){"nothing changed": func() {}, "a run changed": q.NoteRun} {
		b.Run(name, func(b *testing.B) {
			q.Place(w.State, 10)
			for b.Loop() {
				step()
				if len(q.Place(w.State, 10)) != 0 {
					b.Fatal("there is room")
				}
			}
		})
	}
}
