package systest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// flood is a process that prints size bytes in pieces, all of its life.
func flood(d time.Duration, size, pieces int) script {
	return func(s runner.Spec) fakerunner.Behaviour {
		b := fakerunner.Behaviour{Duration: d}
		for n := range pieces {
			var piece bytes.Buffer
			for line := 0; piece.Len() < size/pieces; line++ {
				fmt.Fprintf(&piece, "%s piece %d line %d\n", s.ID, n, line)
			}
			b.Output = append(b.Output, fakerunner.Chunk{After: d / time.Duration(pieces), Data: piece.Bytes()})
		}
		return b
	}
}

// The link is cut again and again while processes flood their logs, sometimes so
// that both ends notice, sometimes so that neither does. Every byte arrives, once
// and in its place.
func TestLinkCutInAFlood(t *testing.T) {
	n := 4
	if testing.Short() {
		n = 2
	}
	seeds(t, n, func(w *world, dice *rand.Rand) {
		k := shop(w)
		w.does("flood", flood(4*time.Minute, 6<<20, 400))
		w.does("brief", talker(time.Second, 100*time.Millisecond))
		w.define(job("flood", policy(&schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_ALLOW})))
		w.define(job("brief", every(10*time.Second), policy(&schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_QUEUE})))
		for range 2 {
			w.run("flood")
		}
		for end := time.Now().Add(4 * time.Minute); time.Now().Before(end); {
			time.Sleep(upTo(dice, 15*time.Second)) // anywhere in the midst of things
			switch dice.IntN(5) {
			case 0:
				k.link.reset()
			case 1:
				k.link.cut()
			case 2:
				k.link.freeze()
			case 3:
				k.link.freeze()
				k.link.cut()
			case 4:
				w.restart(upTo(dice, 3*time.Second))
			}
			time.Sleep(upTo(dice, 20*time.Second))
			k.link.mend()
		}
		w.check()
		for _, r := range append(w.runsOf("flood"), w.runsOf("brief")...) {
			if p := r.GetPhase(); p != phaseSucceeded && p != phaseSkipped {
				w.Errorf("a run of %s is %v: %s", r.GetJob(), p, r.GetReason())
			}
		}
	})
}

// A load balancer forgets a flow, the worker comes back through another, and then
// the first one lives again with what it held up. The newest session counts.
func TestTwoSessionsOfAWorker(t *testing.T) {
	story(t, func(w *world) {
		k := shop(w)
		w.does("j", talker(100*time.Second, time.Second))
		w.define(job("j", every(10*time.Second), policy(&schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_ALLOW})))
		k.config.Slots = 40
		k.end()
		k.start()
		w.awaitOnline()
		epoch := w.known("shop-1").GetSessionEpoch()
		for range 5 {
			w.wait(2*time.Minute + 3*time.Second)
			k.link.freeze()
			w.wait(50 * time.Second)
			k.link.thaw()
			w.wait(20 * time.Second)
			is := w.known("shop-1")
			if is.GetSessionEpoch() <= epoch || is.GetPhase() != schedv1.WorkerPhase_WORKER_PHASE_ONLINE {
				w.Errorf("the session has epoch %d after %d, the worker is %v", is.GetSessionEpoch(), epoch, is.GetPhase())
			}
			epoch = is.GetSessionEpoch()
		}
		w.check()
		w.all(w.runsOf("j"), phaseSucceeded)
	})
}

// A worker's disk is cloned, key and all, and both copies run: they are one worker
// to the primary, so one of them works at a time, and jobs are done.
func TestClonedWorker(t *testing.T) {
	story(t, func(w *world) {
		k := shop(w)
		k.end()
		clone := k.clone("clone")
		k.start()
		clone.start()
		w.does("j", talker(25*time.Second, time.Second))
		w.define(job("j", every(20*time.Second), policy(&schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_ALLOW, OnLost: schedv1.OnLost_ON_LOST_RETRY})))
		w.wait(20 * time.Minute)
		if n := len(w.runs("job=j,phase=PHASE_SUCCEEDED")); n < 20 {
			w.Errorf("only %d runs succeeded: %v", n, phases(w.runsOf("j")))
		}
		w.check()
	})
}

// The primary's disk takes most of a second for each write. All is late by that,
// and right.
func TestSlowDisk(t *testing.T) {
	story(t, func(w *world) {
		w.startPrimary()
		w.startWorker("shop-1", nil, 20)
		w.awaitOnline()
		w.disk.BeforeWrite(func() { time.Sleep(700 * time.Millisecond) })
		w.does("j", talker(5*time.Second, time.Second))
		for i := range 10 {
			w.define(job(fmt.Sprint("j-", i), every(20*time.Second), policy(&schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_QUEUE})))
		}
		w.wait(10 * time.Minute)
		w.restart(time.Second)
		w.wait(10 * time.Minute)
		for _, r := range w.runs("phase=PHASE_SUCCEEDED") {
			nominal := r.GetNominalTime().AsTime()
			late := r.GetAttempts()[0].GetStartedTime().AsTime().Sub(nominal)
			if late > 5*time.Second && w.down(nominal.Add(-10*time.Second)) == 0 {
				w.Errorf("%s at %v started %v late", r.GetJob(), nominal, late)
			}
		}
		w.disk.BeforeWrite(nil)
		w.check()
		w.checkAllWell()
	})
}

// Two thousand jobs are due in the same second, and on time.
func TestManyAtOnce(t *testing.T) {
	n := 2000
	if testing.Short() {
		n = 300
	}
	story(t, func(w *world) {
		w.startPrimary()
		for i := range 4 {
			w.startWorker(fmt.Sprint("w-", i), nil, 1000)
		}
		w.awaitOnline()
		due := time.Now().Truncate(time.Minute).Add(2 * time.Minute)
		for i := range n {
			w.define(job(fmt.Sprintf("j-%04d", i), at(due)))
		}
		w.waitUntil(due.Add(2 * time.Second))
		runs := w.runs("")
		if len(runs) != n {
			w.Errorf("%d runs of %d", len(runs), n)
		}
		var most time.Duration
		on := map[string]int{}
		for _, r := range runs {
			a := r.GetAttempts()[0]
			most = max(most, a.GetStartedTime().AsTime().Sub(due))
			on[a.GetWorkerName()]++
		}
		if most > time.Second {
			w.Errorf("the last one started %v late", most)
		}
		for name, k := range on {
			if k < n/5 || k > n/3 {
				w.Errorf("%s got %d of %d", name, k, n)
			}
		}
		w.check()
		w.all(w.runs(""), phaseSucceeded)
	})
}
