package plan

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/schedd/schedd/raftstore/state"
)

// running makes a run whose first attempt runs on a worker.
func running(t *testing.T, edit func(*state.Definition)) (*world, *Queue, *state.Run) {
	t.Helper()
	w, q := newWorld(t), NewQueue()
	w.worker(q, "a", 4)
	w.define(edit)
	r := w.request(q, jobKey, "1")
	w.place(q)
	r = w.Run(r.ID)
	r = w.do(noon, state.Start{Run: r.ID, Fence: r.Live().Fence, Time: noon}).Run
	return w, q, r
}

func TestEnded(t *testing.T) {
	failed := state.Attempt{Outcome: state.OutcomeFailed, ExitCode: 1}
	lost := state.Attempt{Outcome: state.OutcomeLost, Reason: "gone"}
	retry := func(n int, codes ...int) func(*state.Definition) {
		return func(d *state.Definition) { d.Policy.Retry.MaxAttempts, d.Policy.Retry.ExitCodes = n, codes }
	}
	onLost := func(o state.OnLost) func(*state.Definition) {
		return func(d *state.Definition) { d.Policy.OnLost = o }
	}
	tests := []struct {
		name   string
		edit   func(*state.Definition)
		cancel bool
		result state.Attempt
		want   state.Phase
		reason string
	}{
		{"success", nil, false, state.Attempt{Outcome: state.OutcomeSucceeded}, state.Succeeded, ""},
		{"failure", nil, false, failed, state.Failed, "it exited with 1"},
		{"a signal", nil, false, state.Attempt{Outcome: state.OutcomeFailed, Signal: "SIGSEGV"}, state.Failed, "it was ended by SIGSEGV"},
		{"no such program", nil, false, state.Attempt{Outcome: state.OutcomeNotStarted, Reason: "exec /nope: not found"}, state.Failed, "exec /nope: not found"},
		{"timeout", nil, false, state.Attempt{Outcome: state.OutcomeTimedOut}, state.TimedOut, "its timeout ended it"},

		{"tried again", retry(2), false, failed, state.Pending, "attempt 1: it exited with 1"},
		{"an exit code worth another try", retry(2, 75, 1), false, failed, state.Pending, "attempt 1: it exited with 1"},
		{"an exit code that is not", retry(2, 75), false, failed, state.Failed, "it exited with 1"},
		{"a timeout is a failure", retry(2), false, state.Attempt{Outcome: state.OutcomeTimedOut}, state.Pending, "attempt 1: its timeout ended it"},

		// Killed, and nobody has asked for that but the leader, since it did not start in time.
		{"killed by start_within", nil, false, state.Attempt{Outcome: state.OutcomeCancelled, Reason: "too late"}, state.TimedOut, "too late"},
		{"killed by start_within, and tried again", retry(2, 75), false, state.Attempt{Outcome: state.OutcomeCancelled, Reason: "too late"}, state.Pending, "attempt 1: too late"},

		// Cancelled is never tried again, and success is success.
		{"cancelled", retry(5), true, state.Attempt{Outcome: state.OutcomeCancelled}, state.Cancelled, "because"},
		{"cancelled, and failed before it was told", retry(5), true, failed, state.Cancelled, "because"},
		{"cancelled, and done before it was told", nil, true, state.Attempt{Outcome: state.OutcomeSucceeded}, state.Succeeded, ""},

		// Refused: not the run's fault, so it waits for another worker.
		{"refused", nil, false, state.Attempt{Outcome: state.OutcomeRefused, Reason: "the worker is being stopped"}, state.Pending, "attempt 1: the worker is being stopped"},
		{"refused, and cancelled", nil, true, state.Attempt{Outcome: state.OutcomeRefused}, state.Cancelled, "because"},

		// Lost: the job's choice.
		{"lost", nil, false, lost, state.Lost, "gone"},
		{"lost, to be tried again", onLost(state.OnLostRetry), false, lost, state.Pending, "attempt 1: gone"},
		{"lost, though failures are tried again", retry(5), false, lost, state.Lost, "gone"},
		{"interrupted", nil, false, state.Attempt{Outcome: state.OutcomeInterrupted, Reason: "the host rebooted"}, state.Lost, "the host rebooted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, _, r := running(t, tt.edit)
			if tt.cancel {
				r = w.do(noon, state.Cancel{Run: r.ID, Note: "because"}).Run
			}
			r = w.do(noon, Ended(r, r.Live().Fence, tt.result, noon)).Run
			if r.Phase != tt.want || r.Reason != tt.reason {
				t.Errorf("%v because %q, want %v because %q", r.Phase, r.Reason, tt.want, tt.reason)
			}
			if r.Phase == state.Pending && !r.NotBefore.After(noon) {
				t.Errorf("the next attempt may begin at %v, want later than %v", r.NotBefore, noon)
			}
		})
	}
}

// The delay grows by its multiplier up to its bound, with a tenth on top at
// most.
func TestBackoff(t *testing.T) {
	_, _, r := running(t, func(d *state.Definition) {
		d.Policy.Retry = state.Retry{MaxAttempts: 10, InitialDelay: time.Second, Multiplier: 2, MaxDelay: 5 * time.Second}
	})
	for n, want := range []time.Duration{1, 2, 4, 5, 5} {
		want *= time.Second
		if got := backoff(r, n+1); got < want || got > want+want/10 {
			t.Errorf("after attempt %d: %v, want %v to a tenth more", n+1, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	wait := func(d *state.Definition) { d.Policy.OnLost = state.OnLostWait }
	total := func(d *state.Definition) { d.Policy.TotalTimeout = 10 * time.Minute }
	both := func(d *state.Definition) { wait(d); total(d) }
	tests := []struct {
		name   string
		edit   func(*state.Definition)
		phase  state.Phase
		silent time.Duration // how long the worker has had no session
		after  time.Duration // since it was assigned
		want   string
		next   time.Duration // after now; 0: none
	}{
		{"waits", nil, state.Pending, 0, 0, "queue", time.Hour},
		{"waited for too long", nil, state.Pending, 0, time.Hour, "give up", 0},
		{"assigned", nil, state.Assigned, 0, time.Second, "launch", resend},
		{"assigned, and may have started just now", nil, state.Assigned, 0, 5 * time.Minute, "", hearsay},
		{"assigned, and never started", nil, state.Assigned, 0, 5*time.Minute + hearsay, "kill", resend},
		{"runs", nil, state.Running, 0, time.Hour, "", 0},
		{"worker silent", nil, state.Running, time.Minute, time.Hour, "", 2 * time.Minute},
		{"worker silent for too long", nil, state.Running, 3 * time.Minute, time.Hour, "lost", 0},
		{"worker silent, and the job waits for it", wait, state.Running, 48 * time.Hour, 50 * time.Hour, "", 0},
		{"waits, and may not take as long as it may wait", total, state.Pending, 0, 0, "queue", 10 * time.Minute},
		{"waited for longer than all of it may take", total, state.Pending, 0, 10 * time.Minute, "give up", 0},
		{"assigned, and has little time", total, state.Assigned, 0, 295 * time.Second, "launch", resend},
		{"runs, and has some time", total, state.Running, 0, time.Minute, "", 9 * time.Minute},
		{"runs for longer than all of it may take", total, state.Running, 0, 10 * time.Minute, "stop", 0},
		{"its worker is waited for, as long as all of it may take", both, state.Running, time.Minute, time.Minute, "", 9 * time.Minute},
		{"its worker was waited for too long", both, state.Running, time.Minute, 10 * time.Minute, "stop", 0},
		{"assigned to a worker that is silent for too long", nil, state.Assigned, 3 * time.Minute, time.Hour, "lost", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, q := newWorld(t), NewQueue()
			w.worker(q, "a", 4)
			w.define(tt.edit)
			r := w.request(q, jobKey, "1")
			if tt.phase != state.Pending {
				w.place(q)
				r = w.Run(r.ID)
			}
			if tt.phase == state.Running {
				r = w.do(noon, state.Start{Run: r.ID, Fence: r.Live().Fence, Time: noon}).Run
			}
			now, silent := noon.Add(tt.after), time.Time{}
			if tt.silent > 0 {
				silent = now.Add(-tt.silent)
			}
			l := Check(r, silent, time.Time{}, now)
			if got := words(l); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			var next time.Duration
			if !l.Next.IsZero() {
				next = l.Next.Sub(now)
			}
			if next != tt.next {
				t.Errorf("next look after %v, want %v", next, tt.next)
			}
		})
	}
}

func words(l Look) string {
	switch c := l.Command.(type) {
	case state.GiveUp:
		return "give up"
	case state.Cancel:
		return "stop"
	case state.Finish:
		if c.Attempt.Outcome == state.OutcomeLost {
			return "lost"
		}
		return "finish"
	}
	switch {
	case l.Queue:
		return "queue"
	case l.Launch:
		return "launch"
	case l.Kill:
		return "kill"
	}
	return ""
}

// A run that takes too long is ended as one that is cancelled, and has timed out.
// Whoever ends well at the last moment has.
func TestTotalTimeout(t *testing.T) {
	for _, test := range []struct {
		name   string
		result state.Attempt
		after  time.Duration
		phase  state.Phase
		reason string
	}{
		{"killed", state.Attempt{Outcome: state.OutcomeCancelled, Reason: "killed on request"}, 10 * time.Minute, state.TimedOut, "total_timeout of 10m0s; killed on request"},
		{"failed", state.Attempt{Outcome: state.OutcomeFailed, ExitCode: 3}, 10 * time.Minute, state.TimedOut, "total_timeout of 10m0s"},
		{"lost", state.Attempt{Outcome: state.OutcomeLost, Reason: "silent"}, 10 * time.Minute, state.TimedOut, "total_timeout of 10m0s; silent"},
		{"ended well", state.Attempt{Outcome: state.OutcomeSucceeded}, 10 * time.Minute, state.Succeeded, ""},
		{"cancelled by somebody", state.Attempt{Outcome: state.OutcomeCancelled}, 0, state.Cancelled, "not needed"},
		{"cancelled before", state.Attempt{Outcome: state.OutcomeCancelled}, 9 * time.Minute, state.Cancelled, "not needed"},
	} {
		w, _, r := running(t, func(d *state.Definition) {
			d.Policy.TotalTimeout, d.Policy.Retry.MaxAttempts = 10*time.Minute, 9
		})
		at := noon.Add(test.after)
		cancel, late := Check(r, time.Time{}, time.Time{}, at).Command.(state.Cancel)
		if test.after == 0 { // and the clock was set since it began
			at = noon.Add(time.Hour)
		}
		if !late {
			cancel = state.Cancel{Run: r.ID, Note: "not needed"}
		}
		r = w.do(at, cancel).Run
		f := Ended(r, r.Live().Fence, test.result, at)
		if f.Phase != test.phase || !strings.Contains(f.Reason, test.reason) {
			t.Errorf("%s: it is %v (%s), want %v (%s)", test.name, f.Phase, f.Reason, test.phase, test.reason)
		}
	}
}

// A worker tells how an attempt ended of which nobody expects anything any more.
func TestLateResult(t *testing.T) {
	w, _, r := running(t, nil)
	r = w.do(noon, state.Cancel{Run: r.ID}).Run
	fence := r.Live().Fence
	r = w.do(noon, Ended(r, fence, state.Attempt{Outcome: state.OutcomeLost}, noon)).Run
	if !r.Phase.Final() {
		t.Fatalf("the run is %v", r.Phase)
	}
	late := w.do(noon, Ended(r, fence, state.Attempt{Outcome: state.OutcomeCancelled}, noon)).Run
	if late.Phase != r.Phase || late.Attempts[0].Late != state.OutcomeCancelled {
		t.Errorf("the run is %v, its attempt was late with %v", late.Phase, late.Attempts[0].Late)
	}
}

// A cancelled run's worker is told until it answers.
func TestCheckCancelled(t *testing.T) {
	w, _, r := running(t, nil)
	r = w.do(noon, state.Cancel{Run: r.ID}).Run
	if l := Check(r, time.Time{}, time.Time{}, noon); !l.Kill || l.Next.IsZero() {
		t.Errorf("%+v, want a kill that is repeated", l)
	}
}

// Whatever workers say of a run's attempts, however many there are: all of it together is
// bounded, it can be read, and the run itself tells the latest reason whole.
func TestReasonsOfARunAreBounded(t *testing.T) {
	w, q, r := running(t, func(d *state.Definition) {
		d.Policy.Retry.MaxAttempts, d.Policy.Retry.InitialDelay = 100, 0
	})
	long := strings.Repeat("ä", 512)
	now := noon
	for n := 1; ; n++ {
		now = now.Add(10 * time.Minute)
		outcome := state.OutcomeFailed
		if n%2 == 0 {
			outcome = state.OutcomeRefused
		}
		r = w.do(now, Ended(r, r.Live().Fence, state.Attempt{Outcome: outcome, Reason: long}, now)).Run
		if !strings.HasSuffix(r.Reason, long) {
			t.Fatalf("after attempt %d the run tells %d bytes of its reason", n, len(r.Reason))
		}
		if n == 1 && r.Attempts[0].Reason != long {
			t.Errorf("the first attempt's reason is shortened to %d bytes", len(r.Attempts[0].Reason))
		}
		if r.Phase.Final() {
			break
		}
		q.Add(r)
		q.NoteRun()
		if w.place(q); w.Run(r.ID).Live() == nil {
			t.Fatalf("attempt %d is not made", n+1)
		}
		r = w.Run(r.ID)
	}
	bytes := 0
	for _, a := range r.Attempts {
		if bytes += len(a.Reason); a.Reason == "" || !utf8.ValidString(a.Reason) {
			t.Errorf("attempt %d has the reason %q", a.Number, a.Reason)
		}
	}
	if n := len(r.Attempts); n != 199 || bytes > maxReasons+n*leastReason {
		t.Errorf("the reasons of %d attempts have %d bytes", n, bytes)
	}
}
