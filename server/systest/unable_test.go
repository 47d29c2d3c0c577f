package systest

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// A worker can start nothing, for a reason of its own. No run fails by that: it says so, to
// people too, is given no more, and what it was given goes to another one. What only it may
// run waits, with the reason, and runs once it can.
func TestWorkerThatCanStartNothing(t *testing.T) {
	story(t, func(w *world) {
		w.startPrimary()
		w.startWorker("good", map[string]string{"good": "yes"}, 10)
		bad := w.startWorker("bad", nil, 10)
		bad.host.SetUnable(syscall.ENOSPC)
		w.awaitOnline()
		w.takes("j", 50*time.Second)
		w.takes("picky", time.Second)
		w.define(job("j", every(10*time.Second), overlapAllowed))
		w.define(job("picky", selector("!good")))
		w.wait(10 * time.Minute)
		picky := w.run("picky")
		w.wait(2 * time.Minute)
		if k := w.known("bad"); !strings.Contains(k.GetTrouble(), "can't start anything") || k.GetPhase() != schedv1.WorkerPhase_WORKER_PHASE_ONLINE {
			t.Errorf("of the worker people learn: %v", k)
		}
		tried := 0
		for _, r := range w.runsOf("j") {
			if p := r.GetPhase(); p == schedv1.Phase_PHASE_FAILED {
				t.Errorf("run %s has failed: %s", r.GetId(), r.GetReason())
			}
			for _, a := range r.GetAttempts() {
				if a.GetWorkerName() == "bad" {
					tried++
				}
			}
		}
		if tried != 1 {
			t.Errorf("%d attempts were given to the worker that can start nothing", tried)
		}
		w.awaitPhase(picky.GetId(), time.Second, schedv1.Phase_PHASE_PENDING)
		bad.host.SetUnable(nil)
		w.awaitPhase(picky.GetId(), 20*time.Second, phaseSucceeded)
		if k := w.known("bad"); k.GetTrouble() != "" {
			t.Errorf("once it can, people learn: %v", k)
		}
		w.deleteJob("j")
		w.settle(time.Hour)
	})
}

// The one worker that there is flaps: it seems well whenever it is asked, and starts
// nothing. A run waits for it as long as it may wait for a worker, and is neither dropped nor
// tried each second.
func TestWorkerThatRefusesForEver(t *testing.T) {
	story(t, func(w *world) {
		w.startPrimary()
		bad := w.newWorker("bad", nil, 10)
		bad.start()
		w.awaitOnline()
		w.does("j", func(runner.Spec) fakerunner.Behaviour {
			return fakerunner.Behaviour{StartError: runner.Unable(syscall.EAGAIN)}
		})
		w.define(job("j"))
		r := w.run("j")
		w.wait(20 * time.Minute)
		is := w.get(r.GetId())
		if n := len(is.GetAttempts()); is.GetPhase() != schedv1.Phase_PHASE_PENDING || n < 20 || n > 70 || !strings.Contains(is.GetReason(), syscall.EAGAIN.Error()) {
			t.Errorf("after 20 minutes it is %v with %d attempts, because %q", is.GetPhase(), n, is.GetReason())
		}
		w.takes("j", time.Second)
		w.awaitPhase(r.GetId(), 5*time.Minute, phaseSucceeded)
		w.settle(time.Hour)
	})
}
