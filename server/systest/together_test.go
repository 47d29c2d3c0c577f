package systest

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

var overlapAllowed = policy(&schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_ALLOW})

// Three primaries, workers that came in through any of them, and people who ask
// any of them.
func TestGroup(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		for i := range 6 {
			w.startWorker(fmt.Sprint("shop-", i), nil, 4)
		}
		w.awaitOnline()
		w.does("j", talker(20*time.Second, time.Second))
		w.define(job("j", every(5*time.Second), overlapAllowed))
		w.wait(2 * time.Minute)
		gateways := map[string]bool{}
		for _, k := range must[*schedv1.ListWorkersResponse](w)(w.primary.workers.ListWorkers(w.Context(), &schedv1.ListWorkersRequest{})).GetWorkers() {
			gateways[k.GetGateway()] = true
		}
		if len(gateways) < 2 {
			w.Errorf("all workers came in through %v", gateways)
		}
		w.settle(time.Hour)
		w.checkEverywhere()
		w.all(w.runsOf("j"), phaseSucceeded)
		for _, p := range must[*schedv1.GetStatusResponse](w)(w.primary.clusters.GetStatus(w.Context(), &schedv1.GetStatusRequest{})).GetStatus().GetPrimaries() {
			if !p.GetVoter() || p.GetVersion() == "" || p.GetAppliedIndex() == 0 || p.GetRole() == schedv1.PrimaryRole_PRIMARY_ROLE_UNSPECIFIED {
				w.Errorf("of a primary the status says only %v", p)
			}
		}
	})
}

// The leader is killed. The next one fires within three seconds, and no stream of
// a gateway that lives is cut.
func TestLeaderKilled(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		for i := range 6 {
			w.startWorker(fmt.Sprint("shop-", i), nil, 10)
		}
		w.awaitOnline()
		w.does("each-second", talker(100*time.Millisecond, 0))
		w.does("long", talker(3*time.Minute, time.Second))
		w.define(job("each-second", every(time.Second), overlapAllowed))
		w.define(job("long", every(20*time.Second), overlapAllowed))
		w.wait(time.Minute)
		for range 3 {
			before := map[string]*schedv1.Worker{}
			for _, k := range w.workers {
				before[k.name] = w.known(k.name)
			}
			m := w.awaitLeader()
			m.kill()
			w.wait(15 * time.Second)
			for _, k := range w.workers {
				is, was := w.known(k.name), before[k.name]
				if was.GetGateway() != m.id && is.GetSessionEpoch() != was.GetSessionEpoch() {
					w.Errorf("the session of %s at %s was cut when %s was killed", k.name, was.GetGateway(), m.id)
				}
				if is.GetPhase() != schedv1.WorkerPhase_WORKER_PHASE_ONLINE {
					w.Errorf("%s is %v 15 s after %s was killed", k.name, is.GetPhase(), m.id)
				}
			}
			m.start()
			w.wait(30 * time.Second)
		}
		w.settle(time.Hour)
		w.checkEverywhere()
		for _, name := range []string{"each-second", "long"} {
			runs := w.runsOf(name)
			w.all(runs, phaseSucceeded)
			for _, r := range runs {
				if late := r.GetAttempts()[0].GetStartedTime().AsTime().Sub(r.GetNominalTime().AsTime()); late > 4*time.Second {
					w.Errorf("%s at %v started %v late", name, r.GetNominalTime().AsTime(), late)
				}
			}
		}
	})
}

// One primary after the other is stopped and started, under load. Nobody notices.
func TestRollingRestart(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		for i := range 8 {
			w.startWorker(fmt.Sprint("shop-", i), nil, 10)
		}
		w.awaitOnline()
		w.does("each-second", talker(100*time.Millisecond, 0))
		w.does("flood", flood(2*time.Minute, 2<<20, 200))
		w.define(job("each-second", every(time.Second), overlapAllowed))
		w.define(job("flood", every(30*time.Second), overlapAllowed))
		w.wait(time.Minute)
		for _, m := range w.group {
			m.leave()
			w.wait(2 * time.Second)
			m.start()
			w.wait(30 * time.Second)
		}
		w.wait(time.Minute)
		w.settle(time.Hour)
		w.checkEverywhere()
		w.all(w.runsOf("flood"), phaseSucceeded)
		runs := w.runsOf("each-second")
		w.all(runs, phaseSucceeded)
		for _, r := range runs {
			if late := r.GetAttempts()[0].GetStartedTime().AsTime().Sub(r.GetNominalTime().AsTime()); late > 2*time.Second {
				w.Errorf("at %v it started %v late", r.GetNominalTime().AsTime(), late)
			}
		}
	})
}

// A gateway is parted from the other primaries. Its workers come back through
// those, and what ran on them meanwhile is as if nothing had happened.
func TestGatewayCutOff(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		for i := range 6 {
			w.startWorker(fmt.Sprint("shop-", i), nil, 4)
		}
		w.awaitOnline()
		w.does("j", talker(5*time.Minute, time.Second))
		w.define(job("j", every(time.Minute), overlapAllowed))
		w.wait(3 * time.Minute)
		leader := w.awaitLeader()
		m := w.group[0]
		if m == leader {
			m = w.group[1]
		}
		m.isolate(true)
		any := w.primary
		w.primary = leader.own // a load balancer that asks /readyz would see to that
		w.wait(3 * time.Minute)
		for _, k := range w.workers {
			if is := w.known(k.name); is.GetGateway() == m.id || is.GetPhase() != schedv1.WorkerPhase_WORKER_PHASE_ONLINE {
				w.Errorf("%s is %v at %q", k.name, is.GetPhase(), is.GetGateway())
			}
		}
		w.primary = any
		m.isolate(false)
		w.wait(time.Minute)
		w.settle(time.Hour)
		w.checkEverywhere()
		w.all(w.runsOf("j"), phaseSucceeded)
	})
}

// A worker that can't dial out is dialled by the primaries. Whichever of them
// does, and whoever leads, what runs on it is not disturbed.
func TestDirectWorker(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		for i := range 3 {
			w.startDirectWorker(fmt.Sprint("vault-", i), nil, 10)
		}
		w.awaitOnline()
		w.does("j", talker(90*time.Second, time.Second))
		w.define(job("j", every(5*time.Second), overlapAllowed))
		w.wait(time.Minute)
		gateways := map[string]bool{}
		for _, k := range w.workers {
			gateways[w.known(k.name).GetGateway()] = true
		}
		if len(gateways) != 3 {
			w.Errorf("three workers are dialled by %v", gateways)
		}
		for _, end := range []func(*member){(*member).kill, (*member).leave} {
			m := w.awaitLeader()
			end(m)
			w.wait(15 * time.Second)
			for _, k := range w.workers {
				if is := w.known(k.name); is.GetPhase() != schedv1.WorkerPhase_WORKER_PHASE_ONLINE || is.GetGateway() == m.id {
					w.Errorf("%s is %v at %s, 15 s after the end of %s", k.name, is.GetPhase(), is.GetGateway(), m.id)
				}
			}
			m.start()
			w.wait(30 * time.Second)
		}
		m := one(rand.New(rand.NewPCG(1, 2)), w.group...)
		w.net.mute(way{m.id, w.workers[0].name})
		w.wait(2 * time.Minute)
		w.net.unmute()
		w.workers[1].crash()
		w.workers[1].start()
		w.wait(time.Minute)
		w.settle(time.Hour)
		w.checkEverywhere()
		if runs := count(w.runsOf("j")); runs[phaseSucceeded] < 60 || runs[schedv1.Phase_PHASE_LOST] > 10 {
			w.Errorf("the runs are %v", runs)
		}
	})
}

// A primary has lost its disk, run logs and all, and comes back empty. It gets
// everything from the others, and serves it when they are gone.
func TestEmptyPrimary(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		w.startWorker("shop-1", nil, 10)
		w.awaitOnline()
		w.does("j", talker(10*time.Second, time.Second))
		w.define(job("j", every(5*time.Second), overlapAllowed))
		w.wait(2 * time.Minute)
		m := w.group[1]
		m.kill()
		m.wipe()
		w.wait(time.Minute)
		m.start()
		w.settle(time.Hour)
		w.wait(time.Minute)
		runs := w.runsOf("j")
		ran := w.processes(runs)
		any := w.primary
		defer func() { w.primary = any }()
		w.primary = m.own
		for _, r := range runs {
			for _, a := range w.get(r.GetId()).GetAttempts() {
				w.checkLog("after the loss of a disk, run "+r.GetId(), r, a, ran[attemptID(r, a)].Life)
			}
		}
	})
}
