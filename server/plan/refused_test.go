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
	if p := refusedPause(refusedLast(r)); p < 10*time.Second {
		t.Errorf("after 40 refusals: %v", p)
	}
	r.Attempts = append(r.Attempts, state.Attempt{Outcome: state.OutcomeFailed}, refused)
	if p := refusedPause(refusedLast(r)); p != time.Second {
		t.Errorf("after one that failed and one that was refused: %v", p)
	}
}
