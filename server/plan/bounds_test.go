package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/schedd/schedd/raftstore/state"
)

// decideBy has an agenda with these bounds decide what is due, as often as it asks for it.
func (w *world) decideBy(b Bounds, now time.Time) {
	w.t.Helper()
	a := NewAgenda()
	for j := range w.Jobs() {
		w.do(now, a.Note(w.State, j.Key, now)...)
	}
	for cmds := a.Due(NewOutlook(w.State, b), now, 100); len(cmds) > 0; cmds = a.Due(NewOutlook(w.State, b), now, 100) {
		w.do(now, cmds...)
	}
}

// Of a trigger without an end only so many runs wait while no worker comes. The others are
// skipped, and the ledger says why; when one has ended there is room again.
func TestRunsThatWaitAreBounded(t *testing.T) {
	for name, test := range map[string]struct {
		bounds Bounds
		edit   func(*state.Definition)
		late   time.Duration // how late the second look is
		want   string
	}{
		"of a job":           {Bounds{RunsPerJob: 3, Runs: 100}, func(d *state.Definition) { d.Policy.Overlap = state.OverlapAllow }, 0, "limit: 3 runs of the job have not ended"},
		"of all":             {Bounds{RunsPerJob: 100, Runs: 3}, func(d *state.Definition) { d.Policy.Overlap = state.OverlapAllow }, 0, "limit: 3 runs of all jobs have not ended"},
		"in a queue":         {Bounds{RunsPerJob: 3, Runs: 100}, func(d *state.Definition) { d.Policy.Overlap = state.OverlapQueue }, 0, "limit: 3 runs of the job have not ended"},
		"that are caught up": {Bounds{RunsPerJob: 3, Runs: 100}, func(d *state.Definition) { d.Policy.CatchUp = state.CatchUpAll }, 10 * time.Minute, "limit: 3 runs of the job have not ended"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			j := w.define(func(d *state.Definition) {
				d.Policy.MaxConcurrent = 1
				test.edit(d)
			})
			begin := at("12:00:00").Add(test.late)
			for i := range 10 {
				w.decideBy(test.bounds, begin.Add(time.Duration(i)*time.Minute))
			}
			if n := w.NumActive(j.UID); n != 3 {
				t.Errorf("%d runs have not ended, want 3", n)
			}
			if spans := w.Track(j.UID, "m").Spans(); !slices.ContainsFunc(spans, func(s state.Span) bool {
				return s.Decision == state.DecidedSkipped && s.Count >= 6 && strings.Contains(s.Reason, test.want)
			}) {
				t.Errorf("the ledger has %+v, want six in a row that were skipped for %q", spans, test.want)
			}
			w.do(begin.Add(10*time.Minute), state.Cancel{Run: w.ActiveRuns(j.UID)[0].ID})
			w.decideBy(test.bounds, begin.Add(10*time.Minute))
			if spans := w.Track(j.UID, "m").Spans(); spans[len(spans)-1].Decision != state.DecidedRun && test.late == 0 {
				t.Errorf("with room again the next one is %v for %q", spans[len(spans)-1].Decision, spans[len(spans)-1].Reason)
			}
			w.verify()
		})
	}
}

// A run that takes the place of one that waits needs no room of its own.
func TestReplacingNeedsNoRoom(t *testing.T) {
	w := newWorld(t)
	j := w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapReplace })
	for i := range 5 {
		w.decideBy(Bounds{RunsPerJob: 1, Runs: 1}, at("12:00:00").Add(time.Duration(i)*time.Minute))
	}
	runs := w.ActiveRuns(j.UID)
	if len(runs) != 1 || !runs[0].Nominal.Equal(at("12:04:00")) {
		t.Errorf("%d wait, the first is of %v, want one, of the latest occurrence", len(runs), runs[0].Nominal)
	}
}

// By hand, what there is no room for is refused, with what to do. A run that is there is
// found all the same.
func TestRequestBeyondBounds(t *testing.T) {
	w := newWorld(t)
	j := w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapAllow })
	b := Bounds{RunsPerJob: 2, Runs: 10}
	ask := func(id string) error {
		r, there, err := Request(NewOutlook(w.State, b), Ask{Job: jobKey, Name: id}, noon)
		if err == nil && there == nil {
			w.do(noon, r)
		}
		return err
	}
	if err := errors.Join(ask("a"), ask("b")); err != nil {
		t.Fatal(err)
	}
	err := ask("c")
	if full, ok := errors.AsType[*FullError](err); !ok || !errors.Is(err, state.ErrFull) || full.Job != jobKey || !strings.Contains(err.Error(), "--active-runs-per-job") {
		t.Errorf("the third of two: %v", err)
	}
	if err := ask("a"); err != nil {
		t.Errorf("the first again: %v, want that it is there", err)
	}
	w.do(noon, state.Cancel{Run: state.RequestRunID(j.UID, "a")})
	if err := ask("c"); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
}

// Whatever comes due, is asked for and ends: never are there more runs than there may be, each
// occurrence is decided once, and what was not made is told.
func TestBoundsHold(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		b := Bounds{RunsPerJob: rapid.IntRange(1, 6).Draw(rt, "per job"), Runs: rapid.IntRange(1, 12).Draw(rt, "in all")}
		keys := make([]state.JobKey, rapid.IntRange(1, 4).Draw(rt, "jobs"))
		for i := range keys {
			keys[i] = state.JobKey{Namespace: "default", Name: fmt.Sprint("j", i)}
			w.defineAs(keys[i], noon, func(d *state.Definition) {
				d.Triggers[0].Every.Interval = rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Second, time.Minute}).Draw(rt, "interval")
				d.Policy.Overlap = rapid.SampledFrom([]state.Overlap{state.OverlapAllow, state.OverlapQueue, state.OverlapReplace, state.OverlapSkip}).Draw(rt, "overlap")
				d.Policy.MaxConcurrent = rapid.IntRange(1, 4).Draw(rt, "concurrent")
				d.Policy.CatchUp = rapid.SampledFrom([]state.CatchUp{state.CatchUpLatest, state.CatchUpAll}).Draw(rt, "catch up")
			})
		}
		now := noon
		for i := range rapid.IntRange(1, 30).Draw(rt, "steps") {
			k := rapid.SampledFrom(keys).Draw(rt, "job")
			uid := w.Job(k).UID
			switch rapid.IntRange(0, 3).Draw(rt, "what") {
			case 0:
				r, _, err := Request(NewOutlook(w.State, b), Ask{Job: k, Name: fmt.Sprint(i)}, now)
				if err == nil {
					w.do(now, r)
				} else if _, full := errors.AsType[*FullError](err); full && w.NumActive(uid) < b.RunsPerJob && w.NumAllActive() < b.Runs {
					rt.Fatalf("with %d of %d runs of the job, and %d of %d in all: %v", w.NumActive(uid), b.RunsPerJob, w.NumAllActive(), b.Runs, err)
				}
			case 1:
				for _, r := range w.ActiveRuns(uid)[:w.NumActive(uid)/2] {
					w.do(now, state.Cancel{Run: r.ID})
				}
			default:
				now = now.Add(time.Duration(rapid.IntRange(1, 200).Draw(rt, "seconds")) * time.Second)
				w.decideBy(b, now)
			}
			for _, k := range keys {
				if n := w.NumActive(w.Job(k).UID); n > b.RunsPerJob {
					rt.Fatalf("%d runs of %v, of %d allowed", n, k, b.RunsPerJob)
				}
			}
			if n := w.NumAllActive(); n > b.Runs {
				rt.Fatalf("%d runs in all, of %d allowed", n, b.Runs)
			}
		}
		for r := range w.RunsByBirth() {
			if r.Phase == state.Skipped && r.Reason == "" {
				rt.Fatalf("run %v was skipped, and nobody says why", r.ID)
			}
		}
		for _, k := range keys {
			vs, err := Verify(w.State, k, time.Time{}, time.Time{})
			if err != nil || slices.ContainsFunc(vs, func(v Verdict) bool { return len(v.Differences) > 0 }) {
				rt.Fatalf("%v: %v, %+v", k, err, vs)
			}
		}
	})
}
