package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// agendaOf returns an agenda with all jobs on it, and the commands that
// quarantine some.
func agendaOf(w *world, now time.Time) (*Agenda, []state.Command) {
	a := NewAgenda()
	var cmds []state.Command
	for j := range w.Jobs() {
		cmds = append(cmds, a.Note(w.State, j.Key, now)...)
	}
	return a, cmds
}

// While a job is quarantined because of one trigger, the occurrences of its
// other triggers are decided too (as missed), not passed over.
func TestQuarantinedJobsSoundTriggerLosesNothing(t *testing.T) {
	w := newWorld(t)
	j := w.define(func(d *state.Definition) {
		d.Triggers = append(d.Triggers, &state.Trigger{ID: "x", Cron: &state.Cron{Expression: "0 0 * * *", TimeZone: "Atlantis/Capital"}})
	})
	_, cmds := agendaOf(w, at("11:59:00"))
	w.do(at("11:59:00"), cmds...)
	// Half an hour later somebody mends it; what sets up a change settles first.
	now := at("12:30:30")
	settle, _ := Settle(w.State, j.Key, DefaultBounds, now)
	d := *j.Definition
	d.Triggers = d.Triggers[:1]
	w.do(now, append(settle, state.PutJob{Key: j.Key, Definition: &d, Effective: now})...)
	vs, _ := Verify(w.State, jobKey, time.Time{}, time.Time{})
	for _, v := range vs {
		if v.Trigger == "m" {
			for _, x := range v.Differences {
				t.Errorf("trigger m: %+v", x)
			}
		}
	}
}

// The same without a second trigger, and a pause instead of a new definition.
func TestQuarantineEndsWithNothingLost(t *testing.T) {
	w := newWorld(t)
	j := w.define(nil)
	w.do(noon, state.Quarantine{Key: j.Key, UID: j.UID, Version: 1, Reason: "this binary lacks its zone"})
	now := at("12:30:30")
	settle, _ := Settle(w.State, j.Key, DefaultBounds, now)
	w.do(now, append(settle, state.ResumeJob{Key: j.Key, Effective: now})...)
	_, cmds := agendaOf(w, now) // a binary that has it
	w.do(now, cmds...)
	w.verify()
}

// A run that is replaced is ended only together with the birth of the run that
// takes its place.
func TestRefusedDecideReplacesNothing(t *testing.T) {
	w := newWorld(t)
	j := w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapReplace })
	w.settle(at("12:00:00"))
	old := w.ActiveRuns(j.UID)[0]

	now := at("12:01:00")
	a, _ := agendaOf(w, at("12:00:30"))
	planned := a.Due(NewOutlook(w.State, DefaultBounds), now, 100) // the leader looks; and before it is heard:
	pausedAt := now.Add(-time.Millisecond)
	settle, _ := Settle(w.State, j.Key, DefaultBounds, pausedAt)
	w.do(now, append(settle, state.PauseJob{Key: j.Key, Effective: pausedAt})...)

	w.index++
	res := w.Apply(w.index, state.Entry{Now: now, Commands: planned})
	if res[0].Err == nil {
		t.Fatal("the decision was not refused")
	}
	if r := w.Run(old.ID); r.Phase.Final() || !r.CancelTime.IsZero() {
		t.Errorf("run was ended (%v, %q) though nothing replaces it", r.Phase, r.Reason+r.CancelNote)
	}
}

// Who prolongs a pause at the instant at which it ends has prolonged it.
func TestEndOfPauseIsNotEndOfNextPause(t *testing.T) {
	w := newWorld(t)
	j := w.define(nil)
	until := at("12:10:00")
	w.do(at("11:59:30"), state.PauseJob{Key: j.Key, Until: until, Effective: at("11:59:00")})
	a, _ := agendaOf(w, at("11:59:30"))
	planned := a.Due(NewOutlook(w.State, DefaultBounds), until, 100) // the leader looks at 12:10; and before it is heard:
	now := until.Add(time.Millisecond)
	settle, _ := Settle(w.State, j.Key, DefaultBounds, now)
	w.do(now, append(settle, state.PauseJob{Key: j.Key, Until: at("18:00:00"), Effective: now})...)
	w.index++
	w.Apply(w.index, state.Entry{Now: now, Commands: planned})
	if w.Job(j.Key).Pause == nil {
		t.Error("the pause until 18:00, which was acknowledged, is gone")
	}
}

// However long a pause is, its occurrences are decided each hour.
func TestPauseWithEndIsLookedAtHourly(t *testing.T) {
	w := newWorld(t)
	j := w.define(func(d *state.Definition) { d.Triggers[0].Every.Interval = time.Second })
	w.do(noon, append(must(Settle(w.State, j.Key, DefaultBounds, noon)), state.PauseJob{Key: j.Key, Until: noon.AddDate(0, 2, 0), Effective: noon, Note: strings.Repeat("x", 1000)})...)
	a, _ := agendaOf(w, noon)
	if got := a.Next(); got.After(noon.Add(pausedLook)) {
		t.Errorf("next look at %v, want within %v", got, pausedLook)
	}
	cmds := a.Due(NewOutlook(w.State, DefaultBounds), a.Next(), 1)
	size := 0
	for _, d := range cmds[0].(state.Decide).Decisions {
		size += len(d.Reason)
	}
	if size > 1<<20 {
		t.Errorf("one command with %d decisions, the reasons alone %d bytes: more than a proposal may have", len(cmds[0].(state.Decide).Decisions), size)
	}
}

func must(c []state.Command, err error) []state.Command { return c }

// A run that waits for other runs of its job says so when it gives up.
func TestGivesUpForTheRightReason(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	w.worker(q, "a", 10)
	w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapQueue })
	w.request(q, jobKey, "1")
	w.place(q)
	r := w.request(q, jobKey, "2")
	w.place(q)
	l := Check(r, time.Time{}, time.Time{}, noon.Add(2*time.Hour))
	if g, ok := l.Command.(state.GiveUp); ok && strings.Contains(g.Reason, "waited for a worker") {
		t.Errorf("%q, while it %s and 9 slots are free", g.Reason, WhyPending(w.State, w.Run(r.ID), noon))
	}
}

// A cancelled run whose worker never comes back ends, also when the job would
// rather wait.
func TestCancelledRunOfLostWorkerEnds(t *testing.T) {
	w, _, r := running(t, func(d *state.Definition) { d.Policy.OnLost = state.OnLostWait })
	r = w.do(noon, state.Cancel{Run: r.ID, Note: "gone for good"}).Run
	now := noon.Add(1000 * time.Hour)
	if l := Check(r, noon, time.Time{}, now); l.Command == nil && l.Next.IsZero() {
		t.Error("nothing will ever end it")
	}
}

// Runs that ended while they waited are forgotten, though no worker comes.
func TestQueueForgetsWhatEnded(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapAllow })
	for i := range 1000 {
		r := w.request(q, jobKey, fmt.Sprint(i))
		q.Place(w.State, 100)
		w.do(noon, state.GiveUp{Run: r.ID, Phase: state.TimedOut})
		q.Forget(r.ID, r.UID)
		q.Release(r.UID, 1)
		q.Place(w.State, 100)
	}
	waiting := 0
	for _, l := range q.lines {
		waiting += len(l.waiting.items)
	}
	if waiting > 0 || q.wishes.Len() > 0 {
		t.Errorf("%d runs in line and %d known as queued, want none", waiting, q.wishes.Len())
	}
}

// A job that takes a little longer than its interval is decided otherwise each
// time. Its ledger stays bounded, and what is left of it can be verified.
func TestLedgerOfAlternatingDecisionsIsBounded(t *testing.T) {
	w := newWorld(t)
	j := w.define(func(d *state.Definition) { d.Triggers[0].Every.Interval = 30 * time.Second })
	for now := noon; now.Before(noon.Add(72 * time.Hour)); now = now.Add(30 * time.Second) {
		w.do(now, must(Settle(w.State, j.Key, DefaultBounds, now))...)
		if now.Sub(noon)%time.Minute != 0 {
			w.end(now)
		}
	}
	if n := len(w.Track(j.UID, "m").Spans()); n > state.MaxSpans+1 || n < state.MaxSpans/2 {
		t.Errorf("%d spans, want at most %d, and not too few", n, state.MaxSpans)
	}
	w.verify()
}

// The ledger says of each occurrence that does not run why, and that is so: whatever the job
// wants to be caught up with, whether its last run goes on, and while it is paused.
func TestMissedReasonIsTrue(t *testing.T) {
	const overlaps = "1 to 12:05 skipped: overlap: 1 run is active, and the job allows 1 at a time"
	words := map[state.Decision]string{state.DecidedRun: "run", state.DecidedSkipped: "skipped", state.DecidedMissed: "missed"}
	for name, test := range map[string]struct {
		catchUp state.CatchUp
		before  func(*world)
		want    string
	}{
		"the latest": {
			state.CatchUpLatest, func(w *world) { w.end(at("12:00:20")) },
			"4 to 12:04 missed: came due while nobody decided; only the latest of them counts, 1 to 12:05 run: ",
		},
		"its run goes on": {
			state.CatchUpLatest, func(*world) {},
			"4 to 12:04 missed: came due while nobody decided; only the latest of them counts, " + overlaps,
		},
		"none": {
			state.CatchUpNone, func(*world) {},
			"4 to 12:04 missed: came due while nobody decided; the job does not catch up, " + overlaps,
		},
		"paused": {
			state.CatchUpLatest, func(w *world) {
				w.settle(at("12:00:10"))
				w.do(at("12:00:10"), state.PauseJob{Key: jobKey, Note: "holidays", Effective: at("12:00:10")})
			},
			"5 to 12:05 skipped: the job was paused: holidays",
		},
	} {
		w := newWorld(t)
		j := w.define(func(d *state.Definition) { d.Policy.CatchUp = test.catchUp })
		w.settle(at("12:00:00"))
		test.before(w)
		w.settle(at("12:05:50")) // after an outage
		var got []string
		for _, s := range w.Track(j.UID, "m").Spans()[1:] { // the first has run
			got = append(got, fmt.Sprintf("%d to %s %s: %s", s.Count, s.Last.Format("15:04"), words[s.Decision], s.Reason))
		}
		if is := strings.Join(got, ", "); is != test.want {
			t.Errorf("%s: the ledger says\n%s\nwant\n%s", name, is, test.want)
		}
	}
}

// The oldest goes first, whichever line it is in, and the same each time.
func TestPlaceIsFairBetweenLines(t *testing.T) {
	got := map[string]int{}
	for range 50 {
		w, q := newWorld(t), NewQueue()
		w.worker(q, "a", 1)
		for _, n := range []string{"j1", "j2", "j3"} {
			k := state.JobKey{Namespace: "default", Name: n}
			w.defineAs(k, noon, func(d *state.Definition) { d.Target.Strategy = state.Strategy(n[1] - '0') })
			w.request(q, k, "1")
		}
		cmds := q.Place(w.State, 10)
		got[w.Run(cmds[0].(state.Assign).Run).Job.Name]++
	}
	if len(got) != 1 || got["j1"] == 0 {
		t.Errorf("of three runs, each in its own line, for one slot, the first to go was %v; want j1, the oldest", got)
	}
}

func BenchmarkBusyLines(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n, " lines and workers"), func(b *testing.B) {
			w, q := newWorld(b), NewQueue()
			for i := range n {
				w.worker(q, fmt.Sprint(i), 1)
			}
			for i := range n {
				k := state.JobKey{Namespace: "default", Name: fmt.Sprint("j", i)}
				w.defineAs(k, noon, func(d *state.Definition) {
					d.Policy.Overlap = state.OverlapAllow
					d.Target.Selector = fmt.Sprintf("x!=%d", i)
				})
				w.request(q, k, "1")
			}
			for _, c := range q.Place(w.State, 1<<20) {
				w.do(noon, c)
			}
			for i := range n {
				k := state.JobKey{Namespace: "default", Name: fmt.Sprint("j", i)}
				w.request(q, k, "2")
			}
			q.Place(w.State, 10)
			b.ResetTimer()
			for range b.N {
				q.NoteRun()
				q.Place(w.State, 10)
			}
		})
	}
}

func BenchmarkSpread(b *testing.B) {
	for _, n := range []int{100, 1000, 4000} {
		b.Run(fmt.Sprint(n, " pending, 20 workers"), func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				w, q := newWorld(b), NewQueue()
				for i := range 20 {
					w.worker(q, fmt.Sprint(i), 1000)
				}
				w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapAllow; d.Target.Strategy = state.Spread })
				for i := range n {
					w.request(q, jobKey, fmt.Sprint(i))
				}
				b.StartTimer()
				q.Place(w.State, 100)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/100, "µs/assignment")
		})
	}
}

// One run ends, 99 of the job wait.
func BenchmarkRelease(b *testing.B) {
	w, q := newWorld(b), NewQueue()
	w.worker(q, "a", 10)
	j := w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapQueue })
	for i := range 100 {
		w.request(q, jobKey, fmt.Sprint(i))
	}
	for _, c := range q.Place(w.State, 1) {
		w.do(noon, c)
	}
	b.ResetTimer()
	for range b.N {
		q.Release(j.UID, 1)
		q.Place(w.State, 10)
	}
}

func BenchmarkNewAgenda(b *testing.B) {
	w := newWorld(b)
	for i := range 100_000 {
		k := state.JobKey{Namespace: "default", Name: fmt.Sprint("j", i)}
		w.defineAs(k, noon, func(d *state.Definition) {
			d.Triggers[0] = &state.Trigger{ID: "m", Cron: &state.Cron{Expression: fmt.Sprintf("%d %d * * 1-5", i%60, i%24), TimeZone: "Europe/Berlin"}}
		})
	}
	b.ResetTimer()
	for range b.N {
		agendaOf(w, noon)
	}
}

// A crash between two proposals of one step: the new run is born, and the old
// one is not ended.
func TestReplaceSurvivesACrashBetweenProposals(t *testing.T) {
	w := newWorld(t)
	j := w.define(func(d *state.Definition) {
		d.Policy.Overlap = state.OverlapReplace
		d.Triggers = []*state.Trigger{{ID: "m", Every: &state.Every{Interval: time.Hour}}}
	})
	q := NewQueue()
	w.worker(q, "a", 4)
	w.settle(at("12:00:00"))
	old := w.ActiveRuns(j.UID)[0]
	q.Add(old)
	w.place(q)
	cmds, _ := Settle(w.State, j.Key, DefaultBounds, at("13:00:00"))
	w.do(at("13:00:00"), cmds[0]) // Decide was the 256th command; Cancel, the 257th, was never proposed
	a, more := agendaOf(w, at("13:00:01"))
	more = append(more, a.Due(NewOutlook(w.State, DefaultBounds), at("13:00:01"), 100)...)
	if r := w.Run(old.ID); r.CancelTime.IsZero() && len(more) == 0 {
		t.Errorf("after the crash nothing ends run %v, and its successor waits for it", r.Nominal.Format("15:04"))
	}
}
