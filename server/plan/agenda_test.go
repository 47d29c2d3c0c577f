package plan

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/schedd/schedd/raftstore/state"
)

// Each look costs by what is due, and what is due is found, however the jobs
// change in between: after each step all that came due is decided.
func TestAgendaMissesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		now := at("11:59:00")
		a := NewAgenda()
		key := func() state.JobKey {
			return state.JobKey{Namespace: "default", Name: fmt.Sprint("j", rapid.IntRange(0, 4).Draw(rt, "job"))}
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 200).Draw(rt, "dt")) * time.Second)
			k := key()
			change(rt, w, k, now)
			a.Note(w.State, k, now)
			for cmds := a.Due(NewOutlook(w.State, DefaultBounds), now, 100); len(cmds) > 0; cmds = a.Due(NewOutlook(w.State, DefaultBounds), now, 100) {
				w.do(now, cmds...)
				for _, c := range w.TakeChanges() {
					if c.Job != (state.JobKey{}) {
						a.Note(w.State, c.Job, now)
					}
				}
			}
			if n := a.Next(); !n.IsZero() && !n.After(now) {
				rt.Fatalf("at %v the next look is at %v", now, n)
			}
			for j := range w.Jobs() {
				if j.Pause != nil {
					continue // looked at once an hour
				}
				for i := range j.Definition.Triggers {
					tr := w.Track(j.UID, j.Definition.Triggers[i].ID)
					if late := walk(compiled(j, tr.Trigger), tr.DecidedUntil, now); late.count > 0 {
						rt.Fatalf("at %v job %v has %d undecided occurrences from %v on", now, j.Key, late.count, late.first)
					}
				}
			}
		}
	})
}

// change defines, pauses, resumes or deletes a job, as a user would.
func change(rt *rapid.T, w *world, k state.JobKey, now time.Time) {
	settle, err := Settle(w.State, k, DefaultBounds, now)
	if err != nil {
		settle = nil
	}
	there := w.Job(k) != nil
	switch op := rapid.IntRange(0, 5).Draw(rt, "op"); {
	case op <= 2:
		d := &state.Definition{
			Triggers: []*state.Trigger{{ID: "m", Every: &state.Every{Interval: time.Duration(rapid.IntRange(1, 300).Draw(rt, "every")) * time.Second}}},
			Policy:   &state.Policy{MaxConcurrent: 1, CatchUpWindow: time.Hour, Overlap: state.Overlap(rapid.IntRange(0, 3).Draw(rt, "overlap"))},
		}
		d.Triggers[0].Disabled = rapid.Bool().Draw(rt, "disabled")
		w.do(now, append(settle, state.PutJob{Key: k, Definition: d, Effective: now})...)
	case op == 3 && there:
		p := state.PauseJob{Key: k, Effective: now}
		if rapid.Bool().Draw(rt, "until") {
			p.Until = now.Add(time.Duration(rapid.IntRange(1, 500).Draw(rt, "pause")) * time.Second)
		}
		w.do(now, append(settle, p)...)
	case op == 4 && there:
		w.do(now, append(settle, state.ResumeJob{Key: k, Effective: now})...)
	case op == 5 && there:
		w.do(now, append(settle, state.DeleteJob{Key: k, Effective: now})...)
	}
}

// What a trigger was compiled to is kept while it will be due soon, and not when it is over.
func TestScheduleThatIsOverIsNotKept(t *testing.T) {
	w := newWorld(t)
	end := func(clock string) func(*state.Definition) {
		return func(d *state.Definition) { d.Triggers[0].End = at(clock) }
	}
	w.define(end("12:01:30"))
	a, _ := agendaOf(w, at("11:59:30"))
	for _, clock := range []string{"12:00:00", "12:01:00"} {
		if a.jobs[jobKey].c == nil {
			t.Errorf("before %s the schedule is not kept, and has to be computed anew", clock)
		}
		w.do(at(clock), a.Due(NewOutlook(w.State, DefaultBounds), at(clock), 100)...)
		w.end(at(clock))
	}
	if al := a.jobs[jobKey]; al.c != nil || !a.Next().IsZero() {
		t.Errorf("there is nothing to come any more, and the schedule %+v is kept; the next look is at %v", al.c, a.Next())
	}
	w.verify()
	// It may still be given more time.
	w.settle(at("12:01:40"))
	w.defineAs(jobKey, at("12:01:40"), end("12:05:00"))
	a.Note(w.State, jobKey, at("12:01:40"))
	if got := a.Next(); !got.Equal(at("12:02:00")) {
		t.Errorf("with another end the next look is at %v, want 12:02", got)
	}
}

// A job that can't be scheduled any more is quarantined, and comes back when it
// can.
func TestQuarantine(t *testing.T) {
	w := newWorld(t)
	j := w.define(func(d *state.Definition) {
		d.Triggers[0] = &state.Trigger{ID: "m", Cron: &state.Cron{Expression: "0 0 * * *", TimeZone: "Atlantis/Capital"}}
	})
	a := NewAgenda()
	cmds := a.Note(w.State, j.Key, noon)
	if len(cmds) != 1 {
		t.Fatalf("%d commands, want one that quarantines", len(cmds))
	}
	w.do(noon, cmds...)
	if got := w.Job(j.Key).Quarantine; got == "" {
		t.Error("not quarantined")
	}
	if cmds := a.Note(w.State, j.Key, noon); len(cmds) != 0 || !a.Next().IsZero() {
		t.Errorf("then %d commands and a look at %v, want none", len(cmds), a.Next())
	}
	now := noon.Add(time.Minute)
	settle, _ := Settle(w.State, j.Key, DefaultBounds, now)
	w.do(now, append(settle, state.PutJob{Key: j.Key, Definition: &state.Definition{
		Policy:   &state.Policy{},
		Triggers: []*state.Trigger{{ID: "m", Every: &state.Every{Interval: time.Minute}}},
	}, Effective: now})...)
	a.Note(w.State, j.Key, now)
	if w.Job(j.Key).Quarantine != "" || !a.Next().Equal(noon.Add(2*time.Minute)) {
		t.Errorf("quarantine %q, next look %v", w.Job(j.Key).Quarantine, a.Next())
	}
}

// The cost of one fire, decided and applied, must not grow with the jobs that
// are not due.
func BenchmarkAgendaFire(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newWorld(b)
			now := noon
			for i := range n { // all due within the same hour, one after the other
				k := state.JobKey{Namespace: "default", Name: fmt.Sprint("j", i)}
				w.defineAs(k, now, func(d *state.Definition) {
					d.Policy.Overlap = state.OverlapAllow
					d.Triggers[0].Every = &state.Every{Interval: time.Duration(n) * time.Second, Phase: time.Duration(i) * time.Second}
				})
			}
			a := NewAgenda()
			for j := range w.Jobs() {
				a.Note(w.State, j.Key, now)
			}
			b.ResetTimer()
			for range b.N {
				now = now.Add(time.Second)
				w.do(now, a.Due(NewOutlook(w.State, DefaultBounds), now, 100)...)
				w.TakeChanges()
			}
		})
	}
}

// After an outage in which many jobs missed much, one look walks through no more of it than
// it may and what one more trigger missed; the next ones go on, until all is decided.
func TestOneLookAfterALongOutageIsBounded(t *testing.T) {
	w := newWorld(t)
	const jobs, missed, limit = 20, 3600, 100
	for i := range jobs {
		w.defineAs(state.JobKey{Namespace: "default", Name: fmt.Sprint("j", i)}, noon, func(d *state.Definition) { d.Triggers[0].Every.Interval = time.Second })
	}
	a, _ := agendaOf(w, noon)
	now := noon.Add(missed * time.Second)
	looks, all := 0, 0
	for cmds := a.Due(NewOutlook(w.State, DefaultBounds), now, limit); len(cmds) > 0; cmds = a.Due(NewOutlook(w.State, DefaultBounds), now, limit) {
		n := occurrences(cmds...)
		if n >= maxWalked+missed {
			t.Errorf("one look decides %d occurrences, and may decide %d and those of a trigger more", n, maxWalked)
		}
		looks, all = looks+1, all+n
		w.do(now, cmds...)
	}
	if want := jobs * missed; all != want || looks != jobs/5 {
		t.Errorf("%d occurrences are decided in %d looks, want %d in %d", all, looks, want, jobs/5)
	}
}
