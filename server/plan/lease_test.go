package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

func killAfter(d *state.Definition) {
	d.Policy.KillAfter, d.Policy.LostAfter = 2*time.Minute, 3*time.Minute
}

// There is room for the grace, for two clocks that disagree, and for a moment. The worker
// counts kill_after and kill_grace by one clock, which may be slow for all of both.
func TestLeastLostAfter(t *testing.T) {
	for _, tt := range []struct{ after, grace, want time.Duration }{
		{2 * time.Minute, 0, 137 * time.Second},
		{2 * time.Minute, 10 * time.Second, 148 * time.Second},
		{30 * time.Second, time.Hour, 3998 * time.Second},
	} {
		got := LeastLostAfter(tt.after, tt.grace)
		if got != tt.want {
			t.Errorf("kill_after %v, kill_grace %v: %v, want %v", tt.after, tt.grace, got, tt.want)
		}
		const slow = 1 - 0.083 // as chrony may make a clock
		if killed := time.Duration(float64(tt.after+tt.grace) / slow); got < killed+leaseSlack {
			t.Errorf("kill_after %v, kill_grace %v: %v, and SIGKILL is sent after %v", tt.after, tt.grace, got, killed)
		}
	}
}

// A worker is given leases of what it asks for, if it is its own, needs one, and is not
// what it has said it does not have.
func TestLeases(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	w.worker(q, "a", 4)
	w.define(func(d *state.Definition) {
		killAfter(d)
		d.Policy.Overlap, d.Policy.MaxConcurrent = state.OverlapAllow, 10
	})
	mine := w.request(q, jobKey, "1")
	given := w.request(q, jobKey, "2")
	w.place(q)
	q.SetLive("w-a", false)
	w.worker(q, "b", 4)
	other := w.request(q, jobKey, "3")
	w.place(q)
	q.SetLive("w-b", false)
	w.worker(q, "c", 4)
	w.define(func(d *state.Definition) { d.Policy.Overlap, d.Policy.MaxConcurrent = state.OverlapAllow, 10 })
	needsNone := w.request(q, jobKey, "4")
	w.place(q)
	fence := func(r *state.Run) uint64 { return w.Run(r.ID).Live().Fence }
	all := []uint64{fence(mine), fence(given), fence(other), fence(needsNone), 999}
	has := func(a *state.Attempt) bool { return a.Fence != fence(given) }
	for worker, want := range map[state.WorkerID][]uint64{"w-a": {fence(mine)}, "w-b": {fence(other)}, "w-c": nil, "nobody": nil} {
		if got := Leases(w.State, worker, all, has); !slices.Equal(got, want) {
			t.Errorf("%s is given %v, want %v", worker, got, want)
		}
	}
	if got := Leases(w.State, "w-a", []uint64{fence(given)}, func(*state.Attempt) bool { return true }); !slices.Equal(got, []uint64{fence(given)}) {
		t.Errorf("given %v", got)
	}
	w.do(noon, Ended(w.Run(mine.ID), fence(mine), state.Attempt{Outcome: state.OutcomeLost}, noon))
	if got := Leases(w.State, "w-a", all, has); got != nil {
		t.Errorf("of what was given up it is given %v", got)
	}
}

// Who can't keep leases is given no run that needs them, and others wait behind none of
// those.
func TestPlacementOfLeases(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	q.SetLeases(w.worker(q, "old", 4), false)
	w.define(killAfter)
	r := w.request(q, jobKey, "1")
	w.place(q)
	if r := w.Run(r.ID); r.Phase != state.Pending || !strings.Contains(WhyPending(w.State, r, noon), "a version that knows kill_after") {
		t.Errorf("%v, because it %s", r.Phase, WhyPending(w.State, r, noon))
	}
	plain := state.JobKey{Namespace: "default", Name: "plain"}
	w.defineAs(plain, at("11:59:00"), nil)
	p := w.request(q, plain, "1")
	w.place(q)
	if p := w.Run(p.ID); p.Phase != state.Assigned {
		t.Errorf("what needs no lease is %v", p.Phase)
	}
	w.worker(q, "new", 4)
	w.place(q)
	if r := w.Run(r.ID); r.Phase != state.Assigned || r.Live().WorkerName != "new" {
		t.Errorf("with a worker that can it is %v", r.Phase)
	}
	if q.wishes.Len() != 0 || len(q.lines) != 0 {
		t.Errorf("left in line: %v", q.wishes.all)
	}
}

// What a worker says it does not have is lost at once, unless it had a lease: then only
// when that is over, wherever it is.
func TestCheckAbsent(t *testing.T) {
	for _, tt := range []struct {
		name   string
		edit   func(*state.Definition)
		absent time.Duration
		want   string
		next   time.Duration
	}{
		{"no lease", nil, 0, "lost", 0},
		{"a lease", killAfter, 0, "", 3 * time.Minute},
		{"a lease that is nearly over", killAfter, 3*time.Minute - 1, "", 1},
		{"a lease that is over", killAfter, 3 * time.Minute, "lost", 0},
	} {
		_, _, r := running(t, tt.edit)
		now := noon.Add(time.Hour)
		l := Check(r, time.Time{}, now.Add(-tt.absent), now)
		var next time.Duration
		if !l.Next.IsZero() {
			next = l.Next.Sub(now)
		}
		if got := words(l); got != tt.want || next != tt.next {
			t.Errorf("%s: %q and a look after %v, want %q and %v", tt.name, got, next, tt.want, tt.next)
		}
	}
}

// An attempt whose lease expired is one that was lost: on_lost says what comes of it.
func TestLeaseExpired(t *testing.T) {
	for _, tt := range []struct {
		onLost state.OnLost
		cancel bool
		want   state.Phase
	}{
		{state.OnLostFail, false, state.Lost},
		{state.OnLostRetry, false, state.Pending},
		{state.OnLostWait, false, state.Lost},
		{state.OnLostRetry, true, state.Cancelled},
	} {
		w, _, r := running(t, func(d *state.Definition) { killAfter(d); d.Policy.OnLost = tt.onLost; d.Policy.Retry.MaxAttempts = 5 })
		if tt.cancel {
			r = w.do(noon, state.Cancel{Run: r.ID, Note: "because"}).Run
		}
		r = w.do(noon, Ended(r, r.Live().Fence, state.Attempt{Outcome: state.OutcomeLeaseExpired, Reason: "no lease for 2m0s"}, noon)).Run
		if r.Phase != tt.want || !strings.Contains(r.Reason, "no lease for 2m0s") {
			t.Errorf("on_lost %v, cancelled: %v: %v because %q, want %v", tt.onLost, tt.cancel, r.Phase, r.Reason, tt.want)
		}
		if a := r.Attempts[0]; a.Outcome != state.OutcomeLeaseExpired {
			t.Errorf("the attempt is %v", a.Outcome)
		}
	}
}

// Nobody says that a process may still run that had to have ended.
func TestReasonOfALostLease(t *testing.T) {
	_, _, r := running(t, killAfter)
	f, ok := Check(r, noon, time.Time{}, noon.Add(3*time.Minute)).Command.(state.Finish)
	if !ok || f.Phase != state.Lost || !strings.Contains(f.Reason, "had to have ended the process, without a lease for 2m0s (kill_after)") {
		t.Errorf("%+v", f)
	}
}

// What it costs the leader to answer the pings of 10,000 workers, each of which asks for
// leases of ten attempts. The baseline finds the runs of each worker, and no more.
func BenchmarkLeases(b *testing.B) {
	const workers, each = 10_000, 10
	w := newWorld(b)
	j := w.define(func(d *state.Definition) {
		killAfter(d)
		d.Policy.Overlap, d.Policy.MaxConcurrent = state.OverlapAllow, 1000
	})
	asks := make([][]uint64, workers)
	id := func(i int) state.WorkerID { return state.WorkerID(fmt.Sprint("w-", i)) }
	for i := range workers {
		w.do(noon, state.PutWorker{ID: id(i), Says: state.WorkerInfo{Name: "w", Slots: each}})
		for k := range each {
			r := w.do(noon, state.Request{
				Key: jobKey, UID: j.UID, Version: j.Version, Activity: w.Activity(j.UID), ID: state.RequestRunID(j.UID, fmt.Sprint(i, "-", k)),
				Birth: state.Birth{Nominal: noon},
			}).Run
			r = w.do(noon, state.Assign{Run: r.ID, Attempt: 1, Worker: id(i)}).Run
			asks[i] = append(asks[i], r.Live().Fence)
		}
	}
	has := func(*state.Attempt) bool { return true }
	for name, answer := range map[string]func(i int) int{
		"baseline": func(i int) int { return len(w.RunsOn(id(i))) },
		"leases":   func(i int) int { return len(Leases(w.State, id(i), asks[i], has)) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				for i := range workers {
					if answer(i) != each {
						b.Fatal("not all of them")
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/workers, "ns/ping")
		})
	}
}
