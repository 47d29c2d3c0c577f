package systest

import (
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// newWaiting starts a group with a run that waits for a worker that there is none, for half
// an hour at most.
func newWaiting(w *world) *schedv1.Run {
	w.Helper()
	w.startGroup(3)
	w.define(job("nowhere", selector("zone=mars"), policy(&schedv1.Policy{QueueTimeout: seconds(1800)})))
	r := w.run("nowhere")
	w.wait(5*time.Minute + 300*time.Millisecond)
	return r
}

// handOver has another primary lead.
func (w *world) handOver(to string) {
	w.Helper()
	must[*schedv1.TransferLeadershipResponse](w)(w.primary.clusters.TransferLeadership(w.Context(), &schedv1.TransferLeadershipRequest{Id: to}))
}

// Some jumps of a clock no leader sees, and so some waits end for a time that nobody has
// lived through: that is as far as it goes.
func TestJumpThatNoLeaderSaw(t *testing.T) {
	for name, jump := range map[string]func(w *world){
		"its clock was wrong before it led": func(w *world) {
			m := w.follower()
			m.clock.step(time.Hour)
			w.wait(time.Minute)
			w.handOver(m.id)
		},
		"it was gone before it could say so": func(w *world) {
			for _, m := range w.group {
				m.clock.step(time.Hour)
			}
			w.awaitLeader().kill()
		},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				r := newWaiting(w)
				jump(w)
				w.wait(time.Minute)
				w.ended(w.get(r.GetId()), schedv1.Phase_PHASE_TIMED_OUT)
			})
		})
	}
}

// All clocks are set back by an hour. While the clock of the state stands, a leader counts
// for itself how long a run has waited, and the next one does so anew: what waits waits
// longer, and not for ever.
func TestClockOfTheStateStands(t *testing.T) {
	story(t, func(w *world) {
		r := newWaiting(w)
		for _, m := range w.group {
			m.clock.step(-time.Hour)
		}
		w.wait(20 * time.Minute)
		w.handOver("")
		w.wait(20 * time.Minute)
		if r := w.get(r.GetId()); r.GetPhase() != schedv1.Phase_PHASE_PENDING {
			w.Errorf("after 45 minutes, over two leaders, the run is %v because %q", r.GetPhase(), r.GetReason())
		}
		w.wait(11 * time.Minute) // nothing was put on record after it was made: from then on the clock stood
		w.ended(w.get(r.GetId()), schedv1.Phase_PHASE_TIMED_OUT)
	})
}
