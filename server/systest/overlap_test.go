package systest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

const (
	overlapReplace = schedv1.Overlap_OVERLAP_REPLACE
	overlapQueue   = schedv1.Overlap_OVERLAP_QUEUE
	phaseLost      = schedv1.Phase_PHASE_LOST
)

// onlyOne has the processes of a job run one at a time, and no two of them even while
// some are lost.
func onlyOne(overlap schedv1.Overlap) func(*schedv1.Job) {
	p := leases()
	p.Overlap, p.OnLost = overlap, schedv1.OnLost_ON_LOST_FAIL
	return policy(p)
}

// neverTwo checks that the processes of a job ran one at a time.
func (w *world) neverTwo(name string) {
	w.Helper()
	if most := w.together(name); most != 1 {
		w.Errorf("up to %d processes of %s ran at the same time", most, name)
	}
}

// A run is replaced that takes its time to end, and the leader is killed meanwhile. The
// one that replaces it waits for the word that it has ended, over the change of leaders.
func TestReplaceOverAFailover(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		w.startWorker("shop-1", nil, 4)
		w.startWorker("shop-2", nil, 4)
		w.awaitOnline()
		w.does("j", func(runner.Spec) fakerunner.Behaviour {
			return fakerunner.Behaviour{Duration: 30 * time.Minute, IgnoreTerm: true}
		})
		w.define(job("j", policy(&schedv1.Policy{Overlap: overlapReplace, KillGrace: seconds(40)})))
		first := w.run("j")
		w.wait(time.Minute)
		second := w.run("j")
		w.wait(5 * time.Second)
		m := w.awaitLeader()
		m.kill()
		w.wait(20 * time.Second)
		w.ended(w.get(first.GetId()), phaseRunning, 0)
		if r := w.get(second.GetId()); r.GetPhase() != phasePending || !strings.Contains(r.GetReason(), "waits for 1 active run") {
			w.Errorf("the second run is %v (%s), while the first has not ended", r.GetPhase(), r.GetReason())
		}
		w.wait(25 * time.Second)
		w.ended(w.get(first.GetId()), phaseCancelled, cancelled)
		w.ended(w.get(second.GetId()), phaseRunning, 0)
		m.start()
		w.wait(time.Hour)
		w.neverTwo("j")
		w.settle(time.Hour)
		w.checkEverywhere()
	})
}

// A run is replaced whose worker is away. Nobody says that it has ended, so the next
// one waits until it must have, over a change of leaders; and what would have come in
// between is replaced while it waits.
func TestReplaceWhileTheWorkerIsAway(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		k := w.startWorker("shop-1", nil, 4)
		w.awaitOnline()
		w.does("j", deafForEver)
		w.define(w.leased(job("j", onlyOne(overlapReplace))))
		first := w.run("j")
		w.wait(time.Minute)
		other := w.startWorker("shop-2", nil, 4)
		w.awaitOnline()
		k.link.cut()
		w.wait(time.Second)
		second := w.run("j")
		w.wait(40 * time.Second)
		m := w.awaitLeader()
		m.kill()
		w.awaitLeader()
		third := w.run("j")
		w.wait(50 * time.Second)
		w.ended(w.get(first.GetId()), phaseRunning, 0)
		w.ended(w.get(second.GetId()), phaseCancelled)
		w.ended(w.get(third.GetId()), phasePending)
		w.wait(40 * time.Second)
		w.ended(w.get(first.GetId()), phaseCancelled, lost)
		w.ended(w.get(third.GetId()), phaseRunning, 0)
		if len(k.host.Running()) != 0 || len(other.host.Running()) != 1 {
			w.Errorf("%q and %q run", k.host.Running(), other.host.Running())
		}
		k.link.mend()
		m.start()
		w.wait(2 * time.Minute)
		if late := w.get(first.GetId()).GetAttempts()[0].GetLateResult(); late != leaseExpired {
			w.Errorf("the late result is %v", late)
		}
		w.neverTwo("j")
		w.cancel(third.GetId())
		w.settle(time.Hour)
		w.checkEverywhere()
	})
}

// A hundred runs wait for their turn behind one whose worker is gone, and no more. The
// leader is killed, and they go on waiting, and then run in their order, each once, one
// at a time.
func TestQueueOverLossAndFailover(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		k := w.startWorker("shop-1", nil, 4)
		w.awaitOnline()
		w.takes("j", time.Hour)
		w.define(w.leased(job("j", onlyOne(overlapQueue), policy(&schedv1.Policy{QueueTimeout: seconds(7200)}))))
		ids := []string{w.run("j").GetId()}
		w.wait(time.Minute)
		w.takes("j", 2*time.Second)
		w.startWorker("shop-2", nil, 4)
		w.awaitOnline()
		for range 100 {
			ids = append(ids, w.run("j").GetId())
		}
		tooMany := func() {
			w.Helper()
			_, err := w.runJob(&schedv1.RunJobRequest{Name: "j"})
			if told := w.refused(err, codes.FailedPrecondition); !strings.Contains(told, "100 runs wait already") {
				w.Errorf("told %q", told)
			}
		}
		tooMany()
		k.link.cut()
		w.wait(30 * time.Second)
		w.awaitLeader().kill()
		w.awaitLeader()
		tooMany()
		if n := len(w.runs("job=j,phase=PHASE_PENDING")); n != 100 {
			w.Errorf("%d wait after the change of leaders", n)
		}
		w.wait(10 * time.Minute)
		w.ended(w.get(ids[0]), phaseLost, lost)
		var began []string
		for _, h := range w.hosts {
			for _, l := range h.Lives() {
				run, _, _ := strings.Cut(l.Spec.ID, "/")
				began = append(began, run)
			}
		}
		if fmt.Sprint(began) != fmt.Sprint(ids) {
			w.Errorf("they ran in the order\n%v, want\n%v", began, ids)
		}
		w.all(w.runs("job=j")[1:], phaseSucceeded)
		w.neverTwo("j")
		w.calm()
		w.settle(time.Hour)
		w.checkEverywhere()
	})
}

// A new leader knows nothing of how long a worker has been silent, and so gives it all
// of lost_after: what was about to be given up may come back.
func TestLostAfterBeginsWithTheLeader(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		k := w.startWorker("shop-1", nil, 4)
		w.awaitOnline()
		w.does("j", talker(20*time.Minute, time.Minute))
		w.define(job("j", policy(&schedv1.Policy{LostAfter: seconds(120)})))
		r := w.run("j")
		w.wait(time.Minute)
		k.link.cut()
		for range 3 {
			w.wait(110 * time.Second)
			m := w.awaitLeader()
			m.kill()
			w.awaitLeader()
			m.start()
		}
		w.wait(80 * time.Second) // and up to 30 s until the worker tries again
		w.ended(w.get(r.GetId()), phaseRunning, 0)
		k.link.mend()
		w.ended(w.awaitPhase(r.GetId(), 30*time.Minute, phaseSucceeded), phaseSucceeded, succeeded)

		r = w.run("j")
		w.wait(time.Minute)
		k.link.cut()
		w.awaitLeader().kill()
		w.awaitLeader()
		w.wait(115 * time.Second)
		w.ended(w.get(r.GetId()), phaseRunning, 0)
		w.wait(15 * time.Second)
		w.ended(w.get(r.GetId()), phaseLost, lost)
		w.calm()
		w.wait(20 * time.Minute) // its process comes to its end
		w.settle(time.Hour)
		w.checkEverywhere()
	})
}
