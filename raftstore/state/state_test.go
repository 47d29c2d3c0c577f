package state_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/schedd/schedd/raftstore/state"
)

var (
	noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	job  = state.JobKey{Namespace: "default", Name: "backup"}
	uid  = uint64(1) // of the job, in every story
	run  = state.OccurrenceRunID(1, "t", minute(1))
)

func minute(n int) time.Time { return noon.Add(time.Duration(n) * time.Minute) }

func def(description string, every ...int) *state.Definition {
	d := &state.Definition{Policy: &state.Policy{}, Description: description}
	for i, n := range every {
		id := []string{"t", "u"}[i]
		d.Triggers = append(d.Triggers, &state.Trigger{ID: id, Every: &state.Every{Interval: time.Duration(n) * time.Minute}})
	}
	return d
}

func put(d *state.Definition, at int) state.Command {
	return state.PutJob{Key: job, Definition: d, Effective: minute(at)}
}

// decide decides trigger t after one minute until another; what becomes of each
// minute in between is a letter: r, s, m; "R" is a run on record as missed.
func decide(after, until int, what string, change ...func(*state.Decide)) state.Command {
	c := state.Decide{Key: job, UID: uid, Version: 1, Trigger: "t", After: minute(after), Until: minute(until)}
	for i, letter := range what {
		at := minute(after + i + 1)
		d := state.Decided{First: at, Last: at, Count: 1, Digest: state.Mix(at)}
		switch letter {
		case 'r':
			d.Decision, d.Run = state.DecidedRun, &state.Birth{Nominal: at}
		case 's':
			d.Decision, d.Reason = state.DecidedSkipped, "overlap"
		case 'm':
			d.Decision, d.Reason = state.DecidedMissed, "late"
		case 'M':
			d.Decision, d.Reason, d.Run = state.DecidedMissed, "late", &state.Birth{Phase: state.Missed, Nominal: at, Reason: "late"}
		}
		c.Decisions = append(c.Decisions, d)
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

func seen(activity uint64) func(*state.Decide) {
	return func(c *state.Decide) { c.Activity = activity }
}

func version(n uint64) func(*state.Decide) { return func(c *state.Decide) { c.Version = n } }

func assign(w state.WorkerID, attempt int) state.Command {
	return state.Assign{Run: run, Attempt: attempt, Worker: w}
}

func start(fence uint64) state.Command {
	return state.Start{Run: run, Fence: fence, Time: minute(1)}
}

func finish(fence uint64, o state.Outcome, p state.Phase) state.Command {
	return state.Finish{Run: run, Fence: fence, Attempt: state.Attempt{Outcome: o, Finished: minute(2), LogBytes: 7}, Phase: p, Reason: "told so"}
}

func request(name string, activity uint64) state.Request {
	return state.Request{Key: job, UID: uid, Version: 1, Activity: activity, ID: state.RequestRunID(uid, name), Birth: state.Birth{Nominal: noon}}
}

// house is two workers, of one slot each, and the job; born is its first run, at
// index 4.
var (
	house = []state.Command{put(def("", 1), 0), worker("a", 1), worker("b", 1)}
	born  = append(house[:3:3], decide(0, 1, "r"))
)

func worker(id state.WorkerID, slots int) state.Command {
	return state.PutWorker{ID: id, Says: state.WorkerInfo{Name: string(id), Slots: slots}}
}

func after(log []state.Command, more ...state.Command) []state.Command {
	return append(slices.Clip(log), more...)
}

// play applies the commands at index 1, 2, 3 …, each a second after the one
// before, and returns the last answer.
func play(log []state.Command) (*state.State, state.Result) {
	s := state.New()
	var last state.Result
	for i, c := range log {
		last = s.Apply(uint64(i+1), state.Entry{Now: noon.Add(time.Duration(i) * time.Second), Commands: []state.Command{c}})[0]
	}
	return s, last
}

func TestTheLifeOfARun(t *testing.T) {
	const lost, ok = state.OutcomeLost, state.OutcomeSucceeded
	for _, tt := range []struct {
		name string
		log  []state.Command
		want state.Phase
		err  error // of the last command
	}{
		// The happy path.
		{"decided", born, state.Pending, nil},
		{"assigned", after(born, assign("a", 1)), state.Assigned, nil},
		{"started", after(born, assign("a", 1), start(5)), state.Running, nil},
		{"finished", after(born, assign("a", 1), start(5), finish(5, ok, state.Succeeded)), state.Succeeded, nil},
		{"finished before its start was told", after(born, assign("a", 1), finish(5, ok, state.Succeeded)), state.Succeeded, nil},

		// Saying it twice changes nothing.
		{"started twice", after(born, assign("a", 1), start(5), start(5)), state.Running, nil},
		{"finished twice", after(born, assign("a", 1), finish(5, ok, state.Succeeded), finish(5, state.OutcomeFailed, state.Failed)), state.Succeeded, nil},

		// A worker that went quiet and came back must not finish the run it lost.
		{"lost", after(born, assign("a", 1), finish(5, lost, state.Pending)), state.Pending, nil},
		{"heir", after(born, assign("a", 1), finish(5, lost, state.Pending), assign("b", 2)), state.Assigned, nil},
		{"ghost starts", after(born, assign("a", 1), finish(5, lost, state.Pending), assign("b", 2), start(5)), state.Assigned, state.ErrFence},
		{"ghost finishes", after(born, assign("a", 1), finish(5, lost, state.Pending), assign("b", 2), finish(5, ok, state.Succeeded)), state.Assigned, nil},
		{"heir finishes", after(born, assign("a", 1), finish(5, lost, state.Pending), assign("b", 2), finish(7, ok, state.Succeeded)), state.Succeeded, nil},
		{"late result of a run that is lost", after(born, assign("a", 1), finish(5, lost, state.Lost), finish(5, ok, state.Succeeded)), state.Lost, nil},
		{"a fence that is none", after(born, assign("a", 1), finish(6, ok, state.Succeeded)), state.Assigned, state.ErrFence},

		// Two leaders must not both give it away.
		{"assigned twice", after(born, assign("a", 1), assign("b", 1)), state.Assigned, state.ErrStale},
		{"assigned as another attempt", after(born, assign("a", 2)), state.Pending, state.ErrStale},
		{"assigned to nobody", after(born, assign("x", 1)), state.Pending, state.ErrStale},
		{"assigned to one that is gone", after(born, state.SetOffline{ID: "a"}, assign("a", 1)), state.Pending, state.ErrStale},
		{"assigned to one that is back", after(born, state.SetOffline{ID: "a"}, worker("a", 1), assign("a", 1)), state.Assigned, nil},
		{"assigned to one that drains", after(born, state.DrainWorker{ID: "a"}, assign("a", 1)), state.Pending, state.ErrStale},
		{"assigned to one that drains no more", after(born, state.DrainWorker{ID: "a"}, state.DrainWorker{ID: "a", Undo: true}, assign("a", 1)), state.Assigned, nil},
		{"assigned to one that is full", after(house, request("x", 0), state.Assign{Run: request("x", 0).ID, Attempt: 1, Worker: "a"}, decide(0, 1, "r", seen(1)), assign("a", 1)), state.Pending, state.ErrStale},

		// Ends that are asked for.
		{"cancelled while it waits", after(born, state.Cancel{Run: run, Note: "enough"}), state.Cancelled, nil},
		{"cancelled while it runs", after(born, assign("a", 1), state.Cancel{Run: run}), state.Assigned, nil},
		{"cancelled twice", after(born, assign("a", 1), state.Cancel{Run: run}, state.Cancel{Run: run}), state.Assigned, nil},
		{"cancelled too late", after(born, state.Cancel{Run: run}, state.Cancel{Run: run}), state.Cancelled, state.ErrFinal},
		{"assigned too late", after(born, state.Cancel{Run: run}, assign("a", 1)), state.Cancelled, state.ErrStale},
		{"given up", after(born, state.GiveUp{Run: run, Phase: state.TimedOut}), state.TimedOut, nil},
		{"given up too late", after(born, assign("a", 1), state.GiveUp{Run: run, Phase: state.TimedOut}), state.Assigned, state.ErrStale},

		// What contradicts itself is refused, and ends nobody.
		{"given up, but pending", after(born, state.GiveUp{Run: run, Phase: state.Pending}), state.Pending, state.ErrInvalid},
		{"finished, but running", after(born, assign("a", 1), finish(5, ok, state.Running)), state.Assigned, state.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, last := play(tt.log)
			if !errors.Is(last.Err, tt.err) {
				t.Errorf("err = %v, want %v", last.Err, tt.err)
			}
			if got := s.Run(run).Phase; got != tt.want {
				t.Errorf("the run is %v, want %v", got, tt.want)
			}
		})
	}
}

func TestLateResultIsKeptBeside(t *testing.T) {
	s, _ := play(after(born, assign("a", 1), finish(5, state.OutcomeLost, state.Lost), finish(5, state.OutcomeSucceeded, state.Succeeded), finish(5, state.OutcomeFailed, state.Failed)))
	a := s.Run(run).Attempts[0]
	if a.Outcome != state.OutcomeLost || a.Late != state.OutcomeSucceeded || a.LogBytes != 7 {
		t.Errorf("attempt = %+v, want lost, and the first late result", a)
	}
}

func TestTwoBirthsInOneEntry(t *testing.T) {
	s, _ := play(after(house, decide(0, 2, "rr")))
	var serials []uint64
	for r := range s.RunsByBirth() {
		serials = append(serials, r.Serial)
	}
	if diff := cmp.Diff([]uint64{4, 5}, serials); diff != "" {
		t.Errorf("serials:\n%s", diff)
	}
	if n := s.NumActive(uid); n != 2 || s.Activity(uid) != 2 {
		t.Errorf("%d active, activity %d", n, s.Activity(uid))
	}
}

func TestDecidingIsCompareAndSet(t *testing.T) {
	for _, tt := range []struct {
		name string
		log  []state.Command
		err  error
		runs int
	}{
		{"once", born, nil, 1},
		{"and on", after(born, decide(1, 2, "r", seen(1))), nil, 2},
		{"twice", after(born, decide(0, 1, "r", seen(1))), state.ErrStale, 1},
		{"beyond", after(born, decide(2, 3, "r", seen(1))), state.ErrStale, 1},
		{"backwards", after(born, decide(1, 0, "", seen(1))), state.ErrStale, 1},
		{"of another version", after(house, decide(0, 1, "r", version(2))), state.ErrStale, 0},
		{"of another life of the job", after(house, decide(0, 1, "r", func(c *state.Decide) { c.UID = 9 })), state.ErrStale, 0},
		{"of no trigger", after(house, decide(0, 1, "r", func(c *state.Decide) { c.Trigger = "x" })), state.ErrStale, 0},
		{"of no job", after(house, decide(0, 1, "r", func(c *state.Decide) { c.Key.Name = "x" })), state.ErrNotFound, 0},
		{"a run began meanwhile", after(house, request("x", 0), decide(0, 1, "r")), state.ErrStale, 1},
		{"a run ended meanwhile", after(born, state.Cancel{Run: run}, decide(1, 2, "r", seen(1))), state.ErrStale, 1},
		{"on record as missed", after(house, decide(0, 1, "M")), nil, 1},
		{"nothing came due", after(house, decide(0, 5, "")), nil, 0},

		{"an occurrence outside", after(house, decide(0, 1, "rr")), state.ErrInvalid, 0},
		{"an occurrence twice", after(house, decide(0, 2, "rr", func(c *state.Decide) { c.Decisions[1] = c.Decisions[0] })), state.ErrInvalid, 0},
		{"two at one instant", after(house, decide(0, 1, "r", func(c *state.Decide) { c.Decisions[0].Count = 2 })), state.ErrInvalid, 0},
		{"none", after(house, decide(0, 1, "r", func(c *state.Decide) { c.Decisions[0].Count = 0 })), state.ErrInvalid, 0},
		{"no decision", after(house, decide(0, 1, "r", func(c *state.Decide) { c.Decisions[0].Decision = 0 })), state.ErrInvalid, 0},
		{"born running", after(house, decide(0, 1, "r", func(c *state.Decide) { c.Decisions[0].Run.Phase = state.Running })), state.ErrInvalid, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, last := play(tt.log)
			if !errors.Is(last.Err, tt.err) {
				t.Errorf("err = %v, want %v", last.Err, tt.err)
			}
			if s.NumRuns() != tt.runs {
				t.Errorf("%d runs, want %d", s.NumRuns(), tt.runs)
			}
		})
	}
}

// A definition may change only when the old one has nothing left to decide, and
// the new one begins where the old one ended.
func TestChangingADefinition(t *testing.T) {
	for _, tt := range []struct {
		name  string
		log   []state.Command
		err   error
		since int // of trigger t
		past  int
	}{
		{"created", house, nil, 0, 0},
		{"not settled", after(house, put(def("", 2), 1)), state.ErrStale, 0, 0},
		{"settled", after(born, put(def("", 2), 1)), nil, 1, 1},
		{"the same again needs no settling", after(house, put(def("", 1), 1)), nil, 0, 0},
		{"a trigger that stays needs no settling", after(house, put(def("other", 1), 1)), nil, 0, 0},
		{"decided beyond that, by a faster clock", after(house, decide(0, 5, "rrrrr"), put(def("", 2), 1)), nil, 5, 1},
		{"away and back, with a slower clock", after(house, decide(0, 5, "rrrrr"), put(def(""), 1), put(def("", 1), 2)), nil, 5, 1},
		{"no definition", after(house, put(nil, 1)), state.ErrInvalid, 0, 0},
		{"no policy", after(house, put(&state.Definition{}, 1)), state.ErrInvalid, 0, 0},
		{"a trigger twice", after(house, put(&state.Definition{Policy: &state.Policy{}, Triggers: []*state.Trigger{{ID: "t"}, {ID: "t"}}}, 1)), state.ErrInvalid, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, last := play(tt.log)
			if !errors.Is(last.Err, tt.err) {
				t.Errorf("err = %v, want %v", last.Err, tt.err)
			}
			if got := s.Track(uid, "t").Since; !got.Equal(minute(tt.since)) {
				t.Errorf("the trigger counts since %v, want %v", got, minute(tt.since))
			}
			if n := len(s.PastTracks(uid)); n != tt.past {
				t.Errorf("%d past tracks, want %d", n, tt.past)
			}
		})
	}
}

func TestJobs(t *testing.T) {
	want := func(n uint64) *uint64 { return &n }
	for _, tt := range []struct {
		name string
		log  []state.Command
		err  error
		look func(j *state.Job) string // "" is well
	}{
		{"an expected version", after(house, state.PutJob{Key: job, Definition: def("x", 1), Expected: want(1)}), nil, versionIs(2)},
		{"another version than expected", after(house, state.PutJob{Key: job, Definition: def("x", 1), Expected: want(2)}), state.ErrVersion, versionIs(1)},
		{"expected not to be there", after(house, state.PutJob{Key: job, Definition: def("x", 1), Expected: want(0)}), state.ErrVersion, versionIs(1)},
		{"the same again is no version", after(house, put(def("", 1), 0)), nil, versionIs(1)},
		{"deleted", after(born, state.DeleteJob{Key: job, Effective: minute(1)}), nil, gone},
		{"deleted unsettled", after(house, state.DeleteJob{Key: job, Effective: minute(1)}), state.ErrStale, versionIs(1)},
		{"deleted at another version", after(born, state.DeleteJob{Key: job, Expected: want(7)}), state.ErrVersion, versionIs(1)},
		{"deleted twice", after(born, state.DeleteJob{Key: job}, state.DeleteJob{Key: job}), state.ErrNotFound, gone},
		{"paused", after(born, state.PauseJob{Key: job, Note: "n", Effective: minute(1)}), nil, func(j *state.Job) string {
			return cmp.Diff(&state.Pause{Note: "n", Since: minute(1)}, j.Pause)
		}},
		{"paused again keeps since when", after(born, state.PauseJob{Key: job, Effective: minute(1)}, state.PauseJob{Key: job, Note: "m", Until: minute(9), Effective: minute(1)}), nil, func(j *state.Job) string {
			return cmp.Diff(&state.Pause{Note: "m", Since: minute(1), Until: minute(9)}, j.Pause)
		}},
		{"paused unsettled", after(house, state.PauseJob{Key: job, Effective: minute(1)}), state.ErrStale, versionIs(1)},
		{"resumed", after(born, state.PauseJob{Key: job, Effective: minute(1)}, state.ResumeJob{Key: job, Effective: minute(1)}), nil, func(j *state.Job) string {
			return cmp.Diff((*state.Pause)(nil), j.Pause)
		}},
		{"paused, but not there", []state.Command{state.PauseJob{Key: job}}, state.ErrNotFound, gone},
		{"quarantined", after(house, state.Quarantine{Key: job, UID: 1, Version: 1, Reason: "why"}), nil, func(j *state.Job) string { return cmp.Diff("why", j.Quarantine) }},
		{"quarantined at another version", after(house, state.Quarantine{Key: job, UID: 1, Version: 2, Reason: "why"}), state.ErrStale, func(j *state.Job) string { return j.Quarantine }},
		{"a new definition ends a quarantine", after(house, state.Quarantine{Key: job, UID: 1, Version: 1, Reason: "why"}, put(def("x", 1), 0)), nil, func(j *state.Job) string { return j.Quarantine }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, last := play(tt.log)
			if !errors.Is(last.Err, tt.err) {
				t.Errorf("err = %v, want %v", last.Err, tt.err)
			}
			if wrong := tt.look(s.Job(job)); wrong != "" {
				t.Error(wrong)
			}
		})
	}
}

func versionIs(n uint64) func(*state.Job) string {
	return func(j *state.Job) string {
		if j == nil || j.Version != n {
			return fmt.Sprintf("the job is %+v, want version %d", j, n)
		}
		return ""
	}
}

func gone(j *state.Job) string {
	if j != nil {
		return fmt.Sprintf("the job is still there: %+v", j)
	}
	return ""
}

// A job that is deleted leaves its runs to end by themselves, and another of its
// name is another job.
func TestDeletedJobsRunsEnd(t *testing.T) {
	log := after(born, state.DeleteJob{Key: job, Effective: minute(1)}, put(def("new", 1), 2), assign("a", 1), finish(7, state.OutcomeSucceeded, state.Succeeded))
	s, last := play(log)
	if last.Err != nil || last.Run.Phase != state.Succeeded || last.Run.UID != uid {
		t.Errorf("the old run: %+v, %v", last.Run, last.Err)
	}
	if j := s.Job(job); j.UID != 6 || s.Activity(uid) != 0 || s.NumActive(j.UID) != 0 {
		t.Errorf("the new job %+v has the old one's activity", j)
	}
}

func TestRequests(t *testing.T) {
	again := request("x", 0)
	retry := request("y", 1)
	retry.RetryOf, retry.Trigger = run, "t"
	for _, tt := range []struct {
		name string
		log  []state.Command
		err  error
		runs int
	}{
		{"made", after(house, request("x", 0)), nil, 1},
		{"twice is the same", after(house, request("x", 0), again), nil, 1},
		{"beside others, seen", after(born, retry), nil, 2},
		{"beside others, not seen", after(born, request("x", 0)), state.ErrStale, 1},
		{"of no job", []state.Command{request("x", 0)}, state.ErrNotFound, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, last := play(tt.log)
			if !errors.Is(last.Err, tt.err) {
				t.Errorf("err = %v, want %v", last.Err, tt.err)
			}
			if s.NumRuns() != tt.runs {
				t.Errorf("%d runs, want %d", s.NumRuns(), tt.runs)
			}
		})
	}
	s, _ := play(after(born, retry))
	if r := s.Run(retry.ID); r.RetryOf != run || r.Trigger != "t" || r.Definition == nil {
		t.Errorf("retry = %+v", r)
	}
}

// spans prints a ledger: letter and count of each span.
func spans(t *state.Track) string {
	var b strings.Builder
	for _, s := range t.Spans() {
		fmt.Fprintf(&b, "%s%d ", []string{"", "r", "s", "m"}[s.Decision], s.Count)
	}
	return strings.TrimSpace(b.String())
}

func TestLedger(t *testing.T) {
	long := strings.Repeat("s", state.MaxSpan)
	prune := func(at int) state.Command { return state.Prune{LedgerBefore: minute(at)} }
	for _, tt := range []struct {
		name  string
		log   []state.Command
		want  string
		since int
	}{
		{"empty", house, "", 0},
		{"one grows", after(house, decide(0, 2, "ss"), decide(2, 5, "sss")), "s5", 0},
		{"each in turn", after(house, decide(0, 6, "ssmmsm")), "s2 m2 s1 m1", 0},
		{"another version begins anew", after(house, decide(0, 2, "ss"), put(def("other", 1), 2), decide(2, 3, "s", version(2))), "s2 s1", 0},
		{"closed when it is full", after(house, decide(0, state.MaxSpan, long), decide(state.MaxSpan, state.MaxSpan+2, "ss")), fmt.Sprintf("s%d s2", state.MaxSpan), 0},
		{"full is not too much", after(house, decide(0, state.MaxSpan, long)), fmt.Sprintf("s%d", state.MaxSpan), 0},
		{"trimmed", after(house, decide(0, 6, "ssmmsm"), prune(5)), "s1 m1", 4},
		{"not trimmed within a span", after(house, decide(0, 6, "ssmmsm"), prune(4)), "m2 s1 m1", 2},
		{"the open span stays", after(house, decide(0, 2, "ss"), prune(9)), "s2", 0},
		{"goes on after a trim", after(house, decide(0, 3, "smm"), prune(2), decide(3, 4, "m")), "m3", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, last := play(tt.log)
			if last.Err != nil {
				t.Fatal(last.Err)
			}
			track := s.Track(uid, "t")
			if got := spans(track); got != tt.want || !track.Since.Equal(minute(tt.since)) {
				t.Errorf("ledger %q since %v, want %q since %v", got, track.Since, tt.want, minute(tt.since))
			}
			for _, p := range track.Spans() {
				var digest uint64
				for at := p.First; !at.After(p.Last); at = at.Add(time.Minute) {
					digest += state.Mix(at)
				}
				if digest != p.Digest {
					t.Errorf("the digest of %+v is not that of its instants", p)
				}
			}
		})
	}
}

// The digest tells apart what the count does not.
func TestDigest(t *testing.T) {
	seen := map[uint64]int{}
	for i := range 500 {
		for _, gap := range []int{1, 2, 3} { // pairs that end alike
			seen[state.Mix(minute(i))+state.Mix(minute(i+gap))]++
		}
	}
	if len(seen) != 1500 {
		t.Errorf("1500 pairs of instants have %d digests", len(seen))
	}
}

func TestPrune(t *testing.T) {
	log := after(house, decide(0, 3, "rrr"))
	ids := []state.RunID{run, state.OccurrenceRunID(uid, "t", minute(2)), state.OccurrenceRunID(uid, "t", minute(3))}
	log = after(log, state.Cancel{Run: ids[0]}, state.Prune{Runs: append(ids, state.RunID{1})})
	s, last := play(log)
	if last.Err != nil || s.Run(ids[0]) != nil || s.Run(ids[1]) == nil || s.NumRuns() != 2 {
		t.Errorf("%v; %d runs: only the one that has ended may go", last.Err, s.NumRuns())
	}
	var births int
	for range s.RunsByBirth() {
		births++
	}
	for range s.RunsBefore(s.Run(ids[2]).Serial) {
		births++
	}
	if births != 3 {
		t.Errorf("%d births, want 2 by birth and 1 before the last", births)
	}
}

// Pruning many keeps the order of birth, and the pages of who reads it.
func TestPruneMany(t *testing.T) {
	const n = 3000
	s := state.New()
	s.Apply(1, state.Entry{Now: noon, Commands: []state.Command{put(def("", 1), 0)}})
	d := decide(0, n, strings.Repeat("M", n)).(state.Decide)
	if err := s.Apply(2, state.Entry{Now: noon, Commands: []state.Command{d}})[0].Err; err != nil {
		t.Fatal(err)
	}
	var p state.Prune
	for i := range n - 10 {
		p.Runs = append(p.Runs, state.OccurrenceRunID(uid, "t", minute(i+1)))
	}
	s.Apply(3, state.Entry{Now: noon, Commands: []state.Command{p}})
	var last uint64
	count := 0
	for r := range s.RunsByBirth() {
		if r.Serial <= last {
			t.Errorf("serial %d after %d", r.Serial, last)
		}
		last = r.Serial
		count++
	}
	for r := range s.RunsBefore(last - 4) {
		if r.Serial >= last-4 {
			t.Errorf("serial %d is not before %d", r.Serial, last-4)
		}
		count++
	}
	if count != 15 {
		t.Errorf("%d seen, want all 10, and the 5 of the page", count)
	}
}

func TestWorkers(t *testing.T) {
	slots := 5
	s, _ := play(after(house,
		state.PutWorker{ID: "a", Says: state.WorkerInfo{Name: "a", Slots: 1, Labels: map[string]string{"zone": "eu", "disk": "ssd"}}},
		state.UpdateWorker{ID: "a", SetLabels: map[string]string{"zone": "us", "rack": "7"}, Slots: &slots},
		state.UpdateWorker{ID: "a", RemoveLabels: []string{"rack"}},
	))
	w := s.Worker("a")
	if diff := cmp.Diff(map[string]string{"zone": "us", "disk": "ssd"}, w.Labels()); diff != "" || w.Slots() != 5 || !w.First.Equal(noon.Add(time.Second)) {
		t.Errorf("%+v, labels:\n%s", w, diff)
	}
	for _, tt := range []struct {
		name string
		log  []state.Command
		err  error
	}{
		{"removed", after(house, state.RemoveWorker{ID: "a"}), nil},
		{"removed in use", after(born, assign("a", 1), state.RemoveWorker{ID: "a"}), state.ErrActive},
		{"removed after use", after(born, assign("a", 1), finish(5, state.OutcomeFailed, state.Failed), state.RemoveWorker{ID: "a"}), nil},
		{"removed twice", after(house, state.RemoveWorker{ID: "a"}, state.RemoveWorker{ID: "a"}), state.ErrNotFound},
		{"drained, but not there", after(house, state.DrainWorker{ID: "x"}), state.ErrNotFound},
		{"offline, but not there", after(house, state.SetOffline{ID: "x"}), state.ErrNotFound},
		{"updated, but not there", after(house, state.UpdateWorker{ID: "x"}), state.ErrNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, last := play(tt.log); !errors.Is(last.Err, tt.err) {
				t.Errorf("err = %v, want %v", last.Err, tt.err)
			}
		})
	}
}

func TestNowNeverGoesBack(t *testing.T) {
	s := state.New()
	for i, n := range []int{3, 1, 4, 2} {
		s.Apply(uint64(i+1), state.Entry{Now: minute(n)})
	}
	if !s.Now().Equal(minute(4)) || s.Index() != 4 {
		t.Errorf("now %v at index %d", s.Now(), s.Index())
	}
}

func TestTheFirstClusterIDCounts(t *testing.T) {
	s, _ := play([]state.Command{state.InitCluster{ClusterID: "one"}, state.InitCluster{ClusterID: "two"}})
	if id := s.ClusterID(); id != "one" {
		t.Errorf("cluster %q", id)
	}
}

func TestRunIDs(t *testing.T) {
	ids := map[state.RunID]string{}
	for _, v := range []struct {
		name string
		id   state.RunID
	}{
		{"an occurrence", state.OccurrenceRunID(1, "t", noon)},
		{"of another job", state.OccurrenceRunID(2, "t", noon)},
		{"of another trigger", state.OccurrenceRunID(1, "u", noon)},
		{"of another instant", state.OccurrenceRunID(1, "t", minute(1))},
		{"a request", state.RequestRunID(1, "t")},
	} {
		if was, ok := ids[v.id]; ok {
			t.Errorf("%s and %s have the same id", v.name, was)
		}
		ids[v.id] = v.name
		if back, err := state.ParseRunID(v.id.String()); err != nil || back != v.id {
			t.Errorf("%v came back as %v, %v", v.id, back, err)
		}
	}
	for _, bad := range []string{"", "abc", strings.Repeat("1", 26), strings.Repeat("a", 27)} {
		if _, err := state.ParseRunID(bad); err == nil {
			t.Errorf("%q was taken for the id of a run", bad)
		}
	}
}
