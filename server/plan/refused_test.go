package plan

import (
	"strings"
	"testing"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// refuseAll has the only worker refuse a run whenever it is given it, until the run is
// given up or that time has come. It returns when it was refused.
func (w *world) refuseAll(q *Queue, id state.RunID, until time.Time) (at []time.Time) {
	w.t.Helper()
	for now := noon; now.Before(until); {
		look := Check(w.Run(id), time.Time{}, time.Time{}, now)
		if look.Command != nil {
			w.do(now, look.Command)
			return at
		}
		if !look.Queue {
			now = look.Next
			continue
		}
		q.Add(w.Run(id))
		w.do(now, q.Place(w.State, 1)...)
		r := w.Run(id)
		w.do(now, Ended(r, r.Live().Fence, state.Attempt{Outcome: state.OutcomeRefused, Reason: "no space left on device"}, now))
		at = append(at, now)
	}
	return at
}

// A run that its only worker refuses for ever is not dropped: it waits, with the reason, as
// long as it may wait for a worker. It is tried less and less often, so that it does not
// grow without bound.
func TestRefusedForEver(t *testing.T) {
	for _, test := range []struct {
		timeout, until time.Duration
		phase          state.Phase
		most           int
	}{
		{time.Hour, 2 * time.Hour, state.TimedOut, 70},
		{10 * 366 * 24 * time.Hour, 9 * 366 * 24 * time.Hour, state.Pending, 160},
	} {
		w, q := newWorld(t), NewQueue()
		w.worker(q, "a", 4)
		w.define(func(d *state.Definition) { d.Policy.QueueTimeout = test.timeout })
		r := w.request(q, jobKey, "1")
		q.Forget(r.ID, r.UID)
		at := w.refuseAll(q, r.ID, noon.Add(test.until))
		r = w.Run(r.ID)
		if r.Phase != test.phase || !strings.Contains(r.Reason, "no space left") {
			t.Errorf("with a queue_timeout of %v the run is %v because %q", test.timeout, r.Phase, r.Reason)
		}
		if n := len(at); n > test.most || n != len(r.Attempts) {
			t.Errorf("with a queue_timeout of %v it was refused %d times, and has %d attempts", test.timeout, n, len(r.Attempts))
		}
		last := at[len(at)-1].Sub(noon)
		if last < test.timeout*3/4 {
			t.Errorf("with a queue_timeout of %v it was tried for the last time after %v", test.timeout, last)
		}
		for i := 1; i < len(at); i++ {
			if pause := at[i].Sub(at[i-1]); pause < time.Second || pause > max(time.Second, at[i-1].Sub(noon)/8+time.Second) {
				t.Errorf("refusal %d came %v after the one before, %v after the first", i, pause, at[i-1].Sub(noon))
			}
		}
	}
}

// An end of another kind breaks the row: the next refusal costs a second.
func TestRefusedAnew(t *testing.T) {
	refused := state.Attempt{Outcome: state.OutcomeRefused}
	r := &state.Run{Phase: state.Pending}
	for range 40 {
		r.Attempts = append(r.Attempts, refused)
	}
	if p := refusedPause(len(r.Attempts) - FirstRefused(r)); p < 10*time.Second {
		t.Errorf("after 40 refusals: %v", p)
	}
	r.Attempts = append(r.Attempts, state.Attempt{Outcome: state.OutcomeFailed}, refused)
	if p := refusedPause(len(r.Attempts) - FirstRefused(r)); p != time.Second {
		t.Errorf("after one that failed and one that was refused: %v", p)
	}
}

// takenBack has a run given away and refused, at a moment after noon.
func (w *world) takenBack(r *state.Run, after time.Duration) *state.Run {
	w.t.Helper()
	now := noon.Add(after)
	r = w.do(now, state.Assign{Run: r.ID, Attempt: len(r.Attempts) + 1, Worker: "w-a"}).Run
	return w.do(now, Ended(r, r.Live().Fence, state.Attempt{Outcome: state.OutcomeRefused, Reason: "it stops"}, now)).Run
}

// A run counts its queue_timeout from when it could begin first, or again after an attempt
// that was made, however often it is refused.
func TestRefusalsDoNotMoveTheQueueTimeout(t *testing.T) {
	for name, test := range map[string]struct {
		begin func(w *world, r *state.Run) *state.Run
		since time.Duration
	}{
		"not made yet": {func(_ *world, r *state.Run) *state.Run { return r }, 0},
		"made before": {func(w *world, r *state.Run) *state.Run {
			r = w.do(noon, state.Assign{Run: r.ID, Attempt: 1, Worker: "w-a"}).Run
			return w.do(noon, Ended(r, r.Live().Fence, state.Attempt{Outcome: state.OutcomeFailed, ExitCode: 1}, noon.Add(time.Minute))).Run
		}, 2 * time.Minute},
	} {
		w, q := newWorld(t), NewQueue()
		w.worker(q, "a", 4)
		w.define(func(d *state.Definition) { d.Policy.Retry.MaxAttempts = 9 })
		r := test.begin(w, w.request(q, jobKey, "1"))
		for n := range 10 {
			r = w.takenBack(r, 2*time.Minute+time.Duration(n)*time.Minute)
			if r.Phase != state.Pending || !Refused(r) {
				t.Fatalf("%s: after %d refusals it is %v because %q", name, n+1, r.Phase, r.Reason)
			}
		}
		over := noon.Add(test.since + r.Definition.Policy.QueueTimeout)
		if l := Check(r, time.Time{}, time.Time{}, over.Add(-time.Second)); words(l) != "queue" || !l.Next.Equal(over) {
			t.Errorf("%s: a second before its queue_timeout is over it is to %q, and looked at again at %v", name, words(l), l.Next)
		}
		c, is := Check(r, time.Time{}, time.Time{}, over).Command.(state.GiveUp)
		if !is || c.Phase != state.TimedOut || !strings.Contains(c.Reason, "it stops") {
			t.Errorf("%s: when its queue_timeout is over: %+v, want that it is given up, and why it was refused", name, c)
		}
	}
}

// A jitter delays a run, and with it its queue_timeout, also when it was refused since.
func TestRefusedAfterAJitter(t *testing.T) {
	w, q := newWorld(t), NewQueue()
	w.worker(q, "a", 4)
	j := w.define(func(d *state.Definition) {
		d.Triggers = []*state.Trigger{{ID: "m", Every: &state.Every{Interval: time.Hour}, Jitter: 30 * time.Minute}}
	})
	w.settle(at("13:00:00"))
	r := w.ActiveRuns(j.UID)[0]
	want := QueuedSince(r)
	if !want.After(r.Created) {
		t.Fatalf("the run has no jitter: it begins at %v", want)
	}
	r = w.takenBack(r, want.Sub(noon)+time.Minute)
	if got := QueuedSince(r); !got.Equal(want) {
		t.Errorf("after a refusal it counts from %v, want from %v", got, want)
	}
}

// Somebody asked for the end of a run while it was agreed that it is tried again, or it was
// stopped since it took too long.
func TestCancelledWhilePending(t *testing.T) {
	for _, test := range []struct {
		after time.Duration
		asked bool
		want  state.Phase
	}{{time.Minute, true, state.Cancelled}, {10 * time.Minute, true, state.Cancelled}, {10 * time.Minute, false, state.TimedOut}} {
		w, _, r := running(t, func(d *state.Definition) {
			d.Policy.TotalTimeout, d.Policy.Retry.MaxAttempts = 10*time.Minute, 9
		})
		at := noon.Add(test.after)
		again := Ended(r, r.Live().Fence, state.Attempt{Outcome: state.OutcomeFailed, ExitCode: 1}, at)
		cancel := state.Cancel{Run: r.ID, Note: "not needed"}
		if !test.asked {
			cancel = Check(r, time.Time{}, time.Time{}, at).Command.(state.Cancel)
		}
		w.do(at, cancel)
		r = w.do(at, again).Run
		c, is := Check(r, time.Time{}, time.Time{}, at.Add(time.Second)).Command.(state.GiveUp)
		if !is || c.Phase != test.want || c.Reason != cancel.Note {
			t.Errorf("cancelled after %v (%s): %+v, want that it ends as %v", test.after, cancel.Note, c, test.want)
		}
	}
}
