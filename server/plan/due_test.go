package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// at returns the instant of that time of day.
func at(clock string) time.Time {
	t, err := time.Parse("15:04:05", clock)
	if err != nil {
		panic(err)
	}
	return time.Date(2030, 1, 1, t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
}

// world is a state, and the log that leads to it.
type world struct {
	t testing.TB
	*state.State
	index uint64
}

func newWorld(t testing.TB) *world { return &world{t: t, State: state.New()} }

// do applies commands as one entry and returns the last result. Each must be
// accepted.
func (w *world) do(now time.Time, cmds ...state.Command) state.Result {
	w.t.Helper()
	w.index++
	var last state.Result
	for i, r := range w.Apply(w.index, state.Entry{Now: now, Commands: cmds}) {
		if r.Err != nil {
			w.t.Fatalf("%T: %v", cmds[i], r.Err)
		}
		last = r
	}
	return last
}

var jobKey = state.JobKey{Namespace: "default", Name: "j"}

// define makes a job, from a minute before noon on.
func (w *world) define(edit func(*state.Definition)) *state.Job {
	w.t.Helper()
	return w.defineAs(jobKey, at("11:59:00"), edit)
}

func (w *world) defineAs(k state.JobKey, now time.Time, edit func(*state.Definition)) *state.Job {
	w.t.Helper()
	d := &state.Definition{
		Triggers: []*state.Trigger{{ID: "m", Every: &state.Every{Interval: time.Minute}}},
		Task:     state.Task{Argv: []string{"true"}},
		Policy: &state.Policy{
			MaxConcurrent: 1, CatchUpWindow: time.Hour, KillGrace: 10 * time.Second,
			QueueTimeout: time.Hour, StartWithin: 5 * time.Minute, LostAfter: 3 * time.Minute,
			Retry: state.Retry{MaxAttempts: 1, InitialDelay: time.Second, Multiplier: 2, MaxDelay: 5 * time.Minute},
		},
	}
	if edit != nil {
		edit(d)
	}
	return w.do(now, state.PutJob{Key: k, Definition: d, Effective: now}).Job
}

// settle decides all that came due, and tells it in words: "run", "skip" or
// "miss", the instant of the last, and how many it stands for.
func (w *world) settle(now time.Time) string {
	w.t.Helper()
	cmds, err := Settle(w.State, jobKey, DefaultBounds, now)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(cmds) > 0 {
		w.do(now, cmds...)
	}
	var words []string
	for _, c := range cmds {
		for _, d := range c.(state.Decide).Decisions {
			word := map[state.Decision]string{state.DecidedRun: "run", state.DecidedSkipped: "skip", state.DecidedMissed: "miss"}[d.Decision]
			word += " " + d.Last.Format("15:04")
			if d.Count > 1 {
				word += fmt.Sprintf(" of %d", d.Count)
			}
			if d.Run != nil && d.Decision == state.DecidedRun && d.Run.Missed > 0 {
				word += fmt.Sprintf(" for %d", d.Run.Missed)
			}
			words = append(words, word)
			if d.Run != nil && len(d.Run.Replaces) > 0 {
				words = append(words, "cancel")
			}
		}
	}
	return strings.Join(words, ", ")
}

// end ends all runs of the job that are active.
func (w *world) end(now time.Time) {
	for _, r := range w.ActiveRuns(w.Job(jobKey).UID) {
		w.do(now, state.GiveUp{Run: r.ID, Phase: state.Failed, Reason: "the test ended it"})
	}
}

func TestSettle(t *testing.T) {
	allow := func(d *state.Definition) { d.Policy.Overlap = state.OverlapAllow }
	catchUp := func(c state.CatchUp, o state.Overlap) func(*state.Definition) {
		return func(d *state.Definition) { d.Policy.CatchUp, d.Policy.Overlap = c, o }
	}
	tests := []struct {
		name string
		edit func(*state.Definition)
		now  string
		want string
	}{
		{"not yet", nil, "11:59:59", ""},
		{"on time", nil, "12:00:00", "run 12:00"},
		{"late, within the grace", nil, "12:00:59", "run 12:00"},

		// An outage: what came due within the last minute just runs, and stands
		// for the ones before it.
		{"latest, and one that just runs", nil, "12:04:30", "miss 12:03 of 4, run 12:04 for 4"},
		{"latest, nothing that just runs", func(d *state.Definition) {
			d.Triggers[0].Every.Interval = 10 * time.Minute
		}, "12:35:00", "miss 12:20 of 3, run 12:30 for 3"},
		{"none", catchUp(state.CatchUpNone, state.OverlapSkip), "12:04:30", "miss 12:03 of 4, run 12:04 for 4"},
		{"all", catchUp(state.CatchUpAll, state.OverlapAllow), "12:03:30", "run 12:00, run 12:01, run 12:02, run 12:03"},
		{"all, though one at a time", catchUp(state.CatchUpAll, state.OverlapSkip), "12:02:30", "run 12:00, run 12:01, skip 12:02"},
		{"all, within the window", func(d *state.Definition) {
			d.Policy.CatchUp, d.Policy.Overlap, d.Policy.CatchUpWindow = state.CatchUpAll, state.OverlapAllow, 2*time.Minute
		}, "12:05:30", "miss 12:03 of 4, run 12:04 for 4, run 12:05"},
		{"older than the window", func(d *state.Definition) {
			d.Triggers[0].Every.Interval = 10 * time.Minute
			d.Policy.CatchUpWindow = 5 * time.Minute
		}, "12:18:00", "miss 12:10 of 2"},

		{"allow", allow, "12:00:30", "run 12:00"},
		{"out of service", func(d *state.Definition) { d.Triggers[0].Disabled = true }, "12:10:00", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.define(tt.edit)
			if got := w.settle(at(tt.now)); got != tt.want {
				t.Errorf("at %s: %q, want %q", tt.now, got, tt.want)
			}
			w.verify()
		})
	}
}

// verify fails the test when the ledger does not agree with the schedule.
func (w *world) verify() {
	w.t.Helper()
	vs, err := Verify(w.State, jobKey, time.Time{}, time.Time{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, v := range vs {
		for _, d := range v.Differences {
			w.t.Errorf("trigger %s: %+v", v.Trigger, d)
		}
		if v.Nominal != v.Ran+v.Skipped+v.Missed {
			w.t.Errorf("trigger %s: %d nominal, %d ran, %d skipped, %d missed", v.Trigger, v.Nominal, v.Ran, v.Skipped, v.Missed)
		}
	}
}

// One minute after the other, with a run that is active all the time.
func TestOverlap(t *testing.T) {
	tests := []struct {
		name    string
		overlap state.Overlap
		max     int
		want    string // at 12:00, 12:01 and 12:02
	}{
		{"skip", state.OverlapSkip, 1, "run 12:00; skip 12:01; skip 12:02"},
		{"skip, two at a time", state.OverlapSkip, 2, "run 12:00; run 12:01; skip 12:02"},
		{"allow", state.OverlapAllow, 1, "run 12:00; run 12:01; run 12:02"},
		{"queue", state.OverlapQueue, 1, "run 12:00; run 12:01; run 12:02"},
		{"replace", state.OverlapReplace, 1, "run 12:00; run 12:01, cancel; run 12:02, cancel"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.define(func(d *state.Definition) { d.Policy.Overlap, d.Policy.MaxConcurrent = tt.overlap, tt.max })
			got := strings.Join([]string{w.settle(at("12:00:00")), w.settle(at("12:01:00")), w.settle(at("12:02:00"))}, "; ")
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			w.verify()
		})
	}
}

// Under OverlapQueue a hundred may wait; what comes after is skipped.
func TestOverlapQueueIsBounded(t *testing.T) {
	w := newWorld(t)
	j := w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapQueue })
	for i := range MaxQueued + 5 {
		w.settle(noon.Add(time.Duration(i) * time.Minute))
	}
	if n := w.NumActive(j.UID); n != MaxQueued {
		t.Errorf("%d runs wait, want %d", n, MaxQueued)
	}
	w.verify()
}

// Triggers of one job that are due in the same tick see each other's runs.
func TestTwoTriggersOneTick(t *testing.T) {
	w := newWorld(t)
	w.define(func(d *state.Definition) {
		d.Triggers = append(d.Triggers, &state.Trigger{ID: "n", Every: &state.Every{Interval: time.Minute}})
	})
	if got, want := w.settle(at("12:00:00")), "run 12:00, skip 12:00"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// What a pause covers is skipped, with its note; what came before and after is
// not.
func TestPause(t *testing.T) {
	w := newWorld(t)
	w.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapAllow })
	w.settle(at("12:00:30"))
	w.do(at("12:00:30"), state.PauseJob{Key: jobKey, Note: "moving house", Effective: at("12:00:30"), Until: at("12:03:00")})
	if got, want := w.settle(at("12:04:00")), "skip 12:03 of 3, run 12:04"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	tr := w.Track(w.Job(jobKey).UID, "m")
	if got := tr.Spans()[1].Reason; got != "the job was paused: moving house" {
		t.Errorf("reason %q", got)
	}
	w.verify()
}

// A definition that changes ends the ledger of the old one and begins another;
// both stay verifiable.
func TestChangedTriggerKeepsItsLedger(t *testing.T) {
	w := newWorld(t)
	w.define(nil)
	w.settle(at("12:00:00"))
	w.end(at("12:00:01"))
	w.settle(at("12:01:30"))
	w.end(at("12:01:31"))
	w.defineAs(jobKey, at("12:01:30"), func(d *state.Definition) { d.Triggers[0].Every.Interval = 7 * time.Minute })
	w.settle(at("12:20:00"))
	w.verify()
	vs, _ := Verify(w.State, jobKey, time.Time{}, time.Time{})
	if len(vs) != 2 || vs[0].Nominal != 2 || vs[1].Nominal != 3 { // 12:03? every 7 minutes since the epoch
		t.Errorf("%+v", vs)
	}
}

// A ledger that lost an occurrence, or decided one that isn't, is found out.
func TestVerifyFindsWhatIsWrong(t *testing.T) {
	decide := func(w *world, until time.Time, ds ...state.Decided) {
		j := w.Job(jobKey)
		w.do(until, state.Decide{
			Key: jobKey, UID: j.UID, Version: j.Version, Activity: w.Activity(j.UID), Trigger: "m",
			After: w.Track(j.UID, "m").DecidedUntil, Until: until, Decisions: ds,
		})
	}
	one := func(t time.Time) state.Decided {
		return state.Decided{Decision: state.DecidedMissed, First: t, Last: t, Count: 1, Digest: state.Mix(t)}
	}
	tests := []struct {
		name string
		fake func(*world)
		want string
	}{
		{"one never decided", func(w *world) { decide(w, at("12:00:30")) }, "never decided"},
		{"one in the middle left out", func(w *world) {
			decide(w, at("12:02:00"), one(at("12:00:00")), one(at("12:02:00")))
		}, "not what the schedule names"},
		{"another instant instead", func(w *world) { decide(w, at("12:00:30"), one(at("12:00:10"))) }, "not what the schedule names"},
		{"the right number, the wrong instant", func(w *world) {
			decide(w, at("12:02:00"), one(at("12:00:00")), one(at("12:00:59")), one(at("12:02:00")))
		}, "not what the schedule names"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.define(nil)
			tt.fake(w)
			vs, err := Verify(w.State, jobKey, time.Time{}, time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			if len(vs[0].Differences) == 0 || !strings.Contains(vs[0].Differences[0].Problem, tt.want) {
				t.Errorf("differences %+v, want one that says %q", vs[0].Differences, tt.want)
			}
		})
	}
}
