package verdict_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/schedd/schedd/server/torture/verdict"
)

var begin = time.Date(2026, 3, 29, 0, 59, 50, 0, time.UTC)

// story makes a record of a time in which all promises were kept: each run
// succeeds in the end, after attempts that were cut short by a fault, or were made
// to fail.
func story(t *rapid.T) verdict.Record {
	rec := verdict.Record{Closed: true, Told: true, Victims: 1, EffectsOf: map[string]bool{"w1": true, "w2": true}}
	view := verdict.View{Server: "p1:7421", Ledger: map[string]verdict.Ledger{}}
	fence := uint64(0)
	for i := range rapid.IntRange(1, 3).Draw(t, "jobs") {
		job := verdict.Job{
			Name:     fmt.Sprint("job-", i),
			Interval: time.Duration(rapid.IntRange(1, 4).Draw(t, "interval")) * time.Second,
			Start:    begin, End: begin.Add(time.Duration(rapid.IntRange(8, 20).Draw(t, "seconds")) * time.Second),
			Work: verdict.Work{Lines: rapid.IntRange(0, 3).Draw(t, "lines"), Fails: rapid.IntRange(0, 1).Draw(t, "fails")},
		}
		rec.Jobs = append(rec.Jobs, job)
		var spans []verdict.Span
		for n, at := range job.Due() {
			if n == 0 || rapid.Bool().Draw(t, "another span") {
				spans = append(spans, verdict.Span{First: at, Decision: verdict.Ran})
			}
			s := &spans[len(spans)-1]
			s.Last, s.Count = at, s.Count+1
			r := verdict.Run{ID: fmt.Sprintf("r-%d-%d", i, n), Job: job.Name, Nominal: at, Created: at.Add(time.Millisecond), Phase: verdict.PhaseSucceeded}
			for done := false; !done; {
				fence++
				var a verdict.Attempt
				a, done = attempt(t, &rec, job, r, fence)
				r.Attempts = append(r.Attempts, a)
			}
			view.Runs = append(view.Runs, r)
		}
		view.Ledger[job.Name] = verdict.Ledger{Spans: spans}
	}
	rec.Views = []verdict.View{view}
	rec.Faults = append(rec.Faults, verdict.Fault{Kind: verdict.Halt, Role: verdict.Follower, Name: "p1", At: begin, Until: begin.Add(time.Second)})
	return rec
}

// attempt adds one attempt to a run, and what it did to the record.
func attempt(t *rapid.T, rec *verdict.Record, job verdict.Job, r verdict.Run, fence uint64) (a verdict.Attempt, done bool) {
	w := rapid.SampledFrom([]string{"1", "2"}).Draw(t, "worker")
	at := begin.Add(time.Duration(fence) * time.Second)
	a = verdict.Attempt{
		Number: len(r.Attempts) + 1, Fence: fence, Worker: "w" + w, WorkerName: "worker-" + w,
		Assigned: at, Started: at.Add(time.Millisecond), Finished: at.Add(20 * time.Millisecond), Outcome: verdict.Succeeded,
		Log: verdict.Log{Read: true},
	}
	tell := func(s verdict.Stage) {
		rec.Effects = append(rec.Effects, verdict.Effect{Worker: a.Worker, Stage: s, Run: r.ID, Attempt: a.Number, Fence: fence, Nominal: r.Nominal, Job: job.Name, At: at})
	}
	fate := rapid.SampledFrom([]string{"", "", "", "runner", "agent"}).Draw(t, "fate")
	switch {
	case fate == "runner" && a.Number < 5:
		rec.Faults = append(rec.Faults, verdict.Fault{Kind: verdict.Kill, Role: verdict.Runner, Name: a.WorkerName, At: at.Add(10 * time.Millisecond), Until: at.Add(time.Second)})
		a.Outcome, a.Reason = verdict.Interrupted, "the worker's runner died while it ran"
		if rapid.Bool().Draw(t, "begun") {
			tell(verdict.Begin)
		}
		return a, false
	case fate == "agent" && a.Number < 5:
		rec.Faults = append(rec.Faults, verdict.Fault{Kind: verdict.Kill, Role: verdict.Worker, Name: a.WorkerName, At: at, Until: at.Add(time.Second)})
		a.Outcome, a.Reason = verdict.Interrupted, "the agent died before it was started"
		return a, false
	}
	tell(verdict.Begin)
	tell(verdict.End)
	if a.Number <= job.Work.Fails {
		a.Outcome, a.ExitCode = verdict.Failed, verdict.ExitAgain
		return a, false
	}
	return a, true
}

// A time in which all promises were kept is judged so, and all of it is counted.
func TestKeptIsHeld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec := story(t)
		j := verdict.Judge(rec)
		if !j.Held() {
			t.Fatalf("%+v\n%+v", j.Violations, j.Doubts)
		}
		due := 0
		for _, job := range rec.Jobs {
			due += len(job.Due())
		}
		s := j.Summary
		if s.Expected != due || s.Decided != due || s.Missed+s.Twice != 0 || s.Succeeded != due || s.Whole != due || s.Attempts < due {
			t.Fatalf("%d were due, and the summary is %+v", due, s)
		}
	})
}

// spoilt is a record in which one thing is not as it should be.
type spoilt struct {
	verdict.Record
	t    *rapid.T
	view *verdict.View
}

func (s *spoilt) pick(n int, label string) int { return rapid.IntRange(0, n-1).Draw(s.t, label) }

// run is any run, and ended any attempt of any that has come to its end.
func (s *spoilt) run() *verdict.Run { return &s.view.Runs[s.pick(len(s.view.Runs), "run")] }

func (s *spoilt) success() *verdict.Attempt {
	r := s.run()
	return &r.Attempts[len(r.Attempts)-1]
}

func (s *spoilt) effect(stage verdict.Stage) int {
	var at []int
	for i, e := range s.Effects {
		if e.Stage == stage {
			at = append(at, i)
		}
	}
	return at[s.pick(len(at), "effect")]
}

func (s *spoilt) span() *verdict.Span {
	l := s.view.Ledger[s.Jobs[s.pick(len(s.Jobs), "job")].Name].Spans
	return &l[s.pick(len(l), "span")]
}

// A check that can't fail protects nothing: whatever is broken in a record of
// which all else is well, is found, and called by its name.
func TestJudgeBites(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(s *spoilt)
		want  verdict.Promise // empty: a doubt
	}{
		"not decided": {func(s *spoilt) {
			l := s.view.Ledger[s.Jobs[0].Name]
			l.Spans = l.Spans[1:]
			s.view.Ledger[s.Jobs[0].Name] = l
		}, verdict.DecidedOnce},
		"no ledger": {func(s *spoilt) { delete(s.view.Ledger, s.Jobs[0].Name) }, verdict.DecidedOnce},
		"decided twice": {func(s *spoilt) {
			l := s.view.Ledger[s.Jobs[0].Name]
			l.Spans = append(l.Spans, l.Spans[s.pick(len(l.Spans), "twice")])
			s.view.Ledger[s.Jobs[0].Name] = l
		}, verdict.DecidedOnce},
		"miscounted": {func(s *spoilt) { s.span().Count++ }, verdict.DecidedOnce},
		"decided beyond the end": {func(s *spoilt) {
			l := s.view.Ledger[s.Jobs[0].Name]
			end := s.Jobs[0].End.Add(time.Minute)
			l.Spans = append(l.Spans, verdict.Span{First: end, Last: end, Count: 1, Decision: verdict.Ran})
			s.view.Ledger[s.Jobs[0].Name] = l
		}, verdict.DecidedOnce},
		"the primary's own finding": {func(s *spoilt) {
			l := s.view.Ledger[s.Jobs[0].Name]
			l.Problems = []string{"2 are due, 1 decided"}
			s.view.Ledger[s.Jobs[0].Name] = l
		}, verdict.DecidedOnce},
		"missed":  {func(s *spoilt) { s.span().Decision = verdict.Missed }, verdict.NothingMiss},
		"skipped": {func(s *spoilt) { s.span().Decision = verdict.Skipped }, verdict.NothingMiss},
		"no run": {func(s *spoilt) {
			i := s.pick(len(s.view.Runs), "run")
			s.view.Runs = slices.Delete(s.view.Runs, i, i+1)
		}, verdict.OneRun},
		"two runs": {func(s *spoilt) {
			r := *s.run()
			r.ID, r.Attempts = "r-again", []verdict.Attempt{{Number: 1, Fence: math.MaxUint64, Outcome: verdict.Succeeded, Log: verdict.Log{Read: true}}}
			s.view.Runs = append(s.view.Runs, r)
		}, verdict.OneRun},
		"run of no occurrence": {func(s *spoilt) {
			r := s.run()
			r.Nominal = r.Nominal.Add(time.Millisecond)
		}, verdict.OneRun},
		"failed":     {func(s *spoilt) { s.run().Phase = "FAILED" }, verdict.OneSuccess},
		"lost":       {func(s *spoilt) { s.run().Phase = "LOST" }, verdict.OneSuccess},
		"no success": {func(s *spoilt) { a := s.success(); a.Outcome, a.ExitCode = verdict.Failed, verdict.ExitAgain }, verdict.OneSuccess},
		"failed, and was started once": {func(s *spoilt) {
			r := s.run()
			r.Phase, s.Closed = verdict.PhaseFailed, false
			a := s.success()
			a.Outcome, a.Reason = verdict.Interrupted, "its runner died"
		}, verdict.OneSuccess},
		"never started, where nobody keeps it from that": {func(s *spoilt) {
			r := s.run()
			r.Phase, r.Attempts = verdict.PhaseFailed, r.Attempts[:1]
			s.Effects = slices.DeleteFunc(s.Effects, func(e verdict.Effect) bool { return e.Run == r.ID })
			r.Attempts[0].Outcome, r.Attempts[0].Reason = verdict.Refused, "busy"
		}, verdict.OneSuccess},
		"cancelled": {func(s *spoilt) { s.success().Outcome = verdict.Cancelled }, verdict.OneSuccess},
		"no reason": {func(s *spoilt) { s.success().Outcome = verdict.Refused }, verdict.OneSuccess},
		"succeeded twice": {func(s *spoilt) {
			r := s.run()
			r.Attempts = append(r.Attempts, verdict.Attempt{Number: len(r.Attempts) + 1, Fence: math.MaxUint64, Outcome: verdict.Succeeded, Log: verdict.Log{Read: true}})
		}, verdict.OneSuccess},
		"an attempt left out": {func(s *spoilt) { s.success().Number++ }, verdict.OneSuccess},
		"never ends":          {func(s *spoilt) { s.run().Phase = verdict.PhaseRunning }, verdict.ItEnds},
		"started twice":       {func(s *spoilt) { s.Effects = append(s.Effects, s.Effects[s.effect(verdict.Begin)]) }, verdict.StartedOnce},
		"ended twice":         {func(s *spoilt) { s.Effects = append(s.Effects, s.Effects[s.effect(verdict.End)]) }, verdict.StartedOnce},
		"ended, not begun": {func(s *spoilt) {
			end := s.Effects[s.effect(verdict.End)]
			s.Effects = slices.DeleteFunc(s.Effects, func(e verdict.Effect) bool {
				return e.Stage == verdict.Begin && e.Run == end.Run && e.Attempt == end.Attempt
			})
		}, verdict.StartedOnce},
		"never ran": {func(s *spoilt) {
			end := s.Effects[s.effect(verdict.End)]
			s.Effects = slices.DeleteFunc(s.Effects, func(e verdict.Effect) bool { return e.Run == end.Run && e.Attempt == end.Attempt })
		}, verdict.NoGhosts},
		"effect of no attempt": {func(s *spoilt) { s.Effects[s.effect(verdict.Begin)].Attempt = 99 }, verdict.NoGhosts},
		"effect of no run":     {func(s *spoilt) { s.Effects[s.effect(verdict.Begin)].Run = "r-ghost" }, verdict.NoGhosts},
		"another fence":        {func(s *spoilt) { s.Effects[s.effect(verdict.Begin)].Fence++ }, verdict.NoGhosts},
		"another instant": {func(s *spoilt) {
			e := &s.Effects[s.effect(verdict.Begin)]
			e.Nominal = e.Nominal.Add(time.Second)
		}, verdict.NoGhosts},
		"another worker": {func(s *spoilt) { s.Effects[s.effect(verdict.Begin)].Worker = "w3" }, verdict.NoGhosts},
		"refused, and ran": {func(s *spoilt) {
			a := s.success()
			a.Outcome, a.Reason = verdict.Refused, "busy"
		}, verdict.NoGhosts},
		"a fence given twice": {func(s *spoilt) {
			s.view.Runs[0].Attempts[0].Fence = s.view.Runs[1].Attempts[0].Fence
		}, verdict.FencesGrow},
		"a fence too late": {func(s *spoilt) {
			last := &s.view.Runs[len(s.view.Runs)-1]
			last.Attempts[len(last.Attempts)-1].Assigned = begin
		}, verdict.FencesGrow},
		"interrupted by nobody": {func(s *spoilt) {
			a := s.success()
			a.Outcome, a.Reason, a.WorkerName = verdict.Interrupted, "its runner died", "worker-3"
		}, verdict.RunsSurvive},
		"interrupted by the death of its agent": {func(s *spoilt) {
			a := s.success()
			a.Outcome, a.Reason = verdict.Interrupted, "?"
			s.Faults = []verdict.Fault{{Kind: verdict.Kill, Role: verdict.Worker, Name: a.WorkerName, At: a.Started, Until: a.Finished}}
		}, verdict.RunsSurvive},
		"a log that is not whole": {func(s *spoilt) { s.success().Log.Problem = "it has 3 bytes" }, verdict.OutputWhole},
		"half a line":             {func(s *spoilt) { s.Unreadable = []string{"worker w1: half a line"} }, verdict.WrittenWhole},
		"a crash":                 {func(s *spoilt) { s.Crashes = []string{"p1 ended with exit code 2"} }, verdict.NoCrash},
		"still waits":             {func(s *spoilt) { s.run().Phase = verdict.PhasePending }, ""},
		"a log that was not read": {func(s *spoilt) { s.success().Log.Read = false }, ""},
		"failed by itself":        {func(s *spoilt) { a := s.success(); a.Outcome, a.ExitCode = verdict.Failed, 2 }, ""},
		"too few kills":           {func(s *spoilt) { s.LeaderKills = 1 }, ""},
		"kills that failed": {func(s *spoilt) {
			s.LeaderKills = 1
			s.Faults = append(s.Faults, verdict.Fault{Kind: verdict.Kill, Role: verdict.Leader, Name: "p1", Failed: "no such process"})
		}, ""},
		"unseen": {func(s *spoilt) { s.Unseen = []string{"p2 does not answer"} }, ""},
		"nobody": {func(s *spoilt) { s.Views = nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				s := &spoilt{Record: story(t), t: t}
				s.view = &s.Views[0]
				test.spoil(s)
				j := verdict.Judge(s.Record)
				found := slices.ContainsFunc(j.Violations, func(v verdict.Violation) bool { return v.Promise == test.want && v.Text != "" })
				if test.want == "" {
					found = len(j.Doubts) > 0
				}
				if !found || j.Held() {
					t.Fatalf("%q is not among %+v, %q", test.want, j.Violations, j.Doubts)
				}
			})
		})
	}
}

// What could not be seen is a doubt, and no promise that was broken.
func TestDoubts(t *testing.T) {
	for name, spoil := range map[string]func(s *spoilt){
		"nothing of a run was ever started": func(s *spoilt) {
			// As on a worker whose policy has no shell among its programs.
			r := s.run()
			r.Phase, r.Reason = verdict.PhaseFailed, "it has been tried 3 times"
			s.Effects = slices.DeleteFunc(s.Effects, func(e verdict.Effect) bool { return e.Run == r.ID })
			first := r.Attempts[0]
			first.Reason = "the policy of this host does not allow the program /bin/sh"
			first.Outcome = rapid.SampledFrom([]verdict.Outcome{verdict.NotStarted, verdict.Refused}).Draw(s.t, "outcome")
			r.Attempts, s.Closed = []verdict.Attempt{first}, false
		},
		"no fault was carried out": func(s *spoilt) {
			for i := range s.Faults {
				s.Faults[i].Failed = "operation not permitted"
			}
			s.Closed = false // nothing was done, so nothing explains what was interrupted
		},
		"no fault was tried": func(s *spoilt) { s.Faults, s.Closed = nil, false },
		"a worker that wrote nothing down": func(s *spoilt) {
			id := s.view.Runs[0].Attempts[len(s.view.Runs[0].Attempts)-1].Worker
			s.Effects = slices.DeleteFunc(s.Effects, func(e verdict.Effect) bool { return e.Worker == id })
			delete(s.EffectsOf, id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				s := &spoilt{Record: story(t), t: t}
				s.view = &s.Views[0]
				spoil(s)
				if j := verdict.Judge(s.Record); len(j.Violations) > 0 || len(j.Doubts) == 0 {
					t.Fatalf("it finds %+v, and doubts %q", j.Violations, j.Doubts)
				}
			})
		})
	}
}

// What nobody looked at is named: without side effects nobody knows how often a
// process was started, and of a cluster that somebody else may harm as well nobody
// knows why an attempt was interrupted.
func TestUnlooked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec := story(t)
		if j := verdict.Judge(rec); len(j.Unlooked) > 0 {
			t.Fatalf("all was looked at, and it says %q", j.Unlooked)
		}
		rec.Told, rec.Effects, rec.EffectsOf = false, nil, nil
		want := []verdict.Promise{verdict.StartedOnce, verdict.NoGhosts, verdict.WrittenWhole}
		if j := verdict.Judge(rec); len(j.Doubts) > 0 || !slices.Equal(j.Unlooked, want) {
			t.Fatalf("without effects it says %q, and doubts %q", j.Unlooked, j.Doubts)
		}
		rec.Closed = false
		if j := verdict.Judge(rec); !j.Held() || !slices.Equal(j.Unlooked, append(want, verdict.RunsSurvive, verdict.NoCrash)) {
			t.Fatalf("of somebody else's cluster it says %q, and doubts %q", j.Unlooked, j.Doubts)
		}
	})
}

// One primary that tells another story than the others is found, and what all of
// them tell is told once.
func TestEachPrimaryIsJudged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec := story(t)
		other := rec.Views[0]
		other.Server, other.Runs = "p2:7421", slices.Clone(other.Runs)
		other.Runs[0].Phase = "LOST"
		rec.Views = append(rec.Views, other)
		v := verdict.Judge(rec).Violations
		if len(v) != 1 || v[0].Server != "p2:7421" || v[0].Run != other.Runs[0].ID {
			t.Fatalf("%+v", v)
		}
		rec.Views[0] = other
		if v := verdict.Judge(rec).Violations; len(v) != 1 {
			t.Fatalf("told %d times: %+v", len(v), v)
		}
	})
}

// Two occurrences of different jobs fall on the same second, and a job begins in
// the middle of one: each multiple of the interval that lies in the span is due.
func TestDue(t *testing.T) {
	at := time.Unix(1_800_000_000, 0).UTC()
	for _, test := range []struct {
		every, from, until time.Duration
		want               []time.Duration
	}{
		{time.Second, 0, 3 * time.Second, []time.Duration{0, time.Second, 2 * time.Second}},
		{time.Second, time.Millisecond, 2*time.Second + time.Millisecond, []time.Duration{time.Second, 2 * time.Second}},
		{5 * time.Second, time.Second, 11 * time.Second, []time.Duration{5 * time.Second, 10 * time.Second}},
		{5 * time.Second, time.Second, 5 * time.Second, nil},
	} {
		var got []time.Duration
		for _, due := range (verdict.Job{Interval: test.every, Start: at.Add(test.from), End: at.Add(test.until)}).Due() {
			got = append(got, due.Sub(at))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("every %v from %v until %v: %v, want %v", test.every, test.from, test.until, got, test.want)
		}
	}
}

// The table tells all of it, one subject a line.
func TestTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec := story(t)
		rec.Faults = append(rec.Faults, verdict.Fault{Kind: verdict.Kill, Role: verdict.Leader, Name: "p1"}, verdict.Fault{Kind: verdict.Halt, Role: verdict.Leader, Name: "p1"})
		s := verdict.Judge(rec).Summary
		table := s.Table()
		for _, want := range []string{
			fmt.Sprintf("%d expected, %d decided, 0 missed, 0 twice", s.Expected, s.Expected),
			fmt.Sprintf("%d, of which %[1]d succeeded", s.Runs), "1 killed, 1 halted", "started ",
			fmt.Sprintf("%d of %[1]d runs whole at each of 1 primaries", s.Runs),
		} {
			if !strings.Contains(table, want) {
				t.Fatalf("%q is not in\n%s", want, table)
			}
		}
	})
}
